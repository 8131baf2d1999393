#include "net/cloud/cloud.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/cloud/cloud_conn.h"
#include "net/cloud/listen.h"
#include "net/cloud/metrics.h"
#include "net/tls.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    HANDSHAKE_MS = 10000,
    IDLE_MS = 60000,
    MAX_STRANGERS = 32,
    KNOCKS_EACH = 5,
    KNOCKS_ALL = 25,
    KNOCK_BURST_S = 4,
    SPARE_CONNECTIONS = 64, /* beside those of sessions: strangers, and the farewells of others */
    ACCEPT_PAUSE_MS = 1000,
    FLUSH_MS = 500, /* for the last frames to leave after the grace is over */
    DRAIN_LOOK_MS = 100,
    TIDY_S = 10,
    NUDGE_MS = 25,
};

struct cloud {
    struct conn_env env;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *wake, *accept_again, *drain_look, *tidy, *nudge;
    struct metrics_http *metrics;
    struct batch_thread *batch;
    uint16_t port;
    double started;
    char *version, *backend;

    struct conn **conns; /* [max_connections], in no order */
    uint32_t nudged;     /* place of the stranger who had the last turn out of order */
    uint32_t n_conns, max_connections, max_per_address, max_strangers;

    /* What other threads and signal handlers say. They write here and to the eventfd, and nothing else. */
    int wake_fd;
    atomic_uint stops, grace_ms;
    atomic_bool reload, poked;

    bool draining;
    double end_at; /* clock_ms: the drain is over, done or not */
};

/* Room for strangers. */

static void drop(struct cloud *c, uint32_t i, enum conn_end why) {
    conn_end(c->conns[i], why);
}

static uint32_t count_address(const struct cloud *c, const struct peer_address *a, bool strangers_only) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_conns; i++)
        n += (!strangers_only || conn_is_stranger(c->conns[i])) && peer_address_equal(conn_address(c->conns[i]), a);
    return n;
}

/* The oldest stranger of the address that has most of them, so that somebody who fills the place loses his own first;
 * only: of this address. max_connections: there is none. */
static uint32_t choose_victim(const struct cloud *c, const struct peer_address *only) {
    uint32_t best = c->max_connections, most = 0;
    for (uint32_t i = 0; i < c->n_conns; i++) {
        const struct conn *k = c->conns[i];
        if (!conn_is_stranger(k) || (only && !peer_address_equal(conn_address(k), only)))
            continue;
        uint32_t n = only ? 1 : count_address(c, conn_address(k), true);
        if (n > most || (n == most && conn_since(k) < conn_since(c->conns[best]))) {
            best = i;
            most = n;
        }
    }
    return best;
}

static uint32_t count_strangers(const struct cloud *c) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_conns; i++)
        n += conn_is_stranger(c->conns[i]);
    return n;
}

static bool make_room(struct cloud *c, const struct sockaddr *sa) {
    struct peer_address a = peer_address(sa);
    uint32_t i;
    if (count_address(c, &a, false) >= c->max_per_address) {
        if ((i = choose_victim(c, &a)) == c->max_connections) {
            conn_refuse(&c->env, sa, END_ADDRESS_FULL);
            return false;
        }
        drop(c, i, END_CROWDED);
    }
    if (count_strangers(c) >= c->max_strangers || c->n_conns >= c->max_connections) {
        if ((i = choose_victim(c, NULL)) == c->max_connections) {
            conn_refuse(&c->env, sa, END_FULL);
            return false;
        }
        drop(c, i, END_CROWDED);
    }
    return true;
}

/* Those who are known may keep the loop busy all the time: one step of one stranger in so many milliseconds there is
 * nevertheless, or nobody new would ever get in. */
