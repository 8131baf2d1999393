/* net/cloud/metrics.h - what a cloud counts, as Prometheus text, and the small HTTP server that shows it with /health
 * on the cloud's own event loop. Meant for a local address; answers GET and HEAD of two paths and reads nothing else.
 * Numbers only: no pin, address or content. */
#ifndef NET_CLOUD_METRICS_H
#define NET_CLOUD_METRICS_H

#include "core/base/buf.h"
#include "core/base/err.h"
#include "net/cloud/batch.h"

#include <stdbool.h>
#include <stdint.h>

/* Why a connection ended, or never began. */
enum conn_end {
    END_FINISHED,     /* the session said its last word: BYE, or an ERROR of the compute side */
    END_PEER_CLOSED,  /* the peer went without BYE */
    END_LINK,         /* the socket or TLS failed */
    END_PROTOCOL,     /* a frame that this side refused */
    END_IDLE,         /* nothing was said for idle_ms */
    END_NOT_READING,  /* nothing could be sent for idle_ms */
    END_NOT_ALLOWED,  /* its pin was taken from the allow list */
    END_STOPPED,      /* the cloud ended, or drains and the connection had no session */
    END_HANDSHAKE,    /* TLS failed: garbage, no certificate, an older TLS */
    END_PIN,          /* a certificate whose pin is not allowed */
    END_TIMEOUT,      /* no TLS and HELLO in handshake_ms */
    END_CROWDED,      /* a stranger that made room for another one */
    END_FULL,         /* max_connections */
    END_ADDRESS_FULL, /* max_per_address */
    N_CONN_ENDS,
};
const char *conn_end_name(enum conn_end why); /* "peer_closed" */

struct cloud_counters {
    uint64_t accepted, accept_errors;
    uint64_t handshakes; /* that succeeded */
    uint64_t ended[N_CONN_ENDS];
    uint64_t frames_in, frames_out, pings;
    uint64_t bytes_in, bytes_out; /* of frames */
    uint64_t delayed;             /* handshakes that had to wait (net/cloud/knock.h) */
    uint32_t open;                /* now */
    uint32_t strangers, closing;  /* of them: have not said HELLO; have said everything */
};

struct metrics_view {
    struct cloud_counters net;
    struct batch_stats batch;
    double uptime_ms;
    bool draining;
    const char *version, *backend; /* labels of splitinf_build_info; borrowed */
};

/* Appends the whole page. Pure. */
void metrics_text(struct wbuf *w, const struct metrics_view *v);

struct event_base;
struct metrics_http;
typedef void (*metrics_fn)(void *ctx, struct metrics_view *v); /* fills a zeroed view */

/* Listens on address; collect is called on the loop, for each request. */
int metrics_http_start(struct metrics_http **out, struct event_base *base, const char *address, metrics_fn collect,
                       void *ctx, struct err *e);
void metrics_http_free(struct metrics_http *m);
uint16_t metrics_http_port(const struct metrics_http *m);

#endif
