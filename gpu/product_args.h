/* gpu/product_args.h - what the kernels of gpu/pack.cu and gpu/product*.cu are given, as kernels.h says, and the shapes
 * on which they and the C that launches them agree. */
#ifndef GPU_PRODUCT_ARGS_H
#define GPU_PRODUCT_ARGS_H

#include "gpu/matrix_layout.h"

#ifndef __cplusplus
#include <stdbool.h>
#endif

/* Rows of a tensor, as its file has them, to tiles. Grid: steps, tiles. */
struct pack_args {
    const uint8_t *raw; /* [rows][row_bytes] */
    size_t row_bytes;
    int rows, cols; /* what there is; the tiles are filled up with zeros */
    int steps;
    uint8_t *quants, *scales;
    int tile, tile_stride; /* the first tile to be filled, and from one to the next */
};
enum { PACK_THREADS = 128 };

/* One product y = W x of a run of tiles of one type, and what becomes of it. */
struct product_args {
    const uint8_t *quants, *scales;
    int n_tiles, steps, segment_steps, n_segments;
    struct planes x;
    const struct gpu_pass *pass;
    const float *bias; /* of the run's first row; NULL: none */
    int use;           /* enum product_use of ops.h */
    float *to;         /* [row of the pass][ld], the run's first row at column `first`; columns end at ld */
    int first, ld;
    struct planes gated;
    float *partials; /* [segment][row of the pass, of partial_rows][n_tiles * 16] */
    int partial_rows;
};
enum { USE_STORE, USE_ADD, USE_GATE };

/* Forms whose blocks have 8 tiles of weights and n rows of the pass, each of `terms` bf16 terms: columns of warps (of
 * two tiles each) that share the rows, by what a warp of a type can hold in registers; bytes of a step in shared
 * memory, and how many steps lie there, so that they fit in the 99 KB of the smaller cards. With two terms, blocks of
 * 128 rows are for f16 and bf16 alone. */
enum { PRODUCT_BLOCK_TILES = 8, PRODUCT_COMBINE_THREADS = 256 };
/* Whether there are kernels for planes whose lo is zero; f32 weights are multiplied with both all the same. */
LAYOUT bool product_has_fast(enum dtype t) {
    return t != DT_F32;
}
LAYOUT bool product_has_128(enum dtype t, int terms) {
    return terms == 1 || t == DT_F16 || t == DT_BF16;
}
LAYOUT int product_columns(enum dtype t, int n) {
    return n == 128 ? 2 : n == 64 && t != DT_BF16 ? 2 : 1;
}
LAYOUT int product_threads(enum dtype t, int n) {
    return PRODUCT_BLOCK_TILES / 2 * product_columns(t, n) * MATRIX_LANES;
}
LAYOUT int product_stage_bytes(enum dtype t, int n, int terms) {
    return PRODUCT_BLOCK_TILES * matrix_step_words(t) * 4 + n * MATRIX_STEP * 2 * terms;
}
LAYOUT int product_stages(enum dtype t, int n, int terms) {
    return (terms == 1 ? 3 : 2) + (t != DT_F32 && n <= 32);
}

#endif
