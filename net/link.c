#include "net/link.h"

#include "core/base/clock.h"
#include "core/base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENT = 0, /* index of a connection's socket, and of the way that begins there */
    CLOUD = 1,
    CHUNK = 64 << 10,       /* read at once, at most */
    SLACK = 64 << 10,       /* held beyond the bandwidth-delay product */
    PACKET = 1448,          /* the least that is paced */
    MOST_HELD = 256 << 20,  /* whatever was asked for */
    HELD_FREELY = 32 << 20, /* without a limit on bandwidth there is no such product */
    SOCKET_BUFFER = 256 << 10,
};

/* What is on its way. */
struct block {
    struct block *next;
    double release_ms;
    enum { DATA, END, RESET } what;
    size_t n, off;
    uint8_t bytes[];
};

/* One direction of a connection. */
struct way {
    struct block *head, **tail;
    size_t held;    /* bytes in blocks */
    double free_ms; /* when the bottleneck will have let everything through that came so far */
    double last_ms; /* release of the last block: jitter must not overtake */
    bool ended;     /* nothing more is read */
    bool closed;    /* and that was passed on */
    bool blocked;   /* the receiver takes no more now */
};

/* way[s] goes from fd[s] to fd[!s]. */
struct conn {
    int fd[2];
    struct way way[2];
    bool connecting; /* to the cloud */
    bool dead;       /* sockets are closed; the memory goes when the thread is not using it */
};

/* Everything is under the lock, which the thread gives up only while it waits in poll: a call from outside acts at once
 * and has acted when it returns. conns grows and shrinks in the thread only, so that an index means the same before and
 * after the wait. */
struct link {
    pthread_t thread;
    pthread_mutex_t lock;
    int listener, wake; /* wake: an eventfd */
    uint16_t port;
    struct sockaddr_storage target;
    socklen_t target_len;

    double rtt_ms, jitter_ms, mbit;
    uint64_t random;
    bool stop, refuse, stall;
    uint64_t cut_after[2]; /* 0: never */
    double accept_again_ms;

    struct conn **conns;
    size_t n_conns, cap_conns;
    struct pollfd *polls; /* wake, listener, then two of each connection */
    size_t cap_polls;
    uint8_t *chunk;
    struct link_stats stats;
};

