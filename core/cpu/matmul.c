#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

/* Many rows are multiplied in chunks: a worker holds CHUNK_ROWS x GROUP_MAX panels of sums (64 KB, on its stack) and
 * goes through K in steps, so that the weights of a step stay in its L2 cache while the chunk's tiles pass by. */
enum { CHUNK_ROWS = 252, K_STEP = 1024, CHUNK_TILES_MAX = CHUNK_ROWS };

/* The rows of the next tile when n are left: a full tile, or the smallest size that holds them. */
static int tile_size(const struct cpu_isa *isa, int n) {
    for (int size = n; size < isa->tile_rows; size++)
        if (isa->panels_of[size])
            return size;
    return isa->tile_rows;
}

/* Bytes of a row of x in the scratch: room for both kinds of tile, as jobs of one call may need both. */
static size_t row_bytes(int cols) {
    return tile_row_bytes(true, cols) + tile_row_bytes(false, cols);
}

size_t cpu_matmul_scratch(const struct packed *w, int max_rows) {
    return ((size_t)max_rows + TILE_MAX) * row_bytes(w->cols);
}

struct run {
    const struct cpu_isa *isa;
    const struct matmul *jobs;
    const float *x;
    int ldx, n, cols;
    bool want_float, want_blocks;
    uint8_t *xf, *xq; /* tiles of x for float and for block weights */
};

static uint8_t *tile_at(const struct run *run, bool is_float, int row) {
    return (is_float ? run->xf : run->xq) + (size_t)row * tile_row_bytes(is_float, run->cols);
}

static void pack_tile(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    (void)worker;
    int row = item * run->isa->tile_rows, left = run->n - row, size = tile_size(run->isa, left);
    const float *x = run->x + (size_t)row * (size_t)run->ldx;
    if (run->want_float)
        run->isa->pack_f32(tile_at(run, true, row), x, (size_t)run->ldx, left < size ? left : size, size, run->cols);
    if (run->want_blocks)
        run->isa->pack_i16(tile_at(run, false, row), x, (size_t)run->ldx, left < size ? left : size, size, run->cols);
}

/* Sums of one panel of a tile to y. */
static void store(const struct matmul *m, const float *acc, int panel, int row, int rows) {
    int r0 = panel * PANEL, lanes = m->w->rows - r0 < PANEL ? m->w->rows - r0 : PANEL;
    for (int i = 0; i < rows; i++, acc += PANEL) {
        float *y = m->y + (size_t)(row + i) * (size_t)m->ldy + r0;
        for (int l = 0; l < lanes; l++) {
            float v = m->bias ? acc[l] + m->bias[r0 + l] : acc[l];
            y[l] = m->add ? y[l] + v : v;
        }
    }
}

/* Panels [panel, panel + n_panels) times rows [row0, row1). */
static void multiply_chunk(const struct run *run, const struct matmul *m, int panel, int n_panels, int row0, int row1) {
    _Alignas(64) float acc[(CHUNK_ROWS + TILE_MAX) * GROUP_MAX * PANEL];
    const struct packed *w = m->w;
    bool is_float = dtype_is_float(w->type), one_tile = row1 - row0 <= run->isa->tile_rows;
    int step = one_tile ? w->cols : K_STEP;
    for (int k = 0; k < w->cols; k += step) {
        struct tile t = {.panel_bytes = w->panel_bytes, .cols = w->cols, .k0 = k, .acc = acc};
        t.k1 = w->cols - k < step ? w->cols : k + step;
        for (int row = row0; row < row1; row += t.rows) {
            t.rows = tile_size(run->isa, row1 - row);
            t.x = tile_at(run, is_float, row);
            for (int p = 0; p < n_panels; p += t.n_panels) {
                t.n_panels = n_panels - p < run->isa->panels_of[t.rows] ? 1 : run->isa->panels_of[t.rows];
                t.w = w->data + (size_t)(panel + p) * w->panel_bytes;
                run->isa->tile[w->type](&t);
                t.acc += t.n_panels * t.rows * PANEL;
            }
        }
    }
    const float *sum = acc;
    for (int row = row0; row < row1;) {
        int size = tile_size(run->isa, row1 - row), rows = row1 - row < size ? row1 - row : size;
        for (int p = 0; p < n_panels; p++, sum += size * PANEL)
            store(m, sum, panel + p, row, rows);
        row += size;
    }
}

static int panels(const struct packed *w) {
    return (w->rows + PANEL - 1) / PANEL;
}

static void multiply(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    (void)worker;
    const struct matmul *m = run->jobs;
    int groups;
    while (item >= (groups = (panels(m->w) + GROUP_MAX - 1) / GROUP_MAX)) {
        item -= groups;
        m++;
    }
    int panel = item * GROUP_MAX, n_panels = panels(m->w) - panel < GROUP_MAX ? panels(m->w) - panel : GROUP_MAX;
    int chunk = CHUNK_ROWS / run->isa->tile_rows * run->isa->tile_rows;
    for (int row = 0; row < run->n; row += chunk)
        multiply_chunk(run, m, panel, n_panels, row, run->n - row < chunk ? run->n : row + chunk);
}

void cpu_matmul(struct cpu *c, const struct matmul *jobs, int n_jobs, const float *x, int ldx, int n) {
    if (n <= 0 || n_jobs <= 0)
        return;
    struct run run = {.isa = c->isa, .jobs = jobs, .x = x, .ldx = ldx, .n = n, .cols = jobs[0].w->cols};
    int items = 0, full = c->isa->tile_rows;
    for (int j = 0; j < n_jobs; j++) {
        items += (panels(jobs[j].w) + GROUP_MAX - 1) / GROUP_MAX;
        if (dtype_is_float(jobs[j].w->type))
            run.want_float = true;
        else
            run.want_blocks = true;
    }
    run.xf = c->scratch;
    run.xq = run.xf + (run.want_float ? (size_t)(n + full) * tile_row_bytes(true, run.cols) : 0);
    pool_run(c->pool, pack_tile, &run, (n + full - 1) / full);
    pool_run(c->pool, multiply, &run, items);
}
