/* gpu/matrix_layout.h - where a weight lies in a matrix on a card. Pure arithmetic, shared by the kernels that pack and
 * multiply, by the C around them and by the test that compares it with brute force.
 *
 * A tile is 16 rows. Along the columns it consists of steps of 64, each of two chunks of 32, each of two products of
 * mma.m16n8k16 ("half" 0 and 1). Lane 4 g + t of a warp takes from a half of a chunk four registers of a pair of
 * weights: register 0 row g, 1 row g + 8, the first two of its four columns; 2 and 3 the same rows, the other two. Sums
 * over k do not care which column is called which k as long as weights and activations agree, so lane t takes columns 8
 * t to 8 t + 7 of a chunk, which are 16 bytes of a plane of activations; matrix_column says which of them go to which
 * half. q6_K has a scale for each 16 columns, so there a half is 16 columns in a row.
 *
 *   quants  [tile][step] of, for each lane, what it needs of the step, in pieces of 16 bytes, [piece][lane]:
 *           bf16, f16   4 pieces: chunk, half; the four registers
 *           f32         8 pieces: chunk, half, columns; four weights, registers 0 and 1, or 2 and 3
 *           q8_0        2 pieces: chunk; word = half, columns; register 0 in bytes 0 and 2, register 1 in 1 and 3
 *           q4_0, q4_K  1 piece; word = chunk, half; register r in nibbles r and r + 4
 *           q6_K        1 piece as q4_0 (low four bits), then 8 bytes: word = chunk; pair p = 4 half + register has its
 *                       high two bits at 2 p and 16 + 2 p
 *   scales  per tile, for rows g and g + 8 together, so that a lane finds its own in one load:
 *           q8_0, q4_0  [step][g][chunk][row / 8] d
 *           q4_K        [super] of [g] {d, d', dmin, dmin'}, then [step of 4][g][chunk] bytes {sc, sc', m, m'}
 *           q6_K        [super] of [g] {d, d'}, then [step of 4][g][chunk][half] bytes {sc, sc'}
 */
#ifndef GPU_MATRIX_LAYOUT_H
#define GPU_MATRIX_LAYOUT_H

#include "core/model/dtype.h"
#include "gpu/kernels.h"

#ifdef __CUDACC__
#define LAYOUT static __host__ __device__ constexpr __forceinline__
#elif defined __cplusplus
#define LAYOUT static constexpr
#else
#define LAYOUT static inline
#endif

enum {
    MATRIX_STEP = 2 * GPU_CHUNK, /* columns of a step */
    MATRIX_SUPER = 4,            /* steps of a block of the K types */
    MATRIX_LANES = 32,
};

/* 32-bit words of quants that a lane takes from one step of one tile. */
LAYOUT int matrix_lane_words(enum dtype t) {
    return t == DT_F32 ? 32 : t == DT_F16 || t == DT_BF16 ? 16 : t == DT_Q8_0 ? 8 : t == DT_Q6_K ? 6 : 4;
}
LAYOUT int matrix_step_words(enum dtype t) {
    return matrix_lane_words(t) * MATRIX_LANES;
}
/* Bytes of the scales of one tile; 0 for floats. */
LAYOUT size_t matrix_tile_scales(enum dtype t, int steps) {
    return t == DT_Q8_0 || t == DT_Q4_0 ? (size_t)steps * 64
           : t == DT_Q4_K               ? (size_t)(steps / MATRIX_SUPER) * 320
           : t == DT_Q6_K               ? (size_t)(steps / MATRIX_SUPER) * 288
                                        : 0;
}

/* How a sum over columns is cut into chains, which are added in order: at most GPU_SEGMENTS of them, of at least
 * GPU_SEGMENT columns where there are so many, equal but for the last. A function of the matrix alone. */
LAYOUT int matrix_segment_steps(int steps) {
    int least = GPU_SEGMENT / MATRIX_STEP, n = (steps + least - 1) / least;
    n = n > GPU_SEGMENTS ? GPU_SEGMENTS : n < 1 ? 1 : n;
    return (steps + n - 1) / n;
}
LAYOUT int matrix_segments(int steps) {
    int each = matrix_segment_steps(steps);
    return (steps + each - 1) / each;
}

