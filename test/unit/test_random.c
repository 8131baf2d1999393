/* Generated models: the same values everywhere, published shapes, sane statistics, and speed. */
#include "core/model/random.h"
#include "core/model/weights.h"
#include "loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static struct weights *opened(const char *path) {
    struct weights *w;
    struct err e = {0};
    cr_assert_eq(weights_open(&w, path, &e), 0, "%s", e.msg);
    return w;
}

static uint64_t uint_of(yyjson_val *obj, const char *key) {
    cr_assert(yyjson_is_uint(yyjson_obj_get(obj, key)), "%s", key);
    return yyjson_get_uint(yyjson_obj_get(obj, key));
}

Test(random, equals_the_numpy_implementation) {
    size_t n, i, max, k, n_first, rows = 0;
    char *text = load_file(GOLDEN "random.json", &n);
    yyjson_doc *doc = yyjson_read(text, n, 0);
    yyjson_val *one, *v;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, one) {
        char path[100];
        const char *model = yyjson_get_str(yyjson_obj_get(one, "model")),
                   *name = yyjson_get_str(yyjson_obj_get(one, "tensor"));
        struct tensor t;
        struct err e = {0};
        snprintf(path, sizeof path, "random:%s:%llu", model, (unsigned long long)uint_of(one, "seed"));
        struct weights *w = opened(path);
        cr_assert_eq(weights_get(w, name, (uint32_t)uint_of(one, "rows"), (uint32_t)uint_of(one, "cols"), &t, &e), 0,
                     "%s", e.msg);
        cr_assert_eq(t.dtype, DT_BF16);
        uint16_t *row = malloc(t.row_bytes);
        cr_assert_eq(tensor_row(&t, (uint32_t)uint_of(one, "row"), row), row);
        uint64_t sum = 0;
        for (uint32_t c = 0; c < t.cols; c++)
            sum += row[c];
        yyjson_arr_foreach(yyjson_obj_get(one, "first"), k, n_first, v)
            cr_assert_eq(row[k], yyjson_get_uint(v), "%s %s: value %zu", path, name, k);
        yyjson_arr_foreach(yyjson_obj_get(one, "last"), k, n_first, v)
            cr_assert_eq(row[t.cols - n_first + k], yyjson_get_uint(v), "%s %s: value %zu from the end", path, name, k);
        cr_assert_eq(sum, uint_of(one, "sum"), "%s %s", path, name);
        free(row);
        weights_close(w);
        rows++;
    }
    cr_assert_geq(rows, 6);
    yyjson_doc_free(doc);
    free(text);
}

/* The published figures: parameters of each model, to the digit. */
Test(random, published_sizes) {
    static const struct {
        const char *name;
        uint64_t params;
    } all[] = {
        {"mistral-7b", 7248023552},   {"nemo-12b", 12247782400},   {"llama-3.1-8b", 8030261248},
        {"llama-3.2-1b", 1235814400}, {"qwen2.5-0.5b", 494032768}, {"qwen3-8b", 8190735360},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char path[100];
        snprintf(path, sizeof path, "random:%s", all[i].name);
        struct weights *w = opened(path);
        const struct model_config *c = weights_config(w);
        uint64_t h = (uint64_t)c->hidden, q = (uint64_t)c->n_heads * (uint64_t)c->head_dim,
                 kv = (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim, ffn = (uint64_t)c->ffn;
        uint64_t layer = 2 * h + h * (2 * q + 2 * kv) + 3 * h * ffn + (c->qkv_bias ? q + 2 * kv : 0) +
                         (c->qk_norm ? 2 * (uint64_t)c->head_dim : 0);
        uint64_t total = (uint64_t)c->n_layers * layer + h + (uint64_t)c->vocab * h * (c->tied_head ? 1 : 2);
        cr_assert_eq(total, all[i].params, "%s has %llu", all[i].name, (unsigned long long)total);
        weights_close(w);
    }
}

/* Same values whatever part is made, of however many layers; others with another seed, name, tensor or row. */
Test(random, what_the_values_depend_on) {
    static const char name[] = "model.layers.1.mlp.up_proj.weight";
    static const char *const paths[] = {"random:qwen2.5-0.5b:5", "random:qwen2.5-0.5b/2:5", "random:qwen2.5-0.5b",
                                        "random:qwen2.5-0.5b:0"};
    uint16_t row[4][896], other[896];
    struct tensor t;
    struct err e = {0};
    for (int i = 0; i < 4; i++) {
        struct weights *w = opened(paths[i]);
        cr_assert_eq(weights_get(w, name, 4864, 896, &t, &e), 0, "%s", e.msg);
        tensor_row(&t, 100, row[i]);
        tensor_row(&t, 101, other);
        cr_assert(memcmp(row[i], other, sizeof other) != 0);
        cr_assert_eq(weights_get(w, "model.layers.0.mlp.up_proj.weight", 4864, 896, &t, &e), 0, "%s", e.msg);
        tensor_row(&t, 100, other);
        cr_assert(memcmp(row[i], other, sizeof other) != 0);
        weights_close(w);
    }
    cr_assert_arr_eq(row[0], row[1], sizeof row[0], "the number of layers plays no part");
    cr_assert(memcmp(row[0], row[2], sizeof row[0]) != 0, "the seed does");
    cr_assert_arr_eq(row[2], row[3], sizeof row[0], "no seed is seed 0");
    /* and a row's beginning does not depend on how much of it is made */
    uint16_t part[7];
    random_row(t.key, t.scale, 100, part, 7);
    cr_assert_arr_eq(part, other, sizeof part);
}

/* Mean, deviation, kurtosis, and correlation with neighbours in row and column, within five standard errors. */
Test(random, values_look_normal_and_independent) {
    enum { ROWS = 512, COLS = 896 };
    const double n = (double)ROWS * COLS, bound = 5 / sqrt(n);
    static float v[ROWS][COLS];
    uint16_t row[COLS];
    struct tensor t;
    struct err e = {0};
    struct weights *w = opened("random:qwen2.5-0.5b:9");
    cr_assert_eq(weights_get(w, "model.layers.3.mlp.gate_proj.weight", 4864, COLS, &t, &e), 0, "%s", e.msg);
    double scale = 1 / sqrt(COLS), m1 = 0, m2 = 0, m4 = 0, right = 0, pair = 0, below = 0;
    for (uint32_t r = 0; r < ROWS; r++) {
        tensor_row(&t, r, row);
        for (int i = 0; i < COLS; i++)
            v[r][i] = bf16_to_f32(row[i]) / (float)scale;
    }
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < COLS; i++) {
            double x = v[r][i];
            m1 += x / n;
            m2 += x * x / n;
            m4 += x * x * x * x / n;
            right += x * v[r][(i + 1) % COLS] / n;
            pair += x * v[r][(i + 2) % COLS] / n;
            below += x * v[(r + 1) % ROWS][i] / n;
        }
    }
    cr_assert_lt(fabs(m1), bound, "mean %g", m1);
    cr_assert_lt(fabs(m2 - 1), 2 * bound, "variance %g", m2);
    cr_assert(m4 > 2.6 && m4 < 2.8, "kurtosis %g: a sum of four bytes has 2.7", m4);
    cr_assert(fabs(right) < bound && fabs(pair) < bound && fabs(below) < bound, "correlations %g %g %g", right, pair,
              below);
    weights_close(w);
}

