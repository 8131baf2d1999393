/* Products alone: launches in a row, each with the next of several copies of the weights, which together exceed the
 * card's cache. */
#include "cmd/bench/card.h"

#include "cmd/engine/device.h"
#include "gpu/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 5, IN_A_ROW = 16, MAX_COPIES = 16, MAX_PARTS = 3, HEAD_ROWS = 64 };
#define ROTATE_BYTES ((size_t)512 << 20)
#define BLOCK_BYTES  ((size_t)4 << 20)

/* A matrix of the model as the backend stacks it. */
struct shape {
    const char *name;
    int rows[MAX_PARTS], n_parts, cols;
    enum product_use use;
    int max_rows; /* 0: no bound */
};

struct products {
    struct card_bench *b;
    struct gpu_matrix copies[MAX_COPIES];
    int n_copies, next;
    uint8_t *data;                     /* of the tensors */
    cu_ptr planes, out, pass, scratch; /* activations, results */
    size_t plane_bytes, out_bytes;
};

/* Finite weights in every type: small f16 scales, anything for quants. As bench --kernels makes them for the CPU. */
static void fill_block(uint8_t *p, size_t bytes, enum dtype t) {
    const struct dtype_info *info = dtype_info(t);
    uint32_t seed = 7;
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (uint8_t)(seed >> 24);
    }
    size_t block = (size_t)info->block_bytes, d = t == DT_Q6_K ? 208 : 0;
    for (size_t at = 0; at + block <= bytes; at += block) {
        if (t == DT_F32 || t == DT_BF16 || t == DT_F16) {
            p[at + block - 1] = (uint8_t)((t == DT_F16 ? 0x24 : 0x3c) | (p[at] & 0x80));
            continue;
        }
        p[at + d + 1] = 0x24;
        if (t == DT_Q4_K)
            p[at + 3] = 0x24;
    }
}

/* Rows of whole blocks repeat after BLOCK_BYTES or so. */
static int fill_data(struct products *p, size_t bytes, enum dtype t, struct err *e) {
    size_t block = BLOCK_BYTES / (size_t)dtype_info(t)->block_bytes * (size_t)dtype_info(t)->block_bytes;
    block = block < bytes ? block : bytes;
    p->data = malloc(bytes > 0 ? bytes : 1);
    if (!p->data)
        return err_set(e, ERR_MEMORY, "out of memory for %zu MB of weights", bytes >> 20);
    fill_block(p->data, block, t);
    for (size_t at = block; at < bytes; at += block)
        memcpy(p->data + at, p->data, bytes - at < block ? bytes - at : block);
    return 0;
}

static void unload(struct products *p) {
    for (int i = 0; i < p->n_copies; i++)
        matrix_free(p->b->g, &p->copies[i]);
    p->n_copies = 0;
    free(p->data);
    p->data = NULL;
}

static int load(struct products *p, const struct shape *s, enum dtype t, struct err *e) {
    struct matrix_part parts[MAX_PARTS] = {0};
    struct matrix_loader *loader = NULL;
    struct gpu_matrix plan;
    size_t row = dtype_row_bytes(t, (size_t)s->cols), rows = 0;
    bool interleave = s->use == PRODUCT_GATE;
    for (int i = 0; i < s->n_parts; i++)
        rows = (size_t)s->rows[i] > rows ? (size_t)s->rows[i] : rows;
    if (fill_data(p, rows * row, t, e) != 0)
        return -1;
    for (int i = 0; i < s->n_parts; i++) {
        parts[i].t = (struct tensor){
            .dtype = t, .rows = (uint32_t)s->rows[i], .cols = (uint32_t)s->cols, .row_bytes = row, .data = p->data};
        snprintf(parts[i].t.name, sizeof parts[i].t.name, "bench.%s.%d", s->name, i);
    }
    int rc = matrix_plan(&plan, parts, s->n_parts, interleave, QUANT_NONE, e);
    if (rc == 0)
        rc = matrix_loader_create(&loader, p->b->g, e);
    size_t n = rc == 0 ? ROTATE_BYTES / plan.bytes + 2 : 0;
    for (size_t i = 0; i < n && i < MAX_COPIES && rc == 0; i++) {
        struct gpu_matrix m;
        rc = matrix_plan(&m, parts, s->n_parts, interleave, QUANT_NONE, e);
        if (rc == 0)
            rc = matrix_load(loader, &m, parts, s->n_parts, interleave, QUANT_NONE, NULL, NULL,
                             "weights to measure with", e);
        if (rc == 0)
            p->copies[p->n_copies++] = m;
    }
    matrix_loader_free(loader);
    free(p->data);
    p->data = NULL;
    return rc;
}

