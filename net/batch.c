#include "net/batch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/wipe.h"
#include "net/audit_store.h"
#include "net/pass.h"
#include "net/port.h"
#include "net/sessions.h"
#include "net/submit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Frames of one port that are applied before the others have their turn. */
enum { FRAMES_PER_TURN = 64 };

/* Those who were in the last pass are likely to be back soon: waiting a little for them lets one pass serve all. */
static const double GATHER_MS = 2, GATHER_PART = 0.05;
enum { GATHER_AGAIN = 16 };

struct batch_thread {
    struct ports ports;
    pthread_t thread;
    struct batch_opts o;
    struct sessions sessions;
    struct submit_scratch scratch;
    struct pass pass;
    struct kv *kv;
    bool kv_dirty;
    int n_leaves; /* of an audit */
    struct batch_stats stats;
    double gather_until, gather_worth; /* worth: how often it brought somebody, 0 to 1 */
    uint32_t gather_missing;
    unsigned gather_skipped;
    bool gathering;
    /* under ports.lock */
    bool stop, drain, drained;
    double drain_by;
    struct batch_stats shown;
};

/* ---- what is said ---- */

/* The port's last words. Its session, if it still has one, is the caller's business. */
static void refuse(struct port *p, enum wire_code code, const char *text) {
    struct frame *f = port_frame(p);
    if (f)
        wire_put_error(&f->buf, code, text);
    port_say(p, f);
    port_end(p);
}

/* The connection and its session are over. */
static void fail(struct batch_thread *b, struct port *p, enum wire_code code, const char *text) {
    struct cloud_session *c = p->session;
    log_line(LOG_WARN, "session event=failed id=%llu peer=%s code=%d why=\"%s\"",
             c ? (unsigned long long)c->number : 0ull, p->name, (int)code, text);
    if (c) {
        submit_forget(c, &b->scratch);
        sessions_end(&b->sessions, c, "ended");
    }
    refuse(p, code, text);
}

static void say_result(struct port *p, const struct cloud_session *c, struct wire_result *r, const uint32_t *ids,
                       const float *x, int hidden, const uint8_t *root) {
    struct frame *f = port_frame(p);
    if (f)
        wire_put_result(&f->buf, r, ids, c->codec, hidden, x, root);
    port_say(p, f);
}

static void say_empty(struct port *p, const struct cloud_session *c, uint32_t seq, int hidden) {
    struct wire_result r = {.seq = seq, .last = true};
    say_result(p, c, &r, NULL, NULL, hidden, NULL);
}

/* ---- HELLO ---- */

static void turn_away(struct batch_thread *b, struct port *p, enum wire_code code, const char *text) {
    char pin[PIN_TEXT];
    pin_format(&p->pin, pin);
    b->sessions.refused++;
    log_line(LOG_INFO, "session event=refused pin=%s peer=%s code=%d why=\"%s\"", pin, p->name, (int)code, text);
    refuse(p, code, text);
}

static bool is_draining(struct batch_thread *b, double *by) {
    pthread_mutex_lock(&b->ports.lock);
    bool drain = b->drain;
    if (by)
        *by = b->drain_by;
    pthread_mutex_unlock(&b->ports.lock);
    return drain;
}

/* Rows of one SUBMIT: what a pass holds, what may be in flight, and what a frame may hold. */
static uint32_t rows_of(const struct batch_thread *b, size_t row_bytes, uint32_t live) {
    uint32_t rows = (uint32_t)b->o.max_rows < live ? (uint32_t)b->o.max_rows : live;
    rows = rows < WIRE_MAX_LIST ? rows : WIRE_MAX_LIST;
    while (rows > 1 && wire_max_frame(row_bytes, b->pass.hidden, rows, live, b->n_leaves) > WIRE_MAX_FRAME)
        rows -= rows / 16 + 1;
    return rows;
}

