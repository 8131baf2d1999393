#include "cmd/bench/plot.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The picture and the frame in it, in units of the viewBox. */
enum { WIDTH = 820, LEFT = 80, RIGHT = 600, TOP = 50, HEIGHT = 420, BOTTOM = 350, LEGEND = 620, NAMES = 190 };
enum { BAR = 16, GAP = 12, MAX_NAME = 30, MOST_TICKS = 60 };

/* Okabe and Ito's colours, which people who confuse red and green tell apart. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"};
enum { N_COLOURS = sizeof colours / sizeof *colours };

/* ---- text ---- */

/* Bytes of the UTF-8 character at s that XML takes; 0: none is there. */
static int character(const unsigned char *s) {
    if (s[0] < 0x80)
        return s[0] >= 0x20 || s[0] == '\t' || s[0] == '\n' || s[0] == '\r';
    int n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    uint32_t c = s[0] & (0x7fu >> n);
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && (c & 0xfffe) != 0xfffe ? n : 0;
}

void plot_text(struct wbuf *out, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = character(s);
        if (n == 0)
            wbuf_str(out, "\xef\xbf\xbd");
        else if (*s == '&')
            wbuf_str(out, "&amp;");
        else if (*s == '<')
            wbuf_str(out, "&lt;");
        else if (*s == '>')
            wbuf_str(out, "&gt;");
        else if (*s == '"')
            wbuf_str(out, "&quot;");
        else if (*s == '\'')
            wbuf_str(out, "&#39;");
        else
            wbuf_put(out, s, (size_t)n);
        s += n ? n : 1;
    }
}

static void label(struct wbuf *out, double x, double y, const char *anchor, const char *more, const char *text) {
    wbuf_fmt(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
    plot_text(out, text);
    wbuf_str(out, "</text>\n");
}

/* Names of any length stay inside their column; whole characters only. */
static void name_label(struct wbuf *out, double x, double y, const char *anchor, const char *text) {
    char cut[4 * MAX_NAME + 4];
    size_t n = 0;
    int shown = 0;
    while (text[n] && shown < MAX_NAME && n < sizeof cut - 8) {
        int len = character((const unsigned char *)text + n);
        n += len ? (size_t)len : 1;
        shown++;
    }
    snprintf(cut, sizeof cut, "%.*s%s", (int)n, text, text[n] ? "\xe2\x80\xa6" : "");
    label(out, x, y, anchor, "", cut);
}

static void number_label(struct wbuf *out, double x, double y, const char *anchor, double v) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", v);
    label(out, x, y, anchor, " fill=\"#555\"", text);
}

/* ---- frame ---- */

