/* Loading a part: its matrices are packed, or left where they lie until the first pass has gone through them. */
#include "core/base/wipe.h"
#include "core/cpu/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loader {
    struct cpu_stage *s;
    struct weights *w;
    const struct load_opts *opts;
    uint64_t done, total;
    struct tensor *now, *later; /* matrices that are packed, or left raw, in the order in which they are read */
    int n_now, n_later;
    struct readahead *ahead; /* of now */
};

static bool leave_raw(const struct loader *l, const struct tensor *t) {
    return l->opts->lazy && packed_may_be_raw(t, l->opts->quant);
}

static int load_vector(struct loader *l, const char *name, int n, float **out, struct err *e) {
    struct tensor t;
    if (weights_get(l->w, name, 1, (uint32_t)n, &t, e) != 0)
        return -1;
    void *scratch = malloc(t.row_bytes);
    float *v = malloc((size_t)n * sizeof *v);
    if (!scratch || !v) {
        free(scratch);
        free(v);
        return err_set(e, ERR_MEMORY, "out of memory loading %s", name);
    }
    dtype_decode(t.dtype, tensor_row(&t, 0, scratch), (size_t)n, v);
    free(scratch);
    *out = v;
    return 0;
}

static int load_matrix(struct loader *l, const char *name, int rows, int cols, struct packed *out, struct err *e) {
    struct tensor t;
    if (weights_get(l->w, name, (uint32_t)rows, (uint32_t)cols, &t, e) != 0)
        return -1;
    struct cpu_stage *s = l->s;
    bool raw = leave_raw(l, &t);
    if (raw ? packed_raw(out, &s->backend->cpu, &t, e) : packed_load(out, &s->backend->cpu, &t, l->opts->quant, e))
        return err_wrap(e, "loading %s", name);
    s->bytes += out->bytes;
    if (raw) {
        s->raw.p[s->raw.n++] = out;
        return 0;
    }
    tensor_done(&t);
    uint64_t bytes = (uint64_t)t.rows * t.row_bytes;
    l->done += bytes;
    readahead_done(l->ahead, bytes);
    if (l->opts->progress && l->opts->progress(l->opts->progress_ctx, l->done, l->total) != 0)
        return err_set(e, ERR_IO, "loading was stopped");
    return 0;
}

/* What one layer consists of. A bias or norm that a family does not have stays NULL. */
struct layer_matrix {
    const char *name;
    size_t weight, bias; /* offsets in struct layer */
    bool (*has_bias)(const struct model_config *c);
};

static bool qkv_bias(const struct model_config *c) {
    return c->qkv_bias;
}
static bool o_bias(const struct model_config *c) {
    return c->o_bias;
}
static bool mlp_bias(const struct model_config *c) {
    return c->mlp_bias;
}

#define AT(field) offsetof(struct layer, field)
static const struct layer_matrix layer_matrices[] = {
    {"self_attn.q_proj", AT(q), AT(q_bias), qkv_bias},    {"self_attn.k_proj", AT(k), AT(k_bias), qkv_bias},
    {"self_attn.v_proj", AT(v), AT(v_bias), qkv_bias},    {"self_attn.o_proj", AT(o), AT(o_bias), o_bias},
    {"mlp.gate_proj", AT(gate), AT(gate_bias), mlp_bias}, {"mlp.up_proj", AT(up), AT(up_bias), mlp_bias},
    {"mlp.down_proj", AT(down), AT(down_bias), mlp_bias},
};
#undef AT
enum { N_LAYER_MATRICES = sizeof layer_matrices / sizeof layer_matrices[0] };

/* Rows and columns of layer_matrices[i]. */
static void matrix_shape(const struct model_config *c, int i, int *rows, int *cols) {
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const int shapes[N_LAYER_MATRICES][2] = {{q, c->hidden},     {kv, c->hidden},     {kv, c->hidden},
                                             {c->hidden, q},     {c->ffn, c->hidden}, {c->ffn, c->hidden},
                                             {c->hidden, c->ffn}};
    *rows = shapes[i][0];
    *cols = shapes[i][1];
}

static int load_layer(struct loader *l, int index, struct layer *y, struct err *e) {
    const struct model_config *c = l->s->base.config;
    char name[96];
    for (int i = 0; i < N_LAYER_MATRICES; i++) {
        const struct layer_matrix *m = &layer_matrices[i];
        int rows, cols;
        matrix_shape(c, i, &rows, &cols);
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", index, m->name);
        if (load_matrix(l, name, rows, cols, (struct packed *)(void *)((char *)y + m->weight), e) != 0)
            return -1;
        if (!m->has_bias(c))
            continue;
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", index, m->name);
        if (load_vector(l, name, rows, (float **)(void *)((char *)y + m->bias), e) != 0)
            return -1;
    }
    const struct {
        const char *name;
        float **at;
        int n;
        bool has;
    } norms[] = {
        {"input_layernorm", &y->attn_norm, c->hidden, true},
        {"post_attention_layernorm", &y->mlp_norm, c->hidden, true},
        {"self_attn.q_norm", &y->q_norm, c->head_dim, c->qk_norm},
        {"self_attn.k_norm", &y->k_norm, c->head_dim, c->qk_norm},
    };
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", index, norms[i].name);
        if (norms[i].has && load_vector(l, name, norms[i].n, norms[i].at, e) != 0)
            return -1;
    }
    return 0;
}

