/* net/tls against peers that are not splitinf, made of plain mbedTLS. */
#include "net/tls.h"
#include "test/unit/tls_rig.h"

#include <criterion/criterion.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <string.h>
#include <sys/socket.h>

enum { ALERT_ACCESS_DENIED = 49, ALERT_PROTOCOL_VERSION = 70, ALERT_NO_PROTOCOL = 120 };

static const char from[] = "20200101000000", to[] = "99991231235959";

struct meeting {
    struct tls_rig r;
    struct stranger s;
    struct tls_rig_cert cert, second;
    struct tls_rig_end *ours;
    bool server; /* the stranger is one */
};

/* A stranger with a good key of its own, whom our side takes. */
static void meet(struct meeting *m, bool stranger_is_server, enum tls_rig_key type, const char *not_before,
                 const char *not_after) {
    memset(m, 0, sizeof *m);
    tls_rig_open(&m->r);
    m->server = stranger_is_server;
    m->ours = stranger_is_server ? &m->r.client : &m->r.server;
    m->ours->any = true;
    tls_rig_cert_make(&m->cert, type, not_before, not_after);
    tls_rig_cert_make(&m->second, TLS_RIG_P256, from, to);
    stranger_init(&m->s, stranger_is_server);
}

static void own_cert(struct meeting *m) {
    cr_assert_eq(mbedtls_ssl_conf_own_cert(&m->s.conf, &m->cert.cert, &m->cert.key), 0);
}

static void shake(struct meeting *m, const char *alpn) {
    stranger_start(&m->s, &m->r, alpn);
    stranger_handshake(&m->s, &m->r);
    if (m->ours->status != TLS_DONE && m->s.rc == 0)
        stranger_read(&m->s, &m->r); /* the alert that comes after the handshake */
    if (m->s.rc != 0) {
        shutdown(m->s.fd, SHUT_WR); /* not all alerts of mbedTLS can be read: then this tells that it has given up */
        while (tls_rig_carry(&m->r))
            continue;
        tls_rig_step(m->ours);
    }
}

static void part(struct meeting *m) {
    stranger_free(&m->s);
    m->cert.cert.next = NULL;
    tls_rig_cert_free(&m->cert);
    tls_rig_cert_free(&m->second);
    tls_rig_close(&m->r);
}

static void must_fail(struct meeting *m, enum err_kind kind, const char *says, int alert) {
    cr_assert_eq(m->ours->status, TLS_FAILED);
    cr_assert_eq(m->ours->e.kind, kind, "%s", m->ours->e.msg);
    cr_assert(strstr(m->ours->e.msg, says), "'%s' does not say '%s'", m->ours->e.msg, says);
    cr_assert_eq(m->s.alert, alert, "alert %d, not %d", m->s.alert, alert);
}

Test(strangers, good_ones_are_taken_both_ways) {
    for (int server = 0; server < 2; server++) {
        struct meeting m;
        meet(&m, server, TLS_RIG_P256, from, to);
        own_cert(&m);
        shake(&m, "splitinf/1");
        cr_assert_eq(m.ours->status, TLS_DONE, "%s", m.ours->e.msg);
        cr_assert_eq(m.s.rc, 0);
        cr_assert_str_eq(mbedtls_ssl_get_version(&m.s.ssl), "TLSv1.3");
        /* Not a byte comes unasked: no session ticket. */
        unsigned char c;
        while (tls_rig_carry(&m.r))
            continue;
        cr_assert_eq(mbedtls_ssl_read(&m.s.ssl, &c, 1), MBEDTLS_ERR_SSL_WANT_READ);
        part(&m);
    }
}

Test(strangers, dates_mean_nothing) {
    static const char *const dates[][2] = {{"20000101000000", "20010101000000"}, {"99980101000000", "99991231235959"}};
    for (int server = 0; server < 2; server++) {
        for (int k = 0; k < 2; k++) {
            struct meeting m;
            meet(&m, server, TLS_RIG_P256, dates[k][0], dates[k][1]);
            own_cert(&m);
            shake(&m, "splitinf/1");
            cr_assert_eq(m.ours->status, TLS_DONE, "%s", m.ours->e.msg);
            part(&m);
        }
    }
}

Test(strangers, no_certificate) {
    struct meeting m;
    meet(&m, false, TLS_RIG_P256, from, to);
    shake(&m, "splitinf/1");
    /* mbedTLS sends no_certificate with the keys of the handshake, which the client does not use any more. */
    must_fail(&m, ERR_CRYPTO, "the client sent no certificate", -1);
    cr_assert_neq(m.s.rc, 0);
    cr_assert_eq(m.ours->asked, 0);
    part(&m);
}

