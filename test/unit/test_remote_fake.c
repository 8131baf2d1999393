/* net/client/remote_middle against clouds that do what no good one does: refusals, other keys, frames that lie, small
 * limits. Beside them a small honest one over local_middle, for what depends on limits. */
#include "core/base/clock.h"
#include "core/model/local_middle.h"
#include "net/client/remote_middle.h"
#include "test/unit/fake_cloud.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LO = 2, HI = 5, ROWS = 16, WINDOWS = 3 };

struct client {
    struct identity *id;
    struct remote_cloud clouds[2];
    struct remote_opts o;
    struct middle *m;
    int events[REMOTE_SWITCHED + 1];
    char last[REMOTE_SWITCHED + 1][600];
    bool insists; /* what fails is asked for once more */
};

static void on_event(void *ctx, enum remote_event what, const char *text) {
    struct client *c = ctx;
    c->events[what]++;
    snprintf(c->last[what], sizeof c->last[what], "%s", text);
}

static void client_init(struct client *c, const struct fake_cloud *f) {
    struct err e = {0};
    *c = (struct client){.clouds = {{.address = f->address, .pin = *identity_pin(f->id), .has_pin = true}}};
    cr_assert_eq(identity_ephemeral(&c->id, &e), 0);
    c->o = (struct remote_opts){.id = c->id,
                                .clouds = c->clouds,
                                .n_clouds = 1,
                                .hello = {.version = WIRE_VERSION,
                                          .codec = CODEC_F32,
                                          .n_layers = TOY_LAYERS,
                                          .lo = LO,
                                          .hi = HI,
                                          .hidden = 2,
                                          .ctx = TOY_CTX,
                                          .live = session_live(ROWS, WINDOWS)},
                                .max_rows = ROWS,
                                .patience_ms = 3000,
                                .event = on_event,
                                .event_ctx = c};
}

static void client_free(struct client *c) {
    if (c->m)
        c->m->ops->free(c->m);
    c->m = NULL;
    identity_free(c->id);
}

static const struct wire_welcome plain = {.version = WIRE_VERSION,
                                          .token = {1, 2, 3},
                                          .max_rows = ROWS,
                                          .max_frame = 1 << 20,
                                          .idle_ms = 60000,
                                          .ttl_ms = 60000,
                                          .backend = "fake"};

/* ---- an honest cloud with limits and habits of its own ---- */

struct honest {
    uint32_t max_rows, max_frame;
    int piece;      /* nodes of a RESULT; 0: all */
    int error_code; /* the answer to one SUBMIT in the first connection; 0: none */
    int error_at;   /* which */
    struct stage stage;
    int biggest;            /* nodes of a SUBMIT that came */
    int submits, changes;   /* with nodes; without */
    bool said_bye, resumes; /* resumes: the last HELLO asked for a session */
};

static bool answer(struct honest *h, struct fake_conn *c, struct middle *m, const struct wire_submit *s,
                   struct wbuf *out) {
    struct node nodes[256];
    float x[2 * 256];
    uint32_t ids[256];
    struct err e = {0};
    bool ok = !s->rewind || m->ops->rewind(m, s->rewind_len, s->rewind_head, &e) == 0;
    for (int i = 0; i < s->n_commit && ok; i++) {
        uint32_t id = wire_id(s->commit, i);
        ok = m->ops->commit(m, &id, 1, &e) == 0;
    }
    for (int i = 0; i < s->n_cancel; i++)
        m->ops->cancel(m, wire_id(s->cancel, i), &e);
    h->submits += s->n_nodes > 0;
    h->changes += s->n_nodes == 0;
    if (!ok || s->n_nodes > 256)
        return false;
    if (s->n_nodes == 0)
        return true;
    h->biggest = s->n_nodes > h->biggest ? s->n_nodes : h->biggest;
    for (int i = 0; i < s->n_nodes; i++)
        nodes[i] = wire_node(s->nodes, i);
    codec_decode(CODEC_F32, s->x, s->n_nodes, 2, x);
    const struct window w = {.nodes = nodes, .n = s->n_nodes};
    struct middle_result r = {.ids = ids, .x = x, .cap = 256};
    if (m->ops->submit(m, &w, x, &e) != 0 || m->ops->collect(m, &r, -1, &e) != 1)
        return false;
    int at = 0;
    do {
        int n = h->piece && r.n - at > h->piece ? h->piece : r.n - at;
        const struct wire_result v = {.seq = s->seq, .last = at + n == r.n, .n = n, .compute_us = 1500};
        wire_put_result(out, &v, ids + at, CODEC_F32, 2, x + 2 * at, NULL);
        at += n;
    } while (at < r.n);
    return fake_flush(c, out);
}

