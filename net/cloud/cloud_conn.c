#include "net/cloud/cloud_conn.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/wire.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_STEP = 16384,   /* room made for a frame that comes: one TLS record */
    WRITE_STEP = 16384,  /* and one on the way out */
    TURN = 256 * 1024,   /* bytes read before others get their turn */
    MAX_OWN = 4096,      /* of PONG and ERROR that the peer does not read: no more is read from it */
    LAST_WORD_MS = 2000, /* for the last frame to leave, and for the peer to close behind it */
    MAX_DISCARD = 4 << 20,
    KEEP = 65536, /* of an output buffer while there is nothing to send */
    KNOCK_AGAIN_MS = 50,
    SIGN_MS = 1000, /* so often a peer from whom nothing is read is told that this side is there */
};

enum conn_state {
    CONN_HANDSHAKE,
    CONN_OPEN,   /* frames go through the port */
    CONN_LAST,   /* the port is closed; what is left to send goes out */
    CONN_LINGER, /* everything was said: until the peer closes, so that a reset does not eat the last words */
    CONN_DEAD,
};

struct conn {
    struct conn_env *env;
    enum conn_state state;
    int fd;
    struct tls *tls;
    struct port *port;
    struct event *readable, *writable, *timer;
    bool want_read, want_write; /* what the events wait for now */
    char peer[PEER_NAME];
    char pin[PIN_TEXT];
    struct peer_address address;
    double since, heard, sent;      /* clock_ms: accepted; last byte in; last byte out, or nothing was to be sent */
    double linger_until, due;       /* due: of the timer */
    bool known, refused_pin, hello; /* its pin is allowed; is not; it has said HELLO */
    bool knocked, waits;            /* its handshake was let through; waits for that */
    bool paused;                    /* nothing is read from it for now, through no fault of its own */
    uint32_t asked;                 /* PINGs that it has not answered yet */

    enum tls_status reading, writing; /* what the last read and write waited for */
    uint8_t head[WIRE_HEAD];
    size_t n_head, left; /* of the frame that comes: bytes of the header so far; of the payload to come */
    int type;
    struct wbuf frame;

    struct wbuf out;         /* taken from the port: whole frames */
    size_t n_out, frame_end; /* sent of it; where the frame that has begun ends */
    struct wbuf own;         /* PONG and ERROR, which go between two frames of out */
    size_t n_own;
    bool step_own; /* where the write that waits was taken from, and its size: it must be repeated as it was */
    size_t step;

    uint64_t bytes_in, bytes_out;
    size_t discarded;
};

/* The log. Whoever has an allowed pin gets each line; strangers share few. */

static void log_stranger(struct conn_env *env, const char *peer, const struct peer_address *a, enum conn_end why,
                         const char *detail) {
    uint8_t key[1 + sizeof a->b] = {(uint8_t)why};
    uint64_t held;
    bool ended = why != N_CONN_ENDS; /* else it has to wait */
    memcpy(key + 1, a->b, sizeof a->b);
    if (log_gate_pass(&env->strangers, key, sizeof key, clock_ms(), &held))
        log_line(LOG_INFO, "conn event=%s peer=%s reason=%s held_back=%" PRIu64 "%s%s%s", ended ? "refused" : "delayed",
                 peer, ended ? conn_end_name(why) : "too many handshakes", held, *detail ? " detail=\"" : "", detail,
                 *detail ? "\"" : "");
}

static void log_pin(struct conn *c) {
    uint64_t held;
    if (log_gate_pass(&c->env->pins, c->pin, strlen(c->pin), clock_ms(), &held))
        log_line(LOG_WARN,
                 "refused pin=%s peer=%s reason=not allowed (add it with --allow or to the allow file, then SIGHUP)",
                 c->pin, c->peer);
}

/* Once per connection: counts and logs why it ends. */
static void count_end(struct conn *c, enum conn_end why, const char *detail) {
    c->env->counters.ended[why]++;
    if (c->known)
        log_line(LOG_INFO,
                 "conn event=closed peer=%s pin=%s reason=%s bytes_in=%" PRIu64 " bytes_out=%" PRIu64 " ms=%.0f%s%s%s",
                 c->peer, c->pin, conn_end_name(why), c->bytes_in, c->bytes_out, clock_ms() - c->since,
                 *detail ? " detail=\"" : "", detail, *detail ? "\"" : "");
    else if (why == END_PIN)
        log_pin(c);
    else if (why != END_STOPPED)
        log_stranger(c->env, c->peer, &c->address, why, detail);
}

