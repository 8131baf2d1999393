/* Tokenizers against what their oracles said (test/golden/tok, made by test/oracle/make_tokens.py): full ids of short
 * texts, hashes of ids and decoded text over generated and shared corpora. The texts are generated here by the same
 * rules as there. */
#include "core/base/file.h"
#include "core/model/gguf.h"
#include "test/unit/model_rig.h"
#include "tok/tokenizer.h"
#include "tok/utf8.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#define DIR "test/golden/tok/"

enum { MIX_EACH = 100, DECODE_LISTS = 200 };

static uint64_t below(uint64_t *s, uint64_t n) {
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (*s * 2685821657736338717u >> 33) % n;
}

static uint64_t fnv(uint64_t h, const void *p, size_t n) {
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

static uint64_t fnv_u32(uint64_t h, uint32_t v) {
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    return fnv(h, b, 4);
}

/* --- Texts ---------------------------------------------------------------------------------------------------------
 */

struct texts {
    struct wbuf *t;
    size_t n;
};

static struct wbuf *new_text(struct texts *v) {
    v->t = realloc(v->t, (v->n + 1) * sizeof *v->t);
    cr_assert(v->t);
    v->t[v->n] = (struct wbuf){0};
    wbuf_room(&v->t[v->n], 1);
    return &v->t[v->n++];
}

static void texts_free(struct texts *v) {
    for (size_t i = 0; i < v->n; i++)
        wbuf_free(&v->t[i]);
    free(v->t);
    *v = (struct texts){0};
}

static void put_char(struct wbuf *w, uint32_t cp) {
    uint8_t b[4];
    wbuf_put(w, b, utf8_put(b, cp));
}

static yyjson_doc *cases(void) {
    struct err e = {0};
    char *data;
    size_t n;
    cr_assert_eq(file_read(DIR "cases.json", 1 << 20, &data, &n, &e), 0, "%s", e.msg);
    yyjson_doc *doc = yyjson_read(data, n, 0);
    free(data);
    cr_assert(doc);
    return doc;
}

static void short_texts(struct texts *v) {
    yyjson_doc *doc = cases();
    yyjson_val *item;
    size_t i, max;
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "short"), i, max, item) {
        wbuf_put(new_text(v), yyjson_get_str(item), yyjson_get_len(item));
    }
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "bad_utf8_hex"), i, max, item) {
        struct wbuf *w = new_text(v);
        for (const char *h = yyjson_get_str(item); *h; h += 2) {
            unsigned b;
            cr_assert_eq(sscanf(h, "%2x", &b), 1);
            wbuf_u8(w, (uint8_t)b);
        }
    }
    yyjson_doc_free(doc);
}

/* Groups 0-15 are plane 0 in steps of 0x1000, 16-31 planes 1 to 16; 256 code points to a text. */
static void block_texts(struct texts *v, unsigned group) {
    uint32_t base = group < 16 ? group * 0x1000 : (group - 15) * 0x10000, size = group < 16 ? 0x1000 : 0x10000;
    for (uint32_t b = base; b < base + size; b += 256) {
        if (b >= 0xd800 && b < 0xe000)
            continue;
        struct wbuf *w = new_text(v);
        for (uint32_t c = b; c < b + 256; c++)
            put_char(w, c);
    }
}

static void mix_texts(struct texts *v, unsigned group) {
    uint64_t s = 1000 + group;
    yyjson_doc *doc = cases();
    yyjson_val *pool = yyjson_obj_get(yyjson_doc_get_root(doc), "pool");
    for (int i = 0; i < MIX_EACH; i++) {
        struct wbuf *w = new_text(v);
        for (uint64_t parts = 1 + below(&s, 40); parts; parts--) {
            uint64_t kind = below(&s, 8);
            if (kind == 0) {
                put_char(w, (uint32_t)below(&s, 0x3000));
            } else if (kind == 1) {
                put_char(w, 0x10000 + (uint32_t)below(&s, 0x20000));
            } else if (kind == 2) {
                put_char(w, 32 + (uint32_t)below(&s, 95));
            } else {
                yyjson_val *p = yyjson_arr_get(pool, below(&s, yyjson_arr_size(pool)));
                wbuf_put(w, yyjson_get_str(p), yyjson_get_len(p));
            }
        }
    }
    yyjson_doc_free(doc);
}

