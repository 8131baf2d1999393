/* RMSNorm, RoPE with the KV write, and what puts the planes of several cards together, on a card: against the CPU
 * backend's kernels and float64. */
#include "core/cpu/cpu.h"
#include "core/model/e4m3.h"
#include "gpu/ops.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float rnd(uint32_t *seed) {
    return (float)(toy_rnd(seed) % 20001) / 10000 - 1;
}

static float *floats(size_t n, uint32_t seed, float scale) {
    float *x = malloc((n ? n : 1) * sizeof *x);
    cr_assert_not_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rnd(&seed);
    return x;
}

static cu_ptr put_pass(struct gpu *g, int n, const struct gpu_row *rows, cu_ptr cs) {
    struct gpu_pass pass = {.n_rows = n, .rows = GPU_AT(const struct gpu_row, rows), .cs = GPU_AT(const float, cs)};
    return gpu_rig_put(g, &pass, sizeof pass);
}

/* ---- rmsnorm ---- */

enum { GUARD = 0x5a5a };

/* Rows 0..n of a launch made for `rows`; x [n][cols], which goes to the card in slices; out [rows][ld] of two planes.
 */
static void run_norm(struct gpu *g, int n, int rows, const float *x, int slice, const float *w, int cols, float eps,
                     struct planes *out) {
    size_t plane = (size_t)rows * (size_t)out->ld;
    for (size_t i = 0; i < plane; i++)
        out->hi[i] = out->lo[i] = GUARD;
    size_t n_slices = (size_t)((cols + slice - 1) / slice), room = n_slices * (size_t)rows * (size_t)slice;
    float *sliced = malloc(room * sizeof *sliced);
    cr_assert_not_null(sliced);
    for (size_t i = 0; i < room; i++)
        sliced[i] = NAN; /* behind the last row and column */
    for (int r = 0; r < n; r++)
        for (int i = 0; i < cols; i++)
            sliced[((size_t)(i / slice) * (size_t)rows + (size_t)r) * (size_t)slice + (size_t)(i % slice)] =
                x[(size_t)r * (size_t)cols + (size_t)i];
    cu_ptr dx = gpu_rig_put(g, sliced, room * sizeof *sliced), dw = gpu_rig_put(g, w, sizeof *w * (size_t)cols),
           hi = gpu_rig_put(g, out->hi, plane * 2), lo = gpu_rig_put(g, out->lo, plane * 2),
           pass = put_pass(g, n, NULL, 0);
    free(sliced);
    const struct planes to = {GPU_AT(uint16_t, hi), GPU_AT(uint16_t, lo), out->ld, out->rounded};
    op_rmsnorm(g, GPU_AT(const struct gpu_pass, pass), rows, GPU_AT(const float, dx), slice, GPU_AT(const float, dw),
               cols, eps, to);
    gpu_rig_wait(g);
    gpu_rig_read(g, out->hi, hi, plane * 2);
    gpu_rig_read(g, out->lo, lo, plane * 2);
    const cu_ptr all[] = {dx, dw, hi, lo, pass};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        gpu_free(g, all[i]);
}

/* x / rms(x) * w in f64. A sum of squares has no cancellation: with a chain of c additions in each of 512 threads, 5
 * folds and 16 more it is within c + 21 roundings, of which the root takes half; then come a quotient, a root, a
 * quotient and two products, and two bf16 terms keep 2^-16. */
