/* cmd/bench/tally.h - the times of one token after another in one mode, as a session counts them, added up and made a
 * row. Knows no model; pure but for memory. */
#ifndef CMD_BENCH_TALLY_H
#define CMD_BENCH_TALLY_H

#include "cmd/bench/record.h"
#include "core/decode/session.h"

/* One token: the sampling and the call of session_advance. */
struct bench_token {
    double ms;
    const struct session_stats *before, *after;
};

/* The path between both sides. */
struct bench_path {
    double rtt_ms, mbit; /* mbit 0: no limit */
    double row_bytes;    /* of a position on the wire */
    double row_ms;       /* encoding and decoding it once */
    bool whole;          /* a step waits for all its positions; else for the first of them */
};

struct bench_tally {
    long long tokens, steps;
    double ms;
    double front, back, draft;      /* back: with head and sampling */
    double hit_local;               /* of them, in tokens that a guess had foreseen */
    double cloud, miss_cloud;       /* passes: all, and those that came while a miss waited */
    double wire, rows, waited_rows; /* ms of bytes that a miss waits for; positions sent; positions a miss waits for */
    double bytes_up, bytes_down;
    double *over; /* own overhead of each step; owned */
    int n_over, cap_over;
};

int bench_tally_token(struct bench_tally *t, const struct bench_token *k, const struct bench_path *p, struct err *e);
int bench_tally_add(struct bench_tally *t, const struct bench_tally *more, struct err *e);
void bench_tally_free(struct bench_tally *t);

/* The numbers of a row; what names it is the caller's. Sorts what t holds. */
void bench_tally_row(struct bench_tally *t, const struct bench_path *p, struct bench_row *r);
/* What a token that was not foreseen takes without the round trip itself, and a token that was: L - RTT and tau of the
 * law (law.h). */
double bench_tally_miss_ms(const struct bench_tally *t, const struct bench_path *p);
double bench_tally_hit_ms(const struct bench_tally *t, const struct bench_path *p);

#endif
