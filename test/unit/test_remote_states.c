/* The connection to a cloud breaks at each point of the conversation, in each way: whatever was being said, the text
 * and every logit are those of an undisturbed run, nothing has to be asked for again, somebody is told, and no call
 * takes longer than the limits that it was given. A point that is not reached fails its test. */
#include "core/base/clock.h"
#include "test/unit/remote_rig.h"
#include "test/unit/tap_rig.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATIENCE_MS = 60000,
    SLACK_MS = 10000, /* of a loaded machine; less than what there would be without a limit */
    WORKERS = 8,
    SAID = 4,
    MAX_CASES = 400,
};

static uint32_t stall_ms; /* remote_rig_patience */

/* ---- what is said: two turns, with everything that a session sends ---- */

struct said {
    uint32_t tokens[SAID];
    uint64_t logits;
};

struct run {
    struct remote_rig *rig;
    struct tap *tap;
    char address[40];
    struct remote_cloud clouds[2];
    struct remote_opts o;
    struct middle *middle;
    struct session *session;
    struct said said;
    int told;                 /* times that somebody was told of trouble */
    int failed;               /* calls that gave up */
    bool heals;               /* after the first that does, the link works again */
    double since, longest_ms; /* its begin; its longest call */
    double limit_ms;          /* of one call */
    void (*idle)(struct run *r);
    enum tap_fault fault;
    char why[700]; /* what went wrong; empty: nothing */
};

static void on_event(void *ctx, enum remote_event what, const char *text) {
    struct run *r = ctx;
    r->told += what == REMOTE_LOST && strstr(text, "127.0.0.1:") != NULL;
}

__attribute__((format(printf, 2, 3))) static int wrong(struct run *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (!r->why[0])
        vsnprintf(r->why, sizeof r->why, fmt, ap);
    va_end(ap);
    return -1;
}

/* A call that began at t0 came back: 0; 1: it gave up, as it may, and is to be made again; -1: as it must not. */
static int judge(struct run *r, int rc, double t0, const struct err *e) {
    double ms = clock_ms() - t0;
    r->longest_ms = ms > r->longest_ms ? ms : r->longest_ms;
    if (ms > r->limit_ms + SLACK_MS)
        return wrong(r, "a call took %.0f ms, its limits say %.0f", ms, r->limit_ms);
    if (rc == 0)
        return 0;
    if (e->kind != ERR_IO || !strstr(e->msg, "127.0.0.1:"))
        return wrong(r, "a call gave up with kind %d: %s", (int)e->kind, e->msg);
    r->failed++;
    if (clock_ms() - r->since > PATIENCE_MS)
        return wrong(r, "again and again: %s", e->msg);
    if (r->heals)
        tap_heal(r->tap);
    return 1;
}

static int feed(struct run *r, const uint32_t *tokens, uint32_t n) {
    for (;;) {
        struct err e = {0};
        double t0 = clock_ms();
        int rc = judge(r, session_feed(r->session, tokens, n, NULL, NULL, &e), t0, &e);
        if (rc <= 0)
            return rc;
    }
}

static int advance(struct run *r, uint32_t token) {
    for (;;) {
        struct err e = {0};
        double t0 = clock_ms();
        int rc = judge(r, session_advance(r->session, token, &e), t0, &e);
        if (rc <= 0)
            return rc;
    }
}

static void note_logits(struct run *r) {
    const uint8_t *p = (const uint8_t *)session_logits(r->session);
    for (size_t i = 0; i < TOY_VOCAB * sizeof(float); i++)
        r->said.logits = (r->said.logits ^ p[i]) * 1099511628211u;
}

static int answer(struct run *r, uint32_t *t, uint32_t *n, uint32_t *out, uint32_t n_out) {
    struct sample_params p;
    struct err e = {0};
    sample_params_default(&p);
    p.temperature = 0.8f;
    p.top_p = 0.95f;
    p.seed = 11;
    for (uint32_t i = 0; i < n_out; i++) {
        note_logits(r);
        if (session_sample(r->session, &p, i, &out[i], &e) != 0)
            return wrong(r, "%s", e.msg);
        t[(*n)++] = out[i];
        if (advance(r, out[i]) != 0)
            return -1;
    }
    note_logits(r);
    return 0;
}

static int talk(struct run *r) {
    uint32_t t[TOY_CTX], n = 47;
    r->said.logits = 14695981039346656037u;
    toy_fill(t, TOY_CTX, 23);
    if (feed(r, t, n) != 0)
        return -1;
    t[40] ^= 1; /* back into what the cloud was not told to keep yet: it has to be told without a window */
    n = 60;
    if (feed(r, t, n) != 0 || answer(r, t, &n, r->said.tokens, 2) != 0)
        return -1;
    if (r->idle)
        r->idle(r);
    t[55] ^= 1; /* and back into what it keeps */
    n = 80;
    if (feed(r, t, n) != 0 || answer(r, t, &n, r->said.tokens + 2, 2) != 0)
        return -1;
    float want[TOY_VOCAB];
    toy_expect(t, (int)n, want);
    return memcmp(session_logits(r->session), want, sizeof want) == 0 ? 0 : wrong(r, "other logits");
}

