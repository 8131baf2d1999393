/* A thousand random trees, over models of every family: each node's logits are the bits that decoding its path token by
 * token gives, by a session of its own over the whole model in one part. */
#include "core/base/clock.h"
#include "test/unit/model_rig.h"
#include "test/unit/tree_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>

enum { TREES = 60 };

static const char *const models[] = {
    "tiny",
    "families/llama2",
    "families/llama31",
    "families/llama32",
    "families/nemo",
    "families/qwen2",
    "families/qwen2-swa",
    "families/qwen3",
    "families/mistral-v01",
    "families/mistral-v03",
    "families/llama-bias",
    "families/llama-linear",
    "families/gguf-k/model.gguf",
    "families/gguf-llama/model.gguf",
    "families/gguf-nemo/model.gguf",
    "families/gguf-qwen2/model.gguf",
    "families/gguf-qwen3/model.gguf",
};
enum { N_MODELS = sizeof models / sizeof *models };

static void compare(const char *name, enum dtype kv, uint32_t seed) {
    struct rig split, whole;
    struct tree t;
    char path[128];
    snprintf(path, sizeof path, "test/models/%s", name);
    rig_open(&whole, path, &(struct rig_opts){.max_rows = TREE_ROWS, .ctx = TREE_CTX, .kv_type = kv});
    int layers = whole.config->n_layers;
    rig_open(&split, path,
             &(struct rig_opts){
                 .front = 1, .back = layers > 2 ? 1 : 0, .max_rows = TREE_ROWS, .ctx = TREE_CTX, .kv_type = kv});
    size_t vocab = (size_t)whole.config->vocab;
    tree_open(&t, vocab);
    for (int i = 0; i < TREES; i++) {
        tree_grow(&t, (uint32_t)vocab, &seed);
        tree_compare(&t, split.session, whole.session, vocab, name);
    }
    tree_close(&t);
    rig_close(&split);
    rig_close(&whole);
}

Test(trees, a_thousand_of_them_equal_token_by_token) {
    double t0 = clock_ms();
    for (int i = 0; i < N_MODELS; i++)
        compare(models[i], i % 2 ? DT_F32 : DT_F16, 1 + (uint32_t)i);
    cr_log_info("%d trees over %d models in %.0f ms", N_MODELS * TREES, N_MODELS, clock_ms() - t0);
}