static double uniform(struct link *l) {
    uint64_t z = l->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double bytes_per_ms(const struct link *l) {
    return l->mbit * 125;
}

static size_t most_held(const struct link *l) {
    if (!(l->mbit > 0))
        return HELD_FREELY;
    double product = bytes_per_ms(l) * (l->rtt_ms + 2 * l->jitter_ms);
    return product < MOST_HELD - SLACK ? (size_t)product + SLACK : MOST_HELD;
}

/* ---- ways ---- */

static void drop_blocks(struct way *w) {
    for (struct block *b = w->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    w->head = NULL;
    w->tail = &w->head;
    w->held = 0;
}

/* Puts n bytes, or an end, on its way at now_ms. -1 when there is no memory. */
static int put_block(struct link *l, struct way *w, int what, const uint8_t *p, size_t n, double now_ms) {
    struct block *b = malloc(sizeof *b + n);
    if (!b)
        return -1;
    *b = (struct block){.what = what, .n = n};
    if (n)
        memcpy(b->bytes, p, n);
    w->free_ms = fmax(w->free_ms, now_ms) + (l->mbit > 0 ? (double)n / bytes_per_ms(l) : 0);
    b->release_ms = fmax(w->last_ms, w->free_ms + l->rtt_ms / 2 + (l->jitter_ms > 0 ? l->jitter_ms * uniform(l) : 0));
    w->last_ms = b->release_ms;
    w->held += n;
    *w->tail = b;
    w->tail = &b->next;
    return 0;
}

static void close_reset(int fd) {
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static void kill_conn(struct conn *c, bool reset) {
    if (c->dead)
        return;
    for (int s = 0; s < 2; s++) {
        if (reset)
            close_reset(c->fd[s]);
        else
            close(c->fd[s]);
        drop_blocks(&c->way[s]);
    }
    c->dead = true;
}

/* The socket of one side is broken: the other side hears of it as late as of anything else from there. */
static void break_side(struct link *l, struct conn *c, int side, double now_ms) {
    struct way *from = &c->way[side], *to = &c->way[!side];
    drop_blocks(to);
    to->ended = true;
    to->blocked = false;
    from->ended = true;
    if (put_block(l, from, RESET, NULL, 0, now_ms) != 0)
        kill_conn(c, true);
}

static void read_side(struct link *l, struct conn *c, int side, double now_ms) {
    struct way *w = &c->way[side];
    size_t room = most_held(l), piece = CHUNK;
    if (w->ended || w->held >= room)
        return;
    room -= w->held;
    ssize_t n = recv(c->fd[side], l->chunk, room < CHUNK ? room : CHUNK, 0);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            break_side(l, c, side, now_ms);
        return;
    }
    if (n == 0) {
        w->ended = true;
        if (put_block(l, w, END, NULL, 0, now_ms) != 0)
            kill_conn(c, true);
        return;
    }
    /* Bytes come out in pieces of a fifth of a millisecond, as packets would, not when the last of a long read has
     * passed the bottleneck. */
    if (l->mbit > 0) {
        double fifth = bytes_per_ms(l) / 5;
        piece = fifth < PACKET ? PACKET : fifth < CHUNK ? (size_t)fifth : CHUNK;
    }
    for (size_t at = 0; at < (size_t)n; at += piece) {
        size_t len = (size_t)n - at < piece ? (size_t)n - at : piece;
        if (put_block(l, w, DATA, l->chunk + at, len, now_ms) != 0) {
            kill_conn(c, true);
            return;
        }
    }
}

/* Sends of the first block what the receiver takes. false: the block is not done. */
static bool send_block(struct link *l, struct conn *c, int side, double now_ms) {
    struct way *w = &c->way[side];
    struct block *b = w->head;
    while (b->off < b->n) {
        uint64_t *cut = &l->cut_after[side];
        size_t len = b->n - b->off;
        if (*cut && len > *cut)
            len = (size_t)*cut;
        ssize_t n = send(c->fd[!side], b->bytes + b->off, len, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR)
                w->blocked = true;
            else
                break_side(l, c, !side, now_ms);
            return false;
        }
        b->off += (size_t)n;
        *(side == CLIENT ? &l->stats.up : &l->stats.down) += (uint64_t)n;
        if (*cut && (*cut -= (uint64_t)n) == 0) {
            kill_conn(c, true);
            return false;
        }
    }
    return true;
}

static void release(struct link *l, struct conn *c, int side, double now_ms) {
    struct way *w = &c->way[side];
    while (!c->dead && !w->blocked && w->head && w->head->release_ms <= now_ms) {
        struct block *b = w->head;
        if (b->what == RESET) {
            kill_conn(c, true);
            return;
        }
        if (b->what == END) {
            shutdown(c->fd[!side], SHUT_WR);
            w->closed = true;
        } else if (!send_block(l, c, side, now_ms))
            return;
        w->held -= b->n;
        w->head = b->next;
        if (!w->head)
            w->tail = &w->head;
        free(b);
    }
}

/* ---- connections ---- */

static int set_up(int fd) {
    int one = 1, size = SOCKET_BUFFER;
    /* A large receive buffer would let the sender run far ahead of the bottleneck. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void open_conn(struct link *l, int client) {
    struct conn *c = NULL;
    int cloud = socket(l->target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (cloud < 0 || set_up(client) != 0 || set_up(cloud) != 0)
        goto fail;
    if (connect(cloud, (struct sockaddr *)&l->target, l->target_len) != 0 && errno != EINPROGRESS)
        goto fail;
    if (l->n_conns == l->cap_conns) {
        size_t cap = l->cap_conns ? 2 * l->cap_conns : 16;
        struct conn **conns = realloc(l->conns, cap * sizeof *conns);
        if (!conns)
            goto fail;
        l->conns = conns;
        l->cap_conns = cap;
    }
    c = calloc(1, sizeof *c);
    if (!c)
        goto fail;
    c->fd[CLIENT] = client;
    c->fd[CLOUD] = cloud;
    c->connecting = true;
    for (int s = 0; s < 2; s++)
        c->way[s].tail = &c->way[s].head;
    l->conns[l->n_conns++] = c;
    l->stats.connections++;
    return;
fail:
    close_reset(client);
    if (cloud >= 0)
        close(cloud);
}

/* All that wait. */
static void accept_all(struct link *l, bool reset) {
    for (;;) {
        int fd = accept4(l->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno != EAGAIN) /* no descriptor is free: not at once again */
                l->accept_again_ms = clock_ms() + 20;
            return;
        }
        if (reset)
            close_reset(fd);
        else
            open_conn(l, fd);
    }
}

static void finish_connect(struct conn *c) {
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(c->fd[CLOUD], SOL_SOCKET, SO_ERROR, &error, &n) != 0 || error != 0)
        kill_conn(c, true);
    c->connecting = false;
}

