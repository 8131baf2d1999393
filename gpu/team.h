/* gpu/team.h - cards that compute the same layers together: a thread for each, and what they gather from each other.
 *
 * Tensor parallelism by output rows: each card has a share of the rows of every matrix, and what the cards computed is
 * gathered, never summed. So each element is formed as on one card, with the same bits. NCCL does the gathering
 * (libnccl, opened at run time by nccl.h). Below share.h and stage.h; knows nothing of models. */
#ifndef GPU_TEAM_H
#define GPU_TEAM_H

#include "gpu/gpu.h"

struct team;

/* The n cards stay the caller's and must outlive the team. One card: no NCCL, no threads. Several: connects them, and
 * makes sure that a gather brings what it should, launched and recorded, before saying so. ERR_DEVICE: no NCCL here,
 * one too old, or it cannot connect these cards (in its words). */
int team_create(struct team **out, struct gpu *const *cards, int n, struct err *e);
void team_free(struct team *t); /* NULL is fine */
int team_size(const struct team *t);

/* Calls fn(ctx, rank, e) for every rank at once, each on its own thread, which has entered its card; the caller's is
 * rank 0's. Returns when all have; the first failure is what e gets. When one fails after a gather was enqueued, the
 * gathers that others wait in are given up, so that they return; the team is of no use then, and says so at once from
 * there on. */
int team_run(struct team *t, int (*fn)(void *ctx, int rank, struct err *e), void *ctx, struct err *e);

/* Enqueues on rank's card, inside team_run: buf holds team_size(t) blocks of `bytes`, of which rank's card has written
 * block `rank`; behind it all blocks are there. Every rank calls it in the same order with the same bytes. It may be
 * recorded (gpu_record_begin). As launches, it reports nothing: gpu_wait tells. Nothing for one card. */
void team_gather(struct team *t, int rank, cu_ptr buf, size_t bytes);

#endif