static void serve_honest(struct fake_conn *c, void *ctx) {
    struct honest *h = ctx;
    struct wire_welcome m = plain;
    struct wire_hello hello;
    struct wbuf b = {0}, out = {0};
    struct middle *middle = NULL;
    struct err e = {0};
    int type, n = 0;
    m.max_rows = h->max_rows;
    m.max_frame = h->max_frame;
    h->stage = (struct stage){&toy_ops, &toy_config, {.lo = LO, .hi = HI}};
    if (fake_welcome(c, &hello, &m) &&
        local_middle_create(&middle, &h->stage, DT_F16, hello.ctx, hello.live, 256, NULL, NULL, &e) == 0) {
        h->resumes = hello.token[0] != 0;
        while (fake_read(c, &type, &b)) {
            struct wire_submit s;
            uint64_t any;
            if (b.n + 1 > h->max_frame)
                break;
            if (type == WIRE_PING && wire_get_ping(b.p, b.n, &any, &e) == 0) {
                wire_put_ping(&out, true, any);
                fake_flush(c, &out);
                continue;
            }
            h->said_bye = type == WIRE_BYE;
            if (type != WIRE_SUBMIT || wire_get_submit(b.p, b.n, 8, &s, &e) != 0)
                break;
            if (h->error_code && c->number == 0 && ++n == h->error_at) {
                wire_put_error(&out, (enum wire_code)h->error_code, "a text for people");
                fake_flush(c, &out);
                while (fake_read(c, &type, &b)) /* a reset would overtake the ERROR */
                    ;
                break;
            }
            if (!answer(h, c, middle, &s, &out))
                break;
        }
    }
    if (middle)
        middle->ops->free(middle);
    wbuf_free(&b);
    wbuf_free(&out);
}

/* A conversation; 0, or -1 with e from the first call that failed. */
static int talk(struct client *c, uint32_t *said, struct err *e) {
    struct stage front = {&toy_ops, &toy_config, {.lo = 0, .hi = LO, .embed = true}};
    struct stage back = {&toy_ops, &toy_config, {.lo = HI, .hi = TOY_LAYERS, .head = true}};
    struct session *s;
    if (remote_middle_create(&c->m, &c->o, e) != 0)
        return -1;
    const struct session_opts so = {.front = &front,
                                    .back = &back,
                                    .middle = c->m,
                                    .kv_type = DT_F16,
                                    .max_ctx = TOY_CTX,
                                    .max_rows = ROWS,
                                    .prefill_windows = WINDOWS};
    cr_assert_eq(session_create(&s, &so, e), 0);
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 3);
    int rc = session_feed(s, t, 20, NULL, NULL, e);
    if (rc != 0 && c->insists) {
        *e = (struct err){0};
        rc = session_feed(s, t, 20, NULL, NULL, e);
    }
    if (rc == 0) {
        session_reset(s);
        toy_converse(s, 0, said);
    }
    session_free(s);
    return rc;
}

Test(remote_fake, small_limits_and_pieces) {
    static const struct honest kinds[] = {{.max_rows = 1, .max_frame = 1024},
                                          {.max_rows = 5, .max_frame = 1024, .piece = 2},
                                          {.max_rows = 16, .max_frame = 1 << 20, .piece = 1},
                                          {.max_rows = 64, .max_frame = 1024, .piece = 3}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct honest h = kinds[i];
        struct fake_cloud f = {.serve = serve_honest, .ctx = &h};
        struct client c;
        uint32_t said[TOY_SAID];
        struct err e = {0};
        fake_cloud_start(&f);
        client_init(&c, &f);
        cr_assert_eq(talk(&c, said, &e), 0, "%s", e.msg);
        cr_assert_eq(c.events[REMOTE_LOST], 0, "%s", c.last[REMOTE_LOST]);
        client_free(&c);
        fake_cloud_stop(&f);
        cr_assert_leq(h.biggest, (int)h.max_rows);
        cr_assert_leq(h.changes, 3, "changes ride on windows, not alone: %d", h.changes);
        cr_assert(h.said_bye);
    }
}

