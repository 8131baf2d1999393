/* cmd/bench: results as JSON, CSV, SVG and HTML. Each is read back by something that did not write it: yyjson, and
 * small readers of CSV and XML below. Names are hostile. */
#include "cmd/bench/charts.h"
#include "cmd/bench/drafts.h"
#include "cmd/bench/plot.h"
#include "cmd/bench/report.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char evil[] = "a<b>&\"'</title><script>x\x01\xff\xc0\xaf,\n]]>\xf0\x9f\x99\x82";

static struct bench_results r;
static struct err e;

static struct bench_row *add(struct bench_row row) {
    cr_assert_eq(bench_rows_add(&r.rows, &row, &e), 0);
    return &r.rows.at[r.rows.n - 1];
}

/* Two modes over three round trips, with categories; a fit of each; drafts. */
static void start(void) {
    static const char *const modes[] = {"sequential", "auto"};
    static const double rtt[] = {0, 20, 80};
    r = (struct bench_results){
        .machine = {.backend = "cpu-avx2", .model = evil, .threads = 2, .layers = 8, .hidden = 192, .front = 2, .back = 2}};
    for (int i = 0; i < 3; i++)
        for (int m = 0; m < 2; m++)
            for (int c = 0; c < 3; c++) {
                struct bench_row row = bench_row_of(modes[m], m ? "all" : NULL, m ? 64 : 0);
                row.rtt_ms = rtt[i];
                row.mbit = 100;
                row.codec = "f16";
                row.category = c == 2 ? NULL : c ? "code" : evil;
                row.tokens = 64;
                row.steps = m ? 20 : 64;
                row.tok_s = 1e3 / (rtt[i] + 2) * (m + 1);
                row.predicted_tok_s = row.tok_s * 1.01;
                row.overhead_ms = 0.25;
                row.overhead_here_ms = 0.125;
                row.bytes_up = 1000;
                row.bytes_down = 2000;
                row.step = (struct bench_step){rtt[i] + 2, rtt[i], 0.5, 0.25, 0.25, 0.1, 0.1, 0.8};
                add(row);
            }
    for (int m = 0; m < 2; m++)
        r.fits[r.n_fits++] =
            (struct bench_fit){.mode = modes[m],
                               .codec = "f16",
                               .nodes = m ? 64 : 0,
                               .mbit = 100,
                               .at = {{20, 22, 1 + m, m ? 0.4 : 1, 2, 1}, {80, 82, 1 + m, m ? 0.4 : 1, 2, 1}},
                               .n = 2,
                               .adapts = m,
                               .fit = {.fixed_ms = 2, .at_ms = 40, .n = 2},
                               .cv_error = 0.02};
    for (int order = DRAFTS_FIRST_ORDER; order <= DRAFTS_LAST_ORDER; order++) {
        struct bench_row row = drafts_reference_row(order);
        row.tokens = 100;
        row.steps = 80 - order;
        cr_assert_eq(bench_rows_add(&r.drafts, &row, &e), 0);
    }
}

static void end(void) {
    bench_results_free(&r);
}

/* ---- JSON ---- */

