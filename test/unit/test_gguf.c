/* GGUF files: what the gguf package wrote, and what must be refused. */
#include "core/model/config.h"
#include "core/model/gguf.h"
#include "loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool str_is(struct gguf_str s, const char *expected) {
    return s.n == strlen(expected) && memcmp(s.p, expected, s.n) == 0;
}

/* ---- what the package wrote ---- */

static struct gguf *golden(char **file) {
    size_t n;
    struct gguf *g;
    struct err e = {0};
    *file = load_file(GOLDEN "quantised.gguf", &n);
    cr_assert_eq(gguf_parse(&g, (uint8_t *)*file, n, "G", &e), 0, "%s", e.msg);
    return g;
}

Test(gguf, scalars_of_every_type) {
    char *file;
    struct gguf *g = golden(&file);
    static const struct {
        const char *key;
        uint64_t u;
        double f;
        bool is_u64, is_f64;
    } all[] = {
        {"t.uint8", 200, 200, true, true},
        {"t.int8", 0, -100, false, true},
        {"t.uint16", 60000, 60000, true, true},
        {"t.int16", 0, -30000, false, true},
        {"t.uint32", 4000000000u, 4e9, true, true},
        {"t.int32", 0, -2e9, false, true},
        {"t.uint64", (1ull << 63) + 5, 0, true, false},
        {"t.int64", 0, 0, false, false},
        {"t.float32", 0, 1.5, false, true},
        {"t.float64", 0, 0.1, false, true},
        {"t.bool", 0, 0, false, false},
        {"t.string", 0, 0, false, false},
        {"a.uint8", 0, 0, false, false},
        {"absent", 0, 0, false, false},
    };
    struct gguf_str s;
    bool b = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t u = 0;
        double f = 0;
        cr_assert_eq(gguf_u64(g, all[i].key, &u), all[i].is_u64, "%s", all[i].key);
        cr_assert_eq(u, all[i].u, "%s", all[i].key);
        cr_assert_eq(gguf_f64(g, all[i].key, &f), all[i].is_f64, "%s", all[i].key);
        cr_assert_eq(f, all[i].f, "%s", all[i].key);
        cr_assert_eq(gguf_string(g, all[i].key, &s), strcmp(all[i].key, "t.string") == 0, "%s", all[i].key);
        cr_assert_eq(gguf_bool(g, all[i].key, &b), strcmp(all[i].key, "t.bool") == 0, "%s", all[i].key);
    }
    cr_assert(b);
    cr_assert(gguf_string(g, "t.string", &s) && str_is(s, "F\xc3\xbc"
                                                          "chse \xf0\x9f\xa6\x8a"));
    cr_assert(gguf_string(g, "general.architecture", &s) && str_is(s, "llama"));
    cr_assert_str_eq(gguf_name(g), "G");
    gguf_free(g);
    free(file);
}

Test(gguf, arrays_of_every_type) {
    char *file;
    struct gguf *g = golden(&file);
    static const struct {
        const char *key;
        enum gguf_type type;
        uint64_t n;
        int64_t i[3];
        double f[3];
    } all[] = {
        {"a.uint8", GGUF_U8, 2, {1, 255}, {1, 255}},
        {"a.int8", GGUF_I8, 2, {-1, 127}, {-1, 127}},
        {"a.uint16", GGUF_U16, 2, {65535, 2}, {65535, 2}},
        {"a.int16", GGUF_I16, 2, {-32768, 3}, {-32768, 3}},
        {"a.uint32", GGUF_U32, 1, {4294967295}, {4294967295.0}},
        {"a.int32", GGUF_I32, 3, {-5, 6, 7}, {-5, 6, 7}},
        {"a.uint64", GGUF_U64, 1, {INT64_MIN}, {0x1p63}},
        {"a.int64", GGUF_I64, 2, {INT64_MIN, 1}, {-0x1p63, 1}},
        {"a.float32", GGUF_F32, 2, {0, -2}, {0.25, -2}},
        {"a.float64", GGUF_F64, 1, {0}, {1e300}},
        {"a.bool", GGUF_BOOL, 3, {1, 0, 1}, {1, 0, 1}},
    };
    struct gguf_array a;
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        cr_assert(gguf_arr(g, all[k].key, &a), "%s", all[k].key);
        cr_assert_eq(a.type, all[k].type, "%s", all[k].key);
        cr_assert_eq(a.n, all[k].n, "%s", all[k].key);
        for (uint64_t i = 0; i < a.n; i++) {
            cr_assert_eq(gguf_arr_i64(&a, i), all[k].i[i], "%s", all[k].key);
            cr_assert_eq(gguf_arr_f64(&a, i), all[k].f[i], "%s", all[k].key);
        }
        size_t off = 0;
        struct gguf_str s;
        cr_assert_not(gguf_arr_next_str(&a, &off, &s), "%s", all[k].key);
    }
    static const char *const strings[] = {"", "a", "bc"};
    size_t off = 0, n = 0;
    cr_assert(gguf_arr(g, "a.string", &a) && a.n == 3);
    for (struct gguf_str s; gguf_arr_next_str(&a, &off, &s); n++)
        cr_assert(n < 3 && str_is(s, strings[n]));
    cr_assert_eq(n, 3);
    gguf_free(g);
    free(file);
}

