#include "cmd/bench/kernels.h"

#include "core/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every round measures everything once, limits included; the best of the rounds counts, for the machine as for the
 * kernels, since others may use it meanwhile. Weights rotate among copies that together exceed any cache. */
enum { ROUNDS = 7, N_M = 7, COPIES_MAX = 64 };
#define ROTATE_BYTES ((size_t)256 << 20)

static const int row_counts[N_M] = {1, 2, 4, 8, 16, 32, 64};

struct series {
    struct packed copies[COPIES_MAX];
    int n_copies, next;
    double best_ms[N_M];
};

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Bytes that make finite weights in every type: small f16 scales, anything for quants. */
static void fill_row(uint8_t *row, enum dtype t, size_t bytes, uint32_t seed) {
    const struct dtype_info *info = dtype_info(t);
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525 + 1013904223;
        row[i] = (uint8_t)(seed >> 24);
    }
    size_t block = (size_t)info->block_bytes, d = t == DT_Q6_K ? 208 : 0;
    for (size_t at = 0; at + block <= bytes; at += block) {
        if (t == DT_F32 || t == DT_BF16) {
            row[at + block - 1] = (uint8_t)(0x3c | (row[at] & 0x80));
            continue;
        }
        row[at + d + 1] = 0x24;
        if (t == DT_Q4_K)
            row[at + 3] = 0x24;
    }
}

static int series_load(struct series *s, struct cpu *c, enum dtype t, int rows, int cols, struct err *e) {
    struct tensor src = {.dtype = t, .rows = (uint32_t)rows, .cols = (uint32_t)cols};
    src.row_bytes = dtype_row_bytes(t, (size_t)cols);
    snprintf(src.name, sizeof src.name, "bench.%s", dtype_info(t)->name);
    size_t bytes = src.row_bytes * (size_t)rows;
    uint8_t *data = malloc(bytes);
    if (!data)
        return err_set(e, ERR_MEMORY, "out of memory for a %d x %d matrix of %s", rows, cols, dtype_info(t)->name);
    for (size_t r = 0; r < (size_t)rows; r++)
        fill_row(data + r * src.row_bytes, t, src.row_bytes, (uint32_t)r);
    src.data = data;
    s->n_copies = (int)(ROTATE_BYTES / bytes) + 1;
    s->n_copies = s->n_copies < 2 ? 2 : s->n_copies > COPIES_MAX ? COPIES_MAX : s->n_copies;
    int rc = 0;
    for (int i = 0; i < s->n_copies && rc == 0; i++)
        rc = packed_load(&s->copies[i], c, &src, QUANT_NONE, e);
    free(data);
    return rc;
}

/* The best of a few products in a row, each with the next copy. */
static void series_time(struct series *s, struct cpu *c, const float *x, float *y, int m) {
    int n = row_counts[m];
    for (int i = 0; i < (n <= 4 ? 8 : 3); i++) {
        const struct packed *w = &s->copies[s->next++ % s->n_copies];
        struct matmul job = {.w = w, .y = y, .ldy = w->rows};
        double t = now_ms();
        cpu_matmul(c, &job, 1, x, w->cols, n);
        t = now_ms() - t;
        if (s->best_ms[m] == 0 || t < s->best_ms[m])
            s->best_ms[m] = t;
    }
}

static void print_row(const struct series *s, enum dtype t, int m, const struct cpu_limits *lim, bool json) {
    const struct packed *w = &s->copies[0];
    double sec = s->best_ms[m] * 1e-3, n = row_counts[m];
    double gb_s = (double)w->bytes / sec * 1e-9, gflop_s = 2.0 * w->rows * w->cols * n / sec * 1e-9;
    bool by_reading = row_counts[m] <= 4;
    double part = by_reading ? gb_s * 1e9 / lim->read_bytes_s : gflop_s * 1e9 / lim->fma_flop_s;
    if (json)
        printf("%s{\"type\":\"%s\",\"rows\":%d,\"ms\":%.4f,\"gb_s\":%.2f,\"gflop_s\":%.2f,\"limit\":\"%s\","
               "\"fraction\":%.3f}",
               t == 0 && m == 0 ? "" : ",", dtype_info(t)->name, row_counts[m], s->best_ms[m], gb_s, gflop_s,
               by_reading ? "read" : "fma", part);
    else
        printf("%-6s %3d %9.3f %8.1f %9.1f %7.0f%% of %s\n", dtype_info(t)->name, row_counts[m], s->best_ms[m], gb_s,
               gflop_s, part * 100, by_reading ? "reading" : "f32 FMA");
}