/* ---- refusals ---- */

static bool try_again(int code) {
    return code == WIRE_E_PROTOCOL || code == WIRE_E_FULL || code == WIRE_E_DRAINING || code == WIRE_E_FAILED ||
           code == WIRE_E_IDLE || code > WIRE_E_IDLE;
}

Test(remote_fake, errors_in_mid_answer) {
    for (int code = WIRE_E_PROTOCOL; code <= WIRE_E_IDLE + 1; code++)
        for (int at = 1; at <= 3; at += 2) {
            struct honest h = {.max_rows = 16, .max_frame = 4096, .error_code = code, .error_at = at};
            struct fake_cloud f = {.serve = serve_honest, .ctx = &h};
            struct client c;
            uint32_t said[TOY_SAID];
            struct err e = {0};
            fake_cloud_start(&f);
            client_init(&c, &f);
            double t0 = clock_ms();
            if (at == 3 && !try_again(code)) /* talk asserts behind its first feed */
                goto next;
            int rc = talk(&c, said, &e);
            cr_assert_eq(rc == 0, try_again(code), "code %d: %s", code, e.msg);
            cr_assert_eq(c.events[REMOTE_LOST], 1);
            if (rc != 0) {
                cr_assert_eq(e.kind, code == WIRE_E_TAKEN_OVER ? ERR_IO : ERR_PEER);
                cr_assert(strstr(e.msg, "a text for people") && strstr(e.msg, f.address), "%s", e.msg);
                cr_assert_lt(clock_ms() - t0, 2500, "no waiting where it cannot help");
            }
        next:
            client_free(&c);
            fake_cloud_stop(&f);
        }
}

/* Nobody goes on by itself with a session that somebody else has; who asks again gets a new one. */
Test(remote_fake, taken_over_and_asked_again) {
    struct honest h = {.max_rows = 16, .max_frame = 4096, .error_code = WIRE_E_TAKEN_OVER, .error_at = 1};
    struct fake_cloud f = {.serve = serve_honest, .ctx = &h};
    struct client c;
    uint32_t said[TOY_SAID];
    struct err e = {0};
    fake_cloud_start(&f);
    client_init(&c, &f);
    c.insists = true;
    cr_assert_eq(talk(&c, said, &e), 0, "%s", e.msg);
    cr_assert_eq(c.events[REMOTE_REPLAY] + c.events[REMOTE_RESUMED], 1);
    client_free(&c);
    fake_cloud_stop(&f);
    cr_assert_not(h.resumes, "that session is not ours any more");
}

static void serve_refusal(struct fake_conn *c, void *ctx) {
    struct wbuf b = {0};
    int type;
    if (fake_read(c, &type, &b)) {
        wbuf_clear(&b);
        wire_put_error(&b, *(enum wire_code *)ctx, "the models differ: 32 and 40 layers");
        fake_flush(c, &b);
        fake_read(c, &type, &b);
    }
    wbuf_free(&b);
}

Test(remote_fake, a_refusal_is_passed_on) {
    enum wire_code code = WIRE_E_MODEL;
    struct fake_cloud f = {.serve = serve_refusal, .ctx = &code};
    struct client c;
    struct err e = {0};
    fake_cloud_start(&f);
    client_init(&c, &f);
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), -1);
    cr_assert_eq(e.kind, ERR_PEER);
    cr_assert(strstr(e.msg, "32 and 40 layers") && strstr(e.msg, f.address), "%s", e.msg);
    client_free(&c);
    fake_cloud_stop(&f);
}

/* ---- pins ---- */

