/* core/decode/ahead.h - what auto does while it waits for a result: it drafts on below the nodes in flight, lets a
 * small model make passes that cost nothing now, and sends what pays in further windows. It ends in time for the
 * result: a round is begun only when it will probably be over before that comes. Tokens whose results are here are not
 * held up by it: then a round is made now and then only. For speculate.c. */
#ifndef CORE_DECODE_AHEAD_H
#define CORE_DECODE_AHEAD_H

#include "core/decode/speculate_impl.h"

/* From which path probability on nodes are likely enough to begin a tree that a small model will have its say about;
 * and when least just pays, from which one on they clearly do and may be more than a tree has. */
#define AHEAD_LIKELY       0.02
#define AHEAD_CLEAR(least) (3 * (least))

/* Is waiting a time to draft? Then a window need not wait for the passes of a small model. */
bool ahead_wanted(const struct speculation *p);
/* Will a small model say more while this side waits? Then a new tree begins with the guesses that are likely, and is
 * filled up with others when it has said something. */
bool ahead_model(const struct speculation *p);
/* A guess came true: is it time to draft below it, before anything else? */
bool ahead_due(const struct speculation *p);
/* A round that was begun at t0 is over. */
void ahead_done(struct speculation *p, double t0);
/* Waits until the head is here, whose tree is new. *compute_ms: of the pass that brought it. */
int ahead_await(struct session *s, bool miss, double *compute_ms, struct err *e);

#endif
