#include "gpu/matrix.h"

#include "core/base/pool.h"
#include "gpu/kernel_list.h"
#include "gpu/matrix_layout.h"
#include "gpu/product_args.h"

#include <stdlib.h>
#include <string.h>

/* ---- the plan ---- */

static enum dtype stored_type(const struct tensor *t, enum quant quant) {
    bool is_float = t->dtype == DT_F32 || t->dtype == DT_F16 || t->dtype == DT_BF16;
    if (t->cols % 32 == 0 && quant == QUANT_Q8 && is_float)
        return DT_Q8_0;
    if (t->cols % 32 == 0 && quant == QUANT_Q4 && (is_float || t->dtype == DT_Q8_0 || t->dtype == DT_Q6_K))
        return DT_Q4_0;
    return t->dtype;
}

static int tiles_of(const struct matrix_part *p) {
    return (int)((matrix_part_rows(p) + GPU_TILE - 1) / GPU_TILE);
}

static size_t run_quants(const struct gpu_run *r, int steps) {
    return (size_t)r->n_tiles * (size_t)steps * (size_t)matrix_step_words(r->type) * 4;
}
static size_t run_scales(const struct gpu_run *r, int steps) {
    return (size_t)r->n_tiles * matrix_tile_scales(r->type, steps);
}
static size_t align(size_t n) {
    return (n + 255) / 256 * 256;
}

/* Bounds within which all that is computed in int here and in the kernels fits, and the numbers of blocks as well. */
enum { MAX_ROWS = 1 << 21, MAX_COLS = 1 << 20, MAX_BATCH = 1 << 19 };

int matrix_plan(struct gpu_matrix *m, struct matrix_part *parts, int n_parts, bool interleave, enum quant quant,
                struct err *e) {
    memset(m, 0, sizeof *m);
    int n_tiles = 0;
    for (int i = 0; i < n_parts; i++) {
        const struct tensor *t = &parts[i].t;
        if (t->rows < 1 || t->cols < 1 || t->rows > MAX_ROWS || t->cols > MAX_COLS)
            return err_set(e, ERR_MODEL, "tensor %s is %u x %u, more than a GPU product can take", t->name, t->rows,
                           t->cols);
        if (t->cols % (uint32_t)dtype_info(t->dtype)->block != 0)
            return err_set(e, ERR_MODEL, "tensor %s has %u columns, which are no whole blocks of %s", t->name, t->cols,
                           dtype_info(t->dtype)->name);
        uint32_t rows = matrix_part_rows(&parts[i]), rows0 = matrix_part_rows(&parts[0]);
        if (t->cols != parts[0].t.cols || (interleave && (n_parts != 2 || rows != rows0)))
            return err_set(e, ERR_MODEL, "tensors %s and %s cannot be multiplied together: %u x %u and %u x %u",
                           parts[0].t.name, t->name, rows0, parts[0].t.cols, rows, t->cols);
        enum dtype type = stored_type(t, quant);
        if (interleave && type != stored_type(&parts[1 - i].t, quant))
            type = DT_F32;
        parts[i].at = interleave ? i * GPU_TILE : n_tiles * GPU_TILE;
        struct gpu_run *last = m->n_runs ? &m->runs[m->n_runs - 1] : NULL;
        if (!last || last->type != type) {
            last = &m->runs[m->n_runs++];
            *last = (struct gpu_run){.type = type, .tile = n_tiles};
        }
        last->n_tiles += tiles_of(&parts[i]);
        n_tiles += tiles_of(&parts[i]);
    }
    m->interleaved = interleave;
    m->rows = n_tiles * GPU_TILE;
    m->cols = (int)parts[0].t.cols;
    int steps = (m->cols + MATRIX_STEP - 1) / MATRIX_STEP;
    m->cols_padded = steps * MATRIX_STEP;
    for (int i = 0; i < m->n_runs; i++)
        m->bytes += align(run_quants(&m->runs[i], steps)) + align(run_scales(&m->runs[i], steps));
    return 0;
}

/* ---- the way in ---- */

enum {
    N_SLOTS = 3,          /* one is read into, one is on the bus, one is packed */
    SLOT_BYTES = 4 << 20, /* at first: a tile of rows must fit, and one of this size keeps the bus busy */
};

struct slot {
    void *host;
    cu_ptr card;
    cu_event copied, packed;
    bool used; /* the events were recorded */
};

struct matrix_loader {
    struct gpu *gpu;
    struct pool *pool;
    struct slot slots[N_SLOTS];
    size_t slot_bytes;
    int next;
    uint8_t *scratch; /* per worker: a row of the file, and one of f32 */
    size_t scratch_bytes;
};

/* The first failure of a step goes where those of the stream go, to be told by gpu_wait. */
static void step(struct gpu *g, cu_result r, const char *what) {
    if (r != 0 && g->failed == 0) {
        g->failed = r;
        g->failed_at = what;
    }
}

/* Until nothing that was enqueued touches the slots any more. */
static void drain(struct matrix_loader *l) {
    step(l->gpu, l->gpu->driver->stream_sync(l->gpu->loads), "loading weights");
    step(l->gpu, l->gpu->driver->stream_sync(l->gpu->stream), "loading weights");
}

