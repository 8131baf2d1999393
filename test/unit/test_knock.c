/* net/cloud/knock: handshakes of strangers have a rate. And what that means on a cloud. */
#include "core/base/clock.h"
#include "net/cloud/cloud.h"
#include "net/cloud/knock.h"
#include "test/unit/cloud_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct peer_address address(int i) {
    return (struct peer_address){{4, 10, 0, (uint8_t)(i >> 8), (uint8_t)i}};
}

static int take(struct knock *k, int who, double now, int tries) {
    struct peer_address a = address(who);
    int n = 0;
    for (int i = 0; i < tries; i++)
        n += knock_take(k, &a, now);
    return n;
}

Test(knock, an_address_has_its_burst_and_its_rate) {
    struct knock k;
    knock_init(&k, (struct knock_rate){20, 5}, (struct knock_rate){100, 25});
    cr_assert_eq(take(&k, 1, 1000, 50), 20);
    cr_assert_eq(take(&k, 2, 1000, 50), 20, "another one has its own");
    cr_assert_eq(take(&k, 1, 1199, 50), 0);
    cr_assert_eq(take(&k, 1, 2001, 50), 5);
    cr_assert_eq(take(&k, 1, 1e6, 50), 20, "no more than the burst, however long");
}

Test(knock, all_together_have_a_rate) {
    struct knock k;
    int n = 0;
    knock_init(&k, (struct knock_rate){20, 5}, (struct knock_rate){100, 25});
    for (int i = 0; i < 2000; i++) /* more addresses than there are places for */
        n += take(&k, i, 1000, 1);
    cr_assert_eq(n, 100);
    for (int i = 0; i < 2000; i++)
        n += take(&k, i, 2000, 1);
    cr_assert_eq(n, 125);
}

Test(knock, who_is_allowed_does_not_run_out) {
    struct knock k;
    struct peer_address a = address(7);
    knock_init(&k, (struct knock_rate){20, 5}, (struct knock_rate){100, 25});
    for (int i = 0; i < 1000; i++) {
        cr_assert(knock_take(&k, &a, 1000));
        knock_give_back(&k, &a, 1000);
    }
    const struct peer_address other = address(8);
    cr_assert(knock_is_good(&k, &a) && !knock_is_good(&k, &other));
    cr_assert_eq(take(&k, 8, 1000, 50), 20, "and takes nothing from others");
    for (int i = 100; i < 2100; i++)
        take(&k, i, 1000, 1);
    cr_assert_eq(take(&k, 9, 1000, 1), 0, "all is gone");
    cr_assert(knock_take(&k, &a, 1000), "but for the address of who was allowed before");
    cr_assert_leq(take(&k, 7, 1000, 50), 20, "which has its own rate still");
}

Test(knock, no_limit) {
    struct knock k;
    knock_init(&k, (struct knock_rate){0, 0}, (struct knock_rate){0, 0});
    cr_assert_eq(take(&k, 1, 1000, 5000), 5000);
}

/* ---- a flood ---- */

enum { FLOODERS = 4, FLOOD_MS = 2500, EACH = 5, BURST = 4 * EACH };

static struct cloud_rig r;
static atomic_bool over;
static atomic_int tried;

static bool accept_any(void *ctx, const struct pin *pin) {
    (void)ctx, (void)pin;
    return true;
}

/* One handshake that will be refused; it may have to wait. */
static void knock_once(struct tls_config *config) {
    struct err e = {0};
    struct tls *t = NULL;
    int fd = tcp_connect(cloud_port(r.cloud));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    fcntl(fd, F_SETFL, O_NONBLOCK);
    tried++;
    if (tls_create(&t, config, fd, accept_any, NULL, &e) == 0)
        for (enum tls_status s; !over && ((s = tls_handshake(t, &e)) == TLS_WANT_READ || s == TLS_WANT_WRITE);)
            poll(&p, 1, 20);
    for (char c; !over && recv(fd, &c, 1, 0) != 0 && errno == EAGAIN;) /* its refusal */
        poll(&p, 1, 20);
    tls_free(t);
    close(fd);
}

