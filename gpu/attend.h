/* gpu/attend.h - what the kernels of norm.cu, rope.cu, attend.cu and join.cu are given, and how their launches are
 * shaped. Read by both sides, as kernels.h. */
#ifndef GPU_ATTEND_H
#define GPU_ATTEND_H

#include "gpu/kernels.h"

#ifndef __cplusplus
#include <stdbool.h>
#endif

enum {
    NORM_THREADS = 512, /* one row */
    ROPE_THREADS = 128, /* four warps, each a head of q, or one of k and v together */
    ROPE_UNITS = ROPE_THREADS / 32,
    ATTEND_THREADS = 128,
    ATTEND_ITEMS = 4, /* of a block that takes more than one */
    COMBINE_THREADS = 128,
    COMBINE_QUERIES = COMBINE_THREADS / 32,
    JOIN_THREADS = 128, /* of a row; each takes so many columns */
    JOIN_COLUMNS = 8,
};

struct norm_args {
    const struct gpu_pass *pass;
    const float *x, *w;
    int cols;
    int slice;   /* columns of a slice of x, in which they are [row][slice]: a multiple of 4, or all */
    size_t skip; /* elements from the end of a row in one slice to where it goes on in the next */
    float eps;
    struct planes out;
};

struct join_args {
    const struct gpu_pass *pass;
    const uint16_t *blocks; /* [n][hi, lo][plane] */
    int n, each;            /* blocks, and columns of each */
    int ld;                 /* from row to row: a multiple of JOIN_COLUMNS */
    size_t plane;           /* elements of hi, or of lo */
    struct planes out;
};

struct rope_args {
    const struct gpu_pass *pass;
    float *qkv;
    int ld, q_at, k_at, v_at;
    int n_heads, n_kv_heads, head_dim;
    const float *q_norm, *k_norm; /* or NULL */
    float eps;
    void *k, *v;       /* f16; with factors codes of fp8 (core/model/e4m3.h), */
    uint32_t *factors; /* and of each slot 2^8 times the scales of K, in the lower half, and V, as f16 */
    uint32_t n_slots;
    int kv_row; /* elements from one slot's codes to the next: head_dim and padding, which is zero */
};

struct attend_args {
    const struct gpu_pass *pass;
    const float *q; /* of row 0; rows are ld apart, heads head_dim */
    int ld;
    const void *k, *v; /* as in rope_args */
    const uint32_t *factors;
    uint32_t n_slots;
    int kv_row;
    int n_heads, group, head_dim; /* group: heads that share a kv head */
    float scale;                  /* log2(e) / sqrt(head_dim) */
    int window;                   /* 0: none */
    struct planes out;
    /* Spread: splits [split, split + grid z) are blocks of their own and leave partial results. Otherwise a block goes
     * through all splits of its rows. */
    bool spread;
    int split;
    float *parts;    /* [row][head][n_parts][head_dim + 2]: weighted values, the sum of weights, top */
    int n_parts;     /* room for the splits of a launch, and behind them, if there are several, what is folded so far */
    bool begin, end; /* combine: the first splits, the last */
};

#endif
