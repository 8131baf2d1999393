#include "core/model/weights.h"
#include "test/unit/product_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gpu *g;
static struct matrix_loader *loader;

static void start(void) {
    struct err e = {0};
    g = gpu_rig_open();
    cr_assert_eq(matrix_loader_create(&loader, g, &e), 0, "%s", e.msg);
}
static void finish(void) {
    if (!g)
        return;
    matrix_loader_free(loader);
    gpu_rig_close(g);
}
TestSuite(gpu_matrix, .init = start, .fini = finish);

static void *must(void *p) {
    cr_assert(p);
    return p;
}

/* Row r of y = W x for one row x of ones and halves in turn, so that a wrong column shows as well. */
static double expected(const struct tensor *t, int r) {
    double *w = must(malloc(t->cols * sizeof *w)), sum = 0;
    prod_row(t, r, w);
    for (uint32_t c = 0; c < t->cols; c++)
        sum += w[c] * (c % 2 ? 0.5 : 1);
    free(w);
    return sum;
}

/* That every row of the parts lies where matrix_row says, and zeros between them. */
static void check(const struct gpu_matrix *m, const struct matrix_part *parts, int n_parts, double tolerance) {
    struct prod_x x = prod_x_make(g, 1, m->cols, false, 1);
    for (int c = 0; c < x.cols; c++)
        x.x[c] = c % 2 ? 0.5f : 1;
    struct prod_x ones = prod_x_row(g, &x, 0);
    float *y = must(malloc((size_t)m->rows * sizeof *y));
    bool *seen = must(calloc((size_t)m->rows, sizeof *seen));
    prod_product(g, m, &ones, 1, NULL, PRODUCT_STORE, m->rows, NULL, y);
    for (int p = 0; p < n_parts; p++)
        for (int r = 0; r < (int)parts[p].t.rows; r++) {
            int at = matrix_row(m, &parts[p], r);
            double sum = expected(&parts[p].t, r);
            cr_assert_float_eq((double)y[at], sum, tolerance, "part %d, row %d: %g, not %g", p, r, (double)y[at], sum);
            cr_assert(!seen[at]);
            seen[at] = true;
        }
    for (int r = 0; r < m->rows; r++)
        cr_assert(seen[r] || y[r] == 0.0f);
    prod_x_free(g, &x);
    prod_x_free(g, &ones);
    free(y);
    free(seen);
}

static struct gpu_matrix load(struct matrix_part *parts, int n, bool interleave, enum quant quant) {
    struct err e = {0};
    struct gpu_matrix m;
    cr_assert_eq(matrix_load(loader, &m, parts, n, interleave, quant, NULL, NULL, "a matrix", &e), 0, "%s", e.msg);
    return m;
}

/* q, k and v as files mix them: equal neighbours are one run, every part begins with a tile of its own. */
Test(gpu_matrix, stacks_parts_of_several_types) {
    struct matrix_part parts[3] = {{.t = prod_tensor(DT_Q4_K, 40, 256, 1)},
                                   {.t = prod_tensor(DT_Q4_K, 9, 256, 2)},
                                   {.t = prod_tensor(DT_Q6_K, 17, 256, 3)}};
    struct gpu_matrix m = load(parts, 3, false, QUANT_NONE);
    cr_assert_eq(m.n_runs, 2);
    cr_assert(m.runs[0].type == DT_Q4_K && m.runs[0].n_tiles == 4);
    cr_assert(m.runs[1].type == DT_Q6_K && m.runs[1].tile == 4 && m.runs[1].n_tiles == 2);
    cr_assert(m.rows == 96 && parts[1].at == 48 && parts[2].at == 64);
    check(&m, parts, 3, 1e-3);
    matrix_free(g, &m);
    for (int i = 0; i < 3; i++)
        prod_tensor_free(&parts[i].t);
}

