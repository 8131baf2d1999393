#include "net/client/channel.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    STAGE = 16 << 10,  /* one TLS record */
    AT_ONCE = 1 << 20, /* bytes read before others get the lock */
    BYE_MS = 200,
    TICKS = 12,                   /* the thread looks at its timers so often in stall_ms; */
    ASK_AT = 4,                   /* so many of them after the last byte it asks; */
    DEAD_AT = TICKS - ASK_AT - 1, /* and so many later nobody has answered */
    HAND_OVER_MS = 5,
};

struct channel {
    struct tls *tls;
    int fd, wake; /* wake: eventfd */
    struct channel_opts o;
    pthread_t thread;
    bool started, quit;
    bool news; /* a frame for the caller came in this turn of the thread */
    pthread_mutex_t lock;
    pthread_cond_t changed, taken;
    int n_waiting;    /* calls of channel_wait; */
    unsigned n_woken; /* of them came back so far */

    struct wbuf out; /* whole frames; [0, out_at) were sent */
    size_t out_at;
    struct err write_error; /* what the cloud said before may explain it, and is read first */
    bool dead;
    struct err why;
    int code;

    uint32_t max_frame;
    uint8_t stage[STAGE]; /* decrypted, [stage_at, stage_n) not looked at yet */
    size_t stage_at, stage_n;
    uint8_t head[WIRE_HEAD]; /* of the frame that is coming */
    size_t n_head, left;     /* left: payload bytes that are still to come */
    int type;
    struct wbuf payload;

    bool expecting;
    double quiet_from; /* the last sign of life, or since when one is expected */
    double asked;      /* first PING since then; 0: none */
    double said;       /* when something was sent last */
    uint64_t ping;     /* the last one's number */
    double ping_at;    /* 0: answered */
    double rtt_ms, read_ms;
    int unacked; /* bytes in the kernel's send queue at the last look */
};

static void die(struct channel *c, enum err_kind kind, const char *why) {
    if (c->dead)
        return;
    c->dead = true;
    err_set(&c->why, kind, "%s", why);
    pthread_cond_broadcast(&c->changed);
}

/* ---- out ---- */

static size_t out_left(const struct channel *c) {
    return c->out.n - c->out_at;
}

/* Sends what the socket takes. */
static void flush(struct channel *c) {
    struct err e = {0};
    while (out_left(c) > 0 && c->write_error.kind == ERR_NONE) {
        size_t n = 0;
        enum tls_status s = tls_write(c->tls, c->out.p + c->out_at, out_left(c), &n, &e);
        if (s == TLS_FAILED || s == TLS_CLOSED)
            err_set(&c->write_error, s == TLS_FAILED ? e.kind : ERR_IO, "%s",
                    s == TLS_FAILED ? e.msg : "the connection was closed");
        if (s != TLS_DONE)
            break;
        c->out_at += n;
    }
    if (out_left(c) == 0) {
        wbuf_clear(&c->out);
        c->out_at = 0;
    } else if (c->out_at > c->out.n / 2) {
        size_t left = out_left(c);
        memmove(c->out.p, c->out.p + c->out_at, left);
        wipe(c->out.p + left, c->out_at);
        c->out.n = left;
        c->out_at = 0;
    }
}

