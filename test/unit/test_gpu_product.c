#include "test/unit/product_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gpu *g;
static struct matrix_loader *loader;

static void start(void) {
    struct err e = {0};
    g = gpu_rig_open();
    cr_assert_eq(matrix_loader_create(&loader, g, &e), 0, "%s", e.msg);
}
static void finish(void) {
    if (!g)
        return;
    matrix_loader_free(loader);
    gpu_rig_close(g);
}
TestSuite(gpu_product, .init = start, .fini = finish);

/* Cards of other sizes, so that op_product takes its other forms. */
static const int cards[] = {1, 5, 1000};
enum { N_CARDS = sizeof cards / sizeof *cards };

static void *must(void *p) {
    cr_assert(p);
    return p;
}

static struct gpu_matrix load(struct matrix_part *parts, int n, bool interleave, enum quant quant) {
    struct err e = {0};
    struct gpu_matrix m;
    cr_assert_eq(matrix_load(loader, &m, parts, n, interleave, quant, NULL, NULL, "a test's matrix", &e), 0, "%s",
                 e.msg);
    return m;
}

static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };

/* sum w x, and what errors are relative to: sum |w x|. */
static void dot(const double *w, const float *x, int n, double *sum, double *size) {
    *sum = *size = 0;
    for (int i = 0; i < n; i++) {
        *sum += w[i] * (double)x[i];
        *size += fabs(w[i] * (double)x[i]);
    }
}

/* Relative to sum |w x|: activations in two bf16 terms are off by 2^-18 at most, f16 weights are exact in two terms but
 * for what lo * lo would add (2^-18), f32 weights off by 2^-18 themselves; the rest is f32 sums, whose errors are
 * random. */
static double tolerance(enum dtype t) {
    return t == DT_F32 || t == DT_F16 ? 0x1p-15 : 0x1p-16;
}

struct shape {
    int rows, cols, n, bucket;
};

static void check_store(enum dtype type, struct shape s, enum product_use use, bool with_bias, bool rounded) {
    struct matrix_part part = {.t = prod_tensor(type, s.rows, s.cols, (uint64_t)(s.rows * 131 + s.cols))};
    struct gpu_matrix m = load(&part, 1, false, QUANT_NONE);
    struct prod_x x = prod_x_make(g, s.n, s.cols, rounded, 7);
    float *bias = must(calloc((size_t)m.rows, sizeof *bias));
    float *before = must(malloc((size_t)(s.n * s.rows) * sizeof(float)));
    float *y = must(malloc((size_t)(s.n * s.rows) * sizeof(float)));
    double *w = must(malloc((size_t)s.cols * sizeof *w)), worst = 0;
    uint64_t state = 3;
    for (int i = 0; with_bias && i < s.rows; i++)
        bias[i] = prod_random(&state);
    for (int i = 0; i < s.n * s.rows; i++)
        before[i] = prod_random(&state);
    prod_product(g, &m, &x, s.bucket, with_bias ? bias : NULL, use, s.rows, use == PRODUCT_ADD ? before : NULL, y);
    for (int r = 0; r < s.rows; r++) {
        prod_row(&part.t, r, w);
        for (int i = 0; i < s.n; i++) {
            double sum, size;
            dot(w, x.x + i * s.cols, s.cols, &sum, &size);
            sum += (double)bias[r] + (use == PRODUCT_ADD ? (double)before[i * s.rows + r] : 0);
            size += fabs((double)bias[r]) + 1e-30;
            double off = fabs((double)y[i * s.rows + r] - sum) / (size + (use == PRODUCT_ADD ? 1 : 0));
            cr_assert(off < tolerance(type), "%s %d x %d, %d rows: row %d of W, row %d of x: %g, not %g, off by %g",
                      dtype_info(type)->name, s.rows, s.cols, s.n, r, i, (double)y[i * s.rows + r], sum, off);
            worst = off > worst ? off : worst;
        }
    }
    if (getenv("V"))
        printf("%s %d x %d, %d rows: off by 2^%.1f at most\n", dtype_info(type)->name, s.rows, s.cols, s.n,
               log2(worst));
    matrix_free(g, &m);
    prod_x_free(g, &x);
    free(bias);
    free(before);
    free(y);
    free(w);
    prod_tensor_free(&part.t);
}

static const struct shape shapes[] = {
    {48, 256, 1, 1},   {33, 768, 3, 4},    {16, 512, 8, 8},     {70, 256, 11, 16},
    {96, 256, 17, 32}, {150, 256, 40, 64}, {34, 256, 130, 192},
};

Test(gpu_product, is_near_the_sum_in_f64) {
    for (int i = 0; i < N_TYPES; i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++)
            for (int c = 0; c < N_CARDS; c++) {
                g->n_processors = cards[c];
                check_store(types[i], shapes[j], j % 2 ? PRODUCT_ADD : PRODUCT_STORE, j % 3 != 0, false);
            }
}

