#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Small programs in PTX whose answers are known, so that what executes nvcc's PTX in tests (test/gpu/ptx) is itself
 * tested. A real card takes them as well. Each thread has in %r0 its number, in %rd0 and %rd1 the addresses of its
 * words of in and out, 4 of each; a program reads and writes through these. */
enum { THREADS = 64, WORDS = 4, N = THREADS * WORDS };

static struct gpu *g;
static const char *const head = ".version 8.0\n.target sm_80\n.address_size 64\n"
                                ".visible .entry k(.param .align 8 .b8 k_param_0[16])\n{\n"
                                ".reg .b16 %h<10>;\n.reg .b32 %r<40>;\n.reg .f32 %f<40>;\n.reg .b64 %rd<10>;\n"
                                ".reg .pred %p<8>;\n.shared .align 16 .b8 room[1024];\n"
                                "ld.param.u64 %rd0, [k_param_0];\nld.param.u64 %rd1, [k_param_0+8];\n"
                                "mov.u32 %r0, %tid.x;\nmul.wide.u32 %rd2, %r0, 16;\n"
                                "cvta.to.global.u64 %rd0, %rd0;\ncvta.to.global.u64 %rd1, %rd1;\n"
                                "add.s64 %rd0, %rd0, %rd2;\nadd.s64 %rd1, %rd1, %rd2;\n";

static cu_result load(const char *body, cu_module *m) {
    char text[8192];
    int n = snprintf(text, sizeof text, "%s%s\nret;\n}\n", head, body);
    cr_assert(n > 0 && (size_t)n < sizeof text);
    return g->driver->module_load(m, text);
}

/* Runs body with one block; what waiting for it gives. */
static cu_result run(const char *body, const uint32_t in[N], uint32_t out[N]) {
    cu_module m;
    cu_function f;
    g = gpu_rig_open();
    cr_assert_eq(load(body, &m), 0);
    cr_assert_eq(g->driver->module_function(&f, m, "k"), 0);
    cu_ptr from = gpu_rig_put(g, in, N * 4), to = gpu_rig_alloc(g, N * 4);
    struct {
        cu_ptr from, to;
    } a = {from, to};
    void *params[] = {&a};
    cr_assert_eq(g->driver->launch(f, 1, 1, 1, THREADS, 1, 1, 0, g->stream, params, NULL), 0);
    cu_result r = g->driver->stream_sync(g->stream);
    if (r == 0)
        gpu_rig_read(g, out, to, N * 4);
    gpu_free(g, from);
    gpu_free(g, to);
    (void)g->driver->module_unload(m);
    gpu_rig_close(g);
    return r;
}

static void fill(uint32_t in[N]) {
    for (uint32_t i = 0; i < N; i++)
        in[i] = i * 2654435761u;
}

/* The steps of 3 n + 1 to 1, of as many numbers as there are lanes; then a shuffle, which needs all of them. */
Test(gpu_ptx, lanes_go_apart_and_come_together) {
    uint32_t in[N] = {0}, out[N];
    for (uint32_t i = 0; i < THREADS; i++)
        in[i * WORDS] = i + 1;
    cr_assert_eq(run("ld.global.u32 %r1, [%rd0];\nmov.u32 %r2, 0;\n"
                     "LOOP:\nsetp.eq.u32 %p0, %r1, 1;\n@%p0 bra DONE;\nadd.u32 %r2, %r2, 1;\nand.b32 %r3, %r1, 1;\n"
                     "setp.eq.u32 %p1, %r3, 0;\n@%p1 bra EVEN;\nmad.lo.u32 %r1, %r1, 3, 1;\nbra.uni LOOP;\n"
                     "EVEN:\nshr.u32 %r1, %r1, 1;\nbra.uni LOOP;\n"
                     "DONE:\nshfl.sync.bfly.b32 %r4|%p2, %r2, 1, 31, -1;\nst.global.v2.u32 [%rd1], {%r2, %r4};",
                     in, out),
                 0);
    for (uint32_t i = 0; i < THREADS; i++)
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t n = (i ^ k) + 1, steps = 0;
            for (; n != 1; steps++)
                n = n % 2 ? 3 * n + 1 : n / 2;
            cr_assert_eq(out[i * WORDS + k], steps, "thread %u", i);
        }
}