static void welcome(struct batch_thread *b, struct port *p, struct cloud_session *c, enum codec codec, bool resumed) {
    c->codec = codec;
    c->row_bytes = codec_row_bytes(codec, b->pass.hidden);
    c->max_rows = rows_of(b, c->row_bytes, c->live);
    size_t max_frame = wire_max_frame(c->row_bytes, b->pass.hidden, c->max_rows, c->live, b->n_leaves);
    max_frame = max_frame > WIRE_FIRST_MAX ? max_frame : WIRE_FIRST_MAX;
    max_frame = max_frame < WIRE_MAX_FRAME ? max_frame : WIRE_MAX_FRAME;
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .resumed = resumed,
                             .len = kv_table_len(c->table),
                             .head = kv_table_head(c->table),
                             .max_rows = c->max_rows,
                             .max_frame = (uint32_t)max_frame,
                             .idle_ms = b->o.idle_ms,
                             .ttl_ms = b->o.session_ttl_ms};
    memcpy(w.token, c->token, sizeof w.token);
    snprintf(w.backend, sizeof w.backend, "%s", b->o.backend_name ? b->o.backend_name : "");
    struct frame *f = port_frame(p);
    if (f)
        wire_put_welcome(&f->buf, &w);
    wipe(w.token, sizeof w.token);
    port_limit(p, (uint32_t)max_frame);
    port_say(p, f);
    sessions_log(c, resumed ? "resumed" : "created", NULL);
}

static void on_hello(struct batch_thread *b, struct port *p, const struct frame *f, double now) {
    struct err e = {0};
    struct wire_hello h;
    char text[WIRE_MAX_TEXT + 1];
    if (wire_get_hello(f->buf.p, f->buf.n, &h, &e) != 0) {
        fail(b, p, WIRE_E_PROTOCOL, e.msg);
        return;
    }
    int code = wire_match(&b->o.mine, &h, text);
    struct cloud_session *c = NULL;
    static const uint8_t zeros[WIRE_TOKEN];
    if (code == 0 && is_draining(b, NULL)) {
        code = WIRE_E_DRAINING;
        snprintf(text, sizeof text, "this cloud is going away and takes no new sessions: try later or elsewhere");
    }
    if (code == 0 && memcmp(h.token, zeros, sizeof zeros) != 0)
        c = sessions_find(&b->sessions, h.token, &p->pin);
    if (code == 0 && c && (c->ctx != h.ctx || c->live != h.live)) {
        code = WIRE_E_PROTOCOL;
        snprintf(text, sizeof text, "the session has ctx %u and live %u; it cannot go on with %u and %u", c->ctx,
                 c->live, h.ctx, h.live);
    }
    bool resumed = c != NULL;
    if (code == 0 && c) {
        struct port *before = c->port;
        if (before) {
            submit_forget(c, &b->scratch);
            sessions_detach(&b->sessions, c, now);
            sessions_log(c, "taken-over", NULL);
            refuse(before, WIRE_E_TAKEN_OVER, "another connection goes on with this session");
        }
        b->sessions.resumed++;
        sessions_attach(&b->sessions, c, p);
    } else if (code == 0) {
        code = sessions_admit(&b->sessions, p, h.ctx, h.live, &c, text);
    }
    wipe(h.token, sizeof h.token);
    if (code != 0)
        turn_away(b, p, (enum wire_code)code, text);
    else
        welcome(b, p, c, (enum codec)h.codec, resumed);
}

/* ---- the other frames ---- */

/* false: f has to wait, and those behind it. */
static bool on_submit(struct batch_thread *b, struct port *p, struct frame *f) {
    struct cloud_session *c = p->session;
    struct err e = {0};
    bool ready;
    if (submit_ready(c, f, &ready, &e) != 0) {
        frame_pop(&p->inbox);
        port_done(p, f);
        fail(b, p, WIRE_E_PROTOCOL, e.msg);
        return true;
    }
    if (!ready)
        return false;
    frame_pop(&p->inbox);
    struct frame_list finished = {0};
    uint32_t dropped = 0;
    int rc = submit_apply(c, &b->scratch, f, &finished, &dropped, &e);
    b->stats.cancelled_rows += dropped;
    for (struct frame *w; (w = frame_pop(&finished));) {
        if (rc == 0)
            say_empty(p, c, w->submit.seq, b->pass.hidden);
        port_done(p, w);
    }
    if (rc != 0) {
        port_done(p, f);
        fail(b, p, e.kind == ERR_PEER ? WIRE_E_PROTOCOL : WIRE_E_TOO_LARGE, e.msg);
        return true;
    }
    if (f->n_waiting > 0)
        return true;
    if (f->submit.n_nodes > 0)
        say_empty(p, c, f->submit.seq, b->pass.hidden);
    port_done(p, f);
    return true;
}

