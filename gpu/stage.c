/* A stage over one or several teams of cards: its layers are dealt out in order, and x goes from one to the next
 * through the host. What the operations of backend.h promise is checked here. */
#include "gpu/stage.h"

#include "core/model/readahead.h"

#include <stdlib.h>

static struct cuda_stage *stage_of(struct stage *base) {
    return (struct cuda_stage *)(void *)base;
}

/* ---- loading ---- */

/* Starts reading ahead, in the order of loading. */
static int read_ahead(struct loading *l, const struct stage_plan *p, struct err *e) {
    int n = 0, n_layers = p->part.hi - p->part.lo;
    struct tensor *t = malloc(((size_t)n_layers * N_LAYER_TENSORS + 1) * sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    for (int i = 0; i < n_layers; i++)
        for (int j = 0; j < N_LAYER_TENSORS; j++)
            t[n++] = p->layers[i].tensors[j].t;
    if (p->part.head)
        t[n++] = p->head_tensor.t;
    int rc = n ? readahead_start(&l->ahead, t, n, e) : 0;
    free(t);
    return rc;
}

/* Which layers and whether the head go to which team. */
static int deal(const struct cuda_backend *b, const struct stage_plan *p, int n_layers[MAX_CARDS], struct err *e) {
    int n = p->part.hi - p->part.lo, n_teams = 0;
    size_t left[MAX_CARDS], *cost = malloc(((size_t)n + 1) * sizeof *cost);
    if (!cost)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    for (int i = 0; i < n; i++)
        cost[i] = p->layers[i].bytes;
    for (int i = 0; i < b->n_cards; i += b->cards[i].seat.n)
        left[n_teams++] = team_memory_left(&b->cards[i]);
    int head = spread_layers(cost, n, p->head_bytes, left, n_teams, n_layers);
    free(cost);
    return head;
}

/* The shares of a team, in step: each card reads other rows, and the file is read once. */
static int load_team(struct cuda_stage *s, struct card *cards, const struct stage_plan *whole, const struct part *part,
                     struct loading *l, struct err *e) {
    int n = cards->seat.n, rc = 0;
    struct share *shares = &s->shares[s->n_shares];
    struct stage_plan plans[MAX_CARDS] = {0};
    for (int r = 0; r < n && rc == 0; r++)
        rc = stage_plan_make(&plans[r], whole->weights, part, cards[r].seat, whole->quant, e);
    for (int r = 0; r < n && rc == 0; r++) {
        rc = share_begin(&shares[r], &cards[r], &plans[r], s->max_rows, e);
        s->n_shares += rc == 0;
    }
    for (int i = part->lo; i < part->hi; i++)
        for (int m = 0; m < N_LAYER_MATRICES; m++)
            for (int r = 0; r < n && rc == 0; r++)
                rc = share_load(&shares[r], &plans[r], i, m, l, e);
    for (int r = 0; r < n && rc == 0 && part->head; r++)
        rc = share_load_head(&shares[r], &plans[r], l, e);
    for (int r = 0; r < n; r++) {
        if (rc == 0)
            rc = share_end(&shares[r], e);
        s->bytes += shares[r].bytes;
        stage_plan_free(&plans[r]);
    }
    return rc;
}

static int load_shares(struct cuda_stage *s, struct stage_plan *p, struct loading *l, struct err *e) {
    struct cuda_backend *b = s->backend;
    int n_layers[MAX_CARDS] = {0}, lo = p->part.lo, head = deal(b, p, n_layers, e);
    if (head < 0)
        return -1;
    for (int i = 0, team = 0; i < b->n_cards; i += b->cards[i].seat.n, team++) {
        const struct part part = {.lo = lo, .hi = lo + n_layers[team], .head = p->part.head && team == head};
        if (part.lo == part.hi && !part.head)
            continue;
        if (load_team(s, &b->cards[i], p, &part, l, e) != 0)
            return -1;
        lo = part.hi;
    }
    return 0;
}

static void cuda_stage_free(struct stage *base) {
    struct cuda_stage *s = stage_of(base);
    if (!s)
        return;
    for (int i = 0; i < s->n_shares; i++)
        share_free(&s->shares[i]);
    embedding_close(&s->embed);
    free(s);
}

static int cuda_stage_load(struct backend *b, struct weights *w, const struct part *part, const struct load_opts *o,
                           struct stage **out, struct err *e) {
    *out = NULL;
    const struct model_config *c = weights_config(w);
    if (part->lo < 0 || part->lo > part->hi || part->hi > c->n_layers || o->max_rows < 1)
        return err_set(e, ERR_USAGE, "no layers %d to %d in a model of %d", part->lo, part->hi, c->n_layers);
    if (c->head_dim > GPU_HEAD_DIM_MAX)
        return err_set(e, ERR_MODEL, "%s has heads of %d elements; a card computes up to %d: use --backend cpu",
                       weights_path(w), c->head_dim, GPU_HEAD_DIM_MAX);
    struct loading l = {.opts = o};
    struct stage_plan p = {0};
    struct cuda_stage *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    s->base = (struct stage){.ops = b->ops, .config = c, .part = *part};
    s->backend = (struct cuda_backend *)(void *)b;
    s->max_rows = o->max_rows;
    int rc = stage_plan_make(&p, w, part, (struct seat){0, 1}, o->quant, e);
    l.total = p.file;
    if (rc == 0 && part->embed)
        rc = embedding_open(&s->embed, w, e);
    if (rc == 0)
        rc = read_ahead(&l, &p, e);
    if (rc == 0)
        rc = load_shares(s, &p, &l, e);
    readahead_stop(l.ahead);
    stage_plan_free(&p);
    if (rc != 0) {
        cuda_stage_free(&s->base);
        return -1;
    }
    *out = &s->base;
    return 0;
}

static size_t cuda_stage_bytes(const struct stage *s) {
    return ((const struct cuda_stage *)(const void *)s)->bytes;
}

/* ---- KV ---- */

static void cuda_kv_free(struct kv *base) {
    struct cuda_kv *kv = (struct cuda_kv *)base;
    if (!kv)
        return;
    for (int i = 0; i < MAX_CARDS; i++)
        share_kv_free(&kv->shares[i]);
    free(kv);
}

static void cuda_kv_clear(struct kv *base) {
    struct cuda_kv *kv = (struct cuda_kv *)base;
    for (int i = 0; i < MAX_CARDS; i++)
        share_kv_clear(&kv->shares[i]);
}

static int cuda_kv_create(struct stage *base, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    *out = NULL;
    struct cuda_stage *s = stage_of(base);
    if (type != DT_F16 && type != DT_E4M3)
        return err_set(e, ERR_USAGE,
                       "on a card the KV cache holds f16 or fp8, not %s: its attention multiplies 16-bit keys and "
                       "values; use --kv f16, or --backend cpu",
                       dtype_info(type)->name);
    struct cuda_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ERR_MEMORY, "out of memory for the KV cache");
    kv->stage = s;
    kv->n_slots = n_slots;
    kv->max_keys = kv_max_keys(base->config, n_slots);
    for (int i = 0; i < s->n_shares; i++)
        if (share_kv_create(&kv->shares[i], &s->shares[i], n_slots, type, e) != 0) {
            cuda_kv_free((struct kv *)kv);
            return -1;
        }
    *out = (struct kv *)kv;
    return 0;
}