Test(gguf, tensors) {
    char *file;
    struct gguf *g = golden(&file);
    const struct gguf_tensor *t = gguf_tensor(g, "blk.0.attn_q.weight");
    cr_assert(t && t->dtype == DT_Q4_K && t->n_dims == 2 && t->dims[0] == 256 && t->dims[1] == 32);
    cr_assert_eq(t->n_bytes, (size_t)32 * 144);
    cr_assert(t->data != NULL && (size_t)(t->data - (uint8_t *)file) % 32 == 0);
    t = gguf_tensor(g, "unsupported.weight");
    cr_assert(t && t->dtype == DT_COUNT && t->n_bytes == 0);
    cr_assert_str_eq(gguf_ggml_type_name(t->ggml_type), "q5_1");
    cr_assert_str_eq(gguf_ggml_type_name(4), "unknown");
    cr_assert_str_eq(gguf_ggml_type_name(UINT32_MAX), "unknown");
    cr_assert_null(gguf_tensor(g, "blk.0.attn_q"));
    cr_assert_eq(gguf_n_tensors(g), 17);
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
        cr_assert(gguf_tensor_at(g, i)->data != NULL);
    gguf_free(g);
    free(file);
}

Test(gguf, config) {
    char *file;
    struct gguf *g = golden(&file);
    struct model_config c;
    struct err e = {0};
    cr_assert_eq(config_from_gguf(&c, g, &e), 0, "%s", e.msg);
    cr_assert(c.family == FAMILY_LLAMA && strcmp(c.arch, "llama") == 0);
    cr_assert(c.hidden == 256 && c.n_layers == 1 && c.n_heads == 2 && c.n_kv_heads == 1 && c.head_dim == 16 &&
              c.ffn == 32);
    cr_assert(c.vocab == 8 && c.max_ctx == 128 && c.rms_eps == 1e-5f && c.rope.theta == 500000.0f);
    cr_assert(c.sliding_window == 64 && c.sliding_from == 0);
    cr_assert(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm && !c.tied_head);
    cr_assert(c.bos == 1 && c.n_eos == 2 && c.eos[0] == 2 && c.eos[1] == 5);
    cr_assert(c.rope.scaling == ROPE_PLAIN && c.rope.freq_divisors);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(c.rope.freq_divisors[i], (float)(i + 1));
    config_free(&c);
    cr_assert_null(c.rope.freq_divisors);
    gguf_free(g);
    free(file);
}

Test(gguf, big_endian) {
    size_t n;
    struct gguf *g;
    struct err e = {0};
    char *file = load_file(GOLDEN "big_endian.gguf", &n);
    cr_assert_eq(gguf_parse(&g, (uint8_t *)file, n, "G", &e), -1);
    expect_err(&e, ERR_MODEL, "G: a big-endian GGUF file", NULL);
    free(file);
}

/* ---- what must be refused ---- */

static int parse(const struct wbuf *w, struct gguf **g, struct err *e) {
    return gguf_parse(g, w->p, w->n, "F", e);
}

static void refused(struct wbuf *w, const char *expected) {
    struct gguf *g;
    struct err e = {0};
    uint8_t *p = exact_copy(w->p, w->n);
    cr_assert_eq(gguf_parse(&g, p, w->n, "F", &e), -1, "accepted instead of: %s", expected);
    cr_assert_null(g);
    expect_err(&e, ERR_MODEL, "F: ", expected, NULL);
    free(p);
    wbuf_free(w);
}

