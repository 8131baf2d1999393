/* The CPU backend: the forward pass of a pre-norm, gated-MLP transformer over the kernels of cpu.h. */
#include "core/base/wipe.h"
#include "core/cpu/cpu.h"
#include "core/model/readahead.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct layer {
    struct packed q, k, v, o, gate, up, down;
    float *attn_norm, *mlp_norm; /* [hidden] */
    float *q_bias, *k_bias, *v_bias, *o_bias;
    float *gate_bias, *up_bias, *down_bias;
    float *q_norm, *k_norm; /* [head_dim] */
};

struct cpu_backend {
    struct backend base;
    struct cpu cpu;
};

struct cpu_stage {
    struct stage base;
    struct cpu_backend *backend;
    int max_rows;
    struct layer *layers; /* part.hi - part.lo */
    struct tensor embed;  /* rows are decoded where they lie */
    void *embed_row;      /* scratch of one row */
    float *norm;          /* [hidden], final */
    struct packed head;
    float *inv_freq; /* [head_dim / 2] */
    size_t bytes;    /* of weights */
    /* scratch, [max_rows][...] */
    float *h, *q, *k, *v, *att, *gate, *up, *cs;
    uint32_t *pos;
};

struct cpu_kv {
    struct cpu_stage *stage;
    enum dtype type;
    uint32_t n_slots;
    size_t head_stride; /* elements from one kv head to the next */
    size_t plane_bytes; /* K (or V) of one layer */
    uint8_t *data;      /* [layer][K, V][kv head][slot][head_dim] */
    size_t bytes;
};

/* ---- loading ---- */

struct loader {
    struct cpu_stage *s;
    struct weights *w;
    const struct load_opts *opts;
    uint64_t done, total;
    struct tensor *matrices; /* in the order in which they are loaded */
    int n_matrices;
    struct readahead *ahead;
};

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
    if (packed_load(out, &l->s->backend->cpu, &t, l->opts->quant, e) != 0)
        return err_wrap(e, "loading %s", name);
    tensor_done(&t);
    l->s->bytes += out->bytes;
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

static void cpu_stage_free(struct stage *base) {
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    if (!s)
        return;
    for (int i = 0; s->layers && i < s->base.part.hi - s->base.part.lo; i++)
        layer_free(&s->layers[i]);
    free(s->layers);
    free(s->embed_row);
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
    l->matrices[l->n_matrices++] = *t;
}

/* What this part will read, for progress and to read ahead. Finds missing tensors before anything is loaded. */
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

static int cpu_stage_load(struct backend *b, struct weights *w, const struct part *part, const struct load_opts *o,
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
    struct tensor *matrices = calloc((size_t)(part->hi - part->lo) * N_LAYER_MATRICES + 1, sizeof *matrices);
    struct loader l = {.s = s, .w = w, .opts = o, .matrices = matrices};

    if (!matrices) {
        err_set(e, ERR_MEMORY, "out of memory loading the model");
        goto out;
    }
    if (plan(&l, e) != 0 || readahead_start(&l.ahead, matrices, l.n_matrices, e) != 0)
        goto out;
    s->layers = calloc((size_t)(part->hi - part->lo) + 1, sizeof *s->layers);
    s->inv_freq = malloc((size_t)c->head_dim / 2 * sizeof *s->inv_freq);
    if (!s->layers || !s->inv_freq) {
        err_set(e, ERR_MEMORY, "out of memory loading the model");
        goto out;
    }
    config_rope_freqs(c, s->inv_freq);
    if (part->embed) {
        if (weights_get(w, "model.embed_tokens.weight", (uint32_t)c->vocab, (uint32_t)c->hidden, &s->embed, e) != 0)
            goto out;
        s->embed_row = malloc(s->embed.row_bytes);
        if (!s->embed_row) {
            err_set(e, ERR_MEMORY, "out of memory loading the model");
            goto out;
        }
    }
    for (int i = part->lo; i < part->hi; i++)
        if (load_layer(&l, i, &s->layers[i - part->lo], e) != 0)
            goto out;
    if (part->head) {
        const char *head = c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
        if (load_vector(&l, "model.norm.weight", c->hidden, &s->norm, e) != 0 ||
            load_matrix(&l, head, c->vocab, c->hidden, &s->head, e) != 0)
            goto out;
    }
    if (reserve_scratch(s, e) != 0)
        goto out;
    *out = &s->base;
    s = NULL;
out:
    readahead_stop(l.ahead);
    free(matrices);
    if (s)
        cpu_stage_free(&s->base);
    return s ? -1 : 0;
}

static size_t cpu_stage_bytes(const struct stage *s) {
    return ((const struct cpu_stage *)(const void *)s)->bytes;
}

