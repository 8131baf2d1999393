/* cmd/bench/plot.h - plots as SVG: lines over numbers, and bars over names. Pure: text in, text out. Names may hold
 * anything; they are escaped. */
#ifndef CMD_BENCH_PLOT_H
#define CMD_BENCH_PLOT_H

#include "core/base/buf.h"

#include <stdbool.h>

/* Text as it may stand in XML and HTML, between tags or in a quoted attribute. What is not UTF-8, or no character of
 * XML, becomes U+FFFD. */
void plot_text(struct wbuf *out, const char *text);

struct plot {
    const char *title, *x_label, *y_label;
    bool log_y;  /* all y are positive then; others are left out */
    bool from_0; /* x starts at 0 whatever the points are */
};

struct plot_line {
    const char *name;
    const double *x, *y; /* points that are not finite are left out */
    int n;
    bool marks, line; /* measured points have marks, a model has a line */
    int colour;       /* lines that belong together share one */
    bool quiet;       /* not in the legend */
};
void plot_lines(struct wbuf *out, const struct plot *p, const struct plot_line *lines, int n);

/* Horizontal bars: v[group][part], from 0. stacked: the parts of a group stand in one row, else each in its own. */
struct plot_bars {
    const char *const *groups, *const *parts;
    int n_groups, n_parts;
    const double *v;
    bool stacked;
};
void plot_bars(struct wbuf *out, const struct plot *p, const struct plot_bars *b);

/* Ticks at 1, 2 or 5 times a power of ten: the step for about `want` of them over span > 0. */
double plot_step(double span, int want);

#endif
