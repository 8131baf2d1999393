/* net/link.h - an emulated WAN: a relay on 127.0.0.1 that delays and shapes the bytes of real TCP connections and can
 * break them. For demo, bench and tests. It sees ciphertext only.
 *
 * Each direction: a byte leaves the relay rtt/2 (+ jitter, order is kept) after it came in and was let through at
 * `mbit`; at most one bandwidth-delay product plus 64 KiB is held (32 MiB without a limit), so that the sender feels
 * the bottleneck as on a real path. Ends of directions and resets are passed on as late as bytes are. The handshake of
 * TCP is the loopback's and costs nothing: test/tools/tun_wan.c has the real one. */
#ifndef NET_LINK_H
#define NET_LINK_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct link;

struct link_opts {
    const char *host; /* where connections are relayed to; NULL: 127.0.0.1 */
    uint16_t port;
    double rtt_ms;    /* both ways together */
    double jitter_ms; /* each way: uniform in [0, jitter] more */
    double mbit;      /* each way; 0: no limit */
    uint64_t seed;    /* of the jitter */
};

/* Starts the relay on a thread of its own. */
int link_start(struct link **out, const struct link_opts *o, struct err *e);
void link_stop(struct link *l); /* cuts what is open */
uint16_t link_port(const struct link *l);

/* All from any thread. */
void link_set(struct link *l, double rtt_ms, double jitter_ms, double mbit); /* from the next byte on */
void link_target(struct link *l, uint16_t port);                             /* of later connections */
void link_cut(struct link *l);             /* resets what is open (RST); later connections go through */
void link_refuse(struct link *l, bool on); /* while on, new connections are reset at once */
void link_stall(struct link *l, bool on);  /* while on, nothing moves and nobody is told */
/* Cuts the connection as soon as this many more bytes went up (to the cloud) or down; 0 forgets it. */
void link_cut_after(struct link *l, bool up, uint64_t bytes);

struct link_stats {
    uint64_t up, down;    /* bytes relayed */
    uint32_t connections; /* so far */
};
struct link_stats link_stats(struct link *l);

#endif
