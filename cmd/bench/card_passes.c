/* Whole passes through the backend: what a cloud does with a window, copies in and out included. */
#include "cmd/bench/card.h"

#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "core/base/clock.h"
#include "core/model/kv.h"
#include "net/wire.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONTEXT = 1024, ROUNDS = 7, FEW_ROUNDS = 2, FEW = 64 };

struct passes {
    struct card_bench *b;
    struct stage *stage;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *table;
    struct node *nodes;
    uint32_t *ids, next_id;
    struct row *rows;
    float *x;
    int max_rows;
    double weights; /* bytes; work space, which stage_bytes counts too, is not what a pass reads */
};

/* n nodes: a chain behind the head of the table, or its children. */
static int add_nodes(struct passes *p, int n, bool chain, struct err *e) {
    uint32_t head = kv_table_head(p->table), len = kv_table_len(p->table);
    for (int i = 0; i < n; i++) {
        uint32_t id = p->next_id++;
        p->nodes[i] =
            (struct node){.id = id, .parent = chain && i > 0 ? id - 1 : head, .pos = len + (chain ? (uint32_t)i : 0)};
        p->ids[i] = id;
    }
    if (kv_table_add(p->table, p->nodes, n, NULL, e) != n)
        return err_set(e, ERR_MEMORY, "no room for %d positions", n);
    return kv_table_rows(p->table, p->ids, n, p->rows, e);
}

static int run(struct passes *p, int n, double *ms, struct err *e) {
    const struct batch batch = {.rows = p->rows, .n = n};
    size_t hidden = (size_t)p->stage->config->hidden;
    for (size_t i = 0; i < (size_t)n * hidden; i++)
        p->x[i] = (float)((int)(i * 2654435761u >> 16 & 0xff) - 128) / 128;
    double t0 = clock_ms();
    int rc = p->stage->ops->layers(p->stage, p->kv, &batch, p->stage->part.lo, p->stage->part.hi, p->x, e);
    *ms = clock_ms() - t0;
    return rc;
}

static int time_rows(struct passes *p, int n, bool decode, double *best, struct err *e) {
    *best = 0;
    for (int round = -2; round < (n <= FEW ? ROUNDS : FEW_ROUNDS); round++) { /* the first ones warm up and record */
        double ms;
        if (add_nodes(p, n, !decode, e) != 0 || run(p, n, &ms, e) != 0)
            return -1;
        kv_table_cancel(p->table, p->ids, decode ? n : 1);
        if (round >= 0 && (*best == 0 || ms < *best))
            *best = ms;
    }
    return 0;
}

static int record(struct passes *p, const char *model, int n, uint32_t context, double ms, struct err *e) {
    const struct model_config *c = p->stage->config;
    struct card_result *r = card_add(p->b);
    int layers = p->stage->part.hi - p->stage->part.lo;
    double q = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
    double weights = (2 * q + 2 * kv + 3.0 * c->ffn) * c->hidden;
    double keys = context ? context + 1 : (n + 1) / 2.0; /* a row has in the mean */
    if (r) {
        *r = (struct card_result){.model = model, .rows = n, .ms = ms, .layers = layers};
        r->bytes = p->weights +
                   layers * (context + (double)n) * (double)config_kv_bytes(c, wire_kv_type((uint8_t)p->b->o->kv));
        r->flop = layers * n * (2 * weights + 4 * q * keys);
        if (context)
            snprintf(r->what, sizeof r->what, "pass, %d layers, at %u%s", layers, context, card_math(p->b));
        else
            snprintf(r->what, sizeof r->what, "pass, %d layers, prompt%s", layers, card_math(p->b));
    }
    return card_step(p->b, e);
}

static int time_all(struct passes *p, const char *model, struct err *e) {
    struct card_bench *b = p->b;
    double ms;
    int context = p->max_rows < CONTEXT ? p->max_rows : CONTEXT;
    for (int i = 0; i < b->n_rows; i++) /* prompts, in an empty context */
        if (b->rows[i] > FEW && b->rows[i] <= p->max_rows &&
            (time_rows(p, b->rows[i], false, &ms, e) != 0 || record(p, model, b->rows[i], 0, ms, e) != 0))
            return -1;
    if (add_nodes(p, context, true, e) != 0 || run(p, context, &ms, e) != 0 ||
        kv_table_commit(p->table, p->ids, context, e) != 0)
        return -1;
    for (int i = 0; i < b->n_rows; i++)
        if (b->rows[i] <= FEW && (time_rows(p, b->rows[i], true, &ms, e) != 0 ||
                                  record(p, model, b->rows[i], (uint32_t)context, ms, e) != 0))
            return -1;
    return 0;
}

static int on_load(void *ctx, uint64_t done, uint64_t total) {
    (void)ctx, (void)done, (void)total;
    return interrupt_asked();
}

int card_passes(struct card_bench *b, const char *model, struct weights *w, struct err *e) {
    const struct model_config *c = weights_config(w);
    const struct part part = {.lo = 0, .hi = c->n_layers};
    const struct backend_ops *ops = b->backend->ops;
    struct passes p = {.b = b, .next_id = 1};
    int rc = -1;
    p.max_rows = b->rows[b->n_rows - 1] < c->max_ctx ? b->rows[b->n_rows - 1] : c->max_ctx;
    uint32_t slots = CONTEXT + (uint32_t)p.max_rows;
    slots = slots < (uint32_t)c->max_ctx ? slots : (uint32_t)c->max_ctx;
    size_t n = (size_t)p.max_rows;
    const struct load_opts lo = {.quant = (enum quant)b->o->quant, .max_rows = p.max_rows, .progress = on_load};
    b->all += (uint64_t)b->n_rows;
    p.nodes = malloc(n * sizeof *p.nodes);
    p.ids = malloc(n * sizeof *p.ids);
    p.rows = malloc(n * sizeof *p.rows);
    p.x = malloc(n * (size_t)c->hidden * sizeof *p.x);
    if (!p.nodes || !p.ids || !p.rows || !p.x) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    const struct part parts[3] = {{0}, part, {0}};
    const enum quant quant[3] = {lo.quant, lo.quant, lo.quant};
    struct memory_plan plan;
    if (memory_plan(&plan, w, parts, quant, wire_kv_type((uint8_t)b->o->kv), slots, p.max_rows, true, e) != 0)
        goto out;
    p.weights = (double)plan.weights;
    if (ops->stage_load(b->backend, w, &part, &lo, &p.stage, e) == 0 &&
        ops->kv_create(p.stage, slots, wire_kv_type((uint8_t)b->o->kv), &p.kv, e) == 0 &&
        slot_pool_create(&p.pool, slots, e) == 0 && kv_table_create(&p.table, p.pool, slots, (uint32_t)n, e) == 0)
        rc = time_all(&p, model, e);
out:
    kv_table_free(p.table);
    slot_pool_free(p.pool);
    if (p.kv)
        ops->kv_free(p.kv);
    if (p.stage)
        ops->stage_free(p.stage);
    free(p.nodes);
    free(p.ids);
    free(p.rows);
    free(p.x);
    return rc;
}
