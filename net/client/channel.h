/* net/client/channel.h - the client's end of one connection to a cloud: TCP, TLS, frames out and in, and a thread that
 * moves them, answers pings and notices when the other side is gone. It knows frames and no activations; what the cloud
 * sends is not trusted.
 *
 * Connect, greet, start; from then on the thread runs and everything but free wants the lock. */
#ifndef NET_CLIENT_CHANNEL_H
#define NET_CLIENT_CHANNEL_H

#include "core/base/buf.h"
#include "core/base/err.h"
#include "net/client/address.h"
#include "net/tls.h"
#include "net/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel;

/* TCP and the TLS handshake, on the caller's thread. tls is borrowed and must outlive the channel. ERR_NONE: stopped.
 */
int channel_connect(struct channel **out, const char *address, struct tls_config *tls, tls_accept_fn accept, void *ctx,
                    const struct address_wait *w, struct err *e);
/* HELLO and its answer. *code is the code of the ERROR that came instead, 0 when it was something else. */
int channel_greet(struct channel *c, const struct wire_hello *h, const struct address_wait *w, struct wire_welcome *m,
                  int *code, struct err *e);

struct channel_opts {
    /* A RESULT or an OPENING. On the channel's thread, with the lock held. May take the payload's memory and leave
     * another (or an empty) wbuf. -1 with e: it breaks the rules; the cloud is told, and the channel is dead. */
    int (*frame)(void *ctx, int type, struct wbuf *payload, struct err *e);
    void *ctx;
    uint32_t stall_ms; /* not a byte for so long, although it was asked: dead */
    uint32_t keep_ms;  /* something is said at least so often */
    size_t max_out;    /* bytes that may wait to be sent */
};
int channel_start(struct channel *c, const struct channel_opts *o, struct err *e);

/* Null-safe. bye: the cloud is told that the session is over, if that takes no more than a moment; else its socket just
 * closes. Wipes. */
void channel_free(struct channel *c, bool bye);

void channel_lock(struct channel *c);
void channel_unlock(struct channel *c);
/* Append whole frames, then channel_send: what the socket takes goes at once, the rest is the thread's. */
struct wbuf *channel_out(struct channel *c);
void channel_send(struct channel *c);
/* Frames of this length are taken from now on. At first the limit is that of WELCOME. */
void channel_limit(struct channel *c, uint32_t max_frame);
/* Something is waited for: silence is asked about soon, and not only to keep the connection. */
void channel_expect(struct channel *c, bool something);
/* Gives the lock away until something happened, at most ms long. */
void channel_wait(struct channel *c, double ms);
/* why: a sentence's worth; *code: of the ERROR that ended it, else 0. Both may be NULL. */
bool channel_dead(struct channel *c, struct err *why, int *code);

struct channel_info {
    double rtt_ms;  /* smallest; 0: none yet */
    double read_ms; /* spent on what came while somebody waited for it */
    uint64_t up, down;
    char suite[64];
    struct pin pin;
};
void channel_info(struct channel *c, struct channel_info *info);

#endif
