/* test/unit/layer_rig.h - some layers of a model on a backend, run one at a time over a chain of nodes from
 * position 0, with the activations at every layer boundary kept: what a cloud does for an audit. Everything asserts. */
#ifndef TEST_UNIT_LAYER_RIG_H
#define TEST_UNIT_LAYER_RIG_H

#include "core/model/backend.h"
#include "core/model/weights.h"

#include <stddef.h>

struct layer_run {
    const char *cards; /* CUDA cards (gpu_rig.h) instead of the CPU */
    bool fast;         /* of these: --math fast */
    const char *isa;   /* NULL: the best */
    enum quant quant;
    enum dtype kv_type;
    int lo, hi;
    int n_rows;
    int chunk; /* rows of a pass; 0: all in one */
};

/* x [n_rows][hidden] goes into layer lo. Returns [hi - lo + 1][n_rows][hidden]: x, then the output of each layer. The
 * caller frees. */
float *layer_run(struct weights *w, const struct layer_run *r, const float *x);

/* The same written out in double precision, from the decoded weights; only what goes into the KV cache is rounded as
 * kv_type says. Not for quant. */
float *layer_run_f64(struct weights *w, const struct layer_run *r, const float *x);

/* Numbers that look like a residual stream: near-normal with a deviation of 1, every 29th of them ten times larger. */
void layer_noise(float *x, size_t n, uint64_t seed);

struct weights *layer_open(const char *path);

#endif