/* The same label stands before what leads to it: lanes come to the shuffle in groups, and it waits for all. */
Test(gpu_ptx, what_all_do_waits_for_all) {
    uint32_t in[N] = {0}, out[N];
    cr_assert_eq(run("and.b32 %r1, %r0, 3;\nsetp.ne.u32 %p0, %r1, 0;\nbra.uni CHOOSE;\n"
                     "MEET:\nshfl.sync.idx.b32 %r3, %r2, 5, 31, -1;\nst.global.u32 [%rd1], %r3;\nbra.uni END;\n"
                     "CHOOSE:\nmov.u32 %r2, %r0;\n@%p0 bra MEET;\nadd.u32 %r2, %r2, 100;\nbra.uni MEET;\nEND:",
                     in, out),
                 0);
    for (uint32_t i = 0; i < THREADS; i++)
        cr_assert_eq(out[i * WORDS], i / 32 * 32 + 5);
}

Test(gpu_ptx, shuffles) {
    uint32_t in[N] = {0}, out[N];
    cr_assert_eq(run("shfl.sync.up.b32 %r1, %r0, 3, 0, -1;\nshfl.sync.down.b32 %r2|%p0, %r0, 2, 31, -1;\n"
                     "shfl.sync.idx.b32 %r3, %r0, 11, 6175, -1;\nselp.u32 %r4, 1, 0, %p0;\n" /* segments of 8 */
                     "st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};",
                     in, out),
                 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        uint32_t lane = i % 32;
        cr_assert_eq(out[i * WORDS], lane >= 3 ? i - 3 : i);
        cr_assert_eq(out[i * WORDS + 1], lane < 30 ? i + 2 : i);
        cr_assert_eq(out[i * WORDS + 2], i / 8 * 8 + 3);
        cr_assert_eq(out[i * WORDS + 3], lane < 30);
    }
}