void conn_refuse(struct conn_env *env, const struct sockaddr *sa, enum conn_end why) {
    char peer[PEER_NAME];
    struct peer_address a = peer_address(sa);
    peer_name(sa, peer);
    env->counters.ended[why]++;
    log_stranger(env, peer, &a, why, "");
}

/* How it ends. */

static void close_port(struct conn *c) {
    if (c->port)
        port_close(c->port);
    c->port = NULL;
}

static void arm(struct conn *c, double ms) {
    long us = ms > 1 ? (long)(ms * 1e3) : 1000;
    struct timeval t = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    event_add(c->timer, &t);
    c->due = clock_ms() + ms;
}

/* At once. */
static void die(struct conn *c, enum conn_end why, const char *detail) {
    if (c->state < CONN_LAST)
        count_end(c, why, detail);
    close_port(c);
    c->state = CONN_DEAD;
}

/* Nothing is left to say: waits for the peer to close. */
static void linger(struct conn *c) {
    if (shutdown(c->fd, SHUT_WR) != 0) {
        c->state = CONN_DEAD;
        return;
    }
    tls_free(c->tls);
    c->tls = NULL;
    wbuf_free(&c->frame);
    wbuf_free(&c->out);
    wbuf_free(&c->own);
    c->state = CONN_LINGER;
    c->linger_until = clock_ms() + LAST_WORD_MS;
    arm(c, LAST_WORD_MS);
}

/* After what was begun, and an ERROR when code is not 0. */
static void last_word(struct conn *c, enum conn_end why, enum wire_code code, const char *text) {
    count_end(c, why, code ? text : "");
    close_port(c);
    if (c->n_out < c->frame_end) {
        c->out.n = c->frame_end;
    } else { /* no frame has begun: the others are not sent any more */
        wbuf_free(&c->out);
        c->n_out = c->frame_end = 0;
    }
    wbuf_free(&c->frame);
    if (code)
        wire_put_error(&c->own, code, text);
    c->state = CONN_LAST;
    c->linger_until = clock_ms() + LAST_WORD_MS;
    arm(c, LAST_WORD_MS);
}

/* The handshake. */

static bool accept_pin(void *ctx, const struct pin *pin) {
    struct conn *c = ctx;
    pin_format(pin, c->pin);
    c->refused_pin = !allow_list_has(c->env->allow, pin);
    return !c->refused_pin;
}

/* Its first bytes have come: is there time for its handshake? */
static bool let_in(struct conn *c) {
    if (!c->knocked)
        c->knocked = knock_take(&c->env->knock, &c->address, clock_ms());
    if (!c->knocked && !c->waits) {
        c->env->counters.delayed++;
        log_stranger(c->env, c->peer, &c->address, N_CONN_ENDS, "");
    }
    c->waits = !c->knocked;
    if (c->waits) {
        double left = c->since + c->env->handshake_ms - clock_ms();
        arm(c, left < KNOCK_AGAIN_MS ? left : KNOCK_AGAIN_MS);
    }
    return c->knocked;
}

/* Events that are active now keep theirs, which does no harm. */
static void set_urgency(struct conn *c, int urgency) {
    event_priority_set(c->readable, urgency);
    event_priority_set(c->writable, urgency);
    event_priority_set(c->timer, urgency);
}

static void handshake(struct conn *c) {
    struct err e = {0};
    if (!let_in(c))
        return;
    enum tls_status st = tls_handshake(c->tls, &e);
    c->reading = c->writing = st;
    if (st == TLS_WANT_READ || st == TLS_WANT_WRITE)
        return;
    if (st != TLS_DONE) {
        count_end(c, c->refused_pin ? END_PIN : st == TLS_CLOSED ? END_PEER_CLOSED : END_HANDSHAKE, e.msg);
        linger(c); /* TLS has sent its alert */
        return;
    }
    const struct pin *pin = tls_peer_pin(c->tls);
    if (!pin || !allow_list_has(c->env->allow, pin)) { /* nobody gets here; a second lock on the same door */
        die(c, END_PIN, "");
        return;
    }
    c->known = true;
    pin_format(pin, c->pin);
    c->env->counters.handshakes++;
    knock_give_back(&c->env->knock, &c->address, clock_ms());
    set_urgency(c, URGENCY_KNOWN);
    c->port = port_open(c->env->batch, pin, c->peer, &e);
    if (!c->port) {
        last_word(c, END_LINK, WIRE_E_FAILED, e.msg);
        return;
    }
    c->heard = c->sent = clock_ms();
    c->state = CONN_OPEN;
    log_line(LOG_INFO, "conn event=open peer=%s pin=%s suite=%s", c->peer, c->pin, tls_suite(c->tls));
}

