/* Speculation through a real remote middle and an emulated link: the same text, and the round trips hidden. */
#include "core/base/clock.h"
#include "core/decode/session_impl.h"
#include "test/unit/oracle.h"
#include "test/unit/remote_rig.h"

#include <criterion/criterion.h>
#include <string.h>

enum { PROMPT = 30, ANSWER = 70 };

static struct oracle oracle;

static void tell(struct remote_rig *r, const uint32_t *truth, int from, int to) {
    struct err e = {0};
    for (int n = from; n < to; n++) {
        cr_assert_eq(session_advance(r->session, truth[n], &e), 0, "%s", e.msg);
        toy_check(r->session, truth, n + 1);
    }
}

static void start(struct remote_rig *r, enum session_mode mode, double accuracy, uint32_t *truth) {
    struct err e = {0};
    toy_fill(truth, TOY_CTX, 91);
    oracle = (struct oracle){
        .truth = truth, .n_truth = PROMPT + ANSWER, .vocab = TOY_VOCAB, .accuracy = accuracy, .width = 2};
    r->speculation = (struct session_speculation){.mode = mode, .drafter = oracle_drafter(&oracle)};
    remote_rig_connect(r);
    cr_assert_eq(session_feed(r->session, truth, PROMPT, NULL, NULL, &e), 0, "%s", e.msg);
}

Test(speculate_remote, every_mode_over_a_link) {
    struct remote_rig r;
    uint32_t truth[TOY_CTX];
    remote_rig_init(&r);
    link_set(r.link[0], 10, 2, 0);
    for (int mode = 0; mode < N_SESSION_MODES; mode++) {
        double t0 = clock_ms();
        start(&r, (enum session_mode)mode, 0.9, truth);
        tell(&r, truth, PROMPT, PROMPT + ANSWER);
        const struct session_stats *st = session_stats(r.session);
        cr_assert_eq(st->hits + st->steps, st->generated);
        if (mode == SESSION_SEQUENTIAL)
            cr_assert_eq(st->steps, ANSWER);
        else if (mode != SESSION_JACOBI && mode != SESSION_LOOKAHEAD) /* which do not ask the oracle */
            cr_assert_lt(st->steps, ANSWER / 2, "%lu round trips", (unsigned long)st->steps);
        cr_log_info("%s: %.0f ms, %lu round trips, %lu nodes sent", session_mode_name((enum session_mode)mode),
                    clock_ms() - t0, (unsigned long)st->steps, (unsigned long)st->nodes_sent);
        cr_assert_eq(r.events[REMOTE_LOST], 0, "%s", r.last[REMOTE_LOST]);
        remote_rig_disconnect(&r);
    }
    remote_rig_free(&r);
}

/* The connection is cut behind any number of bytes, with windows of guesses on the way. */
static void cut(bool up) {
    struct remote_rig r;
    uint32_t truth[TOY_CTX], recoveries = 0;
    remote_rig_init(&r);
    link_set(r.link[0], 2, 0, 0);
    for (uint64_t at = 50; at < 8000; at += 397) {
        start(&r, at % 2 ? SESSION_AUTO : SESSION_STOP_AND_WAIT, 0.8, truth);
        link_cut_after(r.link[0], up, at);
        tell(&r, truth, PROMPT, PROMPT + ANSWER);
        recoveries += session_stats(r.session)->recoveries;
        link_cut_after(r.link[0], up, 0);
        remote_rig_disconnect(&r);
    }
    cr_assert_geq(recoveries, 5, "%u", recoveries);
    remote_rig_free(&r);
}

Test(speculate_remote, cut_on_the_way_up) {
    cut(true);
}

Test(speculate_remote, cut_on_the_way_down) {
    cut(false);
}

Test(speculate_remote, the_second_cloud_takes_over) {
    struct remote_rig r;
    uint32_t truth[TOY_CTX];
    remote_rig_init(&r);
    r.o.n_clouds = 2;
    r.o.patience_ms = 2000;
    link_set(r.link[0], 10, 0, 0);
    start(&r, SESSION_AUTO, 1, truth);
    tell(&r, truth, PROMPT, PROMPT + 40);
    toy_cloud_stop(&r, 0);
    link_refuse(r.link[0], true);
    tell(&r, truth, PROMPT + 40, PROMPT + ANSWER);
    cr_assert_eq(r.events[REMOTE_SWITCHED], 1);
    remote_rig_free(&r);
}