/* Each line: an instruction of %r1, %r2, %r3 = the words of in into %r4, and its result. */
static const struct {
    const char *text;
    uint32_t a, b, c, result;
} known[] = {
    {"prmt.b32 %r4, %r1, %r2, %r3;", 0x33221100, 0x77665544, 0x7410, 0x77441100},
    {"prmt.b32 %r4, %r1, %r2, %r3;", 0x33228100, 0x77665594, 0x8c91, 0x00ffff81},
    {"prmt.b32.f4e %r4, %r1, %r2, %r3;", 0x33221100, 0x77665544, 1, 0x44332211},
    {"prmt.b32.b4e %r4, %r1, %r2, %r3;", 0x33221100, 0x77665544, 1, 0x66770011},
    {"prmt.b32.rc8 %r4, %r1, %r2, %r3;", 0x33221100, 0, 2, 0x22222222},
    {"prmt.b32.ecl %r4, %r1, %r2, %r3;", 0x33221100, 0, 1, 0x33221111},
    {"prmt.b32.ecr %r4, %r1, %r2, %r3;", 0x33221100, 0, 1, 0x11111100},
    {"prmt.b32.rc16 %r4, %r1, %r2, %r3;", 0x33221100, 0, 1, 0x33223322},
    {"shl.b32 %r4, %r1, %r2;", 1, 31, 0, 0x80000000},
    {"shl.b32 %r4, %r1, %r2;", 1, 32, 0, 0},
    {"shr.u32 %r4, %r1, %r2;", 0x80000000, 40, 0, 0},
    {"shr.s32 %r4, %r1, %r2;", 0x80000000, 40, 0, 0xffffffff},
    {"shf.l.wrap.b32 %r4, %r1, %r2, %r3;", 0x80000001, 0x12345678, 36, 0x23456788},
    {"shf.r.clamp.b32 %r4, %r1, %r2, %r3;", 0x80000001, 0x12345678, 99, 0x12345678},
    {"lop3.b32 %r4, %r1, %r2, %r3, 0xe2;" /* b ? a : c */, 0x0f0f0f0f, 0x33333333, 0x55555555, 0x47474747},
    {"bfe.u32 %r4, %r1, %r2, %r3;", 0xabcd1234, 8, 12, 0xd12},
    {"bfe.s32 %r4, %r1, %r2, %r3;", 0xabcd1234, 28, 8, 0xfffffffa},
    {"bfi.b32 %r4, %r1, %r2, 8, 8;", 0x12, 0xffffffff, 0, 0xffff12ff},
    {"mul.hi.s32 %r4, %r1, %r2;", 0xffffffff, 0x10, 0, 0xffffffff},
    {"mul.hi.u32 %r4, %r1, %r2;", 0xffffffff, 0x10, 0, 0xf},
    {"div.s32 %r4, %r1, %r2;", (uint32_t)-7, 2, 0, (uint32_t)-3},
    {"rem.s32 %r4, %r1, %r2;", (uint32_t)-7, 2, 0, (uint32_t)-1},
    {"max.s32 %r4, %r1, %r2;", (uint32_t)-7, 2, 0, 2},
    {"max.u32 %r4, %r1, %r2;", (uint32_t)-7, 2, 0, (uint32_t)-7},
    {"cvt.u16.u32 %h1, %r1;\ncvt.s16.s8 %h2, %h1;\ncvt.s32.s16 %r4, %h2;", 0x12345680, 0, 0, 0xffffff80},
    {"cvt.s64.s32 %rd3, %r1;\nshr.u64 %rd3, %rd3, 32;\ncvt.u32.u64 %r4, %rd3;", 0x80000000, 0, 0, 0xffffffff},
    {"mov.b32 {%h1, %h2}, %r1;\nmov.b32 %r4, {%h2, %h1};", 0x12345678, 0, 0, 0x56781234},
    {"setp.lt.s32 %p1, %r1, %r2;\nsetp.gt.and.u32 %p2, %r1, %r2, %p1;\nselp.b32 %r4, 7, 9, %p2;", (uint32_t)-1, 1, 0,
     7},
    /* Ties go to the even neighbour; 65520 is the first that f16 does not have. */
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x3f801000, 0, 0, 0x3c00},
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x3f803000, 0, 0, 0x3c02},
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x477fefff, 0, 0, 0x7bff},
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0xc77ff000, 0, 0, 0xfc00},
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x33000000, 0, 0, 0}, /* 2^-25 */
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x33000001, 0, 0, 1},
    {"mov.b32 %f1, %r1;\ncvt.rn.f16.f32 %h1, %f1;\ncvt.u32.u16 %r4, %h1;", 0x387fe000, 0, 0, 0x400}, /* to 2^-14 */
    {"cvt.u16.u32 %h1, %r1;\ncvt.f32.f16 %f1, %h1;\nmov.b32 %r4, %f1;", 0x8001, 0, 0, 0xb3800000},
    {"mov.b32 %f1, %r1;\nmov.b32 %f2, %r2;\ncvt.rn.bf16x2.f32 %r4, %f1, %f2;", 0x3f808000, 0x3f818000, 0, 0x3f803f82},
    {"mov.b32 %f1, %r1;\nmov.b32 %f2, %r2;\ncvt.rn.f16x2.f32 %r4, %f1, %f2;", 0x3f800000, 0xc0000000, 0, 0x3c00c000},
    /* 129/128 squared is 1 + 129/8192, above a tie of bf16; 1.5 * 131/128 is a tie, and 2^-100 is more than none. */
    {"fma.rn.bf16x2 %r4, %r1, %r2, %r3;", 0x3f813fc0, 0x3f813f83, 0x00000000, 0x3f823fc4},
    {"fma.rn.bf16x2 %r4, %r1, %r2, %r3;", 0x3fc03fc0, 0x3f813f81, 0x0d808d80, 0x3fc23fc1},
    {"mul.rn.f16x2 %r4, %r1, %r2;", 0x00013c01, 0xb8003c01, 0, 0x80003c02}, /* -2^-25: a tie, to 0 */
    {"fma.rn.bf16x2 %r4, %r1, %r2, %r3;", 0x3e803f80, 0x3e803f80, 0xbd80bf80, 0x00000000},
    {"mov.b32 %f1, %r1;\nmov.b32 %f2, %r2;\nmax.f32 %f3, %f1, %f2;\nmov.b32 %r4, %f3;", 0x7fc00000, 0xc0000000, 0,
     0xc0000000},
    {"mov.b32 %f1, %r1;\nex2.approx.ftz.f32 %f2, %f1;\nmov.b32 %r4, %f2;", 0xc3000000, 0, 0, 0}, /* 2^-128 */
    {"mov.b32 %f1, %r1;\ncvt.rzi.s32.f32 %r4, %f1;", 0xc1c40000, 0, 0, (uint32_t)-24},
};

