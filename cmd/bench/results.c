#include "cmd/bench/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double bench_projected_rtt[BENCH_PROJECTED] = {5, 10, 20, 40, 80, 120, 160, 200};

double bench_fit_tok_s(const struct bench_fit *f, double rtt_ms) {
    double ms = law_fit_step_ms(&f->fit, rtt_ms);
    return ms > 0 ? 1e3 * law_point_at(f->at, f->n, f->adapts, rtt_ms).tokens_per_step / ms : NAN;
}

double bench_fit_law_tok_s(const struct bench_fit *f, double rtt_ms) {
    const struct law_point p = law_point_at(f->at, f->n, f->adapts, rtt_ms);
    return law_tok_s(p.miss_rate, rtt_ms + p.miss_ms, p.hit_ms);
}

void bench_results_free(struct bench_results *r) {
    bench_rows_free(&r->rows);
    bench_rows_free(&r->drafts);
}

double bench_results_sequential(const struct bench_results *r, const struct bench_row *row) {
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *s = &r->rows.at[i];
        bool same_mbit = s->mbit == row->mbit || (isnan(s->mbit) && isnan(row->mbit));
        if (strcmp(s->mode, "sequential") == 0 && s->category == row->category && s->rtt_ms == row->rtt_ms &&
            same_mbit && s->codec && row->codec && strcmp(s->codec, row->codec) == 0)
            return s->tok_s;
    }
    return NAN;
}

/* ---- JSON ---- */

static bool add_fit(yyjson_mut_doc *d, yyjson_mut_val *list, const struct bench_fit *f) {
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, list);
    bool ok = o && yyjson_mut_obj_add_str(d, o, "mode", f->mode) &&
              bench_json_number(d, o, "nodes", f->nodes ? f->nodes : NAN) &&
              yyjson_mut_obj_add_str(d, o, "codec", f->codec) && bench_json_number(d, o, "mbit", f->mbit) &&
              bench_json_number(d, o, "fixed_ms", f->fit.fixed_ms) && bench_json_number(d, o, "at_ms", f->fit.at_ms) &&
              bench_json_number(d, o, "growth_ms", f->fit.growth_ms) &&
              bench_json_number(d, o, "cross_validation_error", f->cv_error);
    yyjson_mut_val *points = ok ? yyjson_mut_obj_add_arr(d, o, "points") : NULL;
    ok = points != NULL;
    for (int i = 0; i < f->n && ok; i++) {
        yyjson_mut_val *p = yyjson_mut_arr_add_obj(d, points);
        ok = p && bench_json_number(d, p, "rtt_ms", f->at[i].rtt_ms) &&
             bench_json_number(d, p, "step_ms", f->at[i].step_ms) &&
             bench_json_number(d, p, "tokens_per_step", f->at[i].tokens_per_step) &&
             bench_json_number(d, p, "miss_rate", f->at[i].miss_rate) &&
             bench_json_number(d, p, "miss_ms", f->at[i].miss_ms) &&
             bench_json_number(d, p, "hit_ms", f->at[i].hit_ms) &&
             bench_json_number(d, p, "left_out_error", f->error[i]);
    }
    yyjson_mut_val *projected = ok ? yyjson_mut_obj_add_arr(d, o, "projection") : NULL;
    ok = projected != NULL;
    for (int i = 0; i < BENCH_PROJECTED && ok; i++) {
        yyjson_mut_val *p = yyjson_mut_arr_add_obj(d, projected);
        ok = p && bench_json_number(d, p, "rtt_ms", bench_projected_rtt[i]) &&
             bench_json_number(d, p, "tok_s", bench_fit_tok_s(f, bench_projected_rtt[i])) &&
             bench_json_number(d, p, "law_tok_s", bench_fit_law_tok_s(f, bench_projected_rtt[i]));
    }
    return ok;
}

