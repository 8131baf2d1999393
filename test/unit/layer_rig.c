#include "test/unit/layer_rig.h"

#include "core/model/e4m3.h"
#include "core/model/kv.h"
#include "core/model/names.h"
#include "gpu/backend.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
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
    if (r->cards) {
        gpu_rig_prepare(0, 0);
        cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = r->cards, .fast = r->fast}, &e), 0, "%s",
                     e.msg);
    } else {
        cr_assert_eq(backend_cpu_create(&b, 1, r->isa, &e), 0, "%s", e.msg);
    }
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

/* ---- double precision ---- */

/* A tensor of a layer, decoded; NULL when the model has none of that name. */
static double *decoded(struct weights *w, int layer, const char *what) {
    const struct model_config *c = weights_config(w);
    struct err e = {0};
    struct tensor_info info;
    struct tensor t;
    char name[NAMES_MAX];
    snprintf(name, sizeof name, "model.layers.%d.%s", layer, what);
    if (!names_find(c, name, &info))
        return NULL;
    cr_assert_eq(weights_get(w, name, info.rows, info.cols, &t, &e), 0, "%s", e.msg);
    double *d = malloc((size_t)t.rows * t.cols * sizeof *d);
    float *row = malloc(t.cols * sizeof *row);
    void *scratch = malloc(t.row_bytes);
    cr_assert(d && row && scratch);
    for (uint32_t r = 0; r < t.rows; r++) {
        dtype_decode(t.dtype, tensor_row(&t, r, scratch), t.cols, row);
        for (uint32_t k = 0; k < t.cols; k++)
            d[(size_t)r * t.cols + k] = (double)row[k];
    }
    free(scratch);
    free(row);
    return d;
}

/* y [rows] = W x + b. */
static void project(struct weights *w, int layer, const char *what, const double *x, int n, int cols, double *y,
                    int rows) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", what);
    double *m = decoded(w, layer, name);
    snprintf(name, sizeof name, "%s.bias", what);
    double *b = decoded(w, layer, name);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int k = 0; k < cols; k++)
                sum += m[(size_t)r * (size_t)cols + (size_t)k] * x[(size_t)i * (size_t)cols + (size_t)k];
            y[(size_t)i * (size_t)rows + (size_t)r] = sum + (b ? b[r] : 0);
        }
    free(m);
    free(b);
}

static void norm_rows(struct weights *w, int layer, const char *what, const double *x, int n, int cols, double *y) {
    double *g = decoded(w, layer, what);
    for (int i = 0; i < n; i++) {
        const double *xi = x + (size_t)i * (size_t)cols;
        double sum = 0;
        for (int k = 0; k < cols; k++)
            sum += xi[k] * xi[k];
        double scale = 1 / sqrt(sum / cols + (double)weights_config(w)->rms_eps);
        for (int k = 0; k < cols; k++)
            y[(size_t)i * (size_t)cols + (size_t)k] = xi[k] * scale * g[k];
    }
    free(g);
}

static void rotate(const struct model_config *c, double *x, int n, int n_heads) {
    float inv_freq[CONFIG_MAX_HEAD_DIM / 2];
    int half = c->head_dim / 2;
    config_rope_freqs(c, inv_freq);
    for (int i = 0; i < n; i++)
        for (int h = 0; h < n_heads; h++)
            for (int k = 0; k < half; k++) {
                double *a = x + ((size_t)i * (size_t)n_heads + (size_t)h) * (size_t)c->head_dim + k, *b = a + half;
                /* The angle in f32, as transformers has it. */
                double angle = (double)((float)i * inv_freq[k]), co = cos(angle), si = sin(angle);
                double u = *a * co - *b * si, v = *b * co + *a * si;
                *a = u;
                *b = v;
            }
}

/* n heads. */
static void round_kv(double *x, size_t n, size_t head_dim, enum dtype type) {
    float f[CONFIG_MAX_HEAD_DIM];
    uint16_t h[CONFIG_MAX_HEAD_DIM];
    for (; n > 0; n--, x += head_dim) {
        for (size_t i = 0; i < head_dim; i++) {
            f[i] = (float)x[i];
            h[i] = f32_to_f16(f[i]);
        }
        if (type == DT_E4M3)
            e4m3_round(f, head_dim, h);
        for (size_t i = 0; i < head_dim; i++)
            x[i] = (double)(type == DT_F32 ? f[i] : f16_to_f32(h[i]));
    }
}

