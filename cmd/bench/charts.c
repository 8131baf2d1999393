#include "cmd/bench/charts.h"

#include "cmd/bench/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SERIES = 24, MAX_POINTS = 32, GRID = 41, NAME = 64 };

/* ---- rows that belong together ---- */

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_number(double a, double b) {
    return a == b || (isnan(a) && isnan(b));
}

static bool same_series(const struct bench_row *a, const struct bench_row *b) {
    return same_text(a->mode, b->mode) && a->nodes == b->nodes && same_text(a->codec, b->codec) &&
           same_number(a->mbit, b->mbit);
}

/* Measured over a network, all categories together. */
static bool is_whole(const struct bench_row *r) {
    return !r->category && isfinite(r->rtt_ms) && isfinite(r->tok_s);
}

void chart_series_name(const struct bench_results *r, const struct bench_row *row, char *out, size_t cap) {
    bool nodes = false, codec = false, mbit = false;
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        nodes = nodes || (same_text(x->mode, row->mode) && x->nodes != row->nodes);
        codec = codec || !same_text(x->codec, row->codec);
        mbit = mbit || !same_number(x->mbit, row->mbit);
    }
    int n = snprintf(out, cap, "%s", row->mode);
    if (nodes && row->nodes && n < (int)cap)
        n += snprintf(out + n, cap - (size_t)n, ", %d nodes", row->nodes);
    if (codec && row->codec && n < (int)cap)
        n += snprintf(out + n, cap - (size_t)n, ", %s", row->codec);
    if (mbit && isfinite(row->mbit) && n < (int)cap)
        snprintf(out + n, cap - (size_t)n, ", %g Mbit/s", row->mbit);
}

/* The first rows of up to MAX_SERIES series among those that pass. */
static int series_of(const struct bench_results *r, const struct bench_row *first[MAX_SERIES]) {
    int n = 0;
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        bool known = !is_whole(x);
        for (int k = 0; k < n && !known; k++)
            known = same_series(first[k], x);
        if (!known && n < MAX_SERIES)
            first[n++] = x;
    }
    return n;
}

/* ---- throughput ---- */

static const struct bench_fit *fit_of(const struct bench_results *r, const struct bench_row *row) {
    for (int i = 0; i < r->n_fits; i++) {
        const struct bench_fit *f = &r->fits[i];
        if (same_text(f->mode, row->mode) && f->nodes == row->nodes && same_text(f->codec, row->codec) &&
            (same_number(f->mbit, row->mbit) || isnan(row->mbit)))
            return f;
    }
    return NULL;
}

static bool draw_throughput(struct wbuf *out, const struct bench_results *r, const char *title) {
    static const double nearest = 5; /* ms: below, other things than distance decide */
    const struct bench_row *first[MAX_SERIES];
    struct plot_line lines[2 * MAX_SERIES];
    double x[MAX_SERIES][MAX_POINTS], y[MAX_SERIES][MAX_POINTS], gx[GRID], gy[MAX_SERIES][GRID], most = 0;
    char names[MAX_SERIES][NAME];
    int n = series_of(r, first), n_lines = 0;
    for (int k = 0; k < n; k++) {
        struct plot_line *l = &lines[n_lines++];
        chart_series_name(r, first[k], names[k], NAME);
        *l = (struct plot_line){.name = names[k], .x = x[k], .y = y[k], .marks = true, .colour = k};
        for (int i = 0; i < r->rows.n && l->n < MAX_POINTS; i++) {
            if (!is_whole(&r->rows.at[i]) || !same_series(first[k], &r->rows.at[i]))
                continue;
            x[k][l->n] = r->rows.at[i].rtt_ms;
            y[k][l->n++] = r->rows.at[i].tok_s;
            most = fmax(most, r->rows.at[i].rtt_ms);
        }
    }
    for (int k = 0; k < n; k++) {
        const struct bench_fit *f = fit_of(r, first[k]);
        if (!f || most <= nearest)
            continue;
        for (int i = 0; i < GRID; i++) {
            gx[i] = nearest + (most - nearest) * i / (GRID - 1);
            gy[k][i] = bench_fit_law_tok_s(f, gx[i]);
        }
        lines[n_lines++] = (struct plot_line){
            .name = names[k], .x = gx, .y = gy[k], .n = GRID, .line = true, .colour = k, .quiet = true};
    }
    const struct plot p = {
        .title = title, .x_label = "round trip, ms", .y_label = "tokens per second", .log_y = true, .from_0 = true};
    if (n)
        plot_lines(out, &p, lines, n_lines);
    return n > 0;
}

/* ---- latency ---- */

static bool draw_latency(struct wbuf *out, const struct bench_results *r, const char *title) {
    enum { PARTS = 7, MAX_GROUPS = 48 };
    static const char *const parts[PARTS] = {"round trip",    "cloud",    "front layers", "back layers, head",
                                             "serialisation", "drafting", "waiting"};
    double v[MAX_GROUPS][PARTS];
    char names[MAX_GROUPS][NAME];
    const char *groups[MAX_GROUPS];
    int n = 0;
    for (int i = 0; i < r->rows.n && n < MAX_GROUPS; i++) {
        const struct bench_row *x = &r->rows.at[i];
        const struct bench_step *s = &x->step;
        if (!is_whole(x) || !isfinite(s->all))
            continue;
        const double of[PARTS] = {s->rtt, s->cloud, s->front, s->back, s->serialise, s->draft, s->wait};
        char series[NAME - 24];
        chart_series_name(r, x, series, sizeof series);
        snprintf(names[n], NAME, "%.6g ms, %s", x->rtt_ms, series);
        memcpy(v[n], of, sizeof of);
        groups[n] = names[n];
        n++;
    }
    const struct plot p = {.title = title, .x_label = "ms per step"};
    const struct plot_bars b = {groups, parts, n, PARTS, v[0], true};
    if (n)
        plot_bars(out, &p, &b);
    return n > 0;
}

