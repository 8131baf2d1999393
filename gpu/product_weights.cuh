/* gpu/product_weights.cuh - weights of each type on their way to mma's operand a, and the product of one chunk. */
#ifndef GPU_PRODUCT_WEIGHTS_CUH
#define GPU_PRODUCT_WEIGHTS_CUH

#include "gpu/matrix_layout.h"
#include "gpu/simt.cuh"

/* ---- activations ---- */

/* Operand b of both halves of a chunk, in the two planes: [2 half + register]. Of one term lo is left unset. */
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

/* Where a lane finds its weights of step 0 of a tile, and how far from there those of the next tile are: there is none
 * behind the last, which is then taken twice. */
struct weight_tiles {
    const uint8_t *quants, *scales;
    size_t to_quants, to_scales;
};
template <enum dtype T>
DEVICE weight_tiles find_tiles(const uint8_t *quants, const uint8_t *scales, int tile, int n_tiles, int steps,
                               int lane) {
    weight_tiles w;
    int first = tile < n_tiles ? tile : n_tiles - 1, next = tile + 1 < n_tiles;
    size_t bytes = (size_t)steps * (matrix_step_words(T) * 4);
    w.quants = quants + (size_t)first * bytes + (size_t)lane * 16;
    w.scales = scales + (size_t)first * matrix_tile_scales(T, steps) + (size_t)(lane / 4) * 8;
    w.to_quants = next ? bytes : 0;
    w.to_scales = next ? matrix_tile_scales(T, steps) : 0;
    return w;
}

/* What a lane has of one step of one tile: quants, and scales of rows g and g + 8 in the lower and the upper half.
 *   q8_0, q4_0  d of chunk 0, of chunk 1
 *   q4_K        d, dmin; bytes sc, sc', m, m' of chunk 0, of chunk 1
 *   q6_K        d, unused; bytes sc, sc' of half 0, sc, sc' of half 1, of chunk 0, of chunk 1 */
template <enum dtype T> struct weights {
    static constexpr int words = matrix_lane_words(T);
    uint32_t w[words];
};
template <enum dtype T> struct scales {
    static constexpr int words = T == DT_Q4_K || T == DT_Q6_K ? 4 : has_scales<T>() ? 2 : 0;
    uint32_t w[words > 0 ? words : 1];
};

template <enum dtype T, int TILES>
DEVICE void load_weights(weights<T> to[TILES], const weight_tiles &tiles, int step, int lane) {
    UNROLL
    for (int i = 0; i < TILES; i++) {
        const uint8_t *p = tiles.quants + (i ? tiles.to_quants : 0) + (size_t)step * (matrix_step_words(T) * 4);
        UNROLL
        for (int j = 0; j < weights<T>::words / 4; j++) {
            u32x4 v = load_once(p + j * 512);
            UNROLL
            for (int k = 0; k < 4; k++)
                to[i].w[j * 4 + k] = v.v[k];
        }
        if (T == DT_Q6_K)
            take_words<2>(to[i].w + 4, p + 512 - lane * 8);
    }
}

/* The same out of a step of a tile in shared memory. */
template <enum dtype T> DEVICE void take_weights(weights<T> &to, const uint32_t *tile, int lane) {
    UNROLL
    for (int j = 0; j < weights<T>::words / 4; j++)
        take_words<4>(to.w + j * 4, tile + (j * 32 + lane) * 4);
    if (T == DT_Q6_K)
        take_words<2>(to.w + 4, tile + 128 + lane * 2);
}

template <enum dtype T, int TILES>
DEVICE void load_scales(scales<T> to[TILES], const weight_tiles &tiles, int step, int lane) {
    UNROLL
    for (int i = 0; i < TILES; i++) {
        const uint8_t *p = tiles.scales + (i ? tiles.to_scales : 0);
        if (T == DT_Q8_0 || T == DT_Q4_0) {
            take_words<2>(to[i].w, p + (size_t)step * 64);
        } else if (T == DT_Q4_K) {
            p += (size_t)(step / MATRIX_SUPER) * 320;
            take_words<2>(to[i].w, p);
            take_words<2>(to[i].w + 2, p + 64 + step % MATRIX_SUPER * 64);
        } else if (T == DT_Q6_K) {
            p += (size_t)(step / MATRIX_SUPER) * 288;
            to[i].w[0] = *(const uint32_t *)(const void *)(p - lane / 4 * 4);
            take_words<2>(to[i].w + 2, p + 32 + step % MATRIX_SUPER * 64);
        }
    }
}

/* Small integers become bf16 without a conversion: 0x4300 is 128, of which the last bit counts 1, so the bits of an
 * integer under 128 put beside it make 128 + the integer; what is too much is subtracted, exactly. */
enum : uint32_t { BF16_128 = 0x43004300u, BF16_ONE = 0x3f803f80u, BF16_MINUS_ONE = 0xbf80bf80u };

