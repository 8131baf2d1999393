#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <string.h>

/* The rows of a tile when n are left: a full tile, or the smallest size that holds them. */
static int tile_for(const struct cpu_isa *isa, int n) {
    static const int sizes[] = {1, 2, 4, 6, 8, 12};
    for (int i = 0; i < 6; i++)
        if (sizes[i] >= n && sizes[i] <= isa->tile_rows)
            return sizes[i];
    return isa->tile_rows;
}

size_t cpu_matmul_scratch(const struct packed *w, int max_rows) {
    return (size_t)(max_rows + TILE_MAX) * (size_t)w->cols * sizeof(float);
}

struct run {
    struct cpu *c;
    const struct matmul *jobs;
    int n_jobs;
    const float *x;
    int ldx, n, cols;
    float *xt;
};

static void pack_tile(void *ctx, int item, int worker) {
    struct run *run = ctx;
    (void)worker;
    int row = item * run->c->isa->tile_rows, left = run->n - row, tile = tile_for(run->c->isa, left);
    run->c->isa->pack_x(run->xt + (size_t)row * (size_t)run->cols, run->x + (size_t)row * (size_t)run->ldx, run->ldx,
                        left < tile ? left : tile, tile, run->cols);
}

static void store_tile(const struct matmul *m, const float *acc, int panel, int row, int rows, int tile) {
    (void)tile;
    int r0 = panel * PANEL, lanes = m->w->rows - r0 < PANEL ? m->w->rows - r0 : PANEL;
    for (int i = 0; i < rows; i++, acc += PANEL) {
        float *y = m->y + (size_t)(row + i) * (size_t)m->ldy + r0;
        for (int l = 0; l < lanes; l++) {
            float v = m->bias ? acc[l] + m->bias[r0 + l] : acc[l];
            y[l] = m->add ? y[l] + v : v;
        }
    }
}

static void multiply(void *ctx, int item, int worker) {
    struct run *run = ctx;
    (void)worker;
    const struct matmul *m = run->jobs;
    int n_panels;
    while (item >= (n_panels = (m->w->rows + PANEL - 1) / PANEL)) {
        item -= n_panels;
        m++;
    }
    const struct packed *w = m->w;
    float acc[TILE_MAX * PANEL];
    enum dtype layout = w->type == DT_F16 || w->type == DT_BF16 ? w->type : DT_F32;
    for (int row = 0; row < run->n;) {
        int left = run->n - row, tile = tile_for(run->c->isa, left);
        run->c->isa->tile(layout, w->data + (size_t)item * w->panel_bytes, w->panel_bytes, 1,
                          run->xt + (size_t)row * (size_t)run->cols, tile, run->cols, acc);
        store_tile(m, acc, item, row, left < tile ? left : tile, tile);
        row += tile;
    }
}

void cpu_matmul(struct cpu *c, const struct matmul *jobs, int n_jobs, const float *x, int ldx, int n) {
    if (n <= 0 || n_jobs <= 0)
        return;
    struct run run = {c, jobs, n_jobs, x, ldx, n, jobs[0].w->cols, c->scratch};
    int tile = c->isa->tile_rows, items = 0;
    pool_run(c->pool, pack_tile, &run, (n + tile - 1) / tile);
    for (int j = 0; j < n_jobs; j++)
        items += (jobs[j].w->rows + PANEL - 1) / PANEL;
    pool_run(c->pool, multiply, &run, items);
}
