/* core/decode/speculate over the toy backend and the tiny model: whatever the drafter says and the middle does, tokens
 * and logits are those of plain decoding. */
#include "core/base/clock.h"
#include "core/decode/session_impl.h"
#include "core/decode/speculate.h"
#include "core/model/local_middle.h"
#include "test/unit/model_rig.h"
#include "test/unit/oracle.h"
#include "test/unit/shaky.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 16, PROMPT = 20 };

struct toy_rig {
    struct stage front, mid, back;
    struct middle *inner;
    struct shaky shaky;
    struct oracle oracle;
    struct session *s;
    uint64_t fates[3], came; /* of guesses; results that came */
};

static void on_fate(void *ctx, const struct session_guess *g) {
    struct toy_rig *r = ctx;
    r->fates[g->fate]++;
    r->came += g->came_ms > 0;
    cr_assert(g->depth >= 1 && g->depth < TOY_CTX && g->path >= 0 && g->sent_ms > 0);
    cr_assert(g->over_ms >= g->sent_ms && (g->came_ms == 0 || (g->came_ms >= g->sent_ms && g->over_ms >= g->came_ms)));
}

/* Few guesses: every row of these modes costs back layers and head, and here the way of a row is what counts. */
static const struct iterate_opts iterate = {.block = 6, .ngram = 3, .window = 3, .candidates = 2};

/* The last two arguments may be 0: as usual. */
static void rig_up(struct toy_rig *r, enum session_mode mode, const struct oracle *o, int nodes, int rows) {
    struct err e = {0};
    rows = rows ? rows : ROWS;
    *r = (struct toy_rig){.front = {&toy_ops, &toy_config, {.lo = 0, .hi = 2, .embed = true}},
                          .mid = {&toy_ops, &toy_config, {.lo = 2, .hi = TOY_LAYERS - 1}},
                          .back = {&toy_ops, &toy_config, {.lo = TOY_LAYERS - 1, .hi = TOY_LAYERS, .head = true}}};
    r->oracle = *o;
    r->oracle.vocab = TOY_VOCAB;
    cr_assert_eq(local_middle_create(&r->inner, &r->mid, DT_F16, TOY_CTX, session_live(rows, 2), rows, NULL, NULL, &e),
                 0);
    shaky_init(&r->shaky, r->inner, 2);
    const struct session_opts so = {.front = &r->front,
                                    .back = &r->back,
                                    .middle = &r->shaky.base,
                                    .kv_type = DT_F16,
                                    .max_ctx = TOY_CTX,
                                    .max_rows = rows,
                                    .prefill_windows = 2,
                                    .speculation = {.mode = mode,
                                                    .drafter = oracle_drafter(&r->oracle),
                                                    .iterate = &iterate,
                                                    .max_nodes = nodes,
                                                    .fate = on_fate,
                                                    .fate_ctx = r}};
    cr_assert_eq(session_create(&r->s, &so, &e), 0, "%s", e.msg);
}

static void rig_down(struct toy_rig *r) {
    session_free(r->s);
    shaky_free(&r->shaky);
    r->inner->ops->free(r->inner);
}

/* No node is live on either side, and no slot is lost. The middle's table cannot be seen: it would refuse to rewind, or
 * run out of slots in the long run. */
