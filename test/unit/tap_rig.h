/* test/unit/tap_rig.h - a relay between one client and a cloud that knows where in the conversation they are, and
 * breaks the connection there. It has the keys of both sides: to each it is the other one, so it sees the frames; or,
 * where a TLS record is what a test waits for, it passes everything on as it is and counts records. One thread for each
 * relay. Starting asserts; the rest may be called from any thread. */
#ifndef TEST_UNIT_TAP_RIG_H
#define TEST_UNIT_TAP_RIG_H

#include "net/identity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tap_fault {
    TAP_CUT,   /* the end of the stream (FIN) both ways, without TLS's goodbye */
    TAP_RESET, /* RST both ways */
    TAP_STALL, /* nothing moves any more, and nobody is told */
};

enum tap_part { TAP_BEFORE, TAP_HALF, TAP_AFTER }; /* how much of the unit passes before */

enum { TAP_CONNECT = -1, TAP_RECORD = -2 }; /* instead of the type of a frame: as soon as it connects; a TLS record */

struct tap_point {
    int conn; /* the how manieth connection through this relay, from 0, or a later one */
    bool up;  /* of what goes to the cloud; else of what comes from there */
    int type; /* of the frame (net/wire.h), or one of the above */
    int nth;  /* of those on its connection, from 1 */
    enum tap_part part;
    bool (*only)(const uint8_t *payload, size_t n); /* counts frames that it says are meant; NULL: all */
};

struct tap_plan {
    struct tap_point at;
    enum tap_fault fault;
    bool lasting; /* from then on nothing moves on any connection, also new ones, until tap_heal */
};

struct tap;

/* Relays to 127.0.0.1:port. */
struct tap *tap_start(uint16_t port, const struct identity *cloud, const struct identity *client);
void tap_stop(struct tap *t);
uint16_t tap_port(const struct tap *t);
/* Each plan happens once. Copied. */
void tap_plans(struct tap *t, const struct tap_plan *plans, int n);
/* Now, to whatever is open. */
void tap_break(struct tap *t, enum tap_fault fault, bool lasting);
void tap_heal(struct tap *t); /* connections from now on work */
int tap_hits(struct tap *t);  /* plans and breaks that happened */

#endif
