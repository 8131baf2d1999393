/* gpu/product_put.cuh - what becomes of a product's results. */
#ifndef GPU_PRODUCT_PUT_CUH
#define GPU_PRODUCT_PUT_CUH

#include "gpu/product_args.h"
#include "gpu/simt.cuh"

DEVICE int at_most(int a, int b) {
    return a < b ? a : b;
}

/* y: of weight row m of the run and a row of the pass. */
DEVICE void put(const product_args &a, int m, int row, float y) {
    int column = a.first + m;
    if (column >= a.ld)
        return;
    if (a.bias)
        y += a.bias[m];
    float *to = a.to + (size_t)row * (size_t)a.ld + column;
    *to = a.use == USE_ADD ? *to + y : y;
}

/* Of row m of a gate tile and of the up tile behind it, tiles 2 pair and 2 pair + 1. */
DEVICE void put_gated(const product_args &a, int pair, int m, int row, float gate, float up) {
    if (a.bias) {
        gate += a.bias[pair * 2 * GPU_TILE + m];
        up += a.bias[(pair * 2 + 1) * GPU_TILE + m];
    }
    float silu = divide(gate, 1.0f + exp2_of(gate * -1.44269504f));
    uint32_t hi, lo;
    split_bf16(silu * up, 0.0f, &hi, &lo);
    size_t at = (size_t)row * (size_t)a.gated.ld + (size_t)(pair * GPU_TILE + m);
    a.gated.hi[at] = (uint16_t)hi;
    if (!a.gated.rounded)
        a.gated.lo[at] = (uint16_t)lo;
}

/* Zeros behind the last column of gated planes in rows [from, to), by thread `thread` of n: with the last tiles. */
DEVICE void put_padding(const product_args &a, int from, int to, int thread, int n) {
    int first = a.n_tiles / 2 * GPU_TILE, width = a.gated.ld - first;
    for (int i = thread; i < width * (to - from); i += n) {
        size_t at = (size_t)(from + i / width) * (size_t)a.gated.ld + (size_t)(first + i % width);
        a.gated.hi[at] = 0;
        if (!a.gated.rounded)
            a.gated.lo[at] = 0;
    }
}

/* [segment][row][m] */
DEVICE float *partial_at(const product_args &a, int segment, int m, int row) {
    size_t width = (size_t)a.n_tiles * GPU_TILE;
    return a.partials + ((size_t)segment * (size_t)a.partial_rows + (size_t)row) * width + (size_t)m;
}
DEVICE void put_partial(const product_args &a, int segment, int m, int row, float y) {
    *partial_at(a, segment, m, row) = y;
}

#endif
