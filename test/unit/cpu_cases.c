#include "test/unit/cpu_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

float case_noise(uint32_t seed, uint32_t i) {
    uint32_t h = (i + 1) * 0x9e3779b1u ^ seed * 0x85ebca6bu;
    h = (h ^ h >> 16) * 0x7feb352du;
    h = (h ^ h >> 15) * 0x846ca68bu;
    return (float)(int32_t)(h ^ h >> 16) * 0x1p-31f;
}

/* Sums of noise: mostly small, now and then large, as activations are. */
static float peaked(uint32_t seed, uint32_t i) {
    float a = case_noise(seed, i), b = case_noise(seed + 77, i);
    return a * a * a * 3 + b * 0.1f;
}

double relative_error(const float *a, const double *b, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : diff > 0 ? INFINITY : 0;
}

/* The K types have no encoder here: any bytes are a block, but for the f16 scales, which are made small. */
static void random_blocks(uint8_t *row, enum dtype t, size_t bytes, uint32_t seed) {
    for (size_t i = 0; i < bytes; i++)
        row[i] = (uint8_t)(int)(case_noise(seed, (uint32_t)i) * 128);
    size_t block = (size_t)dtype_info(t)->block_bytes;
    for (size_t at = 0; at < bytes; at += block) {
        uint16_t d = f32_to_f16(case_noise(seed + 1, (uint32_t)at) * 0.01f),
                 m = f32_to_f16(case_noise(seed + 2, (uint32_t)at) * 0.01f);
        memcpy(row + at + (t == DT_Q6_K ? 208 : 0), &d, 2);
        if (t == DT_Q4_K)
            memcpy(row + at + 2, &m, 2);
    }
}

uint8_t *matmul_case_weights(const struct matmul_case *m, struct tensor *t) {
    size_t bytes = dtype_row_bytes(m->type, (size_t)m->cols), cols = (size_t)m->cols;
    uint8_t *data = malloc(bytes * (size_t)m->rows);
    float *row = malloc(cols * sizeof *row);
    *t = (struct tensor){.name = "case", .dtype = m->type, .rows = (uint32_t)m->rows, .cols = (uint32_t)m->cols};
    t->row_bytes = bytes;
    t->data = data;
    for (size_t r = 0; data && row && r < (size_t)m->rows; r++) {
        uint32_t seed = m->seed * 1000003u + (uint32_t)r;
        for (size_t k = 0; k < cols; k++)
            row[k] = peaked(seed, (uint32_t)k) * 0.05f;
        if (m->type == DT_Q4_K || m->type == DT_Q6_K)
            random_blocks(data + r * bytes, m->type, bytes, seed);
        else
            dtype_encode(m->type, row, cols, data + r * bytes);
    }
    free(row);
    return data;
}

static float case_x(const struct matmul_case *m, int i, int k) {
    return peaked(m->seed + 5, (uint32_t)(i * m->cols + k));
}

static float case_bias(const struct matmul_case *m, int r) {
    return case_noise(m->seed + 6, (uint32_t)r);
}

static float case_y(const struct matmul_case *m, int i, int r) {
    return case_noise(m->seed + 7, (uint32_t)(i * m->rows + r));
}

/* Leading dimensions are larger than the rows, so that a kernel that ignores them is seen. */
enum { X_GAP = 3, Y_GAP = 5 };

