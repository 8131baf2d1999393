/* core/cpu/stage.h - a part of a model on the CPU backend: what load.c makes and backend.c runs. Not for use outside
 * core/cpu and its tests. */
#ifndef CORE_CPU_STAGE_H
#define CORE_CPU_STAGE_H

#include "core/cpu/cpu.h"
#include "core/cpu/settle.h"
#include "core/model/embed.h"
#include "core/model/readahead.h"

struct layer {
    struct packed q, k, v, o, gate, up, down;
    float *attn_norm, *mlp_norm; /* [hidden] */
    float *q_bias, *k_bias, *v_bias, *o_bias;
    float *gate_bias, *up_bias, *down_bias;
    float *q_norm, *k_norm; /* [head_dim] */
};

struct cpu_backend {
    struct backend base;
    struct cpu cpu;
    struct settle_gate gate;
    struct readahead *ahead; /* of all raw matrices, in the order of their stages; NULL: there are none */
};

/* The matrices of a stage that were left where they lie, and how far the first pass over them has come. */
struct raw_list {
    struct packed **p; /* in the order of use */
    bool *used;
    int n, n_used;
    uint64_t done, total; /* bytes of all matrices of the stage, raw or not, that were read */
    int (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
};

struct cpu_stage {
    struct stage base;
    struct cpu_backend *backend;
    int max_rows;
    struct layer *layers; /* part.hi - part.lo */
    struct embedding embed;
    float *norm; /* [hidden], final */
    struct packed head;
    float *inv_freq; /* [head_dim / 2] */
    size_t bytes;    /* of weights */
    struct raw_list raw;
    struct settle *settle; /* NULL: nothing is raw */
    double pass_ms;        /* what the pass has taken so far; with settle only */
    /* scratch, [max_rows][...] */
    float *h, *q, *k, *v, *att, *gate, *up, *cs;
    uint32_t *pos;
};

int stage_load(struct backend *b, struct weights *w, const struct part *part, const struct load_opts *o,
               struct stage **out, struct err *e);
void stage_free(struct stage *base);

/* Takes note that jobs have read their matrices, for progress and reading ahead. -1 without an error: progress wants an
 * end. */
int stage_used(struct cpu_stage *s, const struct matmul *jobs, int n_jobs);

#endif
