/* Launches of norm.cu, join.cu, rope.cu and attend.cu. */
#include "gpu/attend.h"

#include "core/model/e4m3.h"
#include "gpu/kernel_list.h"
#include "gpu/ops.h"

#include <math.h>

enum {
    SCRATCH_MAX =
        1 << 24, /* floats (64 MB) that partial results may take; when all splits need more, they take turns */
};

static unsigned ceil_div(size_t n, size_t by) {
    return (unsigned)((n + by - 1) / by);
}

void op_rmsnorm(struct gpu *g, const struct gpu_pass *pass, int rows, const float *x, int slice, const float *w,
                int cols, float eps, struct planes out) {
    const struct norm_args a = {.pass = pass,
                                .x = x,
                                .w = w,
                                .cols = cols,
                                .slice = slice,
                                .skip = (size_t)(rows - 1) * (size_t)slice,
                                .eps = eps,
                                .out = out};
    gpu_launch(g, KERNEL_rmsnorm, (unsigned)rows, 1, 1, NORM_THREADS, 0, &a);
}

/* ---- joining ---- */

int op_join_ld(int each) {
    return (each + JOIN_COLUMNS - 1) / JOIN_COLUMNS * JOIN_COLUMNS;
}

size_t op_join_block(int rows, int each) {
    return 2 * (size_t)rows * (size_t)op_join_ld(each) * sizeof(uint16_t);
}

void op_join(struct gpu *g, const struct gpu_pass *pass, int rows, const uint16_t *blocks, int n, int each,
             struct planes out) {
    const struct join_args a = {.pass = pass,
                                .blocks = blocks,
                                .n = n,
                                .each = each,
                                .ld = op_join_ld(each),
                                .plane = (size_t)rows * (size_t)op_join_ld(each),
                                .out = out};
    gpu_launch(g, KERNEL_join, (unsigned)rows, ceil_div((size_t)out.ld, (size_t)JOIN_COLUMNS * JOIN_THREADS), 1,
               JOIN_THREADS, 0, &a);
}

/* ---- RoPE ---- */

size_t op_kv_row(int head_dim) {
    return ((size_t)head_dim + E4M3_ALIGN - 1) / E4M3_ALIGN * E4M3_ALIGN;
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
                                .factors = t->factors,
                                .n_slots = t->n_slots,
                                .kv_row = (int)op_kv_row(t->head_dim)};
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

/* Partial results of one split. */
static size_t part_floats(int rows, int n_heads, int head_dim) {
    return (size_t)rows * (size_t)n_heads * (size_t)(head_dim + 2);
}

size_t op_attend_scratch(const struct gpu *g, int rows, int n_heads, int n_kv_heads, int head_dim, uint32_t max_keys) {
    (void)g, (void)n_kv_heads;
    size_t all = part_floats(rows, n_heads, head_dim) * n_splits_of(max_keys);
    return all < SCRATCH_MAX ? all : SCRATCH_MAX;
}

/* The kernels, by the head_dim that they hold. */
struct form {
    int head_dim;
    int one, four; /* items a block; -1: there is none */
};
static const struct form f16_forms[] = {
    {32, KERNEL_attend_32, KERNEL_attend_32_4}, {64, KERNEL_attend_64, KERNEL_attend_64_4},
    {96, KERNEL_attend_96, KERNEL_attend_96_4}, {128, KERNEL_attend_128, KERNEL_attend_128_4},
    {GPU_HEAD_DIM_MAX, KERNEL_attend_256, -1},
};
static const struct form fp8_forms[] = {
    {64, KERNEL_attend_fp8_64, KERNEL_attend_fp8_64_4},
    {128, KERNEL_attend_fp8_128, KERNEL_attend_fp8_128_4},
    {GPU_HEAD_DIM_MAX, KERNEL_attend_fp8_256, -1},
};

static const struct form *form_for(const struct attention *t) {
    const struct form *f = t->factors ? fp8_forms : f16_forms;
    while (f->head_dim < t->head_dim)
        f++;
    return f;
}

/* Rows of K, of V, and of the queries in two terms, each with 8 elements more, so that they meet all banks. Of fp8
 * there are the codes of both, and K and V share a place. */
