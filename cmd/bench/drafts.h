/* cmd/bench/drafts.h - how far drafts follow an answer that is known: no model, no network, stop and wait.
 *
 * An answer of T tokens stands behind its prompt; nothing of it is known but what was committed. A step is one round
 * trip: a window of at most `nodes` drafted tokens, a tree below the last committed one, goes out; the path of the tree
 * that the answer follows (a tokens) and the token behind it are committed, a + 1 in all, and the next step begins. So
 * each window brings one token that was not drafted: it ends in a miss, or below a leaf of the window. The first window
 * goes out with the prompt; the answer's end is not guessed.
 *
 *     tokens_per_round_trip = tokens / steps = E[accepted + 1]        miss_rate = steps / tokens */
#ifndef CMD_BENCH_DRAFTS_H
#define CMD_BENCH_DRAFTS_H

#include "cmd/bench/record.h"
#include "cmd/bench/traces.h"
#include "core/draft/draft.h"

enum { DRAFTS_MAX_NODES = 512, DRAFTS_FIRST_ORDER = 3, DRAFTS_LAST_ORDER = 7 };

/* Adds to r's tokens and steps, and to *draft_ms what drafting took. The drafter is new, and knows the prompt, the
 * answer so far and what o names. */
int drafts_follow(const struct trace *t, const struct drafter_opts *o, struct bench_row *r, double *draft_ms,
                  struct err *e);

/* The reference's drafts (coder903/split-inference): the n-grams of prompt and answer under their first token, of which
 * the five oldest that start with the last token are candidates, checked one by one: here as branches of one window. */
void drafts_follow_reference(const struct trace *t, int order, struct bench_row *r);
/* The row for that, without its counts. */
struct bench_row drafts_reference_row(int order);

#endif