Test(random, norms_are_one_and_biases_are_small) {
    uint16_t row[896];
    struct tensor t;
    struct err e = {0};
    struct weights *w = opened("random:qwen2.5-0.5b");
    cr_assert_eq(weights_get(w, "model.norm.weight", 1, 896, &t, &e), 0, "%s", e.msg);
    tensor_row(&t, 0, row);
    for (int i = 0; i < 896; i++)
        cr_assert_eq(bf16_to_f32(row[i]), 1.0f);
    cr_assert_eq(weights_get(w, "model.layers.0.self_attn.q_proj.bias", 1, 896, &t, &e), 0, "%s", e.msg);
    tensor_row(&t, 0, row);
    double m2 = 0;
    for (int i = 0; i < 896; i++)
        m2 += (double)bf16_to_f32(row[i]) * bf16_to_f32(row[i]) / 896;
    cr_assert(sqrt(m2) > 0.017 && sqrt(m2) < 0.023, "%g", sqrt(m2));
    weights_close(w);
}

Test(random, only_the_models_own_tensors) {
    struct tensor t;
    struct err e = {0};
    struct weights *w = opened("random:qwen2.5-0.5b/3");
    cr_assert(weights_has(w, "model.layers.2.self_attn.q_proj.bias"));
    cr_assert_not(weights_has(w, "lm_head.weight"), "its head is the embedding");
    cr_assert_not(weights_has(w, "model.layers.3.input_layernorm.weight"));
    cr_assert_eq(weights_get(w, "lm_head.weight", 151936, 896, &t, &e), -1);
    expect_err(&e, ERR_MODEL, "random:qwen2.5-0.5b/3", "has no tensor lm_head.weight", NULL);
    e = (struct err){0};
    cr_assert_eq(weights_get(w, "model.embed_tokens.weight", 151936, 897, &t, &e), -1);
    expect_err(&e, ERR_MODEL, "model.embed_tokens.weight", "151936 x 896; expected 151936 x 897", NULL);
    cr_assert_null(weights_gguf(w));
    weights_close(w);
}

Test(random, specifications) {
    static const struct {
        const char *path, *expected;
    } bad[] = {
        {"random:", "did you mean"},
        {"random:mistral",
         "did you mean random:mistral-7b? There are mistral-7b, nemo-12b, llama-3.1-8b, llama-3.2-1b, "
         "qwen2.5-0.5b, qwen3-8b"},
        {"random:qwen2-0.5b", "did you mean random:qwen2.5-0.5b?"},
        {"random:llama-3.1-8B", "did you mean random:llama-3.1-8b?"},
        {"random:nemo-12b/", "a number of layers"},
        {"random:nemo-12b/0", "a number of layers"},
        {"random:nemo-12b/-1", "a number of layers"},
        {"random:nemo-12b/513", "a number of layers"},
        {"random:nemo-12b/4x", "a number of layers"},
        {"random:nemo-12b/99999999999999999999", "a number of layers"},
        {"random:nemo-12b:", "a seed"},
        {"random:nemo-12b:-1", "a seed"},
        {"random:nemo-12b: 1", "a seed"},
        {"random:nemo-12b:18446744073709551616", "a seed"},
        {"random:nemo-12b:1/2", "a seed"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct weights *w;
        struct err e = {0};
        cr_assert_eq(weights_open(&w, bad[i].path, &e), -1, "%s", bad[i].path);
        expect_err(&e, ERR_USAGE, bad[i].path, bad[i].expected, NULL);
    }
    struct weights *w = opened("random:nemo-12b/2:18446744073709551615");
    cr_assert_eq(weights_config(w)->n_layers, 2);
    weights_close(w);
    char longest[2000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    memcpy(longest, "random:", 7);
    struct err e = {0};
    cr_assert_eq(weights_open(&w, longest, &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
}