static void check_norm(struct gpu *g, int cols, uint32_t seed) {
    enum { ROWS = 5, BUCKET = 8 };
    int ld = (cols + 63) / 64 * 64;
    size_t plane = (size_t)BUCKET * (size_t)ld;
    const float eps = 1e-5f;
    float *x = floats((size_t)ROWS * (size_t)cols, seed, 3), *w = floats((size_t)cols, seed + 1, 2);
    struct planes out = {calloc(plane, 2), calloc(plane, 2), ld, 0}, one = {calloc(plane, 2), calloc(plane, 2), ld, 0};
    memset(x + 3 * cols, 0, sizeof *x * (size_t)cols); /* nothing but eps */
    run_norm(g, ROWS, BUCKET, x, cols, w, cols, eps, &out);
    double bound = ((cols / 512 + 4 + 21) / 2.0 + 5) * 0x1p-24 + 0x1.2p-16;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < cols; i++)
            sum += (double)x[r * cols + i] * x[r * cols + i];
        double scale = 1 / sqrt(sum / cols + eps);
        for (int i = 0; i < ld; i++) {
            double want = i < cols ? x[r * cols + i] * scale * w[i] : 0;
            uint16_t hi = out.hi[r * ld + i], lo = out.lo[r * ld + i];
            double got = (double)bf16_to_f32(hi) + (double)bf16_to_f32(lo);
            cr_assert(fabs(got - want) <= bound * fabs(want), "%d columns, row %d, %d: %.9g, not %.9g", cols, r, i, got,
                      want);
            cr_assert(i < cols || (hi == 0 && lo == 0));
        }
        /* The same bits alone, and in slices. */
        run_norm(g, 1, 1, x + r * cols, r == 0 || cols <= 32 ? cols : (cols / r / 16 + 1) * 16, w, cols, eps, &one);
        cr_assert_arr_eq(one.hi, out.hi + r * ld, (size_t)ld * 2);
        cr_assert_arr_eq(one.lo, out.lo + r * ld, (size_t)ld * 2);
        one.rounded = 1;
        run_norm(g, 1, 1, x + r * cols, cols, w, cols, eps, &one);
        cr_assert_arr_eq(one.hi, out.hi + r * ld, (size_t)ld * 2);
        for (int i = 0; i < ld; i++)
            cr_assert_eq(one.lo[i], GUARD, "lo of rounded planes was written");
        one.rounded = 0;
    }
    for (size_t i = (size_t)ROWS * (size_t)ld; i < plane; i++) /* rows of the launch that the pass has not */
        cr_assert(out.hi[i] == GUARD && out.lo[i] == GUARD);
    free(x), free(w), free(out.hi), free(out.lo), free(one.hi), free(one.lo);
}

Test(gpu_norm, rows_over_their_root_mean_square) {
    static const int cols[] = {2, 30, 64, 96, 251, 2048, 4096, 5120, 8194, 12288};
    struct gpu *g = gpu_rig_open();
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
        check_norm(g, cols[i], 1 + (uint32_t)i);
    gpu_rig_close(g);
}

/* ---- joining ---- */

static void check_join(struct gpu *g, int n, int each, int cols, uint32_t seed) {
    enum { ROWS = 3, BUCKET = 4 };
    int ld = (cols + 63) / 64 * 64;
    size_t block = op_join_block(BUCKET, each) / 2, plane = block / 2, row = (size_t)op_join_ld(each);
    size_t room = (size_t)BUCKET * (size_t)ld;
    uint16_t *blocks = malloc((size_t)n * block * 2), *got[2];
    cr_assert_not_null(blocks);
    for (size_t i = 0; i < (size_t)n * block; i++)
        blocks[i] = (uint16_t)toy_rnd(&seed);
    cu_ptr from = gpu_rig_put(g, blocks, (size_t)n * block * 2), pass = put_pass(g, ROWS, NULL, 0), to[2];
    for (int k = 0; k < 2; k++) {
        got[k] = malloc(room * 2);
        cr_assert_not_null(got[k]);
        for (size_t i = 0; i < room; i++)
            got[k][i] = GUARD;
        to[k] = gpu_rig_put(g, got[k], room * 2);
    }
    op_join(g, GPU_AT(const struct gpu_pass, pass), BUCKET, GPU_AT(const uint16_t, from), n, each,
            (struct planes){GPU_AT(uint16_t, to[0]), GPU_AT(uint16_t, to[1]), ld, 0});
    gpu_rig_wait(g);
    for (int k = 0; k < 2; k++) {
        gpu_rig_read(g, got[k], to[k], room * 2);
        for (int r = 0; r < BUCKET; r++)
            for (int c = 0; c < ld; c++) {
                size_t at = (size_t)(c / each) * block + (size_t)k * plane + (size_t)r * row + (size_t)(c % each);
                uint16_t want = r >= ROWS ? GUARD : c < n * each ? blocks[at] : 0;
                cr_assert_eq(got[k][r * ld + c], want, "%d x %d columns: row %d, column %d", n, each, r, c);
            }
        free(got[k]);
        gpu_free(g, to[k]);
    }
    free(blocks);
    gpu_free(g, from);
    gpu_free(g, pass);
}