Test(gguf, not_gguf) {
    struct wbuf w = {0};
    wbuf_str(&w, "# a text file\n");
    refused(&w, "not a GGUF file");
    wbuf_str(&w, "GGUF");
    refused(&w, "too few");
    gg_start(&w, 1, 0, 0);
    refused(&w, "GGUF version 1; supported are 2 and 3");
    gg_start(&w, 4, 0, 0);
    refused(&w, "GGUF version 4");
    gg_start(&w, 0, 0, 0);
    refused(&w, "GGUF version 0");
    gg_start(&w, 0x03000000, 0, 0);
    refused(&w, "big-endian");
}

Test(gguf, counts_that_the_file_cannot_hold) {
    static const uint64_t counts[] = {1ull << 60, UINT64_MAX, 65537, 1};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct wbuf w = {0};
        gg_start(&w, 3, counts[i], 0);
        refused(&w, "truncated or damaged");
        gg_start(&w, 3, 0, counts[i]);
        refused(&w, "truncated or damaged");
    }
}

Test(gguf, lengths_that_the_file_cannot_hold) {
    static const uint64_t lengths[] = {1ull << 60, UINT64_MAX, UINT64_MAX - 7, 4000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct wbuf w = {0};
        gg_start(&w, 3, 0, 1); /* of a key */
        wbuf_u64(&w, lengths[i]);
        wbuf_str(&w, "0123456789");
        refused(&w, "metadata entry 1 of 1");
        gg_start(&w, 3, 0, 1); /* of a string */
        gg_str(&w, "k");
        wbuf_u32(&w, GGUF_STR);
        wbuf_u64(&w, lengths[i]);
        refused(&w, "metadata entry 1 of 1");
        for (uint32_t type = 0; type <= GGUF_F64; type++) { /* of an array */
            if (type == GGUF_ARR)
                continue;
            gg_start(&w, 3, 0, 1);
            gg_str(&w, "k");
            wbuf_u32(&w, GGUF_ARR);
            wbuf_u32(&w, type);
            wbuf_u64(&w, lengths[i]);
            wbuf_u64(&w, 0);
            refused(&w, "metadata entry 1 of 1");
        }
        gg_start(&w, 3, 0, 1); /* of a string in an array */
        gg_str(&w, "k");
        wbuf_u32(&w, GGUF_ARR);
        wbuf_u32(&w, GGUF_STR);
        wbuf_u64(&w, 2);
        gg_str(&w, "ok");
        wbuf_u64(&w, lengths[i]);
        refused(&w, "metadata entry 1 of 1");
        gg_start(&w, 3, 1, 0); /* of a tensor's name */
        wbuf_u64(&w, lengths[i]);
        for (int k = 0; k < 5; k++)
            wbuf_u64(&w, 0);
        refused(&w, "tensor entry 1 of 1");
    }
}

Test(gguf, metadata_that_is_malformed) {
    struct wbuf w = {0};
    gg_start(&w, 3, 0, 1);
    gg_str(&w, "some.key");
    wbuf_u32(&w, 13);
    wbuf_u64(&w, 0);
    refused(&w, "metadata key some.key has the unknown type 13");
    gg_start(&w, 3, 0, 1);
    gg_str(&w, "some.key");
    wbuf_u32(&w, GGUF_ARR);
    wbuf_u32(&w, GGUF_ARR);
    wbuf_u64(&w, 1);
    refused(&w, "some.key is an array of arrays");
    gg_start(&w, 3, 0, 1);
    gg_str(&w, "some.key");
    wbuf_u32(&w, GGUF_ARR);
    wbuf_u32(&w, 77);
    wbuf_u64(&w, 1);
    refused(&w, "some.key is an array of the unknown type 77");
    gg_start(&w, 3, 0, 1);
    gg_str(&w, "some.key");
    wbuf_u32(&w, GGUF_BOOL);
    wbuf_u8(&w, 2);
    refused(&w, "some.key is a bool of value 2");
    gg_start(&w, 3, 0, 3);
    gg_key_u32(&w, "some.key", 1);
    gg_key_u32(&w, "other", 1);
    gg_key_u32(&w, "some.key", 2);
    refused(&w, "metadata key some.key stands twice");
    gg_start(&w, 3, 0, 1);
    gg_key_u32(&w, "", 1);
    wbuf_u64(&w, 0);
    refused(&w, "length of 0 bytes");
    static const uint32_t alignments[] = {0, 3, 48, 1u << 21};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        gg_start(&w, 3, 0, 1);
        gg_key_u32(&w, "general.alignment", alignments[i]);
        refused(&w, "general.alignment is not a power of two");
    }
    gg_start(&w, 3, 0, 1);
    gg_key_str(&w, "general.alignment", "32");
    refused(&w, "general.alignment is not a power of two");
}

