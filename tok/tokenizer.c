#include "tok/tokenizer.h"

#include "core/base/file.h"
#include "core/base/wipe.h"
#include "tok/tok_impl.h"

#include <stdlib.h>
#include <string.h>

void ids_push(struct ids *v, uint32_t id) {
    if (v->n == v->cap && !v->bad) {
        size_t cap = v->cap ? 2 * v->cap : 64;
        uint32_t *p = malloc(cap * sizeof *p); /* not realloc: it could leave a copy of the text behind */
        if (p) {
            if (v->n)
                memcpy(p, v->p, v->n * sizeof *p);
            wipe_free(v->p, v->cap * sizeof *v->p);
            v->p = p;
            v->cap = cap;
        }
        v->bad = !p;
    }
    if (!v->bad)
        v->p[v->n++] = id;
}

void ids_clear(struct ids *v) {
    wipe(v->p, v->n * sizeof *v->p);
    v->n = 0;
    v->bad = false;
}

void ids_free(struct ids *v) {
    wipe_free(v->p, v->cap * sizeof *v->p);
    *v = (struct ids){0};
}

struct tokenizer *tok_new(enum tok_kind kind, struct err *e) {
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(e, ERR_MEMORY, "out of memory for a tokenizer");
        return NULL;
    }
    t->kind = kind;
    t->bos = t->eos = t->unk = -1;
    for (int b = 0; b < 256; b++)
        t->byte_id[b] = NO_ID;
    return t;
}

void tokenizer_free(struct tokenizer *t) {
    if (!t)
        return;
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    strset_free(&t->special);
    spm_free(&t->spm);
    free(t);
}

uint32_t tokenizer_n(const struct tokenizer *t) {
    return t->vocab.n;
}

const char *tokenizer_kind(const struct tokenizer *t) {
    static const char *const names[KIND_COUNT] = {"spm-bpe"};
    return names[t->kind];
}

int tokenizer_bos(const struct tokenizer *t) {
    return t->bos;
}

int tokenizer_eos(const struct tokenizer *t) {
    return t->eos;
}

bool tokenizer_add_bos(const struct tokenizer *t) {
    return t->add_bos;
}

int tokenizer_special(const struct tokenizer *t, const char *text, size_t n) {
    uint32_t id = strset_find(&t->special, text, n);
    return id == UINT32_MAX ? -1 : (int)id;
}

bool tokenizer_is_special(const struct tokenizer *t, uint32_t id) {
    return id < t->vocab.n &&
           (vocab_type(&t->vocab, id) == PIECE_CONTROL || vocab_type(&t->vocab, id) == PIECE_UNKNOWN);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int flags, struct ids *out, struct err *e) {
    struct enc c = {.t = t, .out = out};
    const uint8_t *p = (const uint8_t *)text;
    bool prefix = !(flags & TOK_CONTINUE);
    int rc = -1;
    if (n > TOK_MAX_TEXT)
        return err_set(e, ERR_USAGE, "the text has %zu bytes; at most %zu can be tokenized at once", n, TOK_MAX_TEXT);
    if ((flags & TOK_BOS) && t->bos >= 0)
        ids_push(out, (uint32_t)t->bos);
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        uint32_t id;
        size_t k = flags & TOK_SPECIAL ? strset_match(&t->special, p + i, n - i, &id) : 0;
        if (k == 0) {
            i++;
            continue;
        }
        if (from < i && spm_encode(&c, p + from, i - from, prefix, e) != 0)
            goto out;
        ids_push(out, id);
        prefix = true;
        from = i += k;
    }
    if (from < n && spm_encode(&c, p + from, n - from, prefix, e) != 0)
        goto out;
    rc = out->bad ? err_set(e, ERR_MEMORY, "out of memory for the tokens of %zu bytes of text", n) : 0;
out:
    bpe_work_free(&c.w);
    return rc;
}

static int open_spm(struct tokenizer **out, const char *path, struct err *e) {
    char *data;
    size_t n;
    if (file_read(path, TOK_MAX_FILE, &data, &n, e) != 0)
        return -1;
    int rc = tokenizer_parse_spm(out, (const uint8_t *)data, n, path, e);
    free(data);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *path, struct err *e) {
    char file[4096];
    *out = NULL;
    if (!file_is_dir(path))
        return open_spm(out, path, e);
    if (file_join(file, sizeof file, path, "tokenizer.model", e) != 0)
        return -1;
    return open_spm(out, file, e);
}