Test(strangers, a_chain) {
    for (int server = 0; server < 2; server++) {
        struct meeting m;
        meet(&m, server, TLS_RIG_P256, from, to);
        m.cert.cert.next = &m.second.cert;
        own_cert(&m);
        shake(&m, "splitinf/1");
        /* The client says it in the clear, which the other mbedTLS does not understand. */
        must_fail(&m, ERR_CRYPTO, "a chain of certificates", server ? -1 : ALERT_ACCESS_DENIED);
        cr_assert_neq(m.s.rc, 0);
        cr_assert_eq(m.ours->asked, 0);
        part(&m);
    }
}

/* It cannot sign as we ask, so that most ways end on its side; none goes through. */
Test(strangers, other_keys) {
    for (int server = 0; server < 2; server++) {
        for (int k = 0; k < 2; k++) {
            struct meeting m;
            meet(&m, server, k ? TLS_RIG_RSA : TLS_RIG_P384, from, to);
            own_cert(&m);
            shake(&m, "splitinf/1");
            cr_assert_eq(m.ours->status, TLS_FAILED);
            cr_assert_neq(m.ours->e.kind, ERR_NONE);
            cr_assert_eq(m.ours->asked, 0);
            part(&m);
        }
    }
}

/* The certificate of one key, the signature of another. */
Test(strangers, somebody_elses_certificate) {
    for (int server = 0; server < 2; server++) {
        struct meeting m;
        meet(&m, server, TLS_RIG_P256, from, to);
        cr_assert_eq(mbedtls_ssl_conf_own_cert(&m.s.conf, &m.cert.cert, &m.second.key), 0);
        shake(&m, "splitinf/1");
        cr_assert_eq(m.ours->status, TLS_FAILED);
        cr_assert_neq(m.ours->e.kind, ERR_NONE);
        cr_assert(server || m.ours->asked == 0, "a cloud asks only about keys that were proved");
        part(&m);
    }
}

Test(strangers, tls_1_2) {
    for (int server = 0; server < 2; server++) {
        struct meeting m;
        meet(&m, server, TLS_RIG_P256, from, to);
        mbedtls_ssl_conf_max_tls_version(&m.s.conf, MBEDTLS_SSL_VERSION_TLS1_2);
        own_cert(&m);
        shake(&m, "splitinf/1");
        cr_assert_eq(m.ours->status, TLS_FAILED);
        cr_assert_eq(m.ours->e.kind, ERR_PEER, "%s", m.ours->e.msg);
        if (!server)
            cr_assert_eq(m.s.alert, ALERT_PROTOCOL_VERSION);
        part(&m);
    }
}

Test(strangers, another_application) {
    static const char *const protocols[] = {NULL, "h2", "splitinf/2"};
    for (int server = 0; server < 2; server++) {
        for (int k = 0; k < 3; k++) {
            struct meeting m;
            meet(&m, server, TLS_RIG_P256, from, to);
            own_cert(&m);
            shake(&m, protocols[k]);
            cr_assert_eq(m.ours->status, TLS_FAILED);
            cr_assert_eq(m.ours->e.kind, ERR_PEER, "%s", m.ours->e.msg);
            cr_assert(m.s.alert == ALERT_NO_PROTOCOL || (server && k > 0), "alert %d", m.s.alert);
            part(&m);
        }
    }
}

struct offer {
    int suites[2];
    uint16_t groups[2];
    const char *suite; /* NULL: refused */
};

Test(strangers, suites_and_groups) {
    static const struct offer offers[] = {
        {{MBEDTLS_TLS1_3_AES_128_GCM_SHA256}, {MBEDTLS_SSL_IANA_TLS_GROUP_X25519}, "TLS1-3-AES-128-GCM-SHA256"},
        {{MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256},
         {MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1},
         "TLS1-3-CHACHA20-POLY1305-SHA256"},
        {{MBEDTLS_TLS1_3_AES_256_GCM_SHA384}, {MBEDTLS_SSL_IANA_TLS_GROUP_X25519}, NULL},
        {{MBEDTLS_TLS1_3_AES_128_GCM_SHA256}, {MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1}, NULL},
    };
    for (int server = 0; server < 2; server++) {
        for (size_t k = 0; k < sizeof offers / sizeof *offers; k++) {
            struct meeting m;
            meet(&m, server, TLS_RIG_P256, from, to);
            mbedtls_ssl_conf_ciphersuites(&m.s.conf, offers[k].suites);
            mbedtls_ssl_conf_groups(&m.s.conf, offers[k].groups);
            own_cert(&m);
            shake(&m, "splitinf/1");
            cr_assert_eq(m.ours->status, offers[k].suite ? TLS_DONE : TLS_FAILED, "%d %zu: %s", server, k,
                         m.ours->e.msg);
            if (offers[k].suite)
                cr_assert_str_eq(tls_suite(m.ours->t), offers[k].suite);
            part(&m);
        }
    }
}
