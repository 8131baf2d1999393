/* net/cloud: what a stranger, a broken or malicious client and a good one see, and what the others notice of it. */
#include "test/unit/cloud_rig.h"

#include "core/base/clock.h"
#include "net/log_gate.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <poll.h>
#include <psa/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static struct cloud_rig r;
static char scratch[4096];

/* A good client is served, as ever. */
static void check_served(void) {
    struct guest p;
    guest_open(&p, &r);
    cr_assert_eq(guest_submit(&p, 3), 0);
    guest_await(&p, WIRE_RESULT);
    guest_close(&p);
}

Test(cloud, serves_and_says_goodbye) {
    struct guest p;
    struct wbuf w = {0};
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    cr_assert_eq(p.welcome.max_rows, 64);
    cr_assert_eq(p.welcome.idle_ms, 60000);
    cr_assert_str_eq(p.welcome.backend, "fake");
    guest_ping(&p, 0x0123456789abcdef);
    cr_assert_eq(guest_submit(&p, 5), 0);
    guest_await(&p, WIRE_RESULT);
    wire_put_bye(&w);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    cr_assert_eq(guest_frame(&p, RIG_WAIT_MS), 0);
    guest_close(&p);
    log_await("conn event=closed", 1);
    cr_assert_eq(log_count("conn event=open"), 1);
    cr_assert_eq(log_count("reason=finished"), 1);
    wbuf_free(&w);
    cloud_rig_stop(&r);
}

Test(cloud, several_in_one_process) {
    struct cloud_rig other;
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    cloud_rig_init(&other, NULL);
    cloud_rig_start(&r);
    cloud_rig_start(&other);
    guest_open(&p, &r);
    guest_open(&q, &other);
    guest_close(&q);
    cloud_rig_stop(&other);
    guest_ping(&p, 1);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Strangers. */

Test(cloud, silence_before_hello_ends) {
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    r.o.handshake_ms = 300;
    cloud_rig_start(&r);
    int fd = tcp_connect(cloud_port(r.cloud));        /* not one byte */
    cr_assert_eq(guest_connect(&p, &r, r.client), 0); /* TLS and no HELLO */
    cr_assert_eq(guest_connect(&q, &r, r.client), 0); /* half a HELLO */
    cr_assert_eq(guest_send(&q, "\x9c\0\0\0\1split", 10), 0);
    cr_assert_eq(tcp_drain(fd, scratch, sizeof scratch), 0);
    guest_await_error(&p, WIRE_E_IDLE);
    guest_await_error(&q, WIRE_E_IDLE);
    close(fd);
    guest_close(&p);
    guest_close(&q);
    log_await("reason=timeout", 3);
    cloud_rig_stop(&r);
}

Test(cloud, silence_afterwards_ends) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    r.o.idle_ms = 400;
    cloud_rig_start(&r);
    guest_open(&p, &r);
    for (double t0 = clock_ms(); clock_ms() - t0 < 900; poll(NULL, 0, 40))
        guest_ping(&p, 3); /* is not silence */
    guest_await_error(&p, WIRE_E_IDLE);
    guest_close(&p);
    log_await("reason=idle", 1);
    cloud_rig_stop(&r);
}

Test(cloud, slow_loris_keeps_nobody_out) {
    enum { N = 64 };
    int fds[N];
    cloud_rig_init(&r, NULL);
    r.o.max_strangers = 16;
    r.o.max_connections = 24;
    cloud_rig_start(&r);
    struct guest first;
    guest_open(&first, &r);
    for (int i = 0; i < N; i++)
        fds[i] = tcp_connect(cloud_port(r.cloud));
    check_served();
    /* The youngest are still there, the oldest made room. */
    log_await("reason=crowded", 1);
    cr_assert(tcp_closed(fds[0], RIG_WAIT_MS));
    cr_assert_not(tcp_closed(fds[N - 1], 0));
    guest_ping(&first, 5);
    guest_close(&first);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    cloud_rig_stop(&r);
}

