#include "test/gpu/emu/test_kernels.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <string.h>

/* Kernels of tests are no part of the program: they come from the emulated card alone. */
static struct gpu *g;
static cu_module module;

static void start(void) {
    gpu_rig_needs_emulated_card();
    g = gpu_rig_open();
    cr_assert_eq(g->driver->module_load(&module, NULL), 0);
}

static void finish(void) {
    if (!g)
        return;
    cr_assert_eq(g->driver->module_unload(module), 0);
    gpu_rig_close(g);
}
TestSuite(gpu_simt, .init = start, .fini = finish);

static void launch(const char *name, unsigned gx, unsigned gy, unsigned gz, unsigned threads, unsigned shared,
                   struct test_args a) {
    cu_function f;
    void *params[] = {&a};
    cr_assert_eq(g->driver->module_function(&f, module, name), 0, "%s", name);
    cr_assert_eq(g->driver->launch(f, gx, gy, gz, threads, 1, 1, shared, g->stream, params, NULL), 0, "%s", name);
    gpu_rig_wait(g);
}

/* Launches a kernel of one struct test_args with copies of in, in_u on the card, and reads what it wrote. */
struct io {
    const void *in, *in_u;
    size_t in_bytes, in_u_bytes;
    void *out, *out_u;
    size_t out_bytes, out_u_bytes;
};
static void run(const char *name, unsigned blocks, unsigned threads, unsigned shared, int n, struct io io) {
    cu_ptr in = io.in ? gpu_rig_put(g, io.in, io.in_bytes) : 0;
    cu_ptr in_u = io.in_u ? gpu_rig_put(g, io.in_u, io.in_u_bytes) : 0;
    cu_ptr out = io.out ? gpu_rig_alloc(g, io.out_bytes) : 0;
    cu_ptr out_u = io.out_u ? gpu_rig_alloc(g, io.out_u_bytes) : 0;
    launch(name, blocks, 1, 1, threads, shared,
           (struct test_args){.in = GPU_AT(float, in),
                              .in_u = GPU_AT(uint32_t, in_u),
                              .out = GPU_AT(float, out),
                              .out_u = GPU_AT(uint32_t, out_u),
                              .n = n});
    if (out)
        gpu_rig_read(g, io.out, out, io.out_bytes);
    if (out_u)
        gpu_rig_read(g, io.out_u, out_u, io.out_u_bytes);
    gpu_free(g, in);
    gpu_free(g, in_u);
    gpu_free(g, out);
    gpu_free(g, out_u);
}

static float noise_float(uint64_t *seed) {
    return (float)(noise(seed) >> 40) / 0x1p23f - 1.0f;
}

Test(gpu_simt, every_thread_of_every_block_runs_once) {
    enum { GX = 3, GY = 2, GZ = 2, T = 96, N = GX * GY * GZ * T };
    static uint32_t out[N];
    cu_ptr p = gpu_rig_alloc(g, sizeof out);
    launch("test_where", GX, GY, GZ, T, 0, (struct test_args){.out_u = GPU_AT(uint32_t, p)});
    gpu_rig_read(g, out, p, sizeof out);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t t = i % T, b = i / T, x = b % GX, y = b / GX % GY, z = b / GX / GY;
        cr_assert_eq(out[i], x | y << 4 | z << 8 | t << 12 | (uint32_t)GX << 24 | (uint32_t)GZ << 28);
    }
    gpu_free(g, p);
}

Test(gpu_simt, shuffles) {
    float in[128], out[3][128];
    uint32_t out_u[128];
    uint64_t seed = 1;
    for (int i = 0; i < 128; i++)
        in[i] = (float)(noise(&seed) % 1000); /* sums are exact in any order */
    for (int n = 0; n < 32; n += 5) {
        run("test_shuffles", 1, 128, 0, n,
            (struct io){.in = in,
                        .in_bytes = sizeof in,
                        .out = out,
                        .out_bytes = sizeof out,
                        .out_u = out_u,
                        .out_u_bytes = sizeof out_u});
        for (int t = 0; t < 128; t++) {
            float sum = 0;
            for (int l = 0; l < 32; l++)
                sum += in[t / 32 * 32 + l];
            cr_assert_eq(out[0][t], in[t / 32 * 32 + (t * 7 + n) % 32]);
            cr_assert_eq(out[1][t], in[t ^ n]);
            cr_assert_eq(out[2][t], sum);
            cr_assert_eq(out_u[t], (uint32_t)(t / 32 * 32 + (t % 32 + n) % 32));
        }
    }
}

