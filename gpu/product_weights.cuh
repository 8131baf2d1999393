/* gpu/product_weights.cuh - weights of each type on their way to mma's operand a, and the product of one chunk. */
#ifndef GPU_PRODUCT_WEIGHTS_CUH
#define GPU_PRODUCT_WEIGHTS_CUH

#include "gpu/matrix_layout.h"
#include "gpu/simt.cuh"

/* ---- activations ---- */

/* Operand b of both halves of a chunk, in the two planes: [2 half + register]. */
struct fragment {
    uint32_t hi[4], lo[4];
};

/* N words, aligned to as many. */
template <int N> DEVICE void take_words(uint32_t *to, const void *from) {
    if (N == 4) {
        u32x4 v = *(const u32x4 *)from;
        UNROLL
        for (int i = 0; i < 4; i++)
            to[i] = v.v[i];
    } else {
        u32x2 v = *(const u32x2 *)from;
        to[0] = v.v[0];
        to[1] = v.v[1];
    }
}

/* One plane of a lane's share of the chunk that begins at p. */
template <enum dtype T> DEVICE void take_plane(uint32_t f[4], const uint16_t *p, int t) {
    if (T == DT_Q6_K) {
        take_words<2>(f, p + t * 4);
        take_words<2>(f + 2, p + 16 + t * 4);
    } else
        take_words<4>(f, p + t * 8);
}

/* ---- weights ---- */

template <enum dtype T> DEVICE constexpr bool has_low() {
    return T == DT_F16 || T == DT_F32;
}
template <enum dtype T> DEVICE constexpr bool has_scales() {
    return T != DT_F16 && T != DT_F32 && T != DT_BF16;
}

/* Where a lane finds its weights of step 0 of a tile. */
struct weight_tile {
    const uint8_t *quants, *scales;
};
template <enum dtype T>
DEVICE weight_tile find_tile(const uint8_t *quants, const uint8_t *scales, int tile, int steps, int lane) {
    weight_tile w;
    w.quants = quants + (size_t)tile * (size_t)steps * (matrix_step_words(T) * 4) + (size_t)lane * 16;
    w.scales = scales + (size_t)tile * matrix_tile_scales(T, steps);
    return w;
}

/* What a lane has of one step of one tile. */
template <enum dtype T> struct weights {
    static constexpr int words = matrix_lane_words(T);
    static constexpr int scale_words = 0;
    uint32_t w[words];
};

template <enum dtype T, int TILES>
DEVICE void load_weights(weights<T> to[TILES], const weight_tile tiles[TILES], int step) {
    UNROLL
    for (int i = 0; i < TILES; i++) {
        const uint8_t *p = tiles[i].quants + (size_t)step * (matrix_step_words(T) * 4);
        UNROLL
        for (int j = 0; j < weights<T>::words / 4; j++) {
            u32x4 v = load_once(p + j * 512);
            UNROLL
            for (int k = 0; k < 4; k++)
                to[i].w[j * 4 + k] = v.v[k];
        }
    }
}

/* The same out of a step of a tile in shared memory. */
template <enum dtype T> DEVICE void take_weights(weights<T> &to, const uint32_t *tile, int lane) {
    UNROLL
    for (int j = 0; j < weights<T>::words / 4; j++)
        take_words<4>(to.w + j * 4, tile + (j * 32 + lane) * 4);
}

/* The four registers of one half of a chunk. */
template <enum dtype T>
DEVICE void find_operand(uint32_t hi[4], uint32_t lo[4], const weights<T> &w, int chunk, int half) {
    int at = chunk * 2 + half;
    UNROLL
    for (int r = 0; r < 4; r++) {
        if (T == DT_BF16) {
            hi[r] = w.w[at * 4 + r];
        } else if (T == DT_F16) {
            uint32_t v = w.w[at * 4 + r];
            split_bf16(from_f16((uint16_t)v), from_f16((uint16_t)(v >> 16)), &hi[r], &lo[r]);
        }
    }
}

/* ---- their product ---- */

/* acc[][from ..] += weights x activations over one chunk, for each of the tiles and N times 8 rows of the pass. */
template <enum dtype T, int TILES, int NT, int N>
DEVICE void multiply_chunk(float acc[TILES][NT][4], int from, const weights<T> w[TILES], int chunk,
                           const fragment f[N]) {
    UNROLL
    for (int i = 0; i < 2 * TILES; i++) {
        int half = i / TILES, tile = i % TILES;
        uint32_t hi[4], lo[4];
        find_operand(hi, lo, w[tile], chunk, half);
        UNROLL
        for (int n = 0; n < N; n++)
            mma_bf16(acc[tile][from + n], hi, f[n].hi + half * 2);
        UNROLL
        for (int n = 0; n < N; n++)
            mma_bf16(acc[tile][from + n], hi, f[n].lo + half * 2);
        if (has_low<T>()) {
            UNROLL
            for (int n = 0; n < N; n++)
                mma_bf16(acc[tile][from + n], lo, f[n].hi + half * 2);
        }
    }
}

#endif
