#include "cmd/bench/traces.h"

#include "cmd/json.h"
#include "core/base/file.h"
#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 30 };

static uint64_t text_hash(const char *s, size_t n) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h;
}

static void push_special(const struct tokenizer *tok, const char *text, struct ids *out) {
    int id = tokenizer_special(tok, text, strlen(text));
    if (id >= 0)
        ids_push(out, (uint32_t)id);
}

/* Takes over what ids holds. */
static int append(struct traces *t, struct ids *ids, size_t n_prompt, uint64_t hash, struct err *e) {
    struct trace *at = ids->bad || ids->n > UINT32_MAX ? NULL : realloc(t->at, (size_t)(t->n + 1) * sizeof *at);
    if (!at) {
        ids_free(ids);
        return err_set(e, ERR_MEMORY, "out of memory for recorded answers");
    }
    t->at = at;
    t->at[t->n++] =
        (struct trace){.prompt_hash = hash, .tokens = ids->p, .n_prompt = (uint32_t)n_prompt, .n = (uint32_t)ids->n};
    return 0;
}

/* The frame of Mistral's template where the tokenizer has its tokens; elsewhere prompt and answer follow each other. */
static int add_answer(struct traces *t, const struct tokenizer *tok, yyjson_val *o, struct err *e) {
    yyjson_val *p = yyjson_obj_get(o, "prompt"), *a = yyjson_obj_get(o, "output");
    struct ids ids = {0};
    if (!yyjson_is_str(p) || !yyjson_is_str(a))
        return err_set(e, ERR_IO, "no \"prompt\" and \"output\" that are strings");
    if (tokenizer_bos(tok) >= 0)
        ids_push(&ids, (uint32_t)tokenizer_bos(tok));
    push_special(tok, "[INST]", &ids);
    if (tokenizer_encode(tok, yyjson_get_str(p), yyjson_get_len(p), 0, &ids, e) != 0)
        goto fail;
    push_special(tok, "[/INST]", &ids);
    size_t n_prompt = ids.n;
    if (tokenizer_encode(tok, yyjson_get_str(a), yyjson_get_len(a), 0, &ids, e) != 0)
        goto fail;
    return append(t, &ids, n_prompt, text_hash(yyjson_get_str(p), yyjson_get_len(p)), e);
fail:
    ids_free(&ids);
    return -1;
}

static int read_lines(struct traces *t, const char *path, char *data, size_t n, const struct tokenizer *tok,
                      struct err *e) {
    int line = 0;
    for (char *s = data, *end; s < data + n; s = end + 1) {
        line++;
        end = memchr(s, '\n', (size_t)(data + n - s));
        if (!end)
            end = data + n;
        if (end == s)
            continue;
        yyjson_doc *d = yyjson_read_opts(s, (size_t)(end - s), 0, &json_wiping, NULL);
        int rc = d ? add_answer(t, tok, yyjson_doc_get_root(d), e) : err_set(e, ERR_IO, "not JSON");
        yyjson_doc_free(d);
        if (rc != 0)
            return err_wrap(e, "%s, line %d", path, line);
    }
    return 0;
}

int traces_read(struct traces *t, const char *path, const struct tokenizer *tok, struct err *e) {
    char *data;
    size_t n;
    if (file_read(path, FILE_MAX, &data, &n, e) != 0)
        return -1;
    int rc = 0;
    if (n > 0 && data[0] == '{') {
        rc = read_lines(t, path, data, n, tok, e);
    } else if (n > 0) {
        struct ids ids = {0};
        rc = tokenizer_encode(tok, data, n, 0, &ids, e);
        if (rc == 0)
            rc = append(t, &ids, 0, 0, e);
        else
            ids_free(&ids);
    }
    wipe_free(data, n);
    return rc;
}

void traces_free(struct traces *t) {
    for (int i = 0; i < t->n; i++)
        wipe_free(t->at[i].tokens, t->at[i].n * sizeof *t->at[i].tokens);
    free(t->at);
    *t = (struct traces){0};
}
