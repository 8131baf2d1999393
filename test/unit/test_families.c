/* Every family against transformers, and against itself: the tiny random models of test/models/families (see its
 * README) have head sizes, biases, windows and scalings of every kind, and golden.bin says what transformers computes
 * for them. */
#include "core/cpu/cpu.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS = 300, CTX = 360, N_TREES = 12, MAX_NODES = 40 };

/* With f32 KV the worst measured is about 1e-5 (gguf-k), which is also what transformers is from float64. Keys and
 * values of 11 bits are another model, so to speak: the worst measured is 6.4e-3 (qwen3). */
static const double TOLERANCE_F32 = 1e-4, TOLERANCE_F16 = 1e-2;

static void model_path(char *out, size_t cap, const char *name, bool golden) {
    snprintf(out, cap, "test/models/families/%s%s", name,
             golden                           ? "/golden.bin"
             : strncmp(name, "gguf-", 5) == 0 ? "/model.gguf"
                                              : "");
}

static void open_model(struct rig *r, const char *name, const struct rig_opts *o) {
    char path[128];
    model_path(path, sizeof path, name, false);
    rig_open(r, path, o);
}

static void open_golden(struct golden *g, const char *name) {
    char path[128];
    model_path(path, sizeof path, name, true);
    golden_open(g, path);
    cr_assert_eq(g->n_tokens, N_TOKENS);
}

/* Logits of all positions and greedy tokens, for one way of cutting the model and one type of KV. */
static void agrees_with_transformers(const char *name, int split, enum dtype kv_type) {
    struct golden g;
    struct rig r;
    open_golden(&g, name);
    open_model(&r, name,
               &(struct rig_opts){.front = split, .back = split, .max_rows = N_TOKENS, .ctx = CTX, .kv_type = kv_type});
    cr_assert_eq((uint32_t)r.config->vocab, g.vocab);
    double tolerance = kv_type == DT_F32 ? TOLERANCE_F32 : TOLERANCE_F16;
    float *logits = rig_chain_logits(&r, g.tokens, N_TOKENS);
    struct distance d = golden_compare(&g, logits, tolerance);
    free(logits);
    cr_log_info("%s, split %d, kv %s: relative L2 %.2e stored, %.2e estimated over all", name, split,
                dtype_info(kv_type)->name, d.full, d.estimate);
    cr_expect(d.full <= tolerance, "%s, split %d: logits are %.2e from transformers'", name, split, d.full);
    cr_expect(d.estimate <= tolerance, "%s, split %d: logits are about %.2e from transformers'", name, split,
              d.estimate);
    cr_expect_eq(d.argmax_wrong, 0, "%s: %d positions have another best token", name, d.argmax_wrong);

    /* With KV of 11 bits a near tie may fall otherwise, and behind it the texts part. */
    if (kv_type == DT_F32) {
        uint32_t greedy[64];
        cr_assert_leq(g.n_greedy, 64);
        rig_feed(&r, g.tokens, N_TOKENS);
        rig_greedy(&r, greedy, (int)g.n_greedy);
        for (uint32_t i = 0; i < g.n_greedy; i++)
            cr_expect_eq(greedy[i], g.greedy[i], "%s, split %d: greedy token %u is %u, transformers has %u", name,
                         split, i, greedy[i], g.greedy[i]);
    }
    rig_close(&r);
    golden_close(&g);
}

/* The logits of a position are the same bits, however the tokens before it were cut into windows. */
static void same_bits_for_any_chunking(const char *name, enum quant quant) {
    struct golden g;
    struct rig whole;
    open_golden(&g, name);
    for (int f16 = 0; f16 < 2; f16++) {
        struct rig_opts o = {.max_rows = N_TOKENS, .ctx = CTX, .kv_type = f16 ? DT_F16 : DT_F32, .quant = quant};
        open_model(&whole, name, &o);
        size_t row = g.vocab * sizeof(float);
        float *want = rig_chain_logits(&whole, g.tokens, N_TOKENS);
        static const int chunks[] = {1, 7, 64, N_TOKENS};
        for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
            struct rig r;
            o.max_rows = chunks[c];
            o.front = o.back = c % 2 ? 1 : 0;
            o.threads = c % 2 ? 3 : 1;
            open_model(&r, name, &o);
            for (int n = chunks[c];; n = n + chunks[c] < N_TOKENS ? n + chunks[c] : N_TOKENS) {
                const float *got = rig_feed(&r, g.tokens, (uint32_t)n);
                cr_expect_eq(memcmp(got, want + (size_t)(n - 1) * g.vocab, row), 0, "%s: position %d in chunks of %d",
                             name, n - 1, chunks[c]);
                if (n == N_TOKENS)
                    break;
            }
            rig_close(&r);
        }
        free(want);
        rig_close(&whole);
    }
    golden_close(&g);
}

/* ---- trees ---- */

struct tree {
    uint32_t n_context; /* tokens of the golden sequence before it */
    int n;
    uint32_t tokens[MAX_NODES];
    int parents[MAX_NODES];
};

