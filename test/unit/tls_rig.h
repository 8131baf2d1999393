/* test/unit/tls_rig.h - two ends of TLS in one thread: each has a socketpair, and the test carries the bytes between
 * them and can cut, change or hold them. And a stranger: a peer made of plain mbedTLS with whatever settings a test
 * wants. */
#ifndef TEST_TLS_RIG_H
#define TEST_TLS_RIG_H

#include "net/identity.h"
#include "net/tls.h"

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

/* What the wire does with the bytes of one direction. */
struct tls_rig_way {
    size_t chunk; /* at most so many bytes at a time; 0: all that are there */
    size_t cut;   /* the direction ends (EOF) after so many bytes, when cut_on */
    size_t flip;  /* the byte at this place gets another value, when flip_on */
    bool cut_on, flip_on;
    size_t passed;
};

struct tls_rig_end {
    struct tls_config *config;
    struct identity *id;
    struct tls *t;
    struct pin expected; /* whom it takes */
    bool any;            /* everybody */
    int asked;           /* times that it was asked */
    int fd, wire;        /* of TLS; of the test. -1: closed */
    enum tls_status status;
    struct err e;
};

struct tls_rig {
    struct tls_rig_end client, server;
    struct tls_rig_way up, down;
};

void tls_rig_open(struct tls_rig *r);  /* two ends that expect each other */
void tls_rig_renew(struct tls_rig *r); /* new connections of the same two machines */
void tls_rig_close(struct tls_rig *r);
/* Moves what lies on the wire. False when nothing moved. */
bool tls_rig_carry(struct tls_rig *r);
/* Until neither end gets on any more; the result is in status and e of both. */
void tls_rig_handshake(struct tls_rig *r);
/* One end alone, until it gets on no more. */
void tls_rig_step(struct tls_rig_end *end);

/* Certificates with whatever in them. */
struct tls_rig_cert {
    mbedtls_pk_context key;
    mbedtls_x509_crt cert;
};
enum tls_rig_key { TLS_RIG_P256, TLS_RIG_P384, TLS_RIG_RSA };
void tls_rig_cert_make(struct tls_rig_cert *c, enum tls_rig_key type, const char *from, const char *to);
void tls_rig_cert_free(struct tls_rig_cert *c);

struct stranger {
    mbedtls_ssl_config conf;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt no_ca;
    int fd, rc; /* rc: of the last call */
    int alert;  /* the fatal alert that came; -1: none */
};
/* A TLS 1.3 peer that takes everybody, over r's wire in the place of the client (server false) or of the server. Change
 * conf after this, before stranger_start. */
void stranger_init(struct stranger *s, bool server);
void stranger_start(struct stranger *s, struct tls_rig *r, const char *alpn);
void stranger_handshake(struct stranger *s, struct tls_rig *r); /* until neither gets on */
/* Reads until something other than data comes; for an alert that follows the handshake. */
void stranger_read(struct stranger *s, struct tls_rig *r);
void stranger_free(struct stranger *s);

#endif
