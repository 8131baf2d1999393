/* cmd/bench/results.h - everything that one run of bench found out, for printing and for reports. */
#ifndef CMD_BENCH_RESULTS_H
#define CMD_BENCH_RESULTS_H

#include "cmd/bench/law.h"
#include "cmd/bench/record.h"

enum { BENCH_PROJECTED = 8 };
extern const double bench_projected_rtt[BENCH_PROJECTED]; /* ms, 5 to 200 */

/* One mode over several round trips of one link and codec: the points that were measured, the decomposition and the
 * constants of the law. */
struct bench_fit {
    const char *mode, *codec;
    int nodes;
    double mbit;
    struct law_point at[16];
    double error[16]; /* of each point, predicted from the others */
    int n;
    bool adapts;        /* suits its trees to the round trip */
    struct law_fit fit; /* over all points */
    double cv_error;    /* mean of |error|; NAN: too few points */
};
/* Tokens per second at a round trip, from the time of a step; and from the law. */
double bench_fit_tok_s(const struct bench_fit *f, double rtt_ms);
double bench_fit_law_tok_s(const struct bench_fit *f, double rtt_ms);

enum { BENCH_FITS = 64 };
struct bench_results {
    struct bench_machine machine;
    struct bench_rows rows;
    struct bench_rows drafts; /* n-gram ablation: the reference's drafts along the answers, without a network */
    struct bench_fit fits[BENCH_FITS];
    int n_fits;
    int n_different; /* answers that were not those of sequential */
};
void bench_results_free(struct bench_results *r);

/* The rate of sequential decoding beside which row was measured; NAN: there is none. */
double bench_results_sequential(const struct bench_results *r, const struct bench_row *row);

/* The object that --json prints and --out keeps: malloc'ed, with a newline at its end; NULL with e set. */
char *bench_results_json(const struct bench_results *r, struct err *e);
/* That, or a table, on standard output. */
int bench_results_print(const struct bench_results *r, bool json, struct err *e);

#endif