/* Frames in. */

/* One whole frame lies in c->frame. */
static void take_frame(struct conn *c) {
    struct err e = {0};
    uint64_t any;
    c->env->counters.frames_in++;
    c->n_head = 0;
    if (!c->hello && c->type != WIRE_HELLO) {
        snprintf(e.msg, sizeof e.msg, "the first message was %s (type %d), not HELLO", wire_type_name(c->type),
                 c->type);
        last_word(c, END_PROTOCOL, WIRE_E_PROTOCOL, e.msg);
    } else if (c->type == WIRE_PING || (c->type == WIRE_PONG && c->asked > 0)) {
        if (wire_get_ping(c->frame.p, c->frame.n, &any, &e) != 0) {
            last_word(c, END_PROTOCOL, WIRE_E_PROTOCOL, e.msg);
            return;
        }
        wbuf_clear(&c->frame);
        if (c->type == WIRE_PONG) {
            c->asked--;
            return;
        }
        c->env->counters.pings++;
        wire_put_ping(&c->own, true, any);
    } else {
        if (!c->hello)
            arm(c, c->env->idle_ms);
        c->hello = true;
        port_post(c->port, c->type, &c->frame);
    }
}

/* n more bytes have come to where they were wanted. */
static void advance(struct conn *c, size_t n) {
    struct err e = {0};
    c->heard = clock_ms();
    c->bytes_in += n;
    c->env->counters.bytes_in += n;
    if (c->n_head < WIRE_HEAD) {
        c->n_head += n;
        int rc = wire_head(c->head, c->n_head, port_max_frame(c->port), &c->type, &c->left, &e);
        if (rc < 0)
            last_word(c, END_PROTOCOL, WIRE_E_PROTOCOL, e.msg);
        if (rc <= 0)
            return;
    } else {
        c->frame.n += n;
        c->left -= n;
    }
    if (c->left == 0)
        take_frame(c);
}

/* Nothing more is read from a peer for now that has sent more than is worked on, or that does not read. */
static bool held(const struct conn *c) {
    return port_full(c->port) || c->own.n - c->n_own > MAX_OWN;
}

static void read_frames(struct conn *c) {
    struct err e = {0};
    size_t turn = TURN;
    if (c->paused && !held(c))
        c->heard = clock_ms();
    c->paused = held(c);
    while (c->state == CONN_OPEN && turn > 0 && !held(c)) {
        uint8_t *at = c->head + c->n_head;
        size_t n = 0, want = WIRE_HEAD - c->n_head;
        if (want == 0) {
            want = c->left < READ_STEP ? c->left : READ_STEP;
            if (wbuf_room(&c->frame, want) != 0) {
                last_word(c, END_LINK, WIRE_E_FAILED, "out of memory");
                return;
            }
            at = c->frame.p + c->frame.n;
        }
        c->reading = tls_read(c->tls, at, want, &n, &e);
        if (c->reading == TLS_DONE) {
            turn -= n < turn ? n : turn;
            advance(c, n);
        } else if (c->reading == TLS_CLOSED || c->reading == TLS_FAILED) {
            die(c, c->reading == TLS_CLOSED ? END_PEER_CLOSED : END_LINK, e.msg);
        } else {
            return;
        }
    }
}

/* Frames out. */

/* Chooses what is written next: what has begun, else own messages, else the next frame. false: there is nothing. */
static bool next_step(struct conn *c) {
    if (c->step)
        return true;
    bool begun = c->n_out < c->frame_end;
    size_t left = c->own.n - c->n_own;
    if (!begun && left == 0 && c->n_out == c->out.n) {
        wbuf_clear(&c->out); /* its memory is the port's next frame's */
        c->n_out = c->frame_end = 0;
        if (!c->port || !port_take(c->port, &c->out)) {
            if (c->out.cap > KEEP)
                wbuf_free(&c->out);
            return false;
        }
        c->sent = clock_ms(); /* the peer's time to read starts here */
    }
    c->step_own = !begun && left > 0;
    if (!c->step_own && !begun) {
        struct rbuf r = rbuf_of(c->out.p + c->n_out, c->out.n - c->n_out);
        size_t n = rbuf_u32(&r), rest = rbuf_left(&r);
        c->frame_end = c->out.n - (n < rest ? rest - n : 0);
        c->env->counters.frames_out++;
    }
    if (!c->step_own)
        left = c->frame_end - c->n_out;
    c->step = left < WRITE_STEP ? left : WRITE_STEP;
    return c->step > 0;
}

