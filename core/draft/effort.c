#include "core/draft/effort.h"

#include <stdbool.h>

/* Turns of so many tokens; every so many turns another level is tried. A level is given up in mid-turn when it has
 * taken TOO_LONG times what the best takes for a whole turn, and preferred to a smaller one when it is that much
 * faster.
 */
enum { WARM_UP = 8, TURN = 24, EXPLORE = 4 };
static const double SHARE = 0.25, TOO_LONG = 1.3, FASTER = 0.97, KEEP = 0.6;
static const int passes[EFFORT_LEVELS] = {0, 1, 2, 4, 8, 16};

int effort_passes(const struct effort *e) {
    return passes[e->at];
}

void effort_pass(struct effort *e, double ms) {
    e->pass_ms = e->pass_ms > 0 ? 0.8 * e->pass_ms + 0.2 * ms : ms;
}

static double rate(const struct effort *e, int level) {
    return e->level[level].ms / e->level[level].n;
}

/* The fastest, and of those that are nearly as fast the one with the fewest passes. */
static int best(const struct effort *e) {
    int at = -1;
    for (int i = 0; i < EFFORT_LEVELS; i++)
        if (e->level[i].n > 0 && (at < 0 || rate(e, i) < FASTER * rate(e, at)))
            at = i;
    return at;
}

static int start(const struct effort *e) {
    int at = 0;
    while (at + 1 < EFFORT_LEVELS && passes[at + 1] * e->pass_ms <= SHARE * rate(e, 0))
        at++;
    return at > 0 ? at : 1; /* once at least it is tried */
}

/* The level above the best and the one below take turns, and after both of them none at all. */
static int neighbour(const struct effort *e, int from) {
    int way = e->turns / EXPLORE % 3, at = way == 0 ? from + 1 : way == 1 ? from - 1 : 0;
    return at < 0 || at >= EFFORT_LEVELS ? from : at;
}

void effort_token(struct effort *e, double ms) {
    int top = best(e);
    bool first = top < 0;
    e->ms += ms;
    e->n++;
    bool slow = !first && e->at != top && e->ms > TOO_LONG * TURN * rate(e, top);
    if (e->n < (first ? WARM_UP : TURN) && !slow)
        return;
    struct effort_level *l = &e->level[e->at];
    l->ms = KEEP * l->ms + e->ms;
    l->n = KEEP * l->n + e->n;
    e->ms = e->n = 0;
    e->turns++;
    top = best(e);
    e->at = first ? start(e) : e->turns % EXPLORE == 0 ? neighbour(e, top) : top;
}
