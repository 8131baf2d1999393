#include "test/unit/tap_rig.h"

#include "core/base/buf.h"
#include "net/tls.h"
#include "net/wire.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNS = 64, MAX_PLANS = 4, BLOCK = 16384 };
enum { CLIENT, CLOUD };

struct end {
    int fd;
    struct tls *tls; /* NULL: bytes pass as they are */
    bool ready;      /* TLS is up */
    bool ended;      /* nothing more comes from there */
    struct wbuf in;  /* came, and is no whole unit yet */
    struct wbuf out; /* to be sent there; [0, sent) was */
    size_t sent;
};

struct conn {
    int number;
    struct end end[2];
    int matched[MAX_PLANS];
    bool stalled, broken, dead; /* broken: what still comes is thrown away */
};

struct tap {
    pthread_t thread;
    pthread_mutex_t lock;
    int listener, wake;
    uint16_t port, target;
    struct tls_config *as_cloud, *as_client;
    bool stop, blackout;
    struct tap_plan plans[MAX_PLANS];
    bool done[MAX_PLANS];
    int n_plans, hits;
    struct conn conns[MAX_CONNS];
    int n_conns;
};

static bool accept_all(void *ctx, const struct pin *pin) {
    (void)ctx, (void)pin;
    return true;
}

/* ---- bytes ---- */

static enum tls_status end_read(struct end *s, void *p, size_t cap, size_t *n) {
    struct err e = {0};
    if (s->tls)
        return tls_read(s->tls, p, cap, n, &e);
    ssize_t got = recv(s->fd, p, cap, MSG_DONTWAIT);
    *n = got > 0 ? (size_t)got : 0;
    return got > 0 ? TLS_DONE : got == 0 ? TLS_CLOSED : errno == EAGAIN ? TLS_WANT_READ : TLS_FAILED;
}

