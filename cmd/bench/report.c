#include "cmd/bench/report.h"

#include "cmd/bench/charts.h"
#include "cmd/bench/plot.h"
#include "cmd/version.h"
#include "core/base/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the page ---- */

static const char style[] =
    "body{font-family:sans-serif;color:#222;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "line-height:1.45}\n"
    "table{border-collapse:collapse;font-size:.85rem;margin:.5rem 0 1.5rem}\n"
    "th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\n"
    "th{border-bottom:2px solid #888}\n"
    "td:first-child,th:first-child{text-align:left}\n"
    ".wide{overflow-x:auto}\n"
    "svg{max-width:100%;height:auto}\n"
    "h2{margin-top:2.5rem}\n";

static void paragraph(struct wbuf *out, const char *text) {
    wbuf_str(out, "<p>");
    plot_text(out, text);
    wbuf_str(out, "</p>\n");
}

/* names: "a|b|c". */
static void table_begin(struct wbuf *out, const char *names) {
    wbuf_str(out, "<div class=\"wide\"><table>\n<tr>");
    for (const char *s = names; *s;) {
        size_t n = strcspn(s, "|");
        wbuf_fmt(out, "<th>%.*s</th>", (int)n, s);
        s += n + (s[n] == '|');
    }
    wbuf_str(out, "</tr>\n");
}

static void table_end(struct wbuf *out) {
    wbuf_str(out, "</table></div>\n");
}

static void cell_text(struct wbuf *out, const char *s) {
    wbuf_str(out, "<td>");
    plot_text(out, s ? s : "");
    wbuf_str(out, "</td>");
}

static void cell(struct wbuf *out, int digits, double v) {
    if (isfinite(v))
        wbuf_fmt(out, "<td>%.*f</td>", digits, v);
    else
        wbuf_str(out, "<td></td>");
}

static void page_machine(struct wbuf *out, const struct bench_machine *m) {
    if (!m->model)
        return;
    wbuf_str(out, "<p>Model <b>");
    plot_text(out, m->model);
    wbuf_fmt(out, "</b>: %d layers of %d numbers, of which the first %d and the last %d are computed here. ", m->layers,
             m->hidden, m->front, m->back);
    if (m->cloud) {
        wbuf_str(out, "The cloud is ");
        plot_text(out, m->cloud);
        wbuf_str(out, ".</p>\n");
    } else {
        wbuf_str(out, "The cloud was another thread of the same process, behind an emulated link: both sides shared "
                      "this machine&#39;s processors.</p>\n");
    }
}

static void page_rows(struct wbuf *out, const struct bench_results *r) {
    bool any = false;
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        char name[96];
        if (!isfinite(x->tok_s))
            continue;
        if (!any) {
            wbuf_str(out, "<h2>Rates</h2>\n");
            paragraph(out, "Every answer equals that of sequential decoding, which was measured beside it, prompt by "
                           "prompt. The law's figure is what the measured share of misses should give.");
            table_begin(out, "mode|round trip ms|category|tokens|steps|tokens per step|tok/s|times sequential|law "
                             "tok/s|own ms per step|of it here|MB up|MB down");
            any = true;
        }
        chart_series_name(r, x, name, sizeof name);
        wbuf_str(out, "<tr>");
        cell_text(out, name);
        cell(out, 1, x->rtt_ms);
        cell_text(out, x->category ? x->category : "all");
        cell(out, 0, (double)x->tokens);
        cell(out, 0, (double)x->steps);
        cell(out, 2, bench_row_tokens_per_round_trip(x));
        cell(out, 2, x->tok_s);
        cell(out, 2, x->tok_s / bench_results_sequential(r, x));
        cell(out, 2, x->predicted_tok_s);
        cell(out, 2, x->overhead_ms);
        cell(out, 2, x->overhead_here_ms);
        cell(out, 2, x->bytes_up / 1e6);
        cell(out, 2, x->bytes_down / 1e6);
        wbuf_str(out, "</tr>\n");
    }
    if (any)
        table_end(out);
    if (any && r->n_different)
        wbuf_fmt(out, "<p><b>%d answers differed from those of sequential decoding.</b></p>\n", r->n_different);
}

