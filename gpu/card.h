/* gpu/card.h - a card of the backend: its place in its team, and whether it still works. Implemented by backend.c. */
#ifndef GPU_CARD_H
#define GPU_CARD_H

#include "gpu/gpu.h"
#include "gpu/plan.h"
#include "gpu/team.h"

struct card {
    struct gpu *gpu;
    struct team *team; /* also of a card alone */
    struct seat seat;
    struct err broken; /* why a pass failed: nothing on this card can be trusted any more */
};

/* Before anything is done on it: fails when a pass on it has failed. */
int card_enter(struct card *c, struct err *e);
/* Waits for all that was enqueued; a failure is remembered. */
int card_wait(struct card *c, struct err *e);

#endif
