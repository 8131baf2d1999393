/* A pass on one card: the forward pass of a pre-norm, gated-MLP transformer as launches.
 *
 * What a piece of a pass brings along - which rows, which slots, cos and sin, x - is put together in pinned memory and
 * copied in one go; where it stands follows from the bucket of rows alone. Launches are made for buckets and read the
 * counts on the card, so that recorded ones serve any piece of their bucket. */
#include "gpu/share.h"

#include "core/cpu/cpu.h"

#include <math.h>
#include <string.h>

static void *card_at(const struct share *s, size_t offset) {
    return (void *)(uintptr_t)(s->in + offset);
}

/* ---- what a piece brings along ---- */

/* Finds the distinct trunks of a pass and the slot numbers that its tables take in all. Neighbours are mostly rows of
 * one session. */
static size_t find_trunks(struct share *s, const struct batch *b) {
    size_t n_slots = 0, longest_tails = 0;
    s->n_trunks = 0;
    for (int i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        int t = s->n_trunks - 1;
        while (t >= 0 && s->trunks[t].slots != r->trunk)
            t--;
        if (t < 0)
            s->trunks[t = s->n_trunks++] = (struct trunk){.slots = r->trunk};
        if (r->n_trunk > s->trunks[t].n)
            s->trunks[t].n = r->n_trunk;
        s->trunk_of[i] = (uint32_t)t;
        longest_tails += r->n_tail;
    }
    for (int t = 0; t < s->n_trunks; t++) {
        s->trunks[t].at = (uint32_t)n_slots;
        n_slots += ((size_t)s->trunks[t].n + 3) / 4 * 4; /* each begins on 16 bytes */
    }
    return n_slots + longest_tails;
}

struct piece {
    int first, n, bucket;
    uint32_t max_keys;
    struct layout at;
    size_t bytes; /* to copy */
};

/* Rows, items, cos and sin, slots of rows [first, first + n) of b, behind one another in staging memory. */
static void describe(const struct share *s, const struct batch *b, uint8_t *to, struct piece *p) {
    const struct model_config *c = s->config;
    struct gpu_row *rows = (struct gpu_row *)(void *)(to + p->at.rows);
    uint32_t *slots = (uint32_t *)(void *)(to + p->at.slots), n_slots = 0, pos[PIECE_ROWS], max_pos = 0;
    for (int t = 0; t < s->n_trunks; t++) {
        n_slots = s->trunks[t].at + s->trunks[t].n;
        if (s->trunks[t].n)
            memcpy(slots + s->trunks[t].at, s->trunks[t].slots, s->trunks[t].n * sizeof *slots);
    }
    for (int i = 0; i < p->n; i++) {
        const struct row *r = &b->rows[p->first + i];
        rows[i] = (struct gpu_row){.pos = r->pos,
                                   .slot = r->slot,
                                   .n_trunk = r->n_trunk,
                                   .trunk = s->trunks[s->trunk_of[p->first + i]].at,
                                   .n_tail = r->n_tail,
                                   .tail = n_slots};
        if (r->n_tail)
            memcpy(slots + n_slots, r->tail, r->n_tail * sizeof *slots);
        n_slots += r->n_tail;
        pos[i] = r->pos;
        max_pos = r->pos > max_pos ? r->pos : max_pos;
    }
    cpu_rope_table((float *)(void *)(to + p->at.cs), pos, p->n, s->inv_freq, c->head_dim);
    p->max_keys = kv_key_bucket(max_pos + 1);
    p->bytes = p->at.slots + n_slots * sizeof *slots;
    *(struct gpu_pass *)(void *)to = (struct gpu_pass){
        .n_rows = p->n,
        .n_items =
            op_attend_items(rows, p->n, c->n_heads, c->n_kv_heads, (struct gpu_item *)(void *)(to + p->at.items)),
        .rows = card_at(s, p->at.rows),
        .items = card_at(s, p->at.items),
        .slots = card_at(s, p->at.slots),
        .cs = card_at(s, p->at.cs),
    };
}

/* ---- launches ---- */

static void product(const struct share *s, const struct gpu_pass *pass, int rows, const struct gpu_matrix *w,
                    const float *bias, struct planes x, enum product_use use, float *to, int ld) {
    const struct product p = {.w = w, .x = x, .bias = bias, .use = use, .to = to, .ld = ld, .gated = s->gated};
    op_product(s->card->gpu, pass, rows, &p, s->product);
}

