/* core/decode/session and core/model/local_middle over a backend that is not a neural network: each "layer" folds the
 * values of all keys of a row, in order, into a number modulo a prime. A wrong slot, order or ancestor gives another
 * number, and the expected one is computed here by three nested loops over plain arrays. */
#include "core/decode/session.h"
#include "core/model/local_middle.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 97, LAYERS = 6, CTX = 120, ROWS = 16, PRIME = 65521 };

static const struct model_config config = {.hidden = 2,
                                           .n_layers = LAYERS,
                                           .n_heads = 1,
                                           .n_kv_heads = 1,
                                           .head_dim = 2,
                                           .ffn = 2,
                                           .vocab = VOCAB,
                                           .max_ctx = CTX};

static uint32_t fold(uint32_t acc, uint32_t v, uint32_t layer) {
    return (acc * 31u + v + layer * 17u + 1u) % PRIME;
}

/* ---- the toy backend ---- */

struct toy_kv {
    uint32_t n_slots;
    uint32_t v[LAYERS][CTX + 2 * ROWS + 600];
};

static uint64_t rows_computed;

static int toy_kv_create(struct stage *s, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    (void)s, (void)type, (void)e;
    struct toy_kv *kv = calloc(1, sizeof *kv);
    cr_assert_leq(n_slots, sizeof kv->v[0] / sizeof kv->v[0][0]);
    kv->n_slots = n_slots;
    *out = (struct kv *)kv;
    return 0;
}

static void toy_kv_free(struct kv *kv) {
    free(kv);
}

static void toy_kv_clear(struct kv *base) {
    struct toy_kv *kv = (struct toy_kv *)base;
    memset(kv->v, 0xee, sizeof kv->v);
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
            kv->v[layer][b->rows[i].slot] = (uint32_t)x[2 * i];
        for (int i = 0; i < b->n; i++) {
            const struct row *r = &b->rows[i];
            uint32_t acc = 0;
            for (uint32_t k = 0; k < r->n_trunk; k++)
                acc = fold(acc, kv->v[layer][r->trunk[k]], (uint32_t)layer);
            for (uint32_t k = 0; k < r->n_tail; k++)
                acc = fold(acc, kv->v[layer][r->tail[k]], (uint32_t)layer);
            x[2 * i] = (float)acc;
        }
    }
    rows_computed += (uint64_t)b->n;
    return 0;
}

static void score(uint32_t v, float *logits) {
    for (int t = 0; t < VOCAB; t++)
        logits[t] = (float)((v + (uint32_t)t * 7919u) % 1009u);
}

static int toy_head(struct stage *s, const float *x, int n, float *logits, struct err *e) {
    (void)s, (void)e;
    for (int i = 0; i < n; i++)
        score((uint32_t)x[2 * i], logits + (size_t)i * VOCAB);
    return 0;
}

static const struct backend_ops toy = {.name = "toy",
                                       .kv_create = toy_kv_create,
                                       .kv_free = toy_kv_free,
                                       .kv_clear = toy_kv_clear,
                                       .embed = toy_embed,
                                       .layers = toy_layers,
                                       .head = toy_head};

/* ---- what the logits behind tokens[0..n) must be ---- */

static void expect(const uint32_t *tokens, int n, float *logits) {
    uint32_t v[CTX], next[CTX];
    for (int i = 0; i < n; i++)
        v[i] = tokens[i];
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (int i = 0; i < n; i++) {
            next[i] = 0;
            for (int k = 0; k <= i; k++)
                next[i] = fold(next[i], v[k], layer);
        }
        memcpy(v, next, sizeof v);
    }
    score(v[n - 1], logits);
}