/* Strangers with a key of their own, from another address than ours; as fast as they are let. */
static void *flood(void *arg) {
    struct err e = {0};
    struct identity *id;
    struct tls_config *config;
    (void)arg;
    rig_source = 0x7f000002; /* 127.0.0.2 */
    if (identity_ephemeral(&id, &e) != 0 || tls_config_create(&config, false, id, &e) != 0)
        abort();
    while (!over)
        knock_once(config);
    tls_config_free(config);
    identity_free(id);
    return NULL;
}

static double metric(const char *name) {
    static const char ask[] = "GET /metrics HTTP/1.0\r\n\r\n";
    static char page[65536];
    char line[80];
    int fd = tcp_connect(cloud_metrics_port(r.cloud));
    cr_assert_eq(send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL), (ssize_t)sizeof ask - 1);
    page[tcp_drain(fd, page, sizeof page - 1)] = '\0';
    close(fd);
    snprintf(line, sizeof line, "\nsplitinf_%s ", name);
    const char *at = strstr(page, line);
    cr_assert(at, "no %s", name);
    return strtod(at + strlen(line), NULL);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

Test(knock, a_flood_is_slowed_down_and_who_is_allowed_is_not, .timeout = 120) {
    enum { MAX_PINGS = 10000 };
    static double ms[MAX_PINGS];
    pthread_t threads[FLOODERS];
    struct guest p;
    int n = 0;
    cloud_rig_init(&r, NULL);
    r.o.knocks_each = EACH;
    r.o.knocks_all = 1000;
    cloud_rig_start(&r);
    guest_open(&p, &r);
    double t0 = clock_ms();
    for (int i = 0; i < FLOODERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, flood, NULL), 0);
    while (clock_ms() - t0 < FLOOD_MS) {
        double at = clock_ms();
        guest_ping(&p, 1);
        if (n < MAX_PINGS)
            ms[n++] = clock_ms() - at;
        poll(NULL, 0, 1);
    }
    rig_check_served(&r); /* a new connection, from an address of which nobody else is */
    double failed = metric("handshakes_failed_total"), most = BURST + EACH * ((clock_ms() - t0) / 1e3 + 1);
    cr_assert(failed >= 1 && failed <= most, "%.0f refused handshakes, at most %.0f were allowed", failed, most);
    cr_assert_gt(metric("handshakes_delayed_total"), 0);
    cr_assert_eq(log_count("conn event=delayed peer=127.0.0.2"), 1, "once a minute");
    over = true;
    for (int i = 0; i < FLOODERS; i++)
        pthread_join(threads[i], NULL);
    qsort(ms, (size_t)n, sizeof *ms, by_size);
    cr_log_info("%d pings beside a flood: median %.2f ms, 99%% %.2f ms; %.0f handshakes of %d tries", n, ms[n / 2],
                ms[n * 99 / 100], failed, tried);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Somebody who is allowed waits with the others of his address, and is served. */
Test(knock, an_allowed_pin_behind_the_same_address) {
    cloud_rig_init(&r, NULL);
    r.o.knocks_each = EACH;
    cloud_rig_start(&r);
    struct err e = {0};
    struct identity *id;
    struct guest p;
    cr_assert_eq(identity_ephemeral(&id, &e), 0, "%s", e.msg);
    for (int i = 0; i < BURST; i++) {
        guest_connect(&p, &r, id);
        guest_close(&p);
    }
    log_await("refused pin=", 1);
    double t0 = clock_ms();
    for (int i = 0; i < 3 * BURST; i++)
        rig_check_served(&r);
    cr_log_info("%d connections of an allowed pin: %.0f ms", 3 * BURST, clock_ms() - t0);
    identity_free(id);
    cloud_rig_stop(&r);
}
