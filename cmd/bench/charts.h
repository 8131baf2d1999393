/* cmd/bench/charts.h - the plots that results give. Each appends an SVG to out and returns true, or false when the
 * results have nothing for it. Pure. */
#ifndef CMD_BENCH_CHARTS_H
#define CMD_BENCH_CHARTS_H

#include "cmd/bench/results.h"

struct chart {
    const char *file, *title;
    const char *text; /* what is to be seen, for a report */
    bool (*draw)(struct wbuf *out, const struct bench_results *r, const char *title);
};
enum { N_CHARTS = 5 };
extern const struct chart bench_charts[N_CHARTS];

/* "auto, 64 nodes, q8, 20 Mbit/s": as much of it as tells the row from others of r. */
void chart_series_name(const struct bench_results *r, const struct bench_row *row, char *out, size_t cap);

#endif