Test(gpu_ptx, instructions_with_known_results) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t in[N] = {0}, out[N];
        char body[512];
        for (int t = 0; t < THREADS; t++) {
            in[t * WORDS] = known[i].a;
            in[t * WORDS + 1] = known[i].b;
            in[t * WORDS + 2] = known[i].c;
        }
        /* Once by all lanes and once by some, which is another way through the code. */
        snprintf(body, sizeof body,
                 "ld.global.v4.u32 {%%r1, %%r2, %%r3, %%r5}, [%%rd0];\n%s\nst.global.u32 [%%rd1], %%r4;\n"
                 "and.b32 %%r6, %%r0, 5;\nsetp.ne.u32 %%p0, %%r6, 4;\n@%%p0 bra END;\nmov.u32 %%r4, 0;\n%s\n"
                 "st.global.u32 [%%rd1+4], %%r4;\nEND:",
                 known[i].text, known[i].text);
        cr_assert_eq(run(body, in, out), 0, "%s", known[i].text);
        for (uint32_t t = 0; t < THREADS; t++) {
            cr_assert_eq(out[t * WORDS], known[i].result, "%s: 0x%08x, not 0x%08x", known[i].text, out[t * WORDS],
                         known[i].result);
            if ((t & 5) == 4)
                cr_assert_eq(out[t * WORDS + 1], known[i].result, "%s by some lanes", known[i].text);
        }
    }
}

/* Small multiples of 1/8 as f16 or bf16: products and sums of them are exact in f32, in any order. */
static int eighths(uint32_t x) {
    return (int)(x >> 13 & 15) - 8;
}
static uint16_t narrow(int n, bool bf16) {
    float f = (float)n / 8;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return n == 0 ? 0 : (uint16_t)(bf16 ? u >> 16 : (u >> 16 & 0x8000) | (((u & 0x7fffffff) >> 13) - (112 << 10)));
}

/* A (16 x 16) lies in in[0..127] by rows and B (16 x 8) in in[128..191] by columns, two elements a word. Where a lane
 * finds its elements: the manual's formulas for mma.m16n8k16, in PTX. */
static void multiply(bool bf16) {
    uint32_t in[N], out[N];
    char body[2048];
    int a[16][16], b[16][8];
    fill(in);
    for (uint32_t i = 0; i < 16; i++)
        for (uint32_t k = 0; k < 16; k++) {
            a[i][k] = eighths(in[i * 16 + k] * 7919);
            b[k][i % 8] = eighths((k * 8 + i % 8) * 2246822519u + 77);
        }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k += 2) {
            in[(i * 16 + k) / 2] = narrow(a[i][k], bf16) | (uint32_t)narrow(a[i][k + 1], bf16) << 16;
            in[128 + (i % 8 * 16 + k) / 2] = narrow(b[k][i % 8], bf16) | (uint32_t)narrow(b[k + 1][i % 8], bf16) << 16;
        }
    snprintf(
        body, sizeof body,
        "ld.param.u64 %%rd3, [k_param_0];\nand.b32 %%r1, %%r0, 31;\nshr.u32 %%r2, %%r1, 2;\nand.b32 %%r3, %%r1, 3;\n"
        "mad.lo.u32 %%r4, %%r2, 8, %%r3;\nmul.wide.u32 %%rd4, %%r4, 4;\nadd.s64 %%rd3, %%rd3, %%rd4;\n"
        "ld.global.u32 %%r10, [%%rd3];\nld.global.u32 %%r11, [%%rd3+256];\nld.global.u32 %%r12, [%%rd3+16];\n"
        "ld.global.u32 %%r13, [%%rd3+272];\nld.global.u32 %%r14, [%%rd3+512];\nld.global.u32 %%r15, [%%rd3+528];\n"
        "mov.f32 %%f0, 0f3F800000;\n"
        "mma.sync.aligned.m16n8k16.row.col.f32.%s.%s.f32 {%%f1,%%f2,%%f3,%%f4}, {%%r10,%%r11,%%r12,%%r13}, "
        "{%%r14,%%r15}, {%%f0,%%f0,%%f0,%%f0};\nst.global.v2.f32 [%%rd1], {%%f1,%%f2};\n"
        "st.global.v2.f32 [%%rd1+8], {%%f3,%%f4};",
        bf16 ? "bf16" : "f16", bf16 ? "bf16" : "f16");
    cr_assert_eq(run(body, in, out), 0);
    for (int lane = 0; lane < THREADS; lane++)
        for (int i = 0; i < 4; i++) {
            int row = lane % 32 / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = 1;
            float is;
            for (int k = 0; k < 16; k++)
                sum += a[row][k] / 8.0 * b[k][column] / 8.0;
            memcpy(&is, &out[lane * WORDS + i], sizeof is);
            cr_assert_eq((double)is, sum, "row %d, column %d: %g, not %g", row, column, (double)is, sum);
        }
}
Test(gpu_ptx, products_of_matrices) {
    multiply(true);
    multiply(false);
}

