#include "core/decode/ahead.h"

#include "core/base/clock.h"

/* Passes of a small model in one round; rounds for what is likely before a tree is filled up with what is not. */
enum { PASSES = 8, LIKELY_FIRST = 2 };
/* A pass that takes more than this part of a wait is not for waits. */
static const double SHARE = 0.5;
/* Something may take so much longer than it did; an average moves so; one measurement counts as so many times the
 * average at most; and it fades while it says no, for the machine may only have been busy. */
static const double MARGIN = 1.25, MOVES = 0.3, JUMP = 4, FADES = 0.99;
/* While results are here, a round is made every so many times what one takes, and so many times in a round trip. */
static const double REST = 10, A_TRIP = 10;

bool ahead_wanted(const struct speculation *p) {
    return speculation_priced(p) && p->drafter.ahead && price_away(&p->price) &&
           p->ahead.pass_ms <= SHARE * price_trip(&p->price);
}

bool ahead_model(const struct speculation *p) {
    return p->ahead.pass_ms > 0 && ahead_wanted(p);
}

bool ahead_due(const struct speculation *p) {
    double rest = REST * p->ahead.round_ms, part = price_trip(&p->price) / A_TRIP;
    return !ahead_wanted(p) || (p->head.state != SENT && clock_ms() - p->ahead.over_ms >= (rest > part ? rest : part));
}

static void average(double *ms, double now) {
    if (*ms > 0 && now > JUMP * *ms)
        now = JUMP * *ms;
    *ms += *ms > 0 ? MOVES * (now - *ms) : now;
}

void ahead_done(struct speculation *p, double t0) {
    p->ahead.over_ms = clock_ms();
    average(&p->ahead.round_ms, p->ahead.over_ms - t0);
}

/* A pass of the small model took ms. Twice in a row is no accident, however far the average has faded since. */
static void pass_took(struct speculation *p, double ms) {
    double least = ms < p->ahead.last_ms ? ms : p->ahead.last_ms;
    average(&p->ahead.pass_ms, ms);
    if (p->ahead.pass_ms < least)
        p->ahead.pass_ms = least;
    p->ahead.last_ms = ms;
}

/* Passes that are over in time. */
static int passes_in(const struct speculation *p, double left) {
    double ms = MARGIN * p->ahead.pass_ms;
    return left <= 0 ? 0 : left < PASSES * ms ? (int)(left / ms) : PASSES;
}

/* Drafts nodes from path probability least on, up to cap, and sends them when they pay. 1: there were some, or passes
 * that may bring some; 0: neither. */
static int draft_on(struct session *s, int cap, double least, int passes, struct err *e) {
    struct speculation *p = s->spec;
    int old = p->n, made = 0, rows, rc = 0;
    double t0 = clock_ms(), sum = 0, at_ms;
    int n = old < cap ? p->drafter.ahead(p->drafter.ctx, p->tree, old, cap, (float)least, passes, &made) : old;
    double t1 = clock_ms();
    speculation_accept(s, old, n > cap ? cap : n);
    for (int i = old; i < p->n; i++)
        sum += (double)p->tree[i].path;
    if (p->n > old && !price_pays(&p->price, sum, p->n - old))
        p->n = old;
    if (p->n > old)
        rc = speculation_send(s, false, old, &rows, &at_ms, e) != 0 ? -1 : 1;
    if (made > 0) {
        pass_took(p, (t1 - t0) / made);
        p->ahead.over_ms = clock_ms();
        return rc < 0 ? -1 : 1;
    }
    ahead_done(p, t0);
    return rc;
}

/* One round. 1: another one may bring more; 0: it will not, or there is no time for it. *bare: the tree has likely
 * nodes only, and is still to be filled up with the others. */
static int go_on(struct session *s, int round, bool *bare, struct err *e) {
    struct speculation *p = s->spec;
    double left = p->head.sent_ms + price_trip(&p->price) - clock_ms() - MARGIN * p->ahead.round_ms;
    double least = price_least(&p->price);
    int passes = passes_in(p, left);
    if (least >= 1 || (passes == 0 && !*bare))
        return 0;
    if (*bare && (round >= LIKELY_FIRST || passes == 0 || p->ahead.pass_ms <= 0)) {
        *bare = false;
        return draft_on(s, speculation_cap(p, true), least, passes, e) < 0 ? -1 : 1;
    }
    double clear = AHEAD_CLEAR(least);
    if (*bare && clear < AHEAD_LIKELY)
        clear = AHEAD_LIKELY;
    int rc = draft_on(s, speculation_cap(p, false), clear, passes, e);
    return rc == 0 && *bare ? 1 : rc;
}

int ahead_await(struct session *s, bool miss, double *compute_ms, struct err *e) {
    struct speculation *p = s->spec;
    double t0 = clock_ms(), waited = s->stats.middle_ms, front = s->stats.front_ms;
    bool wanted = ahead_wanted(p), busy = wanted && !(miss && price_probe(&p->price)), bare = ahead_model(p);
    int rc = 0, round = 0;
    if (!wanted)
        p->ahead.pass_ms *= FADES;
    if (!miss) /* without time for it nothing is lost: what is likely is in flight */
        bare = busy && p->head.sent_ms + price_trip(&p->price) - t0 > MARGIN * p->ahead.round_ms;
    *compute_ms = 0;
    while (p->head.state == SENT && rc >= 0) {
        double before = s->stats.cloud_ms;
        rc = busy ? session_gather(s, 0, e) : pad_gather(s, e);
        if (rc > 0)
            *compute_ms = s->stats.cloud_ms - before;
        else if (rc == 0 && busy)
            busy = (rc = go_on(s, round++, &bare, e)) > 0;
    }
    s->stats.awaited_ms += *compute_ms;
    s->stats.middle_ms = waited + clock_ms() - t0 - (s->stats.front_ms - front);
    return rc < 0 ? -1 : 0;
}
