/* net/cloud/cloud: frames of clients that are known and misbehave, and what the others notice of it. */
#include "core/base/clock.h"
#include "net/cloud/cloud.h"
#include "test/unit/cloud_rig.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 /* a sanitizer's own memory says nothing about ours */
#endif

static struct cloud_rig r;

Test(cloud_frames, frames_have_limits) {
    struct guest p;
    struct wbuf w = {0};
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    cr_assert_eq(guest_connect(&p, &r, r.client), 0);
    cr_assert_eq(guest_send(&p, "\x01\x04\0\0\x01", 5), 0); /* 1025 before WELCOME */
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    guest_open(&p, &r);
    wbuf_u32(&w, p.welcome.max_frame + 1);
    wbuf_u8(&w, WIRE_SUBMIT);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    guest_open(&p, &r);
    cr_assert_eq(guest_send(&p, "\0\0\0\0\0", 5), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    cr_assert_eq(guest_connect(&p, &r, r.client), 0); /* PING is not HELLO */
    wbuf_clear(&w);
    wire_put_ping(&w, false, 1);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);
    wbuf_free(&w);
    rig_check_served(&r);
    cloud_rig_stop(&r);
}

static size_t resident(void) {
    unsigned long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "re");
    cr_assert(f && fscanf(f, "%lu %lu", &all, &pages) == 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A peer from whom nothing is read, because enough of it waits to be computed, hears that the cloud is there. */
Test(cloud_frames, who_is_not_read_is_told_that_we_are_there, .timeout = 120) {
    enum { N_CANCEL = 150, FRAMES = 600 };
    struct guest p;
    struct err e = {0};
    uint32_t cancel[N_CANCEL];
    uint64_t asked[2];
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 2), 0);
    rig_await_pass();
    struct wbuf w = {0};
    for (int i = 0; i < N_CANCEL; i++)
        cancel[i] = 1000000 + (uint32_t)i;
    for (int i = 0; i < FRAMES; i++) { /* far more than a port holds, and no more than a socket takes */
        const struct wire_submit_parts s = {.seq = ++p.seq, .cancel = cancel, .n_cancel = N_CANCEL};
        wire_put_submit(&w, &s, CODEC_F16, RIG_HIDDEN, NULL);
    }
    wire_put_ping(&w, false, 77); /* not read, and so not answered */
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    wbuf_clear(&w);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(guest_frame(&p, RIG_WAIT_MS), WIRE_PING);
        cr_assert_eq(wire_get_ping(p.in.p, p.in.n, &asked[i], &e), 0, "%s", e.msg);
        wire_put_ping(&w, true, asked[i]);
    }
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    rig_hold(false);
    guest_await(&p, WIRE_PONG); /* 77, once there was room */
    guest_ping(&p, 78);
    int n = 0;
    for (wbuf_clear(&w); n < 100;
         n++) /* a PONG for each PING that there may have been, and one that nobody asked for */
        wire_put_ping(&w, true, 79);
    guest_send(&p, w.p, w.n);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);
    wbuf_free(&w);
    rig_check_served(&r);
    cloud_rig_stop(&r);
}

/* A SUBMIT that is legal and senseless: unknown parents, cancels of what never was. */
static void put_senseless(struct wbuf *w, struct guest *p) {
    enum { N = 6 };
    float x[N * RIG_HIDDEN] = {0};
    uint32_t cancel[N];
    struct node nodes[N];
    int n = (int)(rig_random() % (N + 1));
    for (int i = 0; i < N; i++) {
        cancel[i] = rig_random();
        nodes[i] = (struct node){.id = ++p->next_id, .parent = 1 << 30 | rig_random(), .pos = rig_random() % 2000};
    }
    const struct wire_submit_parts s = {
        .seq = ++p->seq, .cancel = cancel, .n_cancel = (int)(rig_random() % N), .nodes = nodes, .n_nodes = n};
    wire_put_submit(w, &s, CODEC_F16, RIG_HIDDEN, x);
}

/* Noise under some type; or a SUBMIT with some bytes changed. */
static void put_bad(struct wbuf *w, struct guest *p) {
    if (rig_random() % 2) {
        put_senseless(w, p);
        for (uint32_t k = 1 + rig_random() % 4; k > 0; k--)
            w->p[WIRE_HEAD + rig_random() % (w->n - WIRE_HEAD)] ^= (uint8_t)(1 + rig_random() % 255);
        return;
    }
    uint32_t len = 1 + rig_random() % 600;
    wbuf_u32(w, len);
    wbuf_u8(w, (uint8_t)(rig_random() % 3 ? 1 + rig_random() % 10 : rig_random()));
    for (uint32_t k = 1; k < len; k++)
        wbuf_u8(w, (uint8_t)(rig_random() % 4 ? 0 : rig_random()));
}

/* Frames over one connection until the cloud ends it. Returns how many it has looked at. */
static int send_noise(void) {
    struct guest p;
    int n = 0, got = 1;
    guest_open(&p, &r);
    while (n < 100 && got > 0 && got != WIRE_ERROR) {
        struct wbuf w = {0};
        bool bad = rig_random() % 20 == 0;
        if (bad)
            put_bad(&w, &p);
        else
            put_senseless(&w, &p);
        n++;
        if (bad) /* was it bad enough? The answer to this tells */
            wire_put_ping(&w, false, 1);
        if (guest_send(&p, w.p, w.n) != 0)
            got = -1;
        wbuf_free(&w);
        while (got > 0 && (got = guest_frame(&p, bad ? RIG_WAIT_MS : 0)) > 0 && got != WIRE_PONG && got != WIRE_ERROR)
            ;
        cr_assert(got != -2 || !bad, "neither ERROR nor PONG came");
        got = got == -2 ? 1 : got;
    }
    guest_close(&p);
    return n;
}