static bool make_texts(struct texts *v, const char *name) {
    unsigned group;
    if (strcmp(name, "short") == 0) {
        short_texts(v);
    } else if (sscanf(name, "block:%u", &group) == 1) {
        block_texts(v, group);
    } else if (sscanf(name, "mix:%u", &group) == 1) {
        mix_texts(v, group);
    } else if (strncmp(name, "file:", 5) == 0) {
        char path[600];
        const char *shared = getenv("TEST_SHARED");
        snprintf(path, sizeof path, "%s/data/%s", shared ? shared : "../shared", name + 5);
        struct err e = {0};
        char *data;
        size_t n;
        if (!file_exists(path))
            return false;
        cr_assert_eq(file_read(path, 1 << 24, &data, &n, &e), 0, "%s", e.msg);
        wbuf_put(new_text(v), data, n);
        free(data);
    } else {
        cr_assert_fail("unknown case %s", name);
    }
    return true;
}

/* --- Comparison ----------------------------------------------------------------------------------------------------
 */

static struct tokenizer *open_tokenizer(const char *path) {
    struct err e = {0};
    struct tokenizer *t = NULL;
    size_t n = strlen(path);
    if (strcmp(path + n - 5, ".gguf") != 0) {
        cr_assert_eq(tokenizer_open(&t, path, &e), 0, "%s", e.msg);
        return t;
    }
    struct file_map m;
    struct gguf *g;
    cr_assert_eq(file_map(&m, path, &e), 0, "%s", e.msg);
    cr_assert_eq(gguf_parse(&g, m.p, m.n, path, &e), 0, "%s", e.msg);
    cr_assert_eq(tokenizer_from_gguf(&t, g, &e), 0, "%s", e.msg);
    gguf_free(g);
    file_unmap(&m);
    return t;
}

struct sums {
    uint64_t ids, text;
    size_t n;
};

static void add_text(const struct tokenizer *t, const struct wbuf *text, int flags, struct sums *s) {
    struct err e = {0};
    struct ids ids = {0};
    struct wbuf out = {0};
    cr_assert_eq(tokenizer_encode(t, (const char *)text->p, text->n, flags, &ids, &e), 0, "%s", e.msg);
    s->n += ids.n;
    s->ids = fnv_u32(s->ids, (uint32_t)ids.n);
    for (size_t i = 0; i < ids.n; i++)
        s->ids = fnv_u32(s->ids, ids.p[i]);
    cr_assert_eq(tokenizer_decode(t, ids.p, ids.n, false, &out, &e), 0, "%s", e.msg);
    s->text = fnv(fnv_u32(s->text, (uint32_t)out.n), out.p, out.n);
    ids_free(&ids);
    wbuf_free(&out);
}

/* Lists of random ids, decoded. Ids odd_lo..odd_hi are left out. */
static uint64_t decode_sum(const struct tokenizer *t, bool keep, int odd_lo, int odd_hi) {
    uint64_t h = 0xcbf29ce484222325u, seed = 7;
    for (int i = 0; i < DECODE_LISTS; i++) {
        struct err e = {0};
        struct ids ids = {0};
        struct wbuf out = {0};
        for (uint64_t n = 1 + below(&seed, 30); n; n--) {
            int id = (int)below(&seed, tokenizer_n(t));
            if (id < odd_lo || id > odd_hi)
                ids_push(&ids, (uint32_t)id);
        }
        cr_assert_eq(tokenizer_decode(t, ids.p, ids.n, keep, &out, &e), 0, "%s", e.msg);
        h = fnv(fnv_u32(h, (uint32_t)out.n), out.p, out.n);
        ids_free(&ids);
        wbuf_free(&out);
    }
    return h;
}

/* Texts that are no UTF-8 have an oracle only where SentencePiece is it. */
static bool has_oracle(const struct tokenizer *t, const struct wbuf *text) {
    return strcmp(tokenizer_kind(t), "spm-bpe") == 0 || utf8_valid_prefix(text->p, text->n) == text->n;
}

static void check_line(const struct tokenizer *t, const char *mode, const char *name, const struct sums *want, int *n,
                       int *n_absent) {
    char keep[8];
    int lo, hi;
    if (strcmp(mode, "decode") == 0) {
        cr_assert_eq(sscanf(name, "%7[^:]:%d:%d", keep, &lo, &hi), 3);
        cr_expect_eq(decode_sum(t, strcmp(keep, "keep") == 0, lo, hi), want->text, "decoding random ids, %s", keep);
        ++*n;
        return;
    }
    struct texts v = {0};
    struct sums got = {.ids = 0xcbf29ce484222325u, .text = 0xcbf29ce484222325u};
    if (!make_texts(&v, name)) {
        ++*n_absent;
        return;
    }
    for (size_t i = 0; i < v.n; i++)
        if (has_oracle(t, &v.t[i]))
            add_text(t, &v.t[i], strcmp(mode, "special") == 0 ? TOK_SPECIAL : 0, &got);
    cr_expect_eq(got.n, want->n, "%s %s: %zu tokens, the oracle has %zu", mode, name, got.n, want->n);
    cr_expect_eq(got.ids, want->ids, "%s %s: other ids", mode, name);
    cr_expect_eq(got.text, want->text, "%s %s: other decoded text", mode, name);
    texts_free(&v);
    ++*n;
}