Test(cloud, addresses_have_limits) {
    struct guest a, b;
    cloud_rig_init(&r, NULL);
    r.o.max_per_address = 2;
    cloud_rig_start(&r);
    guest_open(&a, &r);
    guest_open(&b, &r);
    int fd = tcp_connect(cloud_port(r.cloud));
    cr_assert_eq(tcp_drain(fd, scratch, sizeof scratch), 0);
    close(fd);
    log_await("reason=address_full", 1);
    guest_ping(&a, 1);
    guest_close(&a);
    log_await("event=closed", 1);
    /* A stranger in the second place makes room for who comes later. */
    fd = tcp_connect(cloud_port(r.cloud));
    check_served();
    cr_assert(tcp_closed(fd, RIG_WAIT_MS));
    close(fd);
    guest_ping(&b, 1);
    guest_close(&b);
    cloud_rig_stop(&r);
}

Test(cloud, connections_have_a_limit) {
    struct guest a, b;
    cloud_rig_init(&r, NULL);
    r.o.max_connections = 2;
    r.o.max_per_address = 100;
    cloud_rig_start(&r);
    guest_open(&a, &r);
    guest_open(&b, &r);
    int fd = tcp_connect(cloud_port(r.cloud));
    cr_assert_eq(tcp_drain(fd, scratch, sizeof scratch), 0);
    close(fd);
    log_await("reason=full", 1);
    guest_ping(&a, 1);
    guest_ping(&b, 2);
    guest_close(&a);
    guest_close(&b);
    cloud_rig_stop(&r);
}

static uint64_t seed = 88172645463325252u;
static uint32_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

Test(cloud, garbage_instead_of_tls) {
    static const char http[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    for (int i = 0; i < 40; i++) {
        uint8_t noise[3000];
        size_t n = 1 + rnd() % sizeof noise;
        for (size_t k = 0; k < n; k++)
            noise[k] = (uint8_t)rnd();
        if (i % 2 && n > 3) /* looks like TLS at first */
            memcpy(noise, "\x16\x03\x01", 3);
        int fd = tcp_connect(cloud_port(r.cloud));
        ssize_t m = i == 0 ? send(fd, http, sizeof http - 1, MSG_NOSIGNAL) : send(fd, noise, n, MSG_NOSIGNAL);
        cr_assert_gt(m, 0);
        shutdown(fd, SHUT_WR);
        tcp_drain(fd, scratch, sizeof scratch);
        close(fd);
    }
    /* One line says it all: the log is no place to be filled by strangers. */
    cr_assert_leq(log_count("reason=handshake"), 1);
    check_served();
    cloud_rig_stop(&r);
}

Test(cloud, tls_1_2_is_refused) {
    /* A ClientHello of TLS 1.2: ECDHE-ECDSA-AES128-GCM-SHA256, x25519, ecdsa_secp256r1_sha256. */
    static const char hello[] = "\x16\x03\x01\x00\x41\x01\x00\x00\x3d\x03\x03"
                                "0123456789abcdef0123456789abcdef"
                                "\x00\x00\x02\xc0\x2b\x01\x00\x00\x12"
                                "\x00\x0a\x00\x04\x00\x02\x00\x1d"
                                "\x00\x0d\x00\x06\x00\x04\x04\x03\x08\x04";
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    int fd = tcp_connect(cloud_port(r.cloud));
    cr_assert_eq(sizeof hello - 1, 5 + 0x41);
    cr_assert_eq(send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL), (ssize_t)(sizeof hello - 1));
    size_t n = tcp_drain(fd, scratch, sizeof scratch);
    cr_assert_eq(n, 7, "%zu bytes", n);
    cr_assert_eq(scratch[0], 21); /* alert, fatal, protocol_version */
    cr_assert_eq(scratch[5], 2);
    cr_assert_eq(scratch[6], 70);
    close(fd);
    log_await("reason=handshake", 1);
    check_served();
    cloud_rig_stop(&r);
}

