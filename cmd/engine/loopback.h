/* cmd/engine/loopback.h - a cloud inside this process, on 127.0.0.1 with a key that nobody keeps: for verify, bench and
 * whoever wants to see the split without a second machine. Everything is real (TLS, frames, batches) but the distance.
 */
#ifndef CMD_ENGINE_LOOPBACK_H
#define CMD_ENGINE_LOOPBACK_H

#include "cmd/engine/engine.h"
#include "net/identity.h"

struct loopback;

/* Loads layers [middle.lo, middle.hi) of en's weights on a backend of their own and serves them, to at most so many
 * sessions of the one client key that it makes. en must be opened; its options say how to load. */
int loopback_start(struct loopback **out, const struct engine *en, const struct part *middle, int sessions,
                   struct err *e);
void loopback_stop(struct loopback *l); /* NULL is fine; close what is connected first */

const char *loopback_address(const struct loopback *l); /* "127.0.0.1:PORT" */
const struct pin *loopback_pin(const struct loopback *l);
const struct identity *loopback_client(const struct loopback *l); /* the key that it serves */
/* Bytes of memory that it takes beside the weights. */
uint64_t loopback_kv_bytes(const struct engine *en, const struct part *middle, int sessions);

#endif
