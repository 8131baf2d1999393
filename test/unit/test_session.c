/* core/decode/session and core/model/local_middle over the toy backend, and over a middle that fails. */
#include "core/decode/session.h"
#include "core/model/local_middle.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- a middle with a link in front of it that fails when told to ---- */

enum { ROWS = 16 };

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
    for (int want = (int)(toy_rnd(&f->seed) % 5); want > 0 && f->n_pool > 0; want--) { /* a piece may be empty */
        int at = (int)(toy_rnd(&f->seed) % (uint32_t)f->n_pool);
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
        *kept = toy_rnd(&f->seed) % (*kept + 1);
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
    *r = (struct rig){.front = {&toy_ops, &toy_config, {.lo = 0, .hi = front, .embed = true}},
                      .mid = {&toy_ops, &toy_config, {.lo = front, .hi = TOY_LAYERS - back}},
                      .back = {&toy_ops, &toy_config, {.lo = TOY_LAYERS - back, .hi = TOY_LAYERS, .head = true}},
                      .flaky = {.base = {&flaky_ops}, .calls_left = -1, .stop_left = -1}};
    cr_assert_eq(local_middle_create(&r->flaky.inner, &r->mid, DT_F16, TOY_CTX, session_live(ROWS, windows), ROWS, NULL,
                                     NULL, &e),
                 0);
    const struct session_opts o = {.front = &r->front,
                                   .back = &r->back,
                                   .middle = &r->flaky.base,
                                   .kv_type = DT_F16,
                                   .max_ctx = TOY_CTX,
                                   .max_rows = ROWS,
                                   .prefill_windows = windows};
    cr_assert_eq(session_create(&r->s, &o, &e), 0, "%s", e.msg);
}

static void rig_up(struct rig *r, int front, int back) {
    rig_up_with(r, front, back, 0);
}

static void rig_down(struct rig *r) {
    session_free(r->s);
    r->flaky.inner->ops->free(r->flaky.inner);
}

Test(session, prompts_of_any_length_in_any_split) {
    uint32_t t[TOY_CTX];
    struct err e = {0};
    toy_fill(t, TOY_CTX, 7);
    for (int front = 0; front <= 3; front++)
        for (int back = 0; back <= 3; back++)
            for (int n = 1; n < TOY_CTX; n += 13) {
                struct rig r;
                rig_up(&r, front, back);
                cr_assert_eq(session_feed(r.s, t, (uint32_t)n, NULL, NULL, &e), 0, "%s", e.msg);
                toy_check(r.s, t, n);
                cr_assert_eq(session_advance(r.s, t[n], &e), 0, "%s", e.msg);
                toy_check(r.s, t, n + 1);
                rig_down(&r);
            }
}

Test(session, a_second_turn_computes_only_what_is_new) {
    struct rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 3);
    rig_up(&r, 2, 2);
    cr_assert_eq(session_feed(r.s, t, 60, NULL, NULL, &e), 0);
    toy_rows_computed = 0;
    cr_assert_eq(session_feed(r.s, t, 75, NULL, NULL, &e), 0);
    cr_assert_eq(toy_rows_computed, 3 * 15, "three parts, fifteen new rows");
    cr_assert_eq(session_stats(r.s)->reused_tokens, 60);
    toy_check(r.s, t, 75);
    toy_rows_computed = 0;
    cr_assert_eq(session_feed(r.s, t, 75, NULL, NULL, &e), 0);
    cr_assert_eq(toy_rows_computed, 0, "the same prompt again");
    t[50] = (t[50] + 1) % TOY_VOCAB;
    cr_assert_eq(session_feed(r.s, t, 70, NULL, NULL, &e), 0);
    cr_assert_eq(session_stats(r.s)->reused_tokens, 50);
    toy_check(r.s, t, 70);
    cr_assert_eq(session_feed(r.s, t, 30, NULL, NULL, &e), 0, "a prefix of what is there");
    cr_assert_eq(session_stats(r.s)->reused_tokens, 29);
    toy_check(r.s, t, 30);
    session_reset(r.s);
    cr_assert_null(session_logits(r.s));
    cr_assert_eq(session_feed(r.s, t, 5, NULL, NULL, &e), 0);
    toy_check(r.s, t, 5);
    rig_down(&r);
}