Test(remote_fake, pins) {
    char home[] = "/tmp/test_remote_XXXXXX", path[80], text[PIN_TEXT], other[PIN_TEXT];
    struct honest h = {.max_rows = 16, .max_frame = 4096};
    struct fake_cloud f = {.serve = serve_honest, .ctx = &h};
    struct client c;
    struct err e = {0};
    struct pin pin;
    bool found;
    cr_assert(mkdtemp(home));
    chmod(home, 0700);
    fake_cloud_start(&f);
    client_init(&c, &f);
    pin_format(identity_pin(f.id), text);
    pin_format(identity_pin(c.id), other);

    c.clouds[0].pin = *identity_pin(c.id); /* of somebody else */
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), -1);
    cr_assert_eq(e.kind, ERR_CRYPTO);
    cr_assert(strstr(e.msg, text) && strstr(e.msg, other) && strstr(e.msg, f.address), "%s", e.msg);

    e = (struct err){0};
    c.clouds[0].has_pin = false; /* and nothing is remembered */
    c.o.home = home;
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), -1);
    cr_assert_eq(e.kind, ERR_CRYPTO);
    cr_assert(strstr(e.msg, "--pin") && strstr(e.msg, "--trust-on-first-use"), "%s", e.msg);

    e = (struct err){0};
    c.clouds[0].trust_first = true;
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
    c.m->ops->free(c.m);
    c.m = NULL;
    cr_assert_eq(known_cloud_find(home, f.address, &pin, &found, &e), 0);
    cr_assert(found && pin_equal(&pin, identity_pin(f.id)));
    c.clouds[0].trust_first = false;
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "remembered: %s", e.msg);

    c.m->ops->free(c.m);
    c.m = NULL;
    snprintf(path, sizeof path, "%s/known_clouds", home);
    unlink(path);
    cr_assert_eq(known_cloud_add(home, f.address, identity_pin(c.id), &e), 0, "%s", e.msg);
    c.clouds[0].trust_first = true; /* which is not for this */
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), -1);
    cr_assert_eq(e.kind, ERR_CRYPTO);
    cr_assert(strstr(e.msg, "HAS CHANGED") && strstr(e.msg, text) && strstr(e.msg, other) && strstr(e.msg, path), "%s",
              e.msg);
    client_free(&c);
    fake_cloud_stop(&f);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -r %s", home);
    cr_assert_eq(system(cmd), 0);
}

/* ---- a hostile cloud ---- */

struct lie {
    void (*make)(struct wbuf *out, const struct wire_submit *s, uint32_t seed);
    const char *says; /* what the client has to say about it */
    uint32_t seed;
    struct wire_welcome welcome;
};

static void serve_lie(struct fake_conn *c, void *ctx) {
    struct lie *l = ctx;
    struct wire_hello hello;
    struct wbuf b = {0}, out = {0};
    struct err e = {0};
    int type;
    if (fake_welcome(c, &hello, &l->welcome))
        while (fake_read(c, &type, &b)) {
            struct wire_submit s;
            if (type != WIRE_SUBMIT || wire_get_submit(b.p, b.n, 8, &s, &e) != 0 || !l->make)
                continue;
            l->make(&out, &s, l->seed++);
            fake_flush(c, &out);
        }
    wbuf_free(&b);
    wbuf_free(&out);
}

static void put(struct wbuf *out, const struct wire_submit *s, int n, uint32_t first, float value, bool last,
                const uint8_t *root) {
    uint32_t ids[64];
    float x[128];
    const struct wire_result v = {.seq = s->seq, .last = last, .n = n, .has_root = root != NULL};
    for (int i = 0; i < n; i++) {
        ids[i] = first + (uint32_t)i;
        x[2 * i] = value;
        x[2 * i + 1] = 0;
    }
    wire_put_result(out, &v, ids, CODEC_F32, 2, x, root);
}

