/* net/client/remote_middle against real clouds over links that break: the text is that of an undisturbed run. */
#include "core/base/clock.h"
#include "test/unit/remote_rig.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void same_text(struct remote_rig *r, const uint32_t *want) {
    uint32_t got[TOY_SAID];
    toy_converse(r->session, 0.8, got);
    cr_assert_arr_eq(got, want, sizeof got);
}

/* What is said without any trouble, and bytes each way behind the connection's start. */
static void undisturbed(struct remote_rig *r, uint32_t *said, uint64_t *up, uint64_t *down) {
    remote_rig_connect(r);
    struct link_stats before = link_stats(r->link[0]);
    toy_converse(r->session, 0.8, said);
    struct link_stats after = link_stats(r->link[0]);
    *up = after.up - before.up;
    *down = after.down - before.down;
    cr_assert_eq(session_stats(r->session)->recoveries, 0);
    cr_assert_eq(r->events[REMOTE_CONNECTED], 1);
    cr_assert_eq(r->events[REMOTE_LOST], 0);
    struct remote_info info;
    remote_middle_info(r->middle, &info);
    cr_assert_eq(info.connections, 1);
    cr_assert_str_eq(info.backend, "toy");
    cr_assert_str_eq(info.address, r->address[0]);
    remote_rig_disconnect(r);
}

Test(remote, a_conversation) {
    struct remote_rig r;
    uint32_t said[TOY_SAID];
    uint64_t up, down;
    remote_rig_init(&r);
    undisturbed(&r, said, &up, &down);
    cr_assert_gt(up, 2000);
    remote_rig_free(&r);
}

/* The connection is cut behind any number of bytes in either direction. */
static void cut_at_many_places(bool up_way) {
    struct remote_rig r;
    uint32_t said[TOY_SAID];
    uint64_t up, down;
    remote_rig_init(&r);
    undisturbed(&r, said, &up, &down);
    uint64_t all = up_way ? up : down, lost = 0;
    for (uint64_t at = 1; at < all; at += all / 60) {
        remote_rig_connect(&r);
        link_cut_after(r.link[0], up_way, at);
        same_text(&r, said);
        lost += session_stats(r.session)->recoveries;
        link_cut_after(r.link[0], up_way, 0);
        remote_rig_disconnect(&r);
    }
    cr_assert_geq(lost, 50, "%lu", (unsigned long)lost);
    remote_rig_free(&r);
}

Test(remote, cut_on_the_way_up) {
    cut_at_many_places(true);
}

Test(remote, cut_on_the_way_down) {
    cut_at_many_places(false);
}

/* ---- what a round trip costs beside the model's time ---- */

