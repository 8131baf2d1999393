/* net/tls.h - mutual TLS 1.3 over a non-blocking socket, authenticated by pins (mbedTLS behind it, and nowhere else but
 * in identity.c). Suites, groups and ALPN: docs/protocol.md. The peer's bytes and certificate are not trusted. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "core/base/err.h"
#include "net/identity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_config; /* one per role; shared by connections, also of several threads */
struct tls;        /* one connection; one thread at a time */

/* Is a peer with this key welcome? Called once at most, in the handshake, on the thread that drives it. A client asks
 * before the cloud has proved that it has the key: nothing is to be remembered before TLS_DONE. A server asks
 * afterwards. */
typedef bool (*tls_accept_fn)(void *ctx, const struct pin *pin);

/* id is borrowed and must outlive the config. Picks AES-128-GCM first where the CPU has AES instructions, else
 * ChaCha20. */
int tls_config_create(struct tls_config **out, bool server, const struct identity *id, struct err *e);
void tls_config_free(struct tls_config *c);

/* fd is non-blocking, borrowed and never closed here. */
int tls_create(struct tls **out, struct tls_config *c, int fd, tls_accept_fn accept, void *ctx, struct err *e);
void tls_free(struct tls *t); /* wipes; sends nothing */

enum tls_status {
    TLS_FAILED = -1, /* e is set; only tls_free is right now */
    TLS_DONE = 0,
    TLS_WANT_READ = 1, /* call again when the socket is readable */
    TLS_WANT_WRITE = 2,
    TLS_CLOSED = 3, /* the peer said goodbye; an end without that is TLS_FAILED with ERR_IO */
};

/* Until TLS_DONE. A refused pin is an ERR_CRYPTO that names it; the peer sees the TLS alert access_denied, and a client
 * whose key was refused gets an ERR_CRYPTO that says so and what to do. Note that with TLS 1.3 a client may learn of
 * its refusal only at its first read or write, and not at all when the server closes the socket while bytes of the
 * client lie there unread: after a failed handshake shut down writing and read for a moment. ERR_IO: the connection
 * broke; ERR_PEER: what came is no such TLS. */
enum tls_status tls_handshake(struct tls *t, struct err *e);

/* TLS_DONE: *n >= 1 bytes came or went (a write may be partial). A write must be repeated with the same bytes after a
 * WANT; more may stand behind them. After a failed write, what the peer had sent before can still be read. */
enum tls_status tls_read(struct tls *t, void *buf, size_t cap, size_t *n, struct err *e);
enum tls_status tls_write(struct tls *t, const void *p, size_t len, size_t *n, struct err *e);
bool tls_pending(const struct tls *t); /* bytes were decrypted and not read: read before waiting for the socket */
/* Tries once to say goodbye. */
void tls_close_notify(struct tls *t);

const struct pin *tls_peer_pin(const struct tls *t);                       /* once accept was asked; else NULL */
void tls_traffic(const struct tls *t, uint64_t *sent, uint64_t *received); /* bytes that the socket saw */
const char *tls_suite(const struct tls *t); /* after the handshake: "TLS1-3-AES-128-GCM-SHA256" */

#endif