static void begin(struct wbuf *out, const struct plot *p, int height) {
    wbuf_fmt(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" "
             "font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<title>",
             WIDTH, height, WIDTH, height);
    plot_text(out, p->title);
    wbuf_fmt(out, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", WIDTH, height);
    label(out, 20, 26, "start", " font-size=\"15\" font-weight=\"bold\"", p->title);
}

static void rule(struct wbuf *out, double x1, double y1, double x2, double y2, const char *colour) {
    wbuf_fmt(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

double plot_step(double span, int want) {
    double raw = span / want, power = pow(10, floor(log10(raw)));
    double m = raw / power;
    return (m <= 1 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10) * power;
}

struct axis {
    double lo, hi, at_lo, at_hi; /* values, and where they stand in the picture */
    bool log;
};

static double scaled(const struct axis *a, double v) {
    return a->log ? log(fmax(v, DBL_MIN)) : v;
}

static double place(const struct axis *a, double v) {
    double lo = scaled(a, a->lo), t = (scaled(a, v) - lo) / (scaled(a, a->hi) - lo);
    return a->at_lo + t * (a->at_hi - a->at_lo);
}

/* The next tick behind v; the first is at or above lo. */
static double tick_after(const struct axis *a, double v, double step) {
    if (!a->log)
        return v + step;
    double power = pow(10, floor(log10(v) + 1e-9)), m = v / power;
    return (m < 1.5 ? 2 : m < 3.5 ? 5 : 10) * power;
}

static double tick_first(const struct axis *a, double step) {
    if (!a->log)
        return ceil(a->lo / step - 1e-9) * step;
    double v = pow(10, floor(log10(a->lo)));
    while (v < a->lo * (1 - 1e-9))
        v = tick_after(a, v, 0);
    return v;
}

static void ticks(struct wbuf *out, const struct axis *a, bool vertical, double from, double to) {
    double step = plot_step(a->hi - a->lo, 6);
    double v = tick_first(a, step);
    int left = MOST_TICKS; /* whatever the numbers are, this ends */
    while (left-- > 0 && v <= a->hi * (1 + 1e-9)) {
        double at = place(a, v), shown = fabs(v) < step * 1e-6 ? 0 : v;
        if (vertical) {
            rule(out, from, at, to, at, "#e5e5e5");
            number_label(out, from - 8, at + 4, "end", shown);
        } else {
            rule(out, at, from, at, to, "#e5e5e5");
            number_label(out, at, to + 18, "middle", shown);
        }
        v = tick_after(a, v, step);
    }
}

static void legend(struct wbuf *out, int row, int colour, bool marks, bool line, const char *name) {
    double y = TOP + 10 + row * 20;
    const char *c = colours[colour % N_COLOURS];
    if (line)
        wbuf_fmt(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2\"%s/>\n",
                 LEGEND, y, LEGEND + 18, y, c, marks ? "" : " stroke-dasharray=\"5 4\"");
    if (marks)
        wbuf_fmt(out, "<circle cx=\"%d\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", LEGEND + 9, y, c);
    if (!line && !marks)
        wbuf_fmt(out, "<rect x=\"%d\" y=\"%.1f\" width=\"18\" height=\"12\" fill=\"%s\"/>\n", LEGEND, y - 6, c);
    name_label(out, LEGEND + 26, y + 4, "start", name);
}

/* ---- lines ---- */

static bool shown(const struct plot *p, const struct plot_line *l, int i) {
    return isfinite(l->x[i]) && isfinite(l->y[i]) && (!p->log_y || l->y[i] > 0);
}

static bool spans(const struct plot *p, const struct plot_line *lines, int n, struct axis *x, struct axis *y) {
    bool any = false;
    *x = (struct axis){.lo = 0, .hi = 0, .at_lo = LEFT, .at_hi = RIGHT};
    *y = (struct axis){.lo = p->log_y ? INFINITY : 0, .hi = 0, .at_lo = BOTTOM, .at_hi = TOP, .log = p->log_y};
    for (int k = 0; k < n; k++)
        for (int i = 0; i < lines[k].n; i++) {
            if (!shown(p, &lines[k], i))
                continue;
            x->lo = !any || lines[k].x[i] < x->lo ? lines[k].x[i] : x->lo;
            x->hi = !any || lines[k].x[i] > x->hi ? lines[k].x[i] : x->hi;
            y->lo = fmin(y->lo, lines[k].y[i]);
            y->hi = fmax(y->hi, lines[k].y[i]);
            any = true;
        }
    if (!any)
        return false;
    if (p->from_0 && x->lo > 0)
        x->lo = 0;
    double room = x->hi > x->lo ? (x->hi - x->lo) / 40 : 1;
    x->lo -= room;
    x->hi += room;
    if (p->log_y) {
        y->lo /= 1.25;
        y->hi *= 1.25;
    } else {
        y->hi = y->hi > y->lo ? y->hi * 1.05 : y->lo + 1;
    }
    return true;
}

static void draw_line(struct wbuf *out, const struct plot *p, const struct plot_line *l, const struct axis *x,
                      const struct axis *y) {
    const char *c = colours[l->colour % N_COLOURS];
    bool open = false;
    for (int i = 0; i < l->n && l->line; i++) {
        if (!shown(p, l, i))
            continue;
        wbuf_fmt(out, "%s%.1f,%.1f", open ? " " : "<polyline points=\"", place(x, l->x[i]), place(y, l->y[i]));
        open = true;
    }
    if (open)
        wbuf_fmt(out, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", c,
                 l->marks ? "" : " stroke-dasharray=\"5 4\"");
    for (int i = 0; i < l->n && l->marks; i++)
        if (shown(p, l, i))
            wbuf_fmt(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", place(x, l->x[i]),
                     place(y, l->y[i]), c);
}

void plot_lines(struct wbuf *out, const struct plot *p, const struct plot_line *lines, int n) {
    struct axis x, y;
    int rows = 0;
    for (int k = 0; k < n; k++)
        rows += !lines[k].quiet;
    int height = TOP + 20 + rows * 20 > HEIGHT ? TOP + 20 + rows * 20 : HEIGHT;
    begin(out, p, height);
    if (spans(p, lines, n, &x, &y)) {
        ticks(out, &x, false, TOP, BOTTOM);
        ticks(out, &y, true, LEFT, RIGHT);
        rule(out, LEFT, BOTTOM, RIGHT, BOTTOM, "#555");
        rule(out, LEFT, TOP, LEFT, BOTTOM, "#555");
        for (int k = 0; k < n; k++)
            draw_line(out, p, &lines[k], &x, &y);
        for (int k = 0, row = 0; k < n; k++)
            if (!lines[k].quiet)
                legend(out, row++, lines[k].colour, lines[k].marks, lines[k].line, lines[k].name);
    }
    label(out, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "middle", "", p->x_label);
    wbuf_fmt(out, "<text transform=\"translate(24 %.1f) rotate(-90)\" text-anchor=\"middle\">", (TOP + BOTTOM) / 2.0);
    plot_text(out, p->y_label);
    wbuf_str(out, "</text>\n</svg>\n");
}

/* ---- bars ---- */

static double at_least_0(double v) {
    return isfinite(v) && v > 0 ? v : 0;
}

static double longest(const struct plot_bars *b) {
    double most = 0;
    for (int g = 0; g < b->n_groups; g++) {
        double sum = 0;
        for (int k = 0; k < b->n_parts; k++) {
            double v = at_least_0(b->v[g * b->n_parts + k]);
            sum = b->stacked ? sum + v : fmax(sum, v);
        }
        most = fmax(most, sum);
    }
    return most;
}

static void bar(struct wbuf *out, const struct axis *x, double from, double to, double y, int colour,
                const char *name) {
    double at = place(x, from);
    wbuf_fmt(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>", at, y,
             place(x, to) - at, BAR - 2, colours[colour % N_COLOURS]);
    plot_text(out, name);
    wbuf_fmt(out, ": %.4g</title></rect>\n", to - from);
}

static void draw_group(struct wbuf *out, const struct plot_bars *b, int g, const struct axis *x, double y) {
    double sum = 0;
    for (int k = 0; k < b->n_parts; k++) {
        double v = at_least_0(b->v[g * b->n_parts + k]);
        if (v <= 0)
            continue;
        if (b->stacked) {
            bar(out, x, sum, sum + v, y, k, b->parts[k]);
        } else {
            bar(out, x, 0, v, y + k * BAR, k, b->parts[k]);
            char text[32];
            snprintf(text, sizeof text, "%.3g", v);
            label(out, place(x, v) + 4, y + k * BAR + 11, "start", " font-size=\"10\" fill=\"#555\"", text);
        }
        sum += v;
    }
}

void plot_bars(struct wbuf *out, const struct plot *p, const struct plot_bars *b) {
    int rows = b->stacked ? 1 : b->n_parts, group = rows * BAR + GAP, bottom = TOP + b->n_groups * group;
    int legend_end = TOP + 20 + b->n_parts * 20;
    double most = longest(b);
    begin(out, p, (bottom > legend_end ? bottom : legend_end) + 60);
    const struct axis x = {.lo = 0, .hi = most > 0 ? most * 1.08 : 1, .at_lo = NAMES, .at_hi = RIGHT};
    ticks(out, &x, false, TOP - 6, bottom);
    rule(out, NAMES, TOP - 6, NAMES, bottom, "#555");
    for (int g = 0; g < b->n_groups; g++) {
        double y = TOP + g * group;
        name_label(out, NAMES - 8, y + rows * BAR / 2.0 + 4, "end", b->groups[g]);
        draw_group(out, b, g, &x, y);
    }
    for (int k = 0; k < b->n_parts; k++)
        legend(out, k, k, false, false, b->parts[k]);
    label(out, (NAMES + RIGHT) / 2.0, bottom + 42, "middle", "", p->x_label);
    wbuf_str(out, "</svg>\n");
}