Test(cloud, no_certificate_is_refused) {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_ssl_config conf;
    mbedtls_ssl_context ssl;
    mbedtls_net_context net;
    char byte;
    int rc;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    cr_assert_eq(psa_crypto_init(), PSA_SUCCESS);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&drbg);
    mbedtls_ssl_config_init(&conf);
    mbedtls_ssl_init(&ssl);
    cr_assert_eq(mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0), 0);
    cr_assert_eq(mbedtls_ssl_config_defaults(&conf, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                             MBEDTLS_SSL_PRESET_DEFAULT),
                 0);
    static const char *alpn[] = {"splitinf/1", NULL};
    mbedtls_ssl_conf_alpn_protocols(&conf, alpn);
    mbedtls_ssl_conf_authmode(&conf, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&conf, mbedtls_ctr_drbg_random, &drbg);
    cr_assert_eq(mbedtls_ssl_setup(&ssl, &conf), 0);
    net.fd = tcp_connect(cloud_port(r.cloud));
    mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
    while ((rc = mbedtls_ssl_handshake(&ssl)) == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE)
        ;
    cr_assert_eq(rc, 0, "-0x%x", (unsigned)-rc); /* TLS 1.3: the refusal comes behind it */
    rc = mbedtls_ssl_read(&ssl, (unsigned char *)&byte, 1);
    cr_assert_lt(rc, 0, "the cloud spoke to somebody without a certificate: %d", rc);
    mbedtls_net_free(&net);
    mbedtls_ssl_free(&ssl);
    mbedtls_ssl_config_free(&conf);
    mbedtls_ctr_drbg_free(&drbg);
    mbedtls_entropy_free(&entropy);
    log_await("reason=handshake", 1);
    cr_assert_eq(log_count("conn event=open"), 0);
    check_served();
    cloud_rig_stop(&r);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* A refused client may believe in its handshake for a moment: TLS 1.3. */
static void check_refused(const struct identity *id) {
    struct guest p;
    if (guest_connect(&p, &r, id) == 0)
        cr_assert_leq(guest_frame(&p, RIG_WAIT_MS), 0);
    guest_close(&p);
}

Test(cloud, wrong_pins_are_logged_once_and_can_be_added) {
    struct identity *stranger;
    struct err e = {0};
    struct guest p, q;
    char path[] = "/tmp/test_cloud_XXXXXX", good[PIN_TEXT], bad[PIN_TEXT], text[3 * PIN_TEXT], line[200];
    close(mkstemp(path));
    cloud_rig_init(&r, path);
    cr_assert_eq(identity_ephemeral(&stranger, &e), 0);
    pin_format(identity_pin(r.client), good);
    pin_format(identity_pin(stranger), bad);
    snprintf(text, sizeof text, "%s one\n", good);
    write_file(path, text);
    cloud_rig_start(&r);
    cloud_reload(r.cloud);
    log_await("allow event=reloaded pins=1", 1);

    guest_open(&p, &r);
    for (int i = 0; i < 3; i++)
        check_refused(stranger);
    snprintf(line, sizeof line, "refused pin=%s peer=127.0.0.1:", bad);
    log_await(line, 1);
    cr_assert_eq(log_count("refused pin="), 1);

    snprintf(text, sizeof text, "%s one\n%s two\n", good, bad);
    write_file(path, text);
    cloud_reload(r.cloud);
    log_await("allow event=reloaded pins=2", 1);
    cr_assert_eq(guest_connect(&q, &r, stranger), 0);
    guest_hello(&q, &r);
    guest_ping(&p, 1);

    /* A file that cannot be read changes nothing; one that names others no more closes. */
    write_file(path, "nonsense\n");
    cloud_reload(r.cloud);
    log_await("allow event=kept", 1);
    guest_ping(&p, 2);
    guest_ping(&q, 2);
    snprintf(text, sizeof text, "%s two\n", bad);
    write_file(path, text);
    cloud_reload(r.cloud);
    cr_assert_eq(guest_frame(&p, RIG_WAIT_MS), 0);
    log_await("reason=not_allowed", 1);
    guest_ping(&q, 3);
    guest_close(&p);
    guest_close(&q);
    cloud_rig_stop(&r);
    identity_free(stranger);
    unlink(path);
}

/* Those who are known and misbehave. */

Test(cloud, frames_have_limits) {
    struct guest p;
    struct wbuf w = {0};
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    cr_assert_eq(guest_connect(&p, &r, r.client), 0);
    cr_assert_eq(guest_send(&p, "\x01\x04\0\0\x01", 5), 0); /* 1025 before WELCOME */
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    guest_open(&p, &r);
    wbuf_u32(&w, p.welcome.max_frame + 1);
    wbuf_u8(&w, WIRE_SUBMIT);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    guest_open(&p, &r);
    cr_assert_eq(guest_send(&p, "\0\0\0\0\0", 5), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);

    cr_assert_eq(guest_connect(&p, &r, r.client), 0); /* PING is not HELLO */
    wbuf_clear(&w);
    wire_put_ping(&w, false, 1);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    guest_await_error(&p, WIRE_E_PROTOCOL);
    guest_close(&p);
    wbuf_free(&w);
    check_served();
    cloud_rig_stop(&r);
}