/* A file with one tensor, followed by 256 bytes. */
static void one_tensor(struct wbuf *w, const char *name, int n_dims, const uint64_t *dims, uint32_t type,
                       uint64_t offset) {
    gg_start(w, 3, 1, 0);
    gg_tensor(w, name, n_dims, dims, type, offset);
    gg_pad(w, 32);
    for (int i = 0; i < 32; i++)
        wbuf_u64(w, 0);
}

Test(gguf, tensors_that_are_malformed) {
    struct wbuf w = {0};
    uint64_t d[40] = {32, 1, 1, 1};
    one_tensor(&w, "t.x", 0, d, 0, 0);
    refused(&w, "tensor t.x has 0 dimensions");
    one_tensor(&w, "t.x", 5, d, 0, 0);
    refused(&w, "tensor t.x has 5 dimensions");
    one_tensor(&w, "t.x", 1, (uint64_t[]){0}, 0, 0);
    refused(&w, "tensor t.x has an impossible shape");
    one_tensor(&w, "t.x", 2, (uint64_t[]){1ull << 40, 1ull << 40}, 0, 0);
    refused(&w, "tensor t.x has an impossible shape");
    one_tensor(&w, "t.x", 4, (uint64_t[]){1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16}, 0, 0);
    refused(&w, "tensor t.x has an impossible shape");
    one_tensor(&w, "t.x", 1, (uint64_t[]){UINT64_MAX}, 1000, 0);
    refused(&w, "tensor t.x has an impossible shape");
    one_tensor(&w, "t.x", 1, (uint64_t[]){48}, 8, 0);
    refused(&w, "rows of 48 elements, no multiple of the 32 in a q8_0 block");
    one_tensor(&w, "t.x", 1, (uint64_t[]){128}, 12, 0);
    refused(&w, "no multiple of the 256 in a q4_K block");
    one_tensor(&w, "t.x", 1, d, 0, 16);
    refused(&w, "tensor t.x has the impossible offset 16 (alignment 32)");
    one_tensor(&w, "t.x", 1, d, 0, UINT64_MAX - 31);
    refused(&w, "tensor t.x has the impossible offset");
    one_tensor(&w, "", 1, d, 0, 0);
    refused(&w, "name has a length of 0");
}

Test(gguf, overlapping_and_doubled_tensors) {
    struct wbuf w = {0};
    uint64_t d[1] = {16}; /* 64 bytes */
    gg_start(&w, 3, 3, 0);
    gg_tensor(&w, "t.a", 1, d, 0, 64);
    gg_tensor(&w, "t.b", 1, d, 0, 128);
    gg_tensor(&w, "t.c", 1, d, 0, 96);
    refused(&w, "tensors t.a and t.c overlap");
    gg_start(&w, 3, 2, 0); /* also when one of the types is not supported, but its size is known */
    gg_tensor(&w, "t.a", 1, (uint64_t[]){64}, 6, 0);
    gg_tensor(&w, "t.b", 1, d, 0, 32);
    refused(&w, "tensors t.a and t.b overlap");
    gg_start(&w, 3, 2, 0);
    gg_tensor(&w, "t.a", 1, d, 0, 0);
    gg_tensor(&w, "t.a", 1, d, 0, 64);
    refused(&w, "tensor t.a stands twice");
}

Test(gguf, tensors_behind_the_end) {
    static const uint64_t offsets[] = {256, 224, 1ull << 40, SIZE_MAX / 4 / 32 * 32};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        struct wbuf w = {0};
        struct gguf *g;
        struct err e = {0};
        one_tensor(&w, "t", 1, (uint64_t[]){16}, 0, offsets[i]);
        cr_assert_eq(parse(&w, &g, &e), 0, "%s", e.msg);
        cr_assert_null(gguf_tensor(g, "t")->data, "offset %llu", (unsigned long long)offsets[i]);
        gguf_free(g);
        wbuf_free(&w);
    }
}

