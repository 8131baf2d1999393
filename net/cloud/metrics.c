#include "net/cloud/metrics.h"

#include "net/cloud/listen.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_HEADERS = 8192, MAX_BODY = 1024, TIMEOUT_S = 10 };

const char *conn_end_name(enum conn_end why) {
    static const char *const names[N_CONN_ENDS] = {
        [END_FINISHED] = "finished",
        [END_PEER_CLOSED] = "peer_closed",
        [END_LINK] = "link",
        [END_PROTOCOL] = "protocol",
        [END_IDLE] = "idle",
        [END_NOT_READING] = "not_reading",
        [END_NOT_ALLOWED] = "not_allowed",
        [END_STOPPED] = "stopped",
        [END_HANDSHAKE] = "handshake",
        [END_PIN] = "pin",
        [END_TIMEOUT] = "timeout",
        [END_CROWDED] = "crowded",
        [END_FULL] = "full",
        [END_ADDRESS_FULL] = "address_full",
    };
    return (unsigned)why < N_CONN_ENDS ? names[why] : "unknown";
}

static void head(struct wbuf *w, const char *name, const char *type, const char *help) {
    wbuf_fmt(w, "# HELP splitinf_%s %s\n# TYPE splitinf_%s %s\n", name, help, name, type);
}

static void gauge(struct wbuf *w, const char *name, uint64_t v, const char *help) {
    head(w, name, "gauge", help);
    wbuf_fmt(w, "splitinf_%s %" PRIu64 "\n", name, v);
}

static void counter(struct wbuf *w, const char *name, uint64_t v, const char *help) {
    head(w, name, "counter", help);
    wbuf_fmt(w, "splitinf_%s %" PRIu64 "\n", name, v);
}

static void seconds(struct wbuf *w, const char *name, const char *type, double ms, const char *help) {
    head(w, name, type, help);
    wbuf_fmt(w, "splitinf_%s %.6f\n", name, ms / 1e3);
}

/* A label's value: quotes, backslashes and newlines escaped. */
static void label(struct wbuf *w, const char *name, const char *value) {
    wbuf_fmt(w, "%s=\"", name);
    for (; value && *value; value++) {
        if (*value == '\n')
            wbuf_str(w, "\\n");
        else {
            if (*value == '"' || *value == '\\')
                wbuf_u8(w, '\\');
            wbuf_u8(w, (uint8_t)*value);
        }
    }
    wbuf_u8(w, '"');
}

static void sessions_text(struct wbuf *w, const struct batch_stats *b) {
    gauge(w, "sessions", b->sessions, "Sessions that exist.");
    gauge(w, "sessions_attached", b->attached, "Sessions that have a connection.");
    counter(w, "sessions_total", b->sessions_all, "Sessions made since the start.");
    counter(w, "sessions_resumed_total", b->resumed, "Times that a session went on over a new connection.");
    counter(w, "sessions_evicted_total", b->evicted, "Sessions without a connection that made room for others.");
    counter(w, "sessions_expired_total", b->expired, "Sessions without a connection whose time to live was over.");
    counter(w, "sessions_refused_total", b->refused, "HELLO messages answered with a refusal.");
    gauge(w, "kv_slots", b->kv_slots, "Positions that the KV cache holds.");
    gauge(w, "kv_slots_reserved", b->kv_slots_reserved, "Positions promised to sessions.");
    gauge(w, "kv_slots_used", b->kv_slots_used, "Positions that hold a node.");
}

