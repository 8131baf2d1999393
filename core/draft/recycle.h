/* core/draft/recycle.h - the successors that had the largest logits when a token was last computed (Luo et al. 2024,
 * Token Recycling, arXiv 2408.08696): a bigram model by the target itself, 8 successors for each token of the
 * vocabulary. */
#ifndef CORE_DRAFT_RECYCLE_H
#define CORE_DRAFT_RECYCLE_H

#include "core/base/err.h"
#include "core/draft/ngram.h"

enum { RECYCLE_TOP = 8 };

struct recycle;

uint64_t recycle_bytes(uint32_t vocab);
int recycle_create(struct recycle **out, uint32_t vocab, struct err *e);
void recycle_free(struct recycle *r); /* wipes */
/* logits [vocab] are those behind token. */
void recycle_put(struct recycle *r, uint32_t token, const float *logits);
/* Successors of token with their probabilities as counts of 1/65535; at most RECYCLE_TOP. 0: never computed. */
int recycle_get(const struct recycle *r, uint32_t token, struct ngram_succ out[RECYCLE_TOP]);

#endif
