/* A cloud that has served thousands holds not one byte more than one that has served a few: what malloc has given out,
 * all of it, at points where the same is going on. The tests run in a process of their own, in which threads keep no
 * chunks back for themselves (glibc counts those as given out). */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/cloud/batch.h"
#include "net/codec.h"
#include "test/unit/cloud_rig.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sanitizers bring a malloc of their own, which does not tell; they look for leaks instead. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TELLS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TELLS false
#else
#define TELLS true
#endif
#else
#define TELLS true
#endif

enum { WAIT_MS = 20000, WINDOW = 8, LIVE = 32, CTX = 100 };

static size_t given_out(void) {
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* When nothing has changed for a while. */
static size_t settled(void) {
    size_t last = given_out();
    for (double since = clock_ms(); clock_ms() - since < 400; poll(NULL, 0, 5)) {
        size_t now = given_out();
        if (now != last)
            since = clock_ms();
        last = now;
    }
    return last;
}

/* The last connection may still be on its way out. */
static void expect_given_out(size_t bytes, const char *when) {
    for (double t0 = clock_ms(); TELLS && given_out() != bytes; poll(NULL, 0, 5))
        cr_assert_lt(clock_ms() - t0, WAIT_MS, "%s: %zu bytes, then %zu", when, bytes, given_out());
}

/* Runs the test in a process with another malloc, unless this is it; true: done. */
static bool elsewhere(const char *test) {
    static char tunables[] = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1";
    static char self[] = "/proc/self/exe", filter[] = "--filter";
    char name[80];
    int status;
    if (!TELLS || getenv("GLIBC_TUNABLES"))
        return false;
    snprintf(name, sizeof name, "cloud_memory/%s", test);
    pid_t child = fork();
    if (child == 0) {
        char *args[] = {self, filter, name, NULL}, *env[] = {tunables, NULL};
        execve(self, args, env);
        _exit(127);
    }
    cr_assert(child > 0 && waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in the other process: %d", status);
    return true;
}

/* ---- sessions, without a network ---- */

static struct stage stage = {&toy_ops, &toy_config, {.lo = 2, .hi = TOY_LAYERS - 1}};
static struct wire_hello hello = {.version = WIRE_VERSION,
                                  .codec = CODEC_F32,
                                  .n_layers = TOY_LAYERS,
                                  .lo = 2,
                                  .hi = TOY_LAYERS - 1,
                                  .hidden = 2,
                                  .ctx = CTX,
                                  .live = LIVE};

static void await_frame(struct port *p, int type) {
    struct wbuf b = {0};
    double t0 = clock_ms();
    for (; !port_take(p, &b); poll(NULL, 0, 0))
        cr_assert_lt(clock_ms() - t0, WAIT_MS);
    cr_assert_eq(b.p[4], type, "a %s", wire_type_name(b.p[4]));
    port_sent(p, b.n);
    wbuf_free(&b);
}

static void say(struct port *p, int type, struct wbuf *b) { /* as the socket's side does: without the header */
    memmove(b->p, b->p + WIRE_HEAD, b->n - WIRE_HEAD);
    b->n -= WIRE_HEAD;
    port_post(p, type, b);
    wbuf_free(b);
}

/* One session from its HELLO to its end, which is of one of four kinds. */
static void serve_one(struct batch_thread *t, int i) {
    const struct pin pin = {{(uint8_t)(i % 3)}};
    struct err e = {0};
    struct wbuf b = {0};
    struct node nodes[WINDOW];
    float x[2 * WINDOW];
    struct port *p = port_open(t, &pin, "somebody", &e);
    cr_assert_not_null(p, "%s", e.msg);
    wire_put_hello(&b, &hello);
    say(p, WIRE_HELLO, &b);
    await_frame(p, WIRE_WELCOME);
    for (uint32_t k = 0; k < WINDOW; k++) {
        nodes[k] = (struct node){.id = k + 1, .parent = k, .pos = k};
        x[2 * k] = (float)k;
        x[2 * k + 1] = 0;
    }
    const struct wire_submit_parts s = {.seq = 1, .audit = i % 5 == 0, .nodes = nodes, .n_nodes = WINDOW};
    wire_put_submit(&b, &s, CODEC_F32, 2, x);
    say(p, WIRE_SUBMIT, &b);
    if (i % 4 == 3) { /* goes in the midst of it */
        port_close(p);
        return;
    }
    await_frame(p, WIRE_RESULT);
    if (i % 4 == 0) {
        wire_put_bye(&b);
        say(p, WIRE_BYE, &b);
    } else if (i % 4 == 1) { /* breaks the protocol */
        wire_put_submit(&b, &s, CODEC_F32, 2, x);
        say(p, WIRE_SUBMIT, &b);
        await_frame(p, WIRE_ERROR);
    }
    port_close(p);
}

static void serve_some(struct batch_thread *t, int n) {
    for (int i = 0; i < n; i++)
        serve_one(t, i);
    struct batch_stats s;
    double t0 = clock_ms();
    for (batch_stats(t, &s); s.sessions > 0; batch_stats(t, &s), poll(NULL, 0, 5)) /* their ttl */
        cr_assert_lt(clock_ms() - t0, WAIT_MS);
}

Test(cloud_memory, two_thousand_sessions_leave_nothing) {
    if (elsewhere("two_thousand_sessions_leave_nothing"))
        return;
    const struct batch_opts o = {.stage = &stage,
                                 .mine = hello,
                                 .kv_bytes = 1 << 20,
                                 .max_sessions = 16,
                                 .max_ctx = CTX,
                                 .max_live = LIVE,
                                 .max_rows = WINDOW,
                                 .session_ttl_ms = 30,
                                 .idle_ms = 60000};
    struct batch_thread *t;
    struct err e = {0};
    cr_assert_eq(batch_start(&t, &o, &e), 0, "%s", e.msg);
    serve_some(t, 200);
    size_t before = settled();
    for (int i = 0; i < 4; i++) {
        serve_some(t, 500);
        expect_given_out(before, "after sessions");
    }
    struct batch_stats s;
    batch_stats(t, &s);
    cr_assert_eq(s.sessions_all, 2200);
    batch_stop(t);
}

/* ---- connections, with TLS ---- */

static void connect_one(struct cloud_rig *r, const struct identity *stranger, int i) {
    struct guest p;
    char sink[64];
    if (i % 4 == 0) { /* not allowed */
        guest_connect(&p, r, stranger);
        guest_close(&p);
    } else if (i % 4 == 1) { /* not TLS */
        int fd = tcp_connect(cloud_port(r->cloud));
        cr_assert_eq(write(fd, "GET / HTTP/1.0\r\n\r\n", 18), 18);
        tcp_drain(fd, sink, sizeof sink);
        close(fd);
    } else {
        guest_open(&p, r);
        if (i % 4 == 2)
            guest_submit(&p, 4);
        guest_close(&p);
    }
}

static void connect_some(struct cloud_rig *r, const struct identity *stranger, int n) {
    for (int i = 0; i < n; i++)
        connect_one(r, stranger, i);
}

Test(cloud_memory, connections_leave_nothing) {
    struct cloud_rig r;
    struct identity *stranger;
    struct err e = {0};
    if (elsewhere("connections_leave_nothing"))
        return;
    cloud_rig_init(&r, NULL);
    log_to(NULL, NULL, LOG_ERROR); /* the rig keeps what is logged */
    r.o.batch.session_ttl_ms = 30;
    cr_assert_eq(identity_ephemeral(&stranger, &e), 0, "%s", e.msg);
    cloud_rig_start(&r);
    connect_some(&r, stranger, 40);
    size_t before = settled();
    for (int i = 0; i < 3; i++) {
        connect_some(&r, stranger, 80);
        expect_given_out(before, "after connections");
    }
    identity_free(stranger);
    cloud_rig_stop(&r);
}