static void serve(struct link *l, struct conn *c, const struct pollfd *polls) {
    double now_ms = clock_ms();
    if (c->connecting) {
        if (!polls[CLOUD].revents)
            return;
        finish_connect(c);
    }
    for (int s = 0; s < 2 && !c->dead; s++) {
        if (polls[s].revents & (POLLOUT | POLLERR | POLLHUP))
            c->way[!s].blocked = false;
        if (polls[s].revents & (POLLIN | POLLERR | POLLHUP))
            read_side(l, c, s, now_ms);
    }
    for (int s = 0; s < 2 && !c->dead; s++)
        release(l, c, s, now_ms);
    if (!c->dead && c->way[CLIENT].closed && c->way[CLOUD].closed)
        kill_conn(c, false);
}

/* ---- the thread ---- */

static void forget_dead(struct link *l) {
    size_t kept = 0;
    for (size_t i = 0; i < l->n_conns; i++) {
        if (l->conns[i]->dead)
            free(l->conns[i]);
        else
            l->conns[kept++] = l->conns[i];
    }
    l->n_conns = kept;
}

static short wanted(const struct link *l, const struct conn *c, int side) {
    if (c->dead || l->stall)
        return 0;
    if (c->connecting)
        return side == CLOUD ? POLLOUT : 0;
    bool in = !c->way[side].ended && c->way[side].held < most_held(l);
    return (short)((in ? POLLIN : 0) | (c->way[!side].blocked ? POLLOUT : 0));
}

/* A socket of which nothing is wanted is left out: poll would report its errors again and again. */
static struct pollfd poll_of(int fd, short events) {
    return (struct pollfd){.fd = events ? fd : -1, .events = events};
}

/* Fills polls; the time until the next release in *wait, and false when there is none. */
static bool prepare(struct link *l, size_t *n, struct timespec *wait) {
    double now_ms = clock_ms(), next_ms = INFINITY;
    bool may_accept = !l->stall && now_ms >= l->accept_again_ms;
    if (!l->stall && !may_accept)
        next_ms = l->accept_again_ms;
    l->polls[0] = poll_of(l->wake, POLLIN);
    l->polls[1] = poll_of(l->listener, may_accept ? POLLIN : 0);
    *n = 2;
    for (size_t i = 0; i < l->n_conns; i++) {
        const struct conn *c = l->conns[i];
        for (int s = 0; s < 2; s++) {
            const struct way *w = &c->way[s];
            l->polls[(*n)++] = poll_of(c->fd[s], wanted(l, c, s));
            if (w->head && !w->blocked && !l->stall)
                next_ms = fmin(next_ms, w->head->release_ms);
        }
    }
    double ms = fmax(0, next_ms - now_ms);
    if (isinf(ms))
        return false;
    wait->tv_sec = (time_t)(ms / 1e3);
    wait->tv_nsec = (long)((ms - (double)wait->tv_sec * 1e3) * 1e6);
    return true;
}

static int grow_polls(struct link *l) {
    size_t need = 2 + 2 * l->cap_conns;
    if (need <= l->cap_polls)
        return 0;
    struct pollfd *p = realloc(l->polls, need * sizeof *p);
    if (!p)
        return -1;
    l->polls = p;
    l->cap_polls = need;
    return 0;
}

static void *run(void *arg) {
    struct link *l = arg;
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns; a wait ends as punctually as the system can */
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        struct timespec wait = {0};
        size_t n = 0;
        forget_dead(l);
        if (grow_polls(l) != 0)
            break;
        bool timed = prepare(l, &n, &wait);
        pthread_mutex_unlock(&l->lock);
        int ready = ppoll(l->polls, n, timed ? &wait : NULL, NULL);
        pthread_mutex_lock(&l->lock);
        if (ready < 0)
            for (size_t i = 0; i < n; i++)
                l->polls[i].revents = 0;
        uint64_t count;
        if (l->polls[0].revents && read(l->wake, &count, sizeof count) < 0)
            continue;
        if (l->stop || l->stall)
            continue;
        for (size_t i = 0; i < l->n_conns; i++)
            if (!l->conns[i]->dead)
                serve(l, l->conns[i], &l->polls[2 + 2 * i]);
        if (l->polls[1].revents)
            accept_all(l, l->refuse);
    }
    for (size_t i = 0; i < l->n_conns; i++)
        kill_conn(l->conns[i], true);
    forget_dead(l);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- from outside ---- */