/* What 16 bits mean, without the emulation's help: from the definition of the formats. */
static double value_of(uint16_t h, int exponent_bits, int bias) {
    int mantissa_bits = 15 - exponent_bits;
    int e = (h & 0x7fff) >> mantissa_bits;
    int m = h & ((1 << mantissa_bits) - 1);
    double v = e == 0 ? ldexp(m, 1 - bias - mantissa_bits) : ldexp(m + (1 << mantissa_bits), e - bias - mantissa_bits);
    return h & 0x8000 ? -v : v;
}

static void check_mma(const char *kernel, int exponent_bits, int bias, uint16_t (*element)(uint64_t *seed)) {
    struct {
        uint16_t a[16][16], b[8][16];
    } in;
    float d[16][8], out[16][8];
    uint64_t seed = 3;
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++)
            in.a[i][k] = element(&seed);
        for (int j = 0; j < 8; j++)
            d[i][j] = noise_float(&seed);
    }
    for (int j = 0; j < 8; j++)
        for (int k = 0; k < 16; k++)
            in.b[j][k] = element(&seed);
    run(kernel, 1, 32, 0, 0,
        (struct io){
            .in_u = &in, .in_u_bytes = sizeof in, .in = d, .in_bytes = sizeof d, .out = out, .out_bytes = sizeof out});
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = d[i][j];
            for (int k = 0; k < 16; k++)
                want += (float)(value_of(in.a[i][k], exponent_bits, bias) * value_of(in.b[j][k], exponent_bits, bias));
            cr_assert_eq(out[i][j], want, "row %d column %d: %g, not %g", i, j, out[i][j], want);
        }
}

static uint16_t any_f16(uint64_t *seed) { /* small ones and subnormal ones too */
    uint16_t h = (uint16_t)noise(seed);
    return (uint16_t)(h & (h % 3 == 0 ? 0x83ff : 0xbfff));
}
static uint16_t any_bf16(uint64_t *seed) {
    float f = noise_float(seed);
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)(u >> 16);
}
Test(gpu_simt, products) {
    check_mma("test_mma_bf16", 8, 127, any_bf16);
    check_mma("test_mma_f16", 5, 15, any_f16);
}

Test(gpu_simt, matrices_out_of_shared_memory) {
    uint16_t in[4][8][8];
    uint32_t out[2][32][4];
    for (int i = 0; i < 256; i++)
        in[i / 64][i / 8 % 8][i % 8] = (uint16_t)(i * 251);
    run("test_load_matrices", 1, 32, 0, 0,
        (struct io){.in_u = in, .in_u_bytes = sizeof in, .out_u = out, .out_u_bytes = sizeof out});
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            int r = l / 4, c = l % 4 * 2;
            cr_assert_eq(out[0][l][i], in[i][r][c] | (uint32_t)in[i][r][c + 1] << 16);
            cr_assert_eq(out[1][l][i], in[i][c][r] | (uint32_t)in[i][c + 1][r] << 16);
        }
}

Test(gpu_simt, copies_are_visible_when_their_group_was_waited_for) {
    uint32_t in[256], out[5][32];
    for (uint32_t i = 0; i < 256; i++)
        in[i] = i + 1000;
    run("test_copies", 1, 32, 0, 0,
        (struct io){.in_u = in, .in_u_bytes = sizeof in, .out_u = out, .out_u_bytes = sizeof out});
    for (uint32_t l = 0; l < 32; l++) {
        cr_assert(out[0][l] != 7 && out[0][l] != in[l * 4], "neither the old content nor the new one is to be had");
        cr_assert_eq(out[1][l], in[l * 4 + 3]);
        cr_assert(out[2][l] != 7 && out[2][l] != in[128 + l * 4 + 3]);
        cr_assert_eq(out[3][l], in[128 + l * 4 + 3]);
        cr_assert_eq(out[4][l], in[128 + (31 - l) * 4]);
    }
}

