#include "gpu/plan.h"

#include "core/model/names.h"
#include "gpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct layer_matrix layer_matrices[N_LAYER_MATRICES] = {
    [LAYER_QKV] = {"q, k and v projections", 0, 3, false},
    [LAYER_O] = {"o projection", 3, 1, false},
    [LAYER_GATE_UP] = {"gate and up projections", 4, 2, true},
    [LAYER_DOWN] = {"down projection", 6, 1, false},
};

static const char *const tensors[N_LAYER_TENSORS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                     "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                     "mlp.down_proj"};

/* A vector begins on a line of its own. */
static size_t padded(size_t n) {
    return (n + 63) / 64 * 64;
}

static const char *head_name(const struct model_config *c) {
    return c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
}

/* ---- slices ---- */

enum { MOST_TEAM = 16 }; /* that messages speak of */

struct slice plan_slice(int rows, struct seat seat) {
    int tiles = rows / GPU_TILE + (rows % GPU_TILE != 0), each = (tiles + seat.n - 1) / seat.n * GPU_TILE;
    struct slice s = {.first = seat.rank * each, .each = seat.n == 1 ? rows : each};
    s.n = rows - s.first < s.each ? rows - s.first : s.each;
    return s;
}

/* What keeps n cards from computing this model together; false: nothing. */
static bool obstacle(const struct model_config *c, int n, char *text, size_t cap) {
    const struct {
        const char *name;
        int rows;
    } dims[] = {{"hidden size", c->hidden}, {"MLP's size", c->ffn}, {"vocabulary", c->vocab}};
    if (c->n_kv_heads % n != 0) {
        snprintf(text, cap, "its KV heads are %d", c->n_kv_heads);
        return true;
    }
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        if (plan_slice(dims[i].rows, (struct seat){n - 1, n}).n <= 0) {
            snprintf(text, cap, "its %s of %d has no tile of %d rows for each", dims[i].name, dims[i].rows, GPU_TILE);
            return true;
        }
    return false;
}

int plan_check_team(const struct model_config *c, int n, const char *model, struct err *e) {
    char why[100], other[100], sizes[100] = "";
    if (n == 1 || !obstacle(c, n, why, sizeof why))
        return 0;
    for (int i = 2; i <= MOST_TEAM; i++)
        if (!obstacle(c, i, other, sizeof other)) {
            size_t at = strlen(sizes);
            snprintf(sizes + at, sizeof sizes - at, "%s%d", at ? ", " : "", i);
        }
    return err_set(e, ERR_USAGE,
                   "%d cards cannot compute the layers of %s together (--device 0+1): %s. %s%s%s--device 0,1 spreads "
                   "layers over any number",
                   n, model, why, *sizes ? "Teams of " : "No team can; ", sizes, *sizes ? " cards can; " : "");
}

/* The rows of tensor i of a layer that a seat has: those of its heads, or a slice. */
static void slice_tensor(const struct stage_plan *p, int i, struct matrix_part *t) {
    const struct layer_matrix *qkv = &layer_matrices[LAYER_QKV];
    if (i >= qkv->first && i < qkv->first + qkv->n) {
        t->n = t->t.rows / (uint32_t)p->seat.n;
        t->first = t->n * (uint32_t)p->seat.rank;
        return;
    }
    struct slice s = plan_slice((int)t->t.rows, p->seat);
    t->first = (uint32_t)s.first;
    t->n = (uint32_t)s.n;
}

/* ---- matrices ---- */

static int plan_tensor(struct stage_plan *p, const char *name, int i, struct matrix_part *out, struct err *e) {
    struct tensor_info shape;
    if (!names_find(p->config, name, &shape))
        return err_set(e, ERR_MODEL, "%s has no tensor %s", weights_path(p->weights), name);
    if (weights_get(p->weights, name, shape.rows, shape.cols, &out->t, e) != 0)
        return -1;
    slice_tensor(p, i, out);
    p->file += (uint64_t)out->n * out->t.row_bytes;
    return 0;
}

static int plan_layer(struct stage_plan *p, int layer, struct layer_plan *y, struct err *e) {
    struct vectors v = {0};
    struct layer_vectors ignored;
    char name[NAMES_MAX];
    for (int i = 0; i < N_LAYER_TENSORS; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, tensors[i]);
        if (plan_tensor(p, name, i, &y->tensors[i], e) != 0)
            return -1;
    }
    for (int i = 0; i < N_LAYER_MATRICES; i++) {
        const struct layer_matrix *m = &layer_matrices[i];
        if (matrix_plan(&y->w[i], &y->tensors[m->first], m->n, m->interleave, p->quant, e) != 0)
            return err_wrap(e, "layer %d of %s", layer, weights_path(p->weights));
        y->bytes += y->w[i].bytes;
    }
    if (plan_layer_vectors(p, layer, &v, &ignored, e) != 0)
        return -1;
    y->bytes += v.n * sizeof(float);
    return 0;
}

int stage_plan_make(struct stage_plan *p, struct weights *w, const struct part *part, struct seat seat,
                    enum quant quant, struct err *e) {
    *p = (struct stage_plan){.weights = w, .config = weights_config(w), .part = *part, .seat = seat, .quant = quant};
    if (plan_check_team(p->config, seat.n, weights_path(w), e) != 0)
        goto fail;
    p->layers = calloc((size_t)(part->hi - part->lo) + 1, sizeof *p->layers);
    if (!p->layers)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    for (int i = part->lo; i < part->hi; i++)
        if (plan_layer(p, i, &p->layers[i - part->lo], e) != 0)
            goto fail;
    if (part->head) {
        if (plan_tensor(p, head_name(p->config), N_LAYER_TENSORS, &p->head_tensor, e) != 0)
            goto fail;
        if (matrix_plan(&p->head, &p->head_tensor, 1, false, quant, e) != 0) {
            err_wrap(e, "the head of %s", weights_path(w));
            goto fail;
        }
        p->head_bytes = p->head.bytes + padded((size_t)p->config->hidden) * sizeof(float);
    }
    return 0;
fail:
    stage_plan_free(p);
    return -1;
}

