/* The connection breaks where it matters less for the text: while the client says goodbye, while a cloud that goes away
 * says so, in an audit, which must then be called unfinished and never a lie; and it stays away for longer than the
 * session lives, which must cost no more than computing again. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "test/unit/remote_rig.h"
#include "test/unit/tap_rig.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLACK_MS = 10000, WAIT_MS = 30000, UP = 1, DOWN = 0 };

static const char *const fault_names[] = {"cut", "reset", "stall"}, *const part_names[] = {"before", "half", "behind"};

static uint32_t stall_ms; /* remote_rig_patience */

/* A rig whose first cloud is behind a tap. */
struct tapped {
    struct remote_rig rig;
    struct tap *tap;
    char address[40];
};

static void tapped_open(struct tapped *t, const struct tap_point *at, enum tap_fault fault) {
    struct remote_rig *r = &t->rig;
    const struct tap_plan plan = {.at = *at, .fault = fault};
    t->tap = tap_start(cloud_port(r->cloud[0].cloud), r->cloud[0].id, r->client);
    tap_plans(t->tap, &plan, 1);
    snprintf(t->address, sizeof t->address, "127.0.0.1:%u", tap_port(t->tap));
    r->clouds[0].address = t->address;
    r->o.connect_ms = 2 * stall_ms;
    r->o.stall_ms = stall_ms;
    r->o.patience_ms = 5 * stall_ms;
    memset(r->events, 0, sizeof r->events);
}

static void await_hit(struct tap *t) {
    for (double t0 = clock_ms(); tap_hits(t) == 0; poll(NULL, 0, 2))
        cr_assert_lt(clock_ms() - t0, WAIT_MS, "the point was not reached");
}

static void served(struct remote_rig *r) {
    uint32_t said[TOY_SAID];
    remote_rig_connect(r);
    toy_converse(r->session, 0, said);
    remote_rig_disconnect(r);
}

/* ---- BYE ---- */

Test(remote_ends, the_goodbye_breaks) {
    static struct tapped t;
    remote_rig_init(&t.rig);
    stall_ms = remote_rig_patience(&t.rig);
    for (enum tap_fault f = TAP_CUT; f <= TAP_STALL; f++)
        for (enum tap_part p = TAP_BEFORE; p <= TAP_AFTER; p++) {
            uint32_t said[TOY_SAID];
            tapped_open(&t, &(struct tap_point){0, UP, WIRE_BYE, 1, p, NULL}, f);
            remote_rig_connect(&t.rig);
            toy_converse(t.rig.session, 0, said);
            double t0 = clock_ms();
            remote_rig_disconnect(&t.rig);
            cr_assert_lt(clock_ms() - t0, SLACK_MS, "%s %s", fault_names[f], part_names[p]);
            await_hit(t.tap);
            served(&t.rig); /* the cloud, on another connection */
            tap_stop(t.tap);
        }
    remote_rig_free(&t.rig);
}

/* ---- the notice of a cloud that goes away ---- */

static void end_cloud(struct toy_cloud *c, double began) {
    pthread_join(c->thread, NULL);
    cr_assert_lt(clock_ms() - began, WAIT_MS);
    cloud_free(c->cloud);
    c->cloud = NULL;
}

static void notice_breaks(enum tap_fault f) {
    static struct tapped t;
    struct remote_rig *r = &t.rig;
    uint32_t tokens[TOY_CTX];
    toy_fill(tokens, TOY_CTX, 5);
    remote_rig_init(r);
    stall_ms = remote_rig_patience(r);
    r->o.n_clouds = 2;
    for (enum tap_part p = TAP_BEFORE; p <= TAP_AFTER; p++) {
        struct err e = {0};
        tapped_open(&t, &(struct tap_point){0, DOWN, WIRE_ERROR, 1, p, NULL}, f);
        remote_rig_connect(r);
        cr_assert_eq(session_feed(r->session, tokens, 50, NULL, NULL, &e), 0, "%s", e.msg);
        double t0 = clock_ms();
        cloud_stop(r->cloud[0].cloud, 200);
        await_hit(t.tap);
        double t1 = clock_ms();
        cr_assert_eq(session_advance(r->session, tokens[50], &e), 0, "%s %s: %s", fault_names[f], part_names[p], e.msg);
        cr_assert_lt(clock_ms() - t1, 6 * stall_ms + SLACK_MS);
        toy_check(r->session, tokens, 51);
        cr_assert(r->events[REMOTE_LOST] == 1 && r->events[REMOTE_SWITCHED] == 1, "%s %s", fault_names[f],
                  part_names[p]);
        remote_rig_disconnect(r);
        end_cloud(&r->cloud[0], t0); /* whatever became of its notice */
        tap_stop(t.tap);
        toy_cloud_start(r, 0);
    }
    remote_rig_free(r);
}