/* ---- one run ---- */

static void run_init(struct run *r, struct remote_rig *rig, struct tap *tap) {
    *r = (struct run){.rig = rig, .tap = tap, .o = rig->o, .since = clock_ms(), .limit_ms = PATIENCE_MS + 3 * stall_ms};
    snprintf(r->address, sizeof r->address, "127.0.0.1:%u", tap_port(tap));
    r->clouds[0] = rig->clouds[0];
    r->clouds[0].address = r->address;
    r->clouds[1] = rig->clouds[1];
    r->o.clouds = r->clouds;
    r->o.connect_ms = 2 * stall_ms;
    r->o.stall_ms = stall_ms;
    r->o.patience_ms = PATIENCE_MS;
    r->o.event = on_event;
    r->o.event_ctx = r;
}

static int run_open(struct run *r) {
    const struct session_opts o = {.front = &r->rig->front,
                                   .back = &r->rig->back,
                                   .kv_type = DT_F16,
                                   .max_ctx = TOY_CTX,
                                   .max_rows = RIG_ROWS,
                                   .prefill_windows = 3};
    struct session_opts so = o;
    for (int rc = 1; rc > 0;) {
        struct err e = {0};
        double t0 = clock_ms(), limit = r->limit_ms;
        rc = remote_middle_create(&r->middle, &r->o, &e);
        r->limit_ms = r->o.connect_ms;
        if ((rc = judge(r, rc, t0, &e)) < 0)
            return -1;
        r->limit_ms = limit;
        r->told += rc > 0;
    }
    struct err e = {0};
    so.middle = r->middle;
    return session_create(&r->session, &so, &e) == 0 ? 0 : wrong(r, "%s", e.msg);
}

static void run_close(struct run *r) {
    double t0 = clock_ms();
    session_free(r->session);
    if (r->middle)
        r->middle->ops->free(r->middle);
    double ms = clock_ms() - t0;
    if (ms > SLACK_MS)
        wrong(r, "the goodbye took %.0f ms", ms);
    tap_stop(r->tap);
}

static struct said undisturbed(struct remote_rig *rig) {
    struct run r;
    run_init(&r, rig, tap_start(cloud_port(rig->cloud[0].cloud), rig->cloud[0].id, rig->client));
    cr_assert(run_open(&r) == 0 && talk(&r) == 0, "%s", r.why);
    cr_assert(r.told == 0 && r.failed == 0);
    run_close(&r);
    cr_assert_str_empty(r.why);
    return r.said;
}

/* ---- the points ---- */

static bool is_window(const uint8_t *p, size_t n) { /* of decoding */
    return n > 12 && p[10] == 1 && p[11] == 0;
}
static bool is_commit(const uint8_t *p, size_t n) { /* the context only */
    return n > 11 && p[10] == 0 && p[11] == 0;
}
static bool is_rewind(const uint8_t *p, size_t n) {
    return n > 4 && p[4] & 1;
}
static bool is_row(const uint8_t *p, size_t n) {
    return n > 8 && p[6] == 1 && p[7] == 0;
}

/* TLS records of a handshake, and the one behind them. */
enum { UP = 1, DOWN = 0, HANDSHAKE_UP = 6, HANDSHAKE_DOWN = 8 };

static const struct tap_point connecting[] = {
    {0, UP, TAP_CONNECT, 1, TAP_BEFORE, NULL},    {0, UP, WIRE_HELLO, 1, TAP_BEFORE, NULL},
    {0, UP, WIRE_HELLO, 1, TAP_HALF, NULL},       {0, UP, WIRE_HELLO, 1, TAP_AFTER, NULL},
    {0, DOWN, WIRE_WELCOME, 1, TAP_BEFORE, NULL}, {0, DOWN, WIRE_WELCOME, 1, TAP_HALF, NULL},
    {0, DOWN, WIRE_WELCOME, 1, TAP_AFTER, NULL},
};