static size_t resident(void) {
    unsigned long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "re");
    cr_assert(f && fscanf(f, "%lu %lu", &all, &pages) == 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A SUBMIT that is legal and senseless: unknown parents, cancels of what never was. */
static void put_senseless(struct wbuf *w, struct guest *p) {
    enum { N = 6 };
    float x[N * RIG_HIDDEN] = {0};
    uint32_t cancel[N];
    struct node nodes[N];
    int n = (int)(rnd() % (N + 1));
    for (int i = 0; i < N; i++) {
        cancel[i] = rnd();
        nodes[i] = (struct node){.id = ++p->next_id, .parent = 1 << 30 | rnd(), .pos = rnd() % 2000};
    }
    const struct wire_submit_parts s = {
        .seq = ++p->seq, .cancel = cancel, .n_cancel = (int)(rnd() % N), .nodes = nodes, .n_nodes = n};
    wire_put_submit(w, &s, CODEC_F16, RIG_HIDDEN, x);
}

/* Noise under some type; or a SUBMIT with some bytes changed. */
static void put_bad(struct wbuf *w, struct guest *p) {
    if (rnd() % 2) {
        put_senseless(w, p);
        for (uint32_t k = 1 + rnd() % 4; k > 0; k--)
            w->p[WIRE_HEAD + rnd() % (w->n - WIRE_HEAD)] ^= (uint8_t)(1 + rnd() % 255);
        return;
    }
    uint32_t len = 1 + rnd() % 600;
    wbuf_u32(w, len);
    wbuf_u8(w, (uint8_t)(rnd() % 3 ? 1 + rnd() % 10 : rnd()));
    for (uint32_t k = 1; k < len; k++)
        wbuf_u8(w, (uint8_t)(rnd() % 4 ? 0 : rnd()));
}

/* Frames over one connection until the cloud ends it. Returns how many it has looked at. */
static int send_noise(void) {
    struct guest p;
    int n = 0, got = 1;
    guest_open(&p, &r);
    while (n < 100 && got > 0 && got != WIRE_ERROR) {
        struct wbuf w = {0};
        bool bad = rnd() % 20 == 0;
        if (bad)
            put_bad(&w, &p);
        else
            put_senseless(&w, &p);
        n++;
        if (bad) /* was it bad enough? The answer to this tells */
            wire_put_ping(&w, false, 1);
        if (guest_send(&p, w.p, w.n) != 0)
            got = -1;
        wbuf_free(&w);
        while (got > 0 && (got = guest_frame(&p, bad ? RIG_WAIT_MS : 0)) > 0 && got != WIRE_PONG && got != WIRE_ERROR)
            ;
        cr_assert(got != -2 || !bad, "neither ERROR nor PONG came");
        got = got == -2 ? 1 : got;
    }
    guest_close(&p);
    return n;
}

Test(cloud, ten_thousand_bad_frames_disturb_nobody, .timeout = 120) {
    enum { N = SANITIZED ? 1000 : 10000 };
    struct guest good;
    size_t before = 0;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&good, &r);
    for (int i = 0; i < N;) {
        i += send_noise();
        cr_assert_eq(guest_submit(&good, 1), 0);
        guest_await(&good, WIRE_RESULT);
        if (before == 0 && i >= N / 4)
            before = resident();
    }
    size_t after = resident();
    if (!SANITIZED)
        cr_assert_lt(after, before + (4 << 20), "memory grew from %zu to %zu bytes", before, after);
    cr_assert_gt(log_count("reason=protocol") + log_count("reason=finished"), N / 50);
    guest_ping(&good, 1);
    guest_close(&good);
    cloud_rig_stop(&r);
}

/* Until the compute thread hangs in a pass. */
static void await_pass(void) {
    for (double t0 = clock_ms(); rig_passes() == 0; poll(NULL, 0, 1))
        cr_assert_lt(clock_ms() - t0, RIG_WAIT_MS);
}