Test(remote_ends, the_notice_of_a_drain_is_cut) {
    notice_breaks(TAP_CUT);
}

Test(remote_ends, the_notice_of_a_drain_is_reset) {
    notice_breaks(TAP_RESET);
}

Test(remote_ends, the_notice_of_a_drain_stalls) {
    notice_breaks(TAP_STALL);
}

/* ---- audits ---- */

enum { AUDITED = 8, AUDIT_LAYER = RIG_FRONT + 1 };

/* A commitment and an opening of it: -1 and why, as remote_middle.h says. before: the last id that was used. */
static int audit(struct remote_rig *r, uint32_t before, uint8_t root[WIRE_DIGEST], struct wbuf *opening,
                 struct err *e) {
    struct node nodes[AUDITED];
    float x[AUDITED * 2], y[AUDITED * 2];
    uint32_t ids[AUDITED];
    struct middle *m = r->middle;
    for (uint32_t i = 0; i < AUDITED; i++) {
        nodes[i] = (struct node){.id = before + i + 1, .parent = i ? before + i : NODE_NONE, .pos = i};
        x[2 * i] = (float)(i * 7 + 3);
        x[2 * i + 1] = 0;
    }
    const struct window w = {.nodes = nodes, .n = AUDITED};
    struct middle_result res = {.ids = ids, .x = y, .cap = AUDITED};
    if (remote_middle_audit_next(m, e) != 0 || m->ops->submit(m, &w, x, e) != 0)
        return -1;
    int rc = m->ops->collect(m, &res, WAIT_MS, e);
    if (rc < 0)
        return -1;
    cr_assert(rc == 1 && res.n == AUDITED);
    return remote_middle_root(m, root, e) != 0 || remote_middle_challenge(m, AUDIT_LAYER, opening, WAIT_MS, e) != 0;
}

static void audit_breaks(struct tapped *t, const struct tap_point *at, enum tap_fault f, const uint8_t *want_root,
                         const struct wbuf *want) {
    struct remote_rig *r = &t->rig;
    struct err e = {0};
    struct wbuf opening = {0};
    uint8_t root[WIRE_DIGEST];
    uint32_t kept;
    char name[80];
    snprintf(name, sizeof name, "%s %s %s", fault_names[f], part_names[at->part], wire_type_name(at->type));
    tapped_open(t, at, f);
    cr_assert_eq(remote_middle_create(&r->middle, &r->o, &e), 0, "%s: %s", name, e.msg);
    double t0 = clock_ms();
    cr_assert_neq(audit(r, 0, root, &opening, &e), 0, "%s", name);
    cr_assert_eq(e.kind, ERR_IO, "%s: nobody lied, and the error is %s", name, e.msg);
    cr_assert(strstr(e.msg, t->address), "%s: %s", name, e.msg);
    cr_assert_lt(clock_ms() - t0, stall_ms + SLACK_MS, "%s", name);
    await_hit(t->tap);
    e = (struct err){0};
    cr_assert_eq(r->middle->ops->recover(r->middle, NULL, 0, &kept, &e), 0, "%s: %s", name, e.msg);
    cr_assert_eq(r->middle->ops->rewind(r->middle, 0, NODE_NONE, &e), 0, "%s: %s", name, e.msg);
    cr_assert_eq(audit(r, AUDITED, root, &opening, &e), 0, "%s, once more: %s", name, e.msg);
    cr_assert_arr_eq(root, want_root, WIRE_DIGEST, "%s", name);
    cr_assert(opening.n == want->n && memcmp(opening.p + 4, want->p + 4, want->n - 4) == 0, "%s", name);
    wbuf_free(&opening);
    remote_rig_disconnect(r);
    tap_stop(t->tap);
}