static void check_hashes(const struct tokenizer *t, const char *tokenizer) {
    char name[100], mode[20], which[100];
    struct sums want;
    int n = 0, n_absent = 0;
    FILE *f = fopen(DIR "hashes.txt", "r");
    cr_assert(f);
    while (fscanf(f, "%99s %19s %99s %zu %lx %lx", name, mode, which, &want.n, &want.ids, &want.text) == 6)
        if (strcmp(name, tokenizer) == 0)
            check_line(t, mode, which, &want, &n, &n_absent);
    fclose(f);
    cr_assert_gt(n, 50, "hashes.txt has only %d lines for %s", n, tokenizer);
    if (n_absent)
        cr_log_warn("%s: %d shared corpora are not here", tokenizer, n_absent);
}

/* The full ids of the short texts: these say where a hash differs. */
static void check_ids(const struct tokenizer *t, const char *tokenizer) {
    struct texts v = {0};
    char *line = NULL;
    size_t cap = 0, n_checked = 0;
    FILE *f = fopen(DIR "ids.txt", "r");
    cr_assert(f);
    short_texts(&v);
    while (getline(&line, &cap, f) > 0) {
        char name[100], mode[20];
        size_t i;
        int at;
        cr_assert_eq(sscanf(line, "%99s %19s %zu:%n", name, mode, &i, &at), 3);
        if (strcmp(name, tokenizer) != 0)
            continue;
        struct err e = {0};
        struct ids ids = {0};
        struct wbuf got = {0};
        cr_assert_lt(i, v.n);
        cr_assert_eq(tokenizer_encode(t, (const char *)v.t[i].p, v.t[i].n, mode[0] == 's' ? TOK_SPECIAL : 0, &ids, &e),
                     0);
        for (size_t k = 0; k < ids.n; k++)
            wbuf_fmt(&got, " %u", ids.p[k]);
        wbuf_u8(&got, '\n');
        cr_expect_str_eq(wbuf_cstr(&got), line + at, "%s, %s, short text %zu: ids%s the oracle has%s", tokenizer, mode,
                         i, wbuf_cstr(&got), line + at);
        ids_free(&ids);
        wbuf_free(&got);
        n_checked++;
    }
    cr_assert_gt(n_checked, 100);
    free(line);
    fclose(f);
    texts_free(&v);
}

static void golden(const char *name) {
    char path[200];
    snprintf(path, sizeof path, DIR "%s", name);
    struct tokenizer *t = open_tokenizer(path);
    check_ids(t, name);
    check_hashes(t, name);
    tokenizer_free(t);
}

static void golden_shared(const char *name) {
    char path[600];
    shared_path_or_skip(path, sizeof path, name);
    struct tokenizer *t = open_tokenizer(path);
    check_hashes(t, name);
    tokenizer_free(t);
}

Test(tok_golden, spm_identity) {
    golden("spm_identity.model");
}
Test(tok_golden, spm_unused) {
    golden("spm_unused.model");
}
Test(tok_golden, spm_nmt) {
    golden("spm_nmt.model");
}
Test(tok_golden, llama3) {
    golden("llama3.json");
}
Test(tok_golden, qwen2) {
    golden("qwen2.json");
}
Test(tok_golden, nemo) {
    golden("nemo.json");
}
Test(tok_golden, gpt2) {
    golden("gpt2.json");
}
Test(tok_golden, llama2_legacy) {
    golden("llama2_legacy.json");
}
Test(tok_golden, llama2_metaspace) {
    golden("llama2_metaspace.json");
}
Test(tok_golden, odd) {
    golden("odd.json");
}
Test(tok_golden, tekken) {
    golden("tekken.json");
}
Test(tok_golden, gguf_llama) {
    golden("llama.gguf");
}
Test(tok_golden, gguf_llama_bpe) {
    golden("llama-bpe.gguf");
}
Test(tok_golden, gguf_qwen2) {
    golden("qwen2.gguf");
}
Test(tok_golden, shared_llama2) {
    golden_shared("data/tokenizers/llama2.model");
}
Test(tok_golden, shared_mistral_v1) {
    golden_shared("data/tokenizers/mistral.model.v1");
}
Test(tok_golden, shared_mistral_v2) {
    golden_shared("data/tokenizers/mistral.model.v2");
}
Test(tok_golden, shared_mistral_v3) {
    golden_shared("data/tokenizers/mistral.model.v3");
}
Test(tok_golden, shared_stories260K) {
    golden_shared("data/models/stories260K/tokenizer.model");
}