Test(gpu_norm, planes_of_several_cards_become_one) {
    struct gpu *g = gpu_rig_open();
    check_join(g, 2, 32, 64, 1);
    check_join(g, 3, 18, 54, 2); /* heads of 18 */
    check_join(g, 2, 48, 80, 3); /* the last slice is not full */
    check_join(g, 4, 640, 2560, 4);
    gpu_rig_close(g);
}

/* ---- RoPE and the KV write ---- */

struct heads {
    int n_heads, n_kv_heads, head_dim;
    bool norm;
};

enum { N_ROWS = 5, N_SLOTS = 11, UNTOUCHED = 0x7e55 };

struct turned {
    float *qkv;
    uint16_t *k, *v;
    uint32_t *factors;  /* NULL: f16; else k and v are codes */
    size_t n_qkv, n_kv; /* elements; of codes, pairs */
};

/* q, k, v at odd places of wider rows. */
static struct attention layout(const struct heads *h) {
    return (struct attention){.n_heads = h->n_heads,
                              .n_kv_heads = h->n_kv_heads,
                              .head_dim = h->head_dim,
                              .q_at = 3,
                              .k_at = 3 + h->n_heads * h->head_dim + 2,
                              .v_at = 3 + (h->n_heads + h->n_kv_heads) * h->head_dim + 4,
                              .ld = (h->n_heads + 2 * h->n_kv_heads) * h->head_dim + 9,
                              .eps = 1e-6f,
                              .n_slots = N_SLOTS};
}

static void run_rope(struct gpu *g, const struct heads *h, const float *qkv, const float *norms, const float *cs,
                     const struct gpu_row *rows, bool fp8, struct turned *out) {
    struct attention a = layout(h);
    size_t hd = (size_t)h->head_dim;
    out->n_qkv = (size_t)N_ROWS * (size_t)a.ld;
    size_t slots_of_heads = (size_t)h->n_kv_heads * N_SLOTS;
    out->n_kv = fp8 ? slots_of_heads * op_kv_row(h->head_dim) / 2 : slots_of_heads * hd;
    out->factors = fp8 ? calloc(slots_of_heads, sizeof *out->factors) : NULL;
    out->qkv = malloc(out->n_qkv * sizeof *out->qkv);
    out->k = malloc(out->n_kv * 2);
    out->v = malloc(out->n_kv * 2);
    for (size_t i = 0; i < out->n_kv; i++)
        out->k[i] = out->v[i] = UNTOUCHED;
    cu_ptr d_qkv = gpu_rig_put(g, qkv, out->n_qkv * sizeof *qkv), k = gpu_rig_put(g, out->k, out->n_kv * 2),
           v = gpu_rig_put(g, out->v, out->n_kv * 2), d_norms = gpu_rig_put(g, norms, 2 * hd * sizeof *norms),
           d_cs = gpu_rig_put(g, cs, N_ROWS * hd * sizeof *cs), d_rows = gpu_rig_put(g, rows, N_ROWS * sizeof *rows),
           pass = put_pass(g, N_ROWS, GPU_AT(const struct gpu_row, d_rows), d_cs);
    a.qkv = GPU_AT(float, d_qkv);
    a.q_norm = h->norm ? GPU_AT(const float, d_norms) : NULL;
    a.k_norm = h->norm ? GPU_AT(const float, d_norms) + hd : NULL;
    cu_ptr factors = fp8 ? gpu_rig_put(g, out->factors, slots_of_heads * sizeof *out->factors) : 0;
    a.k = GPU_AT(void, k);
    a.v = GPU_AT(void, v);
    a.factors = GPU_AT(uint32_t, factors);
    op_rope_kv(g, GPU_AT(const struct gpu_pass, pass), 8, &a);
    gpu_rig_wait(g);
    gpu_rig_read(g, out->qkv, d_qkv, out->n_qkv * sizeof *qkv);
    gpu_rig_read(g, out->k, k, out->n_kv * 2);
    gpu_rig_read(g, out->v, v, out->n_kv * 2);
    if (fp8)
        gpu_rig_read(g, out->factors, factors, slots_of_heads * sizeof *out->factors);
    const cu_ptr all[] = {d_qkv, k, v, factors, d_norms, d_cs, d_rows, pass};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        gpu_free(g, all[i]);
}