char *bench_results_json(const struct bench_results *r, struct err *e) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = d ? bench_json(d, &r->machine, &r->rows) : NULL;
    bool ok = o != NULL;
    if (ok && r->n_fits) {
        yyjson_mut_val *fits = yyjson_mut_obj_add_arr(d, o, "fits");
        ok = fits != NULL;
        for (int i = 0; i < r->n_fits && ok; i++)
            ok = add_fit(d, fits, &r->fits[i]);
    }
    if (ok && r->drafts.n)
        ok = bench_json_rows(d, o, "drafts", &r->drafts);
    char *text = ok ? yyjson_mut_write(d, YYJSON_WRITE_NEWLINE_AT_END, NULL) : NULL;
    yyjson_mut_doc_free(d);
    if (!text)
        err_set(e, ERR_MEMORY, "results that cannot be written as JSON: out of memory, or a name that is not UTF-8");
    return text;
}

/* ---- the table ---- */

/* A number of so many digits behind the point, or a dash. */
static void cell(FILE *out, int width, int digits, double v) {
    if (isfinite(v))
        fprintf(out, " %*.*f", width, digits, v);
    else
        fprintf(out, " %*s", width, "-");
}

static void print_network(const struct bench_results *r, FILE *out) {
    fprintf(out, "%-14s %5s %-5s %6s %6s  %-14s %6s %6s %6s %8s %6s %8s %8s %6s\n", "mode", "nodes", "codec", "rtt ms",
            "Mbit/s", "category", "tokens", "steps", "tok/rt", "tok/s", "times", "law", "own ms", "here");
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        fprintf(out, "%-14s", x->mode);
        cell(out, 5, 0, x->nodes ? x->nodes : NAN);
        fprintf(out, " %-5s", x->codec);
        cell(out, 6, 0, x->rtt_ms);
        cell(out, 6, 0, x->mbit);
        fprintf(out, "  %-14s %6lld %6lld", x->category ? x->category : "all", x->tokens, x->steps);
        cell(out, 6, 2, bench_row_tokens_per_round_trip(x));
        cell(out, 8, 2, x->tok_s);
        cell(out, 6, 2, x->tok_s / bench_results_sequential(r, x));
        cell(out, 8, 2, x->predicted_tok_s);
        cell(out, 8, 2, x->overhead_ms);
        cell(out, 6, 2, x->overhead_here_ms);
        fprintf(out, "\n");
    }
    for (int i = 0; i < r->n_fits; i++) {
        const struct bench_fit *f = &r->fits[i];
        fprintf(out, "%s%s, %s: a step takes the round trip and %.2f ms", i ? "" : "\n", f->mode, f->codec,
                f->fit.fixed_ms);
        if (f->fit.growth_ms != 0)
            fprintf(out, " at %.0f ms, %.2f more for each doubling", f->fit.at_ms, f->fit.growth_ms);
        if (isfinite(f->cv_error))
            fprintf(out, "; predicted from the other round trips within %.1f%%", 100 * f->cv_error);
        fprintf(out, "\n");
    }
}

/* Without a network there is less to say. */
static void print_drafts(const struct bench_results *r, FILE *out) {
    fprintf(out, "%-12s %-14s %5s %9s %9s %12s %10s\n", "mode", "source", "nodes", "tokens", "steps", "tokens/trip",
            "ms/token");
    for (int i = 0; i < r->rows.n; i++) {
        const struct bench_row *x = &r->rows.at[i];
        fprintf(out, "%-12s %-14s %5d %9lld %9lld", x->mode, x->source, x->nodes, x->tokens, x->steps);
        cell(out, 12, 3, bench_row_tokens_per_round_trip(x));
        cell(out, 10, 4, x->overhead_ms * bench_row_miss_rate(x));
        fprintf(out, "\n");
    }
}

int bench_results_print(const struct bench_results *r, bool json, struct err *e) {
    if (!json) {
        if (r->machine.model)
            print_network(r, stdout);
        else
            print_drafts(r, stdout);
        return 0;
    }
    char *text = bench_results_json(r, e);
    if (!text)
        return -1;
    fputs(text, stdout);
    free(text);
    return 0;
}