/* ---- acceptance by category ---- */

static bool draw_acceptance(struct wbuf *out, const struct bench_results *r, const char *title) {
    enum { MAX_GROUPS = 16 };
    const struct bench_row *first[MAX_SERIES];
    const char *groups[MAX_GROUPS], *parts[MAX_SERIES];
    char names[MAX_SERIES][NAME];
    double v[MAX_GROUPS * MAX_SERIES], far = -1;
    int n_groups = 0, n_parts = series_of(r, first);
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        bool known = !x->category || !isfinite(x->tok_s);
        for (int g = 0; g < n_groups && !known; g++)
            known = same_text(groups[g], x->category);
        if (!known && n_groups < MAX_GROUPS)
            groups[n_groups++] = x->category;
        far = isfinite(x->rtt_ms) ? fmax(far, x->rtt_ms) : far;
    }
    for (int k = 0; k < n_parts; k++) {
        chart_series_name(r, first[k], names[k], NAME);
        parts[k] = names[k];
        for (int g = 0; g < n_groups; g++) {
            v[g * n_parts + k] = NAN;
            for (int i = 0; i < r->rows.n; i++) {
                const struct bench_row *x = &r->rows.at[i];
                if (same_text(x->category, groups[g]) && same_series(x, first[k]) && x->rtt_ms == far)
                    v[g * n_parts + k] = bench_row_tokens_per_round_trip(x);
            }
        }
    }
    const struct plot p = {.title = title, .x_label = "tokens per round trip"};
    const struct plot_bars b = {groups, parts, n_groups, n_parts, v, false};
    if (n_groups && n_parts)
        plot_bars(out, &p, &b);
    return n_groups && n_parts;
}

/* ---- drafts without a network ---- */

/* Points of rows of `list` as series: by the text of `name`, over `x`. */
static bool draw_drafts(struct wbuf *out, const struct plot *p, const struct bench_rows *list, bool reference,
                        const char *(*name)(const struct bench_row *), double (*x_of)(const struct bench_row *)) {
    struct plot_line lines[MAX_SERIES];
    double x[MAX_SERIES][MAX_POINTS], y[MAX_SERIES][MAX_POINTS];
    int n = 0;
    for (int i = 0; i < list->n; i++) {
        const struct bench_row *r = &list->at[i];
        int k = 0;
        if (isfinite(r->rtt_ms) || (strcmp(r->mode, "reference") == 0) != reference)
            continue;
        while (k < n && !same_text(lines[k].name, name(r)))
            k++;
        if (k == MAX_SERIES)
            continue;
        if (k == n) {
            lines[k] =
                (struct plot_line){.name = name(r), .x = x[k], .y = y[k], .marks = true, .line = true, .colour = k};
            n++;
        }
        if (lines[k].n == MAX_POINTS)
            continue;
        x[k][lines[k].n] = x_of(r);
        y[k][lines[k].n++] = bench_row_tokens_per_round_trip(r);
    }
    if (n)
        plot_lines(out, p, lines, n);
    return n > 0;
}

static const char *category_name(const struct bench_row *r) {
    return r->category ? r->category : "all";
}

static const char *source_name(const struct bench_row *r) {
    return r->source;
}

static double order_of(const struct bench_row *r) { /* "n=3" */
    return r->source[2] - '0';
}

static double nodes_of(const struct bench_row *r) {
    return r->nodes;
}

static const struct bench_rows *drafts_in(const struct bench_results *r) {
    return r->drafts.n ? &r->drafts : &r->rows;
}

static bool draw_ngrams(struct wbuf *out, const struct bench_results *r, const char *title) {
    const struct plot p = {.title = title, .x_label = "n", .y_label = "tokens per round trip"};
    return draw_drafts(out, &p, drafts_in(r), true, category_name, order_of);
}

static bool draw_nodes(struct wbuf *out, const struct bench_results *r, const char *title) {
    const struct plot p = {
        .title = title, .x_label = "nodes of a window", .y_label = "tokens per round trip", .from_0 = true};
    return !r->drafts.n && draw_drafts(out, &p, &r->rows, false, source_name, nodes_of);
}

const struct chart bench_charts[N_CHARTS] = {
    {"throughput.svg", "Throughput against round trip",
     "Points are measured; the dashed line is the law, 1 / (m L + (1 - m) tau), with m, L and tau measured.",
     draw_throughput},
    {"latency.svg", "Where the time of a step goes",
     "A step is one round trip with the tokens that needed none of their own behind it. Waiting is what no other part "
     "explains: queues, threads being woken, guesses that came late.",
     draw_latency},
    {"acceptance.svg", "Tokens per round trip, by category", "At the longest round trip that was measured.",
     draw_acceptance},
    {"ngrams.svg", "The reference's n-grams, n = 3 to 7",
     "One-token keys and the five oldest n-grams, stop and wait, along the same answers without a network.",
     draw_ngrams},
    {"nodes.svg", "Tokens per round trip, by source and tree size", "Stop and wait, along recorded answers.",
     draw_nodes},
};
