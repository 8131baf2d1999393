/* core/model/window.h - nodes, windows and the rows of one forward pass.
 *
 * A node is one token position, committed or speculative: an id, its parent's id, its position. A window is a batch of
 * nodes to compute, parents before children; who attends to whom is ancestry and nothing else. A prefill chunk, one
 * token, a Jacobi block, a draft tree: all are windows. Token ids are not part of a node: the middle never sees them.
 *
 * A batch is what a backend computes in one pass: rows of one or many sessions, each with the slots of its keys. */
#ifndef CORE_MODEL_WINDOW_H
#define CORE_MODEL_WINDOW_H

#include <stdint.h>

#define NODE_NONE 0u /* parent of a node at position 0; never an id */

struct node {
    uint32_t id;     /* unique and increasing within a session */
    uint32_t parent; /* the last committed node, or a node not yet committed */
    uint32_t pos;    /* logical position: parent's + 1 */
};

struct window {
    const struct node *nodes;
    int n;
};

/* One row of a pass. Its keys, in logical order, are trunk[0 .. n_trunk) of its sequence followed by tail[0 .. n_tail);
 * n_trunk + n_tail == pos + 1 and the last of them is the row's own slot. */
struct row {
    uint32_t pos;
    uint32_t slot; /* where this row's K and V are written */
    uint32_t n_trunk;
    uint32_t n_tail;
    const uint32_t *trunk; /* slots; shared by the rows of a session */
    const uint32_t *tail;  /* slots; NULL when n_tail is 0 */
};

struct batch {
    const struct row *rows;
    int n;
};

#endif
