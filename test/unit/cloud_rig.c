#include "test/unit/cloud_rig.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The stage. */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;
    unsigned passes;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

void rig_hold(bool on) {
    pthread_mutex_lock(&gate.lock);
    gate.hold = on;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

void rig_await_pass(void) {
    unsigned n = 0;
    for (double t0 = clock_ms(); n == 0; poll(NULL, 0, 1)) {
        pthread_mutex_lock(&gate.lock);
        n = gate.passes;
        pthread_mutex_unlock(&gate.lock);
        cr_assert_lt(clock_ms() - t0, RIG_WAIT_MS);
    }
}

uint32_t rig_random(void) {
    static uint64_t seed = 88172645463325252u; /* xorshift */
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static int fake_kv_create(struct stage *s, uint32_t n_slots, enum dtype type, struct kv **out, struct err *e) {
    static int there;
    (void)s;
    (void)n_slots;
    (void)type;
    (void)e;
    *out = (struct kv *)&there;
    return 0;
}

static void fake_kv(struct kv *kv) {
    (void)kv;
}

static int fake_layers(struct stage *s, struct kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e) {
    (void)s;
    (void)kv;
    (void)b;
    (void)lo;
    (void)hi;
    (void)x;
    (void)e;
    pthread_mutex_lock(&gate.lock);
    gate.passes++;
    while (gate.hold)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    return 0;
}

static size_t fake_bytes(const struct stage *s) {
    (void)s;
    return 0;
}

static const struct backend_ops fake_ops = {
    .name = "fake",
    .stage_bytes = fake_bytes,
    .kv_create = fake_kv_create,
    .kv_free = fake_kv,
    .kv_clear = fake_kv,
    .layers = fake_layers,
};

/* The log. */

static struct {
    pthread_mutex_t lock;
    char *text;
    size_t n, cap;
} lines = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep_line(void *ctx, enum log_level level, const char *line) {
    size_t n = strlen(line);
    (void)ctx;
    (void)level;
    if (getenv("CLOUD_RIG_LOG"))
        fprintf(stderr, "%s\n", line);
    pthread_mutex_lock(&lines.lock);
    if (lines.n + n + 2 > lines.cap) {
        lines.cap = 2 * (lines.n + n + 2);
        lines.text = realloc(lines.text, lines.cap);
    }
    memcpy(lines.text + lines.n, line, n);
    lines.n += n;
    lines.text[lines.n++] = '\n';
    lines.text[lines.n] = '\0';
    pthread_mutex_unlock(&lines.lock);
}

int log_count(const char *text) {
    int n = 0;
    pthread_mutex_lock(&lines.lock);
    for (const char *at = lines.text; at && (at = strstr(at, text)); at++)
        n++;
    pthread_mutex_unlock(&lines.lock);
    return n;
}

static void nap(void) {
    poll(NULL, 0, 2);
}

void log_await(const char *text, int n) {
    for (double t0 = clock_ms(); log_count(text) < n; nap())
        cr_assert_lt(clock_ms() - t0, RIG_WAIT_MS, "no log line with '%s'; the log:\n%s", text, lines.text);
}

/* The cloud. */

void cloud_rig_init(struct cloud_rig *r, const char *allow_file) {
    struct err e = {0};
    *r = (struct cloud_rig){0};
    log_to(keep_line, NULL, LOG_DEBUG);
    r->config = (struct model_config){
        .hidden = RIG_HIDDEN, .n_layers = RIG_LAYERS, .n_heads = 2, .n_kv_heads = 2, .head_dim = 32, .max_ctx = 4096};
    r->stage = (struct stage){.ops = &fake_ops, .config = &r->config, .part = {.lo = 1, .hi = RIG_LAYERS - 1}};
    cr_assert_eq(identity_ephemeral(&r->id, &e), 0, "%s", e.msg);
    cr_assert_eq(identity_ephemeral(&r->client, &e), 0, "%s", e.msg);
    cr_assert_eq(allow_list_create(&r->allow, identity_pin(r->client), allow_file ? 0 : 1, allow_file, &e), 0, "%s",
                 e.msg);
    r->o = (struct cloud_opts){
        .listen = "127.0.0.1:0",
        .metrics = "127.0.0.1:0",
        .id = r->id,
        .allow = r->allow,
        .handshake_ms = 60000,
        .knocks_each = 1000000,
        .knocks_all = 1000000,
        .idle_ms = 60000,
        .version = "test \"1\"",
        .batch = {.stage = &r->stage,
                  .mine = {.version = WIRE_VERSION,
                           .n_layers = RIG_LAYERS,
                           .lo = 1,
                           .hi = RIG_LAYERS - 1,
                           .hidden = RIG_HIDDEN},
                  .kv_bytes = 64 << 20,
                  .max_sessions = 32,
                  .max_ctx = 2048,
                  .max_live = 2048,
                  .max_rows = 64,
                  .session_ttl_ms = 60000,
                  .backend_name = "fake"},
    };
    memset(r->o.batch.mine.config, 7, WIRE_DIGEST);
    memset(r->o.batch.mine.weights, 9, WIRE_DIGEST);
}

static void *run(void *arg) {
    struct cloud_rig *r = arg;
    struct err e = {0};
    r->rc = cloud_run(r->cloud, &e);
    return NULL;
}

void cloud_rig_start(struct cloud_rig *r) {
    struct err e = {0};
    cr_assert_eq(cloud_create(&r->cloud, &r->o, &e), 0, "%s", e.msg);
    cr_assert_eq(pthread_create(&r->thread, NULL, run, r), 0);
}

void cloud_rig_join(struct cloud_rig *r) {
    if (!r->joined)
        pthread_join(r->thread, NULL);
    r->joined = true;
    cr_assert_eq(r->rc, 0);
}

void cloud_rig_stop(struct cloud_rig *r) {
    rig_hold(false);
    cloud_stop(r->cloud, 0);
    cloud_stop(r->cloud, 0);
    cloud_rig_join(r);
    cloud_free(r->cloud);
    allow_list_free(r->allow);
    identity_free(r->id);
    identity_free(r->client);
}

/* TCP. */

_Thread_local uint32_t rig_source;

int tcp_connect(uint16_t port) {
    const struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(rig_source)};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    cr_assert(fd >= 0 && (!rig_source || bind(fd, (const struct sockaddr *)&from, sizeof from) == 0));
    cr_assert(connect(fd, (struct sockaddr *)&a, sizeof a) == 0, "connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static bool wait_fd(int fd, short events, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, timeout_ms) > 0;
}

size_t tcp_drain(int fd, char *buf, size_t cap) {
    size_t n = 0;
    for (;;) {
        char block[4096];
        cr_assert(wait_fd(fd, POLLIN, RIG_WAIT_MS), "the cloud did not close the connection");
        ssize_t got = recv(fd, block, sizeof block, 0);
        if (got <= 0)
            return n;
        size_t keep = (size_t)got < cap - n ? (size_t)got : cap - n;
        memcpy(buf + n, block, keep);
        n += keep;
    }
}

bool tcp_closed(int fd, int timeout_ms) {
    char c;
    return wait_fd(fd, POLLIN, timeout_ms) && recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* Peers. */

static bool accept_any(void *ctx, const struct pin *pin) {
    const struct cloud_rig *r = ctx;
    return pin_equal(pin, identity_pin(r->id));
}

static bool wait_tls(struct guest *p, enum tls_status st, int timeout_ms) {
    return wait_fd(p->fd, st == TLS_WANT_WRITE ? POLLOUT : POLLIN, timeout_ms);
}

int guest_connect(struct guest *p, const struct cloud_rig *r, const struct identity *id) {
    struct err e = {0};
    enum tls_status st;
    *p = (struct guest){.fd = tcp_connect(cloud_port(r->cloud))};
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    cr_assert_eq(tls_config_create(&p->config, false, id, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_create(&p->tls, p->config, p->fd, accept_any, (void *)(uintptr_t)r, &e), 0, "%s", e.msg);
    while ((st = tls_handshake(p->tls, &e)) == TLS_WANT_READ || st == TLS_WANT_WRITE)
        cr_assert(wait_tls(p, st, RIG_WAIT_MS), "the handshake does not end");
    return st == TLS_DONE ? 0 : -1;
}

void guest_close(struct guest *p) {
    tls_free(p->tls);
    tls_config_free(p->config);
    if (p->fd >= 0)
        close(p->fd);
    wbuf_free(&p->in);
    *p = (struct guest){.fd = -1};
}

int guest_send(struct guest *p, const void *bytes, size_t n) {
    struct err e = {0};
    const uint8_t *at = bytes;
    while (n > 0) {
        size_t m = 0;
        enum tls_status st = tls_write(p->tls, at, n, &m, &e);
        if (st == TLS_DONE) {
            at += m;
            n -= m;
        } else if (st != TLS_WANT_READ && st != TLS_WANT_WRITE) {
            return -1;
        } else {
            cr_assert(wait_tls(p, st, RIG_WAIT_MS), "the cloud does not read");
        }
    }
    return 0;
}

static int read_exactly(struct guest *p, size_t n, double until) {
    struct err e = {0};
    while (p->in.n < n) {
        size_t m = 0;
        cr_assert_eq(wbuf_room(&p->in, n - p->in.n), 0);
        enum tls_status st = tls_read(p->tls, p->in.p + p->in.n, n - p->in.n, &m, &e);
        double left = until - clock_ms();
        if (st == TLS_DONE)
            p->in.n += m;
        else if (st == TLS_CLOSED)
            return 0;
        else if (st == TLS_FAILED)
            return -1;
        else if (left <= 0 || !wait_tls(p, st, (int)left + 1))
            return -2;
    }
    return 1;
}

int guest_frame(struct guest *p, int timeout_ms) {
    double until = clock_ms() + timeout_ms;
    struct err e = {0};
    int type;
    size_t len;
    wbuf_clear(&p->in);
    int rc = read_exactly(p, WIRE_HEAD, until);
    if (rc <= 0)
        return rc;
    cr_assert_eq(wire_head(p->in.p, p->in.n, WIRE_MAX_FRAME, &type, &len, &e), 1, "%s", e.msg);
    wbuf_clear(&p->in);
    rc = read_exactly(p, len, until);
    return rc == 1 ? type : rc;
}

void guest_await(struct guest *p, int type) {
    int got, code;
    char text[WIRE_MAX_TEXT + 1] = "";
    struct err e = {0};
    do {
        got = guest_frame(p, RIG_WAIT_MS);
        if (got == WIRE_ERROR)
            wire_get_error(p->in.p, p->in.n, &code, text, &e);
        cr_assert(got > 0 && (got != WIRE_ERROR || type == WIRE_ERROR), "waiting for %s: %d %s", wire_type_name(type),
                  got, text);
    } while (got != type);
}

void guest_await_error(struct guest *p, int code) {
    char text[WIRE_MAX_TEXT + 1] = "";
    struct err e = {0};
    int got = 0;
    guest_await(p, WIRE_ERROR);
    cr_assert_eq(wire_get_error(p->in.p, p->in.n, &got, text, &e), 0);
    cr_assert_eq(got, code, "code %d: %s", got, text);
    cr_assert_eq(guest_frame(p, RIG_WAIT_MS), 0, "ERROR was not the last message");
}

void guest_hello(struct guest *p, const struct cloud_rig *r) {
    struct wbuf w = {0};
    struct err e = {0};
    struct wire_hello h = r->o.batch.mine;
    h.ctx = 2000;
    h.live = 512;
    h.codec = CODEC_F16;
    wire_put_hello(&w, &h);
    cr_assert_eq(guest_send(p, w.p, w.n), 0);
    wbuf_free(&w);
    guest_await(p, WIRE_WELCOME);
    cr_assert_eq(wire_get_welcome(p->in.p, p->in.n, &p->welcome, &e), 0, "%s", e.msg);
}

void guest_open(struct guest *p, const struct cloud_rig *r) {
    cr_assert_eq(guest_connect(p, r, r->client), 0);
    guest_hello(p, r);
}

int guest_submit(struct guest *p, int n) {
    struct wbuf w = {0};
    struct node *nodes = calloc((size_t)n, sizeof *nodes);
    float *x = calloc((size_t)n * RIG_HIDDEN, sizeof *x);
    cr_assert(nodes && x && n <= RIG_MAX_WINDOW);
    for (int i = 0; i < n; i++) {
        nodes[i] = (struct node){.id = p->next_id + 1, .parent = p->next_id, .pos = p->pos++};
        p->next_id++;
        for (int k = 0; k < RIG_HIDDEN; k++)
            x[i * RIG_HIDDEN + k] = (float)(k - 32) / 8;
    }
    const struct wire_submit_parts s = {
        .seq = ++p->seq, .nodes = nodes, .n_nodes = n, .commit = p->fresh, .n_commit = p->n_fresh};
    wire_put_submit(&w, &s, CODEC_F16, RIG_HIDDEN, x);
    cr_assert(!w.bad);
    int rc = guest_send(p, w.p, w.n);
    wbuf_free(&w);
    p->n_fresh = n;
    for (int i = 0; i < n; i++)
        p->fresh[i] = nodes[i].id;
    free(nodes);
    free(x);
    return rc;
}

void guest_ping(struct guest *p, uint64_t any) {
    struct wbuf w = {0};
    struct err e = {0};
    uint64_t got = 0;
    wire_put_ping(&w, false, any);
    cr_assert_eq(guest_send(p, w.p, w.n), 0);
    wbuf_free(&w);
    guest_await(p, WIRE_PONG);
    cr_assert_eq(wire_get_ping(p->in.p, p->in.n, &got, &e), 0);
    cr_assert_eq(got, any);
}

void rig_check_served(const struct cloud_rig *r) {
    struct guest p;
    guest_open(&p, r);
    cr_assert_eq(guest_submit(&p, 3), 0);
    guest_await(&p, WIRE_RESULT);
    guest_close(&p);
}
