#include "net/fingerprint.h"

#include "core/model/names.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAMILIES "test/models/families/"

static const uint8_t zeros[WIRE_DIGEST];

static struct weights *opened(const char *path) {
    struct err e = {0};
    struct weights *w;
    cr_assert_eq(weights_open(&w, path, &e), 0, "%s", e.msg);
    return w;
}

/* ---- config ---- */

struct sum {
    uint8_t d[WIRE_DIGEST];
};

static struct sum of_config(const struct model_config *c) {
    struct err e = {0};
    struct sum s;
    cr_assert_eq(fingerprint_config(c, s.d, &e), 0, "%s", e.msg);
    return s;
}

static struct sum of_json(const char *json) {
    struct err e = {0};
    struct model_config c;
    cr_assert_eq(config_from_json(&c, json, strlen(json), NULL, 0, "test", &e), 0, "%s", e.msg);
    struct sum s = of_config(&c);
    config_free(&c);
    return s;
}

static bool same(struct sum a, struct sum b) {
    return memcmp(a.d, b.d, sizeof a.d) == 0;
}

#define LLAMA "\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"max_position_embeddings\":512,"

/* What test/oracle/make_families.py made the GGUF models from, as the config.json that it would have written. */
Test(fingerprint, config_of_gguf_and_json) {
    static const struct {
        const char *gguf, *json;
    } pairs[] = {
        {"gguf-llama", "{" LLAMA "\"vocab_size\":288,\"hidden_size\":64,\"intermediate_size\":128,"
                       "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                       "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":false}"},
        {"gguf-nemo", "{\"model_type\":\"mistral\",\"architectures\":[\"MistralForCausalLM\"],"
                      "\"max_position_embeddings\":512,\"vocab_size\":288,\"hidden_size\":64,"
                      "\"intermediate_size\":96,\"num_hidden_layers\":3,\"num_attention_heads\":5,"
                      "\"num_key_value_heads\":1,\"head_dim\":24,\"sliding_window\":null,\"rms_norm_eps\":1e-5,"
                      "\"rope_theta\":1000000.0,\"tie_word_embeddings\":false}"},
        {"gguf-llama32", "{" LLAMA "\"vocab_size\":288,\"hidden_size\":72,\"intermediate_size\":64,"
                         "\"num_hidden_layers\":3,\"num_attention_heads\":6,\"num_key_value_heads\":2,\"head_dim\":12,"
                         "\"rms_norm_eps\":1e-5,\"rope_theta\":500000.0,\"tie_word_embeddings\":true,"
                         "\"rope_scaling\":{\"factor\":32.0,\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,"
                         "\"original_max_position_embeddings\":64,\"rope_type\":\"llama3\"}}"},
        {"gguf-qwen2", "{\"model_type\":\"qwen2\",\"architectures\":[\"Qwen2ForCausalLM\"],"
                       "\"max_position_embeddings\":512,\"vocab_size\":272,\"hidden_size\":96,"
                       "\"intermediate_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":3,"
                       "\"num_key_value_heads\":1,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,"
                       "\"use_sliding_window\":false,\"tie_word_embeddings\":true}"},
        {"gguf-qwen3", "{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"],"
                       "\"max_position_embeddings\":512,\"vocab_size\":272,\"hidden_size\":64,"
                       "\"intermediate_size\":96,\"num_hidden_layers\":3,\"num_attention_heads\":3,"
                       "\"num_key_value_heads\":1,\"head_dim\":40,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,"
                       "\"use_sliding_window\":false,\"tie_word_embeddings\":false}"},
    };
    struct sum seen[5];
    for (int i = 0; i < 5; i++) {
        char path[100];
        snprintf(path, sizeof path, FAMILIES "%s/model.gguf", pairs[i].gguf);
        struct weights *w = opened(path);
        seen[i] = of_config(weights_config(w));
        cr_assert(same(seen[i], of_json(pairs[i].json)), "%s", pairs[i].gguf);
        weights_close(w);
        for (int k = 0; k < i; k++)
            cr_assert_not(same(seen[k], seen[i]), "%s and %s", pairs[k].gguf, pairs[i].gguf);
    }
}