static void layer_free(struct layer *y) {
    for (int i = 0; i < N_LAYER_MATRICES; i++) {
        packed_free((struct packed *)(void *)((char *)y + layer_matrices[i].weight));
        free(*(float **)(void *)((char *)y + layer_matrices[i].bias));
    }
    free(y->attn_norm);
    free(y->mlp_norm);
    free(y->q_norm);
    free(y->k_norm);
}

void stage_free(struct stage *base) {
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    if (!s)
        return;
    settle_stop(s->settle);
    readahead_stop(s->backend->ahead); /* no hints about a file that may be closed next */
    s->backend->ahead = NULL;
    free(s->raw.p);
    free(s->raw.used);
    for (int i = 0; s->layers && i < s->base.part.hi - s->base.part.lo; i++)
        layer_free(&s->layers[i]);
    free(s->layers);
    embedding_close(&s->embed);
    free(s->norm);
    packed_free(&s->head);
    free(s->inv_freq);
    if (s->base.config) {
        const struct model_config *c = s->base.config;
        size_t n = (size_t)s->max_rows;
        wipe_free(s->h, n * (size_t)c->hidden * sizeof(float));
        wipe_free(s->q, n * (size_t)(c->n_heads * c->head_dim) * sizeof(float));
        wipe_free(s->k, n * (size_t)(c->n_kv_heads * c->head_dim) * sizeof(float));
        wipe_free(s->v, n * (size_t)(c->n_kv_heads * c->head_dim) * sizeof(float));
        wipe_free(s->att, n * (size_t)(c->n_heads * c->head_dim) * sizeof(float));
        wipe_free(s->gate, n * (size_t)c->ffn * sizeof(float));
        wipe_free(s->up, n * (size_t)c->ffn * sizeof(float));
    }
    free(s->cs);
    free(s->pos);
    free(s);
}

static float *rows_of(int n, int width) {
    return aligned_alloc(64, (((size_t)n * (size_t)width * sizeof(float)) + 63) / 64 * 64);
}

static int reserve_scratch(struct cpu_stage *s, struct err *e) {
    const struct model_config *c = s->base.config;
    int n = s->max_rows;
    s->h = rows_of(n, c->hidden);
    s->q = rows_of(n, c->n_heads * c->head_dim);
    s->k = rows_of(n, c->n_kv_heads * c->head_dim);
    s->v = rows_of(n, c->n_kv_heads * c->head_dim);
    s->att = rows_of(n, c->n_heads * c->head_dim);
    s->gate = rows_of(n, c->ffn);
    s->up = rows_of(n, c->ffn);
    s->cs = rows_of(n, c->head_dim);
    s->pos = malloc((size_t)n * sizeof *s->pos);
    if (!s->h || !s->q || !s->k || !s->v || !s->att || !s->gate || !s->up || !s->cs || !s->pos)
        return err_set(e, ERR_MEMORY, "out of memory for windows of %d rows", n);
    struct cpu *cpu = &s->backend->cpu;
    size_t need = cpu_attend_scratch(cpu, c->n_heads, c->n_kv_heads, c->head_dim, n);
    for (int i = 0; i < s->base.part.hi - s->base.part.lo; i++)
        for (int j = 0; j < N_LAYER_MATRICES; j++) {
            size_t k = cpu_matmul_scratch(
                (const struct packed *)(void *)((char *)&s->layers[i] + layer_matrices[j].weight), n);
            need = k > need ? k : need;
        }
    if (s->base.part.head) {
        size_t k = cpu_matmul_scratch(&s->head, n);
        need = k > need ? k : need;
    }
    return cpu_reserve(cpu, need, e);
}

static void plan_matrix(struct loader *l, const struct tensor *t) {
    l->total += (uint64_t)t->rows * t->row_bytes;
    if (leave_raw(l, t))
        l->later[l->n_later++] = *t;
    else
        l->now[l->n_now++] = *t;
}

/* What this part will read, and when, for progress and to read ahead. Finds missing tensors before anything is loaded.
 */