static void page_fits(struct wbuf *out, const struct bench_results *r) {
    if (!r->n_fits)
        return;
    wbuf_str(out, "<h2>Round trip plus a fixed time</h2>\n");
    paragraph(out, "A step is modelled as the round trip and a fixed time, which in a mode that suits its trees to "
                   "the round trip grows with each doubling of that. The error is that of a step's time at each "
                   "round trip when the others alone were fitted (leave one out).");
    table_begin(out, "mode|codec|Mbit/s|fixed ms|at ms|ms per doubling|round trips|mean error %");
    for (int i = 0; i < r->n_fits; i++) {
        const struct bench_fit *f = &r->fits[i];
        wbuf_str(out, "<tr>");
        cell_text(out, f->mode);
        cell_text(out, f->codec);
        cell(out, 0, f->mbit);
        cell(out, 2, f->fit.fixed_ms);
        cell(out, 0, f->fit.at_ms);
        cell(out, 2, f->fit.growth_ms);
        cell(out, 0, f->n);
        cell(out, 1, 100 * f->cv_error);
        wbuf_str(out, "</tr>\n");
    }
    table_end(out);
    wbuf_str(out, "<h2>Projection</h2>\n");
    paragraph(out, "Tokens per second at other round trips: from the fixed time, and from the law.");
    table_begin(out, "mode|codec|from|5 ms|10 ms|20 ms|40 ms|80 ms|120 ms|160 ms|200 ms");
    for (int i = 0; i < r->n_fits; i++)
        for (int law = 0; law < 2; law++) {
            const struct bench_fit *f = &r->fits[i];
            wbuf_str(out, "<tr>");
            cell_text(out, f->mode);
            cell_text(out, f->codec);
            cell_text(out, law ? "law" : "fixed time");
            for (int k = 0; k < BENCH_PROJECTED; k++)
                cell(out, 1,
                     law ? bench_fit_law_tok_s(f, bench_projected_rtt[k]) : bench_fit_tok_s(f, bench_projected_rtt[k]));
            wbuf_str(out, "</tr>\n");
        }
    table_end(out);
}

static void page_drafts(struct wbuf *out, const struct bench_results *r) {
    const struct bench_rows *list = r->drafts.n ? &r->drafts : &r->rows;
    bool any = false;
    for (int i = 0; i < list->n; i++) {
        const struct bench_row *x = &list->at[i];
        if (isfinite(x->tok_s))
            continue;
        if (!any) {
            wbuf_str(out, "<h2>Drafts without a network</h2>\n");
            table_begin(out, "mode|source|nodes|category|tokens|round trips|tokens per round trip|misses");
            any = true;
        }
        wbuf_str(out, "<tr>");
        cell_text(out, x->mode);
        cell_text(out, x->source);
        cell(out, 0, x->nodes);
        cell_text(out, x->category ? x->category : "all");
        cell(out, 0, (double)x->tokens);
        cell(out, 0, (double)x->steps);
        cell(out, 3, bench_row_tokens_per_round_trip(x));
        cell(out, 3, bench_row_miss_rate(x));
        wbuf_str(out, "</tr>\n");
    }
    if (any)
        table_end(out);
}

void bench_report_html(struct wbuf *out, const struct bench_results *r) {
    wbuf_str(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                  "<title>splitinf bench</title>\n<style>\n");
    wbuf_str(out, style);
    wbuf_fmt(out, "</style>\n</head>\n<body>\n<h1>splitinf bench</h1>\n<p>Version %s.</p>\n", version_string());
    page_machine(out, &r->machine);
    page_rows(out, r);
    for (int i = 0; i < N_CHARTS; i++) {
        struct wbuf svg = {0};
        if (bench_charts[i].draw(&svg, r, bench_charts[i].title)) {
            wbuf_str(out, "<h2>");
            plot_text(out, bench_charts[i].title);
            wbuf_str(out, "</h2>\n");
            paragraph(out, bench_charts[i].text);
            wbuf_put(out, svg.p, svg.n);
            out->bad = out->bad || svg.bad;
        }
        wbuf_free(&svg);
    }
    page_fits(out, r);
    page_drafts(out, r);
    wbuf_str(out, "</body>\n</html>\n");
}

/* ---- files ---- */

int bench_report_prepare(const char *dir, struct err *e) {
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return err_sys(e, errno, "--out %s", dir);
    return file_is_dir(dir) ? 0 : err_set(e, ERR_USAGE, "--out %s: that is not a directory", dir);
}

static int write_file(const char *dir, const char *name, const void *p, size_t n, struct err *e) {
    char path[4096];
    if (file_join(path, sizeof path, dir, name, e) != 0)
        return -1;
    FILE *f = fopen(path, "we");
    bool ok = f && fwrite(p, 1, n, f) == n;
    if (f && fclose(f) != 0)
        ok = false;
    return ok ? 0 : err_sys(e, errno, "%s", path);
}

static int write_buffer(const char *dir, const char *name, struct wbuf *b, struct err *e) {
    int rc = b->bad ? err_set(e, ERR_MEMORY, "out of memory for %s", name) : write_file(dir, name, b->p, b->n, e);
    wbuf_free(b);
    return rc;
}

int bench_report_write(const char *dir, const struct bench_results *r, struct err *e) {
    struct wbuf csv = {0}, html = {0};
    char *json = bench_results_json(r, e);
    int rc = json ? write_file(dir, "results.json", json, strlen(json), e) : -1;
    free(json);
    if (rc != 0)
        return -1;
    bench_csv(&csv, &r->rows);
    rc = write_buffer(dir, "results.csv", &csv, e);
    for (int i = 0; i < N_CHARTS && rc == 0; i++) {
        struct wbuf svg = {0};
        if (bench_charts[i].draw(&svg, r, bench_charts[i].title))
            rc = write_buffer(dir, bench_charts[i].file, &svg, e);
        wbuf_free(&svg);
    }
    if (rc != 0)
        return -1;
    bench_report_html(&html, r);
    return write_buffer(dir, "report.html", &html, e);
}
