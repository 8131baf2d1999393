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

int tok_add_token(struct tokenizer *t, const struct added *a, const void *text, size_t n, struct err *e) {
    if (n == 0 || n > VOCAB_MAX_PIECE)
        return err_set(e, ERR_MODEL, "the added token %u has a text of %zu bytes", a->id, n);
    if (t->n_added == t->cap_added) {
        uint32_t cap = t->cap_added ? 2 * t->cap_added : 64;
        struct added *p = realloc(t->added, cap * sizeof *p);
        if (!p)
            return err_set(e, ERR_MEMORY, "out of memory for %u added tokens", cap);
        t->added = p;
        t->cap_added = cap;
    }
    struct added *to = &t->added[t->n_added];
    *to = *a;
    to->n_text = (uint32_t)n;
    to->text = malloc(n + 1);
    if (!to->text)
        return err_set(e, ERR_MEMORY, "out of memory for added tokens");
    memcpy(to->text, text, n);
    to->text[n] = '\0';
    t->n_added++;
    return strset_add(&t->special, text, n, a->id, e);
}

int tok_add_front(struct tokenizer *t, uint32_t id, struct err *e) {
    if (id >= t->vocab.n || vocab_type(&t->vocab, id) == PIECE_NONE)
        return err_set(e, ERR_MODEL, "token %u, to be put in front of text, is not in the vocabulary", id);
    uint32_t *p = realloc(t->front, (t->n_front + 1) * sizeof *p);
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory for a tokenizer");
    t->front = p;
    t->front[t->n_front++] = id;
    return 0;
}

void tokenizer_free(struct tokenizer *t) {
    if (!t)
        return;
    for (uint32_t i = 0; i < t->n_added; i++)
        free(t->added[i].text);
    free(t->added);
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    strset_free(&t->special);
    spm_free(&t->spm);
    hf_free(&t->hf);
    free(t->front);
    free(t);
}

uint32_t tokenizer_n(const struct tokenizer *t) {
    return t->vocab.n;
}

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) { /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

uint64_t tokenizer_hash(const struct tokenizer *t) {
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t id = 0; id < t->vocab.n; id++) {
        size_t n;
        const uint8_t *p = vocab_bytes(&t->vocab, id, &n);
        const uint8_t head[3] = {(uint8_t)n, (uint8_t)(n >> 8), tokenizer_is_special(t, id)};
        h = hash_bytes(hash_bytes(h, head, sizeof head), p, n);
    }
    return (h ^ h >> 32) * 0xff51afd7ed558ccdu;
}

const char *tokenizer_kind(const struct tokenizer *t) {
    static const char *const names[KIND_COUNT] = {"spm-bpe", "byte-bpe", "metaspace-bpe", "tekken"};
    return names[t->kind];
}

int tokenizer_bos(const struct tokenizer *t) {
    return t->bos;
}

int tokenizer_eos(const struct tokenizer *t) {
    return t->eos;
}

bool tokenizer_add_bos(const struct tokenizer *t) {
    return t->n_front != 0;
}

int tokenizer_special(const struct tokenizer *t, const char *text, size_t n) {
    uint32_t id = strset_find(&t->special, text, n);
    return id == UINT32_MAX ? -1 : (int)id;
}

/* The added token of an id, or NULL. */
static const struct added *added_of(const struct tokenizer *t, uint32_t id) {
    for (uint32_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == id)
            return &t->added[i];
    return NULL;
}

const char *tokenizer_special_text(const struct tokenizer *t, uint32_t id) {
    const struct added *a = added_of(t, id);
    return a ? a->text : "";
}

bool tokenizer_is_special(const struct tokenizer *t, uint32_t id) {
    return id < t->vocab.n &&
           (vocab_type(&t->vocab, id) == PIECE_CONTROL || vocab_type(&t->vocab, id) == PIECE_UNKNOWN);
}

static int encode(struct enc *c, const uint8_t *p, size_t n, struct err *e) {
    const struct tokenizer *t = c->t;
    if (n > TOK_MAX_TEXT)
        return err_set(e, ERR_USAGE, "the text has %zu bytes; at most %zu can be tokenized at once", n, TOK_MAX_TEXT);
    for (uint32_t i = 0; (c->flags & TOK_BOS) && i < t->n_front; i++)
        ids_push(c->out, t->front[i]);
    int rc = t->kind == KIND_SPM ? spm_encode(c, p, n, e) : hf_encode(c, p, n, e);
    if (rc == 0 && c->out->bad)
        rc = err_set(e, ERR_MEMORY, "out of memory for the tokens of %zu bytes of text", n);
    bpe_work_free(&c->w);
    spans_free(&c->words);
    spans_free(&c->words_tmp);
    regex_scratch_free(c->regex);
    return rc;
}

size_t enc_room(struct enc *c, size_t i, size_t n) {
    const struct tok_plain *q = c->plain;
    while (c->next_plain < c->n_plain && i >= q[c->next_plain].off && i - q[c->next_plain].off >= q[c->next_plain].n)
        c->next_plain++;
    if (c->next_plain == c->n_plain || q[c->next_plain].off >= n)
        return n - i;
    return q[c->next_plain].off > i ? q[c->next_plain].off - i : 0;
}

int tokenizer_encode_mixed(const struct tokenizer *t, const char *text, size_t n, const struct tok_plain *plain,
                           size_t n_plain, int flags, struct ids *out, struct err *e) {
    struct enc c = {.t = t, .out = out, .flags = flags | TOK_SPECIAL, .plain = plain, .n_plain = n_plain};
    return encode(&c, (const uint8_t *)text, n, e);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int flags, struct ids *out, struct err *e) {
    struct enc c = {.t = t, .out = out, .flags = flags};
    return encode(&c, (const uint8_t *)text, n, e);
}