static int plan(struct loader *l, struct err *e) {
    const struct model_config *c = l->s->base.config;
    const struct part *p = &l->s->base.part;
    struct tensor t;
    char name[96];
    for (int i = p->lo; i < p->hi; i++)
        for (int j = 0; j < N_LAYER_MATRICES; j++) {
            int rows, cols;
            matrix_shape(c, j, &rows, &cols);
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, layer_matrices[j].name);
            if (weights_get(l->w, name, (uint32_t)rows, (uint32_t)cols, &t, e) != 0)
                return -1;
            plan_matrix(l, &t);
        }
    if (p->head) {
        const char *head = c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
        if (weights_get(l->w, head, (uint32_t)c->vocab, (uint32_t)c->hidden, &t, e) != 0)
            return -1;
        plan_matrix(l, &t);
    }
    return 0;
}

static size_t max_matrices(const struct part *p) {
    return (size_t)(p->hi - p->lo) * N_LAYER_MATRICES + 1;
}

/* Memory for what the plan counts, and threads that read ahead: at once for what is packed now, and for the rest in the
 * order in which the stages of the backend were loaded, which is that of the first pass. */
static int prepare(struct loader *l, struct err *e) {
    struct cpu_stage *s = l->s;
    size_t n = max_matrices(&s->base.part);
    s->raw.p = calloc(n, sizeof *s->raw.p);
    s->raw.used = calloc(n, sizeof *s->raw.used);
    s->layers = calloc(n, sizeof *s->layers);
    s->inv_freq = malloc((size_t)s->base.config->head_dim / 2 * sizeof *s->inv_freq);
    if (!s->raw.p || !s->raw.used || !s->layers || !s->inv_freq)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    if (plan(l, e) != 0 || (l->n_now && readahead_start(&l->ahead, l->now, l->n_now, e) != 0))
        return -1;
    struct readahead **shared = &s->backend->ahead;
    if (l->n_later == 0)
        return 0;
    return *shared ? readahead_add(*shared, l->later, l->n_later, e) : readahead_start(shared, l->later, l->n_later, e);
}

/* The end of the loading, and the beginning of what goes on behind it. */
static int finish(struct loader *l, struct err *e) {
    struct cpu_stage *s = l->s;
    s->raw.done = l->done;
    s->raw.total = l->total;
    s->raw.progress = l->opts->progress;
    s->raw.progress_ctx = l->opts->progress_ctx;
    if (s->raw.n == 0)
        return 0;
    return settle_start(&s->settle, &s->backend->gate, &s->backend->cpu, s->raw.p, s->raw.n, e);
}

int stage_load(struct backend *b, struct weights *w, const struct part *part, const struct load_opts *o,
               struct stage **out, struct err *e) {
    *out = NULL;
    const struct model_config *c = weights_config(w);
    if (part->lo < 0 || part->lo > part->hi || part->hi > c->n_layers || o->max_rows < 1)
        return err_set(e, ERR_USAGE, "no layers %d to %d in a model of %d", part->lo, part->hi, c->n_layers);
    struct cpu_stage *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    s->base = (struct stage){.ops = b->ops, .config = c, .part = *part};
    s->backend = (struct cpu_backend *)(void *)b;
    s->max_rows = o->max_rows;
    struct tensor *now = calloc(max_matrices(part), sizeof *now), *later = calloc(max_matrices(part), sizeof *later);
    struct loader l = {.s = s, .w = w, .opts = o, .now = now, .later = later};

    if (!now || !later) {
        err_set(e, ERR_MEMORY, "out of memory loading the model");
        goto out;
    }
    if (prepare(&l, e) != 0)
        goto out;
    config_rope_freqs(c, s->inv_freq);
    if (part->embed && embedding_open(&s->embed, w, e) != 0)
        goto out;
    for (int i = part->lo; i < part->hi; i++)
        if (load_layer(&l, i, &s->layers[i - part->lo], e) != 0)
            goto out;
    if (part->head) {
        const char *head = c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
        if (load_vector(&l, "model.norm.weight", c->hidden, &s->norm, e) != 0 ||
            load_matrix(&l, head, c->vocab, c->hidden, &s->head, e) != 0)
            goto out;
    }
    if (reserve_scratch(s, e) != 0 || finish(&l, e) != 0)
        goto out;
    *out = &s->base;
    s = NULL;
out:
    readahead_stop(l.ahead);
    free(now);
    free(later);
    if (s)
        stage_free(&s->base);
    return s ? -1 : 0;
}

int stage_used(struct cpu_stage *s, const struct matmul *jobs, int n_jobs) {
    struct raw_list *r = &s->raw;
    if (r->n_used == r->n)
        return 0;
    uint64_t before = r->done;
    for (int i = 0; i < r->n; i++)
        for (int j = 0; j < n_jobs && !r->used[i]; j++)
            if (r->p[i] == jobs[j].w) {
                uint64_t bytes = (uint64_t)r->p[i]->source.rows * r->p[i]->source.row_bytes;
                r->used[i] = true;
                r->n_used++;
                r->done += bytes;
                readahead_done(s->backend->ahead, bytes);
            }
    return r->done > before && r->progress ? r->progress(r->progress_ctx, r->done, r->total) : 0;
}