/* The four registers of one half of a chunk. */
template <enum dtype T>
DEVICE void find_operand(uint32_t hi[4], uint32_t lo[4], const weights<T> &weights, int chunk, int half) {
    const uint32_t *w = weights.w;
    UNROLL
    for (int r = 0; r < 4; r++) {
        if (T == DT_BF16) {
            hi[r] = w[(chunk * 2 + half) * 4 + r];
        } else if (T == DT_F16) {
            uint32_t v = w[(chunk * 2 + half) * 4 + r];
            split_bf16(from_f16((uint16_t)v), from_f16((uint16_t)(v >> 16)), &hi[r], &lo[r]);
        } else if (T == DT_F32) {
            const uint32_t *v = w + (chunk * 2 + half) * 8 + r * 2;
            split_bf16(as_float(v[0]), as_float(v[1]), &hi[r], &lo[r]);
        } else if (T == DT_Q8_0) {
            uint32_t v = w[chunk * 4 + half * 2 + r / 2] >> r % 2 * 8;
            uint32_t too_much = (v & 0x00800080u) | BF16_128; /* 128, or 256 with the sign bit */
            hi[r] = fma_bf16(too_much, BF16_MINUS_ONE, (v & 0x007f007fu) | BF16_128);
        } else {
            uint32_t v = (w[chunk * 2 + half] >> r * 4 & 0x000f000fu) | BF16_128;
            if (T == DT_Q6_K) {
                int at = (half * 4 + r) * 2 - 4; /* of the high bits, less where they belong */
                v |= (at < 0 ? w[4 + chunk] << -at : w[4 + chunk] >> at) & 0x00300030u;
            }
            /* - 136, - 128, - 160 */
            hi[r] = fma_bf16(v, BF16_ONE, T == DT_Q4_0 ? 0xc308c308u : T == DT_Q4_K ? 0xc300c300u : 0xc320c320u);
        }
    }
}

/* ---- their product ---- */

/* d += one half of a chunk of weights of all tiles x N times 8 rows of the pass, of TERMS terms, at from in d. */
template <enum dtype T, int TERMS, int TILES, int NT, int N>
DEVICE void multiply_half(float d[TILES][NT][4], int from, const weights<T> w[TILES], int chunk, int half,
                          const fragment f[N]) {
    UNROLL
    for (int i = 0; i < TILES; i++) {
        uint32_t hi[4], lo[4];
        find_operand(hi, lo, w[i], chunk, half);
        UNROLL
        for (int n = 0; n < N; n++)
            mma_bf16(d[i][from + n], hi, f[n].hi + half * 2);
        if (TERMS == 2) {
            UNROLL
            for (int n = 0; n < N; n++)
                mma_bf16(d[i][from + n], hi, f[n].lo + half * 2);
        }
        if (has_low<T>()) {
            UNROLL
            for (int n = 0; n < N; n++)
                mma_bf16(d[i][from + n], lo, f[n].hi + half * 2);
        }
    }
}

/* acc += scale x block, for rows g (lower) and g + 8. */
template <int NT, int N>
DEVICE void add_scaled(float acc[NT][4], int from, const float block[N][4], const float scale[2]) {
    UNROLL
    for (int i = 0; i < N * 4; i++)
        acc[from + i / 4][i % 4] = fmaf(scale[i % 4 / 2], block[i / 4][i % 4], acc[from + i / 4][i % 4]);
}

DEVICE float half_of(uint32_t w, int upper) {
    return from_f16((uint16_t)(w >> upper * 16));
}
DEVICE float byte_of(uint32_t w, int i) {
    return (float)(w >> i * 8 & 0xff);
}
DEVICE float signed_byte_of(uint32_t w, int i) {
    return (float)(int8_t)(w >> i * 8);
}

/* acc[][from ..] += weights x activations over one chunk. */
template <enum dtype T, int TERMS, int TILES, int NT, int N>
DEVICE void multiply_chunk(float acc[TILES][NT][4], int from, const weights<T> w[TILES], const scales<T> s[TILES],
                           int chunk, const fragment f[N]) {
    if (!has_scales<T>()) {
        multiply_half<T, TERMS, TILES, NT, N>(acc, from, w, chunk, 0, f);
        multiply_half<T, TERMS, TILES, NT, N>(acc, from, w, chunk, 1, f);
        return;
    }
    float sums[N][4] = {}; /* of x */
    if (T == DT_Q4_K) {
        const uint32_t ones[4] = {BF16_ONE, BF16_ONE, BF16_ONE, BF16_ONE};
        UNROLL
        for (int i = 0; i < 2 * TERMS * N; i++)
            mma_bf16(sums[i % N], ones, (i / N % TERMS ? f[i % N].lo : f[i % N].hi) + i / N / TERMS * 2);
    }
    float block[TILES][N][4] = {};
    UNROLL
    for (int half = 0; half < 2; half++) {
        multiply_half<T, TERMS, TILES, N, N>(block, 0, w, chunk, half, f);
        if (T != DT_Q6_K && half == 0)
            continue;
        UNROLL
        for (int i = 0; i < TILES; i++) {
            float scale[2], least[2];
            UNROLL
            for (int upper = 0; upper < 2; upper++) {
                uint32_t bytes = s[i].w[(scales<T>::words - 2) + chunk];
                scale[upper] = T == DT_Q4_K   ? half_of(s[i].w[0], upper) * byte_of(bytes, upper)
                               : T == DT_Q6_K ? half_of(s[i].w[0], upper) * signed_byte_of(bytes, half * 2 + upper)
                                              : half_of(s[i].w[chunk], upper);
                least[upper] = T == DT_Q4_K ? -(half_of(s[i].w[1], upper) * byte_of(bytes, 2 + upper)) : 0;
            }
            add_scaled<NT, N>(acc[i], from, block[i], scale);
            if (T == DT_Q4_K)
                add_scaled<NT, N>(acc[i], from, sums, least);
            UNROLL
            for (int k = 0; k < N * 4; k++)
                block[i][k / 4][k % 4] = 0;
        }
    }
}

#endif
