#include "test/unit/tls_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/rsa.h>
#include <psa/crypto.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool accept_peer(void *ctx, const struct pin *pin) {
    struct tls_rig_end *end = ctx;
    end->asked++;
    return end->any || pin_equal(pin, &end->expected);
}

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void connect_end(struct tls_rig_end *end) {
    int fd[2];
    tls_free(end->t);
    close_fd(&end->fd);
    close_fd(&end->wire);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    end->fd = fd[0];
    end->wire = fd[1];
    end->e = (struct err){0};
    end->asked = 0;
    end->status = TLS_WANT_READ;
    cr_assert_eq(tls_create(&end->t, end->config, end->fd, accept_peer, end, &end->e), 0, "%s", end->e.msg);
}

void tls_rig_renew(struct tls_rig *r) {
    connect_end(&r->client);
    connect_end(&r->server);
    r->up = r->down = (struct tls_rig_way){0};
}

void tls_rig_open(struct tls_rig *r) {
    struct err e = {0};
    *r = (struct tls_rig){.client = {.fd = -1, .wire = -1}, .server = {.fd = -1, .wire = -1}};
    cr_assert_eq(identity_ephemeral(&r->client.id, &e), 0, "%s", e.msg);
    cr_assert_eq(identity_ephemeral(&r->server.id, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_config_create(&r->client.config, false, r->client.id, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_config_create(&r->server.config, true, r->server.id, &e), 0, "%s", e.msg);
    r->client.expected = *identity_pin(r->server.id);
    r->server.expected = *identity_pin(r->client.id);
    tls_rig_renew(r);
}

static void close_end(struct tls_rig_end *end) {
    tls_free(end->t);
    tls_config_free(end->config);
    identity_free(end->id);
    close_fd(&end->fd);
    close_fd(&end->wire);
}

void tls_rig_close(struct tls_rig *r) {
    close_end(&r->client);
    close_end(&r->server);
}

static bool carry(struct tls_rig_way *way, int *from, int *to) {
    unsigned char buf[4096];
    size_t want = way->chunk && way->chunk < sizeof buf ? way->chunk : sizeof buf;
    if (*from < 0 || *to < 0)
        return false;
    if (way->cut_on && way->cut - way->passed < want)
        want = way->cut - way->passed;
    if (want == 0) {
        shutdown(*to, SHUT_WR);
        return false;
    }
    /* What does not fit stays where it is: look, pass on, then take away. */
    ssize_t n = recv(*from, buf, want, MSG_DONTWAIT | MSG_PEEK);
    if (n == 0)
        close_fd(to); /* the sender is gone: its peer sees that */
    if (n <= 0)
        return false;
    if (way->flip_on && way->flip - way->passed < (size_t)n)
        buf[way->flip - way->passed] ^= 0x21;
    ssize_t k = send(*to, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (k <= 0)
        return false;
    cr_assert_eq(recv(*from, buf, (size_t)k, MSG_DONTWAIT), k);
    way->passed += (size_t)k;
    if (way->cut_on && way->passed == way->cut)
        shutdown(*to, SHUT_WR);
    return true;
}

bool tls_rig_carry(struct tls_rig *r) {
    bool up = carry(&r->up, &r->client.wire, &r->server.wire);
    return carry(&r->down, &r->server.wire, &r->client.wire) || up;
}

void tls_rig_step(struct tls_rig_end *end) {
    if (end->status == TLS_WANT_READ || end->status == TLS_WANT_WRITE)
        end->status = tls_handshake(end->t, &end->e);
}

void tls_rig_handshake(struct tls_rig *r) {
    do {
        tls_rig_step(&r->client);
        tls_rig_step(&r->server);
    } while (tls_rig_carry(r));
    /* An end of the other side may have arrived with the last byte. */
    tls_rig_step(&r->client);
    tls_rig_step(&r->server);
}

void tls_rig_cert_make(struct tls_rig_cert *c, enum tls_rig_key type, const char *from, const char *to) {
    mbedtls_x509write_cert w;
    unsigned char der[4096];
    psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
    psa_key_id_t key;
    cr_assert_eq(psa_crypto_init(), PSA_SUCCESS);
    mbedtls_pk_init(&c->key);
    mbedtls_x509_crt_init(&c->cert);
    psa_set_key_type(&a, type == TLS_RIG_RSA ? PSA_KEY_TYPE_RSA_KEY_PAIR
                                             : PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
    psa_set_key_bits(&a, type == TLS_RIG_RSA ? 1024 : type == TLS_RIG_P384 ? 384 : 256);
    psa_set_key_usage_flags(&a, PSA_KEY_USAGE_EXPORT);
    cr_assert_eq(psa_generate_key(&a, &key), PSA_SUCCESS);
    cr_assert_eq(mbedtls_pk_copy_from_psa(key, &c->key), 0);
    psa_destroy_key(key);
    mbedtls_x509write_crt_init(&w);
    mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&w, &c->key);
    mbedtls_x509write_crt_set_issuer_key(&w, &c->key);
    cr_assert_eq(mbedtls_x509write_crt_set_serial_raw(&w, (unsigned char[]){1}, 1), 0);
    cr_assert_eq(mbedtls_x509write_crt_set_subject_name(&w, "CN=stranger"), 0);
    cr_assert_eq(mbedtls_x509write_crt_set_issuer_name(&w, "CN=stranger"), 0);
    cr_assert_eq(mbedtls_x509write_crt_set_validity(&w, from, to), 0);
    cr_assert_eq(mbedtls_x509write_crt_set_basic_constraints(&w, 1, -1), 0);
    int n = mbedtls_x509write_crt_der(&w, der, sizeof der, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    cr_assert_gt(n, 0);
    cr_assert_eq(mbedtls_x509_crt_parse_der(&c->cert, der + sizeof der - n, (size_t)n), 0);
    mbedtls_x509write_crt_free(&w);
}

void tls_rig_cert_free(struct tls_rig_cert *c) {
    mbedtls_pk_free(&c->key);
    mbedtls_x509_crt_free(&c->cert);
}

void stranger_init(struct stranger *s, bool server) {
    cr_assert_eq(psa_crypto_init(), PSA_SUCCESS);
    *s = (struct stranger){.fd = -1, .alert = -1};
    mbedtls_ssl_config_init(&s->conf);
    mbedtls_ssl_init(&s->ssl);
    mbedtls_x509_crt_init(&s->no_ca);
    cr_assert_eq(mbedtls_ssl_config_defaults(&s->conf, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                             MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT),
                 0);
    mbedtls_ssl_conf_rng(&s->conf, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    mbedtls_ssl_conf_authmode(&s->conf, server ? MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_ca_chain(&s->conf, &s->no_ca, NULL);
}

static int stranger_send(void *ctx, const unsigned char *buf, size_t n) {
    ssize_t k = send(((struct stranger *)ctx)->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return k < 0 ? MBEDTLS_ERR_SSL_WANT_WRITE : (int)k;
}

static int stranger_recv(void *ctx, unsigned char *buf, size_t n) {
    ssize_t k = recv(((struct stranger *)ctx)->fd, buf, n, MSG_DONTWAIT);
    return k < 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)k;
}

void stranger_start(struct stranger *s, struct tls_rig *r, const char *alpn) {
    static const char *protocols[2]; /* mbedTLS keeps the pointer */
    bool server = mbedtls_ssl_conf_get_endpoint(&s->conf) == MBEDTLS_SSL_IS_SERVER;
    protocols[0] = alpn;
    if (alpn)
        cr_assert_eq(mbedtls_ssl_conf_alpn_protocols(&s->conf, protocols), 0);
    cr_assert_eq(mbedtls_ssl_setup(&s->ssl, &s->conf), 0);
    cr_assert_eq(mbedtls_ssl_set_hostname(&s->ssl, NULL), 0);
    s->fd = server ? r->server.fd : r->client.fd;
    mbedtls_ssl_set_bio(&s->ssl, s, stranger_send, stranger_recv, NULL);
}

static bool wants(int rc) {
    return rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static void note_alert(struct stranger *s) {
    if (s->rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        s->alert = s->ssl.MBEDTLS_PRIVATE(in_msg)[1];
}

void stranger_handshake(struct stranger *s, struct tls_rig *r) {
    struct tls_rig_end *other =
        mbedtls_ssl_conf_get_endpoint(&s->conf) == MBEDTLS_SSL_IS_SERVER ? &r->client : &r->server;
    s->rc = MBEDTLS_ERR_SSL_WANT_READ;
    do {
        if (wants(s->rc))
            s->rc = mbedtls_ssl_handshake(&s->ssl);
        note_alert(s);
        tls_rig_step(other);
    } while (tls_rig_carry(r));
    if (wants(s->rc))
        s->rc = mbedtls_ssl_handshake(&s->ssl);
    note_alert(s);
    tls_rig_step(other);
}

void stranger_read(struct stranger *s, struct tls_rig *r) {
    unsigned char buf[256];
    while (tls_rig_carry(r))
        continue;
    do
        s->rc = mbedtls_ssl_read(&s->ssl, buf, sizeof buf);
    while (s->rc > 0 || s->rc == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET);
    note_alert(s);
}

void stranger_free(struct stranger *s) {
    mbedtls_ssl_free(&s->ssl);
    mbedtls_ssl_config_free(&s->conf);
    mbedtls_x509_crt_free(&s->no_ca);
}