static void on_challenge(struct batch_thread *b, struct port *p, const struct frame *f) {
    struct cloud_session *c = p->session;
    struct err e = {0};
    uint32_t seq;
    uint16_t layer;
    const struct part *part = &b->o.stage->part;
    if (wire_get_challenge(f->buf.p, f->buf.n, &seq, &layer, &e) != 0) {
        fail(b, p, WIRE_E_PROTOCOL, e.msg);
        return;
    }
    if (!c->audit || c->audit->seq != seq || layer < part->lo || layer >= part->hi) {
        fail(b, p, WIRE_E_PROTOCOL, "a CHALLENGE without its commitment, or for a layer that is not here");
        return;
    }
    struct audit_store *a = c->audit;
    int leaf = layer - part->lo;
    const struct wire_opening o = {
        .seq = seq, .layer = layer, .n_leaves = a->n_leaves, .n_rows = (uint32_t)a->n_rows, .leaves = a->leaves[0]};
    struct frame *out = port_frame(p);
    if (out)
        wire_put_opening(&out->buf, &o, (uint32_t)a->hidden, audit_store_row(a, leaf, 0),
                         audit_store_row(a, leaf + 1, 0));
    port_say(p, out);
}

/* Returns whether frames are left that could be looked at now. */
static bool serve_port(struct batch_thread *b, struct port *p, double now) {
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        struct frame *f = p->inbox.first;
        if (!f || p->over || (port_clogged(p) && !p->gone))
            return false;
        if (f->type == WIRE_SUBMIT && p->session) {
            if (!on_submit(b, p, f))
                return false;
            continue;
        }
        if (f->type == WIRE_CHALLENGE && p->session && audit_store_open(p->session->audit))
            return false; /* until it is finished */
        frame_pop(&p->inbox);
        if (f->type == WIRE_PING) {
            /* net/cloud.c answers these ahead of everything */
        } else if (f->type == WIRE_HELLO && !p->session) {
            on_hello(b, p, f, now);
        } else if (f->type == WIRE_CHALLENGE && p->session) {
            on_challenge(b, p, f);
        } else if (f->type == WIRE_BYE && p->session) {
            submit_forget(p->session, &b->scratch);
            sessions_end(&b->sessions, p->session, "ended");
            port_end(p);
        } else {
            char text[80];
            snprintf(text, sizeof text, "a %s %s", wire_type_name(f->type),
                     p->session ? "is not for the cloud" : "came before HELLO");
            fail(b, p, WIRE_E_PROTOCOL, text);
        }
        port_done(p, f);
    }
    return true;
}

/* A connection that is gone leaves its session behind. */
static void part_with(struct batch_thread *b, struct port *p, double now) {
    struct cloud_session *c = p->session;
    if (c) {
        submit_forget(c, &b->scratch);
        sessions_log(c, "detached", NULL);
        sessions_detach(&b->sessions, c, now);
    }
    port_drop(p);
}

static bool serve_ports(struct batch_thread *b, double now) {
    bool more = false;
    ports_collect(&b->ports);
    /* Those who are gone first: what they said counts before a resume on another connection, and a BYE above all. */
    for (struct port *p = b->ports.first, *next; p; p = next) {
        next = p->next;
        if (!p->gone)
            continue;
        while (p->session && serve_port(b, p, now))
            ;
        part_with(b, p, now);
    }
    for (struct port *p = b->ports.first; p; p = p->next) {
        if (p->lost_frame && !p->over)
            fail(b, p, WIRE_E_FAILED, "this cloud is out of memory");
        more = serve_port(b, p, now) || more;
    }
    return more;
}

/* ---- passes ---- */

/* Between layers: what has come meanwhile that makes rows useless? */
static bool look(void *ctx) {
    struct batch_thread *b = ctx;
    if (!ports_news(&b->ports))
        return false;
    ports_collect(&b->ports);
    struct pass *p = &b->pass;
    bool any = false, all = false;
    struct cloud_session *c = NULL;
    for (int i = 0; i < p->n; i++) {
        struct pass_row *r = &p->rows[i];
        if (r->session != c) {
            c = r->session;
            submit_foresee(c, &b->scratch, &all);
        }
        if (r->dropped || !(all || kv_table_foreseen(c->table, r->node.id)))
            continue;
        r->dropped = true;
        any = true;
    }
    return any;
}