/* ---- KV ---- */

static int cpu_kv_create(struct stage *base, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    *out = NULL;
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    const struct model_config *c = base->config;
    if (type != DT_F16 && type != DT_F32)
        return err_set(e, ERR_USAGE, "the KV cache holds f16 or f32, not %s", dtype_info(type)->name);
    struct cpu_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ERR_MEMORY, "out of memory for the KV cache");
    kv->stage = s;
    kv->type = type;
    kv->n_slots = n_slots;
    kv->head_stride = (size_t)n_slots * (size_t)c->head_dim;
    kv->plane_bytes = kv->head_stride * (size_t)c->n_kv_heads * (type == DT_F16 ? 2 : 4);
    kv->bytes = kv->plane_bytes * 2 * (size_t)(base->part.hi - base->part.lo);
    if (kv->bytes) {
        void *p = mmap(NULL, kv->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            err_set(e, ERR_MEMORY, "cannot have %.1f MB of KV cache (%u slots); a smaller --ctx needs less",
                    (double)kv->bytes / 1e6, n_slots);
            free(kv);
            return -1;
        }
        madvise(p, kv->bytes, MADV_HUGEPAGE);
        kv->data = p;
    }
    *out = (struct kv *)kv;
    return 0;
}

/* Giving the pages back to the kernel erases them, and does not touch those that were never used, as writing would. */
static void cpu_kv_clear(struct kv *base) {
    struct cpu_kv *kv = (struct cpu_kv *)base;
    if (kv->data && madvise(kv->data, kv->bytes, MADV_DONTNEED) != 0)
        wipe(kv->data, kv->bytes);
}

static void cpu_kv_free(struct kv *base) {
    struct cpu_kv *kv = (struct cpu_kv *)base;
    if (!kv)
        return;
    if (kv->data)
        munmap(kv->data, kv->bytes); /* the kernel zeroes pages before anybody sees them again */
    free(kv);
}

static uint8_t *plane(const struct cpu_kv *kv, int layer, int which) {
    return kv->data + kv->plane_bytes * (2 * (size_t)(layer - kv->stage->base.part.lo) + (size_t)which);
}

/* ---- forward ---- */

static int cpu_embed(struct stage *base, const uint32_t *tokens, int n, float *x, struct err *e) {
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    const struct model_config *c = base->config;
    if (!base->part.embed)
        return err_set(e, ERR_USAGE, "this part of the model has no embedding");
    for (int i = 0; i < n; i++) {
        if (tokens[i] >= (uint32_t)c->vocab)
            return err_set(e, ERR_USAGE, "token %u is outside the vocabulary of %d", tokens[i], c->vocab);
        dtype_decode(s->embed.dtype, tensor_row(&s->embed, tokens[i], s->embed_row), (size_t)c->hidden,
                     x + (size_t)i * (size_t)c->hidden);
    }
    return 0;
}

static void attention(struct cpu_stage *s, struct cpu_kv *kv, const struct layer *y, int index, const struct batch *b,
                      float *x) {
    const struct model_config *c = s->base.config;
    struct cpu *cpu = &s->backend->cpu;
    int n = b->n, wq = c->n_heads * c->head_dim, wkv = c->n_kv_heads * c->head_dim;
    cpu_rmsnorm(cpu, s->h, c->hidden, x, c->hidden, y->attn_norm, n, c->hidden, c->rms_eps);
    const struct matmul qkv[3] = {{.w = &y->q, .bias = y->q_bias, .y = s->q, .ldy = wq},
                                  {.w = &y->k, .bias = y->k_bias, .y = s->k, .ldy = wkv},
                                  {.w = &y->v, .bias = y->v_bias, .y = s->v, .ldy = wkv}};
    cpu_matmul(cpu, qkv, 3, s->h, c->hidden, n);
    if (c->qk_norm) {
        cpu_rmsnorm(cpu, s->q, c->head_dim, s->q, c->head_dim, y->q_norm, n * c->n_heads, c->head_dim, c->rms_eps);
        cpu_rmsnorm(cpu, s->k, c->head_dim, s->k, c->head_dim, y->k_norm, n * c->n_kv_heads, c->head_dim, c->rms_eps);
    }
    cpu_rope(cpu, s->q, wq, s->cs, n, c->n_heads, c->head_dim);
    cpu_rope(cpu, s->k, wkv, s->cs, n, c->n_kv_heads, c->head_dim);
    cpu_kv_write(cpu, plane(kv, index, 0), kv->type, kv->head_stride, s->k, wkv, b, c->n_kv_heads, c->head_dim);
    cpu_kv_write(cpu, plane(kv, index, 1), kv->type, kv->head_stride, s->v, wkv, b, c->n_kv_heads, c->head_dim);
    const struct attend a = {.batch = b,
                             .q = s->q,
                             .out = s->att,
                             .k = plane(kv, index, 0),
                             .v = plane(kv, index, 1),
                             .kv_type = kv->type,
                             .head_stride = kv->head_stride,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .scale = 1.0f / sqrtf((float)c->head_dim),
                             .window = index >= c->sliding_from ? c->sliding_window : 0};
    cpu_attend(cpu, &a);
    const struct matmul o = {.w = &y->o, .bias = y->o_bias, .y = x, .ldy = c->hidden, .add = true};
    cpu_matmul(cpu, &o, 1, s->att, wq, n);
}

