/* core/decode/rounds.h - jacobi and lookahead: how a session gets guesses from an iteration (core/draft/iterate.h), and
 * tells it what the target says behind each. For speculate.c. */
#ifndef CORE_DECODE_ROUNDS_H
#define CORE_DECODE_ROUNDS_H

#include "core/decode/speculate_impl.h"

/* Both iterations; max_nodes grows to what they need, and *depth is the longest chain. */
int rounds_create(struct rounds **out, const struct iterate_opts *o, int *max_nodes, int *depth, struct err *e);
void rounds_free(struct rounds *r); /* wipes */

/* How the caller samples: what the target says is sampled in the same way. */
void rounds_sampled(struct rounds *r, const struct sample_params *p, uint32_t n, uint32_t n_generated);

/* A tree below the head when that is new. */
void rounds_grow(struct session *s, bool miss);
/* Everything that was sent is awaited, and the iteration told. The head's logits are in place. */
int rounds_finish(struct session *s, struct err *e);

#endif