/* hi at the beginning of the memory, lo in its second half. */
static struct planes planes_at(const struct products *p, cu_ptr at, size_t bytes, int ld) {
    return (struct planes){.hi = (uint16_t *)(uintptr_t)at,
                           .lo = (uint16_t *)(uintptr_t)(at + bytes / 2),
                           .ld = ld,
                           .rounded = p->b->o->math == MATH_FAST};
}

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static void enqueue(struct products *p, const struct shape *s, int rows, int times) {
    for (int i = 0; i < times; i++) {
        const struct gpu_matrix *w = &p->copies[p->next++ % p->n_copies];
        struct product job = {.w = w, .x = planes_at(p, p->planes, p->plane_bytes, w->cols_padded), .use = s->use};
        if (s->use == PRODUCT_GATE)
            job.gated = planes_at(p, p->out, p->out_bytes, (int)up((size_t)s->rows[0], 64));
        else {
            job.to = (float *)(uintptr_t)p->out;
            job.ld = w->rows;
        }
        op_product(p->b->g, (const struct gpu_pass *)(uintptr_t)p->pass, rows, &job, (float *)(uintptr_t)p->scratch);
    }
}

/* Milliseconds of one product: the best round. Few rows are enqueued as the backend does it, as one recorded graph. */
static int time_one(struct products *p, const struct shape *s, int rows, double *best, struct err *e) {
    struct gpu *g = p->b->g;
    int times = rows <= GPU_DECODE_ROWS ? IN_A_ROW : 2;
    cu_graph_exec recorded = NULL;
    if (rows <= GPU_DECODE_ROWS) {
        gpu_record_begin(g);
        enqueue(p, s, rows, times);
        recorded = gpu_record_end(g);
    }
    int rc = 0;
    *best = 0;
    for (int round = -1; round < ROUNDS && rc == 0; round++) {
        double ms;
        gpu_clock_begin(&p->b->clock, g);
        if (recorded)
            gpu_replay(g, recorded);
        else
            enqueue(p, s, rows, times);
        rc = gpu_clock_end(&p->b->clock, g, &ms, e);
        ms /= times;
        if (rc == 0 && round >= 0 && (*best == 0 || ms < *best))
            *best = ms;
    }
    if (recorded)
        gpu_forget(g, recorded);
    return rc;
}

/* Activations of one size for all: bf16 values around 1 in both planes; where they are rounded, lo stays zero. */
static int fill_planes(struct products *p, struct err *e) {
    struct gpu *g = p->b->g;
    void *host = NULL;
    size_t bytes = p->b->o->math == MATH_FAST ? p->plane_bytes / 2 : p->plane_bytes;
    if (gpu_host_alloc(g, &host, BLOCK_BYTES, e) != 0)
        return -1;
    fill_block(host, BLOCK_BYTES, DT_BF16);
    for (size_t at = 0; at < bytes; at += BLOCK_BYTES)
        gpu_copy_to(g, p->planes + at, host, bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES);
    int rc = gpu_wait(g, e);
    gpu_host_free(g, host, BLOCK_BYTES);
    return rc;
}

static int set_rows(struct products *p, int rows, struct err *e) {
    struct gpu *g = p->b->g;
    void *host = NULL;
    if (gpu_host_alloc(g, &host, sizeof(struct gpu_pass), e) != 0)
        return -1;
    *(struct gpu_pass *)host = (struct gpu_pass){.n_rows = rows};
    gpu_copy_to(g, p->pass, host, sizeof(struct gpu_pass));
    int rc = gpu_wait(g, e);
    gpu_host_free(g, host, sizeof(struct gpu_pass));
    return rc;
}

