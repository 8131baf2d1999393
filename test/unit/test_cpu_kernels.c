/* core/cpu: every kernel against double precision, every instruction set of this machine against the portable one bit
 * for bit, and results that depend on nothing but the row itself. */
#include "test/unit/cpu_cases.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cpu make_cpu(const char *isa, int threads) {
    struct cpu c;
    struct err e = {0};
    cr_assert_eq(cpu_init(&c, threads, isa, &e), 0, "%s", e.msg);
    return c;
}

static void name_case(char *out, size_t n, const struct matmul_case *m) {
    snprintf(out, n, "%s quant %d, %d x %d, %d rows", dtype_info(m->type)->name, (int)m->quant, m->rows, m->cols, m->n);
}

Test(cpu, lists_instruction_sets) {
    const char *const *names = cpu_isa_list();
    size_t n = 0;
    while (names[n])
        n++;
    cr_assert(n >= 1);
    cr_assert_str_eq(names[n - 1], "portable");
    struct cpu c = make_cpu(NULL, 1);
    cr_assert_str_eq(cpu_isa_name(&c), names[0], "the best one is the default");
    cpu_free(&c);
    struct err e = {0};
    cr_assert_eq(cpu_init(&c, 1, "mmx", &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
    cr_assert_not_null(strstr(e.msg, "mmx"));
}

/* ---- packing ---- */

Test(pack, rows_come_back) {
    struct cpu c = make_cpu(NULL, 2);
    const struct matmul_case *cases;
    size_t n = matmul_cases(&cases);
    for (size_t i = 0; i < n; i++) {
        const struct matmul_case *m = &cases[i];
        struct tensor t;
        struct packed p;
        struct err e = {0};
        enum dtype type;
        size_t cols = (size_t)m->cols;
        uint8_t *data = matmul_case_weights(m, &t), *coded = malloc(cols * 4);
        float *want = malloc(cols * sizeof *want), *got = malloc(cols * sizeof *got);
        cr_assert_eq(packed_load(&p, &c, &t, m->quant, &e), 0, "%s", e.msg);
        cr_assert_eq(packed_size(m->type, m->rows, m->cols, m->quant, &type), p.bytes);
        cr_assert_eq(type, p.type);
        for (int r = 0; r < m->rows; r++) {
            dtype_decode(m->type, data + (size_t)r * t.row_bytes, cols, want);
            if (type != m->type) {
                dtype_encode(type, want, cols, coded);
                dtype_decode(type, coded, cols, want);
            }
            packed_row(&p, r, got);
            char name[80];
            name_case(name, sizeof name, m);
            cr_assert_arr_eq(got, want, cols * sizeof *got, "%s: row %d", name, r);
        }
        packed_free(&p);
        cr_assert_null(p.data);
        free(data);
        free(coded);
        free(want);
        free(got);
    }
    cpu_free(&c);
}

Test(pack, quant_makes_smaller_never_larger) {
    static const struct {
        enum dtype from;
        int cols;
        enum quant quant;
        enum dtype to;
    } cases[] = {{DT_F32, 64, QUANT_Q8, DT_Q8_0},   {DT_F16, 64, QUANT_Q8, DT_Q8_0},
                 {DT_BF16, 64, QUANT_Q4, DT_Q4_0},  {DT_BF16, 60, QUANT_Q8, DT_BF16},
                 {DT_Q4_0, 64, QUANT_Q8, DT_Q4_0},  {DT_Q6_K, 256, QUANT_Q8, DT_Q6_K},
                 {DT_Q8_0, 64, QUANT_Q4, DT_Q4_0},  {DT_Q6_K, 256, QUANT_Q4, DT_Q4_0},
                 {DT_Q4_K, 256, QUANT_Q4, DT_Q4_K}, {DT_BF16, 64, QUANT_NONE, DT_BF16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum dtype type;
        packed_size(cases[i].from, 16, cases[i].cols, cases[i].quant, &type);
        cr_assert_eq(type, cases[i].to, "case %zu gives %s", i, dtype_info(type)->name);
    }
    enum dtype type;
    double bits = 8.0 * (double)packed_size(DT_Q4_K, 4096, 4096, QUANT_NONE, &type) / (4096.0 * 4096);
    cr_assert_lt(bits, 4.7);
    bits = 8.0 * (double)packed_size(DT_Q6_K, 4096, 4096, QUANT_NONE, &type) / (4096.0 * 4096);
    cr_assert_lt(bits, 6.7);
}

/* ---- products ---- */

/* Floats are multiplied as they are; block weights meet x rounded to 23 bits per block of 32. */
Test(matmul, agrees_with_double_precision) {
    struct cpu c = make_cpu(NULL, 2);
    const struct matmul_case *cases;
    size_t n = matmul_cases(&cases);
    for (size_t i = 0; i < n; i++) {
        const struct matmul_case *m = &cases[i];
        float *y = matmul_case_run(&c, m, 0);
        double *want = matmul_case_reference(m);
        cr_assert_not_null(y);
        char name[80];
        name_case(name, sizeof name, m);
        cr_assert_lt(relative_error(y, want, (size_t)m->n * (size_t)m->rows), 1e-6, "%s: off by %g", name,
                     relative_error(y, want, (size_t)m->n * (size_t)m->rows));
        free(y);
        free(want);
    }
    cpu_free(&c);
}

Test(matmul, every_instruction_set_gives_the_same_bits) {
    const struct matmul_case *cases;
    size_t n = matmul_cases(&cases);
    struct cpu plain = make_cpu("portable", 1);
    for (const char *const *isa = cpu_isa_list(); strcmp(*isa, "portable") != 0; isa++) {
        struct cpu c = make_cpu(*isa, 2);
        for (size_t i = 0; i < n; i++) {
            float *want = matmul_case_run(&plain, &cases[i], 0), *got = matmul_case_run(&c, &cases[i], 0);
            char name[80];
            name_case(name, sizeof name, &cases[i]);
            cr_assert_arr_eq(got, want, (size_t)cases[i].n * (size_t)cases[i].rows * sizeof *got, "%s: %s", *isa, name);
            free(want);
            free(got);
        }
        cpu_free(&c);
    }
    cpu_free(&plain);
}

static const enum dtype all_types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K};

/* A row's result is the same in a batch of 1 .. 70 rows, on every instruction set, and so in every split of a prompt.
 */
Test(matmul, rows_do_not_depend_on_the_batch, .timeout = 300) {
    for (size_t t = 0; t < sizeof all_types / sizeof *all_types; t++) {
        struct matmul_case m = {all_types[t], QUANT_NONE, 36, 256, 70, true, true, (uint32_t)(40 + t)};
        if (m.type < DT_Q8_0)
            m.cols = 259;
        struct cpu plain = make_cpu("portable", 1);
        float *want = matmul_case_run(&plain, &m, 1);
        cpu_free(&plain);
        for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
            struct cpu c = make_cpu(*isa, 1);
            for (int step = 1; step <= m.n; step++) {
                float *got = matmul_case_run(&c, &m, step);
                cr_assert_arr_eq(got, want, (size_t)m.n * (size_t)m.rows * sizeof *got, "%s, %s: %d rows at a time",
                                 *isa, dtype_info(m.type)->name, step);
                free(got);
            }
            cpu_free(&c);
        }
        free(want);
    }
}

Test(matmul, threads_change_nothing) {
    struct matmul_case m = {DT_BF16, QUANT_NONE, 1000, 130, 33, false, false, 50};
    struct cpu one = make_cpu(NULL, 1);
    float *want = matmul_case_run(&one, &m, 0);
    for (int threads = 2; threads <= 5; threads++) {
        struct cpu c = make_cpu(NULL, threads);
        float *got = matmul_case_run(&c, &m, 0);
        cr_assert_arr_eq(got, want, (size_t)m.n * (size_t)m.rows * sizeof *got);
        free(got);
        cpu_free(&c);
    }
    free(want);
    cpu_free(&one);
}

/* Jobs of different types and shapes in one call give what each alone gives. */
Test(matmul, jobs_share_a_call) {
    enum { N = 17, COLS = 256, JOBS = 4 };
    static const enum dtype types[JOBS] = {DT_Q4_K, DT_BF16, DT_Q6_K, DT_F32};
    static const int rows[JOBS] = {70, 16, 33, 1};
    for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
        struct cpu c = make_cpu(*isa, 2);
        struct packed w[JOBS];
        struct matmul jobs[JOBS];
        struct err e = {0};
        float x[N * COLS], *together[JOBS], *alone[JOBS];
        size_t scratch = 0;
        for (int i = 0; i < N * COLS; i++)
            x[i] = case_noise(60, (uint32_t)i);
        for (int j = 0; j < JOBS; j++) {
            struct matmul_case m = {types[j], QUANT_NONE, rows[j], COLS, N, false, false, (uint32_t)(61 + j)};
            struct tensor t;
            uint8_t *data = matmul_case_weights(&m, &t);
            cr_assert_eq(packed_load(&w[j], &c, &t, QUANT_NONE, &e), 0, "%s", e.msg);
            free(data);
            scratch = cpu_matmul_scratch(&w[j], N) > scratch ? cpu_matmul_scratch(&w[j], N) : scratch;
            together[j] = calloc((size_t)(N * rows[j]), sizeof(float));
            alone[j] = calloc((size_t)(N * rows[j]), sizeof(float));
            jobs[j] = (struct matmul){.w = &w[j], .y = together[j], .ldy = rows[j]};
        }
        cr_assert_eq(cpu_reserve(&c, scratch, &e), 0, "%s", e.msg);
        cpu_matmul(&c, jobs, JOBS, x, COLS, N);
        for (int j = 0; j < JOBS; j++) {
            jobs[j].y = alone[j];
            cpu_matmul(&c, &jobs[j], 1, x, COLS, N);
            cr_assert_arr_eq(together[j], alone[j], (size_t)(N * rows[j]) * sizeof(float));
            packed_free(&w[j]);
            free(together[j]);
            free(alone[j]);
        }
        cpu_free(&c);
    }
}

