/* TLS 1.3 with mbedTLS. Nothing in a certificate is believed: the peer proves that it has the key, and the pin of the
 * key decides. */
#include "net/tls.h"

#include "core/base/wipe.h"
#include "net/identity_key.h"

#include <errno.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

struct tls_config {
    mbedtls_ssl_config ssl;
    mbedtls_x509_crt no_ca; /* mbedTLS insists on a list of authorities; nobody is in it */
    const struct identity *id;
    bool server;
};

struct tls {
    mbedtls_ssl_context ssl;
    struct tls_config *config;
    int fd;
    tls_accept_fn accept;
    void *accept_ctx;
    struct pin peer;
    bool has_peer;    /* peer is set */
    bool welcome;     /* and was accepted */
    bool established; /* and the handshake is over */
    bool heard;       /* something was read after the handshake */
    bool closed;      /* the peer said goodbye */
    bool failed;
    bool write_failed;     /* what the peer sent before can still be read */
    size_t writing;        /* bytes of the write that ended with a WANT; 0: none */
    int sock_errno;        /* of the last failure of the socket */
    unsigned char tail[7]; /* the last bytes that came: an alert in the clear has so many */
    uint64_t sent, received;
    size_t barren;      /* bytes received since something could be read */
    struct err refusal; /* of the peer's key, set within mbedTLS */
};

static const char *const alpn = "splitinf/1";

/* Warnings and ChangeCipherSpec mean nothing, and mbedTLS takes them off the socket within one call for as long as they
 * come. Nobody may come with more than this and say nothing; a handshake needs a few kilobytes, a record 16. */
enum { MAX_BARREN = 64 << 10 };

static bool cpu_has_aes(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    unsigned long has = getauxval(AT_HWCAP);
    return (has & HWCAP_AES) && (has & HWCAP_PMULL);
#else
    return false;
#endif
}

/* Looks at the certificates that the peer sent, and asks. False: t->refusal says why. */
static bool peer_is_welcome(struct tls *t, const mbedtls_x509_crt *cert) {
    const char *who = t->config->server ? "client" : "cloud";
    char pin[PIN_TEXT];
    if (!cert) {
        err_set(&t->refusal, ERR_CRYPTO, "the %s sent no certificate", who);
        return false;
    }
    if (cert->next) {
        err_set(&t->refusal, ERR_CRYPTO, "the %s sent a chain of certificates, where one alone is right", who);
        return false;
    }
    if (!pin_of_spki(&t->peer, cert->pk_raw.p, cert->pk_raw.len)) {
        err_set(&t->refusal, ERR_CRYPTO, "the key of the %s is not ECDSA P-256", who);
        return false;
    }
    t->has_peer = true;
    t->welcome = t->accept(t->accept_ctx, &t->peer);
    if (t->welcome)
        return true;
    pin_format(&t->peer, pin);
    if (t->config->server)
        err_set(&t->refusal, ERR_CRYPTO, "the client's pin is not allowed; if it should be: --allow %s", pin);
    else
        err_set(
            &t->refusal, ERR_CRYPTO,
            "the cloud has the pin %s, which is not the one that was expected: this is another machine, or its key was "
            "made anew (its operator can say so: splitinf identity prints its pin)",
            pin);
    return false;
}

/* For the client, before it shows its own certificate. The flags (dates, authorities) are not looked at. That the peer
 * has the key is proved after this, in the same handshake. */
static int verify(void *ctx, mbedtls_x509_crt *cert, int depth, uint32_t *flags) {
    struct tls *t = ctx;
    if (depth == 0)
        *flags = peer_is_welcome(t, cert) ? 0 : MBEDTLS_X509_BADCERT_OTHER; /* access_denied */
    return 0;
}