static void wake(struct channel *c) {
    uint64_t one = 1;
    while (write(c->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

struct wbuf *channel_out(struct channel *c) {
    return &c->out;
}

void channel_send(struct channel *c) {
    if (c->out.bad)
        die(c, ERR_MEMORY, "out of memory for what is to be sent, or the cloud does not take it");
    if (c->dead)
        return;
    c->said = clock_ms();
    flush(c);
    if (c->started && (out_left(c) > 0 || c->write_error.kind != ERR_NONE))
        wake(c);
}

static void ask(struct channel *c, double now) {
    wire_put_ping(&c->out, false, ++c->ping);
    c->ping_at = now;
    if (c->asked == 0)
        c->asked = now;
    channel_send(c);
}

/* ---- in ---- */

static void on_error(struct channel *c) {
    char text[WIRE_MAX_TEXT + 1];
    struct err e = {0};
    if (wire_get_error(c->payload.p, c->payload.n, &c->code, text, &e) != 0)
        die(c, e.kind, e.msg);
    else
        die(c, ERR_PEER, text[0] ? text : "an error that it did not explain");
}

static int on_ping(struct channel *c, struct err *e) {
    uint64_t any;
    if (wire_get_ping(c->payload.p, c->payload.n, &any, e) != 0)
        return -1;
    if (c->type == WIRE_PING) {
        wire_put_ping(&c->out, true, any);
        channel_send(c);
    } else if (any == c->ping && c->ping_at != 0) {
        double rtt = clock_ms() - c->ping_at;
        c->rtt_ms = c->rtt_ms == 0 || rtt < c->rtt_ms ? rtt : c->rtt_ms;
        c->ping_at = 0;
    }
    return 0;
}

static int on_frame(struct channel *c, struct err *e) {
    switch (c->type) {
    case WIRE_ERROR:
        on_error(c);
        return 0;
    case WIRE_PING:
    case WIRE_PONG:
        return on_ping(c, e);
    case WIRE_RESULT:
    case WIRE_OPENING:
        c->news = true;
        pthread_cond_broadcast(&c->changed);
        return c->o.frame(c->o.ctx, c->type, &c->payload, e);
    default:
        return err_set(e, ERR_PEER, "a frame of type %d (%s) came, which is not for a client", c->type,
                       wire_type_name(c->type));
    }
}

/* Takes staged bytes until a frame is whole: 1. 0: more are needed. -1: no frame of this protocol. */
static int next_frame(struct channel *c, struct err *e) {
    while (c->n_head < WIRE_HEAD) {
        if (c->stage_at == c->stage_n)
            return 0;
        c->head[c->n_head++] = c->stage[c->stage_at++];
        if (c->n_head < WIRE_HEAD)
            continue;
        wbuf_clear(&c->payload);
        if (wire_head(c->head, WIRE_HEAD, c->max_frame, &c->type, &c->left, e) != 1)
            return -1;
    }
    size_t n = c->stage_n - c->stage_at;
    n = n < c->left ? n : c->left;
    wbuf_put(&c->payload, c->stage + c->stage_at, n);
    if (c->payload.bad)
        return err_set(e, ERR_MEMORY, "out of memory for a frame of the cloud");
    c->stage_at += n;
    c->left -= n;
    if (c->left > 0)
        return 0;
    c->n_head = 0;
    return 1;
}

/* All frames that are staged. */
static void take_frames(struct channel *c) {
    struct err e = {0};
    int rc = 0;
    while (!c->dead && (rc = next_frame(c, &e)) == 1)
        if (on_frame(c, &e) != 0) {
            rc = -1;
            break;
        }
    if (rc >= 0 || c->dead)
        return;
    if (e.kind == ERR_PEER) {
        wire_put_error(&c->out, WIRE_E_PROTOCOL, e.msg);
        flush(c);
    }
    die(c, e.kind, e.msg);
}

/* Stages bytes from the connection: TLS_DONE when there are some. */
static enum tls_status fill(struct channel *c, struct err *e) {
    size_t n = 0;
    enum tls_status s = tls_read(c->tls, c->stage, sizeof c->stage, &n, e);
    c->stage_at = 0;
    c->stage_n = s == TLS_DONE ? n : 0;
    if (s == TLS_DONE) {
        c->quiet_from = clock_ms();
        c->asked = 0;
    }
    return s;
}

static void receive(struct channel *c) {
    double t0 = clock_ms();
    bool awaited = c->n_waiting > 0, all = false;
    size_t n = 0;
    take_frames(c);
    while (!c->dead && !all && n < AT_ONCE && !(c->news && c->n_waiting > 0)) {
        struct err e = {0};
        enum tls_status s = fill(c, &e);
        n += c->stage_n;
        if (s == TLS_FAILED)
            die(c, e.kind, e.msg);
        else if (s == TLS_CLOSED)
            die(c, ERR_IO, "the cloud closed it");
        all = s != TLS_DONE;
        take_frames(c);
    }
    if (awaited)
        c->read_ms += clock_ms() - t0;
    if (c->write_error.kind != ERR_NONE && all)
        die(c, c->write_error.kind, c->write_error.msg);
}

/* ---- the thread ---- */

static struct timespec in_ms(double ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(ms / 1000);
    t.tv_nsec += (long)((ms - 1000.0 * (double)(time_t)(ms / 1000)) * 1e6);
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* Whoever waits for what came has the lock before more is read: decrypting the rest of a large answer takes longer than
 * to wake up, and a mutex does not care who was first. */
static void hand_over(struct channel *c) {
    struct timespec until = in_ms(HAND_OVER_MS);
    unsigned before = c->n_woken;
    while (c->news && c->n_waiting > 0 && c->n_woken == before &&
           pthread_cond_timedwait(&c->taken, &c->lock, &until) == 0)
        ;
    c->news = false;
}

/* Is our own upload getting on? Then the path is alive, however long an answer takes behind it. */
static bool upload_moves(struct channel *c) {
    int unacked = 0;
    if (ioctl(c->fd, SIOCOUTQ, &unacked) != 0)
        return false;
    bool moves = unacked < c->unacked;
    c->unacked = unacked;
    return moves;
}

/* Milliseconds until there is something to do without being woken. */
static int timers(struct channel *c) {
    double now = clock_ms(), tick = (double)c->o.stall_ms / TICKS;
    if (upload_moves(c)) {
        c->quiet_from = now;
        c->asked = 0;
    }
    if (c->asked != 0 && now - c->asked >= tick * DEAD_AT) {
        char why[80];
        snprintf(why, sizeof why, "not a sign of it for %.1f s", (now - c->quiet_from) / 1000);
        die(c, ERR_IO, why);
    } else if (((c->expecting || out_left(c) > 0) && c->asked == 0 && now - c->quiet_from >= tick * ASK_AT) ||
               now - c->said >= c->o.keep_ms) {
        ask(c, now);
    }
    double keep = c->said + c->o.keep_ms - now, wait = keep < tick ? keep : tick;
    return wait < 1 ? 1 : (int)wait;
}

static void *channel_main(void *arg) {
    struct channel *c = arg;
    pthread_mutex_lock(&c->lock);
    ask(c, clock_ms()); /* the first round trip */
    while (!c->quit && !c->dead) {
        int wait = timers(c);
        bool ready = c->stage_at < c->stage_n || tls_pending(c->tls) || c->write_error.kind != ERR_NONE;
        struct pollfd p[2] = {{.fd = c->fd, .events = (short)(POLLIN | (out_left(c) > 0 ? POLLOUT : 0))},
                              {.fd = c->wake, .events = POLLIN}};
        if (c->dead)
            break;
        pthread_mutex_unlock(&c->lock);
        int n = poll(p, 2, ready ? 0 : wait);
        pthread_mutex_lock(&c->lock);
        if (n > 0 && p[1].revents) {
            uint64_t any;
            if (read(c->wake, &any, sizeof any) < 0 && errno != EAGAIN && errno != EINTR)
                die(c, ERR_IO, "an eventfd cannot be read");
        }
        if (ready || (n > 0 && p[0].revents & ~POLLOUT))
            receive(c);
        if (!c->dead)
            flush(c);
        hand_over(c);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- life ---- */

static int handshake(struct channel *c, const char *address, const struct address_wait *w, struct err *e) {
    for (;;) {
        enum tls_status s = tls_handshake(c->tls, e);
        if (s == TLS_DONE)
            return 0;
        if (s == TLS_FAILED || s == TLS_CLOSED)
            return err_set(e, ERR_IO, "the connection was closed");
        int rc = address_poll(c->fd, s == TLS_WANT_READ ? POLLIN : POLLOUT, w);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return err_set(e, ERR_IO, "%s takes a connection but does not answer; is that a cloud of splitinf?",
                           address);
    }
}

int channel_connect(struct channel **out, const char *address, struct tls_config *tls, tls_accept_fn accept, void *ctx,
                    const struct address_wait *w, struct err *e) {
    *out = NULL;
    struct channel *c = calloc(1, sizeof *c);
    pthread_condattr_t monotonic;
    if (!c)
        return err_set(e, ERR_MEMORY, "out of memory for a connection");
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_cond_init(&c->taken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    c->fd = -1;
    c->max_frame = WIRE_FIRST_MAX;
    c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (c->wake < 0)
        err_sys(e, errno, "cannot make an eventfd");
    else if ((c->fd = address_connect(address, w, e)) >= 0 && tls_create(&c->tls, tls, c->fd, accept, ctx, e) == 0 &&
             handshake(c, address, w, e) == 0) {
        *out = c;
        return 0;
    }
    channel_free(c, false);
    return -1;
}

int channel_greet(struct channel *c, const struct wire_hello *h, const struct address_wait *w, struct wire_welcome *m,
                  int *code, struct err *e) {
    *code = 0;
    wire_put_hello(&c->out, h);
    for (;;) {
        int rc = next_frame(c, e);
        if (rc < 0)
            return -1;
        if (rc == 1)
            break;
        channel_send(c);
        enum tls_status s = fill(c, e);
        if (s == TLS_DONE)
            continue;
        if (s == TLS_FAILED || s == TLS_CLOSED)
            return err_set(e, ERR_IO, "the connection was closed before HELLO was answered");
        rc = address_poll(c->fd, (short)(POLLIN | (out_left(c) > 0 ? POLLOUT : 0)), w);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return err_set(e, ERR_IO, "HELLO was not answered in time");
    }
    if (c->type == WIRE_ERROR) {
        on_error(c);
        *code = c->code;
        return err_set(e, c->why.kind, "%s", c->why.msg);
    }
    if (c->type != WIRE_WELCOME)
        return err_set(e, ERR_PEER, "HELLO was answered with a frame of type %d (%s)", c->type,
                       wire_type_name(c->type));
    if (wire_get_welcome(c->payload.p, c->payload.n, m, e) != 0)
        return -1;
    c->max_frame = m->max_frame;
    return 0;
}

int channel_start(struct channel *c, const struct channel_opts *o, struct err *e) {
    c->o = *o;
    c->out.max = o->max_out;
    c->said = c->quiet_from = clock_ms();
    pthread_mutex_lock(&c->lock); /* the thread looks at `started` */
    c->started = thread_start(&c->thread, channel_main, c, "the connection to the cloud", e) == 0;
    pthread_mutex_unlock(&c->lock);
    return c->started ? 0 : -1;
}

/* The cloud hears of the end. What it still sends is read, or a reset might overtake the BYE. */
static void say_bye(struct channel *c) {
    const struct address_wait w = {.until = clock_ms() + BYE_MS};
    wire_put_bye(&c->out);
    for (flush(c); out_left(c) > 0 && c->write_error.kind == ERR_NONE && address_poll(c->fd, POLLOUT, &w) == 1;)
        flush(c);
    tls_close_notify(c->tls);
    if (!c->expecting || shutdown(c->fd, SHUT_WR) != 0)
        return;
    while (address_poll(c->fd, POLLIN, &w) == 1 && recv(c->fd, c->stage, sizeof c->stage, MSG_DONTWAIT) > 0)
        ;
}

void channel_free(struct channel *c, bool bye) {
    if (!c)
        return;
    if (c->started) {
        pthread_mutex_lock(&c->lock);
        c->quit = true;
        pthread_mutex_unlock(&c->lock);
        wake(c);
        pthread_join(c->thread, NULL);
    }
    if (bye && c->started && !c->dead && c->write_error.kind == ERR_NONE)
        say_bye(c);
    tls_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    if (c->wake >= 0)
        close(c->wake);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->taken);
    pthread_mutex_destroy(&c->lock);
    wbuf_free(&c->out);
    wbuf_free(&c->payload);
    wipe_free(c, sizeof *c);
}

void channel_lock(struct channel *c) {
    pthread_mutex_lock(&c->lock);
}

void channel_unlock(struct channel *c) {
    pthread_mutex_unlock(&c->lock);
}

void channel_limit(struct channel *c, uint32_t max_frame) {
    c->max_frame = max_frame;
}

void channel_expect(struct channel *c, bool something) {
    if (something && !c->expecting)
        c->quiet_from = clock_ms();
    c->expecting = something;
}

void channel_wait(struct channel *c, double ms) {
    struct timespec until = in_ms(ms);
    if (c->dead)
        return;
    c->n_waiting++;
    pthread_cond_timedwait(&c->changed, &c->lock, &until);
    c->n_waiting--;
    c->n_woken++;
    pthread_cond_signal(&c->taken);
}

bool channel_dead(struct channel *c, struct err *why, int *code) {
    if (c->dead && why)
        *why = c->why;
    if (c->dead && code)
        *code = c->code;
    return c->dead;
}

void channel_info(struct channel *c, struct channel_info *info) {
    *info = (struct channel_info){.rtt_ms = c->rtt_ms, .read_ms = c->read_ms};
    tls_traffic(c->tls, &info->up, &info->down);
    snprintf(info->suite, sizeof info->suite, "%s", tls_suite(c->tls));
    if (tls_peer_pin(c->tls))
        info->pin = *tls_peer_pin(c->tls);
}
