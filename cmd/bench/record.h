/* cmd/bench/record.h - what a bench has measured: rows of numbers, and how they become JSON, CSV and a table. A number
 * that does not apply to a row is NAN here and null, or an empty field, there. Knows no model and no clock. */
#ifndef CMD_BENCH_RECORD_H
#define CMD_BENCH_RECORD_H

#include "core/base/buf.h"
#include "core/base/err.h"

#include <stdio.h>
#include <yyjson.h>

/* Where the milliseconds of a step went: a step is one round trip with the tokens that came without one behind it. The
 * parts add up to all; waiting is what no other part explains. */
struct bench_step {
    double all;
    double rtt; /* the way there and back, with the time that the bytes take at the link's rate */
    double cloud, front, back /* with the head */, serialise, draft, wait;
};

struct bench_row {
    const char *mode, *source, *codec, *category; /* borrowed; NULL: null. category NULL: all of them */
    int nodes;                                    /* 0: null */
    double rtt_ms, mbit;
    long long tokens, steps; /* steps 0: null */
    double tok_s, predicted_tok_s;
    double overhead_ms, overhead_here_ms; /* of both sides and what is between them; of this side */
    double bytes_up, bytes_down;
    struct bench_step step;
};
/* Every number NAN. */
struct bench_row bench_row_of(const char *mode, const char *source, int nodes);
double bench_row_tokens_per_round_trip(const struct bench_row *r);
double bench_row_miss_rate(const struct bench_row *r);

struct bench_rows {
    struct bench_row *at; /* owned */
    int n, cap;
};
int bench_rows_add(struct bench_rows *v, const struct bench_row *r, struct err *e);
void bench_rows_free(struct bench_rows *v);

/* What measured. Strings are borrowed, NULL: not said. */
struct bench_machine {
    const char *backend, *model, *cloud;
    int threads, layers, hidden, front, back; /* 0: not said */
};

/* The start of a results object in d: {"machine", "rows"}; NULL when memory is out. */
yyjson_mut_val *bench_json(yyjson_mut_doc *d, const struct bench_machine *m, const struct bench_rows *rows);
/* The rows alone, under key. */
bool bench_json_rows(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const struct bench_rows *rows);
/* A number, or null where it is NAN or infinite. */
bool bench_json_number(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, double v);

/* One line of names, one line for each row (RFC 4180). */
void bench_csv(struct wbuf *out, const struct bench_rows *rows);

#endif
