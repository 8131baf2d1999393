/* net/audit.h - commit and spot-recompute (docs/protocol.md, Commitments): the Merkle tree, and the check of an opened
 * layer against the client's own weights. Pure but for the one layer that it computes. */
#ifndef NET_AUDIT_H
#define NET_AUDIT_H

#include "core/base/err.h"
#include "core/model/backend.h"
#include "net/codec.h"
#include "net/wire.h"

#include <stddef.h>
#include <stdint.h>

/* Hash of leaf i over x[n] floats (little-endian on the wire and here). */
int audit_leaf(uint32_t i, const float *x, size_t n, uint8_t leaf[WIRE_DIGEST], struct err *e);
/* Root over n leaves, n >= 1. leaves is scratch afterwards. */
int audit_root(uint8_t (*leaves)[WIRE_DIGEST], int n, uint8_t root[WIRE_DIGEST], struct err *e);

struct audit_check {
    struct weights *weights; /* the client's own */
    struct backend *backend; /* computes the one layer */
    enum quant quant;        /* what the cloud said that it runs */
    enum dtype kv_type;
    enum codec codec;
    int lo, hi, layer;
    int n_rows;
    const float *sent; /* [n_rows][hidden]: what went up, after the codec */
    const float *got;  /* [n_rows][hidden]: what came back, decoded */
    const uint8_t *root;
    double tolerance; /* largest relative L2 of a row; 0: equal bits */
};

/* With a tolerance and an fp8 cache: a key or value next to a boundary of its few bits may fall to either side of it,
 * and moves the rows that see it, mostly a few. So of the rows at least a quarter has to be within the tolerance, three
 * quarters within ten times as much, all within a hundred times. */

/* 0: the opening is what the root committed to, begins and ends with what was sent and got, and its layer is ours
 * within the tolerance; *worst is the largest relative L2 of a row. -1 with ERR_PEER: caught, and how; other kinds: our
 * own failure. */
int audit_opening(const struct audit_check *c, const struct wire_opening *o, double *worst, struct err *e);

/* Whether a backend, by its name (WELCOME), rounds the activations of products to bf16 (--math fast). Whoever audits it
 * has to compute in the same way. */
bool audit_math_fast(const char *backend);
/* The tolerance for what computes there (WELCOME) and here: 0 when both are the same CPU path, else the bound that
 * docs/threat-model.md states, which is larger where activations are rounded. */
double audit_tolerance(const char *theirs, const char *ours);

#endif