static int no_layers(struct stage *s, struct kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e) {
    (void)s, (void)kv, (void)b, (void)lo, (void)hi, (void)x, (void)e;
    return 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { WIDE = 4096, MOST_ROWS = 33 };

/* Windows of `rows` there and back past the link, through a cloud that computes nothing: until the first row is here,
 * and until all are. */
static void round_trips(struct remote_rig *r, enum codec codec, int rows, uint32_t rounds) {
    static double first[600], all[600];
    static float x[MOST_ROWS * WIDE], y[MOST_ROWS * WIDE];
    struct node nodes[MOST_ROWS];
    uint32_t ids[MOST_ROWS], next_id = 1, head = 0;
    struct remote_info info;
    struct err e = {0};
    r->o.hello.codec = codec;
    cr_assert_eq(remote_middle_create(&r->middle, &r->o, &e), 0, "%s", e.msg);
    const struct middle_ops *ops = r->middle->ops;
    for (uint32_t i = 0; i < rounds; i++) {
        for (int k = 0; k < rows * WIDE; k++)
            x[k] = (float)((i + (uint32_t)k) % 1000) * 0.125f;
        for (int k = 0; k < rows; k++)
            nodes[k] = (struct node){.id = next_id++, .parent = k ? nodes[0].id : head, .pos = i + (k > 0)};
        const struct window w = {.nodes = nodes, .n = rows};
        int got = 0;
        double t0 = clock_ms();
        cr_assert_eq(ops->submit(r->middle, &w, x, &e), 0, "%s", e.msg);
        while (got < rows) {
            struct middle_result res = {.ids = ids, .x = y, .cap = MOST_ROWS};
            cr_assert_eq(ops->collect(r->middle, &res, -1, &e), 1, "%s", e.msg);
            first[i] = got ? first[i] : clock_ms() - t0;
            cr_assert_eq(ids[0], nodes[got].id);
            if (codec == CODEC_F16)
                cr_assert(y[9] == x[got * WIDE + 9]);
            got += res.n;
        }
        all[i] = clock_ms() - t0;
        head = nodes[0].id;
        cr_assert_eq(ops->commit(r->middle, &head, 1, &e), 0, "%s", e.msg);
        for (int k = 1; k < rows; k++)
            cr_assert_eq(ops->cancel(r->middle, nodes[k].id, &e), 0, "%s", e.msg);
    }
    qsort(first, rounds, sizeof *first, by_value);
    qsort(all, rounds, sizeof *all, by_value);
    remote_middle_info(r->middle, &info);
    cr_log_warn("%d rows of %d in %s: the first is back after %.3f ms (10%% %.3f), all after %.3f ms (10%% %.3f), of "
                "which %.3f ms are this side's work (%s, ping %.3f ms)",
                rows, WIDE, codec_name(codec), first[rounds / 2], first[rounds / 10], all[rounds / 2], all[rounds / 10],
                info.work_ms / rounds, info.suite, info.rtt_ms);
    cr_assert_lt(first[rounds / 2], rows == 1 ? 25 : 500, "the median of a round trip on loopback");
    cr_assert(info.work_ms > 0 && info.work_ms / rounds < all[rounds - 1]);
    r->middle->ops->free(r->middle);
    r->middle = NULL;
}

Test(remote, overhead_of_a_round_trip) {
    enum { ROUNDS = 600, FEWER = 100 };
    struct backend_ops ops = toy_ops;
    struct model_config config = toy_config;
    struct remote_rig r;
    char address[40];
    config.hidden = WIDE;
    config.head_dim = WIDE;
    ops.layers = no_layers;
    remote_rig_init(&r);
    toy_cloud_stop(&r, 0);
    struct batch_opts *b = &r.cloud[0].o.batch;
    r.cloud[0].stage.ops = &ops;
    r.cloud[0].stage.config = &config;
    b->mine.hidden = r.o.hello.hidden = WIDE;
    b->kv_bytes = 256 << 20;
    b->max_ctx = r.o.hello.ctx = ROUNDS;
    b->max_live = r.o.hello.live = 2 * MOST_ROWS;
    b->max_rows = (int)(r.o.max_rows = 64);
    toy_cloud_start(&r, 0);
    snprintf(address, sizeof address, "127.0.0.1:%u", cloud_port(r.cloud[0].cloud)); /* past the link */
    r.clouds[0].address = address;
    round_trips(&r, CODEC_F16, 1, ROUNDS);
    round_trips(&r, CODEC_F16, MOST_ROWS, FEWER);
    round_trips(&r, CODEC_Q8, MOST_ROWS, FEWER);
    remote_rig_free(&r);
}

/* ---- faults, each against the undisturbed text ---- */

/* A conversation of two halves with something in between: between tells whether the first half is over. */
static void halves(struct remote_rig *r, void (*between)(struct remote_rig *r)) {
    uint32_t t[TOY_CTX];
    struct err e = {0};
    toy_fill(t, TOY_CTX, 5);
    cr_assert_eq(session_feed(r->session, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(session_advance(r->session, t[50], &e), 0, "%s", e.msg);
    toy_check(r->session, t, 51);
    between(r);
    for (int i = 51; i < 55; i++) {
        cr_assert_eq(session_advance(r->session, t[i], &e), 0, "%s", e.msg);
        toy_check(r->session, t, i + 1);
    }
    cr_assert_eq(session_feed(r->session, t, 110, NULL, NULL, &e), 0, "%s", e.msg);
    toy_check(r->session, t, 110);
}

static void cut(struct remote_rig *r) {
    link_cut(r->link[0]);
}

Test(remote, a_cut_session_is_resumed) {
    struct remote_rig r;
    remote_rig_init(&r);
    remote_rig_connect(&r);
    halves(&r, cut);
    cr_assert_eq(r.events[REMOTE_LOST], 1);
    cr_assert(strstr(r.last[REMOTE_LOST], r.address[0]) && strstr(r.last[REMOTE_LOST], "trying again"), "%s",
              r.last[REMOTE_LOST]);
    cr_assert_eq(r.events[REMOTE_REPLAY], 1, "the last commit was on no SUBMIT yet");
    cr_assert_eq(session_stats(r.session)->replayed_tokens, 1);
    struct remote_info info;
    remote_middle_info(r.middle, &info);
    cr_assert_eq(info.connections, 2);
    cr_assert_eq(info.resumed, 1);
    cr_assert_eq(info.replayed, 1);
    remote_rig_free(&r);
}

static void restart(struct remote_rig *r) {
    toy_cloud_stop(r, 0);
    toy_cloud_start(r, 0);
}

Test(remote, a_cloud_that_was_started_again_has_lost_everything) {
    struct remote_rig r;
    remote_rig_init(&r);
    remote_rig_connect(&r);
    halves(&r, restart);
    cr_assert_eq(r.events[REMOTE_REPLAY], 1, "%s", r.last[REMOTE_REPLAY]);
    cr_assert_eq(session_stats(r.session)->replayed_tokens, 51);
    remote_rig_free(&r);
}

static void *come_back(void *arg) {
    struct remote_rig *r = arg;
    const struct timespec later = {.tv_nsec = 400000000};
    nanosleep(&later, NULL);
    link_refuse(r->link[0], false);
    return NULL;
}

static pthread_t helper;

static void go_away_for_a_while(struct remote_rig *r) {
    link_refuse(r->link[0], true);
    link_cut(r->link[0]);
    cr_assert_eq(pthread_create(&helper, NULL, come_back, r), 0);
}

Test(remote, a_cloud_that_comes_back_is_waited_for) {
    struct remote_rig r;
    remote_rig_init(&r);
    remote_rig_connect(&r);
    halves(&r, go_away_for_a_while);
    pthread_join(helper, NULL);
    cr_assert_geq(r.events[REMOTE_RETRY], 1);
    struct remote_info info;
    remote_middle_info(r.middle, &info);
    cr_assert_geq(info.lost_ms, 200);
    cr_assert_eq(info.resumed, 1);
    remote_rig_free(&r);
}

static void stall(struct remote_rig *r) {
    link_stall(r->link[0], true);
    link_target(r->link[0], cloud_port(r->cloud[1].cloud)); /* what is stalled stays so */
}

Test(remote, a_link_that_stalls_is_noticed) {
    struct remote_rig r;
    remote_rig_init(&r);
    r.o.n_clouds = 2;
    r.o.stall_ms = 600;
    r.o.connect_ms = 500;
    r.o.patience_ms = 30000;
    remote_rig_connect(&r);
    halves(&r, stall);
    cr_assert(strstr(r.last[REMOTE_LOST], "not a sign"), "%s", r.last[REMOTE_LOST]);
    cr_assert_eq(r.events[REMOTE_SWITCHED], 1, "%s", r.last[REMOTE_RETRY]);
    remote_rig_free(&r);
}

static void die_for_good(struct remote_rig *r) {
    toy_cloud_stop(r, 0);
    link_refuse(r->link[0], true);
}

Test(remote, the_second_cloud_takes_over) {
    struct remote_rig r;
    remote_rig_init(&r);
    r.o.n_clouds = 2;
    r.o.patience_ms = 2000;
    remote_rig_connect(&r);
    halves(&r, die_for_good);
    cr_assert_eq(r.events[REMOTE_SWITCHED], 1);
    cr_assert_eq(session_stats(r.session)->replayed_tokens, 51);
    struct remote_info info;
    remote_middle_info(r.middle, &info);
    cr_assert_str_eq(info.address, r.address[1]);
    cr_assert_arr_eq(&info.pin, identity_pin(r.cloud[1].id), sizeof info.pin);
    remote_rig_free(&r);
}

Test(remote, patience_ends_and_the_next_call_tries_again) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    r.o.patience_ms = 300;
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
    link_refuse(r.link[0], true);
    link_cut(r.link[0]);
    for (int i = 0; i < 2; i++) {
        e = (struct err){0};
        cr_assert_eq(session_advance(r.session, t[50], &e), -1);
        cr_assert_eq(e.kind, ERR_IO);
        cr_assert(strstr(e.msg, r.address[0]), "%s", e.msg);
        toy_check(r.session, t, 50);
    }
    session_reset(r.session);
    link_refuse(r.link[0], false);
    e = (struct err){0};
    cr_assert_eq(session_feed(r.session, t, 60, NULL, NULL, &e), 0, "%s", e.msg);
    toy_check(r.session, t, 60);
    remote_rig_free(&r);
}

/* A rewind that the cloud never heard of costs nothing: both remember what was in front of it. */
Test(remote, a_rewind_that_was_lost) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, 80, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(session_advance(r.session, t[80], &e), 0, "%s", e.msg); /* brings the commit of the others */
    t[40] ^= 1;
    link_cut_after(r.link[0], true, 1); /* the SUBMIT with the rewind */
    cr_assert_eq(session_feed(r.session, t, 70, NULL, NULL, &e), 0, "%s", e.msg);
    toy_check(r.session, t, 70);
    cr_assert_eq(session_stats(r.session)->recoveries, 1);
    cr_assert_eq(session_stats(r.session)->replayed_tokens, 0);
    remote_rig_free(&r);
}

/* As after a SIGSTOP: the cloud has closed the connection long ago, and even the session. */
Test(remote, away_for_longer_than_the_session_lives) {
    struct remote_rig r;
    remote_rig_init(&r);
    toy_cloud_stop(&r, 0);
    r.cloud[0].o.batch.session_ttl_ms = 1;
    toy_cloud_start(&r, 0);
    remote_rig_connect(&r);
    halves(&r, cut);
    cr_assert_eq(r.events[REMOTE_LOST], 1);
    remote_rig_free(&r);
}

static int stop_after(void *ctx) {
    double *at = ctx;
    return *at != 0 && clock_ms() > *at;
}

Test(remote, waiting_can_be_stopped) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    double at = 0;
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    r.o.stop = stop_after;
    r.o.stop_ctx = &at;
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
    link_stall(r.link[0], true);
    at = clock_ms() + 100; /* while it waits for a result */
    cr_assert_eq(session_advance(r.session, t[50], &e), -1);
    cr_assert_eq(e.kind, ERR_NONE);
    cr_assert_lt(clock_ms(), at + 5000);
    link_stall(r.link[0], false);
    at = 0;
    cr_assert_eq(session_advance(r.session, t[50], &e), 0, "%s", e.msg);
    toy_check(r.session, t, 51);
    link_refuse(r.link[0], true);
    link_cut(r.link[0]);
    at = clock_ms() + 300; /* while it waits for a cloud */
    cr_assert_eq(session_advance(r.session, t[51], &e), -1);
    cr_assert_eq(e.kind, ERR_NONE, "%s", e.msg);
    cr_assert_lt(clock_ms(), at + 5000);
    link_refuse(r.link[0], false);
    at = 0;
    cr_assert_eq(session_advance(r.session, t[51], &e), 0, "%s", e.msg);
    toy_check(r.session, t, 52);
    remote_rig_free(&r);
}