static void turned_free(struct turned *t) {
    free(t->qkv), free(t->k), free(t->v), free(t->factors);
}

static const uint32_t positions[N_ROWS] = {0, 1, 77, 4095, 100000};
static const uint32_t slots[N_ROWS] = {4, 0, 10, 7, 3};

static void make_rows(struct gpu_row *rows, float *cs, int head_dim) {
    float inv_freq[GPU_HEAD_DIM_MAX / 2];
    for (int j = 0; j < head_dim / 2; j++)
        inv_freq[j] = powf(10000, -2.0f * (float)j / (float)head_dim);
    cpu_rope_table(cs, positions, N_ROWS, inv_freq, head_dim);
    for (int i = 0; i < N_ROWS; i++)
        rows[i] = (struct gpu_row){.pos = positions[i], .slot = slots[i]};
}

/* As the CPU backend has it, which sums a norm's squares in another order: without norms the same bits, but for the
 * sign that a sum of f16 rounds; with them within the roundings of two sums, and one unit of f16. */
static void check_rope(struct gpu *g, const struct heads *h, uint32_t seed) {
    struct err e = {0};
    struct cpu cpu;
    cr_assert_eq(cpu_init(&cpu, 1, NULL, &e), 0, "%s", e.msg);
    const struct attention a = layout(h);
    int hd = h->head_dim;
    float *qkv = floats((size_t)N_ROWS * (size_t)a.ld, seed, 4), *norms = floats(2 * (size_t)hd, seed + 1, 2);
    float *cs = floats((size_t)N_ROWS * (size_t)hd, 1, 1);
    struct gpu_row rows[N_ROWS];
    struct turned got;
    make_rows(rows, cs, hd);
    run_rope(g, h, qkv, norms, cs, rows, false, &got);

    float *want = malloc(got.n_qkv * sizeof *want);
    memcpy(want, qkv, got.n_qkv * sizeof *want);
    for (int i = 0; i < N_ROWS && h->norm; i++) {
        float *q = want + i * a.ld + a.q_at, *k = want + i * a.ld + a.k_at;
        cpu_rmsnorm(&cpu, q, hd, q, hd, norms, h->n_heads, hd, a.eps);
        cpu_rmsnorm(&cpu, k, hd, k, hd, norms + hd, h->n_kv_heads, hd, a.eps);
    }
    cpu_rope(&cpu, want + a.q_at, a.ld, cs, N_ROWS, h->n_heads, hd);
    cpu_rope(&cpu, want + a.k_at, a.ld, cs, N_ROWS, h->n_kv_heads, hd);
    const double off = h->norm ? 40 * 0x1p-24 * 2 * 2 * 16 : 0; /* of values up to 2 * sqrt(head_dim) */
    for (int i = 0; i < N_ROWS; i++)
        for (int j = 0; j < a.ld; j++) {
            float w = want[i * a.ld + j], o = got.qkv[i * a.ld + j];
            if (j < a.k_at - 2)
                cr_assert(fabs((double)w - o) <= off, "head_dim %d: q %d of row %d: %g, not %g", hd, j, i, o, w);
            else
                cr_assert_eq(o, qkv[i * a.ld + j], "what is not q stays as it is");
        }
    for (uint32_t s = 0; s < N_SLOTS; s++)
        for (int i = 0, at; i < h->n_kv_heads * hd; i++) {
            int row = 0;
            while (row < N_ROWS && slots[row] != s)
                row++;
            at = (i / hd * N_SLOTS + (int)s) * hd + i % hd;
            if (row == N_ROWS) {
                cr_assert(got.k[at] == UNTOUCHED && got.v[at] == UNTOUCHED, "slot %u is nobody's", s);
                continue;
            }
            float k = want[row * a.ld + a.k_at + i], v = qkv[row * a.ld + a.v_at + i];
            cr_assert_eq(got.v[at], f32_to_f16(v));
            if (h->norm)
                cr_assert(fabs((double)f16_to_f32(got.k[at]) - k) <= off + fabs((double)k) * 0x1p-11);
            else
                cr_assert_eq(got.k[at], f32_to_f16(k));
        }
    cpu_free(&cpu);
    turned_free(&got);
    free(qkv), free(norms), free(cs), free(want);
}