/* Row r of matrix m is at 128 m + 16 r of shared memory, and holds 8 m + r and the element's number. */
Test(gpu_ptx, matrices_out_of_shared_memory) {
    for (int transposed = 0; transposed < 2; transposed++) {
        uint32_t in[N], out[N];
        char body[1024];
        for (uint32_t t = 0; t < THREADS; t++)
            for (uint32_t k = 0; k < WORDS; k++)
                in[t * WORDS + k] = t << 8 | (2 * k) | (t << 8 | (2 * k + 1)) << 16;
        snprintf(body, sizeof body,
                 "ld.global.v4.u32 {%%r1, %%r2, %%r3, %%r4}, [%%rd0];\nmov.u32 %%r5, room;\nmad.lo.u32 %%r6, %%r0, 16, "
                 "%%r5;\n"
                 "st.shared.v4.u32 [%%r6], {%%r1, %%r2, %%r3, %%r4};\nbar.sync 0;\n"
                 "ldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {%%r1, %%r2, %%r3, %%r4}, [%%r6];\n"
                 "st.global.v4.u32 [%%rd1], {%%r1, %%r2, %%r3, %%r4};",
                 transposed ? ".trans" : "");
        cr_assert_eq(run(body, in, out), 0);
        for (uint32_t t = 0; t < THREADS; t++)
            for (uint32_t m = 0; m < 4; m++)
                for (uint32_t k = 0; k < 2; k++) {
                    uint32_t row = t % 32 / 4, column = t % 4 * 2 + k, first = t / 32 * 32 + m * 8;
                    uint32_t want = transposed ? (first + column) << 8 | row : (first + row) << 8 | column;
                    cr_assert_eq(out[t * WORDS + m] >> 16 * k & 0xffff, want, "thread %u, matrix %u", t, m);
                }
    }
}

Test(gpu_ptx, copies_come_with_their_group) {
    uint32_t in[N], out[N];
    fill(in);
    cr_assert_eq(
        run("mov.u32 %r5, room;\nmad.lo.u32 %r6, %r0, 16, %r5;\ncp.async.cg.shared.global [%r6], [%rd0], 16;\n"
            "cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 1;\nbar.sync 0;\n"
            "xor.b32 %r7, %r0, 63;\nmad.lo.u32 %r6, %r7, 16, %r5;\nld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r6];\n"
            "st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};",
            in, out),
        0);
    for (int t = 0; t < THREADS; t++)
        cr_assert_arr_eq(&out[t * WORDS], &in[(t ^ 63) * WORDS], WORDS * 4);
}