static int time_all(struct products *p, const char *model, const struct shape *s, enum dtype t, struct err *e) {
    struct card_bench *b = p->b;
    double outputs = 0;
    for (int i = 0; i < s->n_parts; i++)
        outputs += s->rows[i];
    for (int i = 0; i < b->n_rows; i++) {
        int rows = b->rows[i];
        double ms;
        if (s->max_rows && rows > s->max_rows)
            break;
        if (set_rows(p, rows, e) != 0)
            return -1;
        size_t scratch = op_product_scratch(b->g, &p->copies[0], rows);
        if (scratch && gpu_alloc(b->g, &p->scratch, scratch, "sums of a product", e) != 0)
            return -1;
        int rc = time_one(p, s, rows, &ms, e);
        gpu_free(b->g, p->scratch);
        p->scratch = 0;
        struct card_result *r = rc == 0 ? card_add(b) : NULL;
        if (r) {
            *r = (struct card_result){.model = model,
                                      .rows = rows,
                                      .ms = ms,
                                      .bytes = (double)p->copies[0].bytes,
                                      .flop = 2.0 * outputs * s->cols * rows};
            snprintf(r->what, sizeof r->what, "%s %s%s", s->name, dtype_info(t)->name, card_math(b));
        }
        if (rc != 0 || card_step(b, e) != 0)
            return -1;
    }
    return 0;
}

int card_products(struct card_bench *b, const char *model, const struct model_config *c, struct err *e) {
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const struct shape shapes[] = {
        {"q+k+v", {q, kv, kv}, 3, c->hidden, PRODUCT_STORE, 0},       {"o", {c->hidden}, 1, q, PRODUCT_ADD, 0},
        {"gate+up", {c->ffn, c->ffn}, 2, c->hidden, PRODUCT_GATE, 0}, {"down", {c->hidden}, 1, c->ffn, PRODUCT_ADD, 0},
        {"head", {c->vocab}, 1, c->hidden, PRODUCT_STORE, HEAD_ROWS},
    };
    static const enum dtype others[] = {DT_F16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K};
    enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_OTHERS = sizeof others / sizeof *others };
    struct products p = {.b = b};
    size_t rows = up((size_t)b->rows[b->n_rows - 1], 64), head = rows < HEAD_ROWS ? rows : HEAD_ROWS;
    size_t cols = up((size_t)(c->ffn > c->hidden ? c->ffn : c->hidden > q ? c->hidden : q), 64);
    size_t widest = up((size_t)(q + 2 * kv > c->hidden ? q + 2 * kv : c->hidden), 64);
    widest = widest > cols ? widest : cols;
    size_t out = rows * widest * 4, head_out = head * up((size_t)c->vocab, 64) * 4;
    int rc = -1;
    b->all += (uint64_t)(N_SHAPES + N_OTHERS) * (uint64_t)b->n_rows;
    gpu_enter(b->g);
    p.plane_bytes = rows * cols * 4;
    p.out_bytes = out > head_out ? out : head_out;
    if (gpu_alloc(b->g, &p.planes, p.plane_bytes, "activations", e) != 0 ||
        gpu_alloc(b->g, &p.out, p.out_bytes, "results", e) != 0 ||
        gpu_alloc(b->g, &p.pass, sizeof(struct gpu_pass), "a pass", e) != 0 || fill_planes(&p, e) != 0)
        goto out;
    for (int i = 0; i < N_SHAPES + N_OTHERS; i++) {
        enum dtype t = i < N_SHAPES ? DT_BF16 : others[i - N_SHAPES];
        const struct shape *s = &shapes[i < N_SHAPES ? i : 2];
        if (s->cols % dtype_info(t)->block != 0)
            continue;
        if (load(&p, s, t, e) != 0 || time_all(&p, model, s, t, e) != 0)
            goto out;
        unload(&p);
    }
    rc = 0;
out:
    unload(&p);
    gpu_free(b->g, p.planes);
    gpu_free(b->g, p.out);
    gpu_free(b->g, p.pass);
    return rc;
}