static void audits_break(enum tap_fault f) {
    static struct tapped t;
    struct remote_rig *r = &t.rig;
    struct err e = {0};
    struct wbuf want = {0};
    uint8_t root[WIRE_DIGEST];
    const struct tap_point points[] = {
        {0, UP, WIRE_SUBMIT, 1, TAP_HALF, NULL},      {0, UP, WIRE_SUBMIT, 1, TAP_AFTER, NULL},
        {0, DOWN, WIRE_RESULT, 1, TAP_BEFORE, NULL},  {0, DOWN, WIRE_RESULT, 1, TAP_HALF, NULL},
        {0, UP, WIRE_CHALLENGE, 1, TAP_BEFORE, NULL}, {0, UP, WIRE_CHALLENGE, 1, TAP_HALF, NULL},
        {0, UP, WIRE_CHALLENGE, 1, TAP_AFTER, NULL},  {0, DOWN, WIRE_OPENING, 1, TAP_BEFORE, NULL},
        {0, DOWN, WIRE_OPENING, 1, TAP_HALF, NULL},
    };
    remote_rig_init(r);
    stall_ms = remote_rig_patience(r);
    cr_assert_eq(remote_middle_create(&r->middle, &r->o, &e), 0, "%s", e.msg);
    cr_assert_eq(audit(r, 0, root, &want, &e), 0, "%s", e.msg);
    remote_rig_disconnect(r);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        audit_breaks(&t, &points[i], f, root, &want);
    wbuf_free(&want);
    remote_rig_free(r);
}

Test(remote_ends, an_audit_is_cut) {
    audits_break(TAP_CUT);
}

Test(remote_ends, an_audit_is_reset) {
    audits_break(TAP_RESET);
}

Test(remote_ends, an_audit_stalls) {
    audits_break(TAP_STALL);
}

/* The cloud goes away in the midst of it. */
Test(remote_ends, an_audit_that_a_drain_ends) {
    struct remote_rig r;
    struct err e = {0};
    uint8_t root[WIRE_DIGEST];
    struct wbuf opening = {0};
    remote_rig_init(&r);
    cr_assert_eq(remote_middle_create(&r.middle, &r.o, &e), 0, "%s", e.msg);
    cr_assert_eq(audit(&r, 0, root, &opening, &e), 0, "%s", e.msg);
    uint64_t before = link_stats(r.link[0]).down;
    double t0 = clock_ms();
    cloud_stop(r.cloud[0].cloud, WAIT_MS);
    for (; link_stats(r.link[0]).down == before; poll(NULL, 0, 2))
        cr_assert_lt(clock_ms() - t0, WAIT_MS);
    cr_assert_neq(remote_middle_challenge(r.middle, AUDIT_LAYER, &opening, WAIT_MS, &e), 0);
    cr_assert_eq(e.kind, ERR_IO, "nobody lied, and the error is %s", e.msg);
    cr_assert(strstr(e.msg, "going away"), "%s", e.msg);
    wbuf_free(&opening);
    remote_rig_disconnect(&r);
    end_cloud(&r.cloud[0], t0);
    remote_rig_free(&r);
}

/* ---- longer than the session lives ---- */

enum { TTL_MS = 1000, IDLE_MS = 500, HALF = 50 };

static atomic_int n_expired;

static void count_expired(void *ctx, enum log_level level, const char *line) {
    (void)ctx, (void)level;
    n_expired += strstr(line, "session event=expired") != NULL;
}

static void await_expiry(void) {
    for (double t0 = clock_ms(); n_expired == 0; poll(NULL, 0, 10))
        cr_assert_lt(clock_ms() - t0, WAIT_MS, "the session did not expire");
}

/* Before there are threads. */
static void watch_log(void) {
    log_to(count_expired, NULL, LOG_INFO);
}

static void short_lived(struct remote_rig *r) {
    toy_cloud_stop(r, 0);
    r->cloud[0].o.batch.session_ttl_ms = TTL_MS;
    r->cloud[0].o.batch.idle_ms = r->cloud[0].o.idle_ms = IDLE_MS;
    toy_cloud_start(r, 0);
}