static void finish_audit(struct cloud_session *c) {
    struct audit_store *a = c->audit;
    struct wire_result r = {.seq = a->seq,
                            .last = true,
                            .has_root = true,
                            .n = a->n_rows,
                            .compute_us = (uint32_t)(a->compute_ms * 1e3),
                            .wait_us = (uint32_t)((a->started_ms - a->window->came_ms) * 1e3)};
    say_result(c->port, c, &r, a->ids, audit_store_row(a, a->n_leaves - 1, 0), a->hidden, a->root);
    port_done(c->port, a->window);
    a->window = NULL;
}

/* One leaf of every audit whose rows are there. Returns whether there is more to do. */
static bool step_audits(struct batch_thread *b) {
    bool more = false;
    for (uint32_t i = b->sessions.n; i-- > 0;) {
        struct cloud_session *c = b->sessions.all[i];
        struct err e = {0};
        if (!audit_store_open(c->audit) || c->audit->n_computed < c->audit->n_rows || port_clogged(c->port))
            continue;
        int rc = audit_store_step(c->audit, &e);
        if (rc < 0)
            fail(b, c->port, WIRE_E_FAILED, e.msg);
        else if (rc > 0)
            finish_audit(c);
        more = true; /* there may be frames behind it */
    }
    return more;
}

/* The rows [from, to) of the pass are what is left of one window. */
static void answer(struct batch_thread *b, int from, int to) {
    struct pass *p = &b->pass;
    const struct pass_row *first = &p->rows[p->at[from]];
    struct cloud_session *c = first->session;
    struct frame *w = first->node.window;
    w->n_waiting -= (uint32_t)(to - from);
    double waited = p->started_ms - w->came_ms;
    if (audit_store_open(c->audit)) { /* one RESULT, with the root, when all is there */
        struct audit_store *a = c->audit;
        for (int i = from; i < to; i++)
            a->ids[p->rows[p->at[i]].node.row] = p->rows[p->at[i]].node.id;
        a->started_ms = a->started_ms > 0 ? a->started_ms : p->started_ms;
        a->compute_ms += p->ms;
        a->n_computed += to - from;
        return;
    }
    for (int i = from; i < to; i++)
        p->ids[i - from] = p->rows[p->at[i]].node.id;
    struct wire_result r = {.seq = w->submit.seq,
                            .last = w->n_waiting == 0,
                            .n = to - from,
                            .compute_us = (uint32_t)(p->ms * 1e3),
                            .wait_us = waited > 0 ? (uint32_t)(waited * 1e3) : 0};
    say_result(c->port, c, &r, p->ids, p->x + (size_t)from * (size_t)p->hidden, p->hidden, NULL);
    if (r.last) {
        b->stats.windows++;
        b->stats.wait_ms += waited;
    }
}

/* Takes the rows of the pass that were computed out of the queue of their session. */
static void settle(struct cloud_session *c, const struct pass_row *rows, int n) {
    uint32_t kept = 0;
    for (int i = 0; i < n; i++) {
        if (rows[i].dropped)
            c->pending[kept++] = rows[i].node;
        else if (rows[i].node.window->n_waiting == 0 &&
                 (i + 1 == n || rows[i + 1].node.window != rows[i].node.window)) {
            c->n_windows--;
            if (!audit_store_open(c->audit))
                port_done(c->port, rows[i].node.window);
        }
    }
    memmove(c->pending + kept, c->pending + n, (c->n_pending - (uint32_t)n) * sizeof *c->pending);
    c->n_pending -= (uint32_t)n - kept;
}

static void count_pass(struct batch_thread *b) {
    struct batch_stats *s = &b->stats;
    int bucket = 0;
    while (bucket < 9 && 1 << bucket < b->pass.n)
        bucket++;
    s->passes++;
    s->rows += (uint64_t)b->pass.n_left;
    s->busy_ms += b->pass.ms;
    s->pass_rows_le[bucket]++;
}

