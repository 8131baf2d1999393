#include "net/cloud/batch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "core/base/wipe.h"
#include "net/cloud/audit_store.h"
#include "net/cloud/pass.h"
#include "net/cloud/port.h"
#include "net/cloud/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Those who were in the last pass are likely to be back soon: waiting a little for them lets one pass serve all. */
static const double GATHER_MS = 2, GATHER_PART = 0.05;
enum { GATHER_AGAIN = 16 };

struct batch_thread {
    struct ports ports;
    pthread_t thread;
    struct server server;
    struct pass pass;
    struct kv *kv;
    bool kv_dirty;
    struct batch_stats stats;
    double gather_until, gather_worth; /* worth: how often it brought somebody, 0 to 1 */
    uint32_t gather_missing;
    unsigned gather_skipped;
    bool gathering;
    double drain_by;
    /* under ports.lock */
    bool stop, drain, drained;
    double drain_until;
    struct err broken; /* empty: what computes is in order */
    struct batch_stats shown;
};

static bool serve_ports(struct batch_thread *b, double now) {
    bool more = false;
    ports_collect(&b->ports);
    /* Those who are gone first: what they said counts before a resume on another connection, and a BYE above all. */
    for (struct port *p = b->ports.first, *next; p; p = next) {
        next = p->next;
        if (!p->gone)
            continue;
        while (p->session && serve_port(&b->server, p, now))
            ;
        serve_gone(&b->server, p, now);
    }
    for (struct port *p = b->ports.first; p; p = p->next) {
        if (p->lost_frame && !p->over)
            serve_fail(&b->server, p, WIRE_E_FAILED, "this cloud is out of memory");
        more = serve_port(&b->server, p, now) || more;
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
    for (int i = 0; i < p->n; i++) {
        struct pass_row *r = &p->rows[i];
        if (i == 0 || r->session != r[-1].session)
            submit_foresee(r->session, &b->server.scratch, &all);
        if (r->dropped || !(all || kv_table_foreseen(r->session->table, r->node.id)))
            continue;
        r->dropped = true;
        any = true;
    }
    return any;
}

/* Rows of the first RESULT of a window. */
static int first_piece(const struct cloud_session *c) {
    size_t n = WIRE_FIRST_PIECE / c->row_bytes;
    return n < 1 ? 1 : (int)n;
}

/* The rows [from, to) of the pass are what is left of one window. */
static void answer(struct batch_thread *b, int from, int to) {
    struct pass *p = &b->pass;
    const struct pass_row *first = &p->rows[p->at[from]];
    struct cloud_session *c = first->session;
    struct frame *w = first->node.window;
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
    /* In pieces, of which the first is small: it brings what the client waits for, and the others are encoded, sealed
     * and sent while the client goes on with it. */
    int piece = first_piece(c), n = to - from;
    for (int i = 0; i < n && !c->port->over; i += piece, piece *= 2) {
        piece = piece < n - i ? piece : n - i;
        struct wire_result r = {.seq = w->submit.seq, .last = w->n_waiting == 0 && i + piece == n, .n = piece};
        if (i == 0) {
            r.compute_us = wire_us(p->ms);
            r.wait_us = wire_us(p->started_ms - w->came_ms);
        }
        serve_result(c->port, c, &r, p->ids + i, p->x + (size_t)(from + i) * (size_t)p->hidden, p->hidden, NULL);
        ports_wake(&b->ports);
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

/* The same rows: what is known of their window before anybody hears of it. */
static void count_window(struct batch_thread *b, int from, int to) {
    const struct pass_row *first = &b->pass.rows[b->pass.at[from]];
    struct frame *w = first->node.window;
    w->n_waiting -= (uint32_t)(to - from);
    if (w->n_waiting > 0 || audit_store_open(first->session->audit))
        return;
    b->stats.windows++;
    b->stats.wait_ms += b->pass.started_ms - w->came_ms;
}

/* Calls f for what is left of each window of the pass. */
static void each_window(struct batch_thread *b, void (*f)(struct batch_thread *b, int from, int to)) {
    struct pass *p = &b->pass;
    for (int i = 0, from = 0; i < p->n_left; i++) {
        if (i + 1 < p->n_left && p->rows[p->at[i + 1]].node.window == p->rows[p->at[i]].node.window)
            continue;
        f(b, from, i + 1);
        from = i + 1;
    }
}

static void count_pass(struct batch_thread *b) {
    struct batch_stats *s = &b->stats;
    int bucket = 0;
    while (bucket < 9 && 1 << bucket < b->pass.n)
        bucket++;
    s->passes++;
    s->rows += (uint64_t)b->pass.n_left;
    s->pass_rows += (uint64_t)b->pass.n;
    s->busy_ms += b->pass.ms;
    s->pass_rows_le[bucket]++;
}

static void publish(struct batch_thread *b) {
    struct batch_stats *t = &b->stats;
    const struct sessions *s = &b->server.sessions;
    t->sessions = s->n;
    t->cancelled_rows = b->server.scratch.dropped_rows;
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

/* Nothing will be computed here any more: whoever has nothing in the pass that failed may go on elsewhere, or here once
 * somebody has started this program again. */
static void give_up(struct batch_thread *b, const struct err *why) {
    pthread_mutex_lock(&b->ports.lock);
    if (b->broken.kind == ERR_NONE)
        b->broken = *why;
    b->drain = true;
    b->drain_until = 0;
    b->ports.wake_due = true;
    pthread_mutex_unlock(&b->ports.lock);
}

static void run_pass(struct batch_thread *b) {
    struct pass *p = &b->pass;
    struct err e = {0};
    b->kv_dirty = true;
    if (pass_run(p, look, b, &e) != 0) {
        log_line(LOG_ERROR, "a pass of %d rows failed: %s", p->n, e.msg);
        wipe(p->x, (size_t)p->n * (size_t)p->hidden * sizeof *p->x);
        for (int i = 0; i < p->n; i++) /* each session once: its rows stand together */
            if (i + 1 == p->n || p->rows[i + 1].session != p->rows[i].session)
                serve_fail(&b->server, p->rows[i].session->port, WIRE_E_FAILED,
                           "the cloud failed to compute; its log says more");
        if (e.kind == ERR_DEVICE)
            give_up(b, &e);
        return;
    }
    count_pass(b);
    each_window(b, count_window);
    publish(b);
    each_window(b, answer);
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
    for (uint32_t i = 0; i < b->server.sessions.n; i++) {
        const struct cloud_session *c = b->server.sessions.all[i];
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
    for (uint32_t i = b->server.sessions.n; i-- > 0;) {
        struct cloud_session *c = b->server.sessions.all[i];
        if (!c->broken)
            continue;
        serve_fail(&b->server, c->port, WIRE_E_PROTOCOL, c->broken);
        any = true;
    }
    return any;
}

/* ---- the thread ---- */

/* Says goodbye to those of whom nothing is in flight; to everybody when the time is over. When to look again; 0: no
 * need. */
static double drain_ports(struct batch_thread *b, double now) {
    bool left = false;
    if (!b->server.draining)
        return 0;
    for (struct port *p = b->ports.first; p; p = p->next) {
        if (p->over)
            continue;
        struct cloud_session *c = p->session;
        bool busy = p->inbox.first || (c && (c->n_pending > 0 || audit_store_open(c->audit)));
        if (busy && now < b->drain_by) {
            left = true;
            continue;
        }
        serve_goodbye(&b->server, p);
    }
    pthread_mutex_lock(&b->ports.lock);
    b->ports.wake_due = b->ports.wake_due || (!left && !b->drained);
    b->drained = !left;
    pthread_mutex_unlock(&b->ports.lock);
    return left ? b->drain_by : 0;
}

/* Takes over what was ordered. false: stop. */
static bool go_on(struct batch_thread *b) {
    pthread_mutex_lock(&b->ports.lock);
    bool stop = b->stop;
    b->server.draining = b->drain;
    b->drain_by = b->drain_until;
    pthread_mutex_unlock(&b->ports.lock);
    return !stop;
}

static double sooner(double a, double b) {
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

static void *run(void *arg) {
    struct batch_thread *b = arg;
    for (;;) {
        double now = clock_ms();
        bool more = serve_ports(b, now);
        /* Behind serve_ports, which takes the news away: what is ordered from here on is news again, and ends the wait.
         */
        if (!go_on(b))
            break;
        double until = sooner(sessions_expire(&b->server.sessions, now), drain_ports(b, now));
        more = serve_audits(&b->server) || more;
        if (b->server.sessions.n == 0 && b->kv_dirty) {
            b->server.o.stage->ops->kv_clear(b->kv);
            b->kv_dirty = false;
        }
        publish(b);
        ports_wake(&b->ports);
        if (gather(b, clock_ms())) {
            ports_wait(&b->ports, b->gather_until);
            continue;
        }
        int rows = pass_choose(&b->pass, &b->server.sessions, now);
        if (rows > 0)
            run_pass(b);
        if (end_broken(b) || rows > 0 || more)
            continue;
        ports_wait(&b->ports, until);
    }
    return NULL;
}

static void batch_free(struct batch_thread *b) {
    for (uint32_t i = b->server.sessions.n; i-- > 0;) {
        struct cloud_session *c = b->server.sessions.all[i];
        if (c->port)
            submit_forget(c, &b->server.scratch);
    }
    sessions_free(&b->server.sessions);
    pass_free(&b->pass);
    submit_scratch_free(&b->server.scratch);
    if (b->kv)
        b->server.o.stage->ops->kv_free(b->kv);
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
    b->server.o = *o;
    b->server.hidden = o->stage->config->hidden;
    b->gather_worth = 1;
    b->server.n_leaves = part->hi - part->lo + 1;
    enum dtype type = wire_kv_type(o->mine.kv);
    uint64_t slot_bytes = (uint64_t)config_kv_bytes(o->stage->config, type) * (uint64_t)(part->hi - part->lo);
    if (sessions_init(&b->server.sessions, o, slot_bytes, e) != 0 ||
        o->stage->ops->kv_create(o->stage, slot_pool_size(b->server.sessions.pool), type, &b->kv, e) != 0 ||
        pass_init(&b->pass, o->stage, b->kv, o->max_rows, e) != 0 ||
        submit_scratch_init(&b->server.scratch, o->max_rows, b->server.n_leaves, o->stage->config->hidden, e) != 0)
        goto fail;
    publish(b);
    if (thread_start(&b->thread, run, b, "the thread that computes", e) != 0)
        goto fail;
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
    b->drain_until = b->broken.kind == ERR_NONE ? clock_ms() + grace_ms : 0;
    ports_notify(&b->ports);
    pthread_mutex_unlock(&b->ports.lock);
}

bool batch_drained(struct batch_thread *b) {
    pthread_mutex_lock(&b->ports.lock);
    bool drained = b->drained;
    pthread_mutex_unlock(&b->ports.lock);
    return drained;
}

bool batch_broken(struct batch_thread *b, struct err *why) {
    pthread_mutex_lock(&b->ports.lock);
    *why = b->broken;
    pthread_mutex_unlock(&b->ports.lock);
    return why->kind != ERR_NONE;
}

struct port *port_open(struct batch_thread *b, const struct pin *pin, const char *name, struct err *e) {
    return ports_open(&b->ports, pin, name, e);
}

void batch_stats(struct batch_thread *b, struct batch_stats *s) {
    pthread_mutex_lock(&b->ports.lock);
    *s = b->shown;
    pthread_mutex_unlock(&b->ports.lock);
}