/* What is wrong with each program, and what waiting for it answers (cuda.h's numbers). */
Test(gpu_ptx, faults_are_found) {
    static const struct {
        const char *what, *text;
        cu_result r;
    } faults[] = {
        {"behind an allocation", "st.global.u32 [%rd1+16], %r0;", 700},
        {"before an allocation", "ld.global.u32 %r1, [%rd0+-4];", 700},
        {"a shared address", "mov.u32 %r1, room;\nst.shared.u32 [%r1+1024], %r0;", 700},
        {"a parameter", "ld.param.u64 %rd4, [k_param_0+16];", 700},
        {"not aligned to its vector", "ld.global.v2.u32 {%r1, %r2}, [%rd0+4];", 716},
        {"not aligned to its word", "st.global.u32 [%rd1+2], %r0;", 716},
        {"no barrier between warps",
         "mov.u32 %r5, room;\nmad.lo.u32 %r6, %r0, 4, %r5;\nst.shared.u32 [%r6], %r0;\n"
         "xor.b32 %r7, %r0, 32;\nmad.lo.u32 %r6, %r7, 4, %r5;\nld.shared.u32 %r1, [%r6];",
         719},
        {"no barrier between lanes",
         "mov.u32 %r5, room;\nmad.lo.u32 %r6, %r0, 4, %r5;\nst.shared.u32 [%r6], %r0;\n"
         "xor.b32 %r7, %r0, 1;\nmad.lo.u32 %r6, %r7, 4, %r5;\nld.shared.u32 %r1, [%r6];",
         719},
        {"two write", "mov.u32 %r5, room;\nst.shared.u32 [%r5], %r0;", 719},
        {"written after it is read",
         "mov.u32 %r5, room;\nld.shared.u32 %r1, [%r5];\nsetp.eq.u32 %p0, %r0, 7;\n"
         "@%p0 st.shared.u32 [%r5], %r0;",
         719},
        {"a copy not waited for",
         "mov.u32 %r5, room;\nmad.lo.u32 %r6, %r0, 16, %r5;\n"
         "cp.async.cg.shared.global [%r6], [%rd0], 16;\ncp.async.commit_group;\n"
         "cp.async.wait_group 1;\nld.shared.u32 %r1, [%r6];",
         719},
        {"a copy not committed",
         "mov.u32 %r5, room;\nmad.lo.u32 %r6, %r0, 16, %r5;\n"
         "cp.async.cg.shared.global [%r6], [%rd0], 16;\ncp.async.wait_group 0;\n"
         "ld.shared.u32 %r1, [%r6];",
         719},
        {"read-only memory written", "ld.global.nc.u32 %r1, [%rd0];\nst.global.u32 [%rd0], %r1;", 719},
        {"a barrier for some", "setp.lt.u32 %p0, %r0, 40;\n@%p0 bra END;\nbar.sync 0;\nEND:", 719},
        {"a barrier for one warp", "setp.lt.u32 %p0, %r0, 32;\n@%p0 bra END;\nbar.sync 0;\nEND:", 719},
        {"a shuffle for some",
         "setp.lt.u32 %p0, %r0, 40;\n@%p0 bra END;\nshfl.sync.idx.b32 %r1, %r0, 0, 31, -1;\nEND:", 719},
        {"two shuffles",
         "and.b32 %r1, %r0, 1;\nsetp.eq.u32 %p0, %r1, 0;\n@%p0 bra OTHER;\n"
         "shfl.sync.idx.b32 %r1, %r0, 0, 31, -1;\nbra.uni END;\n"
         "OTHER:\nshfl.sync.idx.b32 %r1, %r0, 1, 31, -1;\nEND:",
         719},
    };
    gpu_rig_needs_emulated_card();
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        uint32_t in[N] = {0}, out[N];
        /* One allocation's thread 63 is at its end, thread 0 at its begin. */
        cr_expect_eq(run(faults[i].text, in, out), faults[i].r, "%s", faults[i].what);
    }
}

Test(gpu_ptx, what_is_not_known_is_refused) {
    static const char *const texts[] = {
        "add.sat.s32 %r1, %r1, %r1;",                         /* a modifier */
        "add.s32 %r1, %rd1, %r1;",                            /* registers of the wrong width */
        "add.s32 %r1, %r1;",                                  /* too few */
        "add.s32 7, %r1, %r1;",                               /* nowhere to go */
        "mov.u32 %r1, %clock;",                               /* a register that is none */
        "bra NOWHERE;",                                       /* no such label */
        "ld.global.v4.u64 {%rd1, %rd1, %rd1, %rd1}, [%rd0];", /* more than 16 bytes */
        ".local .b8 x[];",                                    /* no size */
    };
    cu_module m;
    gpu_rig_needs_emulated_card();
    g = gpu_rig_open();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_expect_eq(load(texts[i], &m), 218, "%s", texts[i]);
    gpu_rig_close(g);
}