static float *case_run(struct cpu *c, const struct matmul_case *m, int step, bool raw) {
    struct tensor t;
    struct packed w = {0};
    struct err e = {0};
    size_t ldx = (size_t)m->cols + X_GAP, ldy = (size_t)m->rows + Y_GAP, n = (size_t)m->n;
    uint8_t *data = matmul_case_weights(m, &t);
    float *x = malloc(n * ldx * sizeof *x), *y = malloc(n * ldy * sizeof *y), *bias = malloc(ldy * sizeof *bias),
          *out = NULL;
    if (!data || !x || !y || !bias || (raw ? packed_raw(&w, c, &t, &e) : packed_load(&w, c, &t, m->quant, &e)) != 0 ||
        cpu_reserve(c, cpu_matmul_scratch(&w, m->n), &e) != 0)
        goto out;
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < m->cols; k++)
            x[(size_t)i * ldx + (size_t)k] = case_x(m, i, k);
    for (size_t i = 0; i < n * ldy; i++)
        y[i] = 1e30f;
    for (int i = 0; i < m->n; i++)
        for (int r = 0; r < m->rows; r++)
            y[(size_t)i * ldy + (size_t)r] = case_y(m, i, r);
    for (int r = 0; r < m->rows; r++)
        bias[r] = case_bias(m, r);
    for (int i = 0; i < m->n;) {
        int rows = step > 0 && m->n - i > step ? step : m->n - i;
        struct matmul job = {&w, m->bias ? bias : NULL, y + (size_t)i * ldy, (int)ldy, m->add};
        cpu_matmul(c, &job, 1, x + (size_t)i * ldx, (int)ldx, rows);
        i += rows;
    }
    out = malloc(n * (size_t)m->rows * sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        memcpy(out + i * (size_t)m->rows, y + i * ldy, (size_t)m->rows * sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        for (size_t g = 0; g < Y_GAP; g++)
            if (y[i * ldy + (size_t)m->rows + g] != 1e30f) /* a kernel wrote past its row */
                out[0] = NAN;
out:
    packed_free(&w);
    free(data);
    free(x);
    free(y);
    free(bias);
    return out;
}

float *matmul_case_run(struct cpu *c, const struct matmul_case *m, int step) {
    return case_run(c, m, step, false);
}

float *matmul_case_run_raw(struct cpu *c, const struct matmul_case *m, int step) {
    return case_run(c, m, step, true);
}

double *matmul_case_reference(const struct matmul_case *m) {
    struct tensor t;
    uint8_t *data = matmul_case_weights(m, &t);
    size_t cols = (size_t)m->cols;
    float *w = malloc(cols * sizeof *w);
    uint8_t *coded = malloc(cols * 4);
    double *y = malloc((size_t)m->n * (size_t)m->rows * sizeof *y);
    enum dtype type;
    packed_size(m->type, m->rows, m->cols, m->quant, &type);
    for (int r = 0; r < m->rows; r++) {
        dtype_decode(m->type, data + (size_t)r * t.row_bytes, cols, w);
        if (type != m->type) {
            dtype_encode(type, w, cols, coded);
            dtype_decode(type, coded, cols, w);
        }
        for (int i = 0; i < m->n; i++) {
            double sum = (m->bias ? (double)case_bias(m, r) : 0) + (m->add ? (double)case_y(m, i, r) : 0);
            for (int k = 0; k < m->cols; k++)
                sum += (double)w[k] * (double)case_x(m, i, k);
            y[(size_t)i * (size_t)m->rows + (size_t)r] = sum;
        }
    }
    free(data);
    free(w);
    free(coded);
    return y;
}

size_t matmul_cases(const struct matmul_case **out) {
    static const struct matmul_case cases[] = {
        {DT_F32, QUANT_NONE, 83, 161, 7, false, false, 1},      {DT_F16, QUANT_NONE, 83, 161, 7, true, false, 2},
        {DT_BF16, QUANT_NONE, 83, 161, 7, false, true, 3},      {DT_Q8_0, QUANT_NONE, 83, 352, 7, true, true, 4},
        {DT_Q4_0, QUANT_NONE, 83, 352, 7, false, false, 5},     {DT_Q4_K, QUANT_NONE, 83, 768, 7, false, false, 6},
        {DT_Q6_K, QUANT_NONE, 83, 768, 7, true, false, 7},      {DT_F32, QUANT_NONE, 5, 1, 3, false, false, 8},
        {DT_BF16, QUANT_NONE, 16, 33, 13, true, true, 9},       {DT_F16, QUANT_NONE, 130, 2500, 29, false, false, 10},
        {DT_BF16, QUANT_NONE, 130, 2501, 29, false, true, 11},  {DT_F32, QUANT_NONE, 70, 1100, 27, true, false, 12},
        {DT_Q8_0, QUANT_NONE, 100, 2528, 29, false, false, 13}, {DT_Q4_0, QUANT_NONE, 100, 2528, 29, false, false, 14},
        {DT_Q4_K, QUANT_NONE, 100, 2560, 29, false, true, 15},  {DT_Q6_K, QUANT_NONE, 100, 2560, 29, true, false, 16},
        {DT_BF16, QUANT_NONE, 20, 67, 300, false, false, 17},   {DT_Q8_0, QUANT_NONE, 20, 64, 300, false, false, 18},
        {DT_F32, QUANT_Q8, 40, 96, 5, false, false, 19},        {DT_BF16, QUANT_Q4, 40, 96, 5, false, false, 20},
        {DT_F16, QUANT_Q8, 40, 100, 5, false, false, 21},       {DT_Q6_K, QUANT_Q4, 40, 256, 5, false, false, 22},
        {DT_Q4_0, QUANT_Q8, 40, 96, 5, false, false, 23},
    };
    *out = cases;
    return sizeof cases / sizeof *cases;
}

/* ---- attention ---- */

/* One table of slots per session, in an order that is not memory's; tails are of the rows' own. */
struct attend_input {
    struct row *rows;
    uint32_t *trunk[2], *tails;
    uint32_t n_slots;
    float *q;
    void *k, *v;
};

static void attend_input_free(struct attend_input *in) {
    free(in->rows);
    free(in->trunk[0]);
    free(in->trunk[1]);
    free(in->tails);
    free(in->q);
    free(in->k);
    free(in->v);
}

static float kv_value(const struct attend_case *a, int which, int head, uint32_t slot, int d) {
    uint32_t at = (slot * (uint32_t)a->n_kv_heads + (uint32_t)head) * (uint32_t)a->head_dim + (uint32_t)d;
    float f = case_noise(a->seed + 11 + (uint32_t)which, at) * 2;
    return a->kv_type == DT_F16 ? f16_to_f32(f32_to_f16(f)) : f;
}

static int attend_input_make(struct attend_input *in, const struct attend_case *a) {
    uint32_t sessions = a->shape == ATTEND_SESSIONS ? 2 : 1, per = a->n_trunk + a->n_rows;
    size_t hd = (size_t)a->head_dim, width = (size_t)a->n_heads * hd, n = a->n_rows;
    memset(in, 0, sizeof *in);
    in->n_slots = per * sessions + 3;
    size_t kv = (size_t)in->n_slots * (size_t)a->n_kv_heads * hd, elem = a->kv_type == DT_F32 ? 4 : 2;
    in->rows = calloc(n, sizeof *in->rows);
    in->tails = calloc(n * n, sizeof *in->tails);
    in->q = malloc(n * width * sizeof *in->q);
    in->k = malloc(kv * elem);
    in->v = malloc(kv * elem);
    for (uint32_t s = 0; s < 2; s++) {
        in->trunk[s] = malloc((a->n_trunk + 1) * sizeof **in->trunk);
        if (!in->trunk[s])
            return -1;
        for (uint32_t i = 0; i < a->n_trunk; i++)
            in->trunk[s][i] = in->n_slots - 1 - (i * sessions + s);
    }
    if (!in->rows || !in->tails || !in->q || !in->k || !in->v)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        struct row *r = &in->rows[i];
        uint32_t *tail = in->tails + (size_t)i * n, depth = 0, chain[512];
        uint32_t back = a->shape == ATTEND_SESSIONS ? 2 : 1;
        for (uint32_t at = i;; at = a->shape == ATTEND_TREE ? (at - 1) / 2 : at - back) {
            chain[depth++] = at;
            if (at < back)
                break;
        }
        for (uint32_t d = 0; d < depth; d++) /* slots 0 .. n_rows - 1 hold the batch's own rows, mixed */
            tail[d] = (chain[depth - 1 - d] * 7 + 3) % (a->n_rows % 7 == 0 ? a->n_rows + 1 : a->n_rows);
        *r = (struct row){
            .pos = a->n_trunk + depth - 1, .slot = tail[depth - 1], .n_trunk = a->n_trunk, .n_tail = depth};
        r->trunk = in->trunk[a->shape == ATTEND_SESSIONS ? i % 2 : 0];
        r->tail = tail;
    }
    for (size_t i = 0; i < n * width; i++)
        in->q[i] = case_noise(a->seed + 10, (uint32_t)i) * 2;
    for (int h = 0; h < a->n_kv_heads; h++)
        for (uint32_t s = 0; s < in->n_slots; s++)
            for (int d = 0; d < a->head_dim; d++) {
                size_t at = ((size_t)h * in->n_slots + s) * hd + (size_t)d;
                float f[2] = {kv_value(a, 0, h, s, d), kv_value(a, 1, h, s, d)};
                dtype_encode(a->kv_type, &f[0], 1, (uint8_t *)in->k + at * elem);
                dtype_encode(a->kv_type, &f[1], 1, (uint8_t *)in->v + at * elem);
            }
    return 0;
}

