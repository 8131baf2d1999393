/* cmd/bench/law.h - what a rate should be, from what was measured. Pure.
 *
 * The law of a pipelined split: with m the chance that the next token is not among the guesses that are on their way,
 * L the time of a round trip with the work at both ends, and tau what bounds a token that was foreseen,
 *
 *     tokens per second = 1 / (m L + (1 - m) tau)
 *
 * The decomposition: a step takes the round trip and a fixed time, which is fitted at some round trips and tested at
 * others. */
#ifndef CMD_BENCH_LAW_H
#define CMD_BENCH_LAW_H

/* NAN when a token would take no time. */
double law_tok_s(double miss_rate, double miss_ms, double hit_ms);

/* At one round trip: what a step took, and the tokens that it brought. */
struct law_point {
    double rtt_ms, step_ms, tokens_per_step;
};

struct law_fit {
    double fixed_ms;        /* a step less its round trip; NAN without a point */
    double tokens_per_step; /* mean of the points */
    int n;
};
/* Over p[0..n) but p[skip] (-1: over all): the fixed time with the smallest relative errors, by least squares. */
struct law_fit law_fit(const struct law_point *p, int n, int skip);
double law_fit_tok_s(const struct law_fit *f, double rtt_ms);

/* Leave-one-out: each point is predicted from the others. error[i], when error is not NULL: predicted over measured
 * time of a step, less 1. Returns the mean of their absolute values; NAN with fewer than two points. */
double law_cross_validate(const struct law_point *p, int n, double *error);

#endif