Test(gpu_simt, blocks_with_barriers_and_shared_memory) {
    enum { BLOCKS = 5, N = 256 };
    float in[BLOCKS * N], out[BLOCKS * N];
    uint64_t seed = 5;
    for (int i = 0; i < BLOCKS * N; i++)
        in[i] = (float)(noise(&seed) % 100);
    run("test_blocks", BLOCKS, N, N * sizeof(float), 9,
        (struct io){.in = in, .in_bytes = sizeof in, .out = out, .out_bytes = sizeof out});
    for (int b = 0; b < BLOCKS; b++) {
        float sum = 0;
        for (int i = 0; i < N; i++)
            sum += in[b * N + i] + 8;
        for (int i = 0; i < N; i++)
            cr_assert_eq(out[b * N + i], sum, "block %d, thread %d: %g, not %g", b, i, out[b * N + i], sum);
    }
}

Test(gpu_simt, a_missing_barrier_shows) {
    enum { BLOCKS = 4, N = 256 };
    float in[N], out[BLOCKS * N];
    int wrong = 0;
    for (int i = 0; i < N; i++)
        in[i] = (float)i;
    run("test_no_barrier", BLOCKS, N, 0, 0,
        (struct io){.in = in, .in_bytes = sizeof in, .out = out, .out_bytes = sizeof out});
    for (int i = 0; i < BLOCKS * N; i++)
        wrong += !(out[i] == in[255 - i % N]);
    cr_assert_gt(wrong, BLOCKS * N / 4);
    cr_assert_lt(wrong, BLOCKS * N);
}

Test(gpu_simt, memory_that_nobody_has_written_is_not_a_number) {
    float out[64];
    run("test_unwritten", 3, 32, 32 * sizeof(float), 0, (struct io){.out = out, .out_bytes = sizeof out});
    for (int i = 0; i < 64; i++)
        cr_assert(isnan(out[i]));
}

/* The nearest of all values of a format, the even one of two, by search. */
static uint16_t nearest(double x, int exponent_bits, int bias, uint16_t largest) {
    uint16_t low = 0, high = (uint16_t)(largest + 1); /* infinity, as if it were the next value */
    double a = fabs(x);
    while (high - low > 1) {
        uint16_t mid = (uint16_t)((low + high) / 2);
        if (value_of(mid, exponent_bits, bias) <= a)
            low = mid;
        else
            high = mid;
    }
    double below = a - value_of(low, exponent_bits, bias), above = value_of(high, exponent_bits, bias) - a;
    uint16_t h = below < above || (below == above && low % 2 == 0) ? low : high;
    return (uint16_t)(h | (signbit(x) ? 0x8000 : 0));
}

Test(gpu_simt, conversions) {
    enum { N = 3000 };
    static float in[N], out[4][N];
    static uint32_t out_u[2][N];
    static const float special[] = {0.0f,       -0.0f,      1.0f,       65504.0f,  65519.99f,  65520.0f,
                                    1e30f,      0x1p-14f,   0x1p-24f,   0x1p-25f,  0x1.8p-25f, 0x1p-26f,
                                    0x1.004p0f, 0x1.002p0f, 0x1.006p0f, 0x1.01p0f, 0x1.03p0f,  0x1.fffffep-15f,
                                    -127.5f,    -126.0f,    -149.0f};
    uint64_t seed = 9;
    for (int i = 0; i < N; i++)
        in[i] = i < (int)(sizeof special / sizeof *special) ? special[i]
                                                            : ldexpf(noise_float(&seed), (int)(noise(&seed) % 48) - 30);
    run("test_numbers", 1, 128, 0, N,
        (struct io){.in = in,
                    .in_bytes = sizeof in,
                    .out = out,
                    .out_bytes = sizeof out,
                    .out_u = out_u,
                    .out_u_bytes = sizeof out_u});
    for (int i = 0; i < N; i++) {
        uint16_t b = nearest(in[i], 8, 127, 0x7f7f), h = nearest(in[i], 5, 15, 0x7bff);
        cr_assert_eq(out_u[0][i], b | (uint32_t)(b ^ 0x8000) << 16, "bf16 of %a: %08x", in[i], out_u[0][i]);
        cr_assert_eq(out_u[1][i], h | (uint32_t)(h ^ 0x8000) << 16, "f16 of %a: %08x", in[i], out_u[1][i]);
        cr_assert_leq(fabsf(out[0][i] - in[i]), fabsf(in[i]) * 0x1p-16f, "%a", in[i]);
        double back = (h & 0x7fff) == 0x7c00 ? INFINITY * (h & 0x8000 ? -1 : 1) : value_of(h, 5, 15);
        cr_assert_eq((double)out[1][i], back, "%a from %04x", out[1][i], h);
        double p = exp2((double)in[i]);
        if (p < 0x1p-126)
            cr_assert_eq(out[2][i], 0.0f);
        else if (p < 0x1p127)
            cr_assert_leq(fabs((double)out[2][i] - p), p * 0x1p-22);
        cr_assert_eq(out[3][i], sqrtf(fabsf(in[i])) / 3.0f);
    }
}