Test(bench_report, json_has_every_field_of_a_row, .init = start, .fini = end) {
    static const char *const fields[] = {"mode",
                                         "source",
                                         "nodes",
                                         "rtt_ms",
                                         "mbit",
                                         "codec",
                                         "category",
                                         "tokens",
                                         "steps",
                                         "tokens_per_round_trip",
                                         "tok_s",
                                         "miss_rate",
                                         "overhead_ms",
                                         "overhead_here_ms",
                                         "predicted_tok_s",
                                         "bytes_up",
                                         "bytes_down"};
    r.machine.model = "a \"model\"";
    for (int i = 0; i < r.rows.n; i++)
        r.rows.at[i].category = r.rows.at[i].category == evil ? "\"\\\n" : r.rows.at[i].category;
    char *text = bench_results_json(&r, &e);
    cr_assert(text, "%s", e.msg);
    yyjson_doc *d = yyjson_read(text, strlen(text), 0);
    cr_assert(d);
    yyjson_val *o = yyjson_doc_get_root(d), *rows = yyjson_obj_get(o, "rows"), *row;
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(yyjson_obj_get(o, "machine"), "model")), "a \"model\"");
    cr_assert_eq((int)yyjson_arr_size(rows), r.rows.n);
    size_t i, n;
    yyjson_arr_foreach(rows, i, n, row) for (size_t k = 0; k < sizeof fields / sizeof *fields; k++)
        cr_assert(yyjson_obj_get(row, fields[k]), "row %zu has no %s", i, fields[k]);
    row = yyjson_arr_get(rows, 5); /* auto, all categories */
    cr_assert_str_eq(yyjson_get_str(yyjson_obj_get(row, "mode")), "auto");
    cr_assert(yyjson_is_null(yyjson_obj_get(row, "category")));
    cr_assert_eq(yyjson_get_num(yyjson_obj_get(row, "tokens_per_round_trip")), 3.2);
    cr_assert_eq(yyjson_get_int(yyjson_obj_get(row, "nodes")), 64);
    row = yyjson_arr_get_first(rows);
    cr_assert(yyjson_is_null(yyjson_obj_get(row, "nodes")) && yyjson_is_null(yyjson_obj_get(row, "source")));
    cr_assert_eq((int)yyjson_arr_size(yyjson_obj_get(o, "fits")), 2);
    cr_assert_eq((int)yyjson_arr_size(yyjson_obj_get(o, "drafts")), 5);
    yyjson_doc_free(d);
    free(text);
}

Test(bench_report, numbers_that_are_none_are_null, .fini = end) {
    struct bench_row *x = add(bench_row_of("auto", "all", 4));
    x->tok_s = INFINITY;
    char *text = bench_results_json(&r, &e);
    cr_assert(text);
    yyjson_doc *d = yyjson_read(text, strlen(text), 0);
    yyjson_val *row = yyjson_arr_get_first(yyjson_obj_get(yyjson_doc_get_root(d), "rows"));
    static const char *const none[] = {"rtt_ms", "tok_s", "tokens_per_round_trip", "miss_rate", "bytes_up", "codec"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert(yyjson_is_null(yyjson_obj_get(row, none[i])), "%s", none[i]);
    yyjson_doc_free(d);
    free(text);
}

Test(bench_report, json_of_a_name_that_is_not_utf8_is_an_error, .init = start, .fini = end) {
    cr_assert_null(bench_results_json(&r, &e));
    cr_assert(strstr(e.msg, "UTF-8"), "%s", e.msg);
}

/* ---- CSV ---- */

/* Reads one field at *s into out; the separator behind it is returned. */
static char field(const char **s, char *out) {
    if (**s == '"')
        for (++*s; **s != '"' || (*s)[1] == '"'; ++*s) {
            cr_assert(**s);
            *s += **s == '"';
            *out++ = **s;
        }
    *s += **s == '"';
    while (**s && **s != ',' && **s != '\r')
        *out++ = *(*s)++;
    *out = '\0';
    char sep = **s;
    *s += sep == '\r' ? 2 : sep != '\0';
    return sep;
}

Test(bench_report, csv_can_be_read_again, .init = start, .fini = end) {
    struct wbuf csv = {0};
    char names[32][64], out[256];
    int n = 0, lines = 0;
    bench_csv(&csv, &r.rows);
    const char *s = wbuf_cstr(&csv);
    while (field(&s, names[n++]) == ',')
        ;
    cr_assert_str_eq(names[0], "mode");
    cr_assert_str_eq(names[6], "category");
    for (; *s; lines++)
        for (int i = 0; i < n; i++) {
            char sep = field(&s, out);
            cr_assert_eq(sep, i == n - 1 ? '\r' : ',', "line %d, field %d", lines, i);
            if (i == 0)
                cr_assert_str_eq(out, r.rows.at[lines].mode);
            if (i == 6)
                cr_assert_str_eq(out, r.rows.at[lines].category ? r.rows.at[lines].category : "");
            if (i == 2 && lines == 0)
                cr_assert_str_empty(out); /* nodes of sequential */
        }
    cr_assert_eq(lines, r.rows.n);
    wbuf_free(&csv);
}

/* ---- SVG and HTML ---- */

/* Entities in text or attributes. */
static const char *entity(const char *s) {
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(s, known[i], strlen(known[i])) == 0)
            return s + strlen(known[i]);
    cr_assert_fail("an & that begins no entity: %.20s", s);
    return s;
}

/* Every element is closed by its own name, attributes are quoted, & and < stand for themselves nowhere. Returns the
 * number of elements. void_ok: HTML's elements without an end. */
