/* cmd/bench/tally.h - the times of one token after another in one mode, as a session counts them, added up and made a
 * row. Knows no model; pure but for memory. */
#ifndef CMD_BENCH_TALLY_H
#define CMD_BENCH_TALLY_H

#include "cmd/bench/record.h"
#include "core/decode/session.h"

/* One token: the sampling and the call of session_advance. */
struct bench_token {
    double ms;
    double transport_ms; /* of it: this side encoded, sealed, sent, read, opened, decoded */
    const struct session_stats *before, *after;
};

/* The path between both sides. */
struct bench_path {
    double rtt_ms, mbit; /* mbit 0: no limit */
    double row_bytes;    /* of a position on the wire */
    double row_ms;       /* encoding and decoding it once */
    double first_rows;   /* that come back together, at most: nothing of them is here before all are; 0: 1 */
    bool whole;          /* one window for each step, and nothing beside it */
};

/* A step is a round trip that was waited for: a token that no guess had foreseen, or one that was foreseen so late that
 * most of the round trip was still to come. */
struct bench_tally {
    long long tokens, steps;
    double ms;
    double front, back, draft;     /* of all tokens; back: with the head */
    double hit_ms;                 /* this side's time in tokens that were no steps */
    double rows, cloud;            /* positions sent, passes: all of them, waited for or not */
    double step_model, step_cloud; /* front and back, passes, in steps, as far as the step waited for them */
    double step_wire, step_rows;   /* ms of bytes that it waited for, and positions */
    double bytes_up, bytes_down;
    struct bench_times {
        double *ms; /* owned */
        int n, cap;
    } over, here; /* own overhead of each token that was not foreseen, and what this side has of it */
};

int bench_tally_token(struct bench_tally *t, const struct bench_token *k, const struct bench_path *p, struct err *e);
int bench_tally_add(struct bench_tally *t, const struct bench_tally *more, struct err *e);
void bench_tally_free(struct bench_tally *t);

/* The numbers of a row; what names it is the caller's. */
void bench_tally_row(struct bench_tally *t, const struct bench_path *p, struct bench_row *r);
/* L - RTT and tau of the law (law.h): what a step takes beside the round trip, and what bounds the other tokens. They
 * sort what t holds. */
double bench_tally_miss_ms(struct bench_tally *t);
double bench_tally_hit_ms(const struct bench_tally *t, const struct bench_path *p);

#endif
