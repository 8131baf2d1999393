/* cmd/bench/law.h - what a rate should be, from what was measured. Pure.
 *
 * The law of a pipelined split: with m the chance that the next token is not among the guesses that are on their way,
 * L the time of a round trip with the work at both ends, and tau what bounds a token that was foreseen,
 *
 *     tokens per second = 1 / (m L + (1 - m) tau)
 *
 * The decomposition: a step takes the round trip and a fixed time, which is fitted at some round trips and tested at
 * others. A mode that suits its trees to the round trip has no fixed time: how far guesses pay grows with the logarithm
 * of what they save, and so does the time. */
#ifndef CMD_BENCH_LAW_H
#define CMD_BENCH_LAW_H

#include <stdbool.h>

/* NAN when a token would take no time. */
double law_tok_s(double miss_rate, double miss_ms, double hit_ms);

/* At one round trip: what a step took, and the tokens that it brought; the constants of the law, miss_ms without the
 * round trip. */
struct law_point {
    double rtt_ms, step_ms, tokens_per_step;
    double miss_rate, miss_ms, hit_ms;
};

struct law_fit {
    double fixed_ms;  /* a step less its round trip, of at_ms where that matters; NAN without a point */
    double growth_ms; /* more for each doubling of the round trip; 0 for modes that do not adapt */
    double at_ms;
    int n;
};
/* Over p[0..n) but p[skip] (-1: over all): the constants with the smallest relative errors, by least squares. */
struct law_fit law_fit(const struct law_point *p, int n, int skip, bool adapts);
double law_fit_step_ms(const struct law_fit *f, double rtt_ms);

/* Leave-one-out: each point is predicted from the others. error[i], when error is not NULL: predicted over measured
 * time of a step, less 1. Returns the mean of their absolute values; NAN with fewer than two points. */
double law_cross_validate(const struct law_point *p, int n, bool adapts, double *error);

/* All but the time of a step at a round trip: for modes that adapt between those of its neighbours, by the logarithm,
 * and at either end as at the last one; for others the means. */
struct law_point law_point_at(const struct law_point *p, int n, bool adapts, double rtt_ms);

#endif
