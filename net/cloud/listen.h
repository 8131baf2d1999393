/* net/cloud/listen.h - a listening TCP socket from "HOST:PORT". The text comes from this machine's own command line. */
#ifndef NET_CLOUD_LISTEN_H
#define NET_CLOUD_LISTEN_H

#include "core/base/err.h"

#include <stdint.h>

/* Binds and listens, non-blocking. address: "HOST:PORT" or "[IPV6]:PORT", numbers or "localhost"; port 0 takes a free
 * one, *port says which. The descriptor, or -1 with e set (ERR_USAGE: no such address; ERR_IO: not to be had). */
int listen_tcp(const char *address, uint16_t *port, struct err *e);

#endif
