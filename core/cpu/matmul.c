#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

/* Many rows are multiplied in chunks: a worker holds the sums of CHUNK_ROWS rows and GROUP_MAX panels (66 KB, on its
 * stack) and goes through K in steps, so that the weights of a step stay in its L2 cache while the tiles pass by. */
enum { CHUNK_ROWS = 264, K_STEP = 1024 };

/* Rows of x in tiles, as float or as block weights want them. */
struct tiles {
    const uint8_t *sizes; /* isa->float_tiles or block_tiles */
    bool is_float;
    bool wanted;
    int full;
    size_t row_bytes;
    uint8_t *x;
};

struct run {
    const struct cpu_isa *isa;
    const struct matmul *jobs;
    const float *x;
    int ldx, n, cols;
    struct tiles kind[2]; /* [is_float] */
    uint8_t *panels;      /* per worker, for raw matrices */
    size_t panel_bytes;
};

/* The rows of the next tile when n are left: a full tile, or the smallest size that holds them. */
static int tile_size(const struct tiles *t, int n) {
    for (int size = n; size < t->full; size++)
        if (t->sizes[size])
            return size;
    return t->full;
}

static void tiles_init(struct tiles *t, const struct cpu_isa *isa, bool is_float, int cols) {
    t->is_float = is_float;
    t->sizes = is_float ? isa->float_tiles : isa->block_tiles;
    t->row_bytes = tile_row_bytes(is_float, cols);
    for (int i = 1; i <= TILE_MAX; i++)
        if (t->sizes[i])
            t->full = i;
}

/* Jobs of one call may need both kinds of tile. */
size_t cpu_matmul_scratch(const struct packed *w, int max_rows) {
    return ((size_t)max_rows + TILE_MAX) * (tile_row_bytes(true, w->cols) + tile_row_bytes(false, w->cols));
}

static void pack_tile(const struct run *run, const struct tiles *t, int row) {
    int left = run->n - row, size = tile_size(t, left), rows = left < size ? left : size;
    const float *x = run->x + (size_t)row * (size_t)run->ldx;
    uint8_t *dst = t->x + (size_t)row * t->row_bytes;
    if (t->is_float)
        run->isa->pack_f32(dst, x, (size_t)run->ldx, rows, size, run->cols);
    else
        run->isa->pack_int(dst, x, (size_t)run->ldx, rows, size, run->cols);
}

static int tile_count(const struct run *run, const struct tiles *t) {
    return t->wanted ? (run->n + t->full - 1) / t->full : 0;
}

static void pack(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    (void)worker;
    int n_float = tile_count(run, &run->kind[1]);
    if (item < n_float)
        pack_tile(run, &run->kind[1], item * run->kind[1].full);
    else
        pack_tile(run, &run->kind[0], (item - n_float) * run->kind[0].full);
}

/* Panels [panel, panel + n_panels), which stand at data, times rows [row0, row1). */
static void multiply_chunk(const struct run *run, const struct matmul *m, const uint8_t *data, int panel, int n_panels,
                           int row0, int row1) {
    _Alignas(64) float acc[(CHUNK_ROWS + TILE_MAX) * GROUP_MAX * PANEL];
    const struct packed *w = m->w;
    const struct tiles *tiles = &run->kind[dtype_is_float(w->type)];
    int step = row1 - row0 <= tiles->full ? w->cols : K_STEP;
    for (int k = 0; k < w->cols; k += step) {
        struct tile t = {
            .panel_bytes = w->panel_bytes, .cols = w->cols, .k0 = k, .more = k > 0, .acc = acc, .acc_row = PANEL};
        t.k1 = w->cols - k < step ? w->cols : k + step;
        for (int row = row0; row < row1; row += t.rows) {
            t.rows = tile_size(tiles, row1 - row);
            t.acc_panel = (size_t)t.rows * PANEL;
            t.x = tiles->x + (size_t)row * tiles->row_bytes;
            for (int p = 0; p < n_panels; p += t.n_panels) {
                t.n_panels = n_panels - p < tiles->sizes[t.rows] ? 1 : tiles->sizes[t.rows];
                t.w = data + (size_t)p * w->panel_bytes;
                run->isa->tile[w->type](&t);
                t.acc += (size_t)t.n_panels * t.acc_panel;
            }
        }
    }
    int r0 = panel * PANEL, lanes = w->rows - r0 < n_panels * PANEL ? w->rows - r0 : n_panels * PANEL;
    const float *sum = acc;
    for (int row = row0; row < row1;) {
        int size = tile_size(tiles, row1 - row), rows = row1 - row < size ? row1 - row : size;
        run->isa->store_rows(m->y + (size_t)row * (size_t)m->ldy + r0, (size_t)m->ldy, sum, (size_t)size * PANEL, rows,
                             m->bias ? m->bias + r0 : NULL, lanes, m->add);
        sum += (size_t)n_panels * (size_t)size * PANEL;
        row += size;
    }
}