static void run_pass(struct batch_thread *b) {
    struct pass *p = &b->pass;
    struct err e = {0};
    b->kv_dirty = true;
    if (pass_run(p, look, b, &e) != 0) {
        log_line(LOG_ERROR, "a pass of %d rows failed: %s", p->n, e.msg);
        for (int i = 0; i < p->n; i++) /* each session once: its rows stand together */
            if (i + 1 == p->n || p->rows[i + 1].session != p->rows[i].session)
                fail(b, p->rows[i].session->port, WIRE_E_FAILED, "the cloud failed to compute; its log says more");
        return;
    }
    count_pass(b);
    for (int i = 0, from = 0; i < p->n_left; i++) {
        if (i + 1 < p->n_left && p->rows[p->at[i + 1]].node.window == p->rows[p->at[i]].node.window)
            continue;
        answer(b, from, i + 1);
        from = i + 1;
    }
    ports_wake(&b->ports);
    for (int i = 0, from = 0; i < p->n; i++) {
        if (i + 1 < p->n && p->rows[i + 1].session == p->rows[i].session)
            continue;
        settle(p->rows[i].session, p->rows + from, i + 1 - from);
        from = i + 1;
    }
    wipe(p->x, (size_t)p->n * (size_t)p->hidden * sizeof *p->x);
    double gather = GATHER_PART * pace_ms(&p->pace, p->n);
    b->gather_until = clock_ms() + (gather < GATHER_MS ? gather : GATHER_MS);
    b->gathering = false;
}

/* How many of those that decoded in the last pass have not said yet what comes next; *some: somebody else has. */
static uint32_t missing(const struct batch_thread *b, bool *some) {
    uint32_t n = 0;
    *some = false;
    for (uint32_t i = 0; i < b->sessions.n; i++) {
        const struct cloud_session *c = b->sessions.all[i];
        n += c->pass > 0 && c->pass == b->pass.number && c->port && c->n_pending == 0;
        *some = *some || c->n_pending > 0;
    }
    return n;
}

/* Should the next pass wait a little for those? */
static bool gather(struct batch_thread *b, double now) {
    bool some;
    uint32_t n = missing(b, &some);
    bool wait = n > 0 && some && now < b->gather_until;
    if (wait && !b->gathering) {
        if (b->gather_worth < 0.2 && ++b->gather_skipped % GATHER_AGAIN != 0)
            wait = false;
        b->gathering = wait;
        b->gather_missing = n;
        if (!wait)
            b->gather_until = 0;
    } else if (!wait && b->gathering) {
        b->gathering = false;
        b->gather_worth += 0.1 * ((n < b->gather_missing) - b->gather_worth);
    }
    return wait;
}

/* Sessions that sent what cannot be computed. Returns whether there were any. */
static bool end_broken(struct batch_thread *b) {
    bool any = false;
    for (uint32_t i = b->sessions.n; i-- > 0;) {
        struct cloud_session *c = b->sessions.all[i];
        if (!c->broken)
            continue;
        fail(b, c->port, WIRE_E_PROTOCOL, c->broken);
        any = true;
    }
    return any;
}

/* ---- the thread ---- */

/* Says goodbye to those of whom nothing is in flight; to everybody when the time is over. When to look again; 0: no
 * need. */
static double drain_ports(struct batch_thread *b, double now) {
    double by;
    bool left = false;
    if (!is_draining(b, &by))
        return 0;
    for (struct port *p = b->ports.first; p; p = p->next) {
        if (p->over)
            continue;
        struct cloud_session *c = p->session;
        bool busy = p->inbox.first || (c && (c->n_pending > 0 || audit_store_open(c->audit)));
        if (busy && now < by) {
            left = true;
            continue;
        }
        if (c) {
            submit_forget(c, &b->scratch);
            sessions_end(&b->sessions, c, "drained");
        }
        refuse(p, WIRE_E_DRAINING, "this cloud is going away: try later or elsewhere");
    }
    pthread_mutex_lock(&b->ports.lock);
    b->ports.wake_due = b->ports.wake_due || (!left && !b->drained);
    b->drained = !left;
    pthread_mutex_unlock(&b->ports.lock);
    return left ? by : 0;
}

static void publish(struct batch_thread *b) {
    struct batch_stats *t = &b->stats;
    const struct sessions *s = &b->sessions;
    t->sessions = s->n;
    t->attached = sessions_attached(s);
    t->sessions_all = s->created;
    t->resumed = s->resumed;
    t->evicted = s->evicted;
    t->expired = s->expired;
    t->refused = s->refused;
    t->kv_slots = slot_pool_size(s->pool);
    t->kv_slots_reserved = s->reserved;
    t->kv_slots_used = slot_pool_size(s->pool) - slot_pool_left(s->pool);
    t->queued_windows = 0;
    for (uint32_t i = 0; i < s->n; i++)
        t->queued_windows += s->all[i]->n_windows;
    pthread_mutex_lock(&b->ports.lock);
    b->shown = *t;
    pthread_mutex_unlock(&b->ports.lock);
}