static void on_nudge(evutil_socket_t fd, short what, void *arg) {
    static const struct timeval soon = {.tv_usec = NUDGE_MS * 1000L};
    struct cloud *c = arg;
    (void)fd;
    (void)what;
    for (uint32_t i = 0; i < c->n_conns; i++) {
        struct conn *k = c->conns[++c->nudged % c->n_conns];
        if (conn_is_stranger(k) && conn_nudge(k))
            break;
    }
    if (count_strangers(c) > 0)
        event_add(c->nudge, &soon);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int n, void *arg) {
    struct cloud *c = arg;
    struct err e = {0};
    (void)l;
    (void)n;
    c->env.counters.accepted++;
    if (!make_room(c, sa)) {
        close(fd);
        return;
    }
    if (conn_create(&c->conns[c->n_conns], &c->env, fd, sa, &e) != 0) {
        log_line(LOG_ERROR, "conn event=refused reason=failed detail=\"%s\"", e.msg);
        c->env.counters.ended[END_LINK]++;
        close(fd);
        return;
    }
    c->n_conns++;
    if (!event_pending(c->nudge, EV_TIMEOUT, NULL))
        on_nudge(-1, 0, c);
}

/* Out of descriptors or memory. The waiting connection would raise this again at once: waits until there may be some.
 */