Test(gpu_matrix, interleaved_parts_of_two_types_become_f32) {
    struct matrix_part parts[2] = {{.t = prod_tensor(DT_Q4_K, 40, 256, 1)}, {.t = prod_tensor(DT_Q6_K, 40, 256, 2)}};
    struct gpu_matrix m = load(parts, 2, true, QUANT_NONE);
    cr_assert(m.n_runs == 1 && m.runs[0].type == DT_F32 && m.rows == 96);
    cr_assert_eq(matrix_row(&m, &parts[1], 17), 49);
    check(&m, parts, 2, 1e-3);
    matrix_free(g, &m);
    for (int i = 0; i < 2; i++)
        prod_tensor_free(&parts[i].t);
}

Test(gpu_matrix, takes_columns_and_rows_of_any_number) {
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    static const int shapes[][2] = {{1, 1}, {33, 33}, {16, 65}, {17, 129}, {5, 96}};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++) {
            struct matrix_part part = {.t = prod_tensor(types[i], shapes[j][0], shapes[j][1], 7)};
            struct gpu_matrix m = load(&part, 1, false, QUANT_Q8);
            cr_assert_eq(m.runs[0].type, shapes[j][1] == 96 ? DT_Q8_0 : types[i], "33 columns are no blocks");
            check(&m, &part, 1, shapes[j][1] == 96 ? 0.05 : 1e-4);
            matrix_free(g, &m);
            prod_tensor_free(&part.t);
        }
}

