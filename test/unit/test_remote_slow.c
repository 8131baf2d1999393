/* net/client/remote_middle and clouds that are there and do not compute, or not as fast as they are asked to. */
#include "core/base/clock.h"
#include "net/client/remote_middle.h"
#include "test/unit/fake_cloud.h"
#include "test/unit/remote_rig.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { MOST_IN_FLIGHT = 1024, WINDOWS = 1100, LIVE = 2000, WAIT_MS = 60000 };

static const struct wire_welcome plain = {.version = WIRE_VERSION,
                                          .token = {1, 2, 3},
                                          .max_rows = RIG_ROWS,
                                          .max_frame = 1 << 20,
                                          .idle_ms = 60000,
                                          .ttl_ms = 60000,
                                          .backend = "fake"};

/* Answers PINGs, and SUBMITs only when there are so many that they have to be answered; 0: never. */
struct lazy {
    int at_once;
    int n, most;
};

static void serve_lazy(struct fake_conn *c, void *ctx) {
    struct lazy *l = ctx;
    struct wire_hello hello;
    struct wire_submit s;
    struct wbuf b = {0}, out = {0};
    struct err e = {0};
    uint64_t any;
    int type;
    if (fake_welcome(c, &hello, &plain))
        while (fake_read(c, &type, &b)) {
            if (type == WIRE_PING && wire_get_ping(b.p, b.n, &any, &e) == 0) {
                wire_put_ping(&out, true, any);
            } else if (type == WIRE_SUBMIT && wire_get_submit(b.p, b.n, 8, &s, &e) == 0 && s.n_nodes > 0) {
                l->n++;
                l->most = l->n > l->most ? l->n : l->most;
                for (; l->at_once && (l->n == l->at_once || s.seq == WINDOWS) && l->n > 0; l->n--) {
                    const struct wire_result r = {.seq = s.seq - (uint32_t)l->n + 1, .last = true};
                    wire_put_result(&out, &r, NULL, CODEC_F32, 2, NULL, NULL);
                }
            }
            if (!fake_flush(c, &out))
                break;
        }
    wbuf_free(&b);
    wbuf_free(&out);
}

static void fake_first(struct remote_rig *r, struct fake_cloud *f) {
    remote_rig_init(r);
    fake_cloud_start(f);
    r->clouds[0] = (struct remote_cloud){.address = f->address, .pin = *identity_pin(f->id), .has_pin = true};
}

/* The caller waits; the cloud has done nothing wrong. */
Test(remote_slow, more_windows_than_there_are_places_for) {
    struct lazy l = {.at_once = MOST_IN_FLIGHT};
    struct fake_cloud f = {.serve = serve_lazy, .ctx = &l};
    struct remote_rig r;
    struct err e = {0};
    const float x[2] = {1, 0};
    float y[2];
    uint32_t id;
    int n = 0;
    fake_first(&r, &f);
    r.o.hello.live = LIVE;
    r.o.hello.ctx = LIVE;
    cr_assert_eq(remote_middle_create(&r.middle, &r.o, &e), 0, "%s", e.msg);
    for (uint32_t i = 0; i < WINDOWS; i++) {
        const struct node node = {.id = i + 1, .parent = i, .pos = i};
        const struct window w = {.nodes = &node, .n = 1};
        cr_assert_eq(r.middle->ops->submit(r.middle, &w, x, &e), 0, "window %u: %s", i, e.msg);
    }
    struct middle_result res = {.ids = &id, .x = y, .cap = 1};
    for (int rc; (rc = r.middle->ops->collect(r.middle, &res, WAIT_MS, &e)) != 0; n++)
        cr_assert_eq(rc, 1, "%s", e.msg);
    cr_assert_eq(n, WINDOWS);
    remote_rig_free(&r);
    fake_cloud_stop(&f);
    cr_assert_eq(l.most, MOST_IN_FLIGHT);
}

/* While it waits for a place, the caller can be stopped, and a cloud that never answers is left. */
Test(remote_slow, waiting_for_a_place_has_an_end) {
    struct lazy l = {0};
    struct fake_cloud f = {.serve = serve_lazy, .ctx = &l};
    struct remote_rig r;
    struct err e = {0};
    const float x[2] = {1, 0};
    int rc = 0;
    fake_first(&r, &f);
    r.o.hello.live = r.o.hello.ctx = LIVE;
    r.o.progress_ms = 300;
    cr_assert_eq(remote_middle_create(&r.middle, &r.o, &e), 0, "%s", e.msg);
    for (uint32_t i = 0; i < WINDOWS && rc == 0; i++) {
        const struct node node = {.id = i + 1, .parent = i, .pos = i};
        const struct window w = {.nodes = &node, .n = 1};
        rc = r.middle->ops->submit(r.middle, &w, x, &e);
    }
    cr_assert_eq(rc, -1);
    cr_assert_eq(e.kind, ERR_IO);
    cr_assert(strstr(e.msg, "computed nothing") && strstr(e.msg, f.address), "%s", e.msg);
    remote_rig_free(&r);
    fake_cloud_stop(&f);
}

Test(remote_slow, a_cloud_that_computes_nothing_is_left_for_another) {
    struct lazy l = {0};
    struct fake_cloud f = {.serve = serve_lazy, .ctx = &l};
    struct remote_rig r;
    uint32_t said[TOY_SAID], want[TOY_SAID];
    fake_first(&r, &f);
    r.o.n_clouds = 2;
    struct remote_cloud lazy = r.clouds[0];
    r.clouds[0] = r.clouds[1];
    remote_rig_connect(&r);
    toy_converse(r.session, 0.8, want);
    remote_rig_disconnect(&r);
    r.clouds[0] = lazy;
    r.o.progress_ms = 1000;
    double t0 = clock_ms();
    remote_rig_connect(&r);
    toy_converse(r.session, 0.8, said);
    cr_assert_arr_eq(said, want, sizeof said);
    cr_assert(r.events[REMOTE_LOST] >= 1 && strstr(r.last[REMOTE_LOST], "computed nothing"), "%s", r.last[REMOTE_LOST]);
    cr_assert_eq(r.events[REMOTE_SWITCHED], 1);
    cr_assert_lt(clock_ms() - t0, WAIT_MS);
    remote_rig_free(&r);
    fake_cloud_stop(&f);
}

/* Nothing is expected of a cloud of which nothing was asked. */
Test(remote_slow, idleness_is_not_held_against_it) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    r.o.progress_ms = 1000;
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, 50, NULL, NULL, &e), 0, "%s", e.msg);
    poll(NULL, 0, 1500);
    cr_assert_eq(session_advance(r.session, t[50], &e), 0, "%s", e.msg);
    toy_check(r.session, t, 51);
    cr_assert_eq(r.events[REMOTE_LOST], 0, "%s", r.last[REMOTE_LOST]);
    remote_rig_free(&r);
}
