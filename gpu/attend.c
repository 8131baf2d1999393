/* Launches of norm.cu, rope.cu and attend.cu. */
#include "gpu/attend.h"
#include "gpu/kernel_list.h"
#include "gpu/ops.h"

#include <math.h>

enum {
    SCRATCH_MAX = 1 << 24, /* floats (64 MB) that partial results may take; beyond, blocks go through all splits */
};

static unsigned ceil_div(size_t n, size_t by) {
    return (unsigned)((n + by - 1) / by);
}

void op_rmsnorm(struct gpu *g, const struct gpu_pass *pass, int rows, const float *x, const float *w, int cols,
                float eps, struct planes out) {
    const struct norm_args a = {.pass = pass, .x = x, .w = w, .cols = cols, .eps = eps, .out = out};
    gpu_launch(g, KERNEL_rmsnorm, (unsigned)rows, 1, 1, NORM_THREADS, 0, &a);
}

void op_rope_kv(struct gpu *g, const struct gpu_pass *pass, int rows, const struct attention *t) {
    const struct rope_args a = {.pass = pass,
                                .qkv = t->qkv,
                                .ld = t->ld,
                                .q_at = t->q_at,
                                .k_at = t->k_at,
                                .v_at = t->v_at,
                                .n_heads = t->n_heads,
                                .n_kv_heads = t->n_kv_heads,
                                .head_dim = t->head_dim,
                                .q_norm = t->q_norm,
                                .k_norm = t->k_norm,
                                .eps = t->eps,
                                .k = t->k,
                                .v = t->v,
                                .n_slots = t->n_slots};
    unsigned units = (unsigned)(t->n_heads + t->n_kv_heads);
    gpu_launch(g, KERNEL_rope_kv, (unsigned)rows, ceil_div(units, ROPE_UNITS), 1, ROPE_THREADS, 0, &a);
}

/* ---- items ---- */

static int rows_per_item(int group) {
    return group < GPU_QUERIES ? GPU_QUERIES / group : 1;
}

static int items_per_row(int group) {
    return (group + GPU_QUERIES - 1) / GPU_QUERIES;
}

int op_attend_items(const struct gpu_row *rows, int n, int n_heads, int n_kv_heads, struct gpu_item *items) {
    int group = n_heads / n_kv_heads, most = rows_per_item(group), parts = items_per_row(group), n_items = 0;
    for (int i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && end - i < most && rows[end].trunk == rows[i].trunk;)
            end++;
        for (int part = 0; part < parts; part++)
            items[n_items++] = (struct gpu_item){.row = (uint32_t)i, .n = (uint16_t)(end - i), .part = (uint16_t)part};
    }
    return n_items;
}

int op_attend_max_items(int n_rows, int n_heads, int n_kv_heads) {
    return n_rows * items_per_row(n_heads / n_kv_heads); /* each row of a session of its own */
}

/* ---- attention ---- */

static size_t n_splits_of(uint32_t max_keys) {
    return ((size_t)max_keys + GPU_KV_SPLIT - 1) / GPU_KV_SPLIT;
}

static size_t parts_floats(int rows, int n_heads, int head_dim, size_t n_splits) {
    return (size_t)rows * (size_t)n_heads * n_splits * (size_t)(head_dim + 2);
}

/* Whether splits are blocks of their own. Any answer gives the same bits. */
static bool spread_splits(int rows, int n_heads, int head_dim, size_t n_splits) {
    return rows <= GPU_DECODE_ROWS && n_splits > 1 && n_splits <= UINT16_MAX &&
           parts_floats(rows, n_heads, head_dim, n_splits) <= SCRATCH_MAX;
}

size_t op_attend_scratch(const struct gpu *g, int rows, int n_heads, int n_kv_heads, int head_dim, uint32_t max_keys) {
    (void)g, (void)n_kv_heads;
    /* Passes of fewer rows or keys may spread theirs where this one does not. */
    size_t most =
        parts_floats(rows < GPU_DECODE_ROWS ? rows : GPU_DECODE_ROWS, n_heads, head_dim, n_splits_of(max_keys));
    return most < SCRATCH_MAX ? most : SCRATCH_MAX;
}

/* The kernels, by the head_dim that they hold. */
struct form {
    int head_dim;
    int one, four; /* items a block; -1: there is none */
};
static const struct form forms[] = {
    {32, KERNEL_attend_32, KERNEL_attend_32_4}, {64, KERNEL_attend_64, KERNEL_attend_64_4},
    {96, KERNEL_attend_96, KERNEL_attend_96_4}, {128, KERNEL_attend_128, KERNEL_attend_128_4},
    {GPU_HEAD_DIM_MAX, KERNEL_attend_256, -1},
};

static const struct form *form_for(int head_dim) {
    const struct form *f = forms;
    while (f->head_dim < head_dim)
        f++;
    return f;
}

/* Rows of K, V and the queries in two terms; each of head_dim + 8 elements, so that they meet all banks. */
static size_t shared_bytes(int head_dim, int items) {
    return sizeof(uint16_t) * (size_t)(head_dim + 8) * (size_t)(2 * GPU_KV_BLOCK + 2 * GPU_QUERIES * items);
}

/* Whether a block takes several items: K and V are then read less often, if there are still blocks for the whole card.
 * How many items a pass has is not known here: what rows of one session would make. */
static bool share_keys(const struct gpu *g, int rows, int group, int n_kv_heads, size_t n_blocks_deep) {
    size_t items = (size_t)ceil_div((size_t)rows, (size_t)rows_per_item(group)) * (size_t)items_per_row(group);
    return ceil_div(items, ATTEND_ITEMS) * (size_t)n_kv_heads * n_blocks_deep >= (size_t)g->n_processors;
}

void op_attend(struct gpu *g, const struct gpu_pass *pass, int rows, uint32_t max_keys, const struct attention *t,
               float *scratch) {
    const struct form *form = form_for(t->head_dim);
    int group = t->n_heads / t->n_kv_heads;
    size_t n_splits = n_splits_of(max_keys);
    bool spread = spread_splits(rows, t->n_heads, t->head_dim, n_splits);
    if (!spread)
        n_splits = 1;
    bool share = form->four >= 0 && share_keys(g, rows, group, t->n_kv_heads, n_splits);
    const struct attend_args a = {.pass = pass,
                                  .q = t->qkv + t->q_at,
                                  .ld = t->ld,
                                  .k = t->k,
                                  .v = t->v,
                                  .n_slots = t->n_slots,
                                  .n_heads = t->n_heads,
                                  .group = group,
                                  .head_dim = t->head_dim,
                                  .scale = 0x1.715476p0f / sqrtf((float)t->head_dim),
                                  .window = t->window,
                                  .out = t->out,
                                  .parts = scratch,
                                  .n_splits = (int)n_splits};
    int items = share ? ATTEND_ITEMS : 1;
    unsigned gx = ceil_div((size_t)op_attend_max_items(rows, t->n_heads, t->n_kv_heads), (size_t)items);
    gpu_launch(g, share ? form->four : form->one, gx, (unsigned)t->n_kv_heads, (unsigned)n_splits, ATTEND_THREADS,
               shared_bytes(form->head_dim, items), &a);
    if (spread)
        gpu_launch(g, KERNEL_attend_combine, ceil_div((size_t)rows * (size_t)t->n_heads, COMBINE_QUERIES), 1, 1,
                   COMBINE_THREADS, 0, &a);
}