static void run_layer(const struct share *s, const struct share_kv *kv, int index, const struct piece *p) {
    const struct model_config *c = s->config;
    const struct cuda_layer *y = &s->layers[index - s->lo];
    const struct gpu_pass *pass = card_at(s, 0);
    struct gpu *g = s->card->gpu;
    float *x = card_at(s, p->at.x);
    struct attention a = {.qkv = s->qkv,
                          .ld = y->w[LAYER_QKV].rows,
                          .q_at = 0,
                          .k_at = y->k_at,
                          .v_at = y->v_at,
                          .n_heads = c->n_heads,
                          .n_kv_heads = c->n_kv_heads,
                          .head_dim = c->head_dim,
                          .q_norm = y->v.q_norm,
                          .k_norm = y->v.k_norm,
                          .eps = c->rms_eps,
                          .window = index >= c->sliding_from ? c->sliding_window : 0,
                          .out = s->att};
    share_kv_place(kv, index, &a);
    op_rmsnorm(g, pass, p->bucket, x, y->v.attn_norm, c->hidden, c->rms_eps, s->h);
    product(s, pass, p->bucket, &y->w[LAYER_QKV], y->v.bias[LAYER_QKV], s->h, PRODUCT_STORE, s->qkv, a.ld);
    op_rope_kv(g, pass, p->bucket, &a);
    op_attend(g, pass, p->bucket, p->max_keys, &a, (float *)(uintptr_t)kv->scratch);
    product(s, pass, p->bucket, &y->w[LAYER_O], y->v.bias[LAYER_O], s->att, PRODUCT_ADD, x, c->hidden);
    op_rmsnorm(g, pass, p->bucket, x, y->v.mlp_norm, c->hidden, c->rms_eps, s->h);
    product(s, pass, p->bucket, &y->w[LAYER_GATE_UP], y->v.bias[LAYER_GATE_UP], s->h, PRODUCT_GATE, NULL, 0);
    product(s, pass, p->bucket, &y->w[LAYER_DOWN], y->v.bias[LAYER_DOWN], s->gated, PRODUCT_ADD, x, c->hidden);
}

static void run_plain(const struct share *s, const struct share_kv *kv, int lo, int hi, const struct piece *p) {
    for (int i = lo; i < hi; i++)
        run_layer(s, kv, i, p);
}

/* The place for these launches: where they are, a new one, or that of the one that was not used for longest. */
static struct recording *recording_of(struct share_kv *kv, int lo, int hi, const struct piece *p) {
    struct share *s = kv->share;
    struct recording *oldest = NULL, *r;
    for (int i = 0; i < kv->n_recordings; i++) {
        r = &kv->recordings[i];
        if (r->lo == lo && r->hi == hi && r->rows == p->bucket && r->max_keys == p->max_keys &&
            r->in_epoch == s->in_epoch)
            return r;
        if (!oldest || r->used < oldest->used || r->in_epoch != s->in_epoch)
            oldest = r;
    }
    r = !oldest || kv->n_recordings < kv->most_recordings ? &kv->recordings[kv->n_recordings++] : oldest;
    if (r->exec)
        gpu_forget(s->card->gpu, r->exec);
    *r = (struct recording){.lo = lo, .hi = hi, .rows = p->bucket, .max_keys = p->max_keys, .in_epoch = s->in_epoch};
    return r;
}

static void run(struct share *s, struct share_kv *kv, int lo, int hi, const struct piece *p) {
    struct gpu *g = s->card->gpu;
    if (p->bucket > GPU_DECODE_ROWS) {
        run_plain(s, kv, lo, hi, p);
        return;
    }
    struct recording *r = recording_of(kv, lo, hi, p);
    bool known = r->used > 0;
    r->used = ++kv->clock;
    if (known && !r->exec) {
        gpu_record_begin(g);
        run_plain(s, kv, lo, hi, p);
        r->exec = gpu_record_end(g);
    }
    if (r->exec)
        gpu_replay(g, r->exec);
    else
        run_plain(s, kv, lo, hi, p);
}

/* ---- passes ---- */

/* Pieces in which n rows go: small enough for the scratch, and two where copying is worth hiding. Any cut gives the
 * same bits. */