/* rope_freqs.weight as the converter of llama.cpp computes it, for the published shapes. */
Test(fingerprint, config_of_published_llama_3) {
    static const char *const models[] = {"random:llama-3.1-8b", "random:llama-3.2-1b"};
    for (int m = 0; m < 2; m++) {
        struct weights *w = opened(models[m]);
        struct model_config c = *weights_config(w), plain = c;
        const struct rope_config r = c.rope;
        float divisors[CONFIG_MAX_HEAD_DIM / 2];
        c.rope = (struct rope_config){.theta = r.theta};
        for (int i = 0; i < c.head_dim / 2; i++) {
            double wave = 2 * M_PI * (double)powf(r.theta, (float)(2 * i) / (float)c.head_dim);
            double low = (double)r.original_ctx / (double)r.low_freq_factor;
            double high = (double)r.original_ctx / (double)r.high_freq_factor;
            double smooth = ((double)r.original_ctx / wave - (double)r.low_freq_factor) /
                            (double)(r.high_freq_factor - r.low_freq_factor);
            divisors[i] = wave < high  ? 1.0f
                          : wave > low ? r.factor
                                       : (float)(1 / ((1 - smooth) / (double)r.factor + smooth));
        }
        cr_assert_not(same(of_config(&plain), of_config(&c)), "without its divisors it is another model");
        c.rope.freq_divisors = divisors;
        cr_assert(same(of_config(&plain), of_config(&c)), "%s", models[m]);
        weights_close(w);
    }
}