static void print_all(const struct series *s, const struct cpu *c, int rows, int cols, const struct cpu_limits *lim,
                      bool json) {
    if (json)
        printf("{\"isa\":\"%s\",\"threads\":%d,\"shape\":[%d,%d],\"rounds\":%d,\"read_gb_s\":%.2f,\"fma_gflop_s\":%.2f,"
               "\"kernels\":[",
               cpu_isa_name(c), pool_threads(c->pool), rows, cols, ROUNDS, lim->read_bytes_s * 1e-9,
               lim->fma_flop_s * 1e-9);
    else
        printf("%s, %d threads, weights %d x %d out of memory, best of %d interleaved rounds\n"
               "limits: reading %.1f GB/s, f32 FMA %.1f GFLOP/s\n"
               "type     M        ms     GB/s   GFLOP/s   part of the limit\n",
               cpu_isa_name(c), pool_threads(c->pool), rows, cols, ROUNDS, lim->read_bytes_s * 1e-9,
               lim->fma_flop_s * 1e-9);
    for (int t = 0; t < DT_COUNT; t++)
        for (int m = 0; m < N_M; m++)
            print_row(&s[t], (enum dtype)t, m, lim, json);
    if (json)
        printf("]}\n");
}

int bench_kernels(int n_threads, const char *isa, int rows, int cols, bool json, struct err *e) {
    if (rows < 1 || cols < 256 || cols % 256 != 0 || rows > 1 << 20 || cols > 1 << 20)
        return err_set(e, ERR_USAGE,
                       "a kernel benchmark needs a shape of at least 1 x 256, columns a multiple of 256, not %d x %d",
                       rows, cols);
    int rc = -1, n_max = row_counts[N_M - 1];
    struct cpu c = {0};
    struct cpu_limits lim = {0};
    struct series *s = calloc(DT_COUNT, sizeof *s);
    float *x = malloc((size_t)n_max * (size_t)cols * sizeof *x), *y = malloc((size_t)n_max * (size_t)rows * sizeof *y);
    if (!s || !x || !y) {
        err_set(e, ERR_MEMORY, "out of memory for the kernel benchmark");
        goto out;
    }
    for (size_t i = 0; i < (size_t)n_max * (size_t)cols; i++)
        x[i] = (float)((int)(i * 2654435761u >> 16 & 0xff) - 128) / 128;
    if (cpu_init(&c, n_threads, isa, e) != 0)
        goto out;
    for (int t = 0; t < DT_COUNT; t++)
        if (series_load(&s[t], &c, (enum dtype)t, rows, cols, e) != 0)
            goto out;
    if (cpu_reserve(&c, cpu_matmul_scratch(&s[0].copies[0], n_max), e) != 0)
        goto out;
    for (int round = 0; round < ROUNDS; round++) {
        struct cpu_limits l;
        cpu_measure_limits(&c, &l);
        lim.read_bytes_s = l.read_bytes_s > lim.read_bytes_s ? l.read_bytes_s : lim.read_bytes_s;
        lim.fma_flop_s = l.fma_flop_s > lim.fma_flop_s ? l.fma_flop_s : lim.fma_flop_s;
        for (int t = 0; t < DT_COUNT; t++)
            for (int m = 0; m < N_M; m++)
                series_time(&s[t], &c, x, y, m);
    }
    print_all(s, &c, rows, cols, &lim, json);
    rc = 0;
out:
    for (int t = 0; s && t < DT_COUNT; t++)
        for (int i = 0; i < s[t].n_copies; i++)
            packed_free(&s[t].copies[i]);
    free(s);
    free(x);
    free(y);
    cpu_free(&c);
    return rc;
}
