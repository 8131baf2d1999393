/* gpu/rope.cu - between the qkv product and attention: q and k are normalised (Qwen3) and rotated, k and v go into
 * their slots as f16 or fp8. A warp takes a head of q, or a head of k together with its v. */
#include "gpu/attend.h"
#include "gpu/simt.cuh"

static constexpr int PAIRS = GPU_HEAD_DIM_MAX / 64; /* of a lane: elements j and j + head_dim / 2 rotate together */
static constexpr uint16_t NAN_F16 = 0x7e00;
static constexpr int LEAST_SCALE = -15, MOST_SCALE = 7, SPOILT = 99; /* exponents of the scales of fp8 */

DEVICE float power_of_two(int n) {
    return as_float((uint32_t)(127 + n) << 23);
}

struct head {
    float a[PAIRS], b[PAIRS]; /* first and second half, elements lane, lane + 32 ...; zero behind the end */
};

DEVICE head load_head(const float *x, int half) {
    head h;
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        int j = thread_x() % 32 + 32 * i;
        h.a[i] = j < half ? x[j] : 0;
        h.b[i] = j < half ? x[half + j] : 0;
    }
    return h;
}

/* Order of the sum: a lane's pairs one after the other, then the lanes folded by halves. */
DEVICE void norm_head(head *h, const float *w, int half, float eps) {
    float sum = 0;
    UNROLL
    for (int i = 0; i < PAIRS; i++)
        sum = fmaf(h->b[i], h->b[i], fmaf(h->a[i], h->a[i], sum));
    UNROLL
    for (int m = 16; m > 0; m /= 2)
        sum += shuffle_xor(sum, m);
    float r = divide(1, root_of(divide(sum, (float)(2 * half)) + eps));
    head v = load_head(w, half);
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        h->a[i] = h->a[i] * r * v.a[i];
        h->b[i] = h->b[i] * r * v.b[i];
    }
}

DEVICE void rotate_head(head *h, const float *cs, int half) {
    head t = load_head(cs, half); /* cos, sin */
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        float a = h->a[i], b = h->b[i];
        h->a[i] = a * t.a[i] - b * t.b[i];
        h->b[i] = b * t.a[i] + a * t.b[i];
    }
}

/* A value that f16 does not hold would be multiplied by the zero weights of queries that do not see it, and spoil them.
 * So a head of v with one is stored as zeros, and the NaN goes into its k: who sees it gets NaN, nobody else does. */
DEVICE void store_f16(const struct rope_args &a, const head &k, const head &v, size_t slot, int half) {
    float bad = 0;
    UNROLL
    for (int i = 0; i < PAIRS; i++)
        bad += from_f16(to_f16(v.a[i])) * 0 + from_f16(to_f16(v.b[i])) * 0;
    UNROLL
    for (int m = 16; m > 0; m /= 2)
        bad += shuffle_xor(bad, m);
    bool good = bad == 0;
    uint16_t *to_k = static_cast<uint16_t *>(a.k) + slot * (size_t)a.head_dim;
    uint16_t *to_v = static_cast<uint16_t *>(a.v) + slot * (size_t)a.head_dim;
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        int first = thread_x() % 32 + 32 * i, second = first + half;
        if (first >= half)
            continue;
        to_k[first] = good ? to_f16(k.a[i]) : NAN_F16;
        to_k[second] = good ? to_f16(k.b[i]) : NAN_F16;
        to_v[first] = good ? to_f16(v.a[i]) : 0;
        to_v[second] = good ? to_f16(v.b[i]) : 0;
    }
}

/* The exponent of a head's scale, by the rules of core/model/e4m3.h, the same in all lanes; SPOILT: there is none. */
DEVICE int scale_of(const head &h) {
    float most = 0, bad = 0;
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        most = fmaxf(most, fmaxf(fabsf(h.a[i]), fabsf(h.b[i])));
        bad += h.a[i] * 0 + h.b[i] * 0;
    }
    UNROLL
    for (int m = 16; m > 0; m /= 2) {
        most = fmaxf(most, shuffle_xor(most, m));
        bad += shuffle_xor(bad, m);
    }
    uint32_t u = as_bits(most), above = (u & 0x7fffff) > 0x600000; /* of 448, 1.75 * 2^8 */
    int scale = (int)(u >> 23) - 127 - 8 + (int)above;
    return bad != 0 || scale > MOST_SCALE ? SPOILT : scale < LEAST_SCALE ? LEAST_SCALE : scale;
}

/* x is at most 448. */
DEVICE uint8_t encode(float x) {
    uint32_t u = as_bits(x), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
    uint32_t normal = ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - ((127 - 7) << 3);
    uint32_t subnormal = as_bits(as_float(a) + 0x1p14f) - as_bits(0x1p14f); /* a multiple of 2^-9 */
    return (uint8_t)(sign | (a < as_bits(0x1p-6f) ? subnormal : normal));
}

/* 2^-scale times h, of which with SPOILT nothing is stored. */
DEVICE void store_codes(uint8_t *to, const head &h, int scale, int half, int row) {
    float down = power_of_two(-scale);
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        int j = thread_x() % 32 + 32 * i;
        if (j < half) {
            to[j] = scale == SPOILT ? 0 : encode(h.a[i] * down);
            to[half + j] = scale == SPOILT ? 0 : encode(h.b[i] * down);
        }
    }
    int pad = 2 * half + thread_x() % 32;
    if (pad < row)
        to[pad] = 0;
}

/* As store_f16, of what fp8 does not hold in k or in v. */
DEVICE void store_fp8(const struct rope_args &a, const head &k, const head &v, size_t slot, int half) {
    int of_k = scale_of(k), of_v = scale_of(v);
    if (of_k == SPOILT || of_v == SPOILT)
        of_k = of_v = SPOILT;
    size_t at = slot * (size_t)a.kv_row;
    store_codes(static_cast<uint8_t *>(a.k) + at, k, of_k, half, a.kv_row);
    store_codes(static_cast<uint8_t *>(a.v) + at, v, of_v, half, a.kv_row);
    if (thread_x() % 32 == 0)
        a.factors[slot] = of_k == SPOILT ? NAN_F16 : pack_f16(power_of_two(8 + of_k), power_of_two(8 + of_v));
}

KERNEL(ROPE_THREADS, rope_kv, struct rope_args a) {
    release_successor();
    await_predecessor();
    int row = block_x(), unit = block_y() * ROPE_UNITS + thread_x() / 32, half = a.head_dim / 2;
    if (row >= a.pass->n_rows || unit >= a.n_heads + a.n_kv_heads)
        return;
    float *x = a.qkv + (size_t)row * (size_t)a.ld;
    const float *cs = a.pass->cs + (size_t)row * (size_t)a.head_dim;
    bool is_q = unit < a.n_heads;
    int kv_head = unit - a.n_heads;
    float *from = is_q ? x + a.q_at + unit * a.head_dim : x + a.k_at + kv_head * a.head_dim;
    const float *norm = is_q ? a.q_norm : a.k_norm;
    head h = load_head(from, half);
    if (norm)
        norm_head(&h, norm, half, a.eps);
    rotate_head(&h, cs, half);
    if (!is_q) {
        head v = load_head(x + a.v_at + kv_head * a.head_dim, half);
        size_t slot = (size_t)kv_head * a.n_slots + a.pass->rows[row].slot;
        if (a.factors)
            store_fp8(a, h, v, slot, half);
        else
            store_f16(a, h, v, slot, half);
        return;
    }
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        int j = thread_x() % 32 + 32 * i;
        if (j < half) {
            from[j] = h.a[i];
            from[half + j] = h.b[i];
        }
    }
}