static int piece_of(const struct share *s, int n) {
    int rows = n <= OVERLAP_ROWS ? n : share_bucket((n + 1) / 2);
    return rows < s->piece_rows ? rows : s->piece_rows;
}

/* Enqueues a piece, its way in and its way out. */
static void start(struct share *s, struct share_kv *kv, const struct batch *b, int lo, int hi, const float *x,
                  struct staging *st, struct piece *p) {
    struct gpu *g = s->card->gpu;
    size_t row = (size_t)s->config->hidden * sizeof *x;
    p->bucket = share_bucket(p->n);
    p->at = share_layout(s, p->bucket);
    describe(s, b, st->p, p);
    memcpy(st->p + p->at.x, (const uint8_t *)x + (size_t)p->first * row, (size_t)p->n * row);
    gpu_copy_to(g, s->in, st->p, p->bytes);
    run(s, kv, lo, hi, p);
    gpu_copy_from(g, st->p + p->at.x, s->in + p->at.x, (size_t)p->n * row);
}

static void finish(const struct share *s, const struct staging *st, const struct piece *p, float *x) {
    size_t row = (size_t)s->config->hidden * sizeof *x;
    memcpy((uint8_t *)x + (size_t)p->first * row, st->p + p->at.x, (size_t)p->n * row);
}

int share_layers(struct share *s, struct share_kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e) {
    struct gpu *g = s->card->gpu;
    struct piece pieces[2];
    int rows = piece_of(s, b->n), n_pieces = (b->n + rows - 1) / rows;
    if (card_enter(s->card, e) != 0 || share_reserve_slots(s, find_trunks(s, b), e) != 0)
        return -1;
    /* While the card computes a piece, the host takes the one before it out and puts the next one together. A piece
     * reads what those before it have written: parents come first in a batch. After a failure all of this does nothing.
     */
    for (int i = 0; i < n_pieces; i++) {
        struct staging *st = &s->staging[i % 2], *before = &s->staging[(i + 1) % 2];
        struct piece *p = &pieces[i % 2];
        *p = (struct piece){.first = i * rows, .n = b->n - i * rows < rows ? b->n - i * rows : rows};
        start(s, kv, b, lo, hi, x, st, p);
        if (i + 1 < n_pieces)
            gpu_event_record(g, st->done);
        if (i > 0 && gpu_event_wait(g, before->done))
            finish(s, before, &pieces[(i + 1) % 2], x);
    }
    if (card_wait(s->card, e) != 0)
        return -1;
    finish(s, &s->staging[(n_pieces - 1) % 2], &pieces[(n_pieces - 1) % 2], x);
    return 0;
}

int share_head(struct share *s, const float *x, int n, float *logits, struct err *e) {
    const struct model_config *c = s->config;
    struct gpu *g = s->card->gpu;
    struct staging *st = &s->staging[0];
    size_t hidden = (size_t)c->hidden, vocab = (size_t)c->vocab;
    if (card_enter(s->card, e) != 0 || share_reserve_slots(s, 0, e) != 0) /* what a pass in need may have given up */
        return -1;
    for (int at = 0, rows; at < n; at += rows) {
        rows = n - at < share_head_rows(s) ? n - at : share_head_rows(s);
        struct layout y = share_layout(s, share_bucket(rows));
        const struct gpu_pass *pass = card_at(s, 0);
        *(struct gpu_pass *)(void *)st->p = (struct gpu_pass){.n_rows = rows};
        memcpy(st->p + y.x, x + (size_t)at * hidden, (size_t)rows * hidden * sizeof *x);
        gpu_copy_to(g, s->in, st->p, sizeof *pass);
        gpu_copy_to(g, s->in + y.x, st->p + y.x, (size_t)rows * hidden * sizeof *x);
        op_rmsnorm(g, pass, share_bucket(rows), card_at(s, y.x), s->norm, c->hidden, c->rms_eps, s->h);
        product(s, pass, share_bucket(rows), &s->head, NULL, s->h, PRODUCT_STORE, s->logits, c->vocab);
        gpu_copy_from(g, s->logits_host, (cu_ptr)(uintptr_t)s->logits, (size_t)rows * vocab * sizeof *logits);
        if (card_wait(s->card, e) != 0)
            return -1;
        memcpy(logits + (size_t)at * vocab, s->logits_host, (size_t)rows * vocab * sizeof *logits);
    }
    return 0;
}