Test(gpu_rope, turns_heads_and_fills_slots) {
    static const struct heads cases[] = {
        {32, 8, 128, false}, {4, 4, 64, true},  {7, 1, 20, false}, {4, 2, 8, true},    {3, 3, 100, true},
        {16, 8, 128, true},  {2, 1, 256, true}, {5, 5, 2, false},  {2, 2, 192, false},
    };
    struct gpu *g = gpu_rig_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_rope(g, &cases[i], 1 + (uint32_t)i);
    gpu_rig_close(g);
}

/* Zero times infinity would reach rows that do not see it. */
Test(gpu_rope, a_value_that_f16_cannot_hold_spoils_its_own_key) {
    const struct heads h = {2, 2, 32, false};
    static const float bad[N_ROWS] = {65520, -1e30f, NAN, INFINITY, 65519}; /* the last rounds down, and is fine */
    struct gpu *g = gpu_rig_open();
    const struct attention a = layout(&h);
    float *qkv = floats((size_t)N_ROWS * (size_t)a.ld, 1, 4), cs[N_ROWS * 32], norms[64] = {0};
    struct gpu_row rows[N_ROWS];
    struct turned got;
    make_rows(rows, cs, h.head_dim);
    for (int i = 0; i < N_ROWS; i++)
        qkv[i * a.ld + a.v_at + h.head_dim + 5 * i] = bad[i]; /* of the second kv head */
    run_rope(g, &h, qkv, norms, cs, rows, false, &got);
    for (int i = 0; i < N_ROWS; i++)
        for (int head = 0; head < 2; head++)
            for (int j = 0; j < h.head_dim; j++) {
                int at = (head * N_SLOTS + (int)slots[i]) * h.head_dim + j;
                float v = qkv[i * a.ld + a.v_at + head * h.head_dim + j];
                bool spoilt = head == 1 && i < N_ROWS - 1;
                cr_assert_eq(got.v[at], spoilt ? 0 : f32_to_f16(v));
                cr_assert_eq(isnan(f16_to_f32(got.k[at])), spoilt);
            }
    turned_free(&got);
    free(qkv);
    gpu_rig_close(g);
}

/* ---- fp8 ---- */

