/* net/cloud/knock.h - how many TLS handshakes strangers may cause: so many at once and so many a second from one
 * address, and from all together. A handshake costs milliseconds on the thread that carries every connection, whether
 * it is refused or not; one that shows an allowed pin is given back, so who is allowed never runs out, and his address
 * does not depend on what others do. Pure: the clock is the caller's. */
#ifndef NET_CLOUD_KNOCK_H
#define NET_CLOUD_KNOCK_H

#include "net/cloud/peer.h"

#include <stdbool.h>

enum { KNOCK_PLACES = 256 };

struct knock_rate {
    double burst, per_s;
};

struct knock {
    struct knock_rate each, all;
    double left, at; /* of all: tokens, and when that was */
    struct knock_place {
        struct peer_address address;
        double left, at; /* at 0: free */
        bool good;       /* somebody who is allowed was here */
    } places[KNOCK_PLACES];
};

/* A rate of 0 means no limit. */
void knock_init(struct knock *k, struct knock_rate each, struct knock_rate all);
/* May somebody from there begin a handshake now? If not, it may ask again later. */
bool knock_take(struct knock *k, const struct peer_address *a, double now_ms);
/* It was somebody who is allowed. */
void knock_give_back(struct knock *k, const struct peer_address *a, double now_ms);
/* Somebody who is allowed came from there before. */
bool knock_is_good(const struct knock *k, const struct peer_address *a);

#endif