Test(cloud, pings_are_answered_while_all_is_busy) {
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    guest_open(&q, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    await_pass();
    for (uint64_t i = 0; i < 20; i++) {
        guest_ping(&p, i);
        guest_ping(&q, i);
    }
    rig_hold(false);
    guest_await(&p, WIRE_RESULT);
    guest_close(&p);
    guest_close(&q);
    cloud_rig_stop(&r);
}

/* Fills what the cloud takes from a peer that reads nothing. Returns bytes. */
static size_t stuff(struct guest *p) {
    struct wbuf w = {0};
    struct err e = {0};
    size_t all = 0, n;
    bool stuck = false;
    for (int i = 0; i < 100; i++)
        wire_put_ping(&w, false, (uint64_t)i);
    for (double last = clock_ms(); !stuck; stuck = clock_ms() - last > 300) {
        enum tls_status st = tls_write(p->tls, w.p, w.n, &n, &e);
        if (st == TLS_DONE) {
            all += n;
            last = clock_ms();
        } else if (st == TLS_WANT_WRITE) {
            poll(NULL, 0, 5);
        } else {
            break;
        }
    }
    wbuf_free(&w);
    return all;
}

Test(cloud, who_does_not_read_is_not_read_and_goes) {
    struct guest p, good;
    cloud_rig_init(&r, NULL);
    r.o.idle_ms = 1500;
    cloud_rig_start(&r);
    guest_open(&good, &r);
    guest_open(&p, &r);
    int small = 4096;
    setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    size_t before = resident(), sent = stuff(&p);
    cr_assert_lt(sent, 64 << 20); /* the system's buffers, not the cloud's */
    if (!SANITIZED)
        cr_assert_lt(resident(), before + (8 << 20));
    for (double t0 = clock_ms(); log_count("reason=not_reading") == 0; poll(NULL, 0, 20)) {
        guest_ping(&good, 1);
        cr_assert_lt(clock_ms() - t0, RIG_WAIT_MS);
    }
    guest_close(&p);
    guest_close(&good);
    cloud_rig_stop(&r);
}

Test(cloud, more_than_can_be_worked_on_waits_in_the_network) {
    enum { CANCELS = 16384 };
    static uint32_t ids[CANCELS];
    struct guest p, good;
    struct wbuf w = {0};
    struct err e = {0};
    size_t sent = 0, n = 0;
    cloud_rig_init(&r, NULL);
    r.o.batch.max_live = CANCELS;
    cloud_rig_start(&r);
    guest_open(&good, &r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 1), 0);
    await_pass();
    size_t before = resident();
    /* Cancels of nothing, 64 kB each, which the compute thread does not get to while its pass hangs. */
    for (double last = clock_ms(); clock_ms() - last < 300 && sent < 256 << 20;) {
        if (n == w.n) {
            const struct wire_submit_parts s = {.seq = ++p.seq, .cancel = ids, .n_cancel = CANCELS / 32};
            wbuf_clear(&w);
            wire_put_submit(&w, &s, CODEC_F16, RIG_HIDDEN, NULL);
            n = 0;
        }
        size_t m = 0;
        enum tls_status st = tls_write(p.tls, w.p + n, w.n - n, &m, &e);
        cr_assert(st == TLS_DONE || st == TLS_WANT_WRITE);
        if (st == TLS_DONE) {
            n += m;
            sent += m;
            last = clock_ms();
        } else {
            poll(NULL, 0, 5);
        }
    }
    cr_assert_lt(sent, 64 << 20); /* the system's buffers, and little of ours */
    if (!SANITIZED)
        cr_assert_lt(resident(), before + (8 << 20));
    guest_ping(&good, 1);
    rig_hold(false);
    if (n < w.n)
        cr_assert_eq(guest_send(&p, w.p + n, w.n - n), 0);
    guest_ping(&p, 7); /* all of it was taken in the end */
    wbuf_free(&w);
    guest_close(&p);
    guest_close(&good);
    cloud_rig_stop(&r);
}

/* Going away. */

static int http(const char *request, char *reply, size_t cap) {
    int fd = tcp_connect(cloud_metrics_port(r.cloud)), status = 0;
    cr_assert_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    size_t n = tcp_drain(fd, reply, cap - 1);
    reply[n] = '\0';
    close(fd);
    cr_assert_eq(sscanf(reply, "HTTP/1.%*d %d", &status), 1, "%s", reply);
    return status;
}