/* Not-a-number stays visible, and in its own row. */
Test(matmul, bad_values_stay_in_their_row) {
    enum { N = 7, COLS = 256, ROWS = 20 };
    for (size_t t = 0; t < sizeof all_types / sizeof *all_types; t++) {
        struct cpu c = make_cpu(NULL, 1);
        struct matmul_case m = {all_types[t], QUANT_NONE, ROWS, COLS, N, false, false, 70};
        struct tensor ts;
        struct packed w;
        struct err e = {0};
        uint8_t *data = matmul_case_weights(&m, &ts);
        cr_assert_eq(packed_load(&w, &c, &ts, QUANT_NONE, &e), 0, "%s", e.msg);
        cr_assert_eq(cpu_reserve(&c, cpu_matmul_scratch(&w, N), &e), 0, "%s", e.msg);
        float x[N * COLS], want[N * ROWS], got[N * ROWS];
        for (int i = 0; i < N * COLS; i++)
            x[i] = case_noise(71, (uint32_t)i);
        struct matmul job = {.w = &w, .y = want, .ldy = ROWS};
        cpu_matmul(&c, &job, 1, x, COLS, N);
        x[2 * COLS + 5] = NAN;
        x[4 * COLS + 77] = INFINITY;
        job.y = got;
        cpu_matmul(&c, &job, 1, x, COLS, N);
        for (int i = 0; i < N; i++)
            for (int r = 0; r < ROWS; r++) {
                if (i == 2 || i == 4)
                    cr_assert(!isfinite(got[i * ROWS + r]), "%s", dtype_info(m.type)->name);
                else
                    cr_assert_eq(got[i * ROWS + r], want[i * ROWS + r]);
            }
        packed_free(&w);
        free(data);
        cpu_free(&c);
    }
}

