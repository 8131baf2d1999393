/* Trained models against transformers: the tiny model of test/models/tiny, and stories260K where it is at hand. */
#include "core/base/file.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

/* Largest relative L2 distance of logits, as for the random models; f16 KV is what users get by default. */
static const double TOLERANCE_F32 = 1e-4, TOLERANCE_F16 = 1e-2;

/* A model against its golden.bin: logits of all positions, greedy tokens. */
static void agrees(const char *model, const char *golden, int split, enum dtype kv_type) {
    struct golden g;
    struct rig r;
    golden_open(&g, golden);
    rig_open(&r, model,
             &(struct rig_opts){.front = split,
                                .back = split,
                                .max_rows = (int)g.n_tokens,
                                .ctx = g.n_tokens + g.n_greedy,
                                .kv_type = kv_type});
    double tolerance = kv_type == DT_F32 ? TOLERANCE_F32 : TOLERANCE_F16;
    float *logits = rig_chain_logits(&r, g.tokens, (int)g.n_tokens);
    struct distance d = golden_compare(&g, logits, tolerance);
    free(logits);
    cr_log_info("%s, split %d, kv %s: relative L2 %.2e stored, %.2e estimated over all", model, split,
                dtype_info(kv_type)->name, d.full, d.estimate);
    cr_expect(d.full <= tolerance && d.estimate <= tolerance, "logits are %.2e (stored), %.2e (all) off", d.full,
              d.estimate);
    cr_expect_eq(d.argmax_wrong, 0);
    if (kv_type == DT_F32) {
        uint32_t *greedy = malloc(g.n_greedy * sizeof *greedy);
        cr_assert(greedy);
        rig_feed(&r, g.tokens, g.n_tokens);
        rig_greedy(&r, greedy, (int)g.n_greedy);
        for (uint32_t i = 0; i < g.n_greedy; i++)
            cr_expect_eq(greedy[i], g.greedy[i], "greedy token %u is %u, transformers has %u", i, greedy[i],
                         g.greedy[i]);
        free(greedy);
    }
    rig_close(&r);
    golden_close(&g);
}

static void stories(int split, enum dtype kv_type) {
    char model[512];
    shared_path_or_skip(model, sizeof model, "data/models/stories260K");
    agrees(model, "test/models/stories260K/golden.bin", split, kv_type);
}

Test(known, stories260K) {
    stories(0, DT_F32);
    stories(2, DT_F32);
    stories(1, DT_F16);
}

Test(known, tiny_logits) {
    agrees("test/models/tiny", "test/models/tiny/golden.bin", 0, DT_F32);
    agrees("test/models/tiny", "test/models/tiny/golden.bin", 2, DT_F32);
    agrees("test/models/tiny", "test/models/tiny/golden.bin", 3, DT_F16);
}

/* An array of numbers of a JSON object, at most 1024 of them. */
static uint32_t numbers(yyjson_val *object, const char *key, uint32_t *out) {
    yyjson_val *list = yyjson_obj_get(object, key), *v;
    size_t i, n;
    cr_assert(yyjson_arr_size(list) > 0 && yyjson_arr_size(list) <= 1024, "%s", key);
    yyjson_arr_foreach(list, i, n, v) {
        out[i] = (uint32_t)yyjson_get_uint(v);
    }
    return (uint32_t)n;
}

static yyjson_doc *read_known(void) {
    struct err e = {0};
    char *text;
    size_t n;
    cr_assert_eq(file_read("test/models/tiny/golden.json", 1 << 20, &text, &n, &e), 0, "%s", e.msg);
    yyjson_doc *doc = yyjson_read(text, n, 0);
    free(text);
    cr_assert(doc);
    return doc;
}

/* Three prompts and a conversation, continued to the end of the answer, whatever part of the model computes where. */
Test(known, tiny_continues_as_transformers_does) {
    yyjson_doc *doc = read_known();
    yyjson_val *prompts = yyjson_obj_get(yyjson_doc_get_root(doc), "prompts");
    yyjson_val *chat = yyjson_obj_get(yyjson_doc_get_root(doc), "chat");
    for (int split = 0; split <= 3; split++) {
        struct rig r;
        rig_open(
            &r, "test/models/tiny",
            &(struct rig_opts){
                .front = split, .back = split, .max_rows = 32, .ctx = 1024, .kv_type = split % 2 ? DT_F16 : DT_F32});
        for (size_t i = 0; i <= yyjson_arr_size(prompts); i++) {
            yyjson_val *p = i < yyjson_arr_size(prompts) ? yyjson_arr_get(prompts, i) : chat;
            uint32_t ids[1024], want[1024], got[1024];
            uint32_t n = numbers(p, "ids", ids), n_want = numbers(p, "greedy_ids", want);
            rig_feed(&r, ids, n);
            rig_greedy(&r, got, (int)n_want);
            cr_expect_eq(memcmp(got, want, n_want * sizeof *got), 0, "prompt %zu, split %d: another continuation", i,
                         split);
        }
        rig_close(&r);
    }
    yyjson_doc_free(doc);
}