static enum tls_status end_write(struct end *s, const void *p, size_t len, size_t *n) {
    struct err e = {0};
    if (s->tls)
        return tls_write(s->tls, p, len, n, &e);
    ssize_t put = send(s->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    *n = put > 0 ? (size_t)put : 0;
    return put > 0 ? TLS_DONE : errno == EAGAIN ? TLS_WANT_WRITE : TLS_FAILED;
}

/* Sends what the socket takes. */
static bool end_flush(struct end *s) {
    while (s->ready && s->sent < s->out.n) {
        size_t n = 0;
        enum tls_status st = end_write(s, s->out.p + s->sent, s->out.n - s->sent, &n);
        s->sent += n;
        if (st == TLS_WANT_READ || st == TLS_WANT_WRITE)
            return true;
        if (st != TLS_DONE)
            return false;
    }
    if (s->sent == s->out.n) {
        wbuf_clear(&s->out);
        s->sent = 0;
    }
    return true;
}

/* ---- connections ---- */

static void conn_close(struct conn *c, bool reset) {
    const struct linger now = {.l_onoff = 1};
    for (int i = 0; i < 2; i++) {
        struct end *s = &c->end[i];
        tls_free(s->tls);
        wbuf_free(&s->in);
        wbuf_free(&s->out);
        if (s->fd >= 0 && reset)
            setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        if (s->fd >= 0)
            close(s->fd);
        *s = (struct end){.fd = -1};
    }
    c->dead = true;
}

static void conn_break(struct conn *c, enum tap_fault fault) {
    if (fault == TAP_STALL)
        c->stalled = true;
    else if (fault == TAP_RESET)
        conn_close(c, true);
    else {
        for (int i = 0; i < 2; i++)
            if (c->end[i].fd >= 0)
                shutdown(c->end[i].fd, SHUT_WR);
        c->broken = true; /* and closes when they do: with unread bytes this would be a reset */
    }
}

static void hit(struct tap *t, struct conn *c, int plan) {
    t->done[plan] = true;
    t->hits++;
    t->blackout = t->blackout || t->plans[plan].lasting;
    conn_break(c, t->plans[plan].fault);
}

/* The plan that this unit completes, or -1. */
static int find_plan(struct tap *t, struct conn *c, int from, int type, const uint8_t *payload, size_t n) {
    for (int i = 0; i < t->n_plans; i++) {
        const struct tap_point *at = &t->plans[i].at;
        if (t->done[i] || at->conn > c->number || at->type != type || at->up != (from == CLIENT) ||
            (at->only && !at->only(payload, n)))
            continue;
        if (++c->matched[i] == at->nth)
            return i;
    }
    return -1;
}

/* The length of the unit that begins here; 0: not even its head is there. */
static size_t unit_size(const struct end *s) {
    const uint8_t *p = s->in.p;
    if (s->in.n < WIRE_HEAD)
        return 0;
    return s->tls ? 4 + (p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24)
                  : 5 + ((size_t)p[3] << 8 | p[4]);
}

/* Passes on what came from one end, unit by unit. false: the connection is not what it was. */
static bool relay(struct tap *t, struct conn *c, int from) {
    struct end *s = &c->end[from], *to = &c->end[!from];
    for (size_t n; (n = unit_size(s)) != 0 && s->in.n >= n;) {
        int type = s->tls ? s->in.p[4] : TAP_RECORD;
        int plan = find_plan(t, c, from, type, s->in.p + WIRE_HEAD, n - WIRE_HEAD);
        enum tap_part part = plan < 0 ? TAP_AFTER : t->plans[plan].at.part;
        wbuf_put(&to->out, s->in.p, part == TAP_AFTER ? n : part == TAP_HALF ? n / 2 : 0);
        s->in.n -= n;
        memmove(s->in.p, s->in.p + n, s->in.n);
        bool ok = end_flush(to);
        if (plan >= 0)
            hit(t, c, plan);
        else if (!ok)
            conn_close(c, false);
        if (plan >= 0 || !ok)
            return false;
    }
    return true;
}

static void throw_away(struct conn *c) {
    char block[4096];
    for (int i = 0; i < 2; i++)
        for (ssize_t n = 1; n > 0 && !c->end[i].ended;) {
            n = recv(c->end[i].fd, block, sizeof block, MSG_DONTWAIT);
            c->end[i].ended = n == 0 || (n < 0 && errno != EAGAIN);
        }
    if (c->end[CLIENT].ended && c->end[CLOUD].ended)
        conn_close(c, false);
}

static bool shake_hands(struct conn *c) {
    struct err e = {0};
    for (int i = 0; i < 2; i++) {
        struct end *s = &c->end[i];
        if (s->ready)
            continue;
        enum tls_status st = tls_handshake(s->tls, &e);
        s->ready = st == TLS_DONE;
        if (st == TLS_FAILED || st == TLS_CLOSED)
            return false;
    }
    return true;
}

static void serve(struct tap *t, struct conn *c) {
    uint8_t block[BLOCK];
    if (c->broken) {
        throw_away(c);
        return;
    }
    if (!shake_hands(c)) {
        conn_close(c, false);
        return;
    }
    for (int i = 0; i < 2; i++) {
        struct end *s = &c->end[i], *to = &c->end[!i];
        while (s->ready && !s->ended) {
            size_t n = 0;
            enum tls_status st = end_read(s, block, sizeof block, &n);
            if (st == TLS_WANT_READ || st == TLS_WANT_WRITE)
                break;
            wbuf_put(&s->in, block, n);
            s->ended = st != TLS_DONE;
            if (!relay(t, c, i))
                return;
            if (!s->ended)
                continue;
            if (to->tls && st == TLS_CLOSED)
                tls_close_notify(to->tls);
            shutdown(to->fd, SHUT_WR);
        }
        if (!end_flush(to)) {
            conn_close(c, false);
            return;
        }
    }
    if (c->end[CLIENT].ended && c->end[CLOUD].ended)
        conn_close(c, false);
}

static bool counts_records(const struct tap *t, int conn) {
    bool any = false;
    for (int i = 0; i < t->n_plans; i++)
        any = any || (!t->done[i] && t->plans[i].at.conn <= conn && t->plans[i].at.type == TAP_RECORD);
    return any;
}

static int reach(uint16_t port) {
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (connect(fd, (const struct sockaddr *)&a, sizeof a) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void on_accept(struct tap *t) {
    struct err e = {0};
    int fd = accept4(t->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), plan;
    if (fd < 0)
        return;
    if (t->n_conns == MAX_CONNS) {
        close(fd);
        return;
    }
    struct conn *c = &t->conns[t->n_conns];
    *c = (struct conn){.number = t->n_conns++, .end = {{.fd = fd}, {.fd = -1}}, .stalled = t->blackout};
    if (c->stalled)
        return;
    if ((plan = find_plan(t, c, CLIENT, TAP_CONNECT, NULL, 0)) >= 0) {
        c->end[CLOUD].ended = true;
        hit(t, c, plan);
        return;
    }
    c->end[CLOUD].fd = reach(t->target);
    bool raw = counts_records(t, c->number);
    c->end[CLIENT].ready = c->end[CLOUD].ready = raw;
    if (c->end[CLOUD].fd < 0 ||
        (!raw && (tls_create(&c->end[CLIENT].tls, t->as_cloud, fd, accept_all, NULL, &e) != 0 ||
                  tls_create(&c->end[CLOUD].tls, t->as_client, c->end[CLOUD].fd, accept_all, NULL, &e) != 0)))
        conn_close(c, true);
}

static void *run(void *arg) {
    struct tap *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        struct pollfd p[2 + 2 * MAX_CONNS] = {{.fd = t->listener, .events = POLLIN}, {.fd = t->wake, .events = POLLIN}};
        nfds_t n = 2;
        for (int i = 0; i < t->n_conns; i++)
            for (int k = 0; k < 2; k++, n++) {
                const struct conn *c = &t->conns[i];
                const struct end *s = &c->end[k];
                short in = s->ended ? 0 : POLLIN, out = s->sent < s->out.n ? POLLOUT : 0;
                p[n] = (struct pollfd){.fd = c->dead || c->stalled || !(in | out) ? -1 : s->fd,
                                       .events = (short)(in | out)};
            }
        pthread_mutex_unlock(&t->lock);
        poll(p, n, -1);
        pthread_mutex_lock(&t->lock);
        uint64_t any;
        if (p[1].revents && read(t->wake, &any, sizeof any) < 0)
            continue;
        for (int i = 0; i < t->n_conns; i++)
            if (!t->conns[i].dead && !t->conns[i].stalled)
                serve(t, &t->conns[i]);
        if (p[0].revents)
            on_accept(t);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- from outside ---- */

static void wake(struct tap *t) {
    uint64_t one = 1;
    ssize_t n = write(t->wake, &one, sizeof one);
    (void)n;
}

struct tap *tap_start(uint16_t port, const struct identity *cloud, const struct identity *client) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    struct err e = {0};
    struct tap *t = calloc(1, sizeof *t);
    t->target = port;
    pthread_mutex_init(&t->lock, NULL);
    cr_assert_eq(tls_config_create(&t->as_cloud, true, cloud, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_config_create(&t->as_client, false, client, &e), 0, "%s", e.msg);
    t->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    t->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert(t->wake >= 0 && bind(t->listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(t->listener, 16) == 0 &&
              getsockname(t->listener, (struct sockaddr *)&a, &n) == 0);
    t->port = ntohs(a.sin_port);
    cr_assert_eq(pthread_create(&t->thread, NULL, run, t), 0);
    return t;
}

void tap_stop(struct tap *t) {
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_mutex_unlock(&t->lock);
    wake(t);
    pthread_join(t->thread, NULL);
    for (int i = 0; i < t->n_conns; i++)
        if (!t->conns[i].dead)
            conn_close(&t->conns[i], true);
    close(t->listener);
    close(t->wake);
    tls_config_free(t->as_cloud);
    tls_config_free(t->as_client);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

uint16_t tap_port(const struct tap *t) {
    return t->port;
}

void tap_plans(struct tap *t, const struct tap_plan *plans, int n) {
    pthread_mutex_lock(&t->lock);
    memcpy(t->plans, plans, (size_t)n * sizeof *plans);
    memset(t->done, 0, sizeof t->done);
    t->n_plans = n;
    pthread_mutex_unlock(&t->lock);
}

void tap_break(struct tap *t, enum tap_fault fault, bool lasting) {
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < t->n_conns; i++)
        if (!t->conns[i].dead && !t->conns[i].broken && !t->conns[i].stalled)
            conn_break(&t->conns[i], fault);
    t->hits++;
    t->blackout = t->blackout || lasting;
    pthread_mutex_unlock(&t->lock);
    wake(t);
}

void tap_heal(struct tap *t) {
    pthread_mutex_lock(&t->lock);
    t->blackout = false;
    pthread_mutex_unlock(&t->lock);
}

int tap_hits(struct tap *t) {
    pthread_mutex_lock(&t->lock);
    int n = t->hits;
    pthread_mutex_unlock(&t->lock);
    return n;
}