/* ---- forward ---- */

static int cuda_embed(struct stage *base, const uint32_t *tokens, int n, float *x, struct err *e) {
    return embedding_take(&stage_of(base)->embed, tokens, n, x, e);
}

static int check_rows(const struct cuda_kv *kv, const struct batch *b, struct err *e) {
    for (int i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        if (r->slot >= kv->n_slots)
            return err_set(e, ERR_USAGE, "slot %u of %u", r->slot, kv->n_slots);
        if (r->pos >= kv->max_keys)
            return err_set(e, ERR_USAGE, "position %u: this KV cache was made for %u", r->pos, kv->max_keys);
    }
    return 0;
}

static int cuda_layers(struct stage *base, struct kv *kvbase, const struct batch *b, int lo, int hi, float *x,
                       struct err *e) {
    struct cuda_stage *s = stage_of(base);
    struct cuda_kv *kv = (struct cuda_kv *)kvbase;
    if (lo < base->part.lo || hi > base->part.hi || b->n > s->max_rows)
        return err_set(e, ERR_USAGE, "layers %d to %d over %d rows: this part holds %d to %d and passes of %d rows", lo,
                       hi, b->n, base->part.lo, base->part.hi, s->max_rows);
    if (check_rows(kv, b, e) != 0)
        return -1;
    if (b->n == 0 || lo >= hi)
        return 0;
    for (int i = 0; i < s->n_shares; i += s->shares[i].card->seat.n) {
        struct share *y = &s->shares[i];
        int from = lo > y->lo ? lo : y->lo, to = hi < y->hi ? hi : y->hi;
        if (from < to && share_layers(y, &kv->shares[i], b, from, to, x, e) != 0)
            return -1;
    }
    return 0;
}

static int cuda_head(struct stage *base, const float *x, int n, float *logits, struct err *e) {
    struct cuda_stage *s = stage_of(base);
    if (!base->part.head || n > s->max_rows)
        return err_set(e, ERR_USAGE,
                       base->part.head ? "%d rows are more than this part's passes hold"
                                       : "no head in this part of the model (%d rows)",
                       n);
    struct share *last = &s->shares[s->n_shares - 1];
    return share_head(last - last->card->seat.rank, x, n, logits, e);
}

const struct backend_ops cuda_ops = {
    .name = "cuda",
    .free = cuda_backend_free,
    .stage_load = cuda_stage_load,
    .stage_free = cuda_stage_free,
    .stage_bytes = cuda_stage_bytes,
    .kv_create = cuda_kv_create,
    .kv_free = cuda_kv_free,
    .kv_clear = cuda_kv_clear,
    .embed = cuda_embed,
    .layers = cuda_layers,
    .head = cuda_head,
};