/* Sums that are exact in a double, and many that lie close to the middle of two results. */
Test(gpu_simt, fused_products_of_bf16_are_rounded_once) {
    enum { N = 20000 };
    static uint16_t in[3][N][2], out[N][2];
    uint64_t seed = 12;
    for (int i = 0; i < 3 * N * 2; i++) {
        uint64_t r = noise(&seed);
        int exponent = 127 + (int)(r >> 16 & 15) - 8 - (i / (2 * N) == 2 ? 22 * (int)(r >> 20 & 1) : 0);
        (&in[0][0][0])[i] = (uint16_t)((r & 0x807f) | (uint64_t)exponent << 7);
    }
    run("test_fma", 1, 128, 0, N,
        (struct io){.in_u = in, .in_u_bytes = sizeof in, .out_u = out, .out_u_bytes = sizeof out});
    for (int i = 0; i < 2 * N; i++) {
        double v[3];
        for (int k = 0; k < 3; k++)
            v[k] = value_of(in[k][i / 2][i % 2], 8, 127);
        double want = v[0] * v[1] + v[2];
        cr_assert_eq(out[i / 2][i % 2], nearest(want, 8, 127, 0x7f7f), "%a * %a + %a: %04x", v[0], v[1], v[2],
                     out[i / 2][i % 2]);
    }
}

Test(gpu_simt, wide_loads) {
    uint32_t in[256], out[64];
    for (uint32_t i = 0; i < 256; i++)
        in[i] = i * i;
    run("test_load_once", 1, 64, 0, 4,
        (struct io){.in_u = in, .in_u_bytes = sizeof in, .out_u = out, .out_u_bytes = sizeof out});
    for (int i = 0; i < 64; i++)
        cr_assert_eq(out[i], in[4 * i] + in[4 * i + 3]);
}

/* A kernel that breaks a rule ends the program: on a card it would hang or be wrong now and then. */
static void run_broken(int n) {
    float in[64] = {0}, out[64];
    run("test_broken", 1, 64, 0, n, (struct io){.in = in, .in_bytes = sizeof in, .out = out, .out_bytes = sizeof out});
}
#define BREAKS(n, what)                                                                                                \
    Test(gpu_simt, what, .signal = SIGABRT) {                                                                          \
        run_broken(n);                                                                                                 \
    }
BREAKS(0, a_thread_misses_a_barrier)
BREAKS(1, a_warp_misses_a_barrier)
BREAKS(2, a_lane_misses_a_shuffle)
BREAKS(3, lanes_call_different_operations)
BREAKS(4, warps_wait_at_different_barriers)
BREAKS(5, a_matrix_does_not_come_from_shared_memory)
BREAKS(6, a_copy_is_not_aligned)
BREAKS(8, a_lane_waits_for_others_that_have_ended)
#ifndef __SANITIZE_ADDRESS__ /* which would report it at once, and a report is a failure */
BREAKS(7, a_write_behind_an_allocation)
#endif

Test(gpu_simt, a_wide_load_is_not_aligned, .signal = SIGABRT) {
    uint32_t in[256] = {0}, out[64];
    run("test_load_once", 1, 64, 0, 1,
        (struct io){.in_u = in, .in_u_bytes = sizeof in, .out_u = out, .out_u_bytes = sizeof out});
}