static void mlp(struct cpu_stage *s, const struct layer *y, int n, float *x) {
    const struct model_config *c = s->base.config;
    struct cpu *cpu = &s->backend->cpu;
    cpu_rmsnorm(cpu, s->h, c->hidden, x, c->hidden, y->mlp_norm, n, c->hidden, c->rms_eps);
    const struct matmul in[2] = {{.w = &y->gate, .bias = y->gate_bias, .y = s->gate, .ldy = c->ffn},
                                 {.w = &y->up, .bias = y->up_bias, .y = s->up, .ldy = c->ffn}};
    cpu_matmul(cpu, in, 2, s->h, c->hidden, n);
    cpu_silu_mul(cpu, s->gate, s->up, n, c->ffn);
    const struct matmul down = {.w = &y->down, .bias = y->down_bias, .y = x, .ldy = c->hidden, .add = true};
    cpu_matmul(cpu, &down, 1, s->gate, c->ffn, n);
}

static int cpu_layers(struct stage *base, struct kv *kvbase, const struct batch *b, int lo, int hi, float *x,
                      struct err *e) {
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    struct cpu_kv *kv = (struct cpu_kv *)kvbase;
    if (lo < base->part.lo || hi > base->part.hi || b->n > s->max_rows)
        return err_set(e, ERR_USAGE, "layers %d to %d over %d rows: this part holds %d to %d and passes of %d rows", lo,
                       hi, b->n, base->part.lo, base->part.hi, s->max_rows);
    for (int i = 0; i < b->n; i++)
        if (b->rows[i].slot >= kv->n_slots)
            return err_set(e, ERR_USAGE, "slot %u of %u", b->rows[i].slot, kv->n_slots);
    if (b->n == 0 || lo >= hi)
        return 0;
    for (int i = 0; i < b->n; i++)
        s->pos[i] = b->rows[i].pos;
    cpu_rope_table(s->cs, s->pos, b->n, s->inv_freq, base->config->head_dim);
    for (int i = lo; i < hi; i++) {
        const struct layer *y = &s->layers[i - base->part.lo];
        attention(s, kv, y, i, b, x);
        mlp(s, y, b->n, x);
    }
    return 0;
}

static int cpu_head(struct stage *base, const float *x, int n, float *logits, struct err *e) {
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    const struct model_config *c = base->config;
    if (!base->part.head || n > s->max_rows)
        return err_set(e, ERR_USAGE,
                       base->part.head ? "%d rows are more than this part's passes hold"
                                       : "no head in this part of the model (%d rows)",
                       n);
    cpu_rmsnorm(&s->backend->cpu, s->h, c->hidden, x, c->hidden, s->norm, n, c->hidden, c->rms_eps);
    const struct matmul m = {.w = &s->head, .y = logits, .ldy = c->vocab};
    cpu_matmul(&s->backend->cpu, &m, 1, s->h, c->hidden, n);
    return 0;
}

static void cpu_backend_free(struct backend *base) {
    struct cpu_backend *b = (struct cpu_backend *)(void *)base;
    if (!b)
        return;
    cpu_free(&b->cpu);
    free(b);
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .free = cpu_backend_free,
    .stage_load = cpu_stage_load,
    .stage_free = cpu_stage_free,
    .stage_bytes = cpu_stage_bytes,
    .kv_create = cpu_kv_create,
    .kv_free = cpu_kv_free,
    .kv_clear = cpu_kv_clear,
    .embed = cpu_embed,
    .layers = cpu_layers,
    .head = cpu_head,
};

int backend_cpu_create(struct backend **out, int n_threads, const char *isa, struct err *e) {
    *out = NULL;
    struct cpu_backend *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_MEMORY, "out of memory");
    b->base.ops = &cpu_ops;
    if (cpu_init(&b->cpu, n_threads, isa, e) != 0) {
        free(b);
        return -1;
    }
    *out = &b->base;
    return 0;
}