int tls_config_create(struct tls_config **out, bool server, const struct identity *id, struct err *e) {
    static const int aes_first[] = {MBEDTLS_TLS1_3_AES_128_GCM_SHA256, MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, 0};
    static const int chacha_first[] = {MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS1_3_AES_128_GCM_SHA256, 0};
    static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
    static const uint16_t signatures[] = {MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256, MBEDTLS_TLS1_3_SIG_NONE};
    static const char *protocols[] = {alpn, NULL};
    char text[128];
    *out = NULL;
    if (crypto_start(e) != 0)
        return -1;
    struct tls_config *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_MEMORY, "out of memory");
    c->id = id;
    c->server = server;
    mbedtls_x509_crt_init(&c->no_ca);
    mbedtls_ssl_config *s = &c->ssl;
    mbedtls_ssl_config_init(s);
    int rc = mbedtls_ssl_config_defaults(s, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                         MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_min_tls_version(s, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_max_tls_version(s, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_tls13_key_exchange_modes(s, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL);
    mbedtls_ssl_conf_rng(s, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    mbedtls_ssl_conf_ciphersuites(s, cpu_has_aes() ? aes_first : chacha_first);
    mbedtls_ssl_conf_groups(s, groups);
    mbedtls_ssl_conf_sig_algs(s, signatures);
    if (server)
        mbedtls_ssl_conf_new_session_tickets(s, 0);
    else
        mbedtls_ssl_conf_session_tickets(s, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    mbedtls_ssl_conf_authmode(s, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(s, &c->no_ca, NULL);
    if (rc == 0)
        rc = mbedtls_ssl_conf_alpn_protocols(s, protocols);
    if (rc == 0) /* both are only read; the functions want them writable for RSA's sake */
        rc = mbedtls_ssl_conf_own_cert(s, (mbedtls_x509_crt *)(uintptr_t)&id->cert,
                                       (mbedtls_pk_context *)(uintptr_t)&id->key);
    if (rc != 0) {
        crypto_strerror(rc, text, sizeof text);
        tls_config_free(c);
        return err_set(e, ERR_CRYPTO, "cannot set up TLS: %s", text);
    }
    *out = c;
    return 0;
}

void tls_config_free(struct tls_config *c) {
    if (!c)
        return;
    mbedtls_ssl_config_free(&c->ssl);
    mbedtls_x509_crt_free(&c->no_ca);
    free(c);
}

static int socket_recv(void *ctx, unsigned char *buf, size_t n) {
    struct tls *t = ctx;
    ssize_t k;
    if (t->barren > MAX_BARREN) {
        err_set(&t->refusal, ERR_PEER, "the other side sends TLS records that say nothing");
        return MBEDTLS_ERR_NET_RECV_FAILED;
    }
    do
        k = recv(t->fd, buf, n, MSG_DONTWAIT);
    while (k < 0 && errno == EINTR);
    if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (k < 0) {
        t->sock_errno = errno;
        return MBEDTLS_ERR_NET_RECV_FAILED;
    }
    t->received += (uint64_t)k;
    t->barren += (size_t)k;
    size_t n_new = (size_t)k < sizeof t->tail ? (size_t)k : sizeof t->tail;
    memmove(t->tail, t->tail + n_new, sizeof t->tail - n_new);
    memcpy(t->tail + sizeof t->tail - n_new, buf + k - n_new, n_new);
    return (int)k;
}

static int socket_send(void *ctx, const unsigned char *buf, size_t n) {
    struct tls *t = ctx;
    ssize_t k;
    do
        k = send(t->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (k < 0 && errno == EINTR);
    if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    if (k < 0) {
        t->sock_errno = errno;
        return MBEDTLS_ERR_NET_SEND_FAILED;
    }
    t->sent += (uint64_t)k;
    return (int)k;
}

int tls_create(struct tls **out, struct tls_config *c, int fd, tls_accept_fn accept, void *ctx, struct err *e) {
    *out = NULL;
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory for a connection");
    t->config = c;
    t->fd = fd;
    t->accept = accept;
    t->accept_ctx = ctx;
    mbedtls_ssl_init(&t->ssl);
    int rc = mbedtls_ssl_setup(&t->ssl, &c->ssl);
    if (rc == 0 && !c->server)
        rc = mbedtls_ssl_set_hostname(&t->ssl, NULL); /* names mean nothing; without this call it refuses to begin */
    if (rc != 0) {
        tls_free(t);
        return err_set(e, ERR_MEMORY, "out of memory for a connection");
    }
    mbedtls_ssl_set_verify(&t->ssl, verify, t);
    mbedtls_ssl_set_bio(&t->ssl, t, socket_send, socket_recv, NULL);
    *out = t;
    return 0;
}

void tls_free(struct tls *t) {
    if (!t)
        return;
    mbedtls_ssl_free(&t->ssl);
    wipe_free(t, sizeof *t);
}

/* The fatal alert with which the peer ended it, or -1. */
static int peer_alert(const struct tls *t, int rc) {
    static const unsigned char head[] = {0x15, 3, 3, 0, 2, MBEDTLS_SSL_ALERT_LEVEL_FATAL};
    if (rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        return t->ssl.MBEDTLS_PRIVATE(in_msg)[1]; /* mbedTLS does not give it out otherwise */
    /* A client made with mbedTLS that refuses a server says so in the clear, where a server made with it expects
     * ciphertext. Nobody vouches for such an alert, but it only chooses the words about a connection that is over. */
    if (rc == MBEDTLS_ERR_SSL_INVALID_MAC && t->config->server && !t->established &&
        memcmp(t->tail, head, sizeof head) == 0)
        return t->tail[sizeof head];
    return -1;
}

static void alert_error(struct tls *t, int alert, struct err *e) {
    char pin[PIN_TEXT];
    pin_format(&t->config->id->pin, pin);
    switch (alert) {
    case MBEDTLS_SSL_ALERT_MSG_NO_CERT:
    case MBEDTLS_SSL_ALERT_MSG_BAD_CERT:
    case MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT:
    case MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN:
    case MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA:
    case MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED:
    case MBEDTLS_SSL_ALERT_MSG_CERT_REQUIRED:
        if (!t->config->server && !t->established) /* not a word of the cloud's: it has not seen our key yet */
            err_set(e, ERR_PEER, "the other side broke off with TLS alert %d", alert);
        else if (t->config->server)
            err_set(e, ERR_CRYPTO, "the client does not take this cloud's pin, %s; it expects another one (alert %d)",
                    pin, alert);
        else
            err_set(e, ERR_CRYPTO,
                    "the cloud does not allow this machine; have its operator add this machine's pin: --allow %s", pin);
        break;
    case MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION:
    case MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE:
    case MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL:
        err_set(e, ERR_PEER,
                "the other side wants another kind of TLS (alert %d); is it splitinf, and of this version?", alert);
        break;
    default:
        err_set(e, ERR_PEER, "the other side broke off with TLS alert %d", alert);
    }
}

/* The connection is over, and rc of mbedTLS says why. */
static enum tls_status fail(struct tls *t, int rc, const char *doing, struct err *e) {
    /* A server that refuses a client may be gone before the alert was read. */
    const char *perhaps = t->established && !t->config->server && !t->heard
                              ? "; it came before a single answer: perhaps the cloud does not allow this machine"
                              : "";
    char text[128];
    t->failed = true;
    if (t->refusal.kind != ERR_NONE) {
        err_set(e, t->refusal.kind, "%s", t->refusal.msg);
        return TLS_FAILED;
    }
    int alert = peer_alert(t, rc);
    if (alert >= 0) {
        alert_error(t, alert, e);
        return TLS_FAILED;
    }
    switch (rc) {
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        err_set(e, ERR_CRYPTO, "the client sent no certificate");
        break;
    case MBEDTLS_ERR_NET_RECV_FAILED:
    case MBEDTLS_ERR_NET_SEND_FAILED:
        err_set(e, ERR_IO, "%s: %s%s", doing, strerrordesc_np(t->sock_errno), perhaps);
        break;
    case MBEDTLS_ERR_SSL_CONN_EOF:
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY: /* within the handshake */
        err_set(e, ERR_IO, "%s: the other side ended the connection%s", doing, perhaps);
        break;
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
        err_set(e, ERR_MEMORY, "%s: out of memory", doing);
        break;
    default:
        crypto_strerror(rc, text, sizeof text);
        err_set(e, ERR_PEER, "%s: %s", doing, text);
    }
    return TLS_FAILED;
}

static enum tls_status failed_before(struct err *e) {
    err_set(e, ERR_IO, "the connection has failed");
    return TLS_FAILED;
}

static enum tls_status refuse(struct tls *t, unsigned char alert, struct err *e) {
    mbedtls_ssl_send_alert_message(&t->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, alert);
    return fail(t, 0, "", e);
}

enum tls_status tls_handshake(struct tls *t, struct err *e) {
    const char *doing = "TLS handshake";
    if (t->failed)
        return failed_before(e);
    while (!mbedtls_ssl_is_handshake_over(&t->ssl)) {
        /* A stranger may send a chain of certificates with keys so large that to check one signature takes a second,
         * and mbedTLS does so before it asks verify(). Hence a server leaves X.509 out: the certificate is only parsed
         * here, then the signature of the handshake shows that its key is the peer's, and below the pin decides. */
        if (t->config->server && t->ssl.MBEDTLS_PRIVATE(state) == MBEDTLS_SSL_CLIENT_CERTIFICATE)
            mbedtls_ssl_set_hs_authmode(&t->ssl, MBEDTLS_SSL_VERIFY_NONE);
        int rc = mbedtls_ssl_handshake_step(&t->ssl);
        if (rc == MBEDTLS_ERR_SSL_WANT_READ)
            return TLS_WANT_READ;
        if (rc == MBEDTLS_ERR_SSL_WANT_WRITE)
            return TLS_WANT_WRITE;
        if (rc != 0)
            return fail(t, rc, doing, e);
    }
    if (t->established)
        return TLS_DONE;
    const char *protocol = mbedtls_ssl_get_alpn_protocol(&t->ssl);
    if (!protocol || strcmp(protocol, alpn) != 0) {
        err_set(&t->refusal, ERR_PEER, "the other side speaks TLS, but not %s", alpn);
        return refuse(t, MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL, e);
    }
    if (t->config->server && !peer_is_welcome(t, mbedtls_ssl_get_peer_cert(&t->ssl)))
        return refuse(t, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, e);
    if (!t->welcome) { /* cannot be; but whatever mbedTLS does, nothing is sent to somebody who was not looked at */
        err_set(&t->refusal, ERR_CRYPTO, "the key of the other side was not checked");
        return refuse(t, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR, e);
    }
    t->established = true;
    return TLS_DONE;
}

enum tls_status tls_read(struct tls *t, void *buf, size_t cap, size_t *n, struct err *e) {
    int rc;
    if (t->failed || !t->established)
        return failed_before(e);
    if (t->closed)
        return TLS_CLOSED;
    do
        rc = mbedtls_ssl_read(&t->ssl, buf, cap);
    while (rc == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET); /* of another implementation; not used */
    if (rc > 0) {
        t->heard = true;
        t->barren = 0;
        *n = (size_t)rc;
        return TLS_DONE;
    }
    if (rc == MBEDTLS_ERR_SSL_WANT_READ)
        return TLS_WANT_READ;
    if (rc == MBEDTLS_ERR_SSL_WANT_WRITE)
        return TLS_WANT_WRITE;
    if (rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
        t->closed = true;
        return TLS_CLOSED;
    }
    return fail(t, rc == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : rc, "reading from the connection", e);
}

/* A write failed because the peer is gone: its alert may lie there unread, and says more than the socket. Data that
 * lies there stays. */
static bool alert_waits(struct tls *t) {
    unsigned char none[1];
    return mbedtls_ssl_read(&t->ssl, none, 0) == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
}

enum tls_status tls_write(struct tls *t, const void *p, size_t len, size_t *n, struct err *e) {
    if (t->failed || t->write_failed || !t->established)
        return failed_before(e);
    *n = 0;
    if (len == 0)
        return TLS_DONE;
    size_t most = (size_t)mbedtls_ssl_get_max_out_record_payload(&t->ssl); /* not negative once keys are there */
    if (t->writing != 0) {
        /* A record with so many bytes waits to be sent, however many there are by now. */
        if (len < t->writing) {
            t->write_failed = true;
            err_set(e, ERR_USAGE, "a write of %zu bytes was repeated with %zu", t->writing, len);
            return TLS_FAILED;
        }
        most = t->writing;
    }
    if (len > most)
        len = most;
    int rc = mbedtls_ssl_write(&t->ssl, p, len);
    if (rc > 0) {
        t->writing = 0;
        *n = (size_t)rc;
        return TLS_DONE;
    }
    if (rc == MBEDTLS_ERR_SSL_WANT_WRITE || rc == MBEDTLS_ERR_SSL_WANT_READ) {
        t->writing = len;
        return rc == MBEDTLS_ERR_SSL_WANT_WRITE ? TLS_WANT_WRITE : TLS_WANT_READ;
    }
    if (rc == MBEDTLS_ERR_NET_SEND_FAILED) {
        int sent_errno = t->sock_errno;
        if (alert_waits(t))
            rc = MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
        t->sock_errno = sent_errno;
    }
    fail(t, rc, "writing to the connection", e);
    t->failed = rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
    t->write_failed = true;
    return TLS_FAILED;
}

bool tls_pending(const struct tls *t) {
    return t->established && !t->failed && mbedtls_ssl_check_pending(&t->ssl) != 0;
}

void tls_close_notify(struct tls *t) {
    if (t->established && !t->failed && !t->write_failed)
        mbedtls_ssl_close_notify(&t->ssl);
}

const struct pin *tls_peer_pin(const struct tls *t) {
    return t->has_peer ? &t->peer : NULL;
}

void tls_traffic(const struct tls *t, uint64_t *sent, uint64_t *received) {
    *sent = t->sent;
    *received = t->received;
}

const char *tls_suite(const struct tls *t) {
    const char *suite = mbedtls_ssl_get_ciphersuite(&t->ssl);
    return suite ? suite : "none";
}