Test(fingerprint, config_sees_what_layers_compute_with) {
    struct weights *w = opened("random:llama-3.1-8b");
    const struct model_config base = *weights_config(w);
    const struct sum want = of_config(&base);
#define DIFFERS(change)                                                                                                \
    do {                                                                                                               \
        struct model_config c = base;                                                                                  \
        change;                                                                                                        \
        cr_expect_not(same(of_config(&c), want), #change);                                                             \
    } while (0)
#define SAME(change)                                                                                                   \
    do {                                                                                                               \
        struct model_config c = base;                                                                                  \
        change;                                                                                                        \
        cr_expect(same(of_config(&c), want), #change);                                                                 \
    } while (0)
    DIFFERS(c.hidden++);
    DIFFERS(c.n_layers--);
    DIFFERS(c.n_heads = 64);
    DIFFERS(c.n_kv_heads = 4);
    DIFFERS(c.head_dim = 64);
    DIFFERS(c.ffn++);
    DIFFERS(c.rms_eps = nextafterf(c.rms_eps, 1));
    DIFFERS(c.rope.theta *= 1.01f);
    DIFFERS(c.rope.scaling = ROPE_PLAIN);
    DIFFERS(c.rope.factor = 32);
    DIFFERS(c.rope.low_freq_factor = 2);
    DIFFERS(c.rope.high_freq_factor = 8);
    DIFFERS(c.rope.original_ctx = 4096);
    DIFFERS(c.sliding_window = 4096);
    DIFFERS(c.qkv_bias = true);
    DIFFERS(c.o_bias = true);
    DIFFERS(c.mlp_bias = true);
    DIFFERS(c.qk_norm = true);
    /* Two windows that differ only in where they begin. */
    struct model_config a = base, b = base;
    a.sliding_window = b.sliding_window = 64;
    b.sliding_from = 2;
    cr_expect_not(same(of_config(&a), of_config(&b)));
    /* Names, and what only the ends use. */
    SAME(c.sliding_from = 2);
    SAME(c.family = FAMILY_MISTRAL);
    SAME(snprintf(c.arch, sizeof c.arch, "llama"));
    SAME(c.vocab++);
    SAME(c.tied_head = !c.tied_head);
    SAME(c.max_ctx = 7);
    SAME(c.bos = -1);
    SAME(c.n_eos = 0);
    weights_close(w);
}

/* ---- weights ---- */

static struct sum of_weights(const char *path, int lo, int hi) {
    struct err e = {0};
    struct sum s;
    struct weights *w = opened(path);
    cr_assert_eq(fingerprint_weights(w, lo, hi, s.d, &e), 0, "%s", e.msg);
    weights_close(w);
    return s;
}

Test(fingerprint, weights_of_generated_models) {
    struct sum a = of_weights("random:qwen2.5-0.5b:1", 2, 4);
    cr_assert(memcmp(a.d, zeros, sizeof zeros) != 0);
    cr_assert(same(a, of_weights("random:qwen2.5-0.5b:1", 2, 4)));
    cr_assert(same(a, of_weights("random:qwen2.5-0.5b/5:1", 2, 4)), "the number of layers is the config's business");
    cr_assert_not(same(a, of_weights("random:qwen2.5-0.5b:2", 2, 4)), "another seed");
    cr_assert_not(same(a, of_weights("random:qwen2.5-0.5b:1", 2, 5)), "a layer more");
    cr_assert_not(same(a, of_weights("random:qwen2.5-0.5b:1", 3, 5)), "shifted by one");
}

/* Every file kind and type; and each layer says something of its own. */
Test(fingerprint, weights_of_files) {
    static const char *const paths[] = {FAMILIES "llama-bias",
                                        FAMILIES "llama2",
                                        FAMILIES "llama-linear",
                                        FAMILIES "qwen2-swa",
                                        FAMILIES "qwen3",
                                        FAMILIES "gguf-k/model.gguf",
                                        FAMILIES "gguf-qwen2/model.gguf",
                                        FAMILIES "gguf-llama32/model.gguf"};
    enum { N = sizeof paths / sizeof *paths };
    struct sum seen[N][2];
    for (int i = 0; i < N; i++)
        for (int l = 0; l < 2; l++) {
            seen[i][l] = of_weights(paths[i], l + 1, l + 2);
            cr_assert(same(seen[i][l], of_weights(paths[i], l + 1, l + 2)), "%s", paths[i]);
            for (int k = 0; k < 2 * i + l; k++)
                cr_assert_not(same(seen[k / 2][k % 2], seen[i][l]), "%s layer %d", paths[i], l + 1);
        }
}

/* A copy of a model of one safetensors file, for tests to change. The data of `name` stand at *at. */
static uint8_t *copy_model(const char *model, char dir[64], const char *name, size_t *n, size_t *at) {
    char path[200];
    size_t n_config;
    scratch_make(dir);
    snprintf(path, sizeof path, "%s/config.json", model);
    char *config = load_file(path, &n_config);
    store_file(dir, "config.json", config, n_config);
    free(config);
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    uint8_t *file = (uint8_t *)load_file(path, n);
    store_file(dir, "model.safetensors", file, *n);

    struct weights *w = opened(dir);
    struct tensor_info info;
    struct tensor t;
    struct err e = {0};
    cr_assert(names_find(weights_config(w), name, &info));
    cr_assert_eq(weights_get(w, name, info.rows, info.cols, &t, &e), 0, "%s", e.msg);
    *at = 0;
    for (size_t i = 0; i + t.rows * t.row_bytes <= *n && !*at; i++)
        if (memcmp(file + i, t.data, t.rows * t.row_bytes) == 0)
            *at = i;
    cr_assert(*at > 0);
    weights_close(w);
    return file;
}

/* A change is seen where a sample lies, and only there: each byte of a small tensor is changed alone.
 */
Test(fingerprint, weights_are_sampled) {
    static const char name[] = "model.layers.1.self_attn.k_proj.weight";
    char dir[64];
    size_t n, at, bytes = 0;
    uint8_t *file = copy_model(FAMILIES "qwen2", dir, name, &n, &at);
    struct sum want = of_weights(dir, 1, 2);
    struct weights *w = opened(dir);
    struct tensor_info info;
    names_find(weights_config(w), name, &info);
    bytes = (size_t)info.rows * info.cols * 2;
    weights_close(w);

    size_t seen = 0;
    for (size_t i = 0; i < bytes; i++) {
        file[at + i] ^= 1;
        store_file(dir, "model.safetensors", file, n);
        seen += !same(of_weights(dir, 1, 2), want);
        file[at + i] ^= 1;
    }
    cr_assert(seen >= 64 && seen <= 8 * 64, "%zu of %zu bytes are sampled", seen, bytes);
    store_file(dir, "model.safetensors", file, n);
    cr_assert(same(of_weights(dir, 1, 2), want));
    file[at - 1] ^= 1; /* another tensor, which may or may not be of the layer */
    store_file(dir, "model.safetensors", file, n);
    cr_assert(same(of_weights(dir, 2, 3), of_weights(FAMILIES "qwen2", 2, 3)), "nor does another layer see it");
    scratch_remove(dir);
    free(file);
}

/* The same bytes under another type. */
Test(fingerprint, weights_of_another_type) {
    static const char name[] = "\"model.layers.1.self_attn.k_proj.weight\":{\"dtype\":\"";
    char dir[64];
    size_t n, at;
    uint8_t *file = copy_model(FAMILIES "llama-linear", dir, "model.layers.1.self_attn.k_proj.weight", &n, &at);
    struct sum want = of_weights(dir, 0, 2);
    uint8_t *p = memmem(file, n, name, strlen(name));
    cr_assert(p != NULL && memcmp(p + strlen(name), "F16\"", 4) == 0);
    /* "BF16" is a letter longer, so is the header, and all data move by one. */
    uint64_t len = 0;
    memcpy(&len, file, 8);
    uint8_t *longer = malloc(n + 1);
    size_t head = (size_t)(p + strlen(name) - file);
    memcpy(longer, file, head);
    longer[head] = 'B';
    memcpy(longer + head + 1, file + head, n - head);
    len++;
    memcpy(longer, &len, 8);
    store_file(dir, "model.safetensors", longer, n + 1);
    cr_assert_not(same(of_weights(dir, 0, 2), want));
    cr_assert(same(of_weights(dir, 2, 3), of_weights(FAMILIES "llama-linear", 2, 3)));
    scratch_remove(dir);
    free(longer);
    free(file);
}

/* ---- parts of a model ---- */

Test(fingerprint, no_middle_here) {
    char dir[64], path[200];
    struct err e = {0};
    uint8_t d[WIRE_DIGEST];
    /* Shards: qwen2-swa has three files; the one in the middle stays away. */
    scratch_make(dir);
    static const char *const files[] = {"config.json", "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"};
    for (int i = 0; i < 4; i++) {
        size_t n;
        snprintf(path, sizeof path, FAMILIES "qwen2-swa/%s", files[i]);
        char *p = load_file(path, &n);
        store_file(dir, files[i], p, n);
        free(p);
    }
    struct weights *w = opened(dir);
    memset(d, 1, sizeof d);
    cr_assert_eq(fingerprint_weights(w, 1, 3, d, &e), 0, "%s", e.msg);
    cr_assert_arr_eq(d, zeros, sizeof zeros);
    struct wire_hello h;
    cr_assert_eq(fingerprint_hello(w, 1, 3, &h, &e), 0, "%s", e.msg);
    cr_assert(h.version == WIRE_VERSION && h.n_layers == 4 && h.lo == 1 && h.hi == 3 && h.hidden == 64);
    cr_assert_arr_eq(h.weights, zeros, sizeof zeros);
    cr_assert_arr_eq(h.config, of_config(weights_config(w)).d, WIRE_DIGEST);
    cr_assert(h.codec == 0 && h.kv == 0 && h.quant == 0 && h.ctx == 0 && h.live == 0);
    cr_assert_eq(fingerprint_weights(w, 3, 5, d, &e), -1);
    expect_err(&e, ERR_USAGE, "3 to 5", "4", NULL);
    weights_close(w);
    scratch_remove(dir);
}

/* A file that is cut off is no model without a middle: it is damaged, and that is said. */
Test(fingerprint, a_damaged_file_is_an_error) {
    static const char name[] = "model.layers.1.mlp.down_proj.weight";
    char dir[64], path[100];
    size_t n, at;
    struct err e = {0};
    struct wire_hello h;
    free(copy_model(FAMILIES "qwen2", dir, name, &n, &at));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    cr_assert_eq(truncate(path, (off_t)at), 0);
    struct weights *w = opened(dir);
    cr_assert_eq(fingerprint_hello(w, 1, 2, &h, &e), -1);
    expect_err(&e, ERR_MODEL, path, "truncated", NULL);
    weights_close(w);
    scratch_remove(dir);
}