Test(cloud, drains) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    cr_assert_eq(http("GET /health HTTP/1.0\r\n\r\n", scratch, sizeof scratch), 200);
    cr_assert(strstr(scratch, "{\"status\":\"ok\"}"));
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    await_pass();
    cloud_stop(r.cloud, 60000);
    log_await("event=draining", 1);
    cr_assert_eq(http("GET /health HTTP/1.0\r\n\r\n", scratch, sizeof scratch), 503);
    cr_assert(strstr(scratch, "{\"status\":\"draining\"}"));
    guest_ping(&p, 1); /* still here */
    rig_hold(false);
    guest_await(&p, WIRE_RESULT); /* what was in flight is finished */
    guest_await_error(&p, WIRE_E_DRAINING);
    guest_close(&p);
    cloud_rig_join(&r);
    cloud_rig_stop(&r);
}

Test(cloud, drain_has_an_end) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    await_pass();
    cloud_stop(r.cloud, 200);
    cloud_rig_join(&r); /* although the pass hangs */
    guest_close(&p);
    cloud_rig_stop(&r);
}

Test(cloud, second_stop_does_not_wait) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    await_pass();
    cloud_stop(r.cloud, 3600000);
    log_await("event=draining", 1);
    cloud_stop(r.cloud, 3600000);
    cloud_rig_join(&r);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Metrics. */

/* The value of a sample, which must be there once. */
static double sample(const char *text, const char *name) {
    size_t n = strlen(name);
    double v = -1;
    int found = 0;
    for (const char *at = text; (at = strstr(at, name)); at += n)
        if ((at == text || at[-1] == '\n') && at[n] == ' ') {
            v = strtod(at + n, NULL);
            found++;
        }
    cr_assert_eq(found, 1, "%s stands there %d times in\n%s", name, found, text);
    return v;
}

/* Every line is a comment or a sample of a family that HELP and TYPE were given for. */
static void check_format(char *text) {
    char family[100] = "", kind[20] = "";
    for (char *line = text, *next; line && *line; line = next) {
        char name[100], value[60];
        next = strchr(line, '\n');
        cr_assert(next, "no newline at the end");
        *next++ = '\0';
        if (strncmp(line, "# HELP ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# HELP %99s %*s", family), 1, "%s", line);
            kind[0] = '\0';
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# TYPE %99s %19s", name, kind), 2, "%s", line);
            cr_assert_str_eq(name, family);
        } else {
            char *end, *brace = strchr(line, '{'), *at = brace ? strrchr(line, '}') + 1 : strchr(line, ' ');
            snprintf(name, sizeof name, "%.*s", (int)((brace ? brace : at) - line), line);
            cr_assert_eq(strncmp(name, family, strlen(family)), 0, "%s under %s", name, family);
            cr_assert(name[strlen(family)] == '\0' || strcmp(kind, "histogram") == 0, "%s under %s", name, family);
            cr_assert(kind[0] && *at == ' ');
            snprintf(value, sizeof value, "%s", at + 1);
            strtod(value, &end);
            cr_assert(end != value && *end == '\0', "%s", line);
        }
        next[-1] = '\0';
    }
}

Test(cloud, metrics) {
    static char page[65536];
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    guest_ping(&p, 1);
    cr_assert_eq(guest_submit(&p, 3), 0);
    guest_await(&p, WIRE_RESULT);
    cr_assert_eq(http("GET /metrics HTTP/1.0\r\n\r\n", page, sizeof page), 200);
    char *body = strstr(page, "\r\n\r\n");
    cr_assert(body && strstr(page, "text/plain; version=0.0.4"));
    body += 4;
    cr_assert(strstr(body, "splitinf_build_info{version=\"test \\\"1\\\"\",backend=\"fake\",protocol=\"1\"} 1\n"));
    cr_assert_eq(sample(body, "splitinf_sessions"), 1);
    cr_assert_eq(sample(body, "splitinf_sessions_attached"), 1);
    cr_assert_eq(sample(body, "splitinf_rows_total"), 3);
    cr_assert_eq(sample(body, "splitinf_pass_rows_count"), 1);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"2\"}"), 0);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"4\"}"), 1);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"+Inf\"}"), 1);
    cr_assert_eq(sample(body, "splitinf_connections"), 1);
    cr_assert_eq(sample(body, "splitinf_pings_total"), 1);
    cr_assert_eq(sample(body, "splitinf_handshakes_total"), 1);
    cr_assert_gt(sample(body, "splitinf_received_bytes_total"), 3 * RIG_HIDDEN);
    cr_assert_gt(sample(body, "splitinf_kv_slots"), 0);
    cr_assert_geq(sample(body, "splitinf_kv_slots_used"), 3);
    check_format(body);

    cr_assert_eq(http("GET /nothing HTTP/1.0\r\n\r\n", page, sizeof page), 404);
    cr_assert_eq(http("HEAD /health HTTP/1.0\r\n\r\n", page, sizeof page), 200);
    cr_assert_geq(http("POST /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n", page, sizeof page), 400);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Out of descriptors: the listener rests, and goes on when there are some again. */
