/* core/model/middle.h - the layers between front and back as a queue. local_middle computes in this process;
 * net/client/remote_middle speaks to a cloud. Chat, bench, verify and attack see only this.
 *
 * Several windows may be in flight; results come per window or per piece of one, in any order, but a node never before
 * its parent. Nodes are named by id (window.h). A middle applies commit, cancel and rewind in the order in which they
 * were called, relative to submits.
 *
 * A call that fails with ERR_PEER, ERR_IO or ERR_CRYPTO may have lost the other side: then every further call fails the
 * same way until recover. */
#ifndef CORE_MODEL_MIDDLE_H
#define CORE_MODEL_MIDDLE_H

#include "core/base/err.h"
#include "core/model/window.h"

#include <stdint.h>

struct middle_result {
    uint32_t *ids;     /* caller's memory, cap long: the nodes that were computed */
    float *x;          /* caller's memory, [cap][hidden]: their activations behind the last middle layer */
    int cap;           /* >= the largest window submitted */
    int n;             /* how many came; nodes cancelled or dropped meanwhile are missing */
    double compute_ms; /* time of the pass where it ran */
};

struct middle;

struct middle_ops {
    const char *name;
    void (*free)(struct middle *m);
    /* Queues w with its activations x [w->n][hidden]; both are copied before return. */
    int (*submit)(struct middle *m, const struct window *w, const float *x, struct err *e);
    int (*commit)(struct middle *m, const uint32_t *ids, int n, struct err *e);
    int (*cancel)(struct middle *m, uint32_t id, struct err *e);
    /* Back to the first len committed positions, the last of which has id head. Drops everything in flight. */
    int (*rewind)(struct middle *m, uint32_t len, uint32_t head, struct err *e);
    /* Waits up to timeout_ms (-1: forever) for the result of one window or of a piece of it. 1: got one, in which n may
     * be 0; 0: none in time, or nothing is in flight; -1: error (ERR_NONE in e: the caller's stop function asked for
     * it). */
    int (*collect)(struct middle *m, struct middle_result *r, int timeout_ms, struct err *e);
    /* After a failed call: gets the other side back, or another one that takes its place; drops everything in flight.
     * ids[0..n) are the caller's committed nodes; *kept of them, from the first, are still there and committed: the
     * caller computes the others again. Waits as long as the middle's own patience lasts; -1 when that was not enough
     * or would not help. */
    int (*recover)(struct middle *m, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e);
};

struct middle {
    const struct middle_ops *ops;
};

#endif