void stage_plan_free(struct stage_plan *p) {
    free(p->layers);
    *p = (struct stage_plan){0};
}

/* ---- vectors ---- */

/* Room for n floats, zero; *host is NULL while only counting. */
static const float *reserve(struct vectors *v, size_t n, float **host) {
    const float *card = v->host ? v->card + v->n : NULL;
    *host = v->host ? v->host + v->n : NULL;
    if (*host)
        memset(*host, 0, padded(n) * sizeof **host);
    v->n += padded(n);
    return card;
}

static int decode(const struct stage_plan *p, const char *name, size_t n, float *out, struct err *e) {
    struct tensor t;
    if (weights_get(p->weights, name, 1, (uint32_t)n, &t, e) != 0)
        return -1;
    void *scratch = malloc(t.row_bytes);
    if (!scratch)
        return err_set(e, ERR_MEMORY, "out of memory loading %s", name);
    dtype_decode(t.dtype, tensor_row(&t, 0, scratch), n, out);
    free(scratch);
    return 0;
}

static int norm(const struct stage_plan *p, const char *name, int n, struct vectors *v, const float **out,
                struct err *e) {
    float *host;
    *out = reserve(v, (size_t)n, &host);
    return host ? decode(p, name, (size_t)n, host, e) : 0;
}

static bool has_bias(const struct model_config *c, int matrix) {
    return matrix == LAYER_QKV ? c->qkv_bias : matrix == LAYER_O ? c->o_bias : c->mlp_bias;
}

/* The biases of a matrix's rows, each element where the row stands in the matrix. */
static int bias(const struct stage_plan *p, int layer, int matrix, struct vectors *v, const float **out,
                struct err *e) {
    const struct layer_plan *y = &p->layers[layer - p->part.lo];
    const struct layer_matrix *m = &layer_matrices[matrix];
    char name[NAMES_MAX];
    float *host;
    *out = NULL;
    if (!has_bias(p->config, matrix))
        return 0;
    *out = reserve(v, (size_t)y->w[matrix].rows, &host);
    for (int i = 0; host && i < m->n; i++) {
        const struct matrix_part *t = &y->tensors[m->first + i];
        float *rows = calloc(t->t.rows, sizeof *rows);
        if (!rows)
            return err_set(e, ERR_MEMORY, "out of memory loading the model");
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, tensors[m->first + i]);
        if (decode(p, name, t->t.rows, rows, e) != 0) {
            free(rows);
            return -1;
        }
        for (int r = 0; r < (int)t->n; r++)
            host[matrix_row(&y->w[matrix], t, r)] = rows[t->first + (uint32_t)r];
        free(rows);
    }
    return 0;
}

int plan_layer_vectors(const struct stage_plan *p, int layer, struct vectors *v, struct layer_vectors *out,
                       struct err *e) {
    const struct model_config *c = p->config;
    *out = (struct layer_vectors){0};
    const struct {
        const char *name;
        const float **at;
        int n;
        bool has;
    } norms[] = {
        {"input_layernorm", &out->attn_norm, c->hidden, true},
        {"post_attention_layernorm", &out->mlp_norm, c->hidden, true},
        {"self_attn.q_norm", &out->q_norm, c->head_dim, c->qk_norm},
        {"self_attn.k_norm", &out->k_norm, c->head_dim, c->qk_norm},
    };
    char name[NAMES_MAX];
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, norms[i].name);
        if (norms[i].has && norm(p, name, norms[i].n, v, norms[i].at, e) != 0)
            return -1;
    }
    for (int i = 0; i < N_LAYER_MATRICES; i++)
        if (bias(p, layer, i, v, &out->bias[i], e) != 0)
            return -1;
    return 0;
}

int plan_head_vectors(const struct stage_plan *p, struct vectors *v, const float **at, struct err *e) {
    *at = NULL;
    return p->part.head ? norm(p, "model.norm.weight", p->config->hidden, v, at, e) : 0;
}

/* ---- several cards ---- */

int spread_layers(const size_t *cost, int n, size_t head, const size_t *left, int n_cards, int *n_layers) {
    double all = (double)head, memory = 0, until = 0, done = 0;
    int card = 0;
    for (int i = 0; i < n; i++)
        all += (double)cost[i];
    for (int i = 0; i < n_cards; i++) {
        memory += (double)left[i];
        n_layers[i] = 0;
    }
    until = memory > 0 ? all * ((double)left[0] / memory) : 0;
    for (int i = 0; i <= n; i++) {
        double bytes = (double)(i < n ? cost[i] : head);
        while (card < n_cards - 1 && done + bytes / 2 > until) {
            card++;
            until += memory > 0 ? all * ((double)left[card] / memory) : 0;
        }
        done += bytes;
        if (i < n)
            n_layers[card]++;
    }
    return card;
}

const char *memory_text(double bytes, char text[24]) {
    snprintf(text, 24, bytes < 1e9 ? "%.1f MB" : "%.2f GB", bytes / (bytes < 1e9 ? 1e6 : 1e9));
    return text;
}
