/* net/client/address.h - "HOST:PORT" and "[IPV6]:PORT": taken apart, looked up, connected to. The text is typed by
 * people; what a name service answers is only ever connected to. */
#ifndef NET_CLIENT_ADDRESS_H
#define NET_CLIENT_ADDRESS_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { ADDRESS_HOST = 256 };

/* host without brackets; any port. False: text is no address. */
bool address_split(const char *text, char host[ADDRESS_HOST], uint16_t *port);
/* The same for where one can connect to: port 0 is none. ERR_USAGE names the text and says what an address looks like.
 */
int address_parse(const char *text, char host[ADDRESS_HOST], uint16_t *port, struct err *e);

/* Asked at least every 100 ms while something is waited for; non-zero ends the wait. */
struct address_wait {
    double until; /* clock_ms */
    int (*stop)(void *ctx);
    void *stop_ctx;
};

/* A connected TCP socket, non-blocking, with TCP_NODELAY. Tries all addresses of the name, one after the other. Returns
 * the descriptor, or -1: ERR_USAGE (no address), ERR_IO (which names the address), ERR_NONE (stop asked for it). */
int address_connect(const char *text, const struct address_wait *w, struct err *e);

/* poll on one descriptor, in slices: 1 when one of events is there, 0 at the end of the time, -1 when stop asked. */
int address_poll(int fd, short events, const struct address_wait *w);

#endif
