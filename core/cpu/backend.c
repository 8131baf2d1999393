/* The CPU backend: the forward pass of a pre-norm, gated-MLP transformer over the kernels of cpu.h. */
#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "core/cpu/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct cpu_kv {
    struct cpu_stage *stage;
    enum dtype type;
    uint32_t n_slots;
    size_t head_stride; /* elements from one kv head to the next */
    size_t plane_bytes; /* K (or V) of one layer */
    uint8_t *data;      /* [layer][K, V][kv head][slot][head_dim] */
    size_t bytes;
};

static size_t cpu_stage_bytes(const struct stage *s) {
    return ((const struct cpu_stage *)(const void *)s)->bytes;
}

/* ---- KV ---- */

static int cpu_kv_create(struct stage *base, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    *out = NULL;
    struct cpu_stage *s = (struct cpu_stage *)(void *)base;
    const struct model_config *c = base->config;
    if (type != DT_F16 && type != DT_F32 && type != DT_E4M3)
        return err_set(e, ERR_USAGE, "the KV cache holds f16, f32 or fp8, not %s", dtype_info(type)->name);
    struct cpu_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ERR_MEMORY, "out of memory for the KV cache");
    kv->stage = s;
    kv->type = type;
    kv->n_slots = n_slots;
    kv->head_stride = (size_t)n_slots * (size_t)c->head_dim;
    kv->plane_bytes = kv->head_stride * (size_t)c->n_kv_heads * (type == DT_F32 ? 4 : 2);
    kv->bytes = kv->plane_bytes * 2 * (size_t)(base->part.hi - base->part.lo);
    if (kv->bytes) {
        void *p = mmap(NULL, kv->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            err_set(e, ERR_MEMORY, "cannot have %.1f MB of KV cache (%u slots); a smaller --ctx needs less",
                    (double)kv->bytes / 1e6, n_slots);
            free(kv);
            return -1;
        }
        /* Small pages: the heads lie far apart, and with huge ones the first token would touch, and the kernel zero,
         * all of the cache. Attention over thousands of positions takes a few percent longer for it. */
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
    return embedding_take(&((struct cpu_stage *)(void *)base)->embed, tokens, n, x, e);
}

/* Products over x [n][ldx], scratch that may be rounded in place; -1 without an error when the progress of a first pass
 * stops it. */
static int multiply(struct cpu_stage *s, const struct matmul *jobs, int n_jobs, float *x, int ldx, int n) {
    if (s->backend->rounded)
        for (size_t i = 0; i < (size_t)n * (size_t)ldx; i++)
            x[i] = bf16_to_f32(f32_to_bf16(x[i]));
    cpu_matmul(&s->backend->cpu, jobs, n_jobs, x, ldx, n);
    return stage_used(s, jobs, n_jobs);
}

/* Something of a pass is over, and with `last` the pass of this stage. */
static void account(struct cpu_stage *s, double t0, bool last) {
    if (!s->settle)
        return;
    s->pass_ms += clock_ms() - t0;
    if (last) {
        settle_served(s->settle, s->pass_ms);
        s->pass_ms = 0;
    }
}

static int attention(struct cpu_stage *s, struct cpu_kv *kv, const struct layer *y, int index, const struct batch *b,
                     float *x) {
    const struct model_config *c = s->base.config;
    struct cpu *cpu = &s->backend->cpu;
    int n = b->n, wq = c->n_heads * c->head_dim, wkv = c->n_kv_heads * c->head_dim;
    cpu_rmsnorm(cpu, s->h, c->hidden, x, c->hidden, y->attn_norm, n, c->hidden, c->rms_eps);
    const struct matmul qkv[3] = {{.w = &y->q, .bias = y->q_bias, .y = s->q, .ldy = wq},
                                  {.w = &y->k, .bias = y->k_bias, .y = s->k, .ldy = wkv},
                                  {.w = &y->v, .bias = y->v_bias, .y = s->v, .ldy = wkv}};
    if (multiply(s, qkv, 3, s->h, c->hidden, n) != 0)
        return -1;
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
                             .kv_type = kv->type == DT_F32 ? DT_F32 : DT_F16,
                             .head_stride = kv->head_stride,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .scale = 1.0f / sqrtf((float)c->head_dim),
                             .window = index >= c->sliding_from ? c->sliding_window : 0};
    cpu_attend(cpu, &a);
    const struct matmul o = {.w = &y->o, .bias = y->o_bias, .y = x, .ldy = c->hidden, .add = true};
    return multiply(s, &o, 1, s->att, wq, n);
}

static int mlp(struct cpu_stage *s, const struct layer *y, int n, float *x) {
    const struct model_config *c = s->base.config;
    struct cpu *cpu = &s->backend->cpu;
    cpu_rmsnorm(cpu, s->h, c->hidden, x, c->hidden, y->mlp_norm, n, c->hidden, c->rms_eps);
    const struct matmul in[2] = {{.w = &y->gate, .bias = y->gate_bias, .y = s->gate, .ldy = c->ffn},
                                 {.w = &y->up, .bias = y->up_bias, .y = s->up, .ldy = c->ffn}};
    if (multiply(s, in, 2, s->h, c->hidden, n) != 0)
        return -1;
    cpu_silu_mul(cpu, s->gate, s->up, n, c->ffn);
    const struct matmul down = {.w = &y->down, .bias = y->down_bias, .y = x, .ldy = c->hidden, .add = true};
    return multiply(s, &down, 1, s->gate, c->ffn, n);
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
    double t0 = clock_ms();
    for (int i = 0; i < b->n; i++)
        s->pos[i] = b->rows[i].pos;
    cpu_rope_table(s->cs, s->pos, b->n, s->inv_freq, base->config->head_dim);
    for (int i = lo; i < hi; i++) {
        const struct layer *y = &s->layers[i - base->part.lo];
        if (attention(s, kv, y, i, b, x) != 0 || mlp(s, y, b->n, x) != 0)
            return -1;
    }
    account(s, t0, hi == base->part.hi && !base->part.head);
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
    double t0 = clock_ms();
    cpu_rmsnorm(&s->backend->cpu, s->h, c->hidden, x, c->hidden, s->norm, n, c->hidden, c->rms_eps);
    const struct matmul m = {.w = &s->head, .y = logits, .ldy = c->vocab};
    if (multiply(s, &m, 1, s->h, c->hidden, n) != 0)
        return -1;
    account(s, t0, true);
    return 0;
}

static void cpu_backend_free(struct backend *base) {
    struct cpu_backend *b = (struct cpu_backend *)(void *)base;
    if (!b)
        return;
    readahead_stop(b->ahead);
    settle_gate_free(&b->gate);
    cpu_free(&b->cpu);
    free(b);
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .free = cpu_backend_free,
    .stage_load = stage_load,
    .stage_free = stage_free,
    .stage_bytes = cpu_stage_bytes,
    .kv_create = cpu_kv_create,
    .kv_free = cpu_kv_free,
    .kv_clear = cpu_kv_clear,
    .embed = cpu_embed,
    .layers = cpu_layers,
    .head = cpu_head,
};

void backend_cpu_round(struct backend *b) {
    ((struct cpu_backend *)(void *)b)->rounded = true;
}

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
    settle_gate_init(&b->gate);
    *out = &b->base;
    return 0;
}
