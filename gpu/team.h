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
 * makes sure that a gather brings what it should, launched and recorded, before saying so; NCCL takes memory of each
 * card for it, so this comes before asking what is left. ERR_DEVICE: no NCCL here,
 * one too old, or it cannot connect these cards (in its words), or they do not answer each other for patience_ms. */
int team_create(struct team **out, struct gpu *const *cards, int n, struct err *e);
int team_create_within(struct team **out, struct gpu *const *cards, int n, int patience_ms, struct err *e);
/* NULL is fine. All recordings with gathers in them are to be forgotten before: NCCL waits until they are. */
void team_free(struct team *t);
int team_size(const struct team *t);

/* Calls fn(ctx, rank, e) for every rank at once, each on its own thread, which has entered its card; the caller's is
 * rank 0's. Returns when all have; the first failure is what e gets. When one fails after a gather was enqueued, the
 * gathers that others wait in are given up, so that they return (what they then have gathered is garbage, and their
 * gpu_wait need not tell); the team is of no use then, and says so at once from there on. One caller at a time.
 *
 * While a card waits for another in a gather, neither may be asked for what may wait for a whole card: no allocating,
 * no freeing and no gpu_record_end between a run's first gather that was launched or replayed and its gpu_wait. So
 * steps are recorded in one run and replayed in the next. */
int team_run(struct team *t, int (*fn)(void *ctx, int rank, struct err *e), void *ctx, struct err *e);

/* Enqueues on rank's card, inside team_run: buf holds team_size(t) blocks of `bytes`, of which rank's card has written
 * block `rank`; behind it all blocks are there. Every rank calls it in the same order with the same bytes, and all
 * record it (gpu_record_begin) or none does. As launches, it reports nothing: gpu_wait tells. Nothing for one card. */
void team_gather(struct team *t, int rank, cu_ptr buf, size_t bytes);

/* gpu_replay of what rank has recorded with gathers in it, inside team_run. Every rank replays the recordings that were
 * made together, in the same order; a rank that got none (no memory) lets the others forget theirs. */
void team_replay(struct team *t, int rank, cu_graph_exec x);

#endif