static size_t shared_bytes(int head_dim, int items, bool fp8) {
    size_t hd = (size_t)head_dim, keys = GPU_KV_BLOCK, queries = (size_t)items * GPU_QUERIES;
    size_t rows = (fp8 ? 1 : 2) * keys + 2 * queries;
    return sizeof(uint16_t) * (hd + 8) * rows + (fp8 ? 2 * keys * hd : 0);
}

/* How the work is cut. Whatever is chosen, the bits are the same. */
struct cut {
    int items;  /* of a block */
    int spread; /* splits of a launch, each a block of its own; 0: a block goes through all */
};

/* How many items a pass has is not known here; counted is what rows of one session make. */
static struct cut choose_cut(const struct gpu *g, const struct form *form, int rows, const struct attention *t,
                             size_t n_splits) {
    struct cut c = {.items = 1};
    int group = t->n_heads / t->n_kv_heads;
    size_t items = (size_t)ceil_div((size_t)rows, (size_t)rows_per_item(group)) * (size_t)items_per_row(group);
    size_t enough = (size_t)g->n_processors, part = part_floats(rows, t->n_heads, t->head_dim);
    size_t blocks = items * (size_t)t->n_kv_heads, room = SCRATCH_MAX / part;

    /* Few rows do not fill the card, unless each split is a block. */
    if (n_splits > 1 && (rows <= GPU_DECODE_ROWS || ceil_div(blocks, ATTEND_ITEMS) < enough) && room >= 2) {
        c.spread = (int)(n_splits <= room ? n_splits : room - 1);
        if (c.spread > UINT16_MAX)
            c.spread = UINT16_MAX - 1;
        blocks *= (size_t)c.spread;
    }
    /* Items that share a block read keys and values once for all, but the blocks are fewer. */
    if (form->four >= 0 && ceil_div(blocks, ATTEND_ITEMS) >= enough)
        c.items = ATTEND_ITEMS;
    return c;
}

void op_attend(struct gpu *g, const struct gpu_pass *pass, int rows, uint32_t max_keys, const struct attention *t,
               float *scratch) {
    const struct form *form = form_for(t);
    int n_splits = (int)n_splits_of(max_keys);
    struct cut cut = choose_cut(g, form, rows, t, (size_t)n_splits);
    struct attend_args a = {.pass = pass,
                            .q = t->qkv + t->q_at,
                            .ld = t->ld,
                            .k = t->k,
                            .v = t->v,
                            .factors = t->factors,
                            .n_slots = t->n_slots,
                            .kv_row = (int)op_kv_row(t->head_dim),
                            .n_heads = t->n_heads,
                            .group = t->n_heads / t->n_kv_heads,
                            .head_dim = t->head_dim,
                            .scale = 0x1.715476p0f / sqrtf((float)t->head_dim),
                            .window = t->window,
                            .out = t->out,
                            .spread = cut.spread > 0,
                            .parts = scratch,
                            .n_parts = cut.spread + (cut.spread < n_splits)};
    int kernel = cut.items > 1 ? form->four : form->one;
    unsigned gx = ceil_div((size_t)op_attend_max_items(rows, t->n_heads, t->n_kv_heads), (size_t)cut.items);
    unsigned gy = (unsigned)t->n_kv_heads, queries = ceil_div((size_t)rows * (size_t)t->n_heads, COMBINE_QUERIES);
    size_t shared = shared_bytes(form->head_dim, cut.items, t->factors);
    if (!a.spread) {
        gpu_launch(g, kernel, gx, gy, 1, ATTEND_THREADS, shared, &a);
        return;
    }
    for (; a.split < n_splits; a.split += cut.spread) {
        int n = n_splits - a.split < cut.spread ? n_splits - a.split : cut.spread;
        a.begin = a.split == 0;
        a.end = a.split + n == n_splits;
        gpu_launch(g, kernel, gx, gy, (unsigned)n, ATTEND_THREADS, shared, &a);
        gpu_launch(g, KERNEL_attend_combine, queries, 1, 1, COMBINE_THREADS, 0, &a);
    }
}