static bool stopped(struct batch_thread *b) {
    pthread_mutex_lock(&b->ports.lock);
    bool stop = b->stop;
    pthread_mutex_unlock(&b->ports.lock);
    return stop;
}

static double sooner(double a, double b) {
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

static void *run(void *arg) {
    struct batch_thread *b = arg;
    while (!stopped(b)) {
        double now = clock_ms();
        bool more = serve_ports(b, now);
        double until = sooner(sessions_expire(&b->sessions, now), drain_ports(b, now));
        more = step_audits(b) || more;
        if (b->sessions.n == 0 && b->kv_dirty) {
            b->o.stage->ops->kv_clear(b->kv);
            b->kv_dirty = false;
        }
        publish(b);
        ports_wake(&b->ports);
        if (gather(b, clock_ms())) {
            ports_wait(&b->ports, b->gather_until);
            continue;
        }
        int rows = pass_choose(&b->pass, &b->sessions, now);
        if (rows > 0)
            run_pass(b);
        if (end_broken(b) || rows > 0 || more)
            continue;
        ports_wait(&b->ports, until);
    }
    return NULL;
}

static void batch_free(struct batch_thread *b) {
    for (uint32_t i = b->sessions.n; i-- > 0;) {
        struct cloud_session *c = b->sessions.all[i];
        if (c->port)
            submit_forget(c, &b->scratch);
    }
    sessions_free(&b->sessions);
    pass_free(&b->pass);
    submit_scratch_free(&b->scratch);
    if (b->kv)
        b->o.stage->ops->kv_free(b->kv);
    ports_free(&b->ports);
    free(b);
}

int batch_start(struct batch_thread **out, const struct batch_opts *o, struct err *e) {
    *out = NULL;
    const struct part *part = &o->stage->part;
    if (o->max_rows < 1)
        return err_set(e, ERR_USAGE, "a pass needs at least one row");
    struct batch_thread *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (ports_init(&b->ports, o->wake, o->wake_ctx, e) != 0) {
        free(b);
        return -1;
    }
    b->o = *o;
    b->gather_worth = 1;
    b->n_leaves = part->hi - part->lo + 1;
    enum dtype type = o->mine.kv == 1 ? DT_F32 : DT_F16;
    uint64_t slot_bytes =
        (uint64_t)config_kv_bytes(o->stage->config, type == DT_F32 ? 4 : 2) * (uint64_t)(part->hi - part->lo);
    if (sessions_init(&b->sessions, o, slot_bytes, e) != 0 ||
        o->stage->ops->kv_create(o->stage, slot_pool_size(b->sessions.pool), type, &b->kv, e) != 0 ||
        pass_init(&b->pass, o->stage, b->kv, o->max_rows, e) != 0 ||
        submit_scratch_init(&b->scratch, o->max_rows, b->n_leaves, o->stage->config->hidden, e) != 0)
        goto fail;
    int rc = pthread_create(&b->thread, NULL, run, b);
    if (rc != 0) {
        err_sys(e, rc, "cannot start the thread that computes");
        goto fail;
    }
    *out = b;
    return 0;
fail:
    batch_free(b);
    return -1;
}

void batch_stop(struct batch_thread *b) {
    if (!b)
        return;
    pthread_mutex_lock(&b->ports.lock);
    b->stop = true;
    ports_notify(&b->ports);
    pthread_mutex_unlock(&b->ports.lock);
    pthread_join(b->thread, NULL);
    batch_free(b);
}

void batch_drain(struct batch_thread *b, uint32_t grace_ms) {
    pthread_mutex_lock(&b->ports.lock);
    b->drain = true;
    b->drain_by = clock_ms() + grace_ms;
    ports_notify(&b->ports);
    pthread_mutex_unlock(&b->ports.lock);
}

bool batch_drained(struct batch_thread *b) {
    pthread_mutex_lock(&b->ports.lock);
    bool drained = b->drained;
    pthread_mutex_unlock(&b->ports.lock);
    return drained;
}

struct port *port_open(struct batch_thread *b, const struct pin *pin, const char *name, struct err *e) {
    return ports_open(&b->ports, pin, name, e);
}

void batch_stats(struct batch_thread *b, struct batch_stats *s) {
    pthread_mutex_lock(&b->ports.lock);
    *s = b->shown;
    pthread_mutex_unlock(&b->ports.lock);
}