static void lie_more(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)seed;
    put(out, s, s->n_nodes, 1, 1, false, NULL);
    put(out, s, 1, 1, 1, true, NULL);
}
static void lie_twice(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)seed;
    put(out, s, s->n_nodes, 1, 1, true, NULL);
    put(out, s, s->n_nodes, 1, 1, true, NULL);
}
static void lie_stranger(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)seed;
    put(out, s, 1, 1000, 1, true, NULL);
}
static void lie_seq(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)seed;
    struct wire_submit other = *s;
    other.seq += 5;
    put(out, &other, 1, 1, 1, true, NULL);
}
static void lie_root(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    static const uint8_t root[WIRE_DIGEST];
    (void)seed;
    put(out, s, 1, 1, 1, true, root);
}
static void lie_nan(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)seed;
    put(out, s, 1, 1, 1, true, NULL);
    memset(out->p + out->n - 8, 0xff, 4); /* the writer would not do it */
}
static void lie_opening(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    static const float x[4];
    static const uint8_t leaves[2 * WIRE_DIGEST];
    const struct wire_opening o = {.seq = s->seq, .layer = 2, .n_leaves = 2, .n_rows = 1, .leaves = leaves};
    (void)seed;
    wire_put_opening(out, &o, 2, x, x);
}
static void lie_hello(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)s, (void)seed;
    wire_put_bye(out);
}
static void lie_length(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)s, (void)seed;
    wbuf_u32(out, 0x7fffffff);
    wbuf_u8(out, WIRE_RESULT);
}
static void lie_short(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    (void)s, (void)seed;
    wbuf_u32(out, 3);
    wbuf_u8(out, WIRE_RESULT);
    wbuf_u16(out, 1);
}

/* Sends a window and takes what comes: the answers that there were, or -1 with e. */
static int one_window(struct client *c, struct err *e) {
    const struct node nodes[] = {{1, 0, 0}, {2, 1, 1}, {3, 2, 2}};
    const struct window w = {.nodes = nodes, .n = 3};
    float x[6] = {1, 2, 3, 4, 5, 6}, y[2 * ROWS];
    uint32_t ids[ROWS];
    int answers = 0;
    if (c->m->ops->submit(c->m, &w, x, e) != 0)
        return -1;
    for (;;) {
        struct middle_result r = {.ids = ids, .x = y, .cap = ROWS};
        int rc = c->m->ops->collect(c->m, &r, 300, e);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return answers;
        cr_assert_leq(r.n, 3);
        answers++;
    }
}

Test(remote_fake, lies_are_refused) {
    static const struct lie lies[] = {
        {.make = lie_more, .says = "have 4 nodes, it had 3"}, {.make = lie_twice, .says = "not in flight"},
        {.make = lie_stranger, .says = "names node 1000"},    {.make = lie_seq, .says = "SUBMIT 6"},
        {.make = lie_root, .says = "has a commitment"},       {.make = lie_nan, .says = "not finite"},
        {.make = lie_opening, .says = "not asked for"},       {.make = lie_hello, .says = "BYE"},
        {.make = lie_length, .says = "above the limit"},      {.make = lie_short, .says = "too short"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct lie l = lies[i];
        l.welcome = plain;
        struct fake_cloud f = {.serve = serve_lie, .ctx = &l};
        struct client c;
        struct err e = {0};
        uint32_t kept;
        fake_cloud_start(&f);
        client_init(&c, &f);
        for (int again = 0; again < 2; again++) {
            if (!c.m)
                cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
            int rc = one_window(&c, &e);
            if (rc >= 0) /* the answer was right, what came behind it not */
                rc = c.m->ops->cancel(c.m, 77, &e);
            cr_assert_eq(rc, -1, "lie %zu", i);
            cr_assert_eq(e.kind, ERR_PEER, "%s", e.msg);
            cr_assert(strstr(e.msg, l.says), "lie %zu: %s", i, e.msg);
            e = (struct err){0};
            cr_assert_eq(c.m->ops->commit(c.m, (uint32_t[]){1}, 1, &e), -1, "until it recovers");
            e = (struct err){0};
            rc = c.m->ops->recover(c.m, NULL, 0, &kept, &e);
            if (l.make == lie_twice || l.make == lie_more) /* they gave an answer between the breaches */
                break;
            cr_assert_eq(rc, again ? -1 : 0, "once is an accident; lie %zu, time %d", i, again);
            cr_assert(rc == 0 || strstr(e.msg, l.says), "%s", e.msg);
            e = (struct err){0};
        }
        client_free(&c);
        fake_cloud_stop(&f);
    }
}

Test(remote_fake, welcomes_that_make_no_sense) {
    struct wire_welcome bad[4] = {plain, plain, plain, plain};
    bad[0].version = 2;
    bad[1].max_rows = 0;
    bad[2].max_frame = 100;
    bad[3].resumed = true;
    bad[3].len = bad[3].head = TOY_CTX + 1;
    for (int i = 0; i < 4; i++) {
        struct lie l = {.welcome = bad[i]};
        struct fake_cloud f = {.serve = serve_lie, .ctx = &l};
        struct client c;
        struct err e = {0};
        fake_cloud_start(&f);
        client_init(&c, &f);
        cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), -1);
        cr_assert_eq(e.kind, ERR_PEER, "%s", e.msg);
        client_free(&c);
        fake_cloud_stop(&f);
    }
}