Test(session, trees_equal_their_paths) {
    struct rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX], seed = 5;
    toy_fill(t, 40, 9);
    rig_up(&r, 1, 2);
    cr_assert_eq(session_feed(r.s, t, 40, NULL, NULL, &e), 0);
    for (int round = 0; round < 300; round++) {
        uint32_t tok[ROWS];
        int parent[ROWS], n = 1 + (int)(toy_rnd(&seed) % ROWS);
        float got[ROWS * TOY_VOCAB], want[TOY_VOCAB];
        for (int i = 0; i < n; i++) {
            tok[i] = toy_rnd(&seed) % TOY_VOCAB;
            parent[i] = (int)(toy_rnd(&seed) % (uint32_t)(i + 1)) - 1;
        }
        cr_assert_eq(session_try_tree(r.s, tok, parent, n, got, &e), 0, "%s", e.msg);
        for (int i = 0; i < n; i++) {
            uint32_t path[TOY_CTX];
            int len = 0, depth = 0;
            for (int k = i; k >= 0; k = parent[k])
                depth++;
            memcpy(path, t, 40 * sizeof *t);
            len = 40 + depth;
            for (int k = i, at = len; k >= 0; k = parent[k])
                path[--at] = tok[k];
            toy_expect(path, len, want);
            cr_assert_arr_eq(got + (size_t)i * TOY_VOCAB, want, sizeof want, "round %d, node %d", round, i);
        }
        toy_check(r.s, t, 40);
    }
    cr_assert_eq(session_advance(r.s, 3, &e), 0);
    t[40] = 3;
    toy_check(r.s, t, 41);
    rig_down(&r);
}

/* ---- recovery ---- */

/* A link that fails at any call costs nothing but time. */
static void cut_everywhere(struct flaky how, double temperature, int windows) {
    uint32_t want[8], got[8];
    struct rig r;
    rig_up_with(&r, 2, 1, windows);
    toy_converse(r.s, temperature, want);
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
        toy_converse(r.s, temperature, got);
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
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 11);
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
        toy_check(r.s, t, 50); /* what was there is still there */
        r.flaky.calls_left = -1;
        e = (struct err){0};
        cr_assert_eq(session_advance(r.s, t[50], &e), 0, "%s", e.msg);
        toy_check(r.s, t, 51);
        rig_down(&r);
    }
}

Test(session, when_recovery_fails_the_context_waits_for_the_next_call) {
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 11);
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
        toy_check(r.s, t, 110);
        rig_down(&r);
    }
}

Test(session, windows_are_sent_ahead) {
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 31);
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
        toy_check(r.s, t, ROWS * 7);
        rig_down(&r);
    }
}

/* The stop function of a middle, at any of its calls: the context keeps what was committed, and is sound. */
Test(session, stopped_while_it_waits) {
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 37);
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
        toy_check(r.s, t, 90);
        rig_down(&r);
    }
}

Test(session, reset_while_the_link_is_down) {
    struct rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 13);
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
    toy_check(r.s, t + 5, 20);
    rig_down(&r);
}

static int stop_at(void *ctx, uint32_t done, uint32_t all) {
    (void)all;
    return done >= *(uint32_t *)ctx;
}

Test(session, bounds_and_stops) {
    struct rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX + 1] = {0};
    rig_up(&r, 2, 2);
    cr_assert_eq(session_feed(r.s, t, 0, NULL, NULL, &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
    e = (struct err){0};
    cr_assert_eq(session_feed(r.s, t, TOY_CTX + 1, NULL, NULL, &e), -1);
    cr_assert(strstr(e.msg, "121") && strstr(e.msg, "120"), "%s", e.msg);
    e = (struct err){0};
    t[3] = TOY_VOCAB;
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
    cr_assert_eq(session_feed(r.s, t, TOY_CTX, NULL, NULL, &e), 0);
    cr_assert_eq(session_stats(r.s)->reused_tokens, 32);
    cr_assert_eq(session_advance(r.s, 1, &e), -1);
    cr_assert(strstr(e.msg, "full"));
    toy_check(r.s, t, TOY_CTX);
    struct err e2 = {0};
    float logits[TOY_VOCAB];
    cr_assert_eq(session_try_tree(r.s, (uint32_t[]){1, 2}, (int[]){1, -1}, 2, logits, &e2), -1);
    cr_assert_eq(e2.kind, ERR_USAGE);
    rig_down(&r);
}

Test(session, a_middle_that_lies_is_refused) {
    for (int kind = TWICE; kind <= STRANGER; kind++) {
        struct rig r;
        struct err e = {0};
        uint32_t t[TOY_CTX];
        toy_fill(t, TOY_CTX, 17);
        rig_up(&r, 2, 2);
        lie = kind == TWICE ? TWICE : kind == EMPTY ? EMPTY : STRANGER;
        cr_assert_eq(session_feed(r.s, t, 10, NULL, NULL, &e), -1);
        cr_assert_eq(e.kind, ERR_PEER);
        lie = HONEST;
        e = (struct err){0};
        cr_assert_eq(session_feed(r.s, t, 10, NULL, NULL, &e), 0, "%s", e.msg);
        toy_check(r.s, t, 10);
        rig_down(&r);
    }
}