static void attend(const struct model_config *c, int layer, const double *q, const double *k, const double *v, int n,
                   double *out) {
    const size_t hd = (size_t)c->head_dim, heads = (size_t)c->n_heads, kv_heads = (size_t)c->n_kv_heads;
    const int window = layer >= c->sliding_from ? c->sliding_window : 0;
    double *p = malloc((size_t)n * sizeof *p);
    for (int i = 0; i < n; i++)
        for (size_t h = 0; h < heads; h++) {
            const size_t g = h / (heads / kv_heads);
            const int from = window && i >= window ? i - window + 1 : 0;
            const double *qi = q + ((size_t)i * heads + h) * hd;
            double max = -INFINITY, sum = 0, *o = out + ((size_t)i * heads + h) * hd;
            for (int j = from; j <= i; j++) {
                double s = 0;
                for (size_t d = 0; d < hd; d++)
                    s += qi[d] * k[((size_t)j * kv_heads + g) * hd + d];
                p[j] = s / sqrt((double)hd);
                max = fmax(max, p[j]);
            }
            memset(o, 0, hd * sizeof *o);
            for (int j = from; j <= i; j++)
                sum += p[j] = exp(p[j] - max);
            for (int j = from; j <= i; j++)
                for (size_t d = 0; d < hd; d++)
                    o[d] += p[j] / sum * v[((size_t)j * kv_heads + g) * hd + d];
        }
    free(p);
}

static void layer_f64(struct weights *w, int layer, enum dtype kv_type, double *x, int n) {
    const struct model_config *c = weights_config(w);
    const int wq = c->n_heads * c->head_dim, wkv = c->n_kv_heads * c->head_dim, wide = wq > c->ffn ? wq : c->ffn;
    double *mem = calloc((size_t)n * (size_t)(c->hidden + 2 * wq + 2 * wkv + 2 * wide + c->hidden), sizeof *mem);
    cr_assert(mem != NULL);
    double *h = mem, *q = h + (size_t)n * (size_t)c->hidden, *k = q + (size_t)n * (size_t)wq;
    double *v = k + (size_t)n * (size_t)wkv, *att = v + (size_t)n * (size_t)wkv, *gate = att + (size_t)n * (size_t)wq;
    double *up = gate + (size_t)n * (size_t)wide, *add = up + (size_t)n * (size_t)wide;
    norm_rows(w, layer, "input_layernorm.weight", x, n, c->hidden, h);
    project(w, layer, "self_attn.q_proj", h, n, c->hidden, q, wq);
    project(w, layer, "self_attn.k_proj", h, n, c->hidden, k, wkv);
    project(w, layer, "self_attn.v_proj", h, n, c->hidden, v, wkv);
    if (c->qk_norm) {
        norm_rows(w, layer, "self_attn.q_norm.weight", q, n * c->n_heads, c->head_dim, q);
        norm_rows(w, layer, "self_attn.k_norm.weight", k, n * c->n_kv_heads, c->head_dim, k);
    }
    rotate(c, q, n, c->n_heads);
    rotate(c, k, n, c->n_kv_heads);
    round_kv(k, (size_t)(n * c->n_kv_heads), (size_t)c->head_dim, kv_type);
    round_kv(v, (size_t)(n * c->n_kv_heads), (size_t)c->head_dim, kv_type);
    attend(c, layer, q, k, v, n, att);
    project(w, layer, "self_attn.o_proj", att, n, wq, add, c->hidden);
    for (size_t i = 0; i < (size_t)n * (size_t)c->hidden; i++)
        x[i] += add[i];
    norm_rows(w, layer, "post_attention_layernorm.weight", x, n, c->hidden, h);
    project(w, layer, "mlp.gate_proj", h, n, c->hidden, gate, c->ffn);
    project(w, layer, "mlp.up_proj", h, n, c->hidden, up, c->ffn);
    for (size_t i = 0; i < (size_t)n * (size_t)c->ffn; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    project(w, layer, "mlp.down_proj", gate, n, c->ffn, add, c->hidden);
    for (size_t i = 0; i < (size_t)n * (size_t)c->hidden; i++)
        x[i] += add[i];
    free(mem);
}

float *layer_run_f64(struct weights *w, const struct layer_run *r, const float *x) {
    const size_t n = (size_t)r->n_rows * (size_t)weights_config(w)->hidden;
    float *all = malloc((size_t)(r->hi - r->lo + 1) * n * sizeof *all);
    double *d = malloc(n * sizeof *d);
    cr_assert(all && d);
    memcpy(all, x, n * sizeof *x);
    for (int l = r->lo; l < r->hi; l++) {
        float *in = all + (size_t)(l - r->lo) * n;
        for (size_t i = 0; i < n; i++)
            d[i] = (double)in[i];
        layer_f64(w, l, r->kv_type, d, r->n_rows);
        for (size_t i = 0; i < n; i++)
            in[n + i] = (float)d[i];
    }
    free(d);
    return all;
}