/* Silence is not held against a link that is only slow. */
Test(remote, a_slow_link_is_no_dead_link) {
    struct remote_rig r;
    uint32_t said[TOY_SAID], want[TOY_SAID];
    uint64_t up, down;
    remote_rig_init(&r);
    undisturbed(&r, want, &up, &down);
    r.o.stall_ms = 1500;
    link_set(r.link[0], 60, 10, 0.2);
    remote_rig_connect(&r);
    toy_converse(r.session, 0.8, said);
    cr_assert_arr_eq(said, want, sizeof said);
    cr_assert_eq(r.events[REMOTE_LOST], 0, "%s", r.last[REMOTE_LOST]);
    struct remote_info info;
    remote_middle_info(r.middle, &info);
    cr_assert(info.rtt_ms >= 60 && info.rtt_ms < 2000, "%f", info.rtt_ms);
    struct link_stats s = link_stats(r.link[0]);
    cr_assert_gt(info.bytes_up, up);
    cr_assert_leq(info.bytes_up, s.up);
    remote_rig_free(&r);
}

Test(remote, an_idle_connection_is_kept) {
    struct remote_rig r;
    remote_rig_init(&r);
    toy_cloud_stop(&r, 0);
    r.cloud[0].o.batch.idle_ms = r.cloud[0].o.idle_ms = 600;
    toy_cloud_start(&r, 0);
    remote_rig_connect(&r);
    poll(NULL, 0, 1500);
    uint32_t said[TOY_SAID];
    toy_converse(r.session, 0, said);
    cr_assert_eq(r.events[REMOTE_LOST], 0, "%s", r.last[REMOTE_LOST]);
    remote_rig_free(&r);
}

