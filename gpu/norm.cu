/* gpu/norm.cu - RMSNorm: a block takes a row. */
#include "gpu/attend.h"
#include "gpu/simt.cuh"

struct alignas(16) f32x4 {
    float v[4];
};

/* Elements [at, at + 4) of a row, zeros behind its end. */
DEVICE f32x4 load_four(const float *row, int at, int cols) {
    if (cols % 4 == 0 && at < cols)
        return *reinterpret_cast<const f32x4 *>(row + at);
    f32x4 r;
    UNROLL
    for (int i = 0; i < 4; i++)
        r.v[i] = at + i < cols ? row[at + i] : 0;
    return r;
}

/* The same of x, which may lie in slices. */
DEVICE f32x4 load_x(const struct norm_args &a, int row, int at) {
    const float *x = a.x + (size_t)row * (size_t)a.slice;
    if (a.slice != a.cols)
        x += (size_t)(at / a.slice) * a.skip;
    return load_four(x, at, a.cols);
}

DEVICE float add_squares(f32x4 x, float sum) {
    UNROLL
    for (int i = 0; i < 4; i++)
        sum = fmaf(x.v[i], x.v[i], sum);
    return sum;
}

DEVICE void store_four(const struct norm_args &a, int row, int at, f32x4 x, float r) {
    f32x4 w = load_four(a.w, at, a.cols), y;
    UNROLL
    for (int i = 0; i < 4; i++)
        y.v[i] = at + i < a.cols ? x.v[i] * r * w.v[i] : 0;
    u32x2 hi, lo;
    split_bf16(y.v[0], y.v[1], &hi.v[0], &lo.v[0]);
    split_bf16(y.v[2], y.v[3], &hi.v[1], &lo.v[1]);
    size_t to = (size_t)row * (size_t)a.out.ld + (size_t)at;
    *reinterpret_cast<u32x2 *>(a.out.hi + to) = hi;
    *reinterpret_cast<u32x2 *>(a.out.lo + to) = lo;
}

/* Order of the sum: a thread takes four neighbours of every STRIDE, one after the other; then the lanes of a warp are
 * folded by halves, and the warps' sums added in order. The first pieces stay in registers until the row is scaled; in
 * wider rows the rest is read twice, the second time from the cache. */
DEVICE void norm(const struct norm_args &a) {
    constexpr int STRIDE = NORM_THREADS * 4, KEPT = 4;
    SHARED float sums[NORM_THREADS / 32];
    release_successor();
    await_predecessor();
    int row = block_x(), mine = thread_x() * 4, n_rows = a.pass->n_rows;
    f32x4 kept[KEPT];
    UNROLL
    for (int i = 0; i < KEPT; i++)
        kept[i] = load_x(a, row, mine + i * STRIDE);
    float sum = 0;
    UNROLL
    for (int i = 0; i < KEPT; i++)
        sum = add_squares(kept[i], sum);
    for (int at = mine + KEPT * STRIDE; at < a.cols; at += STRIDE)
        sum = add_squares(load_x(a, row, at), sum);

    UNROLL
    for (int half = 16; half > 0; half /= 2)
        sum += shuffle_xor(sum, half);
    if (thread_x() % 32 == 0)
        sums[thread_x() / 32] = sum;
    sync_block();
    sum = 0;
    UNROLL
    for (int i = 0; i < NORM_THREADS / 32; i++)
        sum += sums[i];
    float r = divide(1, root_of(divide(sum, (float)a.cols) + a.eps));
    if (row >= n_rows) /* not asked before: x has rows for the whole launch, and its loads need not wait for that */
        return;

    UNROLL
    for (int i = 0; i < KEPT; i++)
        if (mine + i * STRIDE < a.out.ld)
            store_four(a, row, mine + i * STRIDE, kept[i], r);
    for (int at = mine + KEPT * STRIDE; at < a.out.ld; at += STRIDE)
        store_four(a, row, at, load_x(a, row, at), r);
}

KERNEL_INSTANCE_BLOCKS(NORM_THREADS, 2, rmsnorm, struct norm_args, norm)
