/* test/gpu/emu/test_kernels.cu - kernels that use one thing of simt.cuh each, for test_gpu_simt; some break a rule. */
#include "test/gpu/emu/test_kernels.h"

#include "gpu/simt.cuh"

KERNEL(1024, test_where, struct test_args a) {
    int i = (block_z() * 2 + block_y()) * grid_x() + block_x();
    a.out_u[i * block_threads() + thread_x()] =
        (uint32_t)(block_x() | block_y() << 4 | block_z() << 8 | thread_x() << 12 | grid_x() << 24 | grid_z() << 28);
}

/* Each thread's value, then what the lane n away holds, then the sum of its warp. */
KERNEL(128, test_shuffles, struct test_args a) {
    int t = thread_x();
    a.out[t] = shuffle(a.in[t], (t * 7 + a.n) % 32);
    a.out[128 + t] = shuffle_xor(a.in[t], a.n);
    a.out_u[t] = shuffle((uint32_t)t, t % 32 + a.n);
    float sum = a.in[t];
    for (int m = 16; m > 0; m /= 2)
        sum += shuffle_xor(sum, m);
    a.out[256 + t] = sum;
}

/* One tile: in_u holds a [16][16] and b [16][8] (as [8 columns][16]) of 16-bit elements, in and out d [16][8]. */
template <void product(float *, const uint32_t *, const uint32_t *)> DEVICE void one_mma(const test_args &a) {
    const uint32_t *b_words = a.in_u + 16 * 8;
    int g = thread_x() / 4, t = thread_x() % 4;
    uint32_t x[4], y[2];
    float d[4];
    for (int i = 0; i < 4; i++) {
        x[i] = a.in_u[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
        d[i] = a.in[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    for (int i = 0; i < 2; i++)
        y[i] = b_words[g * 8 + t + i * 4];
    product(d, x, y);
    for (int i = 0; i < 4; i++)
        a.out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
DEVICE void with_bf16(float *d, const uint32_t *a, const uint32_t *b) {
    mma_bf16(d, a, b);
}
DEVICE void with_f16(float *d, const uint32_t *a, const uint32_t *b) {
    mma_f16(d, a, b);
}
KERNEL_INSTANCE(32, test_mma_bf16, test_args, one_mma<with_bf16>)
KERNEL_INSTANCE(32, test_mma_f16, test_args, one_mma<with_f16>)

/* Four matrices of 8 x 8 16-bit elements in a row of in_u; registers of both ways to out_u [2][32][4]. */
KERNEL(32, test_load_matrices, struct test_args a) {
    SHARED uint16_t m[4 * 8][8];
    uint32_t r[4];
    int l = thread_x();
    for (int i = 0; i < 8; i++)
        m[l][i] = (uint16_t)(a.in_u[(l * 8 + i) / 2] >> i % 2 * 16);
    sync_warp();
    load_matrices(r, m[l]);
    for (int i = 0; i < 4; i++)
        a.out_u[l * 4 + i] = r[i];
    load_matrices_transposed(r, m[l]);
    for (int i = 0; i < 4; i++)
        a.out_u[128 + l * 4 + i] = r[i];
}

/* Two groups of copies in flight; what is visible after each wait, by this thread alone. */
KERNEL(32, test_copies, struct test_args a) {
    SHARED uint32_t s[2][32 * 4];
    int l = thread_x();
    for (int i = 0; i < 4; i++)
        s[0][l * 4 + i] = s[1][l * 4 + i] = 7;
    copy_async(&s[0][l * 4], a.in_u + l * 4);
    copy_commit();
    copy_async(&s[1][l * 4], a.in_u + 128 + l * 4);
    copy_commit();
    a.out_u[l] = s[0][l * 4];
    copy_wait<1>();
    a.out_u[32 + l] = s[0][l * 4 + 3];
    a.out_u[64 + l] = s[1][l * 4 + 3];
    copy_wait<0>();
    a.out_u[96 + l] = s[1][l * 4 + 3];
    sync_warp();
    a.out_u[128 + l] = s[1][(31 - l) * 4];
}

/* Sums through static and dynamic shared memory, n rounds, a barrier between each use. out[block][thread]: the sum of
 * all threads' values of the block in the last round. */
KERNEL(256, test_blocks, struct test_args a) {
    SHARED float part[8];
    DYNAMIC_SHARED(float, all);
    float sum = 0.0f;
    int t = thread_x(), n = block_threads();
    for (int round = 0; round < a.n; round++) {
        all[t] = a.in[block_x() * n + t] + (float)round;
        sync_block();
        float v = all[(t + 33) % n];
        for (int m = 16; m > 0; m /= 2)
            v += shuffle_xor(v, m);
        if (t % 32 == 0)
            part[t / 32] = v;
        sync_block();
        sum = 0.0f;
        for (int i = 0; i < n / 32; i++)
            sum += part[i];
    }
    a.out[block_x() * n + t] = sum;
}

/* The first barrier of test_blocks is missing: how many threads read what is not there yet. */
KERNEL(256, test_no_barrier, struct test_args a) {
    SHARED float all[256];
    int t = thread_x();
    all[t] = a.in[t];
    a.out[block_x() * 256 + t] = all[255 - t];
}

/* Reads what nobody has written. */
KERNEL(32, test_unwritten, struct test_args a) {
    SHARED float s[64];
    DYNAMIC_SHARED(float, d);
    int t = thread_x();
    a.out[t] = s[t];
    a.out[32 + t] = d[t];
    sync_warp();
    s[t] = d[t] = 1.0f;
}

/* Numbers: bf16 pairs, f16 pairs, f16 and back, 2^x, of in[i]. */
KERNEL(128, test_numbers, struct test_args a) {
    for (int i = thread_x(); i < a.n; i += block_threads()) {
        uint32_t hi, lo;
        float x = a.in[i];
        a.out_u[i] = pack_bf16(x, -x);
        a.out_u[a.n + i] = pack_f16(x, -x);
        split_bf16(x, 1.0f, &hi, &lo);
        a.out[i] = from_bf16(hi & 0xffff) + from_bf16(lo & 0xffff);
        a.out[a.n + i] = from_f16(to_f16(x));
        a.out[2 * a.n + i] = exp2_of(x);
        a.out[3 * a.n + i] = divide(root_of(x < 0.0f ? -x : x), 3.0f);
    }
}

/* in_u: n words each of a, b, c. */
KERNEL(128, test_fma, struct test_args a) {
    for (int i = thread_x(); i < a.n; i += block_threads())
        a.out_u[i] = fma_bf16(a.in_u[i], a.in_u[a.n + i], a.in_u[2 * a.n + i]);
}

KERNEL(64, test_load_once, struct test_args a) {
    release_successor();
    await_predecessor();
    u32x4 v = load_once(a.in_u + a.n * thread_x());
    a.out_u[thread_x()] = v.v[0] + v.v[3];
}

/* What breaks the rules, by n. */
KERNEL(64, test_broken, struct test_args a) {
    SHARED float s[64];
    float v = 1.0f;
    uint32_t r[4];
    int t = thread_x();
    s[t] = 0.0f;
    if (a.n == 0 && t != 5) /* one thread leaves */
        sync_block();
    if (a.n == 1 && t < 32) /* one warp leaves */
        sync_block();
    if (a.n == 2 && t != 7) /* one lane misses a shuffle */
        v = shuffle_xor(v, 1);
    if (a.n == 3) { /* half of a warp waits elsewhere */
        if (t < 16)
            v = shuffle_xor(v, 1);
        else
            sync_warp();
    }
    if (a.n == 4) { /* warps wait in different places */
        if (t < 32)
            sync_block();
        else
            sync_block();
    }
    if (a.n == 5) /* no shared memory */
        load_matrices(r, a.in);
    if (a.n == 6) /* not aligned */
        copy_async(s + 1, a.in);
    if (a.n == 7) /* far beyond an allocation */
        a.out[64 + t] = v;
    if (a.n == 8) /* a lane waits for a warp that has ended */
        if (t >= 32 || t == 3)
            sync_warp();
}

/* out = in + weights (in_u), a block of 64 each, of what another block of the launch before wrote; in a way that is fine
 * with launches that overlap (n 0), or is not. */
KERNEL(64, test_next, struct test_args a) {
    SHARED uint32_t weights[64];
    int t = thread_x(), n = grid_x() * 64, i = block_x() * 64 + t, from = (i + 64 * 3 + 1) % n;
    if (a.n != NEXT_KEEPS)
        release_successor();
    weights[63 - t] = a.in_u[63 - t];
    sync_block();
    float x = a.n == NEXT_READS_EARLY ? a.in[from] : 0;
    if (a.n == NEXT_WRITES_EARLY)
        a.out[i] = -1;
    if (a.n == NEXT_ENDS || (a.n == NEXT_THREAD_ENDS && i == n - 1))
        return;
    await_predecessor();
    if (a.n == NEXT_WAITS_TWICE)
        await_predecessor();
    if (a.n != NEXT_READS_EARLY)
        x = a.in[from];
    a.out[i] = x + (float)weights[t];
}
