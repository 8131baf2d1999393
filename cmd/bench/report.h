/* cmd/bench/report.h - results as files: results.json, results.csv, the plots, and report.html, which holds all of it
 * and needs nothing from anywhere. */
#ifndef CMD_BENCH_REPORT_H
#define CMD_BENCH_REPORT_H

#include "cmd/bench/results.h"

/* Makes the directory when it is not there: before hours are measured for nothing. */
int bench_report_prepare(const char *dir, struct err *e);
int bench_report_write(const char *dir, const struct bench_results *r, struct err *e);

/* The page alone. */
void bench_report_html(struct wbuf *out, const struct bench_results *r);

#endif
