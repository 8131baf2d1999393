/* Fuzzes GGUF files: the parser, every accessor, and the configuration that comes out. */
#include "core/model/config.h"
#include "core/model/gguf.h"

#include <math.h>
#include <stdlib.h>

static volatile uint64_t sink;

static void check(int holds) {
    if (!holds)
        abort();
}

static void walk_array(const struct gguf_array *a) {
    struct gguf_str s;
    uint64_t n = 0;
    for (size_t off = 0; gguf_arr_next_str(a, &off, &s); n++)
        sink ^= s.n ? (uint8_t)s.p[0] ^ (uint8_t)s.p[s.n - 1] : 0;
    check(a->type != GGUF_ARR && n == (a->type == GGUF_STR ? a->n : 0));
    for (uint64_t i = 0; i < a->n; i++)
        sink ^= (uint64_t)gguf_arr_i64(a, i) ^ (uint64_t)(gguf_arr_f64(a, i) > 0);
}

static void walk_keys(const struct gguf *g) {
    /* Those that the seeds have, the tokenizer's, and any that the fuzzer makes of them. */
    static const char *const keys[] = {"general.architecture",
                                       "general.alignment",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.scores",
                                       "tokenizer.ggml.merges",
                                       "a.string",
                                       "a.bool",
                                       "a.float32",
                                       "a.float64",
                                       "a.int8",
                                       "a.int16",
                                       "a.uint64",
                                       "t.int8",
                                       "t.uint64",
                                       "t.float32",
                                       "t.float64",
                                       "t.bool",
                                       "t.string",
                                       "k",
                                       ""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct gguf_array a;
        struct gguf_str s;
        uint64_t u;
        double d;
        bool b;
        if (gguf_arr(g, keys[i], &a))
            walk_array(&a);
        if (gguf_string(g, keys[i], &s))
            sink ^= s.n ? (uint8_t)s.p[0] ^ (uint8_t)s.p[s.n - 1] : 0;
        sink ^= (uint64_t)(gguf_u64(g, keys[i], &u) + gguf_f64(g, keys[i], &d) + gguf_bool(g, keys[i], &b));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf *g;
    struct model_config c;
    struct err e = {0};
    if (gguf_parse(&g, data, size, "fuzz", &e) != 0) {
        check(g == NULL && e.kind != ERR_NONE);
        return 0;
    }
    walk_keys(g);
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        check(t->n_dims >= 1 && t->n_dims <= 4 && (t->dtype == DT_COUNT) == (t->n_bytes == 0));
        if (t->data && t->n_bytes) {
            check(t->data > data && t->n_bytes <= (size_t)(data + size - t->data));
            sink ^= t->data[0] ^ t->data[t->n_bytes - 1];
        }
    }
    if (config_from_gguf(&c, g, &e) == 0) {
        float inv[CONFIG_MAX_HEAD_DIM / 2];
        config_rope_freqs(&c, inv);
        for (int i = 0; i < c.head_dim / 2; i++)
            check(isfinite(inv[i]) && inv[i] > 0);
        check(c.n_heads % c.n_kv_heads == 0 && c.n_eos <= CONFIG_MAX_EOS && c.bos < c.vocab);
        config_free(&c);
    } else {
        check(e.kind != ERR_NONE && !c.rope.freq_divisors);
    }
    gguf_free(g);
    return 0;
}