/* ---- attention ---- */

Test(attend, agrees_with_double_precision) {
    struct cpu c = make_cpu(NULL, 2);
    const struct attend_case *cases;
    size_t n = attend_cases(&cases);
    for (size_t i = 0; i < n; i++) {
        const struct attend_case *a = &cases[i];
        size_t size = a->n_rows * (size_t)a->n_heads * (size_t)a->head_dim;
        float *out = attend_case_run(&c, a, -1);
        double *want = attend_case_reference(a);
        cr_assert_not_null(out);
        cr_assert_lt(relative_error(out, want, size), 2e-6, "case %zu: off by %g", i, relative_error(out, want, size));
        free(out);
        free(want);
    }
    cpu_free(&c);
}

Test(attend, every_instruction_set_and_every_company_gives_the_same_bits, .timeout = 300) {
    const struct attend_case *cases;
    size_t n = attend_cases(&cases);
    struct cpu plain = make_cpu("portable", 1);
    for (size_t i = 0; i < n; i++) {
        const struct attend_case *a = &cases[i];
        size_t width = (size_t)a->n_heads * (size_t)a->head_dim, bytes = a->n_rows * width * sizeof(float);
        float *want = attend_case_run(&plain, a, -1);
        for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
            struct cpu c = make_cpu(*isa, 3);
            float *got = attend_case_run(&c, a, -1);
            cr_assert_arr_eq(got, want, bytes, "case %zu, %s", i, *isa);
            free(got);
            for (int row = 0; row < (int)a->n_rows; row += 1 + (int)a->n_rows / 9) {
                got = attend_case_run(&c, a, row);
                cr_assert_arr_eq(got, want + (size_t)row * width, width * sizeof *got, "case %zu, %s: row %d alone", i,
                                 *isa, row);
                free(got);
            }
            cpu_free(&c);
        }
        free(want);
    }
    cpu_free(&plain);
}