static int panels(const struct packed *w) {
    return (w->rows + PANEL - 1) / PANEL;
}

static int groups(const struct packed *w) {
    return (panels(w) + GROUP_MAX - 1) / GROUP_MAX;
}

static void multiply_panels(const struct run *run, const struct matmul *m, const uint8_t *data, int panel, int n) {
    int full = run->kind[dtype_is_float(m->w->type)].full, n_chunks = (run->n + CHUNK_ROWS - 1) / CHUNK_ROWS;
    int chunk = ((run->n + n_chunks - 1) / n_chunks + full - 1) / full * full;
    for (int row = 0; row < run->n; row += chunk)
        multiply_chunk(run, m, data, panel, n, row, run->n - row < chunk ? run->n : row + chunk);
}

static void multiply(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    const struct matmul *m = run->jobs;
    for (; item >= groups(m->w); m++)
        item -= groups(m->w);
    const struct packed *w = m->w;
    int panel = item * GROUP_MAX, end = panels(w) - panel < GROUP_MAX ? panels(w) : panel + GROUP_MAX;
    if (!packed_is_raw(w)) {
        multiply_panels(run, m, w->data + (size_t)panel * w->panel_bytes, panel, end - panel);
        return;
    }
    uint8_t *made = run->panels + (size_t)worker * run->panel_bytes;
    for (int n, at = raw_panels(w->panel_bytes); panel < end; panel += n) {
        n = end - panel < at ? end - panel : at;
        for (int i = 0; i < n; i++)
            panel_make(made + (size_t)i * w->panel_bytes, run->isa, &w->source, w->type, panel + i,
                       made + (size_t)at * w->panel_bytes);
        multiply_panels(run, m, made, panel, n);
    }
}

void cpu_matmul(struct cpu *c, const struct matmul *jobs, int n_jobs, const float *x, int ldx, int n) {
    if (n <= 0 || n_jobs <= 0)
        return;
    struct run run = {.isa = c->isa,
                      .jobs = jobs,
                      .x = x,
                      .ldx = ldx,
                      .n = n,
                      .cols = jobs[0].w->cols,
                      .panels = c->panels,
                      .panel_bytes = c->panel_bytes};
    int items = 0;
    for (int j = 0; j < n_jobs; j++) {
        items += groups(jobs[j].w);
        run.kind[dtype_is_float(jobs[j].w->type)].wanted = true;
    }
    tiles_init(&run.kind[0], c->isa, false, run.cols);
    tiles_init(&run.kind[1], c->isa, true, run.cols);
    run.kind[1].x = c->scratch;
    run.kind[0].x =
        run.kind[1].x + (size_t)tile_count(&run, &run.kind[1]) * (size_t)run.kind[1].full * run.kind[1].row_bytes;
    pool_run(c->pool, pack, &run, tile_count(&run, &run.kind[0]) + tile_count(&run, &run.kind[1]));
    pool_run(c->pool, multiply, &run, items);
}