static void passes_text(struct wbuf *w, const struct batch_stats *b) {
    enum { N = sizeof b->pass_rows_le / sizeof *b->pass_rows_le };
    uint64_t sum = 0;
    counter(w, "rows_total", b->rows, "Rows computed.");
    counter(w, "rows_cancelled_total", b->cancelled_rows, "Rows dropped before or while they were computed.");
    seconds(w, "busy_seconds_total", "counter", b->busy_ms, "Time in forward passes.");
    head(w, "pass_rows", "histogram", "Forward passes by their rows.");
    for (int i = 0; i < N; i++) {
        sum += b->pass_rows_le[i];
        if (i + 1 < N)
            wbuf_fmt(w, "splitinf_pass_rows_bucket{le=\"%d\"} %" PRIu64 "\n", 1 << i, sum);
    }
    wbuf_fmt(w, "splitinf_pass_rows_bucket{le=\"+Inf\"} %" PRIu64 "\n", sum);
    wbuf_fmt(w, "splitinf_pass_rows_sum %" PRIu64 "\nsplitinf_pass_rows_count %" PRIu64 "\n", b->pass_rows, sum);
    gauge(w, "queued_windows", b->queued_windows, "Windows that wait for a pass.");
    counter(w, "windows_total", b->windows, "Windows taken from the queue.");
    seconds(w, "queue_wait_seconds_total", "counter", b->wait_ms, "Time that windows waited in the queue, in all.");
}

static void network_text(struct wbuf *w, const struct cloud_counters *c) {
    gauge(w, "connections", c->open, "Open connections, strangers too.");
    gauge(w, "connections_strangers", c->strangers, "Open connections that have not said HELLO.");
    gauge(w, "connections_closing", c->closing, "Open connections on which everything was said.");
    counter(w, "connections_total", c->accepted, "Connections accepted.");
    counter(w, "accept_errors_total", c->accept_errors, "Times that accepting a connection failed.");
    counter(w, "handshakes_total", c->handshakes, "TLS handshakes with an allowed pin.");
    counter(w, "handshakes_failed_total", c->ended[END_HANDSHAKE] + c->ended[END_PIN],
            "TLS handshakes that failed, or whose pin is not allowed.");
    counter(w, "handshakes_delayed_total", c->delayed, "Handshakes that had to wait, for there were too many.");
    head(w, "connections_ended_total", "counter", "Connections that ended or were refused, by reason.");
    for (int i = 0; i < N_CONN_ENDS; i++)
        wbuf_fmt(w, "splitinf_connections_ended_total{reason=\"%s\"} %" PRIu64 "\n", conn_end_name((enum conn_end)i),
                 c->ended[i]);
    counter(w, "frames_received_total", c->frames_in, "Frames received.");
    counter(w, "frames_sent_total", c->frames_out, "Frames sent.");
    counter(w, "pings_total", c->pings, "PING messages answered.");
    counter(w, "received_bytes_total", c->bytes_in, "Bytes of frames received.");
    counter(w, "sent_bytes_total", c->bytes_out, "Bytes of frames sent.");
}

void metrics_text(struct wbuf *w, const struct metrics_view *v) {
    head(w, "build_info", "gauge", "What runs here; always 1.");
    wbuf_str(w, "splitinf_build_info{");
    label(w, "version", v->version ? v->version : "unknown");
    wbuf_u8(w, ',');
    label(w, "backend", v->backend ? v->backend : "unknown");
    wbuf_fmt(w, ",protocol=\"%d\"} 1\n", WIRE_VERSION);
    seconds(w, "uptime_seconds", "gauge", v->uptime_ms, "Time since the start.");
    gauge(w, "draining", v->draining, "1 while the cloud takes no new sessions because it is going away.");
    sessions_text(w, &v->batch);
    passes_text(w, &v->batch);
    network_text(w, &v->net);
}

struct metrics_http {
    struct evhttp *http;
    uint16_t port;
    metrics_fn collect;
    void *ctx;
};

static void reply(struct evhttp_request *req, int code, const char *reason, const char *type, const void *p, size_t n) {
    struct evbuffer *body = evbuffer_new();
    evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", type);
    evhttp_add_header(evhttp_request_get_output_headers(req), "Cache-Control", "no-store");
    if (!body || evbuffer_add(body, p, n) != 0)
        evhttp_send_error(req, HTTP_INTERNAL, NULL);
    else
        evhttp_send_reply(req, code, reason, body);
    if (body)
        evbuffer_free(body);
}

