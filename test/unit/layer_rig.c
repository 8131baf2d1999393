#include "test/unit/layer_rig.h"

#include "core/model/kv.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct weights *layer_open(const char *path) {
    struct err e = {0};
    struct weights *w;
    cr_assert_eq(weights_open(&w, path, &e), 0, "%s", e.msg);
    return w;
}

void layer_noise(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        uint64_t z = noise(&seed);
        double sum = 0;
        for (int k = 0; k < 4; k++)
            sum += (double)(z >> 16 * k & 0xffff) / 65536.0 - 0.5;
        x[i] = (float)(sum * 1.732 * (i % 29 == 0 ? 10 : 1));
    }
}

float *layer_run(struct weights *w, const struct layer_run *r, const float *x) {
    const size_t hidden = (size_t)weights_config(w)->hidden, plane = (size_t)r->n_rows * hidden;
    const int chunk = r->chunk ? r->chunk : r->n_rows;
    struct err e = {0};
    struct backend *b;
    struct stage *s;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *table;
    const struct part part = {.lo = r->lo, .hi = r->hi};
    const struct load_opts opts = {.max_rows = chunk, .quant = r->quant};
    float *all = malloc((size_t)(r->hi - r->lo + 1) * plane * sizeof *all);
    struct node *nodes = calloc((size_t)r->n_rows, sizeof *nodes);
    uint32_t *ids = calloc((size_t)r->n_rows, sizeof *ids);
    struct row *rows = calloc((size_t)chunk, sizeof *rows);
    cr_assert(all && nodes && ids && rows);
    cr_assert_eq(backend_cpu_create(&b, 1, r->isa, &e), 0, "%s", e.msg);
    cr_assert_eq(b->ops->stage_load(b, w, &part, &opts, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(b->ops->kv_create(s, (uint32_t)r->n_rows, r->kv_type, &kv, &e), 0, "%s", e.msg);
    cr_assert_eq(slot_pool_create(&pool, (uint32_t)r->n_rows, &e), 0, "%s", e.msg);
    cr_assert_eq(kv_table_create(&table, pool, (uint32_t)r->n_rows, (uint32_t)chunk, &e), 0, "%s", e.msg);
    for (int i = 0; i < r->n_rows; i++) {
        nodes[i] = (struct node){.id = (uint32_t)i + 1, .parent = (uint32_t)i, .pos = (uint32_t)i};
        ids[i] = nodes[i].id;
    }
    memcpy(all, x, plane * sizeof *x);
    for (int at = 0; at < r->n_rows; at += chunk) {
        int n = r->n_rows - at < chunk ? r->n_rows - at : chunk;
        size_t off = (size_t)at * hidden;
        cr_assert_eq(kv_table_add(table, nodes + at, n, NULL, &e), n, "%s", e.msg);
        cr_assert_eq(kv_table_rows(table, ids + at, n, rows, &e), 0, "%s", e.msg);
        const struct batch batch = {.rows = rows, .n = n};
        for (int l = r->lo; l < r->hi; l++) {
            float *in = all + (size_t)(l - r->lo) * plane + off, *out = in + plane;
            memcpy(out, in, (size_t)n * hidden * sizeof *out);
            cr_assert_eq(b->ops->layers(s, kv, &batch, l, l + 1, out, &e), 0, "%s", e.msg);
        }
        cr_assert_eq(kv_table_commit(table, ids + at, n, &e), 0, "%s", e.msg);
    }
    kv_table_free(table);
    slot_pool_free(pool);
    b->ops->kv_free(kv);
    b->ops->stage_free(s);
    b->ops->free(b);
    free(rows);
    free(ids);
    free(nodes);
    return all;
}
