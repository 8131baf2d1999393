/* gpu/recording.h - launches of passes that were recorded on one card, to be replayed when the same come again. A table
 * of a bounded number of them, found by what they were made for. Below share.h.
 *
 * Cards of a team see the same passes, so the same things stand at the same places in each one's table. */
#ifndef GPU_RECORDING_H
#define GPU_RECORDING_H

#include "gpu/gpu.h"

enum { MAX_RECORDINGS = 64 }; /* of one KV; the least recently used is forgotten */

/* What launches were made for. */
struct launches {
    int lo, hi, rows; /* layers, and the bucket of rows */
    uint32_t max_keys;
    unsigned epoch; /* of the memory that they name */
};

/* Launches that were recorded, or seen once (exec NULL): the second time is when it pays. */
struct recording {
    struct launches of;
    uint64_t used; /* 0: just placed */
    bool due;      /* to be recorded in this pass */
    cu_graph_exec exec;
};

struct recordings {
    struct gpu *gpu;
    struct recording *list;
    int n, most;
    uint64_t clock; /* of their use */
};

int recordings_create(struct recordings *r, struct gpu *g, struct err *e);
void recordings_free(struct recordings *r); /* the card is entered; an empty one is fine */
struct recording *recordings_find(struct recordings *r, const struct launches *of); /* NULL: there is none */
/* Where they are, else a new place, or that of the one that was not used for longest. */
struct recording *recordings_place(struct recordings *r, const struct launches *of);
/* Counts a use. Whether it is the one for which they are to be recorded. */
bool recordings_note(struct recordings *r, struct recording *of);
void recording_forget(struct recordings *r, struct recording *of);

#endif
