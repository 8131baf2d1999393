/* core/draft/effort.h - how many passes of a small model pay for each token of the target. A pass delays what waits for
 * it and may save a round trip; which of the two is more cannot be known beforehand, so it is measured: time per token
 * with each number of passes, in turns of some tokens each. First none, then one; then as many as fit in a quarter of
 * the time that a token takes without any; from then on what was fastest, and now and then its neighbours, which are
 * given up early when they are slow, and tried ever more seldom while they lose. So a model that is too slow costs a
 * few tokens' time, and is not used until the tokens themselves take much longer. Knows no model and no clock. */
#ifndef CORE_DRAFT_EFFORT_H
#define CORE_DRAFT_EFFORT_H

enum { EFFORT_LEVELS = 6 };

struct effort {
    struct effort_level {
        double ms, n; /* sums that forget: time, tokens */
    } level[EFFORT_LEVELS];
    int at;         /* the level being measured */
    double ms;      /* of this turn so far */
    int n;          /* its tokens */
    int turns;      /* that are over */
    int wait, next; /* turns until another level is tried, and how long the wait will be after it; */
    int way, top;   /* which one that is; the fastest so far */
    double then_ms; /* of a token, when another level was tried last */
    double pass_ms; /* of a pass, lately */
};

/* Passes that may be spent on the next token. Zero-initialise e. */
int effort_passes(const struct effort *e);
/* A pass took ms. */
void effort_pass(struct effort *e, double ms);
/* A token took ms. */
void effort_token(struct effort *e, double ms);

#endif
