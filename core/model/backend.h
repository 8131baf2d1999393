/* core/model/backend.h - a device that computes model parts. The CPU and CUDA implement it; nothing above knows which.
 *
 * Identity: on one backend, a row's results depend on that row's own tokens and position alone, bit for bit - not on
 * how many rows share the pass, in which order, or from which sessions. x is always f32 [n][hidden] in host memory. One
 * pass at a time per backend instance; calls are made from one thread. */
#ifndef CORE_MODEL_BACKEND_H
#define CORE_MODEL_BACKEND_H

#include "core/base/err.h"
#include "core/model/dtype.h"
#include "core/model/weights.h"
#include "core/model/window.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Layers [lo, hi) of a model, with the embedding before or the final norm and head behind them. */
struct part {
    int lo, hi;
    bool embed;
    bool head;
};

enum quant { QUANT_NONE, QUANT_Q8, QUANT_Q4 };

struct load_opts {
    enum quant quant; /* re-encode matrices while loading */
    int max_rows;     /* rows of the largest pass this stage will see; scratch is sized by it */
    bool lazy;        /* the first pass may be what reads the weights; the results are the same bits */
    /* Called now and then with bytes loaded so far and in all; may be NULL. A return of non-zero stops the load. With
     * lazy it is called in passes too until each weight was read once, so progress_ctx stays as long as the stage: a
     * pass that it stops fails with ERR_NONE, and the next one goes on from there. */
    int (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
};

struct backend;
struct stage; /* one part's weights and scratch on a backend */
struct kv;    /* K and V of a stage's layers for a number of slots */

struct backend_ops {
    const char *name;
    void (*free)(struct backend *b);
    /* Reads only the tensors of the part. On error nothing stays allocated. */
    int (*stage_load)(struct backend *b, struct weights *w, const struct part *part, const struct load_opts *o,
                      struct stage **out, struct err *e);
    void (*stage_free)(struct stage *s);
    size_t (*stage_bytes)(const struct stage *s);
    /* type DT_F16; DT_F32 on the CPU; DT_E4M3, which a card keeps in half of the memory, and the CPU rounds to and
     * keeps as f16. */
    int (*kv_create)(struct stage *s, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e);
    void (*kv_free)(struct kv *kv);  /* wipes */
    void (*kv_clear)(struct kv *kv); /* wipes the content; no slot of it may be read before it is written again */
    /* x[n][hidden] = embedding rows of tokens. Part must have embed; a token >= vocab is an ERR_USAGE. */
    int (*embed)(struct stage *s, const uint32_t *tokens, int n, float *x, struct err *e);
    /* Runs layers [lo, hi), which the part must contain, over the batch in place on x[batch->n][hidden], and writes the
     * rows' K and V. batch->n <= max_rows. Rows of one batch see each other's K and V as their tables say. */
    int (*layers)(struct stage *s, struct kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e);
    /* logits[n][vocab] = head(norm(x)). Part must have head. x is not changed. */
    int (*head)(struct stage *s, const float *x, int n, float *logits, struct err *e);
};

/* First member of every implementation's struct. */
struct backend {
    const struct backend_ops *ops;
};

struct stage {
    const struct backend_ops *ops;
    const struct model_config *config; /* borrowed from the weights, which must outlive the stage */
    struct part part;
};

/* The CPU backend (core/cpu). n_threads 0: all that the process may use. isa NULL: the best of this machine, or one of
 * "portable", "avx2", "avx512", "neon" (ERR_USAGE when this machine or build does not have it). */
int backend_cpu_create(struct backend **out, int n_threads, const char *isa, struct err *e);
/* From now on products of that backend take activations rounded to bf16, as those of a card do with --math fast: no
 * faster here, but near what such a card computes, so that it can be checked. */
void backend_cpu_round(struct backend *b);

#endif