/* What re-encoding gives is what dtype_encode gives. */
Test(gpu_matrix, encodes_for_quant) {
    static const struct {
        enum dtype from;
        enum quant quant;
        enum dtype to;
    } cases[] = {
        {DT_BF16, QUANT_Q8, DT_Q8_0}, {DT_F32, QUANT_Q4, DT_Q4_0},  {DT_Q8_0, QUANT_Q4, DT_Q4_0},
        {DT_Q6_K, QUANT_Q4, DT_Q4_0}, {DT_Q4_K, QUANT_Q4, DT_Q4_K}, {DT_Q8_0, QUANT_Q8, DT_Q8_0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct matrix_part from = {.t = prod_tensor(cases[i].from, 50, 256, 7)};
        struct matrix_part to = {.t = prod_tensor(cases[i].to, 50, 256, 7)};
        float f[256];
        for (int r = 0; r < 50 && cases[i].from != cases[i].to; r++) {
            dtype_decode(cases[i].from, from.t.data + (size_t)r * from.t.row_bytes, 256, f);
            dtype_encode(cases[i].to, f, 256, (uint8_t *)(uintptr_t)to.t.data + (size_t)r * to.t.row_bytes);
        }
        struct gpu_matrix m = load(&from, 1, false, cases[i].quant);
        cr_assert_eq(m.runs[0].type, cases[i].to);
        check(&m, &to, 1, 1e-3);
        matrix_free(g, &m);
        prod_tensor_free(&from.t);
        prod_tensor_free(&to.t);
    }
}

/* A GGUF file's rows of q and k are in another order; those of a generated model are nowhere in memory. */
Test(gpu_matrix, takes_rows_as_tensor_row_gives_them) {
    struct matrix_part parts[2] = {{.t = prod_tensor(DT_BF16, 64, 64, 1)}, {.t = prod_tensor(DT_BF16, 64, 64, 1)}};
    parts[0].t.permute_heads = 2;
    for (uint32_t r = 0; r < 64; r++)
        memcpy((uint8_t *)(uintptr_t)parts[1].t.data + r * 128, tensor_row(&parts[0].t, r, NULL), 128);
    cr_assert_neq(memcmp(parts[0].t.data, parts[1].t.data, 64 * 128), 0);
    struct gpu_matrix m = load(parts, 1, false, QUANT_NONE);
    check(&m, parts + 1, 1, 1e-4);
    matrix_free(g, &m);
    for (int i = 0; i < 2; i++)
        prod_tensor_free(&parts[i].t);

    struct err e = {0};
    struct weights *w;
    struct tensor t;
    cr_assert_eq(weights_open(&w, "random:qwen2.5-0.5b/1", &e), 0, "%s", e.msg);
    const struct model_config *c = weights_config(w);
    cr_assert_eq(weights_get(w, "model.layers.0.self_attn.k_proj.weight", (uint32_t)(c->n_kv_heads * c->head_dim),
                             (uint32_t)c->hidden, &t, &e),
                 0, "%s", e.msg);
    cr_assert_null(t.data);
    struct matrix_part generated = {.t = t}, copy = {.t = prod_tensor(t.dtype, (int)t.rows, (int)t.cols, 1)};
    uint8_t *scratch = must(malloc(t.row_bytes));
    for (uint32_t r = 0; r < t.rows; r++)
        memcpy((uint8_t *)(uintptr_t)copy.t.data + r * t.row_bytes, tensor_row(&t, r, scratch), t.row_bytes);
    m = load(&generated, 1, false, QUANT_NONE);
    check(&m, &copy, 1, 1e-3);
    matrix_free(g, &m);
    prod_tensor_free(&copy.t);
    free(scratch);
    weights_close(w);
}

/* More rows than all slots hold, more bytes a row than a slot holds a tile of, and what progress hears of it. */
struct progress {
    uint64_t bytes;
    int calls, stop_at;
};
static int progress(void *ctx, uint64_t bytes) {
    struct progress *p = ctx;
    p->bytes += bytes;
    return ++p->calls == p->stop_at;
}

Test(gpu_matrix, streams_more_than_its_slots_hold) {
    struct err e = {0};
    struct progress p = {0};
    struct gpu_matrix m;
    struct matrix_part part = {.t = prod_tensor(DT_BF16, 524, 16384, 7)};
    cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, progress, &p, "a matrix", &e), 0, "%s", e.msg);
    cr_assert(p.calls >= 5 && p.bytes == 524 * part.t.row_bytes, "%d calls, %lu bytes", p.calls, p.bytes);
    /* Its last rows, the only ones that a small product looks at. */
    struct gpu_matrix end = m;
    end.rows = end.runs[0].n_tiles = 1;
    end.runs[0].quants += (cu_ptr)(m.runs[0].n_tiles - 1) * 16 * 16384 * 2;
    struct prod_x x = prod_x_make(g, 1, 16384, false, 5);
    float y[12];
    prod_product(g, &end, &x, 1, NULL, PRODUCT_STORE, 12, NULL, y);
    for (int r = 0; r < 12; r++) {
        double *w = must(malloc(16384 * sizeof *w)), sum = 0;
        prod_row(&part.t, 512 + r, w);
        for (int c = 0; c < 16384; c++)
            sum += w[c] * (double)x.x[c];
        cr_assert_float_eq((double)y[r], sum, 0.02);
        free(w);
    }
    prod_x_free(g, &x);
    matrix_free(g, &m);
    prod_tensor_free(&part.t);

    part.t = prod_tensor(DT_F32, 20, 70000, 7);
    cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, NULL, NULL, "a matrix", &e), 0, "%s", e.msg);
    matrix_free(g, &m);
    prod_tensor_free(&part.t);
    gpu_rig_wait(g);
}

Test(gpu_matrix, stops_when_it_is_told_to) {
    for (int at = 1; at < 4; at++) {
        struct err e = {0};
        struct progress p = {.stop_at = at};
        struct gpu_matrix m;
        struct matrix_part part = {.t = prod_tensor(DT_BF16, 400, 16384, 7)};
        cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, progress, &p, "a matrix", &e), -1);
        cr_assert(e.kind == ERR_IO && strstr(e.msg, "stopped"), "%s", e.msg);
        cr_assert(m.memory == 0 && m.n_runs == 0 && p.calls == at);
        prod_tensor_free(&part.t);
        gpu_rig_wait(g); /* nothing failed on the card */
    }
}