static void on_metrics(struct evhttp_request *req, void *arg) {
    struct metrics_http *m = arg;
    struct metrics_view v = {0};
    struct wbuf w = {0};
    m->collect(m->ctx, &v);
    metrics_text(&w, &v);
    if (w.bad)
        evhttp_send_error(req, HTTP_INTERNAL, NULL);
    else
        reply(req, HTTP_OK, "OK", "text/plain; version=0.0.4; charset=utf-8", w.p, w.n);
    wbuf_free(&w);
}

static void on_health(struct evhttp_request *req, void *arg) {
    static const char ok[] = "{\"status\":\"ok\"}\n", draining[] = "{\"status\":\"draining\"}\n";
    struct metrics_http *m = arg;
    struct metrics_view v = {0};
    m->collect(m->ctx, &v);
    if (v.draining)
        reply(req, HTTP_SERVUNAVAIL, "Service Unavailable", "application/json", draining, sizeof draining - 1);
    else
        reply(req, HTTP_OK, "OK", "application/json", ok, sizeof ok - 1);
}

static void on_other(struct evhttp_request *req, void *arg) {
    static const char text[] = "there are /metrics and /health\n";
    (void)arg;
    reply(req, HTTP_NOTFOUND, "Not Found", "text/plain; charset=utf-8", text, sizeof text - 1);
}

static void on_resume(evutil_socket_t fd, short what, void *listener) {
    (void)fd;
    (void)what;
    evconnlistener_enable(listener);
}

/* Out of descriptors, most likely. Without a pause libevent would say so at every turn of the loop. */
static void on_accept_error(struct evconnlistener *l, void *arg) {
    static const struct timeval pause = {.tv_sec = 1};
    (void)arg; /* evhttp's own */
    if (event_base_once(evconnlistener_get_base(l), -1, EV_TIMEOUT, on_resume, l, &pause) == 0)
        evconnlistener_disable(l);
}

int metrics_http_start(struct metrics_http **out, struct event_base *base, const char *address, metrics_fn collect,
                       void *ctx, struct err *e) {
    struct metrics_http *m = calloc(1, sizeof *m);
    struct evconnlistener *l = NULL;
    int fd = -1;
    if (!m)
        goto no_memory;
    m->collect = collect;
    m->ctx = ctx;
    fd = listen_tcp(address, &m->port, e);
    if (fd < 0)
        goto fail;
    m->http = evhttp_new(base);
    l = m->http ? evconnlistener_new(base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd) : NULL;
    if (!l)
        goto no_memory;
    fd = -1; /* the listener's */
    if (!evhttp_bind_listener(m->http, l))
        goto no_memory;
    evconnlistener_set_error_cb(l, on_accept_error);
    l = NULL; /* the server's */
    evhttp_set_max_headers_size(m->http, MAX_HEADERS);
    evhttp_set_max_body_size(m->http, MAX_BODY);
    evhttp_set_timeout(m->http, TIMEOUT_S);
    evhttp_set_allowed_methods(m->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    if (evhttp_set_cb(m->http, "/metrics", on_metrics, m) != 0 || evhttp_set_cb(m->http, "/health", on_health, m) != 0)
        goto no_memory;
    evhttp_set_gencb(m->http, on_other, m);
    *out = m;
    return 0;
no_memory:
    err_set(e, ERR_MEMORY, "out of memory");
fail:
    if (l)
        evconnlistener_free(l);
    if (fd >= 0)
        close(fd);
    metrics_http_free(m);
    return -1;
}

void metrics_http_free(struct metrics_http *m) {
    if (!m)
        return;
    if (m->http)
        evhttp_free(m->http);
    free(m);
}

uint16_t metrics_http_port(const struct metrics_http *m) {
    return m ? m->port : 0;
}