static void free_slots(struct matrix_loader *l) {
    const struct driver *d = l->gpu->driver;
    drain(l);
    for (int i = 0; i < N_SLOTS; i++) {
        struct slot *s = &l->slots[i];
        gpu_host_free(l->gpu, s->host, l->slot_bytes);
        gpu_free(l->gpu, s->card);
        if (s->copied)
            (void)d->event_destroy(s->copied);
        if (s->packed)
            (void)d->event_destroy(s->packed);
        *s = (struct slot){0};
    }
    l->slot_bytes = 0;
}

static int make_slot(struct matrix_loader *l, struct slot *s, struct err *e) {
    struct gpu *g = l->gpu;
    char why[200];
    if (gpu_host_alloc(g, &s->host, l->slot_bytes, e) != 0 ||
        gpu_alloc_unset(g, &s->card, l->slot_bytes, "weights on their way in", e) != 0)
        return -1;
    cu_result r = g->driver->event_create(&s->copied, CU_EVENT_NO_TIMING);
    if (r == 0)
        r = g->driver->event_create(&s->packed, CU_EVENT_NO_TIMING);
    return r == 0 ? 0
                  : err_set(e, ERR_DEVICE, "GPU %d (%s): events cannot be created: %s", g->ordinal, g->name,
                            driver_error(g->driver, r, why, sizeof why));
}

/* Slots of so many bytes at least. On error there are none, and the next call tries again. */
static int reserve_slots(struct matrix_loader *l, size_t bytes, struct err *e) {
    if (bytes <= l->slot_bytes)
        return 0;
    free_slots(l);
    l->slot_bytes = bytes > SLOT_BYTES ? bytes : SLOT_BYTES;
    for (int i = 0; i < N_SLOTS; i++)
        if (make_slot(l, &l->slots[i], e) != 0) {
            free_slots(l);
            return -1;
        }
    return 0;
}

int matrix_loader_create(struct matrix_loader **out, struct gpu *g, struct err *e) {
    *out = NULL;
    struct matrix_loader *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_MEMORY, "out of memory");
    l->gpu = g;
    gpu_enter(g);
    if (pool_create(&l->pool, 0, e) != 0 || reserve_slots(l, 1, e) != 0) {
        matrix_loader_free(l);
        return -1;
    }
    *out = l;
    return 0;
}

void matrix_loader_free(struct matrix_loader *l) {
    if (!l)
        return;
    gpu_enter(l->gpu);
    free_slots(l);
    pool_free(l->pool);
    free(l->scratch);
    free(l);
}

/* A number of rows of a tensor, being read. */
struct reading {
    const struct matrix_loader *l;
    const struct tensor *t;
    enum dtype type;
    uint32_t first, n;
    size_t row_bytes; /* as type */
    uint8_t *to;
};

static size_t worker_scratch(const struct tensor *t) {
    return (t->row_bytes + t->cols * sizeof(float) + 127) / 64 * 64;
}

/* The rows of one tile. */
static void read_rows(void *ctx, int item, int worker) {
    const struct reading *b = ctx;
    uint8_t *scratch = b->l->scratch + (size_t)worker * worker_scratch(b->t);
    float *f = (float *)(void *)(scratch + (b->t->row_bytes + 63) / 64 * 64);
    uint32_t from = (uint32_t)item * GPU_TILE, to = b->n - from < GPU_TILE ? b->n : from + GPU_TILE;
    for (uint32_t i = from; i < to; i++) {
        const void *row = tensor_row(b->t, b->first + i, scratch);
        uint8_t *dst = b->to + i * b->row_bytes;
        if (b->type == b->t->dtype) {
            memcpy(dst, row, b->row_bytes);
        } else {
            dtype_decode(b->t->dtype, row, b->t->cols, f);
            dtype_encode(b->type, f, b->t->cols, dst);
        }
    }
}

static int reserve_scratch(struct matrix_loader *l, const struct tensor *t, struct err *e) {
    size_t need = worker_scratch(t) * (size_t)pool_threads(l->pool);
    if (need <= l->scratch_bytes)
        return 0;
    free(l->scratch);
    l->scratch = aligned_alloc(64, need);
    l->scratch_bytes = l->scratch ? need : 0;
    return l->scratch ? 0 : err_set(e, ERR_MEMORY, "out of memory loading tensor %s", t->name);
}

static int pack_kernel(enum dtype type) {
    static const int kernels[DT_COUNT] = {
        [DT_F32] = KERNEL_pack_f32,   [DT_F16] = KERNEL_pack_f16,   [DT_BF16] = KERNEL_pack_bf16,
        [DT_Q8_0] = KERNEL_pack_q8_0, [DT_Q4_0] = KERNEL_pack_q4_0, [DT_Q4_K] = KERNEL_pack_q4_K,
        [DT_Q6_K] = KERNEL_pack_q6_K,
    };
    return kernels[type];
}