static void check_clean(struct session *s) {
    struct err e = {0};
    uint32_t n, t[TOY_CTX];
    memcpy(t, session_tokens(s, &n), sizeof t);
    cr_assert_eq(session_feed(s, t, n, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(kv_table_live(s->table), 0);
    cr_assert_eq(slot_pool_left(s->pool), slot_pool_size(s->pool) - n);
}

/* ---- the text that has to come out ---- */

enum { N_DRAWS = 3, ANSWER = 60 };

static void draw(int k, struct sample_params *p) {
    sample_params_default(p);
    p->temperature = 0;
    if (k == 0)
        return;
    p->temperature = k == 1 ? 0.8F : 200.0F / 100;
    p->top_p = 0.95F;
    p->seed = 5 + (uint64_t)k;
    if (k == 1)
        return;
    p->repetition_penalty = 1.3F;
    p->presence_penalty = 0.5F;
    p->frequency_penalty = 0.25F;
    p->penalty_window = 24;
}

/* Prompt and answer, from nothing but loops over arrays and a sampler. */
static void tell(int k, uint32_t t[TOY_CTX]) {
    struct sampler *sampler;
    struct sample_params p;
    struct err e = {0};
    float logits[TOY_VOCAB];
    draw(k, &p);
    toy_fill(t, PROMPT, 40 + (uint32_t)k);
    cr_assert_eq(sampler_create(&sampler, TOY_VOCAB, &e), 0);
    for (int n = PROMPT; n < PROMPT + ANSWER; n++) {
        toy_expect(t, n, logits);
        t[n] = sampler_pick(sampler, &p, logits, t, n, n - PROMPT, (uint32_t)n);
    }
    sampler_free(sampler);
}

/* Lets the session tell truth[from..to) behind what it has. */
static void follow(struct session *s, int k, const uint32_t *truth, int from, int to) {
    struct sample_params p;
    struct err e = {0};
    draw(k, &p);
    for (int n = from; n < to; n++) {
        uint32_t token;
        cr_assert_eq(session_sample(s, &p, (uint32_t)(n - PROMPT), &token, &e), 0, "%s", e.msg);
        cr_assert_eq(token, truth[n], "position %d", n);
        cr_assert_eq(session_advance(s, token, &e), 0, "%s", e.msg);
        toy_check(s, truth, n + 1);
    }
}

/* A conversation with everything that may come between tokens. */
static void converse(struct session *s, int k, const uint32_t *truth) {
    struct err e = {0};
    uint32_t other[TOY_CTX];
    float tree[2 * TOY_VOCAB], want[TOY_VOCAB];
    cr_assert_eq(session_feed(s, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
    follow(s, k, truth, PROMPT, PROMPT + 25);
    cr_assert_eq(session_try_tree(s, (uint32_t[]){truth[PROMPT + 25], 3}, (int[]){-1, -1}, 2, tree, &e), 0, "%s",
                 e.msg);
    toy_expect(truth, PROMPT + 26, want);
    cr_assert_arr_eq(tree, want, sizeof want);
    follow(s, k, truth, PROMPT + 25, PROMPT + 35);
    memcpy(other, truth, sizeof other);
    other[PROMPT + 10] ^= 1;
    cr_assert_eq(session_feed(s, other, PROMPT + 14, NULL, NULL, &e), 0, "%s", e.msg);
    toy_check(s, other, PROMPT + 14);
    cr_assert_eq(session_advance(s, 7, &e), 0, "%s", e.msg);
    cr_assert_eq(session_feed(s, truth, PROMPT + 30, NULL, NULL, &e), 0, "%s", e.msg);
    follow(s, k, truth, PROMPT + 30, PROMPT + ANSWER);
    check_clean(s);
}

Test(speculate, every_mode_tells_the_same) {
    static const double accuracies[] = {0, 0.5, 0.9, 1};
    for (int k = 0; k < N_DRAWS; k++) {
        uint32_t truth[TOY_CTX];
        tell(k, truth);
        for (int m = 0; m < N_SESSION_MODES; m++)
            for (int a = 0; a < (m < SESSION_JACOBI ? 4 : 1); a++) /* the others do not ask the oracle */
                for (int how = 0; how < 4; how++) {
                    struct toy_rig r;
                    const struct oracle o = {.kind = how % 2 ? ORACLE_BRAGS : ORACLE_HONEST,
                                             .truth = truth,
                                             .n_truth = PROMPT + ANSWER,
                                             .accuracy = accuracies[a],
                                             .width = 1 + how,
                                             .ahead = how == 1,
                                             .seed = (uint32_t)(a + how)};
                    rig_up(&r, (enum session_mode)m, &o, how == 3 ? 5 : 0, how == 2 ? 3 : 0);
                    r.shaky.pieces = how > 0;
                    r.shaky.delay_ms = how < 2 && m == SESSION_AUTO ? 0.6 : 0;
                    r.shaky.seed = (uint32_t)how;
                    converse(r.s, k, truth);
                    const struct session_stats *st = session_stats(r.s);
                    cr_assert_eq(st->hits + st->steps, st->generated);
                    cr_assert_eq(r.fates[GUESS_ACCEPTED], st->hits);
                    cr_assert_eq(r.fates[0] + r.fates[1] + r.fates[2], st->nodes_sent);
                    cr_assert(r.came >= st->hits - st->late && r.came <= st->nodes_sent);
                    cr_assert(m != SESSION_SEQUENTIAL || (st->hits == 0 && st->nodes_sent == 0));
                    cr_assert(m != SESSION_STOP_AND_WAIT || accuracies[a] < 0.5 || st->hits > 10);
                    rig_down(&r);
                }
    }
}

Test(speculate, drafters_that_harm) {
    uint32_t truth[TOY_CTX];
    tell(1, truth);
    for (int kind = ORACLE_REPEATS; kind < N_ORACLE_KINDS; kind++)
        for (int m = 1; m < 3; m++)
            for (int nodes = 1; nodes <= SESSION_MAX_NODES; nodes = nodes * 7 - 1) {
                struct toy_rig r;
                struct oracle o = {.truth = truth, .n_truth = PROMPT + ANSWER, .seed = (uint32_t)nodes};
                o.kind = (enum oracle_kind)kind;
                o.ahead = nodes % 4 == 2;
                rig_up(&r, (enum session_mode)m, &o, nodes, nodes == 1 ? 2 : 0);
                r.shaky.delay_ms = m == SESSION_AUTO ? 1 : 0;
                converse(r.s, 1, truth);
                rig_down(&r);
            }
}

/* ---- how many round trips ---- */

static const struct session_stats *run_plain(struct toy_rig *r, enum session_mode mode, double accuracy, int nodes,
                                             double delay_ms, const uint32_t *truth) {
    struct err e = {0};
    const struct oracle o = {.truth = truth, .n_truth = PROMPT + ANSWER, .accuracy = accuracy};
    rig_up(r, mode, &o, nodes, 0);
    r->shaky.delay_ms = delay_ms;
    cr_assert_eq(session_feed(r->s, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
    follow(r->s, 0, truth, PROMPT, PROMPT + ANSWER);
    return session_stats(r->s);
}

Test(speculate, round_trips) {
    uint32_t truth[TOY_CTX];
    struct toy_rig r;
    tell(0, truth);
    for (int nodes = 1; nodes <= 12; nodes++) {
        const struct session_stats *st = run_plain(&r, SESSION_STOP_AND_WAIT, 1, nodes, 0, truth);
        cr_assert_eq(st->steps, (uint64_t)((ANSWER + nodes) / (nodes + 1)), "a window of a token and %d guesses",
                     nodes);
        rig_down(&r);
    }
    const struct session_stats *st = run_plain(&r, SESSION_STOP_AND_WAIT, 0, 8, 0, truth);
    cr_assert_eq(st->steps, ANSWER);
    cr_assert_eq(st->hits, 0);
    rig_down(&r);
    st = run_plain(&r, SESSION_AUTO, 1, 0, 8, truth);
    cr_assert_leq(st->steps, 8, "%lu: a few to learn the price, and then the tree never ends",
                  (unsigned long)st->steps);
    rig_down(&r);
    st = run_plain(&r, SESSION_AUTO, 0, 0, 3, truth);
    cr_assert_eq(st->steps, ANSWER);
    cr_assert_leq(st->nodes_sent, 2 * SESSION_NODES, "%lu: what claims nothing is not sent",
                  (unsigned long)st->nodes_sent);
    rig_down(&r);
}

/* With a drafter that says more the longer it may think: nothing is waited for that could have been guessed meanwhile.
 */
Test(speculate, drafting_goes_on_while_it_waits) {
    uint32_t truth[TOY_CTX];
    struct toy_rig r;
    struct err e = {0};
    tell(0, truth);
    const struct oracle o = {.truth = truth, .n_truth = PROMPT + ANSWER, .accuracy = 1, .ahead = true};
    rig_up(&r, SESSION_AUTO, &o, 12, 0);
    r.shaky.delay_ms = 15;
    cr_assert_eq(session_feed(r.s, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
    follow(r.s, 0, truth, PROMPT, PROMPT + ANSWER);
    const struct session_stats *st = session_stats(r.s);
    cr_assert_gt(r.oracle.passes, 2);
    cr_assert_leq(st->steps, 8, "%lu", (unsigned long)st->steps);
    cr_assert_gt(st->windows, st->steps);
    check_clean(r.s);
    rig_down(&r);
}

Test(speculate, ten_thousand_tokens_lose_no_slot) {
    uint32_t truth[TOY_CTX];
    tell(2, truth);
    for (int m = 1; m < 3; m++) {
        struct toy_rig r;
        struct err e = {0};
        struct oracle o = {.kind = ORACLE_BRAGS,
                           .truth = truth,
                           .n_truth = PROMPT + ANSWER,
                           .accuracy = m == 1 ? 0.8 : 0.97,
                           .width = 3};
        o.ahead = m == SESSION_AUTO;
        rig_up(&r, (enum session_mode)m, &o, 0, 0);
        r.shaky.delay_ms = m == 1 ? 0 : 6; /* guesses have to pay in auto, whatever this machine is doing */
        for (int round = 0; round < 10000 / ANSWER; round++) {
            r.oracle.seed = (uint32_t)round;
            cr_assert_eq(session_feed(r.s, truth, PROMPT + (uint32_t)round % 5, NULL, NULL, &e), 0, "%s", e.msg);
            for (int n = PROMPT + round % 5; n < PROMPT + ANSWER; n++)
                cr_assert_eq(session_advance(r.s, truth[n], &e), 0, "%s", e.msg);
            toy_check(r.s, truth, PROMPT + ANSWER);
            if (round % 10 == 0)
                check_clean(r.s);
        }
        check_clean(r.s);
        cr_assert_gt(session_stats(r.s)->hits, 100);
        rig_down(&r);
    }
}

/* ---- recovery ---- */

/* The link fails at any call, with a tree in flight or without. */
static void fail_everywhere(enum session_mode mode, bool late, int loses, bool pieces, int again, int step) {
    uint32_t truth[TOY_CTX];
    bool failed = true;
    tell(1, truth);
    for (int at = 0; failed; at += step) {
        struct toy_rig r;
        struct oracle o = {
            .kind = ORACLE_BRAGS, .truth = truth, .n_truth = PROMPT + ANSWER, .accuracy = 0.8, .width = 2};
        o.seed = (uint32_t)at;
        o.ahead = late;
        rig_up(&r, mode, &o, 12, 0);
        r.shaky.calls_left = at;
        r.shaky.again = again;
        r.shaky.late = late;
        r.shaky.loses = loses == 0 ? SHAKY_KEEPS : loses == 1 ? SHAKY_LOSES_SOME : SHAKY_LOSES_ALL;
        r.shaky.pieces = pieces;
        r.shaky.seed = (uint32_t)at + 9;
        r.shaky.delay_ms = mode == SESSION_AUTO ? 0.3 : 0;
        converse(r.s, 1, truth);
        failed = r.shaky.failures > 0;
        cr_assert_eq(session_stats(r.s)->recoveries, (uint32_t)r.shaky.recoveries);
        cr_assert_lt(at, 5000);
        rig_down(&r);
    }
}

Test(speculate, a_link_that_fails_at_any_call) {
    for (int loses = 0; loses < 3; loses++)
        for (int late = 0; late < 2; late++) {
            fail_everywhere(SESSION_STOP_AND_WAIT, late, loses, late, 0, 3);
            fail_everywhere(SESSION_AUTO, late, loses, late, 0, 17);
            fail_everywhere(SESSION_JACOBI, late, loses, late, 0, 37);
            fail_everywhere(SESSION_LOOKAHEAD, late, loses, late, 0, 47);
        }
}

Test(speculate, a_link_that_fails_again_and_again) {
    fail_everywhere(SESSION_STOP_AND_WAIT, false, 1, true, 60, 7);
    fail_everywhere(SESSION_AUTO, true, 1, true, 90, 19);
    fail_everywhere(SESSION_JACOBI, false, 1, true, 70, 41);
    fail_everywhere(SESSION_LOOKAHEAD, true, 1, true, 80, 53);
}

Test(speculate, stopped_while_it_waits) {
    uint32_t truth[TOY_CTX];
    tell(0, truth);
    for (int at = 0; at < 180; at++) {
        enum session_mode m = at % 3 ? at % 3 == 1 ? SESSION_JACOBI : SESSION_LOOKAHEAD : SESSION_STOP_AND_WAIT;
        struct toy_rig r;
        struct err e = {0};
        const struct oracle o = {.truth = truth, .n_truth = PROMPT + ANSWER, .accuracy = 0.9};
        rig_up(&r, m, &o, 6, 0);
        cr_assert_eq(session_feed(r.s, truth, PROMPT, NULL, NULL, &e), 0);
        r.shaky.stop_left = at / 3;
        int stops = 0;
        for (int n = PROMPT; n < PROMPT + 40;) {
            if (session_advance(r.s, truth[n], &e) == 0) {
                toy_check(r.s, truth, ++n);
                continue;
            }
            cr_assert_eq(e.kind, ERR_NONE);
            cr_assert_eq(++stops, 1);
            toy_check(r.s, truth, n);
        }
        check_clean(r.s);
        rig_down(&r);
    }
}

Test(speculate, modes_change_between_tokens) {
    uint32_t truth[TOY_CTX], seed = 3;
    struct toy_rig r;
    struct err e = {0};
    tell(0, truth);
    const struct oracle o = {.truth = truth, .n_truth = PROMPT + ANSWER, .accuracy = 0.8, .width = 2};
    rig_up(&r, SESSION_JACOBI, &o, 0, 0); /* auto and the others come on their own */
    r.shaky.delay_ms = 1;
    cr_assert_eq(session_feed(r.s, truth, PROMPT, NULL, NULL, &e), 0);
    for (int n = PROMPT; n < PROMPT + ANSWER; n++) {
        session_set_mode(r.s, (enum session_mode)(toy_rnd(&seed) % N_SESSION_MODES));
        follow(r.s, 0, truth, n, n + 1);
    }
    check_clean(r.s);
    rig_down(&r);
}

/* Without a drafter or the settings of an iteration a mode is there by name only; jacobi and lookahead need no drafter.
 */
Test(speculate, modes_that_a_session_was_not_made_for_are_sequential) {
    uint32_t truth[TOY_CTX];
    tell(0, truth);
    for (int m = 0; m < N_SESSION_MODES; m++)
        for (int with = 0; with < 2; with++) {
            struct toy_rig r;
            struct session *s;
            struct err e = {0};
            rig_up(&r, SESSION_SEQUENTIAL, &(struct oracle){.truth = truth, .n_truth = PROMPT}, 0, 0);
            struct session_opts so = {.front = &r.front,
                                      .back = &r.back,
                                      .middle = &r.shaky.base,
                                      .kv_type = DT_F16,
                                      .max_ctx = TOY_CTX,
                                      .max_rows = ROWS,
                                      .prefill_windows = 2,
                                      .speculation = {.iterate = with ? &iterate : NULL}};
            cr_assert_eq(session_create(&s, &so, &e), 0, "%s", e.msg);
            session_set_mode(s, (enum session_mode)m);
            cr_assert_eq(session_feed(s, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
            follow(s, 0, truth, PROMPT, PROMPT + ANSWER);
            cr_assert_eq(session_stats(s)->nodes_sent > 0, with && m >= SESSION_JACOBI, "mode %d", m);
            session_free(s);
            rig_down(&r);
        }
}

Test(speculate, the_context_fills_up) {
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 77);
    for (int m = 0; m < N_SESSION_MODES; m++) {
        struct toy_rig r;
        struct err e = {0};
        const struct oracle o = {.kind = ORACLE_DEEP, .truth = t, .n_truth = TOY_CTX};
        rig_up(&r, (enum session_mode)m, &o, 0, 0);
        r.shaky.delay_ms = 1;
        cr_assert_eq(session_feed(r.s, t, TOY_CTX - 20, NULL, NULL, &e), 0);
        for (int n = TOY_CTX - 20; n < TOY_CTX; n++) {
            cr_assert_eq(session_advance(r.s, t[n], &e), 0, "%s", e.msg);
            toy_check(r.s, t, n + 1);
        }
        cr_assert_eq(session_advance(r.s, 1, &e), -1);
        cr_assert_eq(e.kind, ERR_USAGE);
        check_clean(r.s);
        rig_down(&r);
    }
}

/* ---- a real model ---- */

/* Tokens, and logits bit by bit, of plain decoding: local, late and in pieces. */
Test(speculate, the_tiny_model) {
    enum { CTX = 256, WINDOW = 32, SAID = 32 };
    const struct rig_opts ro = {.front = 2, .back = 2, .max_rows = WINDOW, .ctx = CTX, .kv_type = DT_F16};
    struct rig r;
    struct err e = {0};
    rig_open(&r, "test/models/tiny", &ro);
    size_t vocab = (size_t)r.config->vocab;
    uint32_t truth[CTX];
    float *want = malloc(SAID * vocab * sizeof *want);
    cr_assert_not_null(want);
    for (int k = 0; k < N_DRAWS; k++) {
        struct sample_params p;
        draw(k, &p);
        for (uint32_t i = 0; i < PROMPT; i++)
            truth[i] = (i * 37 + (uint32_t)k) % 300 + 5;
        cr_assert_eq(session_feed(r.session, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
        for (int i = 0; i < SAID; i++) {
            cr_assert_eq(session_sample(r.session, &p, (uint32_t)i, &truth[PROMPT + i], &e), 0);
            cr_assert_eq(session_advance(r.session, truth[PROMPT + i], &e), 0, "%s", e.msg);
            memcpy(want + (size_t)i * vocab, session_logits(r.session), vocab * sizeof *want);
        }
        for (int m = 1; m < (k == 1 ? N_SESSION_MODES : SESSION_JACOBI); m++) {
            struct middle *inner;
            struct shaky shaky;
            struct session *s;
            struct oracle o = {.truth = truth,
                               .n_truth = PROMPT + SAID,
                               .vocab = (uint32_t)vocab,
                               .accuracy = 0.8,
                               .width = 3,
                               .seed = (uint32_t)(k + m)};
            cr_assert_eq(local_middle_create(&inner, r.middle_stage, DT_F16, CTX, session_live(WINDOW, 1), WINDOW, NULL,
                                             NULL, &e),
                         0);
            shaky_init(&shaky, inner, r.config->hidden);
            shaky.pieces = k == 1;
            shaky.delay_ms = m == 2 ? 12 : 0;
            const struct session_opts so = {
                .front = r.front,
                .back = r.back,
                .middle = &shaky.base,
                .kv_type = DT_F16,
                .max_ctx = CTX,
                .max_rows = WINDOW,
                .prefill_windows = 1,
                .speculation = {.mode = (enum session_mode)m, .drafter = oracle_drafter(&o), .iterate = &iterate}};
            cr_assert_eq(session_create(&s, &so, &e), 0, "%s", e.msg);
            cr_assert_eq(session_feed(s, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
            for (int i = 0; i < SAID; i++) {
                uint32_t token;
                cr_assert_eq(session_sample(s, &p, (uint32_t)i, &token, &e), 0);
                cr_assert_eq(token, truth[PROMPT + i], "draw %d, mode %d, token %d", k, m, i);
                cr_assert_eq(session_advance(s, token, &e), 0, "%s", e.msg);
                cr_assert_arr_eq(session_logits(s), want + (size_t)i * vocab, vocab * sizeof *want,
                                 "draw %d, mode %d, token %d", k, m, i);
            }
            if (m == 1) /* auto sends nothing where this machine is too slow for it, as under a sanitizer */
                cr_assert_gt(session_stats(s)->hits, SAID / 4);
            session_free(s);
            shaky_free(&shaky);
            inner->ops->free(inner);
        }
    }
    free(want);
    rig_close(&r);
}
