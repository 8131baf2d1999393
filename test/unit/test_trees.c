/* A thousand random trees, over models of every family: each node's logits are the bits that decoding its path token by
 * token gives, by a session of its own over the whole model in one part. */
#include "core/base/clock.h"
#include "test/unit/model_rig.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX = 24, NODES = 20, DEPTH = PREFIX + NODES, CTX = 48, ROWS = 20, TREES = 60 };

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

struct tree {
    uint32_t text[DEPTH]; /* the prefix, and the path of the node being visited */
    uint32_t n_prefix;
    uint32_t tokens[NODES];
    int parents[NODES], n;
    float *logits; /* [NODES][vocab] */
};

static void grow(struct tree *t, uint32_t vocab, uint32_t *seed) {
    /* Few different tokens, so that siblings and neighbours are alike now and then; and all, to reach each of them. */
    uint32_t alphabet = toy_rnd(seed) % 3 ? vocab : 4, shape = toy_rnd(seed) % 4;
    t->n_prefix = 1 + toy_rnd(seed) % PREFIX;
    for (uint32_t i = toy_rnd(seed) % PREFIX; i < t->n_prefix; i++) /* the beginning may be the one from before */
        t->text[i] = toy_rnd(seed) % vocab;
    t->n = 1 + (int)(toy_rnd(seed) % NODES);
    for (int i = 0; i < t->n; i++) {
        t->tokens[i] = toy_rnd(seed) % alphabet;
        t->parents[i] = shape == 0   ? i - 1                                      /* a chain */
                        : shape == 1 ? -1                                         /* a star */
                        : shape == 2 ? i - 1 - (int)(toy_rnd(seed) % 3) % (i + 1) /* deep */
                                     : (int)(toy_rnd(seed) % (uint32_t)(i + 1)) - 1;
    }
}

/* Node by node, depth first: each is one token behind a context that is there. */
static void visit(struct session *plain, struct tree *t, int parent, uint32_t depth, size_t vocab, const char *model) {
    struct err e = {0};
    for (int i = 0; i < t->n; i++) {
        if (t->parents[i] != parent)
            continue;
        t->text[depth] = t->tokens[i];
        cr_assert_eq(session_feed(plain, t->text, depth + 1, NULL, NULL, &e), 0, "%s", e.msg);
        cr_assert_arr_eq(session_logits(plain), t->logits + (size_t)i * vocab, vocab * sizeof *t->logits,
                         "%s: node %d of %d behind %u tokens", model, i, t->n, t->n_prefix);
        visit(plain, t, i, depth + 1, vocab, model);
    }
}

static void compare(const char *name, enum dtype kv, uint32_t seed) {
    struct rig split, whole;
    struct tree t = {0};
    struct err e = {0};
    char path[128];
    snprintf(path, sizeof path, "test/models/%s", name);
    rig_open(&whole, path, &(struct rig_opts){.max_rows = ROWS, .ctx = CTX, .kv_type = kv});
    int layers = whole.config->n_layers;
    rig_open(&split, path,
             &(struct rig_opts){.front = 1, .back = layers > 2 ? 1 : 0, .max_rows = ROWS, .ctx = CTX, .kv_type = kv});
    size_t vocab = (size_t)whole.config->vocab;
    t.logits = malloc(NODES * vocab * sizeof *t.logits);
    cr_assert_not_null(t.logits);
    for (int i = 0; i < TREES; i++) {
        grow(&t, (uint32_t)vocab, &seed);
        cr_assert_eq(session_feed(split.session, t.text, t.n_prefix, NULL, NULL, &e), 0, "%s", e.msg);
        cr_assert_eq(session_try_tree(split.session, t.tokens, t.parents, t.n, t.logits, &e), 0, "%s", e.msg);
        /* The prefix in one window there, token by token here. */
        for (uint32_t n = 1; n <= t.n_prefix; n++)
            cr_assert_eq(session_feed(whole.session, t.text, n, NULL, NULL, &e), 0, "%s", e.msg);
        cr_assert_arr_eq(session_logits(split.session), session_logits(whole.session), vocab * sizeof(float));
        visit(whole.session, &t, -1, t.n_prefix, vocab, name);
    }
    free(t.logits);
    rig_close(&split);
    rig_close(&whole);
}

Test(trees, a_thousand_of_them_equal_token_by_token) {
    double t0 = clock_ms();
    for (int i = 0; i < N_MODELS; i++)
        compare(models[i], i % 2 ? DT_F32 : DT_F16, 1 + (uint32_t)i);
    cr_log_info("%d trees over %d models in %.0f ms", N_MODELS * TREES, N_MODELS, clock_ms() - t0);
}