Test(cloud, no_descriptors_left) {
    enum { N = 40 };
    struct rlimit old, few;
    struct guest p;
    int fds[N], n = 0;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (; n < 8; n++) /* these will wait in the backlog while there are none left */
        fds[n] = socket(AF_INET, SOCK_STREAM, 0);
    few = old;
    few.rlim_cur = (rlim_t)fds[n - 1] + 1;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(cloud_port(r.cloud)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < n; i++)
        cr_assert_eq(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
    log_await("listener event=paused", 1);
    struct rusage u0, u1;
    getrusage(RUSAGE_SELF, &u0);
    poll(NULL, 0, 1300);
    getrusage(RUSAGE_SELF, &u1);
    double cpu = (double)(u1.ru_utime.tv_sec - u0.ru_utime.tv_sec) * 1e3 +
                 (double)(u1.ru_utime.tv_usec - u0.ru_utime.tv_usec) / 1e3 +
                 (double)(u1.ru_stime.tv_sec - u0.ru_stime.tv_sec) * 1e3 +
                 (double)(u1.ru_stime.tv_usec - u0.ru_stime.tv_usec) / 1e3;
    cr_assert_lt(cpu, 500, "%.0f ms of processor time while it should rest", cpu);
    cr_assert_leq(log_count("listener event=paused"), 4);
    guest_ping(&p, 1);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    check_served();
    for (int i = 0; i < n; i++)
        close(fds[i]);
    guest_close(&p);
    cloud_rig_stop(&r);
}

Test(cloud, bad_addresses) {
    static const char *const bad[] = {
        "",         "7433",  "localhost",    "127.0.0.1:",       "127.0.0.1:70000", "127.0.0.1:80x",
        "::1:7433", ":7433", "127.0.0.1:-1", "nowhere.invalid:1"};
    cloud_rig_init(&r, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        r.o.listen = bad[i];
        cr_assert_eq(cloud_create(&r.cloud, &r.o, &e), -1, "%s", bad[i]);
        cr_assert_eq(e.kind, ERR_USAGE, "%s: %s", bad[i], e.msg);
    }
    struct err e = {0};
    char taken[40];
    r.o.listen = "127.0.0.1:0";
    cloud_rig_start(&r);
    snprintf(taken, sizeof taken, "127.0.0.1:%u", cloud_port(r.cloud));
    struct cloud_opts o = r.o;
    struct cloud *second;
    o.listen = taken;
    cr_assert_eq(cloud_create(&second, &o, &e), -1);
    cr_assert(e.kind == ERR_IO && strstr(e.msg, taken) && strstr(e.msg, "in use"), "%s", e.msg);
    cloud_rig_stop(&r);
}

Test(cloud, log_gate) {
    static struct log_gate g;
    uint64_t held = 99;
    cr_assert(log_gate_pass(&g, "a", 1, 1000, &held) && held == 0);
    cr_assert_not(log_gate_pass(&g, "a", 1, 2000, &held));
    cr_assert_not(log_gate_pass(&g, "a", 1, 60999, &held));
    cr_assert(log_gate_pass(&g, "b", 1, 3000, &held) && held == 2);
    cr_assert(log_gate_pass(&g, "a", 1, 61000, &held) && held == 0);
    for (int i = 0; i < 1000; i++)
        log_gate_pass(&g, &i, sizeof i, 61000, &held);
    cr_assert_not(log_gate_pass(&g, "new", 3, 61001, &held));
    cr_assert(log_gate_pass(&g, "new", 3, 121001, &held));
    cr_assert_geq(held, 1000 - LOG_GATE_KEYS);
}
