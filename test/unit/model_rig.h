/* test/unit/model_rig.h - a model, a CPU backend, its parts and a session over them, as a program would put them
 * together; and the reader of golden.bin (format: test/oracle/golden.py). Everything asserts: a test that gets a rig
 * has one. */
#ifndef TEST_UNIT_MODEL_RIG_H
#define TEST_UNIT_MODEL_RIG_H

#include "core/decode/session.h"
#include "core/model/backend.h"
#include "core/model/middle.h"
#include "core/model/weights.h"

#include <stdint.h>

struct rig_opts {
    const char *cards; /* "0", "0,1": CUDA cards, those of gpu_rig.h, instead of the CPU */
    const char *isa;   /* NULL: the best */
    int threads;       /* 0: one */
    int front, back;   /* both 0: one stage holds the whole model */
    int max_rows;
    uint32_t ctx;
    enum dtype kv_type;
    enum quant quant; /* re-encode matrices while loading */
    bool lazy;        /* leave them where they lie until the first pass is over */
};

struct rig {
    struct weights *weights;
    const struct model_config *config;
    struct backend *backend;
    struct stage *front, *middle_stage, *back; /* without a split front holds everything, the others are NULL */
    struct middle *middle;
    struct session *session;
};

/* What the rigs compute with: the CPU, or with TEST_BACKEND=cuda in the environment a card (gpu_rig.h), so that tests
 * of what stands above the backends can be run over both. */
void rig_backend(struct backend **out, int threads, const char *isa);
bool rig_on_card(void); /* whose KV cache is f16 */

void rig_open(struct rig *r, const char *model, const struct rig_opts *o);
void rig_close(struct rig *r);

/* The logits [n][vocab] of tokens[0..n), computed as one speculative chain under the root. The caller frees. */
float *rig_chain_logits(struct rig *r, const uint32_t *tokens, int n);
/* Makes the context tokens[0..n) and returns the logits of the last. Borrowed from the session. */
const float *rig_feed(struct rig *r, const uint32_t *tokens, uint32_t n);
/* n tokens, the largest logit each, behind what was fed. */
void rig_greedy(struct rig *r, uint32_t *tokens, int n);

struct golden {
    uint32_t vocab, n_tokens, n_full, n_proj, n_greedy;
    uint32_t *tokens, *argmax; /* [n_tokens] */
    float *gap, *norm;         /* [n_tokens] */
    float *proj;               /* [n_tokens][n_proj] */
    uint32_t *full;            /* [n_full] positions */
    float *logits;             /* [n_full][vocab] */
    uint32_t *greedy;          /* [n_greedy] */
    float *greedy_gap;         /* [n_greedy] */
    char *data;                /* the file, which all of these point into */
};

void golden_open(struct golden *g, const char *path);
void golden_close(struct golden *g);

/* How far logits [n_tokens][vocab] are from the oracle's: the largest relative L2 distance, over the positions stored
 * whole and (estimated from the signed sums) over all of them. argmax_wrong counts positions whose largest logit is
 * another than the oracle's although the oracle's margin over the second is wider than twice the distance that
 * tolerance allows. */
struct distance {
    double full, estimate;
    int argmax_wrong;
};
struct distance golden_compare(const struct golden *g, const float *logits, double tolerance);

/* A path below the shared data folder (../shared, or $TEST_SHARED), or the test is skipped with the reason. */
void shared_path_or_skip(char *out, size_t cap, const char *below);

#endif
