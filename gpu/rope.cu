/* gpu/rope.cu - between the qkv product and attention: q and k are normalised (Qwen3) and rotated, k and v go into
 * their slots as f16. A warp takes a head of q, or a head of k together with its v. */
#include "gpu/attend.h"
#include "gpu/simt.cuh"

static constexpr int PAIRS = GPU_HEAD_DIM_MAX / 64; /* of a lane: elements j and j + head_dim / 2 rotate together */
static constexpr uint16_t NAN_F16 = 0x7e00;

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
DEVICE void store_kv(const struct rope_args &a, const head &k, const head &v, size_t at, int half) {
    float bad = 0;
    UNROLL
    for (int i = 0; i < PAIRS; i++)
        bad += from_f16(to_f16(v.a[i])) * 0 + from_f16(to_f16(v.b[i])) * 0;
    UNROLL
    for (int m = 16; m > 0; m /= 2)
        bad += shuffle_xor(bad, m);
    bool good = bad == 0;
    UNROLL
    for (int i = 0; i < PAIRS; i++) {
        int j = thread_x() % 32 + 32 * i;
        if (j >= half)
            continue;
        size_t first = at + (size_t)j, second = first + (size_t)half;
        a.k[first] = good ? to_f16(k.a[i]) : NAN_F16;
        a.k[second] = good ? to_f16(k.b[i]) : NAN_F16;
        a.v[first] = good ? to_f16(v.a[i]) : 0;
        a.v[second] = good ? to_f16(v.b[i]) : 0;
    }
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
        store_kv(a, h, v, slot * (size_t)a.head_dim, half);
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