Test(gguf, version_2_and_other_alignments) {
    for (uint32_t alignment = 1; alignment <= 64; alignment *= 2) {
        struct wbuf w = {0};
        struct gguf *g;
        struct err e = {0};
        gg_start(&w, 2, 1, 1);
        gg_key_u32(&w, "general.alignment", alignment);
        gg_tensor(&w, "t", 1, (uint64_t[]){1}, 0, alignment);
        gg_pad(&w, alignment);
        size_t data = w.n;
        for (uint32_t i = 0; i < alignment; i++)
            wbuf_u8(&w, 0);
        wbuf_f32(&w, 2.5f);
        cr_assert_eq(parse(&w, &g, &e), 0, "%s", e.msg);
        cr_assert_eq(gguf_tensor(g, "t")->data, w.p + data + alignment);
        gguf_free(g);
        wbuf_free(&w);
    }
}

/* ---- configurations ---- */

struct change {
    const char *key; /* NULL: none */
    const char *str; /* the new value: this, */
    uint32_t u32;    /* or this, */
    float f32;       /* or this; */
    bool drop;       /* or the key is left out */
};

static void put(struct wbuf *w, const char *key, const struct change *c) {
    if (c->drop)
        return;
    if (c->str)
        gg_key_str(w, key, c->str);
    else if (c->f32 != 0)
        gg_key_f32(w, key, c->f32);
    else
        gg_key_u32(w, key, c->u32);
}

/* A tiny llama with one key changed or added. */
static int tiny(struct model_config *c, const struct change *change, struct err *e) {
    static const struct change keys[] = {
        {"general.architecture", "llama", 0, 0, false},
        {"llama.embedding_length", NULL, 64, 0, false},
        {"llama.block_count", NULL, 2, 0, false},
        {"llama.feed_forward_length", NULL, 96, 0, false},
        {"llama.context_length", NULL, 128, 0, false},
        {"llama.attention.head_count", NULL, 4, 0, false},
        {"llama.vocab_size", NULL, 100, 0, false},
        {"llama.attention.layer_norm_rms_epsilon", NULL, 0, 1e-5f, false},
    };
    size_t n = sizeof keys / sizeof *keys;
    bool found = false;
    for (size_t i = 0; i < n; i++)
        found |= strcmp(keys[i].key, change->key) == 0;
    struct wbuf w = {0};
    gg_start(&w, 3, 0, n + !found - (found && change->drop));
    for (size_t i = 0; i < n; i++)
        put(&w, keys[i].key, strcmp(keys[i].key, change->key) == 0 ? change : &keys[i]);
    if (!found)
        put(&w, change->key, change);
    struct gguf *g;
    cr_assert_eq(parse(&w, &g, e), 0, "%s", e->msg);
    int rc = config_from_gguf(c, g, e);
    gguf_free(g);
    wbuf_free(&w);
    return rc;
}

static void config_refused(struct change change, const char *expected) {
    struct model_config c;
    struct err e = {0};
    cr_assert_eq(tiny(&c, &change, &e), -1, "accepted: %s", change.key);
    expect_err(&e, ERR_MODEL, "F: ", expected, NULL);
}

Test(gguf_config, defaults) {
    struct model_config c;
    struct err e = {0};
    cr_assert_eq(tiny(&c, &(struct change){.key = "general.name", .str = "x"}, &e), 0, "%s", e.msg);
    cr_assert(c.n_kv_heads == 4 && c.head_dim == 16 && c.rope.theta == 10000.0f && c.rope.scaling == ROPE_PLAIN);
    cr_assert(c.tied_head && c.bos == -1 && c.n_eos == 0 && c.sliding_window == 0);
    config_free(&c);
}

Test(gguf_config, every_required_key) {
    static const char *const keys[] = {"general.architecture", "llama.embedding_length",
                                       "llama.block_count",    "llama.feed_forward_length",
                                       "llama.context_length", "llama.attention.head_count",
                                       "llama.vocab_size",     "llama.attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        config_refused((struct change){.key = keys[i], .drop = true}, keys[i]);
        if (i > 0) {
            config_refused((struct change){.key = keys[i], .str = "64"}, keys[i]);
            config_refused((struct change){.key = keys[i], .u32 = 0}, keys[i]);
        }
        if (i > 0 && i < 7) {
            config_refused((struct change){.key = keys[i], .u32 = UINT32_MAX}, keys[i]);
            config_refused((struct change){.key = keys[i], .f32 = 64.0f}, keys[i]);
        }
    }
    config_refused((struct change){.key = keys[7], .f32 = NAN}, keys[7]);
    config_refused((struct change){.key = keys[7], .f32 = -1e-5f}, keys[7]);
    config_refused((struct change){.key = keys[7], .f32 = INFINITY}, keys[7]);
    config_refused((struct change){.key = keys[7], .f32 = 3.0f}, "rms_norm_eps is 3");
}