/* The column within its step of the i-th (0 to 3) that lane 4 g + t takes in half `half` of chunk `chunk`. */
LAYOUT int matrix_column(enum dtype type, int chunk, int half, int t, int i) {
    return GPU_CHUNK * chunk + (type == DT_Q6_K ? 16 * half + 4 * t : 8 * t + 4 * half) + i;
}

/* Field e of a word of quants: which weight of the step it is, and its lowest bit. */
struct matrix_field {
    int row, column, shift;
};
/* Fields of a word, and bits of a field. Of q6_K the words from 4 * MATRIX_LANES on hold the high bits. */
LAYOUT int matrix_field_bits(enum dtype t, int word) {
    return t == DT_F32 ? 32 : t == DT_F16 || t == DT_BF16 ? 16 : t == DT_Q8_0 ? 8 : word < 4 * MATRIX_LANES ? 4 : 2;
}
LAYOUT struct matrix_field matrix_field(enum dtype type, int word, int e) {
    int lane = word / 4 % MATRIX_LANES, piece = word / (4 * MATRIX_LANES), x = word % 4;
    int chunk = 0, half = 0, reg = 0, second = 0; /* second of the pair in a register */
    if (type == DT_F32) {
        chunk = piece / 4, half = piece / 2 % 2, reg = piece % 2 * 2 + x / 2, second = x % 2;
    } else if (type == DT_F16 || type == DT_BF16) {
        chunk = piece / 2, half = piece % 2, reg = x, second = e;
    } else if (type == DT_Q8_0) {
        chunk = piece, half = x / 2, reg = x % 2 * 2 + e % 2, second = e / 2;
    } else if (piece == 0) {
        chunk = x / 2, half = x % 2, reg = e % 4, second = e / 4;
    } else {
        lane = (word - 4 * MATRIX_LANES) / 2;
        chunk = word % 2, half = e % 8 / 4, reg = e % 4, second = e / 8;
    }
    struct matrix_field f = {0, 0, 0};
    f.row = lane / 4 + reg % 2 * 8;
    f.column = matrix_column(type, chunk, half, lane % 4, reg / 2 * 2 + second);
    f.shift = e * matrix_field_bits(type, word);
    return f;
}

/* Offsets in the scales of a tile, for a row (0 to 15) and a column: f16, but sc and m, which are bytes. */
LAYOUT size_t matrix_d_at(enum dtype t, int row, int column) {
    int step = column / MATRIX_STEP, chunk = column / GPU_CHUNK % 2, g = row % 8, upper = row / 8;
    return t == DT_Q4_K   ? (size_t)(step / MATRIX_SUPER) * 320 + (size_t)(g * 8 + upper * 2)
           : t == DT_Q6_K ? (size_t)(step / MATRIX_SUPER) * 288 + (size_t)(g * 4 + upper * 2)
                          : (size_t)step * 64 + (size_t)(g * 8 + chunk * 4 + upper * 2);
}
LAYOUT size_t matrix_dmin_at(int row, int column) {
    return matrix_d_at(DT_Q4_K, row, column) + 4;
}
LAYOUT size_t matrix_sc_at(enum dtype t, int row, int column) {
    int step = column / MATRIX_STEP, chunk = column / GPU_CHUNK % 2, half = column / 16 % 2, g = row % 8,
        upper = row / 8;
    size_t super = (size_t)(step / MATRIX_SUPER),
           at = (size_t)(step % MATRIX_SUPER) * 64 + (size_t)(g * 8 + chunk * 4 + upper);
    return t == DT_Q4_K ? super * 320 + 64 + at : super * 288 + 32 + at + (size_t)half * 2;
}
LAYOUT size_t matrix_m_at(int row, int column) {
    return matrix_sc_at(DT_Q4_K, row, column) + 2;
}

#endif