Test(gpu_matrix, refuses_what_does_not_fit_together) {
    static const uint32_t shapes[][5] = {{16, 64, 16, 128, 0},
                                         {16, 64, 32, 64, 1},
                                         {16, 1 << 21, 16, 1 << 21, 0},
                                         {1u << 31, 64, 16, 64, 0},
                                         {0, 64, 16, 64, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct err e = {0};
        struct gpu_matrix m;
        struct matrix_part parts[2] = {
            {.t = {.name = "a", .dtype = DT_BF16, .rows = shapes[i][0], .cols = shapes[i][1]}},
            {.t = {.name = "b", .dtype = DT_BF16, .rows = shapes[i][2], .cols = shapes[i][3]}}};
        cr_assert_eq(matrix_plan(&m, parts, 2, shapes[i][4], QUANT_NONE, &e), -1, "case %zu", i);
        cr_assert_eq(e.kind, ERR_MODEL);
    }
}

Test(gpu_matrix, refuses_parts_of_blocks) {
    struct err e = {0};
    struct gpu_matrix m;
    struct matrix_part part = {.t = {.name = "a", .dtype = DT_Q6_K, .rows = 16, .cols = 320}};
    cr_assert_eq(matrix_plan(&m, &part, 1, false, QUANT_NONE, &e), -1);
    cr_assert(e.kind == ERR_MODEL && strstr(e.msg, "q6_K"), "%s", e.msg);
}

/* Whatever fails, nothing stays (gpu_rig_close looks), and the loader can be used again. */
Test(gpu_matrix, leaves_nothing_when_it_fails) {
    gpu_rig_needs_emulated_card();
    struct matrix_part part = {.t = prod_tensor(DT_BF16, 400, 16384, 7)};
    int failures = 0;
    for (int n = 1; n < 100; n++) {
        struct err e = {0};
        struct gpu_matrix m;
        struct matrix_loader *l = NULL;
        gpu_rig_fail_in(n);
        int rc = matrix_loader_create(&l, g, &e);
        if (rc == 0) {
            rc = matrix_load(l, &m, &part, 1, false, QUANT_NONE, NULL, NULL, "a matrix", &e);
            gpu_rig_fail_in(0);
            if (rc == 0)
                rc = gpu_wait(g, &e);
            else
                cr_assert(m.memory == 0 && m.n_runs == 0);
            matrix_free(g, &m);
        }
        gpu_rig_fail_in(0);
        matrix_loader_free(l);
        struct err left = {0};
        cr_assert_eq(gpu_wait(g, &left), 0, "a failure that nobody told: %s", left.msg);
        if (rc == 0)
            break;
        failures++;
        cr_assert((e.kind == ERR_MEMORY || e.kind == ERR_DEVICE) && e.msg[0], "failure %d", n);
    }
    cr_assert_geq(failures, 6 + 1 + 3);
    prod_tensor_free(&part.t);
}

Test(gpu_matrix_small, says_what_memory_is_missing) {
    gpu_rig_needs_emulated_card();
    struct err e = {0};
    struct gpu_matrix m;
    gpu_rig_prepare(1, 20 << 20);
    g = gpu_rig_open();
    cr_assert_eq(matrix_loader_create(&loader, g, &e), 0, "%s", e.msg);
    struct matrix_part part = {.t = prod_tensor(DT_BF16, 400, 16384, 7)};
    cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, NULL, NULL, "layer 3's mlp.down_proj", &e), -1);
    cr_assert_eq(e.kind, ERR_MEMORY);
    cr_assert(strstr(e.msg, "layer 3's mlp.down_proj") && strstr(e.msg, "--quant"), "%s", e.msg);
    prod_tensor_free(&part.t);

    /* Nor is there memory for slots of a tile of such rows; then for what fits there is. */
    struct err wide = {0}, narrow = {0};
    part.t = prod_tensor(DT_F32, 1, 100000, 7);
    cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, NULL, NULL, "a matrix", &wide), -1);
    cr_assert_eq(wide.kind, ERR_MEMORY, "%s", wide.msg);
    prod_tensor_free(&part.t);
    part.t = prod_tensor(DT_BF16, 40, 256, 7);
    cr_assert_eq(matrix_load(loader, &m, &part, 1, false, QUANT_NONE, NULL, NULL, "a matrix", &narrow), 0, "%s",
                 narrow.msg);
    check(&m, &part, 1, 1e-3);
    matrix_free(g, &m);
    prod_tensor_free(&part.t);
    finish();
}
