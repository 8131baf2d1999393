/* net/cloud/sessions.h - the sessions of a cloud: who has one, how much of the shared KV slots each may use, who has to
 * go when there is no room. It knows no threads, no frames' bytes and computes nothing.
 *
 * A session reserves ctx + live slots when it is made, so that it can never fail for want of slots later. A session
 * whose connection is gone is detached: it waits for its client for the ttl, or until somebody needs its room. */
#ifndef NET_CLOUD_SESSIONS_H
#define NET_CLOUD_SESSIONS_H

#include "core/base/err.h"
#include "core/model/kv.h"
#include "net/cloud/batch.h"
#include "net/cloud/port.h"
#include "net/codec.h"

struct audit_store;

/* A node that waits to be computed. */
struct pending {
    uint32_t id;
    uint32_t row; /* of window's activations */
    struct frame *window;
};

struct cloud_session {
    uint64_t number; /* for log lines; not secret */
    uint8_t token[WIRE_TOKEN];
    struct pin pin;
    uint32_t ctx, live;
    struct kv_table *table;
    struct port *port; /* NULL: detached */
    double detached_ms;
    /* The rest is of the connection (net/cloud/submit.h, net/cloud/pass.h). */
    enum codec codec;
    size_t row_bytes;
    uint32_t max_rows;       /* of one SUBMIT */
    uint32_t seq;            /* of the last SUBMIT */
    struct pending *pending; /* [live]: nodes that wait, in the order in which they came; ids increase */
    uint32_t n_pending;
    uint32_t n_windows;        /* of which they are */
    struct audit_store *audit; /* NULL: none */
    double decoded_ms;         /* when a small window of it was last computed; 0: never */
    uint64_t pass;             /* number of the last pass that computed a small window of it; 0: none */
    bool chosen;               /* scratch of pass_choose */
    const char *broken;        /* broke the protocol with what it sent to be computed: how; NULL */
};

struct sessions {
    struct cloud_session **all; /* [max]; least recently served first */
    uint32_t n, max;
    uint32_t max_per_pin;
    uint32_t max_ctx, max_live;
    uint32_t ttl_ms;
    struct slot_pool *pool;
    uint64_t slot_bytes;
    uint64_t reserved; /* slots */
    uint64_t next_number;
    uint64_t created, resumed, evicted, expired, refused;
};

/* slot_bytes: KV of one position in all layers, 0 when there are none. */
int sessions_init(struct sessions *s, const struct batch_opts *o, uint64_t slot_bytes, struct err *e);
void sessions_free(struct sessions *s);

/* The session of this token and this pin, or NULL. Takes the same time whatever the token is. */
struct cloud_session *sessions_find(struct sessions *s, const uint8_t token[WIRE_TOKEN], const struct pin *pin);

/* Makes a session for the port's pin, if need be in the place of detached ones: of its own where it has max_per_pin of
 * them, else first those of the pin that has the most sessions, the longest detached first. 0, or the code to refuse
 * with and the text with the numbers; then nobody was evicted. */
int sessions_admit(struct sessions *s, struct port *port, uint32_t ctx, uint32_t live, struct cloud_session **out,
                   char text[WIRE_MAX_TEXT + 1]);

void sessions_attach(struct sessions *s, struct cloud_session *c, struct port *p);
/* The connection is gone: what was in flight is dropped. Its waiting frames must have been dropped before. */
void sessions_detach(struct sessions *s, struct cloud_session *c, double now_ms);
/* event: what a log line calls it; "ended", "expired". Its waiting frames must have been dropped before. */
void sessions_end(struct sessions *s, struct cloud_session *c, const char *event);
/* Ends detached sessions whose time is over. When the next is due; 0: none. */
double sessions_expire(struct sessions *s, double now_ms);

uint32_t sessions_attached(const struct sessions *s);
/* One structured line: event, the session's number, pin, peer, sizes. text may be NULL. */
void sessions_log(const struct cloud_session *c, const char *event, const char *text);

#endif
