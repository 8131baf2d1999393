/* net/cloud/audit_store.h - what a cloud keeps of a SUBMIT with flag audit (docs/protocol.md, Commitments): the
 * activations at every layer boundary, their leaves and the root. Secret: wiped on release. */
#ifndef NET_CLOUD_AUDIT_STORE_H
#define NET_CLOUD_AUDIT_STORE_H

#include "core/base/err.h"
#include "net/codec.h"
#include "net/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame;

struct audit_store {
    uint32_t seq;
    int n_rows, n_leaves, hidden;
    enum codec codec;
    float *x;      /* [n_leaves][n_rows][hidden] */
    uint32_t *ids; /* [n_rows] */
    uint8_t (*leaves)[WIRE_DIGEST];
    uint8_t root[WIRE_DIGEST];
    int n_computed;       /* rows */
    int n_hashed;         /* leaves */
    struct frame *window; /* to be answered when all is done; then NULL */
    double compute_ms;    /* of all passes */
    double started_ms;    /* when the first of them began; 0: not yet */
};

size_t audit_store_bytes(int n_rows, int n_leaves, int hidden);
int audit_store_create(struct audit_store **out, uint32_t seq, int n_rows, int n_leaves, int hidden, enum codec c,
                       struct err *e);
void audit_store_free(struct audit_store *a);
/* Activation of a row at a boundary. */
float *audit_store_row(struct audit_store *a, int leaf, uint32_t row);
static inline bool audit_store_open(const struct audit_store *a) { /* the RESULT is still due */
    return a && a->window;
}
/* When all rows are there: hashes the next leaf, so that nobody waits long; the last one takes its trip through the
 * codec first. 1: the root is there; 0: there is more to do; -1: failed. */
int audit_store_step(struct audit_store *a, struct err *e);

#endif
