/* net/client/remote.h - what the two halves of the remote middle share: remote_middle.c (the queue: what goes and what
 * comes) and remote_life.c (connections: the first one, and the way back after a loss). For nobody else. */
#ifndef NET_CLIENT_REMOTE_H
#define NET_CLIENT_REMOTE_H

#include "net/client/channel.h"
#include "net/client/dial.h"
#include "net/client/remote_middle.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REMOTE_FLIGHTS = 1024, /* SUBMITs that have no answer yet */
    REMOTE_SPARE = 8,      /* frames whose memory is kept */
    REMOTE_SLICE_MS = 50,  /* how often stop is asked */
};

/* A SUBMIT with nodes that has not got its last RESULT. */
struct remote_flight {
    uint32_t seq;
    uint32_t first, last; /* ids */
    int n, got;
    bool dropped; /* the caller went back behind it: results are of no use */
    bool audit, done;
};

struct remote {
    struct middle base;
    struct remote_opts o;
    struct dial *dial;
    int cloud;          /* the one in use */
    struct channel *ch; /* NULL after a recovery that failed; lost is set then */
    struct wire_welcome welcome;
    enum codec codec;
    int hidden;
    size_t row_bytes;

    /* The context as the caller sees it is chain[0..len). The cloud will have `told` of it committed when all that
     * was sent is applied; what lies behind, and the lists, go with the next SUBMIT. Ids behind len are of positions
     * that were there before a rewind. */
    uint32_t *chain; /* [ctx] */
    uint32_t len, told;
    bool rewind; /* to told, before the others */
    uint32_t *cancel;
    int n_cancel, max_cancel;
    uint32_t seq; /* of the last SUBMIT of this connection */

    /* Shared with the channel's thread, under its lock. */
    struct remote_flight flights[REMOTE_FLIGHTS]; /* a ring */
    int first_flight, n_flights, n_wanted;        /* wanted: not dropped */
    struct wbuf *results;                         /* [max_results], a ring of RESULT payloads */
    int first_result, n_results, max_results;
    struct wbuf spare[REMOTE_SPARE];
    int n_spare;
    bool audit_next, has_root, awaiting, has_opening; /* awaiting: an OPENING */
    uint32_t audit_seq;
    uint8_t root[WIRE_DIGEST];
    struct wbuf opening;

    double progress; /* when something was computed last, or began to be expected */

    bool lost;
    bool elsewhere; /* another cloud is rather to be tried than the one that was lost */
    struct err why; /* of the loss */
    int code;
    double lost_at;
    int faults;              /* times that somebody broke the protocol, since the last result */
    struct remote_info info; /* of connections that are over */
};

struct remote *remote_of(struct middle *m);
bool remote_asked_to_stop(struct remote *r);

/* The queue's half: what the operations of the middle are, and what a channel calls (channel_opts). */
extern const struct middle_ops remote_ops;
int remote_on_frame(void *ctx, int type, struct wbuf *payload, struct err *e);
/* Nothing is in flight, queued or gathered; the next SUBMIT is the first of a connection. */
void remote_clear_queue(struct remote *r);

/* The other half's. */
int remote_recover(struct middle *m, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e);
void remote_free(struct middle *m);
/* Notes the channel's death and returns -1, with what a caller is told until it recovers. The lock is held. */
int remote_lost(struct remote *r, struct err *e);

#endif