/* One head as it should lie in its slot. */
static void check_codes(const struct turned *t, int head, uint32_t slot, const float *k, const float *v, int hd) {
    size_t row = op_kv_row(hd), at = (size_t)head * N_SLOTS + slot;
    const uint8_t *codes[2] = {(const uint8_t *)t->k + at * row, (const uint8_t *)t->v + at * row};
    const float *x[2] = {k, v}, scale[2] = {e4m3_scale(k, (size_t)hd), e4m3_scale(v, (size_t)hd)};
    bool spoilt = isnan(scale[0]) || isnan(scale[1]);
    for (int i = 0; i < 2; i++) {
        uint16_t factor = (uint16_t)(t->factors[at] >> 16 * i);
        for (size_t j = 0; j < row; j++) {
            int want = spoilt || j >= (size_t)hd ? 0 : e4m3_from_f32(x[i][j] / scale[i]);
            cr_assert_eq(codes[i][j], want, "head_dim %d, slot %u, %c %zu: %02x, not %02x of %g", hd, slot, "kv"[i], j,
                         codes[i][j], want, want ? (double)x[i][j] : 0);
        }
        if (spoilt)
            cr_assert(i ? factor == 0 : isnan(f16_to_f32(factor)), "0 in v, and NaN in k");
        else
            cr_assert_eq(f16_to_f32(factor), scale[i] * 256);
    }
}

/* Heads of all sizes, with numbers of all sizes; in some what fp8 cannot hold. */
static float *sized_heads(const struct heads *h, const struct attention *a, uint32_t seed) {
    static const float bad[] = {57344, 57345, -65504, 1e30f, NAN, -INFINITY};
    float *qkv = floats((size_t)N_ROWS * (size_t)a->ld, seed, 4);
    for (int i = 0; i < N_ROWS; i++)
        for (int head = 0; head < 2 * h->n_kv_heads; head++) {
            float *x = qkv + i * a->ld + (head < h->n_kv_heads ? a->k_at : a->v_at - h->n_kv_heads * h->head_dim) +
                       head * h->head_dim;
            for (int j = 0; j < h->head_dim; j++)
                x[j] *= ldexpf(1, (int)((seed + (uint32_t)(i * 7 + head * 5)) % 36) - 24 - (j % 4) * 3);
            if ((i + head) % 4 == 1 && seed % 2)
                x[(i * 3) % h->head_dim] = bad[(i + head + (int)seed) % 6];
        }
    return qkv;
}

/* Heads without norms have the bits of the CPU's, and become codes by the rules of e4m3.h. */
static void check_fp8(struct gpu *g, const struct heads *h, uint32_t seed) {
    struct err e = {0};
    struct cpu cpu;
    cr_assert_eq(cpu_init(&cpu, 1, NULL, &e), 0, "%s", e.msg);
    const struct attention a = layout(h);
    int hd = h->head_dim;
    float *qkv = sized_heads(h, &a, seed), *norms = floats(2 * (size_t)hd, 1, 2);
    float *cs = floats((size_t)N_ROWS * (size_t)hd, 1, 1);
    struct gpu_row rows[N_ROWS];
    struct turned got;
    make_rows(rows, cs, hd);
    run_rope(g, h, qkv, norms, cs, rows, true, &got);
    cpu_rope(&cpu, qkv + a.k_at, a.ld, cs, N_ROWS, h->n_kv_heads, hd);
    for (int i = 0; i < N_ROWS; i++)
        for (int head = 0; head < h->n_kv_heads; head++) {
            const float *k = qkv + i * a.ld + a.k_at + head * hd, *v = qkv + i * a.ld + a.v_at + head * hd;
            check_codes(&got, head, slots[i], k, v, hd);
        }
    for (uint32_t s = 0; s < N_SLOTS; s++) {
        bool used = false;
        for (int i = 0; i < N_ROWS; i++)
            used = used || slots[i] == s;
        cr_assert(used || (got.factors[s] == 0 && got.k[s * op_kv_row(hd) / 2] == UNTOUCHED), "slot %u is nobody's", s);
    }
    cpu_free(&cpu);
    turned_free(&got);
    free(qkv), free(norms), free(cs);
}

Test(gpu_rope, fp8_by_the_rules) {
    static const int head_dims[] = {128, 64, 20, 8, 100, 256, 2, 16};
    struct gpu *g = gpu_rig_open();
    for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
        for (uint32_t seed = 0; seed < 6; seed++)
            check_fp8(g, &(struct heads){3, 3, head_dims[i], false}, seed);
    gpu_rig_close(g);
}
