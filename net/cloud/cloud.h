/* net/cloud/cloud.h - the server: a listener, its connections, and a local port for health and metrics, on one event
 * loop. It does TLS and frames and hands whole frames to net/cloud/batch; it computes nothing. Everybody who connects
 * is a stranger until the handshake says otherwise: limits on connections, addresses, time and bytes hold before that.
 */
#ifndef NET_CLOUD_CLOUD_H
#define NET_CLOUD_CLOUD_H

#include "core/base/err.h"
#include "net/cloud/batch.h"
#include "net/identity.h"

#include <stdint.h>

struct cloud;

struct cloud_opts {
    const char *listen;  /* "HOST:PORT"; port 0 takes a free one; "[::]:7433" for IPv6 */
    const char *metrics; /* "HOST:PORT" of /metrics and /health in plain HTTP; NULL: none */
    const struct identity *id;
    struct allow_list *allow;
    struct batch_opts batch;  /* wake is set by the cloud */
    uint32_t handshake_ms;    /* TLS and HELLO together; 0: 10 s */
    uint32_t idle_ms;         /* 0: 60 s */
    uint32_t max_connections; /* 0: max_sessions + 64 */
    uint32_t max_per_address; /* open at once; 0: as max_connections */
    uint32_t max_strangers;   /* connections before their HELLO; 0: 32 */
    /* TLS handshakes that show no allowed pin, a second: from one address, and from all; what is more has to wait (four
     * seconds' worth may come at once). 0: 5 and 25. */
    uint32_t knocks_each, knocks_all;
    const char *version; /* for /metrics; may be NULL; copied */
};

/* Listens. Nothing is served before cloud_run. */
int cloud_create(struct cloud **out, const struct cloud_opts *o, struct err *e);
void cloud_free(struct cloud *c);
uint16_t cloud_port(const struct cloud *c);
uint16_t cloud_metrics_port(const struct cloud *c); /* 0: none */
/* The loop; returns after cloud_stop. */
int cloud_run(struct cloud *c, struct err *e);
/* From any thread or a signal handler. The first call drains: no new connections, what is in flight is finished, at
 * most grace_ms long. A second one ends at once. */
void cloud_stop(struct cloud *c, uint32_t grace_ms);
/* Reads the allow file again, on the loop. From any thread or a signal handler. Connections whose pin is not allowed
 * any more are closed. */
void cloud_reload(struct cloud *c);

#endif
