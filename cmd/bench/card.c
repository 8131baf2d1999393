#include "cmd/bench/card.h"

#include "cmd/bench/lists.h"
#include "cmd/engine/device.h"
#include "cmd/interrupt.h"
#include "gpu/backend.h"
#include "gpu/kernel_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

/* Up to so many rows reading weights is what bounds a product; beyond, arithmetic. */
enum { BY_READING = 64 };

struct card_result *card_add(struct card_bench *b) {
    return b->n_results < CARD_RESULTS ? &b->results[b->n_results++] : NULL;
}

const char *card_math(const struct card_bench *b) {
    return b->o->math == MATH_FAST ? " fast" : "";
}

int card_step(struct card_bench *b, struct err *e) {
    progress_show(&b->progress, ++b->done, b->all);
    return interrupt_asked() ? err_set(e, ERR_IO, "stopped") : 0;
}

/* The share of the limit that /goals/ of docs/performance.md ask for; 0: none stated. */
static double goal_of(const struct card_result *r) {
    return r->rows <= 8 ? 0.80 : r->rows <= 16 ? 0.75 : r->rows <= 32 ? 0.70 : r->rows >= 512 ? 0.75 : 0;
}

static bool by_reading(const struct card_result *r) {
    return r->rows <= BY_READING;
}

/* 0: the limit was not measured. A pass (it has layers) is computed by all cards of a team. */
static double share_of(const struct card_bench *b, const struct card_result *r) {
    const struct gpu_limits *l = &b->limits;
    double rate = (by_reading(r) ? r->bytes : r->flop) / (r->ms * 1e-3);
    double limit = by_reading(r) ? l->copy_bytes_s : l->matrix_flop_s;
    return limit > 0 ? rate / limit / (r->layers ? device_joined(b->o) : 1) : 0;
}

static int print_json(const struct card_bench *b, const char *describe, struct err *e) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(d), *list = yyjson_mut_arr(d);
    yyjson_mut_doc_set_root(d, root);
    yyjson_mut_obj_add_str(d, root, "card", describe);
    yyjson_mut_obj_add_str(d, root, "kernels_for", gpu_built_for());
    yyjson_mut_obj_add_str(d, root, "math", device_math_choices[b->o->math]);
    yyjson_mut_obj_add_real(d, root, "copy_gb_s", b->limits.copy_bytes_s * 1e-9);
    if (b->limits.matrix_flop_s > 0)
        yyjson_mut_obj_add_real(d, root, "matrix_tflop_s", b->limits.matrix_flop_s * 1e-12);
    else
        yyjson_mut_obj_add_null(d, root, "matrix_tflop_s");
    yyjson_mut_obj_add_str(d, root, "matrix_by", b->limits.matrix_by);
    yyjson_mut_obj_add_val(d, root, "rows", list);
    for (int i = 0; i < b->n_results; i++) {
        const struct card_result *r = &b->results[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, list);
        double share = share_of(b, r), goal = goal_of(r);
        yyjson_mut_obj_add_str(d, o, "model", r->model);
        yyjson_mut_obj_add_str(d, o, "what", r->what);
        yyjson_mut_obj_add_int(d, o, "rows", r->rows);
        yyjson_mut_obj_add_int(d, o, "layers", r->layers);
        yyjson_mut_obj_add_real(d, o, "ms", r->ms);
        yyjson_mut_obj_add_real(d, o, "gb_s", r->bytes / r->ms * 1e-6);
        yyjson_mut_obj_add_real(d, o, "tflop_s", r->flop / r->ms * 1e-9);
        yyjson_mut_obj_add_str(d, o, "limit", by_reading(r) ? "copy" : "matrix");
        if (share > 0)
            yyjson_mut_obj_add_real(d, o, "fraction", share);
        else
            yyjson_mut_obj_add_null(d, o, "fraction");
        if (goal > 0)
            yyjson_mut_obj_add_real(d, o, "goal", goal);
        else
            yyjson_mut_obj_add_null(d, o, "goal");
    }
    char *text = yyjson_mut_write(d, 0, NULL);
    yyjson_mut_doc_free(d);
    if (!text)
        return err_set(e, ERR_MEMORY, "out of memory");
    puts(text);
    free(text);
    return 0;
}

