#include "test/unit/observer.h"

#include "core/base/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { APPLICATION_DATA = 23, HEAD = 5 };

/* One direction: where in a record it is. */
struct direction {
    uint8_t head[HEAD];
    int n_head, left;
};

static void note(struct observer *t, bool up, int bytes) {
    pthread_mutex_lock(&t->lock);
    if (t->n < OBSERVER_RECORDS)
        t->record[t->n++] = (struct seen_record){up, bytes, clock_ms()};
    pthread_mutex_unlock(&t->lock);
}

static void look(struct observer *t, struct direction *d, bool up, const uint8_t *p, int n) {
    while (n > 0) {
        int step = d->left < n ? d->left : n;
        p += step, n -= step, d->left -= step;
        while (n > 0 && d->left == 0 && d->n_head < HEAD)
            d->head[d->n_head++] = *p++, n--;
        if (d->n_head < HEAD)
            continue;
        d->n_head = 0;
        d->left = d->head[3] << 8 | d->head[4];
        if (d->head[0] == APPLICATION_DATA)
            note(t, up, d->left);
    }
}

static bool put_all(int fd, const uint8_t *p, ssize_t n) {
    for (ssize_t k; n > 0; p += k, n -= k)
        if ((k = send(fd, p, (size_t)n, MSG_NOSIGNAL)) <= 0)
            return false;
    return true;
}

static void relay(struct observer *t, int a, int b) {
    struct direction dir[2] = {0};
    const int fd[2] = {a, b};
    uint8_t buf[8192];
    for (;;) {
        struct pollfd p[3] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {t->quit[0], POLLIN, 0}};
        if (poll(p, 3, -1) < 0 || p[2].revents)
            return;
        for (int i = 0; i < 2; i++) {
            if (!p[i].revents)
                continue;
            ssize_t n = recv(fd[i], buf, sizeof buf, 0);
            if (n <= 0)
                return;
            look(t, &dir[i], i == 0, buf, (int)n);
            if (!put_all(fd[!i], buf, n))
                return;
        }
    }
}

static void *serve(void *arg) {
    struct observer *t = arg;
    for (;;) {
        struct pollfd p[2] = {{t->listener, POLLIN, 0}, {t->quit[0], POLLIN, 0}};
        if (poll(p, 2, -1) < 0 || p[1].revents)
            return NULL;
        int one = 1, a = accept(t->listener, NULL, NULL), b = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(t->target)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (a >= 0 && b >= 0 && connect(b, (struct sockaddr *)&to, sizeof to) == 0)
            relay(t, a, b);
        close(a);
        close(b);
    }
}

void observer_start(struct observer *t, uint16_t target) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    memset(t, 0, sizeof *t);
    t->target = target;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_geq(t->listener = socket(AF_INET, SOCK_STREAM, 0), 0);
    cr_assert_eq(bind(t->listener, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(listen(t->listener, 4), 0);
    cr_assert_eq(getsockname(t->listener, (struct sockaddr *)&at, &len), 0);
    t->port = ntohs(at.sin_port);
    cr_assert_eq(pipe(t->quit), 0);
    cr_assert_eq(pthread_mutex_init(&t->lock, NULL), 0);
    cr_assert_eq(pthread_create(&t->thread, NULL, serve, t), 0);
}

void observer_stop(struct observer *t) {
    cr_assert_eq(write(t->quit[1], "", 1), 1);
    pthread_join(t->thread, NULL);
    close(t->listener);
    close(t->quit[0]);
    close(t->quit[1]);
    pthread_mutex_destroy(&t->lock);
}

int observer_count(struct observer *t) {
    pthread_mutex_lock(&t->lock);
    int n = t->n;
    pthread_mutex_unlock(&t->lock);
    return n;
}
