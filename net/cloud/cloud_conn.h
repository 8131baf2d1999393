/* net/cloud/cloud_conn.h - one connection of a cloud: TLS, then frames in and out of its port, and the clocks that end
 * it. Everything read is hostile; before the pin is known it is worth a handshake's memory and no more. Which
 * connections there are is net/cloud/cloud.c's to know. All on the loop's thread. */
#ifndef NET_CLOUD_CLOUD_CONN_H
#define NET_CLOUD_CLOUD_CONN_H

#include "core/base/err.h"
#include "net/cloud/batch.h"
#include "net/cloud/knock.h"
#include "net/cloud/log_gate.h"
#include "net/cloud/metrics.h"
#include "net/tls.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct conn;
struct event_base;

/* Of the events of the loop: what belongs to connections that are allowed goes before every single step of strangers.
 */
enum { URGENCY_KNOWN, URGENCY_STRANGER, N_URGENCIES };

/* What all connections of a cloud share. */
struct conn_env {
    struct event_base *base;
    struct tls_config *tls;
    struct allow_list *allow;
    struct batch_thread *batch;
    struct cloud_counters counters;
    struct log_gate pins, strangers; /* of log lines about refused pins; about other strangers */
    struct knock knock;
    uint32_t handshake_ms, idle_ms;
    /* The connection is over; conn_free is next. May be called from within any function below that takes a conn. */
    void (*over)(void *ctx, struct conn *c);
    void *ctx;
};

/* Counts and logs a connection that was closed before it became one. */
void conn_refuse(struct conn_env *env, const struct sockaddr *sa, enum conn_end why);

/* fd is accepted and non-blocking, and the connection's own on success. */
int conn_create(struct conn **out, struct conn_env *env, int fd, const struct sockaddr *sa, struct err *e);
void conn_free(struct conn *c); /* closes the descriptor; says nothing */

const struct peer_address *conn_address(const struct conn *c);
/* Has not said HELLO, or is only waited for until it closes: the first to go when there is no room. */
bool conn_is_stranger(const struct conn *c);
/* Everything was said, or is about to be: it goes by itself, soon. */
bool conn_is_closing(const struct conn *c);
double conn_since(const struct conn *c); /* clock_ms when it was accepted */

/* Takes the next step of a handshake if it waits for that; false: there is nothing to do. c may be gone afterwards. */
bool conn_nudge(struct conn *c);
/* The compute side may have something for it, or room again. */
void conn_wake(struct conn *c);
/* Ends it now, without a word but what TLS needs. */
void conn_end(struct conn *c, enum conn_end why);
/* Ends it unless its pin is (still) allowed. */
void conn_check_pin(struct conn *c);

#endif