Test(cloud_frames, ten_thousand_bad_frames_disturb_nobody, .timeout = 120) {
    enum { N = SANITIZED ? 1000 : 10000 };
    struct guest good;
    size_t before = 0;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&good, &r);
    for (int i = 0; i < N;) {
        i += send_noise();
        cr_assert_eq(guest_submit(&good, 1), 0);
        guest_await(&good, WIRE_RESULT);
        if (before == 0 && i >= N / 4)
            before = resident();
    }
    size_t after = resident();
    if (!SANITIZED)
        cr_assert_lt(after, before + (4 << 20), "memory grew from %zu to %zu bytes", before, after);
    cr_assert_gt(log_count("reason=protocol") + log_count("reason=finished"), N / 100);
    guest_ping(&good, 1);
    guest_close(&good);
    cloud_rig_stop(&r);
}

Test(cloud_frames, pings_are_answered_while_all_is_busy) {
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    guest_open(&q, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    rig_await_pass();
    for (uint64_t i = 0; i < 20; i++) {
        guest_ping(&p, i);
        guest_ping(&q, i);
    }
    rig_hold(false);
    guest_await(&p, WIRE_RESULT);
    guest_close(&p);
    guest_close(&q);
    cloud_rig_stop(&r);
}

/* Fills what the cloud takes from a peer that reads nothing. Returns bytes. */
static size_t stuff(struct guest *p) {
    struct wbuf w = {0};
    struct err e = {0};
    size_t all = 0, n;
    bool stuck = false;
    for (int i = 0; i < 100; i++)
        wire_put_ping(&w, false, (uint64_t)i);
    for (double last = clock_ms(); !stuck; stuck = clock_ms() - last > 300) {
        enum tls_status st = tls_write(p->tls, w.p, w.n, &n, &e);
        if (st == TLS_DONE) {
            all += n;
            last = clock_ms();
        } else if (st == TLS_WANT_WRITE) {
            poll(NULL, 0, 5);
        } else {
            break;
        }
    }
    wbuf_free(&w);
    return all;
}

Test(cloud_frames, who_does_not_read_is_not_read_and_goes) {
    struct guest p, good;
    cloud_rig_init(&r, NULL);
    r.o.idle_ms = 1500;
    cloud_rig_start(&r);
    guest_open(&p, &r);
    int small = 4096;
    setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    size_t before = resident(), sent = stuff(&p);
    cr_assert_lt(sent, 64 << 20); /* the system's buffers, not the cloud's */
    if (!SANITIZED)
        cr_assert_lt(resident(), before + (8 << 20));
    guest_open(&good, &r);
    for (double t0 = clock_ms(); log_count("reason=not_reading") == 0; poll(NULL, 0, 20)) {
        guest_ping(&good, 1);
        cr_assert_lt(clock_ms() - t0, RIG_WAIT_MS);
    }
    guest_close(&p);
    guest_close(&good);
    cloud_rig_stop(&r);
}

Test(cloud_frames, more_than_can_be_worked_on_waits_in_the_network) {
    enum { CANCELS = 16384 };
    static uint32_t ids[CANCELS];
    struct guest p, good;
    struct wbuf w = {0};
    struct err e = {0};
    size_t sent = 0, n = 0;
    cloud_rig_init(&r, NULL);
    r.o.batch.max_live = CANCELS;
    cloud_rig_start(&r);
    guest_open(&good, &r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 1), 0);
    rig_await_pass();
    size_t before = resident();
    /* Cancels of nothing, 64 kB each, which the compute thread does not get to while its pass hangs. */
    for (double last = clock_ms(); clock_ms() - last < 300 && sent < 256 << 20;) {
        if (n == w.n) {
            const struct wire_submit_parts s = {.seq = ++p.seq, .cancel = ids, .n_cancel = CANCELS / 32};
            wbuf_clear(&w);
            wire_put_submit(&w, &s, CODEC_F16, RIG_HIDDEN, NULL);
            n = 0;
        }
        size_t m = 0;
        enum tls_status st = tls_write(p.tls, w.p + n, w.n - n, &m, &e);
        cr_assert(st == TLS_DONE || st == TLS_WANT_WRITE);
        if (st == TLS_DONE) {
            n += m;
            sent += m;
            last = clock_ms();
        } else {
            poll(NULL, 0, 5);
        }
    }
    cr_assert_lt(sent, 64 << 20); /* the system's buffers, and little of ours */
    if (!SANITIZED)
        cr_assert_lt(resident(), before + (8 << 20));
    guest_ping(&good, 1);
    rig_hold(false);
    if (n < w.n)
        cr_assert_eq(guest_send(&p, w.p + n, w.n - n), 0);
    guest_ping(&p, 7); /* all of it was taken in the end */
    wbuf_free(&w);
    guest_close(&p);
    guest_close(&good);
    cloud_rig_stop(&r);
}
