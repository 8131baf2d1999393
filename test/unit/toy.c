#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { PRIME = 65521 };

const struct model_config toy_config = {.hidden = 2,
                                        .n_layers = TOY_LAYERS,
                                        .n_heads = 1,
                                        .n_kv_heads = 1,
                                        .head_dim = 2,
                                        .ffn = 2,
                                        .vocab = TOY_VOCAB,
                                        .max_ctx = TOY_CTX};

static uint32_t fold(uint32_t acc, uint32_t v, uint32_t layer) {
    return (acc * 31u + v + layer * 17u + 1u) % PRIME;
}

/* ---- the toy backend ---- */

struct toy_kv {
    uint32_t n_slots;
    uint32_t v[]; /* [TOY_LAYERS][n_slots] */
};

static uint32_t *at(struct toy_kv *kv, int layer, uint32_t slot) {
    cr_assert_lt(slot, kv->n_slots);
    return &kv->v[(uint32_t)layer * kv->n_slots + slot];
}

_Thread_local uint64_t toy_rows_computed;

static int toy_kv_create(struct stage *s, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    (void)s, (void)type, (void)e;
    struct toy_kv *kv = calloc(1, sizeof *kv + (size_t)TOY_LAYERS * n_slots * sizeof kv->v[0]);
    kv->n_slots = n_slots;
    *out = (struct kv *)kv;
    return 0;
}

static void toy_kv_free(struct kv *kv) {
    free(kv);
}

static void toy_kv_clear(struct kv *base) {
    struct toy_kv *kv = (struct toy_kv *)base;
    memset(kv->v, 0xee, (size_t)TOY_LAYERS * kv->n_slots * sizeof kv->v[0]);
}

static int toy_embed(struct stage *s, const uint32_t *tokens, int n, float *x, struct err *e) {
    (void)s, (void)e;
    for (int i = 0; i < n; i++)
        x[2 * i] = (float)tokens[i], x[2 * i + 1] = 0;
    return 0;
}

static int toy_layers(struct stage *s, struct kv *base, const struct batch *b, int lo, int hi, float *x,
                      struct err *e) {
    struct toy_kv *kv = (struct toy_kv *)base;
    (void)e;
    cr_assert(lo >= s->part.lo && hi <= s->part.hi);
    for (int layer = lo; layer < hi; layer++) {
        for (int i = 0; i < b->n; i++)
            *at(kv, layer, b->rows[i].slot) = (uint32_t)x[2 * i];
        for (int i = 0; i < b->n; i++) {
            const struct row *r = &b->rows[i];
            uint32_t acc = 0;
            for (uint32_t k = 0; k < r->n_trunk; k++)
                acc = fold(acc, *at(kv, layer, r->trunk[k]), (uint32_t)layer);
            for (uint32_t k = 0; k < r->n_tail; k++)
                acc = fold(acc, *at(kv, layer, r->tail[k]), (uint32_t)layer);
            x[2 * i] = (float)acc;
        }
    }
    toy_rows_computed += (uint64_t)b->n;
    return 0;
}

static void score(uint32_t v, float *logits) {
    for (int t = 0; t < TOY_VOCAB; t++)
        logits[t] = (float)((v + (uint32_t)t * 7919u) % 1009u);
}

static int toy_head(struct stage *s, const float *x, int n, float *logits, struct err *e) {
    (void)s, (void)e;
    for (int i = 0; i < n; i++)
        score((uint32_t)x[2 * i], logits + (size_t)i * TOY_VOCAB);
    return 0;
}

const struct backend_ops toy_ops = {.name = "toy",
                                    .kv_create = toy_kv_create,
                                    .kv_free = toy_kv_free,
                                    .kv_clear = toy_kv_clear,
                                    .embed = toy_embed,
                                    .layers = toy_layers,
                                    .head = toy_head};

/* ---- what the logits behind tokens[0..n) must be ---- */

void toy_expect(const uint32_t *tokens, int n, float *logits) {
    uint32_t v[TOY_CTX], next[TOY_CTX];
    for (int i = 0; i < n; i++)
        v[i] = tokens[i];
    for (uint32_t layer = 0; layer < TOY_LAYERS; layer++) {
        for (int i = 0; i < n; i++) {
            next[i] = 0;
            for (int k = 0; k <= i; k++)
                next[i] = fold(next[i], v[k], layer);
        }
        memcpy(v, next, sizeof v);
    }
    score(v[n - 1], logits);
}

uint32_t toy_rnd(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

void toy_fill(uint32_t *t, int n, uint32_t seed) {
    for (int i = 0; i < n; i++)
        t[i] = toy_rnd(&seed) % TOY_VOCAB;
}

void toy_check(struct session *s, const uint32_t *tokens, int n) {
    float want[TOY_VOCAB];
    uint32_t have;
    toy_expect(tokens, n, want);
    cr_assert_arr_eq(session_tokens(s, &have), tokens, (size_t)n * sizeof *tokens);
    cr_assert_eq(have, (uint32_t)n);
    cr_assert_not_null(session_logits(s));
    cr_assert_arr_eq(session_logits(s), want, sizeof want);
}

void toy_converse(struct session *s, double temperature, uint32_t said[TOY_SAID]) {
    struct err e = {0};
    struct sample_params p;
    uint32_t t[TOY_CTX], n = 75;
    int k = 0;
    sample_params_default(&p);
    p.temperature = (float)temperature;
    p.top_p = 0.95f;
    p.seed = 11;
    toy_fill(t, TOY_CTX, 23);
    cr_assert_eq(session_feed(s, t, n, NULL, NULL, &e), 0, "%s", e.msg);
    for (int turn = 0; turn < 2; turn++) {
        toy_check(s, t, (int)n);
        for (int i = 0; i < 4; i++) {
            cr_assert_eq(session_sample(s, &p, (uint32_t)i, &t[n], &e), 0, "%s", e.msg);
            said[k++] = t[n];
            if (i % 2) {
                float tree[3 * TOY_VOCAB], want[TOY_VOCAB];
                cr_assert_eq(session_try_tree(s, (uint32_t[]){t[n], 5, 7}, (int[]){-1, -1, 0}, 3, tree, &e), 0, "%s",
                             e.msg);
                toy_expect(t, (int)n + 1, want);
                cr_assert_arr_eq(tree, want, sizeof want);
                toy_check(s, t, (int)n);
            }
            cr_assert_eq(session_advance(s, t[n], &e), 0, "%s", e.msg);
            toy_check(s, t, (int)++n);
        }
        if (turn == 0) {
            n = 60;
            t[40] = (t[40] + 1) % TOY_VOCAB;
            cr_assert_eq(session_feed(s, t, n, NULL, NULL, &e), 0, "%s", e.msg);
            cr_assert_eq(session_stats(s)->reused_tokens, 40);
        }
    }
    cr_assert_eq(e.kind, ERR_NONE);
}