/* Of activations that are bf16 (--math fast) the product is as exact: what is lost, 2^-8 of each at most, is lost where
 * they are rounded. */
Test(gpu_product, of_rounded_activations_is_near_the_sum_in_f64) {
    static const struct shape some[] = {{33, 768, 3, 4}, {70, 256, 24, 32}, {150, 512, 40, 64}, {34, 256, 130, 192}};
    for (int i = 0; i < N_TYPES; i++)
        for (size_t j = 0; j < sizeof some / sizeof *some; j++)
            for (int c = 0; c < N_CARDS; c++) {
                g->n_processors = cards[c];
                check_store(types[i], some[j], j % 2 ? PRODUCT_ADD : PRODUCT_STORE, j % 3 != 0, true);
            }
}

/* Gate and up, of which neither rows nor columns fill tiles. */
static void check_gate(enum dtype type, struct shape s, bool rounded) {
    struct matrix_part parts[2] = {{.t = prod_tensor(type, s.rows, s.cols, 5)},
                                   {.t = prod_tensor(type, s.rows, s.cols, 6)}};
    struct gpu_matrix m = load(parts, 2, true, QUANT_NONE);
    struct prod_x x = prod_x_make(g, s.n, s.cols, rounded, 9);
    int ld = (s.rows + 63) / 64 * 64;
    float *bias = must(calloc((size_t)m.rows, sizeof *bias)), *y = must(malloc((size_t)(s.n * ld) * sizeof *y));
    double *w[2] = {must(malloc((size_t)s.cols * sizeof(double))), must(malloc((size_t)s.cols * sizeof(double)))};
    uint64_t state = 3;
    for (int p = 0; p < 2; p++)
        for (int r = 0; r < s.rows; r++)
            bias[matrix_row(&m, &parts[p], r)] = prod_random(&state);
    prod_product(g, &m, &x, s.bucket, bias, PRODUCT_GATE, ld, NULL, y);
    for (int r = 0; r < ld; r++) {
        for (int p = 0; p < 2 && r < s.rows; p++)
            prod_row(&parts[p].t, r, w[p]);
        for (int i = 0; i < s.n; i++) {
            double v[2] = {0, 0}, size[2] = {0, 0};
            for (int p = 0; p < 2 && r < s.rows; p++) {
                dot(w[p], x.x + i * s.cols, s.cols, &v[p], &size[p]);
                v[p] += (double)bias[matrix_row(&m, &parts[p], r)];
            }
            double silu = v[0] / (1 + exp(-v[0])), off = fabs((double)y[i * ld + r] - silu * v[1]);
            /* The slope of silu is under 1.1; then the planes' own rounding. */
            double bound = tolerance(type) * (1.1 * size[0] * fabs(v[1]) + fabs(silu) * size[1]) +
                           (rounded ? 0x1p-8 : 0x1p-16) * fabs(silu * v[1]);
            cr_assert(r < s.rows ? off <= bound : y[i * ld + r] == 0.0f, "%s, %d rows: column %d of row %d: %g, not %g",
                      dtype_info(type)->name, s.n, r, i, (double)y[i * ld + r], silu * v[1]);
        }
    }
    matrix_free(g, &m);
    prod_x_free(g, &x);
    for (int p = 0; p < 2; p++) {
        free(w[p]);
        prod_tensor_free(&parts[p].t);
    }
    free(bias);
    free(y);
}

Test(gpu_product, gates_up_with_gate) {
    static const struct shape gates[] = {
        {40, 256, 1, 1}, {72, 256, 9, 16}, {40, 768, 20, 32}, {33, 256, 40, 64}, {24, 256, 66, 128}};
    for (int i = 0; i < N_TYPES; i++)
        for (size_t j = 0; j < sizeof gates / sizeof *gates; j++)
            for (int c = 0; c < N_CARDS; c++) {
                g->n_processors = cards[c];
                check_gate(types[i], gates[j], false);
                if (gates[j].n == 1 || gates[j].n == 20 || gates[j].n == 66)
                    check_gate(types[i], gates[j], true);
            }
}

