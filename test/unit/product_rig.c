#include "test/unit/product_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

float prod_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*state >> 32)) * 0x1p-31f;
}

static void *must(void *p) {
    cr_assert(p);
    return p;
}

struct tensor prod_tensor(enum dtype type, int rows, int cols, uint64_t seed) {
    struct tensor t = {.name = "w", .dtype = type, .rows = (uint32_t)rows, .cols = (uint32_t)cols};
    t.row_bytes = dtype_row_bytes(type, (size_t)cols);
    /* Shared, as a mapped file is: tensor_done gives private pages back. */
    uint8_t *data = mmap(NULL, (size_t)rows * t.row_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(data, MAP_FAILED);
    float *f = must(malloc((size_t)cols * sizeof *f));
    for (int r = 0; r < rows; r++) {
        uint8_t *to = data + (size_t)r * t.row_bytes;
        if (type != DT_Q4_K && type != DT_Q6_K) {
            for (int i = 0; i < cols; i++)
                f[i] = prod_random(&seed) * 0.1f;
            dtype_encode(type, f, (size_t)cols, to);
            continue;
        }
        for (size_t i = 0; i < t.row_bytes; i++)
            to[i] = (uint8_t)(prod_random(&seed) * 128 + 128);
        for (int i = 0; i < cols / 256; i++) { /* block scales that are numbers */
            uint8_t *b = to + (size_t)i * (size_t)dtype_info(type)->block_bytes;
            uint16_t d[2] = {f32_to_f16(prod_random(&seed) * 1e-3f), f32_to_f16(prod_random(&seed) * 1e-3f)};
            memcpy(type == DT_Q4_K ? b : b + 208, d, type == DT_Q4_K ? 4 : 2);
        }
    }
    free(f);
    t.data = data;
    return t;
}

void prod_tensor_free(struct tensor *t) {
    munmap((void *)(uintptr_t)t->data, t->rows * t->row_bytes);
}

void prod_row(const struct tensor *t, int row, double *w) {
    float *f = must(malloc(t->cols * sizeof *f));
    dtype_decode(t->dtype, t->data + (size_t)row * t->row_bytes, t->cols, f);
    for (uint32_t i = 0; i < t->cols; i++)
        w[i] = (double)f[i];
    free(f);
}

/* Planes of x's rows on the card. */
static void put_planes(struct gpu *g, struct prod_x *x) {
    int memory_rows = (x->n + 63) / 64 * 64;
    size_t n = (size_t)memory_rows * (size_t)x->ld;
    uint16_t *hi = must(malloc(n * 2)), *lo = must(malloc(n * 2));
    for (size_t i = 0; i < n; i++) {
        int row = (int)(i / (size_t)x->ld), column = (int)(i % (size_t)x->ld);
        float v = row >= x->n ? NAN : column < x->cols ? x->x[row * x->cols + column] : 0;
        hi[i] = f32_to_bf16(v);
        lo[i] = x->rounded ? 0 : f32_to_bf16(v - bf16_to_f32(hi[i]));
    }
    x->hi = gpu_rig_put(g, hi, n * 2);
    x->lo = gpu_rig_put(g, lo, n * 2);
    free(hi);
    free(lo);
}

struct prod_x prod_x_make(struct gpu *g, int n, int cols, bool rounded, uint64_t seed) {
    struct prod_x x = {.n = n, .cols = cols, .ld = (cols + 63) / 64 * 64, .rounded = rounded};
    x.x = must(malloc((size_t)n * (size_t)cols * sizeof(float)));
    for (int i = 0; i < n * cols; i++)
        x.x[i] = prod_random(&seed) * 3;
    for (int i = 0; rounded && i < n * cols; i++)
        x.x[i] = bf16_to_f32(f32_to_bf16(x.x[i]));
    put_planes(g, &x);
    return x;
}

struct prod_x prod_x_row(struct gpu *g, const struct prod_x *all, int row) {
    struct prod_x x = {.n = 1, .cols = all->cols, .ld = all->ld, .rounded = all->rounded};
    x.x = must(malloc((size_t)x.cols * sizeof(float)));
    memcpy(x.x, all->x + row * all->cols, (size_t)x.cols * sizeof(float));
    put_planes(g, &x);
    return x;
}

void prod_x_free(struct gpu *g, struct prod_x *x) {
    gpu_free(g, x->hi);
    gpu_free(g, x->lo);
    free(x->x);
}

void prod_product(struct gpu *g, const struct gpu_matrix *w, const struct prod_x *x, int bucket, const float *bias,
                  enum product_use use, int ld, const float *before, float *result) {
    int memory_rows = (bucket + 63) / 64 * 64;
    size_t n = (size_t)memory_rows * (size_t)ld, used = (size_t)x->n * (size_t)ld;
    size_t scratch_bytes = op_product_scratch(g, w, bucket);
    float *start = must(malloc((n + scratch_bytes) * sizeof(float))), *end = must(malloc(n * sizeof(float)));
    for (size_t i = 0; i < n + scratch_bytes; i++)
        start[i] = before && i < used ? before[i] : NAN;
    if (use == PRODUCT_GATE && x->rounded)
        memset((uint16_t *)(void *)start + n, 0, n * 2);

    struct gpu_pass pass = {.n_rows = x->n};
    cu_ptr on_card = gpu_rig_put(g, &pass, sizeof pass), to = gpu_rig_put(g, start, n * sizeof(float));
    cu_ptr b = bias ? gpu_rig_put(g, bias, (size_t)w->rows * sizeof(float)) : 0;
    cu_ptr scratch = scratch_bytes ? gpu_rig_put(g, start + n, scratch_bytes) : 0;
    struct product p = {
        .w = w,
        .x = {GPU_AT(uint16_t, x->hi), GPU_AT(uint16_t, x->lo), x->ld, x->rounded},
        .bias = GPU_AT(float, b),
        .use = use,
        .to = GPU_AT(float, to),
        .ld = ld,
        .gated = {GPU_AT(uint16_t, to), GPU_AT(uint16_t, to) + n, ld, x->rounded},
    };
    op_product(g, GPU_AT(struct gpu_pass, on_card), bucket, &p, GPU_AT(float, scratch));
    gpu_rig_wait(g);
    gpu_rig_read(g, end, to, n * sizeof(float));
    if (use == PRODUCT_GATE) {
        const uint16_t *hi = (const uint16_t *)(const void *)end, *lo = hi + n;
        const uint16_t *was = (const uint16_t *)(const void *)start;
        for (size_t i = 0; i < used; i++)
            result[i] = bf16_to_f32(hi[i]) + bf16_to_f32(lo[i]);
        cr_assert(!x->rounded || memcmp(lo, was + n, used * 2) == 0, "lo of rounded planes was written");
        cr_assert_eq(memcmp(hi + used, was + used, (n - used) * 2), 0, "rows behind the last were written");
        cr_assert_eq(memcmp(lo + used, was + n + used, (n - used) * 2), 0, "rows behind the last were written");
    } else {
        memcpy(result, end, used * sizeof(float));
        cr_assert_eq(memcmp(end + used, start + used, (n - used) * sizeof(float)), 0,
                     "rows behind the last were written");
    }
    gpu_free(g, on_card);
    gpu_free(g, to);
    gpu_free(g, b);
    gpu_free(g, scratch);
    free(start);
    free(end);
}