float *attend_case_run(struct cpu *c, const struct attend_case *a, int only) {
    struct attend_input in;
    struct err e = {0};
    size_t width = (size_t)a->n_heads * (size_t)a->head_dim;
    int first = only < 0 ? 0 : only, n = only < 0 ? (int)a->n_rows : 1;
    float *out = malloc((size_t)n * width * sizeof *out);
    if (attend_input_make(&in, a) != 0 || !out ||
        cpu_reserve(c, cpu_attend_scratch(c, a->n_heads, a->n_kv_heads, a->head_dim, n), &e) != 0) {
        attend_input_free(&in);
        free(out);
        return NULL;
    }
    struct batch b = {in.rows + first, n};
    struct attend at = {
        .batch = &b, .q = in.q + (size_t)first * width, .out = out, .k = in.k, .v = in.v, .kv_type = a->kv_type};
    at.head_stride = (size_t)in.n_slots * (size_t)a->head_dim;
    at.n_heads = a->n_heads;
    at.n_kv_heads = a->n_kv_heads;
    at.head_dim = a->head_dim;
    at.scale = 1 / sqrtf((float)a->head_dim);
    at.window = a->window;
    cpu_attend(c, &at);
    attend_input_free(&in);
    return out;
}

double *attend_case_reference(const struct attend_case *a) {
    struct attend_input in;
    int hd = a->head_dim, group = a->n_heads / a->n_kv_heads;
    size_t width = (size_t)a->n_heads * (size_t)hd;
    double *out = calloc(a->n_rows * width, sizeof *out);
    double *s = malloc((a->n_trunk + a->n_rows) * sizeof *s);
    if (attend_input_make(&in, a) != 0 || !out || !s)
        goto out;
    for (uint32_t i = 0; i < a->n_rows; i++)
        for (int h = 0; h < a->n_heads; h++) {
            const struct row *r = &in.rows[i];
            const float *q = in.q + (size_t)i * width + (size_t)h * (size_t)hd;
            double *o = out + (size_t)i * width + (size_t)h * (size_t)hd, top = -INFINITY, sum = 0;
            uint32_t n = r->pos + 1, from = a->window > 0 && n > (uint32_t)a->window ? n - (uint32_t)a->window : 0;
            for (uint32_t p = from; p < n; p++) {
                uint32_t slot = p < r->n_trunk ? r->trunk[p] : r->tail[p - r->n_trunk];
                s[p] = 0;
                for (int d = 0; d < hd; d++)
                    s[p] += (double)q[d] * (double)kv_value(a, 0, h / group, slot, d) / sqrt(hd);
                top = s[p] > top ? s[p] : top;
            }
            for (uint32_t p = from; p < n; p++) {
                uint32_t slot = p < r->n_trunk ? r->trunk[p] : r->tail[p - r->n_trunk];
                double w = exp(s[p] - top);
                sum += w;
                for (int d = 0; d < hd; d++)
                    o[d] += w * (double)kv_value(a, 1, h / group, slot, d);
            }
            for (int d = 0; d < hd; d++)
                o[d] /= sum;
        }
out:
    free(s);
    attend_input_free(&in);
    return out;
}