/* ---- rows ---- */

Test(rows, every_instruction_set_gives_the_same_bits) {
    static const int widths[] = {2, 16, 37, 64, 250, 1024};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        struct cpu plain = make_cpu("portable", 1);
        size_t n;
        float *want = row_kernels_run(&plain, 5, widths[i], &n);
        for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
            struct cpu c = make_cpu(*isa, 2);
            float *got = row_kernels_run(&c, 5, widths[i], &n);
            cr_assert_arr_eq(got, want, n * sizeof *got, "%s, width %d", *isa, widths[i]);
            free(got);
            cpu_free(&c);
        }
        free(want);
        cpu_free(&plain);
    }
}

Test(rows, norm_and_gate_agree_with_double_precision) {
    enum { COLS = 1003 };
    struct cpu c = make_cpu(NULL, 1);
    float x[COLS], w[COLS], y[COLS];
    double norm[COLS], gated[COLS], squares = 0;
    for (int i = 0; i < COLS; i++) {
        x[i] = case_noise(80, (uint32_t)i) * 30;
        w[i] = case_noise(81, (uint32_t)i);
        squares += (double)x[i] * x[i];
    }
    for (int i = 0; i < COLS; i++) {
        norm[i] = x[i] / sqrt(squares / COLS + 1e-5) * w[i];
        gated[i] = x[i] / (1 + exp(-(double)x[i])) * w[i];
    }
    cpu_rmsnorm(&c, y, COLS, x, COLS, w, 1, COLS, 1e-5f);
    cr_assert_lt(relative_error(y, norm, COLS), 2e-7);
    memcpy(y, x, sizeof y);
    cpu_silu_mul(&c, y, w, 1, COLS);
    for (int i = 0; i < COLS; i++)
        cr_assert_lt(fabs(y[i] - gated[i]), 4e-7 * fabs(gated[i]) + 1e-30, "silu(%g)", (double)x[i]);
    float ends[4] = {-200, 200, -0.0f, 1e-20f}, ones[4] = {1, 1, 1, 1};
    cpu_silu_mul(&c, ends, ones, 1, 4);
    cr_assert_lt(fabsf(ends[0]), 1e-30f);
    cr_assert_eq(ends[1], 200);
    cr_assert_eq(ends[2], 0);
    cr_assert_float_eq(ends[3], 5e-21f, 1e-26f);
    cpu_free(&c);
}

