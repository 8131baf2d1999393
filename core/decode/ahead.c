#include "core/decode/ahead.h"

#include "core/base/clock.h"

/* Passes of a small model between two looks at what came; rounds of them before the tree is filled up with what is not
 * likely. */
enum { PASSES = 8, LIKELY_FIRST = 2 };
/* A wait of which a pass would take more is not for drafting; how much longer than usual a pass may take; how an
 * average moves; how it fades while it says no, for the machine may only have been busy. */
static const double SHARE = 0.5, MARGIN = 1.25, MOVES = 0.3, FADES = 0.99;
static const int JUMP = 4; /* one measurement counts as so many times the average at most */

bool ahead_wanted(const struct speculation *p) {
    return speculation_priced(p) && p->drafter.ahead && price_away(&p->price) &&
           p->ahead_ms <= SHARE * price_trip(&p->price);
}

static void measured(struct speculation *p, double ms) {
    if (p->ahead_ms > 0 && ms > JUMP * p->ahead_ms)
        ms = JUMP * p->ahead_ms;
    p->ahead_ms += p->ahead_ms > 0 ? MOVES * (ms - p->ahead_ms) : ms;
}

bool ahead_likely(const struct speculation *p) {
    return p->ahead_ms > 0 && ahead_wanted(p);
}

/* One round of drafting and sending, of which the first few are for what is likely and the next one fills the tree up.
 * 1: there may be more to do; 0: there is not, or no time for it. */
static int go_on(struct session *s, int round, struct err *e) {
    struct speculation *p = s->spec;
    const struct session_drafter *d = &p->drafter;
    double now = clock_ms(), left = p->head.sent_ms + price_trip(&p->price) - now;
    int old = p->n, made = 0, passes = PASSES, fill = round == LIKELY_FIRST;
    if (p->ahead_ms > 0 && left < PASSES * MARGIN * p->ahead_ms)
        passes = (int)(left / (MARGIN * p->ahead_ms));
    if (passes < 1 && round < LIKELY_FIRST)
        fill = 1;
    int cap = speculation_cap(p, fill);
    double least = price_least(&p->price), sum = 0;
    if (!fill && least < AHEAD_LIKELY)
        least = AHEAD_LIKELY;
    if ((passes < 1 && !fill) || least >= 1)
        return 0;
    if (old >= cap)
        return fill;
    int n = d->ahead(d->ctx, p->tree, old, cap, (float)least, fill ? 0 : passes, &made);
    if (made > 0)
        measured(p, (clock_ms() - now) / made);
    made += fill || round < LIKELY_FIRST;
    speculation_accept(s, old, n > cap ? cap : n);
    for (int i = old; i < p->n; i++)
        sum += (double)p->tree[i].path;
    if (p->n == old)
        return made > 0;
    if (!price_pays(&p->price, sum, p->n - old)) {
        p->n = old;
        return made > 0;
    }
    int rows;
    double at_ms;
    return speculation_send(s, false, old, &rows, &at_ms, e) != 0 ? -1 : 1;
}

int ahead_await(struct session *s, double *compute_ms, struct err *e) {
    struct speculation *p = s->spec;
    double t0 = clock_ms(), waited = s->stats.middle_ms, front = s->stats.front_ms;
    bool busy = ahead_wanted(p);
    int rc = 0, round = 0;
    p->ahead_ms *= busy ? 1 : FADES;
    *compute_ms = 0;
    while (p->head.state == SENT && rc >= 0) {
        double before = s->stats.cloud_ms;
        rc = busy ? session_gather(s, 0, e) : pad_gather(s, e);
        if (rc > 0)
            *compute_ms = s->stats.cloud_ms - before;
        else if (rc == 0 && busy)
            busy = (rc = go_on(s, round++, e)) > 0;
    }
    s->stats.awaited_ms += *compute_ms;
    s->stats.middle_ms = waited + clock_ms() - t0 - (s->stats.front_ms - front);
    return rc < 0 ? -1 : 0;
}