static void print_table(const struct card_bench *b, const char *describe) {
    const char *model = "";
    printf("%s; kernels for %s\nlimits: copies %.0f GB/s", describe,
           *gpu_built_for() ? gpu_built_for() : "this library", b->limits.copy_bytes_s * 1e-9);
    if (b->limits.matrix_flop_s > 0)
        printf(", matrices %.0f TFLOP/s (%s)\n", b->limits.matrix_flop_s * 1e-12, b->limits.matrix_by);
    else
        printf("; SKIP matrices: %s\n", b->limits.matrix_by);
    for (int i = 0; i < b->n_results; i++) {
        const struct card_result *r = &b->results[i];
        if (strcmp(model, r->model) != 0)
            printf("%s\n%-33s  rows         ms  ms/layer     GB/s  TFLOP/s   of the limit     goal\n", r->model, "");
        model = r->model;
        double share = share_of(b, r), goal = goal_of(r);
        char layer[16] = "", part[24] = "-", wanted[16] = "";
        if (r->layers)
            snprintf(layer, sizeof layer, "%.4f", r->ms / r->layers);
        if (share > 0)
            snprintf(part, sizeof part, "%.0f%% %s", 100 * share, by_reading(r) ? "copy" : "matrix");
        if (goal > 0)
            snprintf(wanted, sizeof wanted, "%.0f%%", 100 * goal);
        printf("%-33s %5d %10.4f %9s %8.0f %8.1f %14s %8s\n", r->what, r->rows, r->ms, layer, r->bytes / r->ms * 1e-6,
               r->flop / r->ms * 1e-9, part, wanted);
    }
}

static int measure(struct card_bench *b, struct err *e) {
    static const char *const usual[] = {"random:mistral-7b", "random:nemo-12b/8"};
    const char *own[] = {b->o->model};
    const char *const *models = b->o->model ? own : usual;
    int n = b->o->model ? 1 : 2, rc = 0;
    if (gpu_limits_measure(b->g, LIMITS_COPY, LIMITS_MATRIX, &b->limits, e) != 0)
        return -1;
    for (int i = 0; i < n && rc == 0; i++) {
        struct weights *w;
        if (weights_open(&w, models[i], e) != 0)
            return -1;
        rc = card_products(b, models[i], weights_config(w), e);
        if (rc == 0)
            rc = card_passes(b, models[i], w, e);
        weights_close(w);
    }
    return rc;
}

static int by_value(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

int bench_card(const struct engine_opts *o, const char *rows, bool json, struct err *e) {
    double list[CARD_ROWS];
    struct card_bench *b = calloc(1, sizeof *b);
    int rc = -1;
    if (!b)
        return err_set(e, ERR_MEMORY, "out of memory");
    b->o = o;
    b->n_rows = bench_list_numbers("--pass-rows", rows, 1, 8192, 1, list, e);
    for (int i = 0; i < b->n_rows; i++)
        b->rows[i] = (int)list[i];
    if (b->n_rows < 0 || device_open(&b->backend, o, e) != 0)
        goto out;
    qsort(b->rows, (size_t)b->n_rows, sizeof *b->rows, by_value);
    /* Several cards: the first of them is measured alone, passes go through all. */
    if (gpu_open(&b->g, device_first(o), e) != 0 || gpu_clock_create(&b->clock, b->g, e) != 0)
        goto out;
    progress_start(&b->progress, "measuring", "times");
    rc = measure(b, e);
    progress_end(&b->progress, 0);
    if (rc != 0)
        goto out;
    if (json)
        rc = print_json(b, backend_cuda_describe(b->backend), e);
    else
        print_table(b, backend_cuda_describe(b->backend));
out:
    if (b->g) {
        gpu_clock_free(&b->clock, b->g);
        gpu_close(b->g);
    }
    if (b->backend)
        b->backend->ops->free(b->backend);
    free(b);
    return rc;
}