/* Runs of several types, as files mix q, k and v: each has its own bias, columns of the result and scratch. */
Test(gpu_product, stacked_parts_find_their_bias_and_columns) {
    enum { COLS = 256, N = 20 };
    struct matrix_part parts[3] = {{.t = prod_tensor(DT_Q4_K, 40, COLS, 1)},
                                   {.t = prod_tensor(DT_Q6_K, 9, COLS, 2)},
                                   {.t = prod_tensor(DT_Q4_K, 17, COLS, 3)}};
    struct gpu_matrix m = load(parts, 3, false, QUANT_NONE);
    struct prod_x x = prod_x_make(g, N, COLS, false, 7);
    float *bias = must(calloc((size_t)m.rows, sizeof *bias)), *y = must(malloc((size_t)(N * m.rows) * sizeof *y));
    double w[COLS], sum, size;
    uint64_t state = 3;
    cr_assert_eq(m.n_runs, 3);
    for (int p = 0; p < 3; p++)
        for (int r = 0; r < (int)parts[p].t.rows; r++)
            bias[matrix_row(&m, &parts[p], r)] = prod_random(&state) + 2;
    for (int c = 0; c < N_CARDS; c++)
        for (x.n = 1; x.n <= N; x.n += N - 1) {
            g->n_processors = cards[c];
            prod_product(g, &m, &x, x.n == 1 ? 1 : 32, bias, PRODUCT_STORE, m.rows, NULL, y);
            for (int p = 0; p < 3; p++)
                for (int r = 0; r < (int)parts[p].t.rows; r++)
                    for (int i = 0; i < x.n; i++) {
                        int at = matrix_row(&m, &parts[p], r);
                        prod_row(&parts[p].t, r, w);
                        dot(w, x.x + i * COLS, COLS, &sum, &size);
                        cr_assert_float_eq((double)y[i * m.rows + at], sum + (double)bias[at],
                                           tolerance(DT_Q4_K) * (size + 3));
                    }
            for (int i = 0; i < x.n; i++)
                for (int r = 0; r < m.rows; r++)
                    cr_assert(bias[r] != 0 || y[i * m.rows + r] == 0.0f, "between parts there are zeros");
        }
    matrix_free(g, &m);
    prod_x_free(g, &x);
    for (int p = 0; p < 3; p++)
        prod_tensor_free(&parts[p].t);
    free(bias);
    free(y);
}

/* Row r of a pass of n rows, whatever form computes it, is the row alone, bit for bit. Of rounded activations some
 * forms multiply by lo, which is zero, and some do without it. */
static void check_rows(enum dtype type, int rows, int cols, bool rounded) {
    static const int passes[] = {2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 130},
                     some[] = {0, 1, 7, 8, 15, 16, 40, 63, 64, 129};
    enum { MOST = 130 };
    struct matrix_part part = {.t = prod_tensor(type, rows, cols, 11)};
    struct gpu_matrix m = load(&part, 1, false, QUANT_NONE);
    struct prod_x x = prod_x_make(g, MOST, cols, rounded, 13);
    size_t row_bytes = (size_t)rows * sizeof(float);
    float *all = must(malloc(MOST * row_bytes)), *y = must(malloc(MOST * row_bytes));
    g->n_processors = 1;
    prod_product(g, &m, &x, 256, NULL, PRODUCT_STORE, rows, NULL, all);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct prod_x one = prod_x_row(g, &x, some[i]);
        prod_product(g, &m, &one, 1, NULL, PRODUCT_STORE, rows, NULL, y);
        cr_assert_eq(memcmp(y, all + some[i] * rows, row_bytes), 0, "%s: row %d of %d is not what it is alone",
                     dtype_info(type)->name, some[i], MOST);
        prod_x_free(g, &one);
    }
    for (size_t p = 0; p < sizeof passes / sizeof *passes; p++)
        for (int c = 0; c < N_CARDS; c++) {
            int n = passes[p], bucket = 1;
            while (bucket < n)
                bucket *= 2;
            g->n_processors = cards[c];
            x.n = n;
            prod_product(g, &m, &x, bucket, NULL, PRODUCT_STORE, rows, NULL, y);
            for (int i = 0; i < n; i++)
                cr_assert_eq(memcmp(y + i * rows, all + i * rows, row_bytes), 0,
                             "%s: row %d of %d is not what it is among %d (card of %d)", dtype_info(type)->name, i, n,
                             MOST, cards[c]);
        }
    matrix_free(g, &m);
    prod_x_free(g, &x);
    prod_tensor_free(&part.t);
    free(all);
    free(y);
}

Test(gpu_product, a_row_does_not_depend_on_its_company) {
    for (int i = 0; i < N_TYPES; i++)
        for (int rounded = 0; rounded < 2; rounded++)
            check_rows(types[i], 40, dtype_info(types[i])->block == 256 ? 768 : 576, rounded != 0);
}

/* Tensor cores have their own way to sum, and their own order of blocks. */
Test(gpu_product, a_row_does_not_depend_on_its_company_in_matrices_of_a_model) {
    gpu_rig_needs_real_card("the emulated one would take minutes for matrices of this size");
    for (int i = 0; i < 2 * N_TYPES; i++) {
        bool rounded = i >= N_TYPES;
        check_rows(types[i % N_TYPES], 4096, 4096, rounded);
        check_rows(types[i % N_TYPES], 1024, 14336, rounded);
        check_rows(types[i % N_TYPES], 6176, 1536, rounded);
    }
}
