/* core/decode/ahead.h - what auto does while it waits for a result: it drafts on below the nodes in flight, lets a
 * small model make passes that cost nothing now, and sends what pays in further windows. It ends in time for the
 * result: a pass is begun only when it will probably be over before that comes. For speculate.c. */
#ifndef CORE_DECODE_AHEAD_H
#define CORE_DECODE_AHEAD_H

#include "core/decode/speculate_impl.h"

/* Is waiting a time to draft? Then a window need not wait for the passes of a small model. */
bool ahead_wanted(const struct speculation *p);
/* Will a small model say more while this side waits? Then a new tree begins with the guesses that are likely, and is
 * filled up with others when it has said something. */
bool ahead_likely(const struct speculation *p);
/* Nodes from this path probability on are likely: they may be more than a tree has. */
#define AHEAD_LIKELY 0.02
/* Waits until the head is here. *compute_ms: of the pass that brought it. */
int ahead_await(struct session *s, double *compute_ms, struct err *e);

#endif
