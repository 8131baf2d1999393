/* net/client/remote_middle.h - the middle layers on another machine: middle.h over one pinned TLS connection
 * (docs/protocol.md). A thread of its own moves bytes, answers pings and keeps the connection warm, so that upload,
 * compute and download overlap with what the caller computes. What the cloud says is not trusted. */
#ifndef NET_CLIENT_REMOTE_MIDDLE_H
#define NET_CLIENT_REMOTE_MIDDLE_H

#include "core/base/err.h"
#include "core/model/middle.h"
#include "net/identity.h"
#include "net/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct remote_cloud {
    const char *address; /* "HOST:PORT" or "[IPV6]:PORT" */
    struct pin pin;
    bool has_pin;     /* else the one remembered in home; ERR_CRYPTO when there is none */
    bool trust_first; /* when none is remembered, remember the one that comes */
};

enum remote_event { REMOTE_CONNECTED, REMOTE_LOST, REMOTE_RETRY, REMOTE_RESUMED, REMOTE_REPLAY, REMOTE_SWITCHED };

struct remote_opts {
    const struct identity *id;         /* borrowed */
    const char *home;                  /* of remembered pins; may be NULL */
    const struct remote_cloud *clouds; /* in order of preference; copied */
    int n_clouds;
    struct wire_hello hello; /* what we want; token is ignored */
    uint32_t pad_ids;        /* privacy: the lists of a SUBMIT have a multiple of so many ids, and nodes that are
                              * cancelled wait for the next one; 0: as many as there are */
    uint32_t max_rows;       /* of the caller's largest window; larger than the cloud's limit is no error: it is cut in
                              * pieces */
    uint32_t connect_ms;     /* one attempt: TCP, TLS and WELCOME; 0: 10 s */
    uint32_t stall_ms;       /* no byte, no PONG for so long: the link is dead; 0: 10 s */
    uint32_t progress_ms;    /* windows are there and none is answered for so long, PONGs or not: rather another cloud,
                              * or a new connection; 0: 5 min */
    uint32_t patience_ms;    /* recover tries for so long in all; 0: 120 s */
    /* What happens, for people; called on the caller's thread from within create, recover or collect. May be NULL. text
     * is a sentence without a newline. */
    void (*event)(void *ctx, enum remote_event what, const char *text);
    void *event_ctx;
    /* Asked at least every 100 ms while a call waits; non-zero makes it return -1 with ERR_NONE in e. May be NULL. */
    int (*stop)(void *ctx);
    void *stop_ctx;
};

/* Connects and says HELLO. Refusals of a cloud are ERR_PEER with its text. Later, what a cloud that serves as agreed
 * may say (it is full, goes away, failed, somebody else goes on) is ERR_IO like a broken link, and ERR_PEER is what
 * only one that breaks the rules does. */
int remote_middle_create(struct middle **out, const struct remote_opts *o, struct err *e);

struct remote_info {
    char address[280]; /* of the cloud in use */
    struct pin pin;
    char backend[WIRE_MAX_BACKEND + 1];
    char suite[64];
    uint32_t max_rows;
    double rtt_ms;                 /* smallest PING of this connection; 0 before the first */
    uint64_t bytes_up, bytes_down; /* TLS records in all connections, as the socket saw them */
    uint32_t connections, resumed, replayed;
    double lost_ms; /* time without a connection, in all */
    double work_ms; /* of this side: encoding, sealing and sending windows; opening and decoding what was waited for */
};
void remote_middle_info(struct middle *m, struct remote_info *info);

/* For verify --audit: the next submit is a commitment (docs/protocol.md, Commitments): its window is at most max_rows
 * nodes from position 0 of a context that was rewound to 0. After its result was collected, root is what the cloud
 * committed to. */
int remote_middle_audit_next(struct middle *m, struct err *e);
int remote_middle_root(struct middle *m, uint8_t root[WIRE_DIGEST], struct err *e);
/* Opens a layer of it: the frame's payload in out (wire_get_opening). Waits up to timeout_ms. */
int remote_middle_challenge(struct middle *m, uint16_t layer, struct wbuf *out, int timeout_ms, struct err *e);

#endif
