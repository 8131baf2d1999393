/* gpu/attend_cells.cuh - keys and values of a block on their way from their slots to shared memory, where attention
 * takes them as f16, rows STRIDE = HD + 8 apart (eight rows meet all banks). Device code only.
 *
 * In two steps, between which other work is done: fetch begins asynchronous copies, ready makes what has come into the
 * f16 that is multiplied. Both share their work between threads alike, so that a thread makes ready what it fetched,
 * and only what follows has to wait for the others. Slots that nobody sees, and columns behind head_dim, are zeros.
 *
 * f16 is copied to where it is multiplied, and each of K and V has its place there. fp8 (core/model/e4m3.h) is copied
 * as it is; K and V in turn are made ready in one place, as they are needed. The bits of an e4m3, shifted, are those of
 * an f16 2^8 times as small, subnormals too; one multiplication by a power of two brings it, and the head's scale, up,
 * and is exact. So attention over fp8 has the very bits of attention over f16 that holds the same numbers. */
#ifndef GPU_ATTEND_CELLS_CUH
#define GPU_ATTEND_CELLS_CUH

#include "gpu/attend.h"
#include "gpu/simt.cuh"

enum : uint32_t { NO_SLOT = ~0u };

template <int HD> struct f16_cells {
    static constexpr int STRIDE = HD + 8;
    static constexpr bool SCALED = false;
    uint16_t *k, *v; /* [64][STRIDE] */
};

template <int HD> struct fp8_cells {
    static constexpr int STRIDE = HD + 8;
    static constexpr bool SCALED = true;
    uint16_t *k, *v;            /* the same [64][STRIDE] */
    uint8_t *k_codes, *v_codes; /* [64][HD] */
};

/* Cells over memory of which op_attend asks for as much; behind it the queries begin. */
template <int HD> DEVICE uint16_t *place(f16_cells<HD> &c, uint16_t *p) {
    c.k = p;
    c.v = p + GPU_KV_BLOCK * f16_cells<HD>::STRIDE;
    return c.v + GPU_KV_BLOCK * f16_cells<HD>::STRIDE;
}
template <int HD> DEVICE uint16_t *place(fp8_cells<HD> &c, uint16_t *p) {
    c.k = c.v = p;
    c.k_codes = reinterpret_cast<uint8_t *>(p + GPU_KV_BLOCK * fp8_cells<HD>::STRIDE);
    c.v_codes = c.k_codes + GPU_KV_BLOCK * HD;
    return reinterpret_cast<uint16_t *>(c.v_codes + GPU_KV_BLOCK * HD);
}

/* ---- f16 ---- */

template <int HD> DEVICE void fetch_f16(uint16_t *to, const uint16_t *from, const uint32_t *slots, int head_dim) {
    constexpr int STRIDE = HD + 8, CHUNKS = HD / 8;
    if (head_dim % 8 == 0) {
        UNROLL
        for (int i = thread_x(); i < GPU_KV_BLOCK * CHUNKS; i += ATTEND_THREADS) {
            int row = i / CHUNKS, col = i % CHUNKS * 8;
            uint32_t slot = slots[row];
            if (slot != NO_SLOT && col < head_dim)
                copy_async(to + row * STRIDE + col, from + (size_t)slot * (size_t)head_dim + col);
            else
                *reinterpret_cast<u32x4 *>(to + row * STRIDE + col) = {};
        }
        return;
    }
    for (int i = thread_x(); i < GPU_KV_BLOCK * HD / 2; i += ATTEND_THREADS) { /* rows begin at multiples of 4 bytes */
        int row = i / (HD / 2), col = i % (HD / 2) * 2;
        uint32_t slot = slots[row], pair = 0;
        if (slot != NO_SLOT && col < head_dim)
            pair = *reinterpret_cast<const uint32_t *>(from + (size_t)slot * (size_t)head_dim + col);
        *reinterpret_cast<uint32_t *>(to + row * STRIDE + col) = pair;
    }
}