Test(gguf_config, what_is_not_supported) {
    config_refused((struct change){.key = "general.architecture", .str = "gemma2"},
                   "the architecture gemma2 is not supported; supported are llama, qwen2, qwen3");
    config_refused((struct change){.key = "llama.expert_count", .u32 = 8}, "mixture of 8 experts");
    config_refused((struct change){.key = "split.count", .u32 = 3}, "one of 3 parts");
    config_refused((struct change){.key = "llama.rope.scaling.type", .str = "yarn"}, "type yarn is not supported");
    config_refused((struct change){.key = "llama.rope.scaling.factor", .f32 = NAN}, "llama.rope.scaling.factor");
    config_refused((struct change){.key = "llama.rope.freq_base", .f32 = -1.0f}, "llama.rope.freq_base");
    config_refused((struct change){.key = "llama.rope.freq_base", .f32 = 1e20f}, "rope_theta is 1e+20");
    config_refused((struct change){.key = "llama.rope.dimension_count", .u32 = 8}, "only equal ones");
    config_refused((struct change){.key = "llama.attention.value_length", .u32 = 8}, "only equal ones");
    config_refused((struct change){.key = "llama.attention.head_count_kv", .u32 = 3}, "cannot share 3");
    config_refused((struct change){.key = "llama.attention.head_count", .u32 = 3}, "3 heads do not divide");
    config_refused((struct change){.key = "llama.attention.head_count", .u32 = 64}, "head dimension is 1");
    config_refused((struct change){.key = "llama.attention.sliding_window", .str = "x"},
                   "llama.attention.sliding_window");
}

Test(gguf_config, linear_scaling_under_both_names) {
    static const char *const keys[] = {"llama.rope.scaling.factor", "llama.rope.scale_linear"};
    for (int i = 0; i < 2; i++) {
        struct model_config c;
        struct err e = {0};
        cr_assert_eq(tiny(&c, &(struct change){.key = keys[i], .f32 = 2.5f}, &e), 0, "%s", e.msg);
        cr_assert(c.rope.scaling == ROPE_LINEAR && c.rope.factor == 2.5f);
        config_free(&c);
    }
}

Test(gguf_config, counts_for_each_layer) {
    for (uint32_t odd = 0; odd < 2; odd++) {
        struct wbuf w = {0};
        struct gguf *g;
        struct model_config c;
        struct err e = {0};
        gg_start(&w, 3, 0, 8);
        gg_key_str(&w, "general.architecture", "llama");
        gg_key_u32(&w, "llama.embedding_length", 64);
        gg_key_u32(&w, "llama.block_count", 2);
        gg_key_u32(&w, "llama.feed_forward_length", 96);
        gg_key_u32(&w, "llama.context_length", 128);
        gg_key_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
        gg_key_u32(&w, "llama.vocab_size", 9);
        gg_str(&w, "llama.attention.head_count");
        wbuf_u32(&w, GGUF_ARR);
        wbuf_u32(&w, GGUF_I32);
        wbuf_u64(&w, 2);
        wbuf_u32(&w, 4);
        wbuf_u32(&w, 4 + 4 * odd);
        cr_assert_eq(parse(&w, &g, &e), 0, "%s", e.msg);
        cr_assert_eq(config_from_gguf(&c, g, &e), odd ? -1 : 0, "%s", e.msg);
        if (odd)
            expect_err(&e, ERR_MODEL, "llama.attention.head_count differs between layers", NULL);
        else
            cr_assert_eq(c.n_heads, 4);
        config_free(&c);
        gguf_free(g);
        wbuf_free(&w);
    }
}

Test(gguf_config, bad_divisors) {
    static const float bad[] = {0, -1, NAN, INFINITY, 1e-30f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gguf *g;
        struct model_config c;
        struct err e = {0};
        char *file;
        g = golden(&file);
        float *f = (float *)(uintptr_t)gguf_tensor(g, "rope_freqs.weight")->data;
        f[3] = bad[i];
        cr_assert_eq(config_from_gguf(&c, g, &e), -1);
        expect_err(&e, ERR_MODEL, "G: rope_freqs.weight[3]", NULL);
        cr_assert_null(c.rope.freq_divisors);
        gguf_free(g);
        free(file);
    }
}

