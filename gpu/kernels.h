/* gpu/kernels.h - what each kernel is given. Read by the C of this folder and by the kernels (.cu): plain structs,
 * passed by value as a kernel's one argument. All pointers are device memory.
 *
 * Identity. An element of a result is formed by one order of operations that depends on shapes of the model alone,
 * never on how many rows share the pass. Kernels are compiled without contraction (--fmad=false): a fused multiply-add
 * stands where the code says fmaf.
 *
 * Numbers. Matrix products run on tensor cores in bf16 with f32 sums (mma.m16n8k16). An f32 activation goes in as two
 * bf16 terms, hi + lo (16 bits of mantissa), and f16 or f32 weights do as well, so that results stay close to those of
 * the CPU backend, which multiplies in f32. Where speed is asked for instead (--math fast), lo is zero: an activation
 * is then what bf16 makes of it. Weights, sums and attention are the same in both. */
#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
using std::size_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

enum {
    GPU_TILE = 16,        /* rows of a weight tile */
    GPU_CHUNK = 32,       /* columns of one, the unit of K */
    GPU_SEGMENT = 512,    /* least columns whose products are summed in one chain, a segment, */
    GPU_SEGMENTS = 8,     /* of which a matrix has so many at most; they are added in order (matrix_layout.h) */
    GPU_DECODE_ROWS = 64, /* passes of up to so many rows are recorded and replayed, by bucket */
    GPU_QUERIES = 16,     /* queries (rows x heads of a group) of one attention item */
    GPU_KV_BLOCK = 64,    /* keys of one step of the online softmax, aligned to position 0 */
    GPU_KV_SPLIT = 256,   /* keys of one partial result, aligned to position 0; combined in order */
    GPU_HEAD_DIM_MAX = 256,
};

/* An f32 matrix [rows][ld] as two bf16 planes, hi + lo; ld is a multiple of 64, columns behind the last are zero.
 * Memory holds the rows of a pass rounded up to a multiple of 64. */
struct planes {
    uint16_t *hi, *lo;
    int ld;
    int rounded; /* not 0: lo is zero in every row; nobody writes it, and products may do without it */
};

/* One row of a pass, as struct row of window.h; trunk and tail are offsets into slots. */
struct gpu_row {
    uint32_t pos, slot;
    uint32_t n_trunk, trunk;
    uint32_t n_tail, tail;
};

/* Consecutive rows [row, row + n) that attention takes together: they share a trunk, and n * (heads per kv head) is at
 * most GPU_QUERIES (n is 1 when a group alone is larger: then the item is one of several of that row, by `part`). */
struct gpu_item {
    uint32_t row;
    uint16_t n, part;
};

/* What a pass is about; written to the card before it runs, so that recorded launches serve passes of any content. */
struct gpu_pass {
    int n_rows, n_items;
    const struct gpu_row *rows;
    const struct gpu_item *items;
    const uint32_t *slots;
    const float *cs; /* [n_rows][head_dim]: cos, then sin, of RoPE */
};

#endif
