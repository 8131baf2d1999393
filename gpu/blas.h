/* gpu/blas.h - one product through NVIDIA's cuBLASLt, opened at run time: what a card's matrix units can do, to measure
 * our own kernels against. No result of the program comes from it. */
#ifndef GPU_BLAS_H
#define GPU_BLAS_H

#include "core/base/err.h"
#include "gpu/gpu.h"

#include <stddef.h>
#include <stdint.h>

/* Types and constants of the library's ABI, the same in versions 11 to 13; test_gpu_limits compares them with the
 * toolkit's headers where those are installed. */
enum {
    BLAS_R_32F = 0,
    BLAS_R_16BF = 14,
    BLAS_COMPUTE_32F = 68,
    BLAS_OP_T = 1,
    BLAS_DESC_TRANSA = 3,
    BLAS_PREFERENCE_WORKSPACE = 1,
};
struct blas_heuristic {
    uint64_t algo[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

/* Products d = a^T b, all three n x n in bf16, sums in f32. */
struct blas_product;

/* Opens the library and asks it for ways to compute it; *n_ways of them, likely the best ones. ERR_DEVICE: there is no
 * such library, or it can do nothing with this card. ERR_MEMORY. */
int blas_product_create(struct blas_product **out, struct gpu *g, int n, int *n_ways, struct err *e);
/* Enqueues the product on g's stream. Failures show in the return value. */
int blas_product_run(struct blas_product *p, int way, struct err *e);
void blas_product_free(struct blas_product *p);
/* "cuBLASLt 13.1.0" */
const char *blas_product_library(const struct blas_product *p);

#endif