static void another_key(struct remote_rig *r) {
    struct err e = {0};
    link_cut(r->link[0]); /* first: it would say goodbye, and send us elsewhere */
    toy_cloud_stop(r, 0);
    identity_free(r->cloud[0].id);
    cr_assert_eq(identity_ephemeral(&r->cloud[0].id, &e), 0);
    r->cloud[0].o.id = r->cloud[0].id;
    toy_cloud_start(r, 0);
}

Test(remote, another_key_in_mid_session_is_refused_at_once) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    char pin[PIN_TEXT];
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
    another_key(&r);
    pin_format(identity_pin(r.cloud[0].id), pin);
    double t0 = clock_ms();
    cr_assert_eq(session_advance(r.session, t[50], &e), -1);
    cr_assert_eq(e.kind, ERR_CRYPTO, "%s", e.msg);
    cr_assert(strstr(e.msg, pin) && strstr(e.msg, r.address[0]), "%s", e.msg);
    cr_assert_lt(clock_ms() - t0, 20000);
    remote_rig_free(&r);
    remote_rig_init(&r);
    r.o.n_clouds = 2; /* a second one helps, and the refusal is told */
    remote_rig_connect(&r);
    halves(&r, another_key);
    pin_format(identity_pin(r.cloud[0].id), pin);
    cr_assert(strstr(r.last[REMOTE_RETRY], pin), "%s", r.last[REMOTE_RETRY]);
    cr_assert_eq(r.events[REMOTE_SWITCHED], 1);
    remote_rig_free(&r);
}
