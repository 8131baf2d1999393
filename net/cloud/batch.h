/* net/cloud/batch.h - the sessions of a cloud and the one thread that computes for all of them. It owns every session,
 * their KV tables and the slots they share; it merges what is queued into one forward pass after another. It knows
 * frames and no sockets: net/cloud/cloud.c brings them, tests bring them without a network. Frames come from peers.
 *
 * A port is a mailbox between one connection and this thread. */
#ifndef NET_CLOUD_BATCH_H
#define NET_CLOUD_BATCH_H

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/model/backend.h"
#include "net/identity.h"
#include "net/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct batch_thread;
struct port;

struct batch_opts {
    struct stage *stage;    /* the middle layers; borrowed; used by the thread alone until batch_stop returns */
    struct wire_hello mine; /* what a HELLO is held against (wire_match); kv also says what the KV cache holds */
    uint64_t kv_bytes;      /* of the KV cache that all sessions share */
    uint32_t max_sessions;
    uint32_t max_per_pin; /* sessions of one client; 0: no other limit */
    uint32_t max_ctx;     /* of one session */
    uint32_t max_live;    /* of one session */
    int max_rows;         /* of a pass, and of one SUBMIT; <= the stage's */
    uint32_t session_ttl_ms, idle_ms;
    const char *backend_name; /* for WELCOME */
    /* Called from the thread when a port has something to take or was closed: net/cloud/cloud.c wakes its loop. Must
     * not block. */
    void (*wake)(void *ctx);
    void *wake_ctx;
};

int batch_start(struct batch_thread **out, const struct batch_opts *o, struct err *e);
/* Takes no new sessions from now on, and tells those that exist: each gets ERROR draining when nothing of it is in
 * flight, at the latest after grace_ms. */
void batch_drain(struct batch_thread *b, uint32_t grace_ms);
bool batch_drained(struct batch_thread *b);
/* A pass failed with ERR_DEVICE: what computes is broken for good, and it is draining, with no grace. Fills why. */
bool batch_broken(struct batch_thread *b, struct err *why);
/* Ends the thread; sessions are gone, KV is wiped. Ports must have been closed. */
void batch_stop(struct batch_thread *b);

/* A connection whose peer has this pin. name is for log lines (address and port), copied. */
struct port *port_open(struct batch_thread *b, const struct pin *pin, const char *name, struct err *e);
/* The connection is gone: its session is kept for its ttl, unless it said BYE. */
void port_close(struct port *p);
/* One whole frame of the peer, header checked: type and payload. Takes frame's memory over (frame is empty afterwards).
 */
void port_post(struct port *p, int type, struct wbuf *frame);
/* More than it may queue: stop reading from this peer until the next wake says otherwise. */
bool port_full(struct port *p);
/* Frames to send: moves the next bytes (one or more whole frames) to out, which is empty. false: nothing. What was
 * taken counts as unsent until port_sent says so; a port with much unsent gets no pass. */
bool port_take(struct port *p, struct wbuf *out);
void port_sent(struct port *p, size_t bytes);
/* The thread has said its last frame (ERROR, or BYE was answered): close when everything taken is sent. */
bool port_finished(struct port *p);
uint32_t port_max_frame(struct port *p); /* what the peer may send now */

struct batch_stats {
    uint32_t sessions, attached; /* that exist; that have a connection */
    uint64_t sessions_all, resumed, evicted, expired, refused;
    uint64_t passes, rows, cancelled_rows; /* rows dropped before or while they were computed */
    double busy_ms;                        /* time in passes */
    uint64_t kv_slots, kv_slots_reserved, kv_slots_used;
    uint32_t queued_windows;
    uint64_t pass_rows_le[10]; /* passes by rows: <= 1, 2, 4, ... 256, more */
    uint64_t pass_rows;        /* of all passes when they began; some are dropped on the way */
    double wait_ms;            /* sum over windows of the time in the queue */
    uint64_t windows;
};
void batch_stats(struct batch_thread *b, struct batch_stats *s);

#endif