/* ---- truncated and damaged ---- */

/* Reads all that the accessors give out; AddressSanitizer objects to anything outside. */
static uint64_t walk(const struct gguf *g, const uint8_t *p, size_t n) {
    static const char *const arrays[] = {"a.uint8",   "a.int16", "a.uint64", "a.float32",
                                         "a.float64", "a.bool",  "a.string"};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (!t->data)
            continue;
        cr_assert(t->data >= p && t->data <= p + n && t->n_bytes <= (size_t)(p + n - t->data));
        if (t->n_bytes)
            sum += t->data[0] + t->data[t->n_bytes - 1];
    }
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
        struct gguf_array a;
        struct gguf_str s;
        if (!gguf_arr(g, arrays[k], &a))
            continue;
        for (uint64_t i = 0; i < a.n; i++)
            sum += (uint64_t)gguf_arr_i64(&a, i) + (gguf_arr_f64(&a, i) > 0);
        for (size_t off = 0; gguf_arr_next_str(&a, &off, &s);)
            for (size_t i = 0; i < s.n; i++)
                sum += (uint8_t)s.p[i];
    }
    return sum;
}

/* Where the header of the golden file ends: the data begins at the next multiple of 32. */
static size_t header_end(const struct gguf *g, const char *file) {
    size_t first = SIZE_MAX;
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        size_t at = (size_t)(gguf_tensor_at(g, i)->data - (const uint8_t *)file);
        first = at < first ? at : first;
    }
    return first;
}

Test(gguf, every_truncation) {
    char *file;
    struct gguf *whole = golden(&file), *g;
    size_t end = header_end(whole, file), accepted = 0;
    for (size_t k = 0; k < end + 40000; k += k < end + 64 ? 1 : 997) {
        struct err e = {0};
        uint8_t *p = exact_copy(file, k);
        if (gguf_parse(&g, p, k, "F", &e) == 0) {
            cr_assert_gt(k, end - 32, "accepted without its header: %zu of %zu", k, end);
            accepted++;
            walk(g, p, k);
            for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
                const struct gguf_tensor *t = gguf_tensor_at(g, i), *w = gguf_tensor_at(whole, i);
                size_t at = (size_t)(w->data - (uint8_t *)file);
                if (t->dtype != DT_COUNT)
                    cr_assert_eq(t->data != NULL, at <= k && w->n_bytes <= k - at, "%.*s at %zu", (int)t->name.n,
                                 t->name.p, k);
            }
            gguf_free(g);
        } else {
            cr_assert_lt(k, end);
            expect_err(&e, ERR_MODEL, "F: ", "truncated", NULL);
        }
        free(p);
    }
    cr_assert_gt(accepted, 64);
    gguf_free(whole);
    free(file);
}

Test(gguf, damaged_headers) {
    char *file;
    size_t n;
    struct gguf *whole = golden(&file), *g;
    size_t end = header_end(whole, file);
    uint64_t state = 4;
    int parsed = 0, configured = 0;
    gguf_free(whole);
    free(file);
    file = load_file(GOLDEN "quantised.gguf", &n);
    for (int k = 0; k < 20000; k++) {
        struct err e = {0};
        struct model_config c;
        uint8_t *p = exact_copy(file, n);
        mutate(p, end, &state);
        if (gguf_parse(&g, p, n, "F", &e) == 0) {
            parsed++;
            walk(g, p, n);
            if (config_from_gguf(&c, g, &e) == 0) {
                float inv[CONFIG_MAX_HEAD_DIM / 2];
                configured++;
                config_rope_freqs(&c, inv);
                for (int i = 0; i < c.head_dim / 2; i++)
                    cr_assert(isfinite(inv[i]) && inv[i] > 0);
                config_free(&c);
            } else {
                cr_assert_eq(e.kind, ERR_MODEL);
            }
            gguf_free(g);
        } else {
            cr_assert_eq(e.kind, ERR_MODEL);
        }
        free(p);
    }
    cr_assert(parsed > 1000 && parsed < 19000, "%d parsed: the noise tests nothing", parsed);
    cr_assert(configured > 1000 && configured < parsed, "%d configured", configured);
    free(file);
}