Test(remote_ends, away_until_the_session_has_expired) {
    struct remote_rig r;
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 5);
    watch_log();
    remote_rig_init(&r);
    short_lived(&r);
    remote_rig_connect(&r);
    cr_assert_eq(session_feed(r.session, t, HALF, NULL, NULL, &e), 0, "%s", e.msg);
    link_refuse(r.link[0], true);
    link_cut(r.link[0]);
    double t0 = clock_ms();
    await_expiry();
    cr_assert_geq(clock_ms() - t0, TTL_MS - 1);
    link_refuse(r.link[0], false);
    cr_assert_eq(session_advance(r.session, t[HALF], &e), 0, "%s", e.msg);
    toy_check(r.session, t, HALF + 1);
    cr_assert_eq(r.events[REMOTE_LOST], 1);
    cr_assert_eq(r.events[REMOTE_REPLAY], 1);
    cr_assert_eq(session_stats(r.session)->replayed_tokens, HALF, "nothing of it was left");
    struct remote_info info;
    remote_middle_info(r.middle, &info);
    cr_assert_eq(info.resumed, 0);
    remote_rig_free(&r);
}

/* What the stopped process and the other one tell each other. */
struct letter {
    uint16_t port;
    struct pin pin;
    bool equal;
    uint64_t replayed;
    int lost;
};

static void post(int fd, const struct letter *l) {
    cr_assert_eq(write(fd, l, sizeof *l), (ssize_t)sizeof *l);
}

static void fetch(int fd, struct letter *l) {
    cr_assert_eq(read(fd, l, sizeof *l), (ssize_t)sizeof *l, "the other process is gone");
}

static bool is_right(struct session *s, const uint32_t *tokens, int n) {
    float want[TOY_VOCAB];
    toy_expect(tokens, n, want);
    return memcmp(session_logits(s), want, sizeof want) == 0;
}

/* The client: half of the text, then whatever happens, then the other half. */
static void stopped_client(int in, int out) {
    struct remote_rig r;
    struct letter l = {0};
    struct err e = {0};
    uint32_t t[TOY_CTX];
    toy_fill(t, TOY_CTX, 5);
    remote_rig_init(&r);
    l.pin = *identity_pin(r.client);
    post(out, &l);
    fetch(in, &l);
    snprintf(r.address[0], sizeof r.address[0], "127.0.0.1:%u", l.port);
    r.clouds[0].pin = l.pin;
    remote_rig_connect(&r);
    l.equal = session_feed(r.session, t, HALF, NULL, NULL, &e) == 0 && is_right(r.session, t, HALF);
    post(out, &l);
    fetch(in, &l); /* here it is stopped */
    l.equal = session_advance(r.session, t[HALF], &e) == 0 && is_right(r.session, t, HALF + 1) &&
              session_feed(r.session, t, HALF + 40, NULL, NULL, &e) == 0 && is_right(r.session, t, HALF + 40);
    l.replayed = session_stats(r.session)->replayed_tokens;
    l.lost = r.events[REMOTE_LOST];
    post(out, &l);
}

Test(remote_ends, a_client_stopped_for_longer_than_the_session_lives) {
    int up[2], down[2];
    struct remote_rig r;
    struct letter l = {0};
    struct err e = {0};
    cr_assert(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork(); /* before there are threads */
    cr_assert_geq(child, 0);
    if (child == 0) {
        stopped_client(down[0], up[1]);
        _exit(0);
    }
    close(up[1]);
    close(down[0]);
    watch_log();
    remote_rig_init(&r);
    fetch(up[0], &l);
    toy_cloud_stop(&r, 0);
    allow_list_free(r.cloud[0].allow);
    cr_assert_eq(allow_list_create(&r.cloud[0].allow, &l.pin, 1, NULL, &e), 0, "%s", e.msg);
    r.cloud[0].o.allow = r.cloud[0].allow;
    toy_cloud_start(&r, 0);
    short_lived(&r);
    l = (struct letter){.port = cloud_port(r.cloud[0].cloud), .pin = *identity_pin(r.cloud[0].id)};
    post(down[1], &l);
    fetch(up[0], &l);
    cr_assert(l.equal);
    cr_assert_eq(kill(child, SIGSTOP), 0);
    await_expiry();
    cr_assert_eq(kill(child, SIGCONT), 0);
    post(down[1], &l);
    fetch(up[0], &l);
    cr_assert(l.equal, "another text than that of an undisturbed run");
    cr_assert_eq(l.lost, 1);
    cr_assert_eq(l.replayed, HALF);
    close(down[1]);
    close(up[0]);
    int status;
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    remote_rig_free(&r);
}
