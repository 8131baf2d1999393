#include "gpu/kernel_list.h"
#include "gpu/ops.h"
#include "gpu/product_args.h"

/* Kernels of a type, in the order of PRODUCT_FORMS; then WHOLE_128, which some have. */
enum form { NARROW_1X8, NARROW_2X8, NARROW_1X16, NARROW_2X16, SPLIT_32, SPLIT_64, WHOLE_32, WHOLE_64, WHOLE_128 };

/* In the order of PRODUCT_FAST_FORMS: one kernel for split and whole. */
static int fast_kernel_of(enum dtype type, enum form form) {
    static const int first[DT_COUNT] = {
        [DT_F16] = KERNEL_product_f16_fast_32,   [DT_BF16] = KERNEL_product_bf16_fast_32,
        [DT_Q8_0] = KERNEL_product_q8_0_fast_32, [DT_Q4_0] = KERNEL_product_q4_0_fast_32,
        [DT_Q4_K] = KERNEL_product_q4_K_fast_32, [DT_Q6_K] = KERNEL_product_q6_K_fast_32,
    };
    return first[type] + (form == WHOLE_128 ? 2 : form == WHOLE_64 || form == SPLIT_64 ? 1 : 0);
}

static int kernel_of(enum dtype type, enum form form) {
    static const int first[DT_COUNT] = {
        [DT_F32] = KERNEL_product_f32_narrow_1x8,   [DT_F16] = KERNEL_product_f16_narrow_1x8,
        [DT_BF16] = KERNEL_product_bf16_narrow_1x8, [DT_Q8_0] = KERNEL_product_q8_0_narrow_1x8,
        [DT_Q4_0] = KERNEL_product_q4_0_narrow_1x8, [DT_Q4_K] = KERNEL_product_q4_K_narrow_1x8,
        [DT_Q6_K] = KERNEL_product_q6_K_narrow_1x8,
    };
    return first[type] + (int)form;
}
_Static_assert(KERNEL_product_bf16_whole_128 == KERNEL_product_bf16_narrow_1x8 + WHOLE_128, "another order");
_Static_assert(KERNEL_product_bf16_fast_128 == KERNEL_product_bf16_fast_32 + 2, "another order");

/* Partial sums of the split form stay in the second-level cache, about, or it is not worth it. */
enum { MAX_PARTIALS = 32 << 20 };

static size_t partial_bytes(const struct gpu_run *r, int steps, int rows) {
    return (size_t)matrix_segments(steps) * (size_t)rows * (size_t)r->n_tiles * GPU_TILE * sizeof(float);
}

/* Rows of the pass in a block. */
static int form_rows(enum form f) {
    return f == WHOLE_128 ? 128 : f == SPLIT_64 || f == WHOLE_64 ? 64 : 32;
}

static unsigned blocks(int n, int each) {
    return (unsigned)((n + each - 1) / each);
}

/* The form that fills the card best. All give the same bits. */
static enum form choose(const struct gpu *g, const struct gpu_run *r, int steps, int rows, int terms, bool gate) {
    unsigned want = (unsigned)g->n_processors;
    if (rows <= 16) {
        bool two = gate || blocks(r->n_tiles, 2) >= 4 * want;
        return rows <= 8 ? (two ? NARROW_2X8 : NARROW_1X8) : two ? NARROW_2X16 : NARROW_1X16;
    }
    unsigned tiles = blocks(r->n_tiles, PRODUCT_BLOCK_TILES);
    if (rows > 64 && product_has_128(r->type, terms) && tiles * blocks(rows, 128) >= want)
        return WHOLE_128;
    bool narrow = rows <= 32;
    bool whole = tiles * blocks(rows, narrow ? 32 : 64) >= want || matrix_segments(steps) == 1 ||
                 partial_bytes(r, steps, rows) > MAX_PARTIALS;
    return narrow ? (whole ? WHOLE_32 : SPLIT_32) : whole ? WHOLE_64 : SPLIT_64;
}

size_t op_product_scratch(const struct gpu *g, const struct gpu_matrix *w, int rows) {
    size_t most = 0;
    (void)g;
    if (rows <= 16)
        return 0;
    for (int i = 0; i < w->n_runs; i++) {
        size_t each = partial_bytes(&w->runs[i], w->cols_padded / MATRIX_STEP, 1), n = MAX_PARTIALS / each;
        n = n < (size_t)rows ? n : (size_t)rows;
        most = n * each > most ? n * each : most;
    }
    return most;
}

static void launch(struct gpu *g, enum dtype type, enum form form, int rows, int terms, const struct product_args *a) {
    if (form <= NARROW_2X16) {
        int tiles = form == NARROW_2X8 || form == NARROW_2X16 ? 2 : 1;
        gpu_launch(g, kernel_of(type, form), blocks(a->n_tiles, tiles), 1, 1, (unsigned)a->n_segments * 32, 0, a);
        return;
    }
    int n = form_rows(form), kernel = terms == 1 ? fast_kernel_of(type, form) : kernel_of(type, form);
    bool split = form == SPLIT_32 || form == SPLIT_64;
    size_t shared = (size_t)product_stages(type, n, terms) * (size_t)product_stage_bytes(type, n, terms);
    gpu_launch(g, kernel, blocks(rows, n), blocks(a->n_tiles, PRODUCT_BLOCK_TILES), split ? (unsigned)a->n_segments : 1,
               (unsigned)product_threads(type, n), shared, a);
    if (!split)
        return;
    int results = a->use == USE_GATE ? a->n_tiles / 2 * GPU_TILE : a->n_tiles * GPU_TILE;
    gpu_launch(g, KERNEL_product_combine, blocks(results, PRODUCT_COMBINE_THREADS), (unsigned)rows, 1,
               PRODUCT_COMBINE_THREADS, 0, a);
}

_Static_assert((int)USE_STORE == PRODUCT_STORE && (int)USE_ADD == PRODUCT_ADD && (int)USE_GATE == PRODUCT_GATE, "");

void op_product(struct gpu *g, const struct gpu_pass *pass, int rows, const struct product *p, float *scratch) {
    const struct gpu_matrix *w = p->w;
    int steps = w->cols_padded / MATRIX_STEP;
    for (int i = 0; i < w->n_runs; i++) {
        const struct gpu_run *r = &w->runs[i];
        int first = r->tile * GPU_TILE, terms = p->x.rounded && product_has_fast(r->type) ? 1 : 2;
        struct product_args a = {
            .quants = (const uint8_t *)(uintptr_t)r->quants,
            .scales = (const uint8_t *)(uintptr_t)r->scales,
            .n_tiles = r->n_tiles,
            .steps = steps,
            .segment_steps = matrix_segment_steps(steps),
            .n_segments = matrix_segments(steps),
            .x = p->x,
            .pass = pass,
            .bias = p->bias ? p->bias + first : NULL,
            .use = (int)p->use,
            .to = p->to,
            .first = first,
            .ld = p->ld,
            .gated = p->gated,
            .partials = scratch,
            .partial_rows = rows,
        };
        launch(g, r->type, choose(g, r, steps, rows, terms, p->use == PRODUCT_GATE), rows, terms, &a);
    }
}
