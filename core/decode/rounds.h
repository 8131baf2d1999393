/* core/decode/rounds.h - jacobi and lookahead: how a session gets guesses from an iteration (core/draft/iterate.h), and
 * tells it what the target says behind each. For speculate.c. */
#ifndef CORE_DECODE_ROUNDS_H
#define CORE_DECODE_ROUNDS_H

#include "core/decode/speculate_impl.h"

/* *nodes grows to what both iterations need (o NULL: as usual); returns the longest chain. */
int rounds_size(const struct iterate_opts *o, int *nodes);
/* Both, for a tree of at most `room` nodes, which is enough for them. */
int rounds_create(struct rounds **out, const struct iterate_opts *o, int room, struct err *e);
void rounds_free(struct rounds *r); /* wipes */

/* How the caller samples: what the target says is sampled in the same way. */
void rounds_sampled(struct rounds *r, const struct sample_params *p, uint32_t n, uint32_t n_generated);

/* A tree below the head when that is new. */
void rounds_grow(struct session *s, bool miss);
/* Everything that was sent is awaited, and the iteration told. The head's logits are in place. */
int rounds_finish(struct session *s, struct err *e);

#endif
