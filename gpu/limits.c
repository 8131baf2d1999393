#include "gpu/limits.h"

#include "gpu/blas.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 10, COPIES = 8, PRODUCTS = 8 };

int gpu_clock_create(struct gpu_clock *c, struct gpu *g, struct err *e) {
    *c = (struct gpu_clock){0};
    if (g->driver->event_create(&c->from, CU_EVENT_DEFAULT) == 0 &&
        g->driver->event_create(&c->to, CU_EVENT_DEFAULT) == 0)
        return 0;
    gpu_clock_free(c, g);
    return err_set(e, ERR_DEVICE, "%s gives no event to measure time with", g->name);
}

void gpu_clock_begin(struct gpu_clock *c, struct gpu *g) {
    (void)g->driver->event_record(c->from, g->stream);
}

int gpu_clock_end(struct gpu_clock *c, struct gpu *g, double *ms, struct err *e) {
    float f = 0;
    cu_result r = g->driver->event_record(c->to, g->stream);
    if (gpu_wait(g, e) != 0)
        return -1;
    if (r == 0)
        r = g->driver->event_elapsed(&f, c->from, c->to);
    *ms = (double)f;
    return r == 0 ? 0 : err_set(e, ERR_DEVICE, "%s did not measure the time", g->name);
}

void gpu_clock_free(struct gpu_clock *c, struct gpu *g) {
    if (c->from)
        (void)g->driver->event_destroy(c->from);
    if (c->to)
        (void)g->driver->event_destroy(c->to);
    *c = (struct gpu_clock){0};
}

static int measure_copy(struct gpu *g, struct gpu_clock *c, size_t bytes, struct gpu_limits *l, struct err *e) {
    cu_ptr a = 0, b = 0;
    int rc = -1;
    if (gpu_alloc(g, &a, bytes, "a buffer to measure with", e) != 0 ||
        gpu_alloc(g, &b, bytes, "a buffer to measure with", e) != 0)
        goto out;
    for (int i = -1; i < ROUNDS; i++) { /* the first one warms up */
        double ms;
        cu_result r = 0;
        gpu_clock_begin(c, g);
        for (int k = 0; k < COPIES && r == 0; k++)
            r = g->driver->copy_within(k % 2 ? a : b, k % 2 ? b : a, bytes, g->stream);
        if (gpu_clock_end(c, g, &ms, e) != 0)
            goto out;
        if (r != 0) {
            char why[200];
            err_set(e, ERR_DEVICE, "copying on %s: %s", g->name, driver_error(g->driver, r, why, sizeof why));
            goto out;
        }
        double rate = ms > 0 ? 2.0 * (double)bytes * COPIES / (ms * 1e-3) : 0;
        if (i >= 0 && rate > l->copy_bytes_s)
            l->copy_bytes_s = rate;
    }
    rc = 0;
out:
    gpu_free(g, a);
    gpu_free(g, b);
    return rc;
}

static int time_way(struct gpu *g, struct gpu_clock *c, struct blas_product *p, int way, double *ms, struct err *e) {
    gpu_clock_begin(c, g);
    for (int k = 0; k < PRODUCTS; k++)
        if (blas_product_run(p, way, e) != 0)
            return -1;
    return gpu_clock_end(c, g, ms, e);
}

/* That there is no cuBLASLt is no failure, but said. */
static int measure_matrix(struct gpu *g, struct gpu_clock *c, int n, struct gpu_limits *l, struct err *e) {
    struct blas_product *p = NULL;
    struct err why = {0};
    int n_ways = 0;
    if (getenv("SPLITINF_LIBCUDA")) {
        snprintf(l->matrix_by, sizeof l->matrix_by, "cuBLASLt does not know the library of SPLITINF_LIBCUDA");
        return 0;
    }
    if (blas_product_create(&p, g, n, &n_ways, &why) != 0) {
        snprintf(l->matrix_by, sizeof l->matrix_by, "%s", why.msg);
        return why.kind == ERR_MEMORY ? err_set(e, why.kind, "%s", why.msg) : 0;
    }
    int rc = 0;
    double best = 0;
    for (int round = -1; round < ROUNDS && rc == 0; round++)
        for (int way = 0; way < n_ways && rc == 0; way++) {
            double ms = 0;
            rc = time_way(g, c, p, way, &ms, e);
            if (rc == 0 && round >= 0 && ms > 0 && (best == 0 || ms < best))
                best = ms;
        }
    if (best > 0)
        l->matrix_flop_s = 2.0 * n * n * n * PRODUCTS / (best * 1e-3);
    snprintf(l->matrix_by, sizeof l->matrix_by, "%s, bf16, %d x %d x %d", blas_product_library(p), n, n, n);
    blas_product_free(p);
    return rc;
}

int gpu_limits_measure(struct gpu *g, size_t copy, int matrix, struct gpu_limits *out, struct err *e) {
    struct gpu_clock c;
    *out = (struct gpu_limits){0};
    gpu_enter(g);
    size_t room = gpu_memory_left(g) / 4 & ~(size_t)255;
    if (gpu_clock_create(&c, g, e) != 0)
        return -1;
    int rc = measure_copy(g, &c, copy < room ? copy : room, out, e);
    if (rc == 0 && matrix > 0)
        rc = measure_matrix(g, &c, matrix, out, e);
    gpu_clock_free(&c, g);
    return rc;
}