static int check_xml(const char *s, bool void_ok) {
    char open[32][16];
    int depth = 0, n = 0;
    while (*s) {
        cr_assert((unsigned char)*s >= 0x20 || *s == '\n' || *s == '\r' || *s == '\t', "control character %d", *s);
        if (*s == '&') {
            s = entity(s);
            continue;
        }
        if (*s != '<') {
            s++;
            continue;
        }
        if (strncmp(s, "<!DOCTYPE", 9) == 0) {
            s = strchr(s, '>') + 1;
            continue;
        }
        bool closing = *++s == '/';
        s += closing;
        size_t len = strcspn(s, " />\n");
        cr_assert(len > 0 && len < sizeof open[0] && isalpha((unsigned char)*s), "no element: %.30s", s);
        char name[16] = "";
        memcpy(name, s, len);
        for (s += len; *s && *s != '>' && *s != '/';) {
            if (*s != '"') {
                cr_assert_neq(*s, '<');
                s++;
                continue;
            }
            for (s++; *s && *s != '"';) {
                cr_assert_neq(*s, '<');
                s = *s == '&' ? entity(s) : s + 1;
            }
            cr_assert_eq(*s++, '"', "an attribute without end");
        }
        bool alone = *s == '/' || (void_ok && strcmp(name, "meta") == 0);
        s += *s == '/';
        cr_assert_eq(*s++, '>', "an element without end: %s", name);
        if (closing) {
            cr_assert(depth > 0 && strcmp(open[depth - 1], name) == 0, "</%s> closes %s", name,
                      depth ? open[depth - 1] : "nothing");
            depth--;
        } else {
            n++;
            if (!alone)
                strcpy(open[depth++], name);
        }
        cr_assert_lt(depth, 30);
    }
    cr_assert_eq(depth, 0, "%s is not closed", depth ? open[depth - 1] : "");
    return n;
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *s = text; (s = strstr(s, what)); s++)
        n++;
    return n;
}

static char *draw(int i) {
    struct wbuf svg = {0};
    cr_assert(bench_charts[i].draw(&svg, &r, evil), "%s", bench_charts[i].file);
    char *text = strdup(wbuf_cstr(&svg));
    wbuf_free(&svg);
    return text;
}

Test(bench_report, plots_are_sound_and_show_every_point, .init = start, .fini = end) {
    char *throughput = draw(0), *latency = draw(1), *acceptance = draw(2), *ngrams = draw(3);
    check_xml(throughput, false);
    cr_assert_eq(count(throughput, "<circle"), 6 + 2); /* points, and marks of the legend */
    cr_assert_eq(count(throughput, "<polyline"), 2);   /* the law's */
    cr_assert(strstr(throughput, "tokens per second") && strstr(throughput, "round trip, ms"));
    check_xml(latency, false);
    cr_assert_eq(count(latency, "<title>round trip: "), 4); /* none at 0 ms */
    cr_assert_eq(count(latency, "<title>cloud: 0.5<"), 6);
    check_xml(acceptance, false);
    cr_assert_eq(count(acceptance, "<title>auto: 3.2<"), 2);
    check_xml(ngrams, false);
    cr_assert_eq(count(ngrams, "<circle"), 5 + 1);
    free(throughput);
    free(latency);
    free(acceptance);
    free(ngrams);
}

Test(bench_report, the_page_holds_everything_and_loads_nothing, .init = start, .fini = end) {
    struct wbuf html = {0};
    bench_report_html(&html, &r);
    const char *s = wbuf_cstr(&html);
    cr_assert(!html.bad && html.n == strlen(s));
    check_xml(s, true);
    cr_assert_eq(count(s, "<svg"), 4);
    cr_assert_eq(count(s, "<script"), 0);
    cr_assert_eq(count(s, "src="), 0);
    cr_assert_eq(count(s, "href="), 0);
    cr_assert_eq(count(s, "url("), 0);
    cr_assert_eq(count(s, "http"), count(s, "xmlns=\"http://www.w3.org/2000/svg\""));
    wbuf_free(&html);
}