static void wake(struct link *l) {
    uint64_t one = 1;
    ssize_t n = write(l->wake, &one, sizeof one);
    (void)n; /* a counter that is full has woken the thread as well */
}

static void set_port(struct sockaddr_storage *a, uint16_t port) {
    if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)a)->sin_port = htons(port);
}

static int resolve(struct link *l, const char *host, uint16_t port, struct err *e) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(host ? host : "127.0.0.1", NULL, &hints, &found);
    if (rc != 0)
        return err_set(e, ERR_IO, "the emulated link cannot find %s: %s", host, gai_strerror(rc));
    memcpy(&l->target, found->ai_addr, found->ai_addrlen);
    l->target_len = found->ai_addrlen;
    set_port(&l->target, port);
    freeaddrinfo(found);
    return 0;
}

static int listen_here(struct link *l, struct err *e) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    l->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->listener < 0 || bind(l->listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(l->listener, 256) != 0 ||
        getsockname(l->listener, (struct sockaddr *)&a, &n) != 0)
        return err_sys(e, errno, "the emulated link cannot listen on 127.0.0.1");
    l->port = ntohs(a.sin_port);
    l->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return l->wake < 0 ? err_sys(e, errno, "the emulated link cannot start") : 0;
}

static void free_link(struct link *l) {
    if (l->listener >= 0)
        close(l->listener);
    if (l->wake >= 0)
        close(l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l->conns);
    free(l->polls);
    free(l->chunk);
    free(l);
}

int link_start(struct link **out, const struct link_opts *o, struct err *e) {
    *out = NULL;
    struct link *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_MEMORY, "out of memory for the emulated link");
    l->listener = l->wake = -1;
    l->rtt_ms = o->rtt_ms;
    l->jitter_ms = o->jitter_ms;
    l->mbit = o->mbit;
    l->random = o->seed;
    pthread_mutex_init(&l->lock, NULL);
    l->chunk = malloc(CHUNK);
    if (!l->chunk) {
        err_set(e, ERR_MEMORY, "out of memory for the emulated link");
        goto fail;
    }
    if (resolve(l, o->host, o->port, e) != 0 || listen_here(l, e) != 0)
        goto fail;
    if (thread_start(&l->thread, run, l, "the thread of the emulated link", e) != 0)
        goto fail;
    *out = l;
    return 0;
fail:
    free_link(l);
    return -1;
}

void link_stop(struct link *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_mutex_unlock(&l->lock);
    wake(l);
    pthread_join(l->thread, NULL);
    free_link(l);
}

uint16_t link_port(const struct link *l) {
    return l->port;
}

void link_set(struct link *l, double rtt_ms, double jitter_ms, double mbit) {
    pthread_mutex_lock(&l->lock);
    l->rtt_ms = rtt_ms;
    l->jitter_ms = jitter_ms;
    l->mbit = mbit;
    pthread_mutex_unlock(&l->lock);
    wake(l);
}

void link_target(struct link *l, uint16_t port) {
    pthread_mutex_lock(&l->lock);
    set_port(&l->target, port);
    pthread_mutex_unlock(&l->lock);
}

void link_cut(struct link *l) {
    pthread_mutex_lock(&l->lock);
    accept_all(l, true); /* for who connected, these are open */
    for (size_t i = 0; i < l->n_conns; i++)
        kill_conn(l->conns[i], true);
    pthread_mutex_unlock(&l->lock);
    wake(l);
}

void link_refuse(struct link *l, bool on) {
    pthread_mutex_lock(&l->lock);
    l->refuse = on;
    pthread_mutex_unlock(&l->lock);
}

void link_stall(struct link *l, bool on) {
    pthread_mutex_lock(&l->lock);
    l->stall = on;
    pthread_mutex_unlock(&l->lock);
    wake(l);
}

void link_cut_after(struct link *l, bool up, uint64_t bytes) {
    pthread_mutex_lock(&l->lock);
    l->cut_after[up ? CLIENT : CLOUD] = bytes;
    pthread_mutex_unlock(&l->lock);
}

struct link_stats link_stats(struct link *l) {
    pthread_mutex_lock(&l->lock);
    struct link_stats s = l->stats;
    pthread_mutex_unlock(&l->lock);
    return s;
}