/* Right answers with some bytes changed, and noise. */
static void lie_at_random(struct wbuf *out, const struct wire_submit *s, uint32_t seed) {
    uint32_t r = seed * 2654435761u + 1;
    if (toy_rnd(&r) % 4 == 0) {
        int n = (int)(toy_rnd(&r) % 3000);
        for (int i = 0; i < n; i++)
            wbuf_u8(out, (uint8_t)toy_rnd(&r));
        return;
    }
    wire_put_ping(out, toy_rnd(&r) % 2, toy_rnd(&r));
    put(out, s, 1, 1, 1, false, NULL);
    put(out, s, 2, 2, 1, true, NULL);
    for (int i = (int)(toy_rnd(&r) % 4); i > 0; i--)
        out->p[toy_rnd(&r) % out->n] ^= (uint8_t)(1u << toy_rnd(&r) % 8);
    if (toy_rnd(&r) % 4 == 0)
        out->n -= toy_rnd(&r) % out->n;
}

static size_t in_use(void) {
    return mallinfo2().uordblks + mallinfo2().hblkhd;
}

Test(remote_fake, ten_thousand_random_frames) {
    struct lie l = {.make = lie_at_random, .welcome = plain};
    struct fake_cloud f = {.serve = serve_lie, .ctx = &l};
    struct client c;
    struct err e = {0};
    size_t before = 0;
    uint32_t kept, frames = 0;
    int refused = 0;
    fake_cloud_start(&f);
    client_init(&c, &f);
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
    for (int i = 0; frames < 10000; i++) {
        const struct node nodes[] = {{1, 0, 0}, {2, 1, 1}, {3, 2, 2}};
        const struct window w = {.nodes = nodes, .n = 3};
        float x[6] = {0}, y[2 * ROWS];
        uint32_t ids[ROWS];
        struct middle_result r = {.ids = ids, .x = y, .cap = ROWS};
        int rc = 0;
        e = (struct err){0};
        for (int k = 0; k < 40 && rc == 0; k++, frames++) /* what it answers to these comes as it likes */
            rc = c.m->ops->submit(c.m, &w, x, &e);
        for (int k = 0; k < 80 && rc >= 0; k++)
            rc = c.m->ops->collect(c.m, &r, 20, &e);
        if (rc < 0) {
            refused++;
            cr_assert_neq(e.kind, ERR_NONE);
        }
        e = (struct err){0};
        if (c.m->ops->recover(c.m, NULL, 0, &kept, &e) != 0) { /* it was given up: begin again */
            c.m->ops->free(c.m);
            c.m = NULL;
            e = (struct err){0};
            cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
        }
        if (i == 30)
            before = in_use();
    }
    cr_assert_gt(refused, 100);
    cr_assert_lt(in_use(), before + (1 << 20), "memory grew from %zu to %zu", before, in_use());
    client_free(&c);
    fake_cloud_stop(&f);
}

/* ---- commitments ---- */

static const uint8_t the_root[WIRE_DIGEST] = {9, 8, 7};

static void serve_audit(struct fake_conn *c, void *ctx) {
    struct wire_hello hello;
    struct wbuf b = {0}, out = {0};
    struct err e = {0};
    int type;
    (void)ctx;
    if (fake_welcome(c, &hello, &plain))
        while (fake_read(c, &type, &b)) {
            static const float x[6] = {1, 2, 3, 4, 5, 6};
            static const uint8_t leaves[4 * WIRE_DIGEST] = {5};
            struct wire_submit s;
            uint32_t seq;
            uint16_t layer;
            if (type == WIRE_SUBMIT && wire_get_submit(b.p, b.n, 8, &s, &e) == 0)
                put(&out, &s, s.n_nodes, wire_node(s.nodes, 0).id, 1, true, s.audit ? the_root : NULL);
            else if (type == WIRE_CHALLENGE && wire_get_challenge(b.p, b.n, &seq, &layer, &e) == 0) {
                const struct wire_opening o = {
                    .seq = seq, .layer = layer, .n_leaves = 4, .n_rows = 3, .leaves = leaves};
                wire_put_opening(&out, &o, 2, x, x);
            }
            fake_flush(c, &out);
        }
    wbuf_free(&b);
    wbuf_free(&out);
}

