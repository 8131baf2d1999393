#include "net/client/address.h"

#include "core/base/clock.h"
#include "core/base/thread.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLICE_MS = 50, PORT_TEXT = 6 };

bool address_split(const char *text, char host[ADDRESS_HOST], uint16_t *port) {
    const char *colon = strrchr(text, ':'), *at = text;
    size_t n = colon ? (size_t)(colon - text) : 0, digits = colon ? strspn(colon + 1, "0123456789") : 0;
    bool brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    if (brackets) {
        at++;
        n -= 2;
    }
    unsigned long number = colon ? strtoul(colon + 1, NULL, 10) : 0;
    if (n == 0 || n >= ADDRESS_HOST || (!brackets && memchr(at, ':', n)) || digits == 0 || digits > 5 ||
        colon[1 + digits] || number > UINT16_MAX)
        return false;
    memcpy(host, at, n);
    host[n] = '\0';
    *port = (uint16_t)number;
    return true;
}

int address_parse(const char *text, char host[ADDRESS_HOST], uint16_t *port, struct err *e) {
    if (address_split(text, host, port) && *port != 0)
        return 0;
    return err_set(e, ERR_USAGE,
                   "'%.100s' is no address of a cloud; write HOST:PORT, such as gpu.example.org:7433 or "
                   "[2001:db8::1]:7433",
                   text);
}

static bool asked_to_stop(const struct address_wait *w) {
    return w->stop && w->stop(w->stop_ctx) != 0;
}

int address_poll(int fd, short events, const struct address_wait *w) {
    for (;;) {
        double left = w->until - clock_ms();
        struct pollfd p = {.fd = fd, .events = events};
        if (asked_to_stop(w))
            return -1;
        if (poll(&p, 1, left <= 0 ? 0 : left < SLICE_MS ? (int)left + 1 : SLICE_MS) > 0)
            return 1;
        if (left <= 0)
            return 0;
    }
}

/* ---- names: getaddrinfo cannot be interrupted, so it has a thread, which may outlive the one who asked ---- */

struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char host[ADDRESS_HOST], port[PORT_TEXT];
    struct addrinfo *list;
    int rc;
    bool done, abandoned;
};

static void lookup_free(struct lookup *l) {
    if (l->list)
        freeaddrinfo(l->list);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void *lookup_main(void *arg) {
    struct lookup *l = arg;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(l->host, l->port, &hints, &list);
    pthread_mutex_lock(&l->lock);
    l->rc = rc;
    l->list = rc == 0 ? list : NULL;
    l->done = true;
    bool mine = l->abandoned;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (mine)
        lookup_free(l);
    return NULL;
}

static struct lookup *lookup_start(const char *host, const char *port, struct err *e) {
    struct lookup *l = calloc(1, sizeof *l);
    pthread_condattr_t monotonic;
    pthread_t thread;
    if (!l) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    memcpy(l->host, host, sizeof l->host);
    memcpy(l->port, port, sizeof l->port);
    if (thread_start(&thread, lookup_main, l, "the name look-up", e) != 0) {
        lookup_free(l);
        return NULL;
    }
    pthread_detach(thread);
    return l;
}

/* The addresses of host, to be freed by the caller. */
static struct addrinfo *resolve(const char *text, const char *host, const char *port, const struct address_wait *w,
                                struct err *e) {
    const struct addrinfo numeric = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, port, &numeric, &list) == 0)
        return list;
    struct lookup *l = lookup_start(host, port, e);
    if (!l)
        return NULL;
    bool stopped = false;
    pthread_mutex_lock(&l->lock);
    while (!l->done && !stopped && clock_ms() < w->until) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += SLICE_MS * 1000000L;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&l->changed, &l->lock, &t);
        stopped = asked_to_stop(w);
    }
    bool done = l->done;
    int rc = l->rc;
    list = done ? l->list : NULL;
    l->list = done ? NULL : l->list;
    l->abandoned = !done;
    pthread_mutex_unlock(&l->lock);
    if (done)
        lookup_free(l);
    if (list && !stopped)
        return list;
    if (list)
        freeaddrinfo(list);
    if (!stopped)
        err_set(e, ERR_IO, "cannot find %s: %s", text, done ? gai_strerror(rc) : "the name service does not answer");
    return NULL;
}

/* ---- connecting ---- */

static int connect_one(const struct addrinfo *a, const struct address_wait *w, int *error) {
    int on = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    *error = errno;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *error = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (*error == EINPROGRESS) {
        int rc = address_poll(fd, POLLOUT, w);
        socklen_t n = sizeof *error;
        if (rc <= 0)
            *error = rc == 0 ? ETIMEDOUT : ECANCELED;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, error, &n) != 0)
            *error = errno;
    }
    if (*error == 0)
        return fd;
    close(fd);
    return -1;
}

int address_connect(const char *text, const struct address_wait *w, struct err *e) {
    char host[ADDRESS_HOST], port[PORT_TEXT];
    uint16_t number = 0;
    if (address_parse(text, host, &number, e) != 0)
        return -1;
    snprintf(port, sizeof port, "%u", number);
    struct addrinfo *list = resolve(text, host, port, w, e);
    if (!list)
        return -1;
    int left = 0, fd = -1, error = 0;
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = list; a && fd < 0 && error != ECANCELED; a = a->ai_next, left--) {
        struct address_wait turn = *w; /* a dead address must not take the time of those behind it */
        double now = clock_ms();
        turn.until = now + (w->until - now) / left;
        fd = connect_one(a, &turn, &error);
    }
    freeaddrinfo(list);
    if (fd < 0 && error != ECANCELED)
        err_sys(e, error, "cannot connect to %s", text);
    return fd;
}