size_t attend_cases(const struct attend_case **out) {
    static const struct attend_case cases[] = {
        {ATTEND_CHAIN, 4, 4, 40, 0, 1, 0, DT_F32, 1},         {ATTEND_CHAIN, 6, 2, 24, 0, 70, 0, DT_F16, 2},
        {ATTEND_CHAIN, 8, 2, 80, 190, 3, 0, DT_F16, 3},       {ATTEND_CHAIN, 4, 2, 128, 300, 20, 0, DT_F32, 4},
        {ATTEND_CHAIN, 6, 2, 40, 100, 70, 33, DT_F16, 5},     {ATTEND_CHAIN, 3, 1, 64, 150, 90, 100, DT_F32, 6},
        {ATTEND_CHAIN, 14, 2, 64, 60, 10, 64, DT_F16, 7},     {ATTEND_TREE, 4, 2, 40, 61, 31, 0, DT_F16, 8},
        {ATTEND_TREE, 6, 2, 24, 200, 31, 50, DT_F32, 9},      {ATTEND_TREE, 2, 2, 80, 0, 15, 0, DT_F16, 10},
        {ATTEND_SESSIONS, 4, 1, 128, 100, 17, 0, DT_F16, 11}, {ATTEND_SESSIONS, 6, 2, 40, 64, 40, 30, DT_F32, 12},
        {ATTEND_CHAIN, 2, 2, 6, 5, 9, 0, DT_F32, 13},         {ATTEND_CHAIN, 71, 1, 16, 130, 2, 0, DT_F16, 14},
    };
    *out = cases;
    return sizeof cases / sizeof *cases;
}