static const struct tap_point talking[] = {
    /* prefill: the first window, one behind others, their results */
    {0, UP, WIRE_SUBMIT, 1, TAP_BEFORE, NULL},
    {0, UP, WIRE_SUBMIT, 1, TAP_HALF, NULL},
    {0, UP, WIRE_SUBMIT, 2, TAP_HALF, NULL},
    {0, UP, WIRE_SUBMIT, 3, TAP_AFTER, NULL},
    {0, DOWN, WIRE_RESULT, 1, TAP_BEFORE, NULL},
    {0, DOWN, WIRE_RESULT, 1, TAP_HALF, NULL},
    {0, DOWN, WIRE_RESULT, 2, TAP_AFTER, NULL},
    /* a change of the context alone, and one with a window */
    {0, UP, WIRE_SUBMIT, 1, TAP_BEFORE, is_commit},
    {0, UP, WIRE_SUBMIT, 1, TAP_HALF, is_commit},
    {0, UP, WIRE_SUBMIT, 1, TAP_AFTER, is_commit},
    {0, UP, WIRE_SUBMIT, 1, TAP_HALF, is_rewind},
    {0, UP, WIRE_SUBMIT, 2, TAP_AFTER, is_rewind},
    /* decoding */
    {0, UP, WIRE_SUBMIT, 1, TAP_BEFORE, is_window},
    {0, UP, WIRE_SUBMIT, 1, TAP_HALF, is_window},
    {0, UP, WIRE_SUBMIT, 2, TAP_AFTER, is_window},
    {0, DOWN, WIRE_RESULT, 1, TAP_BEFORE, is_row},
    {0, DOWN, WIRE_RESULT, 2, TAP_HALF, is_row},
    {0, DOWN, WIRE_RESULT, 2, TAP_AFTER, is_row},
    /* the question that is asked on every connection */
    {0, UP, WIRE_PING, 1, TAP_BEFORE, NULL},
    {0, UP, WIRE_PING, 1, TAP_HALF, NULL},
    {0, DOWN, WIRE_PONG, 1, TAP_BEFORE, NULL},
    {0, DOWN, WIRE_PONG, 1, TAP_HALF, NULL},
};

/* ---- many runs at once: most of them wait ---- */

struct disturbance {
    char name[160];
    struct tap_plan plans[2];
    int n_plans;
    bool idle; /* in between, with no plan */
    bool lasting;
    enum tap_fault fault;
};

struct cases {
    struct remote_rig *rig;
    struct said want;
    struct disturbance cases[MAX_CASES];
    int n;
    atomic_int next, n_wrong;
    pthread_mutex_t lock;
    char why[900];
    double longest_ms[3];
};

static const char *const fault_names[] = {"cut", "reset", "stall"}, *const part_names[] = {"before", "half of",
                                                                                           "behind"};

/* The channel's thread says this when it gets to it. */
static void await_hit(struct run *r) {
    for (double t0 = clock_ms(); tap_hits(r->tap) == 0 && clock_ms() - t0 < SLACK_MS;)
        poll(NULL, 0, 2);
}

static void break_now(struct run *r) {
    tap_break(r->tap, r->fault, r->heals);
}

static void run_case(struct cases *b, const struct disturbance *c) {
    struct run r;
    const struct toy_cloud *cloud = &b->rig->cloud[0];
    run_init(&r, b->rig, tap_start(cloud_port(cloud->cloud), cloud->id, b->rig->client));
    r.fault = c->fault;
    r.heals = c->lasting;
    int type = c->plans[0].at.type;
    r.idle = c->idle ? break_now : type == WIRE_PING || type == WIRE_PONG ? await_hit : NULL;
    if (c->lasting) {
        r.o.patience_ms = stall_ms; /* nothing gets better before it ends */
        r.limit_ms = 4 * stall_ms;
    }
    tap_plans(r.tap, c->plans, c->n_plans);
    if (run_open(&r) == 0 && talk(&r) == 0) {
        if (memcmp(&r.said, &b->want, sizeof r.said) != 0)
            wrong(&r, "the text or the logits came out otherwise");
        else if (tap_hits(r.tap) != c->n_plans + c->idle)
            wrong(&r, "%d of %d points were reached", tap_hits(r.tap), c->n_plans + c->idle);
        else if (r.told == 0)
            wrong(&r, "nobody was told");
        else if (c->lasting && r.failed == 0)
            wrong(&r, "no call gave up");
    }
    run_close(&r);
    pthread_mutex_lock(&b->lock);
    double *longest = &b->longest_ms[c->fault];
    *longest = r.longest_ms > *longest ? r.longest_ms : *longest;
    if (r.why[0] && b->n_wrong++ == 0)
        snprintf(b->why, sizeof b->why, "%s: %s", c->name, r.why);
    pthread_mutex_unlock(&b->lock);
}

static void *work(void *arg) {
    struct cases *b = arg;
    for (int i; (i = atomic_fetch_add(&b->next, 1)) < b->n;)
        run_case(b, &b->cases[i]);
    return NULL;
}