static uint32_t below(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Shapes between a chain and a bush; contexts grow from none to far beyond the shortest window of the models. */
static void random_tree(struct tree *t, uint64_t *state, int index, uint32_t vocab) {
    t->n_context = index ? (uint32_t)index * 11 + below(state, 11) : 0;
    t->n = 1 + (int)below(state, MAX_NODES);
    uint32_t bushiness = 1 + below(state, 4);
    for (int i = 0; i < t->n; i++) {
        t->tokens[i] = below(state, vocab);
        /* mostly the newest nodes, so that trees get deep enough to leave a window */
        int back = (int)below(state, bushiness * 2);
        t->parents[i] = back < i ? i - 1 - back : -1;
        if (below(state, 16) == 0)
            t->parents[i] = -1;
    }
}

/* want [n][vocab]: each node's logits, its path fed token by token to a session of its own. */
static void path_logits(struct rig *plain, const struct golden *g, const struct tree *t, float *want) {
    uint32_t context[N_TOKENS + MAX_NODES];
    memcpy(context, g->tokens, t->n_context * sizeof *context);
    for (int i = 0; i < t->n; i++) {
        uint32_t n = t->n_context;
        for (int k = i; k >= 0; k = t->parents[k])
            n++;
        uint32_t at = n;
        for (int k = i; k >= 0; k = t->parents[k])
            context[--at] = t->tokens[k];
        memcpy(want + (size_t)i * g->vocab, rig_feed(plain, context, n), g->vocab * sizeof *want);
    }
}

/* A node of a tree has the bits that plain decoding of its path gives, on every instruction set. */
static void trees_equal_their_paths(const char *name, enum quant quant) {
    struct golden g;
    struct err e = {0};
    open_golden(&g, name);
    const char *const *isas = cpu_isa_list();
    size_t size = MAX_NODES * (size_t)g.vocab;
    float *want = malloc(size * sizeof *want), *got = malloc(size * sizeof *got);
    cr_assert(want && got);
    for (int f16 = 0; f16 < 2; f16++) {
        struct rig_opts o = {
            .max_rows = 1, .ctx = CTX, .kv_type = f16 ? DT_F16 : DT_F32, .isa = "portable", .quant = quant};
        struct rig plain, cut[8];
        open_model(&plain, name, &o);
        int n_isas = 0;
        for (o.max_rows = MAX_NODES, o.front = o.back = 1; isas[n_isas] && n_isas < 8; n_isas++) {
            o.isa = isas[n_isas];
            open_model(&cut[n_isas], name, &o);
        }
        uint64_t state = 1 + (uint64_t)f16;
        for (int i = 0; i < N_TREES / 2; i++) {
            struct tree t;
            random_tree(&t, &state, 2 * i + f16, g.vocab);
            path_logits(&plain, &g, &t, want);
            for (int k = 0; k < n_isas; k++) {
                if (t.n_context)
                    rig_feed(&cut[k], g.tokens, t.n_context);
                memset(got, 0xff, size * sizeof *got);
                cr_assert_eq(session_try_tree(cut[k].session, t.tokens, t.parents, t.n, got, &e), 0, "%s", e.msg);
                for (int j = 0; j < t.n; j++)
                    cr_expect_eq(memcmp(got + (size_t)j * g.vocab, want + (size_t)j * g.vocab, g.vocab * sizeof *got),
                                 0, "%s, %s: node %d of tree %d (%d nodes behind %u tokens)", name, isas[k], j, i, t.n,
                                 t.n_context);
            }
        }
        rig_close(&plain);
        for (int k = 0; k < n_isas; k++)
            rig_close(&cut[k]);
    }
    free(want);
    free(got);
    golden_close(&g);
}

/* Weights that are re-encoded while loading go through kernels of their own. */
#define QUANTISED(id, name, quant)                                                                                     \
    Test(identity, id##_chunks, .timeout = 300) {                                                                      \
        same_bits_for_any_chunking(name, quant);                                                                       \
    }                                                                                                                  \
    Test(identity, id##_trees, .timeout = 300) {                                                                       \
        trees_equal_their_paths(name, quant);                                                                          \
    }

QUANTISED(nemo_q8, "nemo", QUANT_Q8)
QUANTISED(nemo_q4, "nemo", QUANT_Q4)
QUANTISED(qwen2_swa_q8, "qwen2-swa", QUANT_Q8)
QUANTISED(qwen2_swa_q4, "qwen2-swa", QUANT_Q4)

#define FAMILY(id, name)                                                                                               \
    Test(oracle, id##_whole, .timeout = 300) {                                                                         \
        agrees_with_transformers(name, 0, DT_F32);                                                                     \
    }                                                                                                                  \
    Test(oracle, id##_split, .timeout = 300) {                                                                         \
        agrees_with_transformers(name, 1, DT_F32);                                                                     \
    }                                                                                                                  \
    Test(oracle, id##_f16_kv, .timeout = 300) {                                                                        \
        agrees_with_transformers(name, 1, DT_F16);                                                                     \
    }                                                                                                                  \
    Test(identity, id##_chunks, .timeout = 300) {                                                                      \
        same_bits_for_any_chunking(name, QUANT_NONE);                                                                  \
    }                                                                                                                  \
    Test(identity, id##_trees, .timeout = 300) {                                                                       \
        trees_equal_their_paths(name, QUANT_NONE);                                                                     \
    }

FAMILY(mistral_v01, "mistral-v01")
FAMILY(mistral_v03, "mistral-v03")
FAMILY(nemo, "nemo")
FAMILY(llama2, "llama2")
FAMILY(llama31, "llama31")
FAMILY(llama32, "llama32")
FAMILY(llama_bias, "llama-bias")
FAMILY(llama_linear, "llama-linear")
FAMILY(qwen2, "qwen2")
FAMILY(qwen2_swa, "qwen2-swa")
FAMILY(qwen3, "qwen3")
FAMILY(gguf_llama, "gguf-llama")
FAMILY(gguf_nemo, "gguf-nemo")
FAMILY(gguf_llama32, "gguf-llama32")
FAMILY(gguf_qwen2, "gguf-qwen2")
FAMILY(gguf_qwen3, "gguf-qwen3")
FAMILY(gguf_k, "gguf-k")