static void wrote(struct conn *c, size_t n) {
    c->sent = clock_ms();
    c->bytes_out += n;
    c->env->counters.bytes_out += n;
    c->step = 0;
    if (c->step_own) {
        c->n_own += n;
        if (c->n_own == c->own.n) {
            wbuf_clear(&c->own);
            c->n_own = 0;
        }
        return;
    }
    c->n_out += n;
    if (c->port)
        port_sent(c->port, n);
}

static void write_frames(struct conn *c) {
    struct err e = {0};
    bool finished = false;
    for (;;) {
        size_t n = 0;
        if (!next_step(c)) {
            /* Its last frame may have come between the look at the port and the question whether there are more. */
            if (finished || !c->port || !port_finished(c->port))
                break;
            finished = true;
            continue;
        }
        const uint8_t *p = c->step_own ? c->own.p + c->n_own : c->out.p + c->n_out;
        c->writing = tls_write(c->tls, p, c->step, &n, &e);
        if (c->writing == TLS_CLOSED || c->writing == TLS_FAILED)
            die(c, c->writing == TLS_CLOSED ? END_PEER_CLOSED : END_LINK, e.msg);
        if (c->writing != TLS_DONE)
            return;
        wrote(c, n);
    }
    c->sent = clock_ms();
    if (finished) {
        count_end(c, END_FINISHED, "");
        close_port(c);
        c->state = CONN_LAST;
    }
    if (c->state == CONN_LAST) {
        tls_close_notify(c->tls);
        linger(c);
    }
}

static void discard(struct conn *c) {
    char block[4096];
    for (;;) {
        ssize_t n = recv(c->fd, block, sizeof block, MSG_DONTWAIT);
        if (n > 0)
            c->discarded += (size_t)n;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || c->discarded > MAX_DISCARD)
            c->state = CONN_DEAD;
        if (n <= 0 || c->state == CONN_DEAD)
            return;
    }
}

/* Events. */

static void want(struct event *ev, bool *now, bool on) {
    if (*now != on && (on ? event_add(ev, NULL) : event_del(ev)) == 0)
        *now = on;
}

/* Says what to wait for next, or that it is over. c is gone afterwards in the latter case. */
static void settle(struct conn *c) {
    bool in = false, out = false;
    switch (c->state) {
    case CONN_HANDSHAKE:
        in = c->reading != TLS_WANT_WRITE && !c->waits;
        out = c->reading == TLS_WANT_WRITE;
        break;
    case CONN_OPEN:
        c->paused = held(c);
        if (!c->paused) {
            in = c->reading != TLS_WANT_WRITE;
            out = c->reading == TLS_WANT_WRITE;
            if (tls_pending(c->tls))
                event_active(c->readable, EV_READ, 0); /* no socket will tell */
        } else if (c->due > clock_ms() + SIGN_MS) {
            arm(c, SIGN_MS);
        }
        /* fall through */
    case CONN_LAST:
        if (c->step) {
            in |= c->writing == TLS_WANT_READ;
            out |= c->writing == TLS_WANT_WRITE;
        }
        break;
    case CONN_LINGER:
        in = true;
        break;
    case CONN_DEAD:
        c->env->over(c->env->ctx, c);
        return;
    }
    want(c->readable, &c->want_read, in);
    want(c->writable, &c->want_write, out);
}

static void drive(struct conn *c) {
    if (c->state == CONN_HANDSHAKE)
        handshake(c);
    if (c->state == CONN_OPEN)
        read_frames(c);
    if (c->state == CONN_OPEN || c->state == CONN_LAST)
        write_frames(c);
    if (c->state == CONN_LINGER)
        discard(c);
    settle(c);
}

static void on_ready(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    drive(arg);
}