static void on_accept_error(struct evconnlistener *l, void *arg) {
    static const struct timeval pause = {.tv_sec = ACCEPT_PAUSE_MS / 1000};
    struct cloud *c = arg;
    int errnum = errno;
    c->env.counters.accept_errors++;
    log_line(LOG_ERROR, "listener event=paused ms=%d reason=%s", ACCEPT_PAUSE_MS, strerrordesc_np(errnum));
    evconnlistener_disable(l);
    uint32_t i = choose_victim(c, NULL);
    if (i < c->max_connections)
        drop(c, i, END_CROWDED);
    event_add(c->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg) {
    struct cloud *c = arg;
    (void)fd;
    (void)what;
    if (c->listener)
        evconnlistener_enable(c->listener);
}

static void on_conn_over(void *ctx, struct conn *k) {
    struct cloud *c = ctx;
    uint32_t i = 0;
    while (i < c->n_conns && c->conns[i] != k)
        i++;
    if (i < c->n_conns)
        c->conns[i] = c->conns[--c->n_conns];
    conn_free(k);
}

/* Going away. */

static void stop_listening(struct cloud *c) {
    if (c->listener)
        evconnlistener_free(c->listener);
    c->listener = NULL;
}

/* Ends the loop when everything was said, or the time for it is over. */
static void look_at_drain(struct cloud *c) {
    static const struct timeval soon = {.tv_usec = DRAIN_LOOK_MS * 1000L};
    if ((c->n_conns == 0 && batch_drained(c->batch)) || clock_ms() >= c->end_at)
        event_base_loopbreak(c->base);
    else
        event_add(c->drain_look, &soon);
}

static void on_drain_look(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    look_at_drain(arg);
}

static void begin_drain(struct cloud *c) {
    uint32_t grace = atomic_load(&c->grace_ms);
    c->draining = true;
    c->end_at = clock_ms() + grace + FLUSH_MS;
    log_line(LOG_INFO, "cloud event=draining grace_ms=%u connections=%u", grace, c->n_conns);
    stop_listening(c);
    for (uint32_t i = c->n_conns; i-- > 0;) /* backwards: the one that ends is replaced by the last */
        if (conn_is_stranger(c->conns[i]) && !conn_is_closing(c->conns[i]))
            drop(c, i, END_STOPPED);
    batch_drain(c->batch, grace);
    look_at_drain(c);
}

static void reload(struct cloud *c) {
    struct err e = {0};
    if (allow_list_reload(c->env.allow, &e) != 0) {
        log_line(LOG_ERROR, "allow event=kept reason=\"%s\"", e.msg);
        return;
    }
    log_line(LOG_INFO, "allow event=reloaded pins=%d", allow_list_size(c->env.allow));
    for (uint32_t i = c->n_conns; i-- > 0;)
        conn_check_pin(c->conns[i]);
}

/* The eventfd was written. */
static void on_wake(evutil_socket_t fd, short what, void *arg) {
    struct cloud *c = arg;
    uint64_t n;
    (void)what;
    ssize_t got = read(fd, &n, sizeof n);
    (void)got;
    atomic_store(&c->poked, false); /* before the ports are looked at: what comes from now on pokes again */
    unsigned stops = atomic_load(&c->stops);
    struct err why;
    if (!c->draining && batch_broken(c->batch, &why)) {
        atomic_store(&c->grace_ms, 0);
        begin_drain(c);
    }
    if (atomic_exchange(&c->reload, false))
        reload(c);
    if (stops > 0 && !c->draining)
        begin_drain(c);
    if (stops > 1)
        event_base_loopbreak(c->base);
    for (uint32_t i = c->n_conns; i-- > 0;)
        conn_wake(c->conns[i]);
    if (c->draining)
        look_at_drain(c);
}

/* From the batch thread, other threads and signal handlers. */
static void poke(struct cloud *c) {
    static const uint64_t one = 1;
    int saved = errno;
    if (!atomic_exchange(&c->poked, true)) {
        ssize_t n = write(c->wake_fd, &one, sizeof one); /* cannot fail: the counter is nowhere near its end */
        (void)n;
    }
    errno = saved;
}

static void on_batch(void *ctx) {
    poke(ctx);
}

void cloud_stop(struct cloud *c, uint32_t grace_ms) {
    atomic_store(&c->grace_ms, grace_ms);
    atomic_fetch_add(&c->stops, 1);
    poke(c);
}

void cloud_reload(struct cloud *c) {
    atomic_store(&c->reload, true);
    poke(c);
}

/* Memory of sessions that are over lies between that of others, and malloc would keep what there was at the busiest
 * moment. What is free goes back to the system now and then, cleared like all of its pages. */
static void on_tidy(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    (void)arg;
    malloc_trim(0);
}

/* Life. */

static void collect_metrics(void *ctx, struct metrics_view *v) {
    struct cloud *c = ctx;
    v->net = c->env.counters;
    v->net.open = c->n_conns;
    for (uint32_t i = 0; i < c->n_conns; i++) {
        v->net.closing += conn_is_closing(c->conns[i]);
        v->net.strangers += conn_is_stranger(c->conns[i]) && !conn_is_closing(c->conns[i]);
    }
    batch_stats(c->batch, &v->batch);
    v->uptime_ms = clock_ms() - c->started;
    v->draining = c->draining;
    v->version = c->version;
    v->backend = c->backend;
}

static int copy_text(char **out, const char *text, struct err *e) {
    *out = strdup(text ? text : "unknown");
    return *out ? 0 : err_set(e, ERR_MEMORY, "out of memory");
}

/* Between two steps of strangers it looks again whether there is something to do for those who are known. */
static struct event_base *make_base(void) {
    struct event_base *b = NULL;
    struct event_config *o = event_config_new();
    if (o && event_config_set_max_dispatch_interval(o, NULL, 1, URGENCY_STRANGER) == 0)
        b = event_base_new_with_config(o);
    if (o)
        event_config_free(o);
    if (b && event_base_priority_init(b, N_URGENCIES) != 0) {
        event_base_free(b);
        b = NULL;
    }
    return b;
}

static int start_loop(struct cloud *c, struct err *e) {
    static const struct timeval tidy = {.tv_sec = TIDY_S};
    c->base = make_base();
    c->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!c->base || c->wake_fd < 0)
        return err_sys(e, errno, "making an event loop");
    c->wake = event_new(c->base, c->wake_fd, EV_READ | EV_PERSIST, on_wake, c);
    c->accept_again = evtimer_new(c->base, on_accept_again, c);
    c->drain_look = evtimer_new(c->base, on_drain_look, c);
    c->nudge = evtimer_new(c->base, on_nudge, c);
    c->tidy = event_new(c->base, -1, EV_PERSIST, on_tidy, c);
    if (!c->wake || !c->accept_again || !c->drain_look || !c->tidy || !c->nudge ||
        event_priority_set(c->wake, URGENCY_KNOWN) != 0 || event_priority_set(c->nudge, URGENCY_KNOWN) != 0 ||
        event_add(c->tidy, &tidy) != 0 || event_add(c->wake, NULL) != 0)
        return err_set(e, ERR_MEMORY, "out of memory");
    return 0;
}