static void run_all(struct cases *b) {
    pthread_t t[WORKERS];
    pthread_mutex_init(&b->lock, NULL);
    for (int i = 0; i < WORKERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, work, b), 0);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(b->n_wrong, 0, "%d of %d; %s", b->n_wrong, b->n, b->why);
    cr_log_info("%d points; the longest call: %.0f ms when cut, %.0f ms when reset, %.0f ms when stalled", b->n,
                b->longest_ms[0], b->longest_ms[1], b->longest_ms[2]);
    pthread_mutex_destroy(&b->lock);
}

static struct disturbance *add(struct cases *b, const struct tap_point *at, enum tap_fault fault) {
    struct disturbance *c = &b->cases[b->n++];
    cr_assert_lt(b->n, MAX_CASES);
    *c = (struct disturbance){.plans = {{.at = *at, .fault = fault}}, .n_plans = 1, .fault = fault};
    snprintf(c->name, sizeof c->name, "%s %s %s %s %d", fault_names[fault], part_names[at->part],
             at->up ? "up" : "down",
             at->type == TAP_CONNECT  ? "connect"
             : at->type == TAP_RECORD ? "TLS record"
                                      : wire_type_name(at->type),
             at->nth);
    return c;
}

/* The same again on a connection that replaces one which was reset in the midst of decoding. */
static void on_the_next(struct disturbance *c) {
    c->plans[1] = c->plans[0];
    c->plans[1].at.conn = 1;
    c->plans[0] = (struct tap_plan){.at = {0, UP, WIRE_SUBMIT, 1, TAP_AFTER, is_window}, .fault = TAP_RESET};
    c->n_plans = 2;
    strncat(c->name, " of the second connection", sizeof c->name - strlen(c->name) - 1);
}

static void begin(struct cases *b, struct remote_rig *rig) {
    remote_rig_init(rig);
    toy_cloud_stop(rig, 0);
    rig->cloud[0].o.batch.max_sessions = 64;
    rig->cloud[0].o.batch.kv_bytes = 16 << 20;
    toy_cloud_start(rig, 0);
    stall_ms = remote_rig_patience(rig);
    *b = (struct cases){.rig = rig, .want = undisturbed(rig)};
}

static struct cases all;

/* TCP, every record of the TLS handshake, HELLO, WELCOME: of the first connection and of the one after it. */
static void connecting_breaks(bool next) {
    struct remote_rig rig;
    begin(&all, &rig);
    for (enum tap_fault f = TAP_CUT; f <= TAP_STALL; f++) {
        for (size_t i = 0; i < sizeof connecting / sizeof *connecting; i++) {
            struct disturbance *c = add(&all, &connecting[i], f);
            if (next)
                on_the_next(c);
        }
        for (int i = 0; i < HANDSHAKE_UP + HANDSHAKE_DOWN; i++) {
            bool up = i < HANDSHAKE_UP;
            const struct tap_point at = {0, up, TAP_RECORD, up ? i + 1 : i + 1 - HANDSHAKE_UP, TAP_HALF, NULL};
            struct disturbance *c = add(&all, &at, f);
            if (next)
                on_the_next(c);
        }
    }
    run_all(&all);
    remote_rig_free(&rig);
}

Test(remote_states, the_first_connection_breaks, .timeout = 300) {
    connecting_breaks(false);
}

Test(remote_states, the_connection_after_a_loss_breaks_too, .timeout = 300) {
    connecting_breaks(true);
}

Test(remote_states, the_conversation_breaks, .timeout = 300) {
    struct remote_rig rig;
    begin(&all, &rig);
    for (enum tap_fault f = TAP_CUT; f <= TAP_STALL; f++) {
        for (size_t i = 0; i < sizeof talking / sizeof *talking; i++)
            add(&all, &talking[i], f);
        struct disturbance *c = add(&all, &talking[0], f);
        c->n_plans = 0;
        c->idle = true;
        snprintf(c->name, sizeof c->name, "%s between two turns", fault_names[f]);
    }
    run_all(&all);
    remote_rig_free(&rig);
}

/* Nothing gets through any more, until patience is over and a call gives up; the same call again goes on. */
Test(remote_states, patience_ends_and_the_call_is_repeated, .timeout = 300) {
    struct remote_rig rig;
    begin(&all, &rig);
    for (size_t i = 0; i < sizeof talking / sizeof *talking; i++) {
        if (talking[i].type == WIRE_PING || talking[i].type == WIRE_PONG)
            continue;
        struct disturbance *c = add(&all, &talking[i], TAP_STALL);
        c->lasting = c->plans[0].lasting = true;
        strncat(c->name, " and stays so", sizeof c->name - strlen(c->name) - 1);
    }
    struct disturbance *c = add(&all, &talking[0], TAP_STALL);
    c->n_plans = 0;
    c->idle = c->lasting = true;
    run_all(&all);
    remote_rig_free(&rig);
}
