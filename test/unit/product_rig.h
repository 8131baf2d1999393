/* test/unit/product_rig.h - matrices on a card and products with them, for tests. */
#ifndef TEST_UNIT_PRODUCT_RIG_H
#define TEST_UNIT_PRODUCT_RIG_H

#include "gpu/ops.h"
#include "test/unit/gpu_rig.h"

/* A tensor of random weights of any type, about as large as a model's. */
struct tensor prod_tensor(enum dtype type, int rows, int cols, uint64_t seed);
void prod_tensor_free(struct tensor *t);
/* Its row in f64. */
void prod_row(const struct tensor *t, int row, double *w);
/* Uniform in [-1, 1). */
float prod_random(uint64_t *state);

/* What is multiplied: n rows in planes of `bucket` rows rounded up to a multiple of 64, all behind n of them NaN. */
struct prod_x {
    int n, cols, ld;
    bool rounded; /* x is bf16, lo is zero (kernels.h) */
    float *x;     /* [n][cols] */
    cu_ptr hi, lo;
};
struct prod_x prod_x_make(struct gpu *g, int n, int cols, bool rounded, uint64_t seed);
/* The first n rows of another: the same planes' memory is not shared. */
struct prod_x prod_x_row(struct gpu *g, const struct prod_x *all, int row);
void prod_x_free(struct gpu *g, struct prod_x *x);

/* Runs p over the rows of x in a bucket of `bucket` rows and reads the results: [n][ld] of to, or of gated's hi + lo.
 * to's memory starts as `before` (NULL: NaN) and scratch as NaN; what lies behind n rows must stay as it was. Of
 * rounded x gated is rounded as well, and its lo has to stay zero. */
void prod_product(struct gpu *g, const struct gpu_matrix *w, const struct prod_x *x, int bucket, const float *bias,
                  enum product_use use, int ld, const float *before, float *result);

#endif
