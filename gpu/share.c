/* A share of a stage: its weights and scratch on one card. */
#include "gpu/share.h"

#include "core/model/readahead.h"

#include <stdio.h>
#include <stdlib.h>

enum { ALIGN = 256, LEAST_SLOTS = 4096 };

static size_t aligned(size_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t round64(size_t n) {
    return (n + 63) / 64 * 64;
}

/* ---- geometry ---- */

int share_bucket(int n) {
    int bucket = 1;
    if (n > GPU_DECODE_ROWS)
        return (int)round64((size_t)n);
    while (bucket < n)
        bucket *= 2;
    return bucket;
}

int share_head_rows(const struct share *s) {
    return s->piece_rows < GPU_DECODE_ROWS ? s->piece_rows : GPU_DECODE_ROWS;
}

struct layout share_layout(const struct share *s, int bucket) {
    const struct model_config *c = s->config;
    size_t n = (size_t)bucket;
    struct layout y;
    y.rows = aligned(sizeof(struct gpu_pass));
    y.items = y.rows + aligned(n * sizeof(struct gpu_row));
    y.cs = y.items + aligned((size_t)op_attend_max_items(bucket, c->n_heads, c->n_kv_heads) * sizeof(struct gpu_item));
    y.x = y.cs + aligned(n * (size_t)c->head_dim * sizeof(float));
    y.slots = y.x + aligned(n * (size_t)s->card->seat.n * (size_t)s->hidden.each * sizeof(float));
    return y;
}

static int greater(int a, int b) {
    return a > b ? a : b;
}

static struct planes planes_at(cu_ptr base, size_t *at, size_t rows, size_t cols) {
    size_t ld = round64(cols), bytes = aligned(rows * ld * sizeof(uint16_t));
    struct planes p = {
        .hi = (uint16_t *)(uintptr_t)(base + *at), .lo = (uint16_t *)(uintptr_t)(base + *at + bytes), .ld = (int)ld};
    *at += 2 * bytes;
    return p;
}

static float *floats_at(cu_ptr base, size_t *at, size_t n) {
    float *p = (float *)(uintptr_t)(base + *at);
    *at += aligned(n * sizeof *p);
    return p;
}

/* Cuts the scratch at base into its parts; returns its size. */
static size_t lay_scratch(struct share *s, const struct stage_plan *p, cu_ptr base) {
    const struct model_config *c = s->config;
    size_t rows = round64((size_t)s->piece_rows), at = 0, product = 0;
    s->h = planes_at(base, &at, rows, (size_t)c->hidden);
    if (s->lo < s->hi) {
        s->att = planes_at(base, &at, rows, (size_t)c->n_heads * (size_t)c->head_dim);
        s->gated = planes_at(base, &at, rows, (size_t)c->ffn);
        size_t wide = 0;
        for (int i = s->lo; i < s->hi; i++) {
            const struct layer_plan *y = &p->layers[i - p->part.lo];
            for (int j = 0; j < N_LAYER_MATRICES; j++) {
                size_t n = op_product_scratch(s->card->gpu, &y->w[j], s->piece_rows);
                product = n > product ? n : product;
            }
            wide = (size_t)y->w[LAYER_QKV].rows > wide ? (size_t)y->w[LAYER_QKV].rows : wide;
        }
        s->qkv = floats_at(base, &at, rows * wide);
        if (s->card->seat.n > 1) {
            size_t block = op_join_block((int)rows, greater(s->n_heads * c->head_dim, s->ffn.each));
            s->gathered = (uint16_t *)(uintptr_t)(base + at);
            at += aligned((size_t)s->card->seat.n * block);
        }
    }
    if (s->has_head) {
        size_t n = op_product_scratch(s->card->gpu, &p->head, s->piece_rows);
        product = n > product ? n : product;
        s->logits = floats_at(base, &at, (size_t)share_head_rows(s) * (size_t)s->vocab.n);
    }
    s->product = floats_at(base, &at, product / sizeof(float));
    return at;
}

/* ---- memory ---- */

/* What the layers and the head take on this card, and how many of the layers would fit if not all do. */
static int check_memory(const struct share *s, const struct stage_plan *p, size_t fixed, struct err *e) {
    size_t left = gpu_memory_left(s->card->gpu), need = fixed + (s->has_head ? p->head_bytes : 0);
    int fit = 0;
    for (int i = s->lo; i < s->hi; i++) {
        need += p->layers[i - p->part.lo].bytes;
        fit += need <= left;
    }
    if (need <= left)
        return 0;
    char a[24], b[24];
    return err_set(
        e, ERR_MEMORY,
        "layers %d to %d of %s%s need %s on GPU %d (%s), which has %s left: %d of these %d layers would fit; "
        "give it fewer layers, --quant q8 or q4, or spread them over more cards (--device 0,1)",
        s->lo, s->hi, weights_path(p->weights), s->has_head ? " and the head" : "", memory_text((double)need, a),
        s->card->gpu->ordinal, s->card->gpu->name, memory_text((double)left, b), fit, s->hi - s->lo);
}

static size_t slots_room(size_t slots) {
    return aligned((slots + GPU_KV_BLOCK) * sizeof(uint32_t)); /* whoever reads whole blocks stays inside */
}

static void staging_free(struct share *s) {
    struct gpu *g = s->card->gpu;
    for (int i = 0; i < 2; i++) {
        if (s->staging[i].p)
            gpu_host_free(g, s->staging[i].p, s->in_bytes);
        s->staging[i].p = NULL;
    }
    if (s->in)
        gpu_wipe(g, s->in, s->in_bytes);
    gpu_free(g, s->in);
    s->in = 0;
    s->in_bytes = 0;
}

int share_reserve_slots(struct share *s, size_t slots, struct err *e) {
    struct gpu *g = s->card->gpu;
    size_t bytes = share_layout(s, s->piece_rows).slots + slots_room(slots);
    if (bytes <= s->in_bytes)
        return 0;
    staging_free(s);
    s->in_epoch++;
    s->in_bytes = bytes;
    int rc = gpu_alloc(g, &s->in, bytes, "what passes bring along", e);
    for (int i = 0; rc == 0 && i < 2; i++) {
        void *p = NULL;
        rc = gpu_host_alloc(g, &p, bytes, e);
        s->staging[i].p = p;
    }
    if (rc != 0)
        staging_free(s);
    return rc;
}

static size_t logits_bytes(const struct share *s) {
    return (size_t)share_head_rows(s) * (size_t)s->vocab.n * sizeof(float);
}

static int reserve_host(struct share *s, struct err *e) {
    const struct model_config *c = s->config;
    struct gpu *g = s->card->gpu;
    size_t n = (size_t)s->max_rows;
    s->inv_freq = malloc((size_t)c->head_dim / 2 * sizeof *s->inv_freq);
    s->trunks = malloc(n * sizeof *s->trunks);
    s->trunk_of = malloc(n * sizeof *s->trunk_of);
    if (!s->inv_freq || !s->trunks || !s->trunk_of)
        return err_set(e, ERR_MEMORY, "out of memory for passes of %d rows", s->max_rows);
    config_rope_freqs(c, s->inv_freq);
    if (s->has_head) {
        void *p;
        if (gpu_host_alloc(g, &p, logits_bytes(s), e) != 0)
            return -1;
        s->logits_host = p;
    }
    for (int i = 0; i < 2; i++)
        if (gpu_event_create(g, &s->staging[i].done, e) != 0)
            return -1;
    return share_reserve_slots(s, LEAST_SLOTS, e);
}

void share_free(struct share *s) {
    if (!s->card)
        return;
    struct gpu *g = s->card->gpu;
    gpu_enter(g);
    matrix_loader_free(s->loader);
    for (int i = 0; s->layers && i < s->hi - s->lo; i++)
        for (int j = 0; j < N_LAYER_MATRICES; j++)
            matrix_free(g, &s->layers[i].w[j]);
    matrix_free(g, &s->head);
    gpu_free(g, s->vectors);
    if (s->scratch)
        gpu_wipe(g, s->scratch, s->scratch_bytes);
    gpu_free(g, s->scratch);
    staging_free(s);
    for (int i = 0; i < 2; i++)
        gpu_event_free(g, s->staging[i].done);
    if (s->logits_host)
        gpu_host_free(g, s->logits_host, logits_bytes(s));
    free(s->layers);
    free(s->inv_freq);
    free(s->trunks);
    free(s->trunk_of);
    *s = (struct share){0};
}

/* ---- loading ---- */

static int place_vectors(struct share *s, const struct stage_plan *p, struct vectors *v, struct err *e) {
    for (int i = s->lo; i < s->hi; i++)
        if (plan_layer_vectors(p, i, v, &s->layers[i - s->lo].v, e) != 0)
            return -1;
    return s->has_head ? plan_head_vectors(p, v, &s->norm, e) : 0;
}

/* All vectors in one block: counted, put together on the host, and copied. */
static int load_vectors(struct share *s, const struct stage_plan *p, struct err *e) {
    struct gpu *g = s->card->gpu;
    struct vectors v = {0};
    void *host = NULL;
    if (place_vectors(s, p, &v, e) != 0)
        return -1;
    size_t bytes = v.n * sizeof(float);
    if (bytes == 0)
        return 0;
    if (gpu_alloc(g, &s->vectors, bytes, "norms and biases", e) != 0 || gpu_host_alloc(g, &host, bytes, e) != 0)
        return -1;
    v = (struct vectors){.host = host, .card = (const float *)(uintptr_t)s->vectors};
    int rc = place_vectors(s, p, &v, e);
    if (rc == 0) {
        gpu_copy_to(g, s->vectors, host, bytes);
        rc = card_wait(s->card, e);
    }
    gpu_host_free(g, host, bytes);
    s->bytes += bytes;
    return rc;
}

static int on_bytes(void *ctx, uint64_t bytes) {
    struct loading *l = ctx;
    l->done += bytes;
    readahead_done(l->ahead, bytes);
    return l->opts->progress ? l->opts->progress(l->opts->progress_ctx, l->done, l->total) : 0;
}

int share_load(struct share *s, struct stage_plan *p, int layer, int matrix, struct loading *l, struct err *e) {
    struct layer_plan *plan = &p->layers[layer - s->lo];
    struct cuda_layer *y = &s->layers[layer - s->lo];
    const struct layer_matrix *m = &layer_matrices[matrix];
    char what[64];
    snprintf(what, sizeof what, "layer %d's %s", layer, m->name);
    y->k_at = plan->tensors[1].at;
    y->v_at = plan->tensors[2].at;
    if (matrix_load(s->loader, &y->w[matrix], &plan->tensors[m->first], m->n, m->interleave, p->quant, on_bytes, l,
                    what, e) != 0)
        return -1;
    s->bytes += y->w[matrix].bytes;
    return 0;
}

int share_load_head(struct share *s, struct stage_plan *p, struct loading *l, struct err *e) {
    if (matrix_load(s->loader, &s->head, &p->head_tensor, 1, false, p->quant, on_bytes, l, "the head", e) != 0)
        return -1;
    s->bytes += s->head.bytes;
    return 0;
}

int share_end(struct share *s, struct err *e) {
    gpu_enter(s->card->gpu);
    int rc = card_wait(s->card, e);
    matrix_loader_free(s->loader);
    s->loader = NULL;
    return rc;
}

int share_begin(struct share *s, struct card *card, const struct stage_plan *p, int max_rows, struct err *e) {
    const struct model_config *c = p->config;
    *s = (struct share){.card = card,
                        .config = c,
                        .lo = p->part.lo,
                        .hi = p->part.hi,
                        .has_head = p->part.head,
                        .n_heads = c->n_heads / card->seat.n,
                        .n_kv_heads = c->n_kv_heads / card->seat.n,
                        .hidden = plan_slice(c->hidden, card->seat),
                        .ffn = plan_slice(c->ffn, card->seat),
                        .vocab = plan_slice(c->vocab, card->seat),
                        .max_rows = max_rows,
                        .piece_rows = share_bucket(max_rows < PIECE_ROWS ? max_rows : PIECE_ROWS)};
    if (card_enter(card, e) != 0)
        goto fail;
    s->scratch_bytes = lay_scratch(s, p, 0);
    s->layers = calloc((size_t)(s->hi - s->lo) + 1, sizeof *s->layers);
    if (!s->layers) {
        err_set(e, ERR_MEMORY, "out of memory loading the model");
        goto fail;
    }
    /* The loader comes first, so that what it takes meanwhile is not counted as free. */
    size_t in = share_layout(s, s->piece_rows).slots + slots_room(LEAST_SLOTS);
    if (matrix_loader_create(&s->loader, card->gpu, e) != 0 || check_memory(s, p, s->scratch_bytes + in, e) != 0 ||
        gpu_alloc(card->gpu, &s->scratch, s->scratch_bytes, "the activations of a pass", e) != 0)
        goto fail;
    lay_scratch(s, p, s->scratch);
    s->bytes = s->scratch_bytes + in;
    if (reserve_host(s, e) != 0 || load_vectors(s, p, e) != 0)
        goto fail;
    return 0;
fail:
    share_free(s);
    return -1;
}