/* The clocks of a connection that has said HELLO. */
static void check_silence(struct conn *c, double now) {
    char text[120];
    uint32_t idle = c->env->idle_ms;
    if (c->paused) {
        c->heard = now; /* it is not the peer who is silent */
        if (c->own.n == 0) {
            /* Its PINGs wait unread behind its windows, and a pass may take long: it must not take us for dead. */
            wire_put_ping(&c->own, false, c->asked++);
        }
    }
    if (now - c->sent >= idle && c->step) {
        die(c, END_NOT_READING, "");
    } else if (now - c->heard >= idle) {
        snprintf(text, sizeof text, "nothing was said for %u ms; connect again to go on", idle);
        last_word(c, END_IDLE, WIRE_E_IDLE, text);
    } else {
        double first = c->step && c->sent < c->heard ? c->sent : c->heard, wait = first + idle - now;
        arm(c, c->paused && wait > SIGN_MS ? SIGN_MS : wait);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    struct conn *c = arg;
    double now = clock_ms();
    (void)fd;
    (void)what;
    if (c->state >= CONN_LAST) {
        c->state = CONN_DEAD;
    } else if (c->hello) {
        check_silence(c, now);
    } else if (now - c->since >= c->env->handshake_ms) {
        if (c->state == CONN_OPEN)
            last_word(c, END_TIMEOUT, WIRE_E_IDLE, "no HELLO came in time");
        else
            die(c, END_TIMEOUT, "");
    } else {
        arm(c, c->since + c->env->handshake_ms - now);
        if (c->state == CONN_HANDSHAKE && !c->waits)
            return; /* nothing has come */
    }
    drive(c);
}

int conn_create(struct conn **out, struct conn_env *env, int fd, const struct sockaddr *sa, struct err *e) {
    struct conn *c = calloc(1, sizeof *c);
    int on = 1;
    if (!c)
        return err_set(e, ERR_MEMORY, "out of memory");
    c->env = env;
    c->fd = -1; /* the caller's until nothing can fail any more */
    c->since = clock_ms();
    c->address = peer_address(sa);
    peer_name(sa, c->peer);
    if (tls_create(&c->tls, env->tls, fd, accept_pin, c, e) != 0)
        goto fail;
    c->readable = event_new(env->base, fd, EV_READ | EV_PERSIST, on_ready, c);
    c->writable = event_new(env->base, fd, EV_WRITE | EV_PERSIST, on_ready, c);
    c->timer = evtimer_new(env->base, on_timer, c);
    if (!c->readable || !c->writable || !c->timer || event_add(c->readable, NULL) != 0) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto fail;
    }
    set_urgency(c, knock_is_good(&env->knock, &c->address) ? URGENCY_KNOWN : URGENCY_STRANGER);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->want_read = true;
    c->fd = fd;
    arm(c, env->handshake_ms);
    *out = c;
    return 0;
fail:
    conn_free(c);
    return -1;
}

void conn_free(struct conn *c) {
    if (!c)
        return;
    close_port(c);
    if (c->readable)
        event_free(c->readable);
    if (c->writable)
        event_free(c->writable);
    if (c->timer)
        event_free(c->timer);
    tls_free(c->tls);
    wbuf_free(&c->frame);
    wbuf_free(&c->out);
    wbuf_free(&c->own);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

const struct peer_address *conn_address(const struct conn *c) {
    return &c->address;
}

bool conn_is_stranger(const struct conn *c) {
    return !c->hello || c->state >= CONN_LAST;
}

bool conn_is_closing(const struct conn *c) {
    return c->state >= CONN_LAST;
}

double conn_since(const struct conn *c) {
    return c->since;
}

bool conn_nudge(struct conn *c) {
    char first;
    if (c->state != CONN_HANDSHAKE || (!c->waits && recv(c->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) <= 0))
        return false;
    drive(c);
    return true;
}

void conn_wake(struct conn *c) {
    if (c->state == CONN_OPEN)
        drive(c);
}

void conn_end(struct conn *c, enum conn_end why) {
    if (c->state == CONN_OPEN)
        tls_close_notify(c->tls);
    die(c, why, "");
    settle(c);
}

void conn_check_pin(struct conn *c) {
    const struct pin *pin = c->state == CONN_OPEN ? tls_peer_pin(c->tls) : NULL;
    if (pin && !allow_list_has(c->env->allow, pin)) {
        last_word(c, END_NOT_ALLOWED, 0, "");
        drive(c);
    }
}