/* Copies a slot that was filled with the rows of b to the card and packs them there. */
static void send(struct matrix_loader *l, struct slot *s, const struct reading *b, struct pack_args *a) {
    struct gpu *g = l->gpu;
    const struct driver *d = g->driver;
    if (g->failed != 0)
        return;
    step(g, d->copy_to(s->card, s->host, b->n * b->row_bytes, g->loads), "copying weights");
    step(g, d->event_record(s->copied, g->loads), "copying weights");
    step(g, d->stream_wait(g->stream, s->copied, 0), "copying weights");
    a->raw = (const uint8_t *)(uintptr_t)s->card;
    a->rows = (int)b->n;
    gpu_launch(g, pack_kernel(b->type), (unsigned)a->steps, (b->n + GPU_TILE - 1) / GPU_TILE, 1, PACK_THREADS, 0, a);
    step(g, d->event_record(s->packed, g->stream), "packing weights");
    s->used = g->failed == 0;
}

static struct slot *next_slot(struct matrix_loader *l) {
    struct gpu *g = l->gpu;
    struct slot *s = &l->slots[l->next];
    l->next = (l->next + 1) % N_SLOTS;
    if (s->used) {
        step(g, g->driver->event_sync(s->copied), "copying weights");
        step(g, g->driver->stream_wait(g->loads, s->packed, 0), "packing weights");
    }
    s->used = false;
    return s;
}

struct load {
    struct matrix_loader *l;
    const struct gpu_matrix *m;
    int (*progress)(void *ctx, uint64_t bytes);
    void *ctx;
};

static int load_part(const struct load *o, const struct matrix_part *p, struct err *e) {
    struct matrix_loader *l = o->l;
    const struct tensor *t = &p->t;
    const struct gpu_run *run = o->m->runs;
    int tile = p->at / GPU_TILE, stride = o->m->interleaved ? 2 : 1;
    while (tile >= run->tile + run->n_tiles)
        run++;
    struct pack_args a = {
        .cols = (int)t->cols,
        .steps = o->m->cols_padded / MATRIX_STEP,
        .quants = (uint8_t *)(uintptr_t)run->quants,
        .scales = (uint8_t *)(uintptr_t)run->scales,
        .tile = tile - run->tile,
        .tile_stride = stride,
    };
    struct reading b = {.l = l, .t = t, .type = run->type, .row_bytes = dtype_row_bytes(run->type, t->cols)};
    a.row_bytes = b.row_bytes;
    if (reserve_slots(l, b.row_bytes * GPU_TILE, e) != 0 || reserve_scratch(l, t, e) != 0)
        return -1;
    uint32_t most = (uint32_t)(l->slot_bytes / (b.row_bytes * GPU_TILE)) * GPU_TILE;
    most = most < MAX_BATCH ? most : MAX_BATCH;
    uint32_t end = p->first + matrix_part_rows(p);
    for (b.first = p->first; b.first < end; b.first += b.n) {
        b.n = end - b.first < most ? end - b.first : most;
        tensor_will_need(t, b.first, end - b.first < 2 * most ? end : b.first + 2 * most);
        struct slot *s = next_slot(l);
        b.to = s->host;
        pool_run(l->pool, read_rows, &b, (int)((b.n + GPU_TILE - 1) / GPU_TILE));
        send(l, s, &b, &a);
        a.tile += (int)(b.n / GPU_TILE) * stride;
        if (l->gpu->failed != 0)
            return -1;
        if (o->progress && o->progress(o->ctx, (uint64_t)b.n * t->row_bytes) != 0)
            return err_set(e, ERR_IO, "loading was stopped");
    }
    if (end == t->rows) /* rows before these were read by others, and their pages as well are done with */
        tensor_done(t);
    return 0;
}

int matrix_load(struct matrix_loader *l, struct gpu_matrix *m, struct matrix_part *parts, int n_parts, bool interleave,
                enum quant quant, int (*progress)(void *ctx, uint64_t bytes), void *ctx, const char *what,
                struct err *e) {
    struct gpu *g = l->gpu;
    struct load o = {.l = l, .m = m, .progress = progress, .ctx = ctx};
    gpu_enter(g);
    if (matrix_plan(m, parts, n_parts, interleave, quant, e) != 0)
        goto fail;
    /* Packing writes all of it that is read; the matrix before may still be on its way. */
    if (gpu_alloc_unset(g, &m->memory, m->bytes, what, e) != 0)
        goto fail;
    cu_ptr at = m->memory;
    for (int i = 0; i < m->n_runs; i++) {
        struct gpu_run *r = &m->runs[i];
        int steps = m->cols_padded / MATRIX_STEP;
        r->quants = at;
        at += align(run_quants(r, steps));
        r->scales = run_scales(r, steps) ? at : 0;
        at += align(run_scales(r, steps));
    }
    for (int i = 0; i < n_parts; i++)
        if (load_part(&o, &parts[i], e) != 0) {
            drain(l);
            if (g->failed != 0)
                (void)gpu_wait(g, e);
            err_wrap(e, "loading %s", what);
            goto fail;
        }
    return 0;
fail:
    matrix_free(g, m);
    return -1;
}

void matrix_free(struct gpu *g, struct gpu_matrix *m) {
    gpu_free(g, m->memory);
    memset(m, 0, sizeof *m);
}