static int start_listening(struct cloud *c, const char *address, struct err *e) {
    int fd = listen_tcp(address, &c->port, e);
    if (fd < 0)
        return -1;
    c->listener = evconnlistener_new(c->base, on_accept, c, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!c->listener) {
        close(fd);
        return err_set(e, ERR_MEMORY, "out of memory");
    }
    evconnlistener_set_error_cb(c->listener, on_accept_error);
    return 0;
}

static struct knock_rate knocks(uint32_t per_s) {
    return (struct knock_rate){.burst = (double)per_s * KNOCK_BURST_S, .per_s = per_s};
}

int cloud_create(struct cloud **out, const struct cloud_opts *o, struct err *e) {
    struct cloud *c = calloc(1, sizeof *c);
    struct batch_opts bo = o->batch;
    if (!c)
        return err_set(e, ERR_MEMORY, "out of memory");
    c->wake_fd = -1;
    c->started = clock_ms();
    c->max_connections = o->max_connections ? o->max_connections : o->batch.max_sessions + SPARE_CONNECTIONS;
    c->max_per_address = o->max_per_address ? o->max_per_address : c->max_connections;
    c->max_strangers = o->max_strangers ? o->max_strangers : MAX_STRANGERS;
    c->conns = calloc(c->max_connections, sizeof(struct conn *));
    if (!c->conns) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto fail;
    }
    if (copy_text(&c->version, o->version, e) != 0 || copy_text(&c->backend, o->batch.backend_name, e) != 0 ||
        start_loop(c, e) != 0 || tls_config_create(&c->env.tls, true, o->id, e) != 0 ||
        start_listening(c, o->listen, e) != 0 ||
        (o->metrics && metrics_http_start(&c->metrics, c->base, o->metrics, collect_metrics, c, e) != 0))
        goto fail;
    c->env.base = c->base;
    c->env.allow = o->allow;
    c->env.handshake_ms = o->handshake_ms ? o->handshake_ms : HANDSHAKE_MS;
    c->env.idle_ms = o->idle_ms ? o->idle_ms : IDLE_MS;
    knock_init(&c->env.knock, knocks(o->knocks_each ? o->knocks_each : KNOCKS_EACH),
               knocks(o->knocks_all ? o->knocks_all : KNOCKS_ALL));
    c->env.over = on_conn_over;
    c->env.ctx = c;
    bo.idle_ms = c->env.idle_ms;
    bo.wake = on_batch;
    bo.wake_ctx = c;
    if (batch_start(&c->batch, &bo, e) != 0)
        goto fail;
    c->env.batch = c->batch;
    *out = c;
    return 0;
fail:
    cloud_free(c);
    return -1;
}

int cloud_run(struct cloud *c, struct err *e) {
    int rc = event_base_dispatch(c->base);
    log_line(LOG_INFO, "cloud event=stopped connections=%u", c->n_conns);
    stop_listening(c);
    while (c->n_conns > 0)
        drop(c, c->n_conns - 1, END_STOPPED);
    struct err why;
    if (batch_broken(c->batch, &why))
        return err_set(
            e, why.kind,
            "what computes here has failed and cannot be used again by this process; start it again (%.350s)", why.msg);
    return rc < 0 ? err_set(e, ERR_IO, "the event loop failed") : 0;
}

static void free_event(struct event *ev) {
    if (ev)
        event_free(ev);
}

void cloud_free(struct cloud *c) {
    if (!c)
        return;
    while (c->n_conns > 0)
        drop(c, c->n_conns - 1, END_STOPPED);
    if (c->batch)
        batch_stop(c->batch);
    metrics_http_free(c->metrics);
    stop_listening(c);
    free_event(c->wake);
    free_event(c->accept_again);
    free_event(c->drain_look);
    free_event(c->tidy);
    free_event(c->nudge);
    if (c->base)
        event_base_free(c->base);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    tls_config_free(c->env.tls);
    free(c->conns);
    free(c->version);
    free(c->backend);
    free(c);
}

uint16_t cloud_port(const struct cloud *c) {
    return c->port;
}

uint16_t cloud_metrics_port(const struct cloud *c) {
    return metrics_http_port(c->metrics);
}