Test(remote_fake, a_commitment_and_its_opening) {
    struct fake_cloud f = {.serve = serve_audit};
    struct client c;
    struct err e = {0};
    uint8_t root[WIRE_DIGEST];
    struct wbuf b = {0};
    struct wire_opening o;
    fake_cloud_start(&f);
    client_init(&c, &f);
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
    cr_assert_eq(remote_middle_root(c.m, root, &e), -1);
    e = (struct err){0};
    cr_assert_eq(remote_middle_challenge(c.m, 3, &b, 1000, &e), -1);
    e = (struct err){0};
    cr_assert_eq(remote_middle_audit_next(c.m, &e), 0);
    cr_assert_eq(one_window(&c, &e), 1, "%s", e.msg);
    cr_assert_eq(remote_middle_root(c.m, root, &e), 0, "%s", e.msg);
    cr_assert_arr_eq(root, the_root, sizeof root);
    for (uint16_t layer = 2; layer < 4; layer++) {
        cr_assert_eq(remote_middle_challenge(c.m, layer, &b, 20000, &e), 0, "%s", e.msg);
        cr_assert_eq(wire_get_opening(b.p, b.n, 2, &o, &e), 0, "%s", e.msg);
        cr_assert_eq(o.layer, layer);
    }
    cr_assert_eq(c.m->ops->rewind(c.m, 0, 0, &e), 0);
    cr_assert_eq(remote_middle_challenge(c.m, 3, &b, 1000, &e), -1, "it was taken back");
    wbuf_free(&b);
    client_free(&c);
    fake_cloud_stop(&f);
}

/* ---- an upload that takes longer than a link may be silent ---- */

static void serve_slowly(struct fake_conn *c, void *ctx) {
    struct wire_hello hello;
    size_t n, all = 0;
    (void)ctx;
    if (fake_welcome(c, &hello, &plain))
        while (fake_some(c, &n)) {
            const struct wire_submit s = {.seq = 1};
            struct wbuf out = {0};
            poll(NULL, 0, 20);
            if ((all += n) < 1500000)
                continue;
            put(&out, &s, 0, 0, 0, true, NULL);
            fake_flush(c, &out);
            wbuf_free(&out);
            all = 0;
        }
}

Test(remote_fake, a_slow_upload_is_a_sign_of_life) {
    enum { HIDDEN = 32768, N = 12 }; /* 1.5 MB in f32, of which a receiver takes 16 KB at a time */
    struct fake_cloud f = {.serve = serve_slowly, .rcvbuf = 8192};
    struct node nodes[N];
    struct client c;
    struct err e = {0};
    uint32_t ids[ROWS];
    float *x = calloc((size_t)ROWS * HIDDEN, sizeof *x);
    fake_cloud_start(&f);
    client_init(&c, &f);
    c.o.hello.hidden = HIDDEN;
    c.o.stall_ms = 600;
    cr_assert_eq(remote_middle_create(&c.m, &c.o, &e), 0, "%s", e.msg);
    for (uint32_t i = 0; i < N; i++)
        nodes[i] = (struct node){i + 1, i, i};
    const struct window w = {.nodes = nodes, .n = N};
    struct middle_result r = {.ids = ids, .x = x, .cap = ROWS};
    double t0 = clock_ms();
    cr_assert_eq(c.m->ops->submit(c.m, &w, x, &e), 0, "%s", e.msg);
    int rc = c.m->ops->collect(c.m, &r, 20000, &e);
    cr_assert_eq(rc, 1, "%s after %.0f ms", e.msg, clock_ms() - t0);
    cr_assert_gt(clock_ms() - t0, 1200, "the upload has to take longer than two stalls for this to mean something");
    free(x);
    client_free(&c);
    fake_cloud_stop(&f);
}
