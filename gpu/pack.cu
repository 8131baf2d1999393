/* Rows of a tensor, as they lie in its file, into the order of matrix_layout.h. A block makes one step of one tile. */
#include "gpu/product_args.h"
#include "gpu/simt.cuh"

/* What file blocks say of the weight in a column of a row: its bits as matrix_field stores them. Rows may begin at any
 * byte. */
DEVICE uint32_t byte_of(const uint8_t *p) {
    return *p;
}
DEVICE uint32_t half_of(const uint8_t *p) {
    return byte_of(p) | byte_of(p + 1) << 8;
}

/* Scale and minimum of sub-block i of a q4_K block, six bits each, out of its 12 bytes. */
DEVICE uint32_t q4_k_sc(const uint8_t *s, int i) {
    return i < 4 ? byte_of(s + i) & 63 : (byte_of(s + i + 4) & 15) | byte_of(s + i - 4) >> 6 << 4;
}
DEVICE uint32_t q4_k_m(const uint8_t *s, int i) {
    return i < 4 ? byte_of(s + i + 4) & 63 : byte_of(s + i + 4) >> 4 | byte_of(s + i) >> 6 << 4;
}

template <enum dtype T> DEVICE uint32_t weight_bits(const uint8_t *row, int column, bool high) {
    if (T == DT_F32) {
        const uint8_t *p = row + (size_t)column * 4;
        return half_of(p) | half_of(p + 2) << 16;
    }
    if (T == DT_F16 || T == DT_BF16)
        return half_of(row + (size_t)column * 2);
    if (T == DT_Q8_0)
        return byte_of(row + column / 32 * 34 + 2 + column % 32);
    if (T == DT_Q4_0)
        return byte_of(row + column / 32 * 18 + 2 + column % 16) >> column % 32 / 16 * 4 & 15;
    int i = column % 256;
    if (T == DT_Q4_K)
        return byte_of(row + column / 256 * 144 + 16 + i / 64 * 32 + i % 32) >> i / 32 % 2 * 4 & 15;
    const uint8_t *block = row + column / 256 * 210;
    int half = i / 128, quarter = i / 32 % 4, j = i % 32;
    if (high)
        return byte_of(block + 128 + half * 32 + j) >> quarter * 2 & 3;
    return byte_of(block + half * 64 + quarter % 2 * 32 + j) >> quarter / 2 * 4 & 15;
}

DEVICE void put_half(uint8_t *p, uint32_t h) {
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* The scales of 16 columns of a row, at least those that begin there. row NULL: zeros. */
template <enum dtype T> DEVICE void pack_scales(uint8_t *scales, const uint8_t *row, int m, int column) {
    int super = column / 256;
    if (T == DT_Q8_0 || T == DT_Q4_0) {
        if (column % 32 == 0)
            put_half(scales + matrix_d_at(T, m, column),
                     row ? half_of(row + column / 32 * (T == DT_Q8_0 ? 34 : 18)) : 0);
    } else if (T == DT_Q4_K) {
        const uint8_t *block = row + super * 144;
        if (column % 256 == 0) {
            put_half(scales + matrix_d_at(T, m, column), row ? half_of(block) : 0);
            put_half(scales + matrix_dmin_at(m, column), row ? half_of(block + 2) : 0);
        }
        if (column % 32 == 0) {
            scales[matrix_sc_at(T, m, column)] = (uint8_t)(row ? q4_k_sc(block + 4, column % 256 / 32) : 0);
            scales[matrix_m_at(m, column)] = (uint8_t)(row ? q4_k_m(block + 4, column % 256 / 32) : 0);
        }
    } else if (T == DT_Q6_K) {
        const uint8_t *block = row + super * 210;
        if (column % 256 == 0)
            put_half(scales + matrix_d_at(T, m, column), row ? half_of(block + 208) : 0);
        scales[matrix_sc_at(T, m, column)] = (uint8_t)(row ? byte_of(block + 192 + column % 256 / 16) : 0);
    }
}

template <enum dtype T> DEVICE void pack(const pack_args &a) {
    constexpr int WORDS = matrix_step_words(T);
    release_successor();
    await_predecessor();
    int step = block_x(), first_row = block_y() * GPU_TILE, tile = a.tile + block_y() * a.tile_stride;
    uint32_t *to = (uint32_t *)(void *)a.quants + ((size_t)tile * (size_t)a.steps + (size_t)step) * WORDS;
    for (int word = thread_x(); word < WORDS; word += PACK_THREADS) {
        uint32_t v = 0;
        for (int e = 0; e < 32 / matrix_field_bits(T, word); e++) {
            struct matrix_field f = matrix_field(T, word, e);
            int row = first_row + f.row, column = step * MATRIX_STEP + f.column;
            if (row < a.rows && column < a.cols)
                v |= weight_bits<T>(a.raw + (size_t)row * a.row_bytes, column, word >= 4 * MATRIX_LANES) << f.shift;
        }
        to[word] = v;
    }
    if (matrix_tile_scales(T, MATRIX_SUPER) == 0)
        return;
    uint8_t *scales = a.scales + (size_t)tile * matrix_tile_scales(T, a.steps);
    for (int i = thread_x(); i < GPU_TILE * MATRIX_STEP / 16; i += PACK_THREADS) {
        int m = i % GPU_TILE, row = first_row + m, column = step * MATRIX_STEP + i / GPU_TILE * 16;
        bool there = row < a.rows && column < a.cols;
        pack_scales<T>(scales, there ? a.raw + (size_t)row * a.row_bytes : nullptr, m, column);
    }
}

KERNEL_INSTANCE(PACK_THREADS, pack_f32, struct pack_args, pack<DT_F32>)
KERNEL_INSTANCE(PACK_THREADS, pack_f16, struct pack_args, pack<DT_F16>)
KERNEL_INSTANCE(PACK_THREADS, pack_bf16, struct pack_args, pack<DT_BF16>)
KERNEL_INSTANCE(PACK_THREADS, pack_q8_0, struct pack_args, pack<DT_Q8_0>)
KERNEL_INSTANCE(PACK_THREADS, pack_q4_0, struct pack_args, pack<DT_Q4_0>)
KERNEL_INSTANCE(PACK_THREADS, pack_q4_K, struct pack_args, pack<DT_Q4_K>)
KERNEL_INSTANCE(PACK_THREADS, pack_q6_K, struct pack_args, pack<DT_Q6_K>)
