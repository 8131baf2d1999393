#include "core/draft/effort.h"

#include <stdbool.h>

/* Turns of so many tokens (the first two are shorter), and waits of so many turns. A level is given up in mid-turn when
 * it has taken so much of the time of a turn of the best one and is that much slower; it is preferred to a smaller one
 * when it is that much faster. */
enum { WARM_UP = 8, TASTE = 4, TURN = 24, WAIT_MIN = 3, WAIT_MAX = 16, WAIT_NONE_PAYS = 1 << 20 };
static const double SHARE = 0.25, ENOUGH = 0.4, SLOWER = 1.3, FASTER = 0.97, KEEP = 0.6, CHANGED = 3;
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
    int at = 1;
    while (at + 1 < EFFORT_LEVELS && passes[at + 1] * e->pass_ms <= SHARE * rate(e, 0))
        at++;
    return e->pass_ms > rate(e, 0) ? 0 : at;
}

/* The level above the best and the one below take turns, and after both of them none at all. */
static int neighbour(struct effort *e, int from) {
    int way = e->way++ % 3, at = way == 0 ? from + 1 : way == 1 ? from - 1 : 0;
    return at < 0 || at >= EFFORT_LEVELS ? from : at;
}

static int next_level(struct effort *e, bool tried) {
    int top = best(e);
    if (e->turns == 1)
        return 1;
    if (e->turns == 2)
        return start(e);
    int most = top > 0 ? WAIT_MAX : WAIT_NONE_PAYS;
    if (top != e->top || e->next == 0 || rate(e, top) > CHANGED * e->then_ms) {
        e->next = e->wait = WAIT_MIN;
        e->then_ms = rate(e, top);
    } else if (tried) { /* in vain */
        e->wait = e->next = e->next < most / 2 ? 2 * e->next : most;
        e->then_ms = rate(e, top);
    }
    e->top = top;
    return e->wait-- > 0 ? top : neighbour(e, top);
}

/* The turn so far is enough to see that the level is no good. */
static bool hopeless(const struct effort *e, int top, int length) {
    double top_ms = top >= 0 && top != e->at ? rate(e, top) : 0;
    return top_ms > 0 && e->ms > ENOUGH * length * top_ms && e->ms > SLOWER * e->n * top_ms;
}

void effort_token(struct effort *e, double ms) {
    int top = best(e), length = e->turns == 0 ? WARM_UP : e->turns == 1 ? TASTE : TURN;
    bool tried = e->turns > 2 && e->at != top;
    e->ms += ms;
    e->n++;
    if (e->n < length && !hopeless(e, top, length))
        return;
    struct effort_level *l = &e->level[e->at];
    double keep = tried ? 0 : KEEP; /* what was measured long ago may not hold any more */
    l->ms = keep * l->ms + e->ms;
    l->n = keep * l->n + e->n;
    e->ms = e->n = 0;
    e->turns++;
    e->at = next_level(e, tried);
}