Test(bench_report, nothing_gives_no_plots_and_a_page, .init = NULL) {
    struct bench_results none = {0};
    struct wbuf html = {0}, svg = {0};
    for (int i = 0; i < N_CHARTS; i++)
        cr_assert_not(bench_charts[i].draw(&svg, &none, "x"));
    cr_assert_eq(svg.n, 0);
    bench_report_html(&html, &none);
    check_xml(wbuf_cstr(&html), true);
    wbuf_free(&html);
}

Test(bench_report, text_is_escaped) {
    struct wbuf b = {0};
    plot_text(&b, evil);
    cr_assert_str_eq(wbuf_cstr(&b), "a&lt;b&gt;&amp;&quot;&#39;&lt;/title&gt;&lt;script&gt;x\xef\xbf\xbd\xef\xbf\xbd"
                                    "\xef\xbf\xbd\xef\xbf\xbd,\n]]&gt;\xf0\x9f\x99\x82");
    wbuf_clear(&b);
    plot_text(&b,
              "\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82|\xef\xbf\xbe|\xc3\xa4"); /* surrogate, too large, cut, U+FFFE */
    cr_assert_eq(count(wbuf_cstr(&b), "\xef\xbf\xbd"), 3 + 4 + 2 + 3);
    cr_assert(strstr(wbuf_cstr(&b), "|\xc3\xa4"));
    wbuf_free(&b);
}

Test(bench_report, odd_numbers_still_give_a_plot) {
    static const double x[] = {0, 1, NAN, 1e-300, 1e300, 5}, y[] = {0, -1, 3, INFINITY, 1e300, 1e-300};
    const struct plot_line lines[] = {{.name = "odd", .x = x, .y = y, .n = 6, .marks = true, .line = true},
                                      {.name = "one", .x = x + 5, .y = y + 2, .n = 1, .marks = true, .colour = 99},
                                      {.name = "none", .x = x, .y = y, .n = 0, .marks = true}};
    static const double v[] = {NAN, -1, 0, 0};
    static const char *const names[] = {"p", "q"};
    for (int from = 0; from < 3; from++)
        for (int log = 0; log < 2; log++) {
            struct wbuf b = {0};
            const struct plot p = {.title = "t", .x_label = "x", .y_label = "y", .log_y = log};
            plot_lines(&b, &p, lines + from, 3 - from);
            check_xml(wbuf_cstr(&b), false);
            cr_assert_lt(b.n, 100000);
            cr_assert_null(strstr(wbuf_cstr(&b), "nan"));
            cr_assert_null(strstr(wbuf_cstr(&b), "inf"));
            wbuf_free(&b);
        }
    for (int stacked = 0; stacked < 2; stacked++) {
        struct wbuf b = {0};
        const struct plot p = {.title = "t", .x_label = "x"};
        plot_bars(&b, &p, &(struct plot_bars){names, names, 2, 2, v, stacked});
        check_xml(wbuf_cstr(&b), false);
        wbuf_free(&b);
    }
}

Test(bench_report, ticks_are_round) {
    cr_assert_eq(plot_step(80, 6), 20);
    cr_assert_eq(plot_step(6, 6), 1);
    cr_assert_eq(plot_step(1.9, 6), 0.5);
    cr_assert_eq(plot_step(200, 6), 50);
}

Test(bench_report, all_files_are_written, .init = start, .fini = end) {
    static const char *const files[] = {"results.json",   "results.csv", "throughput.svg", "latency.svg",
                                        "acceptance.svg", "ngrams.svg",  "report.html"};
    char dir[] = "/tmp/splitinf-bench-XXXXXX", path[128];
    cr_assert(mkdtemp(dir));
    r.machine.model = "m";
    for (int i = 0; i < r.rows.n; i++)
        r.rows.at[i].category = r.rows.at[i].category == evil ? "x" : r.rows.at[i].category;
    cr_assert_eq(bench_report_prepare(dir, &e), 0, "%s", e.msg);
    cr_assert_eq(bench_report_write(dir, &r, &e), 0, "%s", e.msg);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        cr_assert(stat(path, &st) == 0 && st.st_size > 0, "%s", path);
        cr_assert_eq(unlink(path), 0);
    }
    cr_assert_eq(rmdir(dir), 0, "something else was written");
    cr_assert_eq(bench_report_write(dir, &r, &e), -1); /* it is gone */
    cr_assert(strstr(e.msg, dir), "%s", e.msg);
    e = (struct err){0};
    cr_assert_eq(bench_report_prepare("/dev/null", &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
}
