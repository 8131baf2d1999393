#include "test/unit/fake_cloud.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool wait_for(int fd, short events, atomic_bool *quit) {
    struct pollfd p = {.fd = fd, .events = events};
    while (!*quit)
        if (poll(&p, 1, 20) > 0)
            return true;
    return false;
}

static bool accept_all(void *ctx, const struct pin *pin) {
    (void)ctx, (void)pin;
    return true;
}

static bool wants(struct fake_conn *c, enum tls_status s) {
    return (s == TLS_WANT_READ || s == TLS_WANT_WRITE) &&
           wait_for(c->fd, s == TLS_WANT_READ ? POLLIN : POLLOUT, c->quit);
}

bool fake_write(struct fake_conn *c, const void *p, size_t n) {
    const uint8_t *at = p;
    struct err e = {0};
    while (n > 0) {
        size_t k = 0;
        enum tls_status s = tls_write(c->tls, at, n, &k, &e);
        if (s == TLS_DONE)
            at += k, n -= k;
        else if (!wants(c, s))
            return false;
    }
    return true;
}

bool fake_flush(struct fake_conn *c, struct wbuf *frames) {
    bool ok = fake_write(c, frames->p, frames->n);
    wbuf_clear(frames);
    return ok;
}

static bool more(struct fake_conn *c) {
    uint8_t buf[16384];
    size_t n = 0;
    struct err e = {0};
    for (;;) {
        enum tls_status s = tls_read(c->tls, buf, sizeof buf, &n, &e);
        if (s == TLS_DONE)
            break;
        if (!wants(c, s))
            return false;
    }
    wbuf_put(&c->in, buf, n);
    return true;
}

bool fake_some(struct fake_conn *c, size_t *n) {
    wbuf_clear(&c->in);
    bool ok = more(c);
    *n = c->in.n;
    wbuf_clear(&c->in);
    return ok;
}

bool fake_read(struct fake_conn *c, int *type, struct wbuf *payload) {
    struct err e = {0};
    size_t n;
    for (;;) {
        int rc = wire_head(c->in.p, c->in.n, WIRE_MAX_FRAME, type, &n, &e);
        if (rc < 0)
            return false;
        if (rc == 1 && c->in.n - WIRE_HEAD >= n)
            break;
        if (!more(c))
            return false;
    }
    wbuf_clear(payload);
    wbuf_put(payload, c->in.p + WIRE_HEAD, n);
    c->in.n -= WIRE_HEAD + n;
    memmove(c->in.p, c->in.p + WIRE_HEAD + n, c->in.n);
    return true;
}

bool fake_welcome(struct fake_conn *c, struct wire_hello *h, const struct wire_welcome *m) {
    struct wbuf b = {0};
    struct err e = {0};
    int type;
    bool ok = fake_read(c, &type, &b) && type == WIRE_HELLO && wire_get_hello(b.p, b.n, h, &e) == 0;
    wbuf_clear(&b);
    if (ok) {
        wire_put_welcome(&b, m);
        ok = fake_flush(c, &b);
    }
    wbuf_free(&b);
    return ok;
}

static void *run(void *arg) {
    struct fake_cloud *f = arg;
    for (int number = 0; wait_for(f->listener, POLLIN, &f->quit); number++) {
        struct fake_conn c = {.fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), .quit = &f->quit};
        struct err e = {0};
        enum tls_status s;
        c.number = number;
        if (c.fd < 0 || tls_create(&c.tls, f->config, c.fd, accept_all, NULL, &e) != 0)
            continue;
        do
            s = tls_handshake(c.tls, &e);
        while (wants(&c, s));
        if (s == TLS_DONE)
            f->serve(&c, f->ctx);
        else
            number--;
        tls_free(c.tls);
        close(c.fd);
        wbuf_free(&c.in);
    }
    return NULL;
}

void fake_cloud_start(struct fake_cloud *f) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    struct err e = {0};
    f->quit = false;
    if (!f->id)
        cr_assert_eq(identity_ephemeral(&f->id, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_config_create(&f->config, true, f->id, &e), 0, "%s", e.msg);
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->rcvbuf)
        setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &f->rcvbuf, sizeof f->rcvbuf);
    cr_assert(bind(f->listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(f->listener, 16) == 0 &&
              getsockname(f->listener, (struct sockaddr *)&a, &n) == 0);
    snprintf(f->address, sizeof f->address, "127.0.0.1:%u", ntohs(a.sin_port));
    cr_assert_eq(pthread_create(&f->thread, NULL, run, f), 0);
}

void fake_cloud_stop(struct fake_cloud *f) {
    f->quit = true;
    pthread_join(f->thread, NULL);
    close(f->listener);
    tls_config_free(f->config);
    identity_free(f->id);
    f->id = NULL;
}