/* The angle is rounded to f32 as transformers does; its sine and cosine are then right to the last place or so. */
Test(rows, rotation_tables_far_out) {
    enum { HALF = 32, N = 7 };
    static const uint32_t pos[N] = {0, 1, 2, 1000, 131071, 1048575, 2097151};
    float freq[HALF], cs[N * HALF * 2];
    for (int i = 0; i < HALF; i++)
        freq[i] = (float)pow(500000, -i / (double)HALF);
    cpu_rope_table(cs, pos, N, freq, 2 * HALF);
    for (int p = 0; p < N; p++)
        for (int i = 0; i < HALF; i++) {
            double angle = (float)pos[p] * freq[i];
            cr_assert_float_eq(cs[p * 2 * HALF + i], cos(angle), 6.1e-8, "cos %g", angle);
            cr_assert_float_eq(cs[p * 2 * HALF + HALF + i], sin(angle), 6.1e-8, "sin %g", angle);
        }
}

Test(rows, rotation_turns_halves) {
    enum { HEADS = 3, DIM = 40, N = 2, LD = HEADS * DIM + 1 };
    struct cpu c = make_cpu(NULL, 2);
    float x[N * LD], y[N * LD], cs[N * DIM];
    for (int i = 0; i < N * LD; i++)
        x[i] = y[i] = case_noise(90, (uint32_t)i);
    for (int i = 0; i < N * DIM; i++)
        cs[i] = case_noise(91, (uint32_t)i);
    cpu_rope(&c, y, LD, cs, N, HEADS, DIM);
    for (int i = 0; i < N; i++) {
        for (int h = 0; h < HEADS; h++)
            for (int d = 0; d < DIM / 2; d++) {
                const float *in = x + i * LD + h * DIM, *out = y + i * LD + h * DIM;
                double co = cs[i * DIM + d], si = cs[i * DIM + DIM / 2 + d], a = in[d], b = in[d + DIM / 2];
                cr_assert_float_eq(out[d], a * co - b * si, 2e-7);
                cr_assert_float_eq(out[d + DIM / 2], b * co + a * si, 2e-7);
            }
        cr_assert_eq(y[i * LD + HEADS * DIM], x[i * LD + HEADS * DIM]);
    }
    cpu_free(&c);
}

Test(rows, kv_goes_to_its_slots) {
    enum { N = 3, HEADS = 2, DIM = 20, SLOTS = 5 };
    struct cpu c = make_cpu(NULL, 1);
    struct row rows[N] = {{.slot = 4}, {.slot = 0}, {.slot = 2}};
    struct batch b = {rows, N};
    float x[N * HEADS * DIM], f32[HEADS * SLOTS * DIM] = {0};
    uint16_t f16[HEADS * SLOTS * DIM] = {0};
    for (int i = 0; i < N * HEADS * DIM; i++)
        x[i] = case_noise(95, (uint32_t)i);
    cpu_kv_write(&c, f32, DT_F32, SLOTS * DIM, x, HEADS * DIM, &b, HEADS, DIM);
    cpu_kv_write(&c, f16, DT_F16, SLOTS * DIM, x, HEADS * DIM, &b, HEADS, DIM);
    for (int s = 0; s < SLOTS; s++)
        for (int h = 0; h < HEADS; h++)
            for (int d = 0; d < DIM; d++) {
                int at = (h * SLOTS + s) * DIM + d, row = s == 4 ? 0 : s == 0 ? 1 : 2;
                float want = s % 2 == 0 ? x[row * HEADS * DIM + h * DIM + d] : 0;
                cr_assert_eq(f32[at], want);
                cr_assert_eq(f16[at], f32_to_f16(want));
            }
    cpu_free(&c);
}

Test(limits, are_measured) {
    struct cpu c = make_cpu(NULL, 1);
    struct cpu_limits l;
    cpu_measure_limits(&c, &l);
    cr_assert_gt(l.read_bytes_s, 1e8);
    cr_assert_gt(l.fma_flop_s, 1e8);
    cpu_free(&c);
}

Test(cpu, all_machines_agree, .timeout = 300) {
    for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
        struct cpu c = make_cpu(*isa, 2);
        uint64_t digest = cases_digest(&c);
        cr_assert_eq(digest, CASES_DIGEST, "%s: %016llx", *isa, (unsigned long long)digest);
        cpu_free(&c);
    }
}