/* ---- rows ---- */

float *row_kernels_run(struct cpu *c, int n, int cols, size_t *n_out) {
    size_t all = (size_t)n * (size_t)cols;
    int head_dim = cols / 2 * 2;
    *n_out = 5 * all;
    float *out = calloc(5 * all, sizeof *out), *x = malloc(all * sizeof *x), *w = malloc((size_t)cols * sizeof *w);
    float *cs = malloc((size_t)n * (size_t)cols * sizeof *cs), *freq = malloc((size_t)cols * sizeof *freq);
    uint32_t *pos = malloc((size_t)n * sizeof *pos);
    struct row *rows = calloc((size_t)n, sizeof *rows);
    if (!out || !x || !w || !cs || !freq || !pos || !rows)
        goto out;
    for (size_t i = 0; i < all; i++)
        x[i] = peaked(21, (uint32_t)i) * 20;
    for (int i = 0; i < cols; i++) {
        w[i] = case_noise(22, (uint32_t)i);
        freq[i] = 1 / (1 + (float)i * (float)i);
    }
    for (int i = 0; i < n; i++) {
        pos[i] = (uint32_t)i * 7919;
        rows[i].slot = (uint32_t)(n - 1 - i);
    }
    struct batch b = {rows, n};
    cpu_rmsnorm(c, out, cols, x, cols, w, n, cols, 1e-5f);
    memcpy(out + all, x, all * sizeof *x);
    cpu_silu_mul(c, out + all, out, n, cols);
    cpu_rope_table(cs, pos, n, freq, head_dim);
    memcpy(out + 2 * all, x, all * sizeof *x);
    cpu_rope(c, out + 2 * all, cols, cs, n, 1, head_dim);
    cpu_kv_write(c, out + 3 * all, DT_F16, 0, x, cols, &b, 1, cols);
    cpu_kv_write(c, out + 4 * all, DT_F32, 0, x, cols, &b, 1, cols);
out:
    free(x);
    free(w);
    free(cs);
    free(freq);
    free(pos);
    free(rows);
    return out;
}

static uint64_t digest(uint64_t h, float *v, size_t n) {
    for (size_t i = 0; v && i < n * sizeof *v; i++)
        h = (h ^ ((const uint8_t *)v)[i]) * 0x100000001b3u;
    free(v);
    return v ? h : 0;
}

uint64_t cases_digest(struct cpu *c) {
    uint64_t h = 0xcbf29ce484222325u;
    const struct matmul_case *m;
    const struct attend_case *a;
    size_t n = matmul_cases(&m);
    for (size_t i = 0; i < n; i++)
        h = digest(h, matmul_case_run(c, &m[i], 0), (size_t)m[i].n * (size_t)m[i].rows);
    n = attend_cases(&a);
    for (size_t i = 0; i < n; i++)
        h = digest(h, attend_case_run(c, &a[i], -1), a[i].n_rows * (size_t)a[i].n_heads * (size_t)a[i].head_dim);
    for (int cols = 2; cols < 300; cols += 37) {
        float *v = row_kernels_run(c, 3, cols, &n);
        h = digest(h, v, n);
    }
    return h;
}