static uint32_t rnd(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* ---- a middle with a link in front of it that fails when told to ---- */

enum { POOL = 4 * ROWS + 300 };

struct flaky {
    struct middle base;
    struct middle *inner;
    int calls_left; /* until the next failure; -1: never */
    int again;      /* calls from one failure to the next; 0: only one */
    bool late;      /* the failing call reaches the other side, and only the caller does not hear of it */
    enum { KEEPS_ALL, LOSES_SOME, LOSES_ALL } loses;
    bool pieces;     /* results come row by row or in small pieces, in any order */
    bool stale;      /* and those from before a failure come after it */
    bool twice;      /* the failing collect does not fail: it brings a node that was there before */
    int stop_left;   /* collects until the caller's stop function asks; -1: never */
    int bad_recover; /* so many recoveries fail */
    bool dead;
    uint32_t seed;
    int calls, failures, recoveries;
    uint32_t ids[POOL]; /* results that wait to be collected */
    float x[POOL][2];
    int n_pool;
    uint32_t last_id;
};

static int fails(struct flaky *f, bool *late, struct err *e) {
    *late = false;
    f->calls++;
    if (f->dead)
        return err_set(e, ERR_PEER, "the link is gone");
    if (f->calls_left < 0 || f->calls_left-- > 0)
        return 0;
    f->calls_left = f->again ? f->again : -1;
    f->failures++;
    f->dead = true;
    *late = f->late;
    static const enum err_kind kinds[] = {ERR_PEER, ERR_IO, ERR_CRYPTO};
    return err_set(e, kinds[f->failures % 3], "the link went away");
}

static int f_submit(struct middle *m, const struct window *w, const float *x, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    bool late;
    int rc = fails(f, &late, e);
    return rc == 0 || late ? f->inner->ops->submit(f->inner, w, x, e) | rc : rc;
}
static int f_commit(struct middle *m, const uint32_t *ids, int n, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    bool late;
    int rc = fails(f, &late, e);
    return rc == 0 || late ? f->inner->ops->commit(f->inner, ids, n, e) | rc : rc;
}
static int f_cancel(struct middle *m, uint32_t id, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    bool late;
    int rc = fails(f, &late, e);
    return rc == 0 || late ? f->inner->ops->cancel(f->inner, id, e) | rc : rc;
}
static int f_rewind(struct middle *m, uint32_t len, uint32_t head, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    bool late;
    int rc = fails(f, &late, e);
    if (rc == 0 && !f->stale)
        f->n_pool = 0;
    return rc == 0 || late ? f->inner->ops->rewind(f->inner, len, head, e) | rc : rc;
}

/* A middle that lies: the first node comes twice, or nothing does, or one that nobody asked for. */
static enum { HONEST, TWICE, EMPTY, STRANGER } lie;

static int f_collect(struct middle *m, struct middle_result *r, int timeout_ms, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    bool late;
    if (f->stop_left >= 0 && f->stop_left-- == 0)
        return -1;
    if (fails(f, &late, e)) {
        if (!f->twice || !f->last_id)
            return -1;
        *e = (struct err){0}; /* the session has to notice */
        f->dead = false;
        r->ids[0] = r->ids[1] = f->last_id + (uint32_t)(f->n_pool == 0);
        r->x[0] = r->x[1] = r->x[2] = r->x[3] = 1;
        r->n = 2;
        return 1;
    }
    if (!f->pieces) {
        int rc = f->inner->ops->collect(f->inner, r, timeout_ms, e);
        if (rc == 1 && r->n > 0)
            f->last_id = r->ids[r->n - 1];
        if (rc == 1 && lie == TWICE && r->n > 1)
            r->ids[1] = r->ids[0];
        if (rc == 1 && lie == EMPTY)
            r->n = 0;
        if (rc == 1 && lie == STRANGER)
            r->ids[0] += 1000;
        return rc;
    }
    for (int rc; (rc = f->inner->ops->collect(f->inner, r, timeout_ms, e)) != 0;) {
        if (rc < 0)
            return -1;
        for (int i = 0; i < r->n; i++, f->n_pool++) {
            cr_assert_lt(f->n_pool, POOL);
            f->ids[f->n_pool] = r->ids[i];
            memcpy(f->x[f->n_pool], r->x + 2 * i, sizeof f->x[0]);
        }
    }
    r->n = 0;
    if (f->n_pool == 0)
        return 0;
    for (int want = (int)(rnd(&f->seed) % 5); want > 0 && f->n_pool > 0; want--) { /* a piece may be empty */
        int at = (int)(rnd(&f->seed) % (uint32_t)f->n_pool);
        f->last_id = r->ids[r->n] = f->ids[at];
        memcpy(r->x + 2 * r->n++, f->x[at], sizeof f->x[0]);
        f->n_pool--;
        f->ids[at] = f->ids[f->n_pool];
        memcpy(f->x[at], f->x[f->n_pool], sizeof f->x[0]);
    }
    return 1;
}

static int f_recover(struct middle *m, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e) {
    struct flaky *f = (struct flaky *)(void *)m;
    if (f->bad_recover > 0 && f->bad_recover--)
        return err_set(e, ERR_IO, "nobody is there");
    f->recoveries++;
    f->dead = false;
    if (f->inner->ops->recover(f->inner, ids, n, kept, e) != 0)
        return -1;
    if (f->loses == LOSES_ALL)
        *kept = 0;
    else if (f->loses == LOSES_SOME)
        *kept = rnd(&f->seed) % (*kept + 1);
    if (!f->stale)
        f->n_pool = 0;
    return f->inner->ops->rewind(f->inner, *kept, *kept ? ids[*kept - 1] : NODE_NONE, e);
}

static const struct middle_ops flaky_ops = {.name = "flaky",
                                            .submit = f_submit,
                                            .commit = f_commit,
                                            .cancel = f_cancel,
                                            .rewind = f_rewind,
                                            .collect = f_collect,
                                            .recover = f_recover};

struct rig {
    struct stage front, mid, back;
    struct flaky flaky;
    struct session *s;
};

static void rig_up_with(struct rig *r, int front, int back, int windows) {
    struct err e = {0};
    *r = (struct rig){.front = {&toy, &config, {.lo = 0, .hi = front, .embed = true}},
                      .mid = {&toy, &config, {.lo = front, .hi = LAYERS - back}},
                      .back = {&toy, &config, {.lo = LAYERS - back, .hi = LAYERS, .head = true}},
                      .flaky = {.base = {&flaky_ops}, .calls_left = -1, .stop_left = -1}};
    cr_assert_eq(
        local_middle_create(&r->flaky.inner, &r->mid, DT_F16, CTX, session_live(ROWS, windows), ROWS, NULL, NULL, &e),
        0);
    struct session_opts o = {&r->front, &r->back, &r->flaky.base, DT_F16, CTX, ROWS, windows};
    cr_assert_eq(session_create(&r->s, &o, &e), 0, "%s", e.msg);
}

static void rig_up(struct rig *r, int front, int back) {
    rig_up_with(r, front, back, 0);
}

static void rig_down(struct rig *r) {
    session_free(r->s);
    r->flaky.inner->ops->free(r->flaky.inner);
}

static void fill(uint32_t *t, int n, uint32_t seed) {
    for (int i = 0; i < n; i++)
        t[i] = rnd(&seed) % VOCAB;
}

static void check_logits(struct session *s, const uint32_t *tokens, int n) {
    float want[VOCAB];
    uint32_t have;
    expect(tokens, n, want);
    cr_assert_arr_eq(session_tokens(s, &have), tokens, (size_t)n * sizeof *tokens);
    cr_assert_eq(have, (uint32_t)n);
    cr_assert_not_null(session_logits(s));
    cr_assert_arr_eq(session_logits(s), want, sizeof want);
}

Test(session, prompts_of_any_length_in_any_split) {
    uint32_t t[CTX];
    struct err e = {0};
    fill(t, CTX, 7);
    for (int front = 0; front <= 3; front++)
        for (int back = 0; back <= 3; back++)
            for (int n = 1; n < CTX; n += 13) {
                struct rig r;
                rig_up(&r, front, back);
                cr_assert_eq(session_feed(r.s, t, (uint32_t)n, NULL, NULL, &e), 0, "%s", e.msg);
                check_logits(r.s, t, n);
                cr_assert_eq(session_advance(r.s, t[n], &e), 0, "%s", e.msg);
                check_logits(r.s, t, n + 1);
                rig_down(&r);
            }
}

Test(session, a_second_turn_computes_only_what_is_new) {
    struct rig r;
    struct err e = {0};
    uint32_t t[CTX];
    fill(t, CTX, 3);
    rig_up(&r, 2, 2);
    cr_assert_eq(session_feed(r.s, t, 60, NULL, NULL, &e), 0);
    rows_computed = 0;
    cr_assert_eq(session_feed(r.s, t, 75, NULL, NULL, &e), 0);
    cr_assert_eq(rows_computed, 3 * 15, "three parts, fifteen new rows");
    cr_assert_eq(session_stats(r.s)->reused_tokens, 60);
    check_logits(r.s, t, 75);
    rows_computed = 0;
    cr_assert_eq(session_feed(r.s, t, 75, NULL, NULL, &e), 0);
    cr_assert_eq(rows_computed, 0, "the same prompt again");
    t[50] = (t[50] + 1) % VOCAB;
    cr_assert_eq(session_feed(r.s, t, 70, NULL, NULL, &e), 0);
    cr_assert_eq(session_stats(r.s)->reused_tokens, 50);
    check_logits(r.s, t, 70);
    cr_assert_eq(session_feed(r.s, t, 30, NULL, NULL, &e), 0, "a prefix of what is there");
    cr_assert_eq(session_stats(r.s)->reused_tokens, 29);
    check_logits(r.s, t, 30);
    session_reset(r.s);
    cr_assert_null(session_logits(r.s));
    cr_assert_eq(session_feed(r.s, t, 5, NULL, NULL, &e), 0);
    check_logits(r.s, t, 5);
    rig_down(&r);
}

Test(session, trees_equal_their_paths) {
    struct rig r;
    struct err e = {0};
    uint32_t t[CTX], seed = 5;
    fill(t, 40, 9);
    rig_up(&r, 1, 2);
    cr_assert_eq(session_feed(r.s, t, 40, NULL, NULL, &e), 0);
    for (int round = 0; round < 300; round++) {
        uint32_t tok[ROWS];
        int parent[ROWS], n = 1 + (int)(rnd(&seed) % ROWS);
        float got[ROWS * VOCAB], want[VOCAB];
        for (int i = 0; i < n; i++) {
            tok[i] = rnd(&seed) % VOCAB;
            parent[i] = (int)(rnd(&seed) % (uint32_t)(i + 1)) - 1;
        }
        cr_assert_eq(session_try_tree(r.s, tok, parent, n, got, &e), 0, "%s", e.msg);
        for (int i = 0; i < n; i++) {
            uint32_t path[CTX];
            int len = 0, depth = 0;
            for (int k = i; k >= 0; k = parent[k])
                depth++;
            memcpy(path, t, 40 * sizeof *t);
            len = 40 + depth;
            for (int k = i, at = len; k >= 0; k = parent[k])
                path[--at] = tok[k];
            expect(path, len, want);
            cr_assert_arr_eq(got + (size_t)i * VOCAB, want, sizeof want, "round %d, node %d", round, i);
        }
        check_logits(r.s, t, 40);
    }
    cr_assert_eq(session_advance(r.s, 3, &e), 0);
    t[40] = 3;
    check_logits(r.s, t, 41);
    rig_down(&r);
}

/* ---- recovery ---- */

/* A conversation: a prompt, tokens one by one with a tree now and then, another prompt that shares a part. Every call
 * must succeed; logits are held against the oracle after each. Returns the sampled tokens. */
static void converse(struct session *s, double temperature, uint32_t *said) {
    struct err e = {0};
    struct sample_params p;
    uint32_t t[CTX], n = 75;
    int k = 0;
    sample_params_default(&p);
    p.temperature = (float)temperature;
    p.top_p = 0.95f;
    p.seed = 11;
    fill(t, CTX, 23);
    cr_assert_eq(session_feed(s, t, n, NULL, NULL, &e), 0, "%s", e.msg);
    for (int turn = 0; turn < 2; turn++) {
        check_logits(s, t, (int)n);
        for (int i = 0; i < 4; i++) {
            cr_assert_eq(session_sample(s, &p, (uint32_t)i, &t[n], &e), 0, "%s", e.msg);
            said[k++] = t[n];
            if (i % 2) {
                float tree[3 * VOCAB], want[VOCAB];
                cr_assert_eq(session_try_tree(s, (uint32_t[]){t[n], 5, 7}, (int[]){-1, -1, 0}, 3, tree, &e), 0, "%s",
                             e.msg);
                expect(t, (int)n + 1, want);
                cr_assert_arr_eq(tree, want, sizeof want);
                check_logits(s, t, (int)n);
            }
            cr_assert_eq(session_advance(s, t[n], &e), 0, "%s", e.msg);
            check_logits(s, t, (int)++n);
        }
        if (turn == 0) {
            n = 60;
            t[40] = (t[40] + 1) % VOCAB;
            cr_assert_eq(session_feed(s, t, n, NULL, NULL, &e), 0, "%s", e.msg);
            cr_assert_eq(session_stats(s)->reused_tokens, 40);
        }
    }
    cr_assert_eq(e.kind, ERR_NONE);
}

/* A link that fails at any call costs nothing but time. */
static void cut_everywhere(struct flaky how, double temperature, int windows) {
    uint32_t want[8], got[8];
    struct rig r;
    rig_up_with(&r, 2, 1, windows);
    converse(r.s, temperature, want);
    rig_down(&r);
    bool failed = true;
    for (int at = 0; failed; at++) {
        rig_up_with(&r, 2, 1, windows);
        r.flaky.calls_left = at;
        r.flaky.again = how.again;
        r.flaky.late = how.late;
        r.flaky.loses = how.loses;
        r.flaky.pieces = how.pieces;
        r.flaky.stale = how.stale;
        r.flaky.twice = how.twice;
        r.flaky.seed = (uint32_t)at * 77 + 1;
        converse(r.s, temperature, got);
        cr_assert_arr_eq(got, want, sizeof want, "failure at call %d", at);
        failed = r.flaky.failures > 0;
        cr_assert_eq(session_stats(r.s)->recoveries, (uint32_t)r.flaky.recoveries);
        if (failed && !how.twice) /* a failing call is followed by recovery, unless it was the last */
            cr_assert_geq(r.flaky.recoveries + (at == r.flaky.calls - 1), 1);
        cr_assert_lt(at, 2000);
        rig_down(&r);
    }
}

Test(session, a_link_that_fails_at_any_call) {
    for (int late = 0; late <= 1; late++)
        for (int loses = KEEPS_ALL; loses <= LOSES_ALL; loses++) {
            struct flaky how = {.late = late != 0};
            how.loses = loses == KEEPS_ALL ? KEEPS_ALL : loses == LOSES_SOME ? LOSES_SOME : LOSES_ALL;
            cut_everywhere(how, late ? 0.8 : 0, 3);
            how.pieces = true;
            cut_everywhere(how, 0, 0);
            how.stale = true;
            cut_everywhere(how, 0.8, 2);
        }
}

Test(session, a_link_that_fails_again_and_again) {
    cut_everywhere((struct flaky){.again = 4, .loses = KEEPS_ALL}, 0.8, 1);
    cut_everywhere((struct flaky){.again = 30, .loses = LOSES_ALL}, 0, 1);
    cut_everywhere((struct flaky){.again = 120, .loses = LOSES_SOME, .pieces = true, .stale = true}, 0, 4);
}

Test(session, nodes_that_come_twice) {
    cut_everywhere((struct flaky){.twice = true}, 0, 2);
    cut_everywhere((struct flaky){.twice = true, .pieces = true}, 0.8, 4);
}

Test(session, a_middle_that_never_gets_further_is_given_up) {
    uint32_t t[CTX];
    fill(t, CTX, 11);
    for (int loses = KEEPS_ALL; loses <= LOSES_ALL; loses += 2) {
        struct rig r;
        struct err e = {0};
        rig_up(&r, 2, 1);
        r.flaky.loses = loses ? LOSES_ALL : KEEPS_ALL;
        cr_assert_eq(session_feed(r.s, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
        r.flaky.calls_left = 0;
        r.flaky.again = 1;
        cr_assert_eq(session_advance(r.s, t[50], &e), -1);
        cr_assert_str_eq(e.msg, "the link went away");
        cr_assert_leq(session_stats(r.s)->recoveries, 20);
        check_logits(r.s, t, 50); /* what was there is still there */
        r.flaky.calls_left = -1;
        e = (struct err){0};
        cr_assert_eq(session_advance(r.s, t[50], &e), 0, "%s", e.msg);
        check_logits(r.s, t, 51);
        rig_down(&r);
    }
}

Test(session, when_recovery_fails_the_context_waits_for_the_next_call) {
    uint32_t t[CTX];
    fill(t, CTX, 11);
    for (int at = 0; at < 24; at++) {
        struct rig r;
        struct err e = {0};
        rig_up(&r, 2, 1);
        cr_assert_eq(session_feed(r.s, t, 30, NULL, NULL, &e), 0, "%s", e.msg);
        r.flaky.calls_left = at;
        r.flaky.bad_recover = 3;
        r.flaky.loses = LOSES_SOME;
        int errors = 0;
        uint32_t before, n;
        while (session_feed(r.s, t, 110, NULL, NULL, &e) != 0) {
            cr_assert_eq(e.kind, ERR_IO);
            cr_assert_str_eq(e.msg, "nobody is there");
            e = (struct err){0};
            session_tokens(r.s, &n);
            cr_assert_geq(n, 30);
            cr_assert(errors == 0 || n == before, "a recovery that fails takes nothing");
            before = n;
            cr_assert_lt(++errors, 4);
        }
        cr_assert_eq(errors, r.flaky.failures ? 3 : 0);
        check_logits(r.s, t, 110);
        rig_down(&r);
    }
}

Test(session, windows_are_sent_ahead) {
    uint32_t t[CTX];
    fill(t, CTX, 31);
    for (int windows = 1; windows <= 6; windows++) {
        struct rig r;
        struct err e = {0};
        rig_up_with(&r, 2, 1, windows);
        r.flaky.calls_left = windows; /* the call behind that many submits, */
        r.flaky.bad_recover = 1;
        cr_assert_eq(session_feed(r.s, t, ROWS * 7, NULL, NULL, &e), -1);
        uint32_t n;
        session_tokens(r.s, &n);
        cr_assert_eq(n, 0); /* is the first collect */
        cr_assert_eq(r.flaky.calls, windows + 1);
        e = (struct err){0};
        cr_assert_eq(session_feed(r.s, t, ROWS * 7, NULL, NULL, &e), 0);
        check_logits(r.s, t, ROWS * 7);
        rig_down(&r);
    }
}

/* The stop function of a middle, at any of its calls: the context keeps what was committed, and is sound. */
Test(session, stopped_while_it_waits) {
    uint32_t t[CTX];
    fill(t, CTX, 37);
    for (int at = 0; at < 30; at++) {
        struct rig r;
        struct err e = {0};
        rig_up(&r, 2, 1);
        r.flaky.pieces = true;
        r.flaky.seed = (uint32_t)at;
        r.flaky.stop_left = at;
        int rc = session_feed(r.s, t, 100, NULL, NULL, &e);
        cr_assert_eq(e.kind, ERR_NONE);
        cr_assert_eq(rc, r.flaky.stop_left < 0 ? -1 : 0);
        cr_assert_eq(session_feed(r.s, t, 90, NULL, NULL, &e), 0, "%s", e.msg);
        check_logits(r.s, t, 90);
        rig_down(&r);
    }
}

Test(session, reset_while_the_link_is_down) {
    struct rig r;
    struct err e = {0};
    uint32_t t[CTX];
    fill(t, CTX, 13);
    rig_up(&r, 2, 2);
    cr_assert_eq(session_feed(r.s, t, 30, NULL, NULL, &e), 0);
    r.flaky.calls_left = 0;
    session_reset(r.s);
    cr_assert_eq(r.flaky.recoveries, 0, "a reset does not wait for a link");
    uint32_t n;
    session_tokens(r.s, &n);
    cr_assert_eq(n, 0);
    session_reset(r.s);
    cr_assert_eq(r.flaky.recoveries, 0);
    cr_assert_eq(session_feed(r.s, t + 5, 20, NULL, NULL, &e), 0, "%s", e.msg);
    check_logits(r.s, t + 5, 20);
    rig_down(&r);
}

static int stop_at(void *ctx, uint32_t done, uint32_t all) {
    (void)all;
    return done >= *(uint32_t *)ctx;
}

Test(session, bounds_and_stops) {
    struct rig r;
    struct err e = {0};
    uint32_t t[CTX + 1] = {0};
    rig_up(&r, 2, 2);
    cr_assert_eq(session_feed(r.s, t, 0, NULL, NULL, &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
    e = (struct err){0};
    cr_assert_eq(session_feed(r.s, t, CTX + 1, NULL, NULL, &e), -1);
    cr_assert(strstr(e.msg, "121") && strstr(e.msg, "120"), "%s", e.msg);
    e = (struct err){0};
    t[3] = VOCAB;
    cr_assert_eq(session_feed(r.s, t, 5, NULL, NULL, &e), -1);
    cr_assert(strstr(e.msg, "97"), "%s", e.msg);
    e = (struct err){0};
    t[3] = 0;
    uint32_t at = 32;
    cr_assert_eq(session_feed(r.s, t, 100, stop_at, &at, &e), -1);
    cr_assert_eq(e.kind, ERR_NONE, "a stop that was asked for is no error");
    uint32_t n;
    session_tokens(r.s, &n);
    cr_assert_eq(n, 32, "what was computed stays");
    cr_assert_eq(session_feed(r.s, t, CTX, NULL, NULL, &e), 0);
    cr_assert_eq(session_stats(r.s)->reused_tokens, 32);
    cr_assert_eq(session_advance(r.s, 1, &e), -1);
    cr_assert(strstr(e.msg, "full"));
    check_logits(r.s, t, CTX);
    struct err e2 = {0};
    float logits[VOCAB];
    cr_assert_eq(session_try_tree(r.s, (uint32_t[]){1, 2}, (int[]){1, -1}, 2, logits, &e2), -1);
    cr_assert_eq(e2.kind, ERR_USAGE);
    rig_down(&r);
}

Test(session, a_middle_that_lies_is_refused) {
    for (int kind = TWICE; kind <= STRANGER; kind++) {
        struct rig r;
        struct err e = {0};
        uint32_t t[CTX];
        fill(t, CTX, 17);
        rig_up(&r, 2, 2);
        lie = kind == TWICE ? TWICE : kind == EMPTY ? EMPTY : STRANGER;
        cr_assert_eq(session_feed(r.s, t, 10, NULL, NULL, &e), -1);
        cr_assert_eq(e.kind, ERR_PEER);
        lie = HONEST;
        e = (struct err){0};
        cr_assert_eq(session_feed(r.s, t, 10, NULL, NULL, &e), 0, "%s", e.msg);
        check_logits(r.s, t, 10);
        rig_down(&r);
    }
}