/* h: the kv head. */
template <int HD>
DEVICE void fetch_k(const f16_cells<HD> &c, const struct attend_args &a, int h, const uint32_t *slots) {
    size_t head = (size_t)h * a.n_slots * (size_t)a.head_dim;
    fetch_f16<HD>(c.k, static_cast<const uint16_t *>(a.k) + head, slots, a.head_dim);
}
template <int HD>
DEVICE void fetch_v(const f16_cells<HD> &c, const struct attend_args &a, int h, const uint32_t *slots) {
    size_t head = (size_t)h * a.n_slots * (size_t)a.head_dim;
    fetch_f16<HD>(c.v, static_cast<const uint16_t *>(a.v) + head, slots, a.head_dim);
}
template <int HD> DEVICE void ready_k(const f16_cells<HD> &, const uint32_t *) {
}
template <int HD> DEVICE void ready_v(const f16_cells<HD> &, const uint32_t *) {
}

/* ---- fp8 ---- */

template <int HD>
DEVICE void fetch_codes(uint8_t *to, const void *from, const struct attend_args &a, int h, const uint32_t *slots) {
    constexpr int CHUNKS = HD / 16;
    const uint8_t *head = static_cast<const uint8_t *>(from) + (size_t)h * a.n_slots * (size_t)a.kv_row;
    UNROLL
    for (int i = thread_x(); i < GPU_KV_BLOCK * CHUNKS; i += ATTEND_THREADS) {
        int col = i % CHUNKS * 16;
        uint32_t slot = slots[i / CHUNKS];
        if (slot != NO_SLOT && col < a.kv_row)
            copy_async(to + i * 16, head + (size_t)slot * (size_t)a.kv_row + col);
        else
            *reinterpret_cast<u32x4 *>(to + i * 16) = {};
    }
}

/* What the codes of K (lower half) and of V in a slot are multiplied by, shifted: 2^8 times their scales, as f16. */
DEVICE uint32_t factors_at(const struct attend_args &a, uint32_t slot) {
    return slot == NO_SLOT ? 0 : a.factors[(size_t)block_y() * a.n_slots + slot];
}

/* Two codes, each in the upper byte of a half of the word, as f16 times factor. */
DEVICE uint32_t decode_pair(uint32_t codes, uint32_t factor) {
    return mul_f16((codes & 0x80008000u) | (codes & 0x7f007f00u) >> 1, factor);
}

/* factors[row]: of K in the lower half, of V in the upper one. */
template <int HD> DEVICE void decode_rows(uint16_t *to, const uint8_t *from, const uint32_t *factors, int shift) {
    constexpr int STRIDE = HD + 8, CHUNKS = HD / 16;
    UNROLL
    for (int i = thread_x(); i < GPU_KV_BLOCK * CHUNKS; i += ATTEND_THREADS) {
        int row = i / CHUNKS, col = i % CHUNKS * 16;
        uint32_t factor = (factors[row] >> shift & 0xffff) * 0x10001u;
        u32x4 codes = *reinterpret_cast<const u32x4 *>(from + i * 16), half[2];
        UNROLL
        for (int w = 0; w < 4; w++) {
            uint32_t c = codes.v[w];
            half[w / 2].v[w % 2 * 2] = decode_pair((c & 0xff) << 8 | (c & 0xff00) << 16, factor);
            half[w / 2].v[w % 2 * 2 + 1] = decode_pair((c >> 8 & 0xff00) | (c & 0xff000000u), factor);
        }
        *reinterpret_cast<u32x4 *>(to + row * STRIDE + col) = half[0];
        *reinterpret_cast<u32x4 *>(to + row * STRIDE + col + 8) = half[1];
    }
}

template <int HD>
DEVICE void fetch_k(const fp8_cells<HD> &c, const struct attend_args &a, int h, const uint32_t *slots) {
    fetch_codes<HD>(c.k_codes, a.k, a, h, slots);
}
template <int HD>
DEVICE void fetch_v(const fp8_cells<HD> &c, const struct attend_args &a, int h, const uint32_t *slots) {
    fetch_codes<HD>(c.v_codes, a.v, a, h, slots);
}
template <int HD> DEVICE void ready_k(const fp8_cells<HD> &c, const uint32_t *factors) {
    decode_rows<HD>(c.k, c.k_codes, factors, 0);
}
template <int HD> DEVICE void ready_v(const fp8_cells<HD> &c, const uint32_t *factors) {
    decode_rows<HD>(c.v, c.v_codes, factors, 16);
}

#endif
