/* net/cloud/cloud: what those who are not allowed, or have not yet said who they are, can do to those who are. */
#include "core/base/clock.h"
#include "net/cloud/cloud.h"
#include "test/unit/cloud_rig.h"

#include <criterion/criterion.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <poll.h>
#include <psa/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FLOOD_BYTES = 16 << 20 };

static struct cloud_rig r;
static char scratch[4096];

Test(cloud_strangers, silence_before_hello_ends) {
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    r.o.handshake_ms = 1500;
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

Test(cloud_strangers, silence_afterwards_ends) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    r.o.idle_ms = 1500;
    cloud_rig_start(&r);
    guest_open(&p, &r);
    for (double t0 = clock_ms(); clock_ms() - t0 < 2000; poll(NULL, 0, 40))
        guest_ping(&p, 3); /* is not silence */
    guest_await_error(&p, WIRE_E_IDLE);
    guest_close(&p);
    log_await("reason=idle", 1);
    cloud_rig_stop(&r);
}

Test(cloud_strangers, slow_loris_keeps_nobody_out) {
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
    rig_check_served(&r);
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

Test(cloud_strangers, addresses_have_limits) {
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
    rig_check_served(&r);
    cr_assert(tcp_closed(fd, RIG_WAIT_MS));
    close(fd);
    guest_ping(&b, 1);
    guest_close(&b);
    cloud_rig_stop(&r);
}

Test(cloud_strangers, connections_have_a_limit) {
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

Test(cloud_strangers, garbage_instead_of_tls) {
    static const char http[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    for (int i = 0; i < 40; i++) {
        uint8_t noise[3000];
        size_t n = 1 + rig_random() % sizeof noise;
        for (size_t k = 0; k < n; k++)
            noise[k] = (uint8_t)rig_random();
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
    rig_check_served(&r);
    cloud_rig_stop(&r);
}

/* Records that TLS passes over: as many as the socket takes, until the cloud has had enough. */
struct flood {
    int fd;
    const char *record;
    size_t n_record, sent;
};

static void *pour(void *arg) {
    struct flood *f = arg;
    char block[16384];
    size_t n = 0;
    for (; n + f->n_record <= sizeof block; n += f->n_record)
        memcpy(block + n, f->record, f->n_record);
    for (size_t at = 0; f->sent < FLOOD_BYTES;) {
        ssize_t k = send(f->fd, block + at, n - at, MSG_NOSIGNAL);
        if (k <= 0)
            break;
        f->sent += (size_t)k;
        at = (at + (size_t)k) % n;
    }
    return NULL;
}

static void check_flood(struct guest *p, int fd, const char *record, size_t n_record) {
    struct flood f = {.fd = fd, .record = record, .n_record = n_record};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, pour, &f), 0);
    guest_ping(p, 7);
    pthread_join(thread, NULL);
    cr_assert_lt(f.sent, FLOOD_BYTES, "the cloud read all of it");
}

Test(cloud_strangers, endless_empty_records_stop_nobody) {
    static const char warning[] = "\x15\3\3\0\2\1\x5a", change[] = "\x14\3\3\0\1\1";
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    guest_open(&q, &r);
    int a = tcp_connect(cloud_port(r.cloud)), b = tcp_connect(cloud_port(r.cloud));
    check_flood(&p, a, warning, sizeof warning - 1);
    check_flood(&p, b, change, sizeof change - 1);
    check_flood(&p, q.fd, change, sizeof change - 1);
    log_await("reason=handshake", 1);
    log_await("that say nothing", 2);
    guest_ping(&p, 8);
    close(a);
    close(b);
    guest_close(&q);
    guest_close(&p);
    cloud_rig_stop(&r);
}

Test(cloud_strangers, tls_1_2_is_refused) {
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
    rig_check_served(&r);
    cloud_rig_stop(&r);
}

Test(cloud_strangers, no_certificate_is_refused) {
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
    rig_check_served(&r);
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

Test(cloud_strangers, wrong_pins_are_logged_once_and_can_be_added) {
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
