/* cmd/bench/prime.h - a scratch store of recorded answers and texts, in memory. */
#ifndef CMD_BENCH_PRIME_H
#define CMD_BENCH_PRIME_H

#include "cmd/bench/traces.h"
#include "core/draft/store.h"

/* Everything in t but what leave_out[i] names. The store also learns from some of it how far to trust itself, each time
 * before it has learned that piece. */
int prime_store(struct draft_store **out, uint32_t vocab, const struct traces *t, const bool *leave_out, struct err *e);

#endif
