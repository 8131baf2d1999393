#include "cmd/bench/record.h"

#include "cmd/version.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct bench_row bench_row_of(const char *mode, const char *source, int nodes) {
    return (struct bench_row){.mode = mode,
                              .source = source,
                              .nodes = nodes,
                              .rtt_ms = NAN,
                              .mbit = NAN,
                              .tok_s = NAN,
                              .predicted_tok_s = NAN,
                              .overhead_ms = NAN,
                              .overhead_here_ms = NAN,
                              .bytes_up = NAN,
                              .bytes_down = NAN,
                              .step = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}};
}

double bench_row_tokens_per_round_trip(const struct bench_row *r) {
    return r->steps ? (double)r->tokens / (double)r->steps : NAN;
}

double bench_row_miss_rate(const struct bench_row *r) {
    return r->tokens ? (double)r->steps / (double)r->tokens : NAN;
}

int bench_rows_add(struct bench_rows *v, const struct bench_row *r, struct err *e) {
    if (v->n == v->cap) {
        int cap = v->cap ? 2 * v->cap : 64;
        struct bench_row *at = realloc(v->at, (size_t)cap * sizeof *at);
        if (!at)
            return err_set(e, ERR_MEMORY, "out of memory for results");
        v->at = at;
        v->cap = cap;
    }
    v->at[v->n++] = *r;
    return 0;
}

void bench_rows_free(struct bench_rows *v) {
    free(v->at);
    *v = (struct bench_rows){0};
}

/* ---- columns: the one list that JSON and CSV follow ---- */

enum column_type { TEXT, COUNT, WHOLE, REAL, COMPUTED };
static const struct column {
    const char *name;
    enum column_type type;
    size_t offset;
    double (*compute)(const struct bench_row *r);
} columns[] = {
#define AT(field) offsetof(struct bench_row, field)
    {"mode", TEXT, AT(mode), NULL},
    {"source", TEXT, AT(source), NULL},
    {"nodes", COUNT, AT(nodes), NULL},
    {"rtt_ms", REAL, AT(rtt_ms), NULL},
    {"mbit", REAL, AT(mbit), NULL},
    {"codec", TEXT, AT(codec), NULL},
    {"category", TEXT, AT(category), NULL},
    {"tokens", WHOLE, AT(tokens), NULL},
    {"steps", WHOLE, AT(steps), NULL},
    {"tokens_per_round_trip", COMPUTED, 0, bench_row_tokens_per_round_trip},
    {"tok_s", REAL, AT(tok_s), NULL},
    {"predicted_tok_s", REAL, AT(predicted_tok_s), NULL},
    {"miss_rate", COMPUTED, 0, bench_row_miss_rate},
    {"overhead_ms", REAL, AT(overhead_ms), NULL},
    {"overhead_here_ms", REAL, AT(overhead_here_ms), NULL},
    {"bytes_up", REAL, AT(bytes_up), NULL},
    {"bytes_down", REAL, AT(bytes_down), NULL},
    {"step_ms", REAL, AT(step.all), NULL},
    {"step_rtt_ms", REAL, AT(step.rtt), NULL},
    {"step_cloud_ms", REAL, AT(step.cloud), NULL},
    {"step_front_ms", REAL, AT(step.front), NULL},
    {"step_back_ms", REAL, AT(step.back), NULL},
    {"step_serialise_ms", REAL, AT(step.serialise), NULL},
    {"step_draft_ms", REAL, AT(step.draft), NULL},
    {"step_wait_ms", REAL, AT(step.wait), NULL},
#undef AT
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static const char *text_of(const struct column *c, const struct bench_row *r) {
    const char *s;
    memcpy(&s, (const char *)r + c->offset, sizeof s);
    return s;
}

/* NAN: null. */
static double number_of(const struct column *c, const struct bench_row *r) {
    const void *p = (const char *)r + c->offset;
    int count;
    long long whole;
    double real;
    switch (c->type) {
    case COUNT:
        memcpy(&count, p, sizeof count);
        return count ? count : NAN;
    case WHOLE:
        memcpy(&whole, p, sizeof whole);
        return (double)whole;
    case REAL:
        memcpy(&real, p, sizeof real);
        return real;
    case COMPUTED:
        return c->compute(r);
    case TEXT:
        break;
    }
    return NAN;
}

/* ---- JSON ---- */

bool bench_json_number(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, double v) {
    if (!isfinite(v))
        return yyjson_mut_obj_add_null(d, o, key);
    if (v == floor(v) && fabs(v) < 1e15)
        return yyjson_mut_obj_add_sint(d, o, key, (int64_t)v);
    return yyjson_mut_obj_add_real(d, o, key, v);
}

static bool add_text(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const char *text) {
    return text ? yyjson_mut_obj_add_strcpy(d, o, key, text) : yyjson_mut_obj_add_null(d, o, key);
}

static bool add_row(yyjson_mut_doc *d, yyjson_mut_val *rows, const struct bench_row *r) {
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, rows);
    bool ok = o != NULL;
    for (int i = 0; i < N_COLUMNS && ok; i++)
        ok = columns[i].type == TEXT ? add_text(d, o, columns[i].name, text_of(&columns[i], r))
                                     : bench_json_number(d, o, columns[i].name, number_of(&columns[i], r));
    return ok;
}

/* The processor's name for people; not every kernel tells it. */
static void processor_name(char *out, size_t cap) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    out[0] = '\0';
    while (f && !out[0] && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon && colon[1]) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%s", colon + 2);
        }
    }
    if (f)
        fclose(f);
}

static bool add_machine(yyjson_mut_doc *d, yyjson_mut_val *m, const struct bench_machine *b) {
    struct utsname u = {0};
    char name[128];
    const struct {
        const char *key;
        int n;
    } counts[] = {
        {"threads", b->threads}, {"layers", b->layers}, {"hidden", b->hidden}, {"front", b->front}, {"back", b->back}};
    uname(&u);
    processor_name(name, sizeof name);
    bool ok = add_text(d, m, "system", u.sysname) && add_text(d, m, "arch", u.machine) &&
              add_text(d, m, "processor", name[0] ? name : NULL) &&
              yyjson_mut_obj_add_sint(d, m, "processors", sysconf(_SC_NPROCESSORS_ONLN)) &&
              add_text(d, m, "version", version_string()) && add_text(d, m, "backend", b->backend) &&
              add_text(d, m, "model", b->model) && add_text(d, m, "cloud", b->cloud);
    for (size_t i = 0; i < sizeof counts / sizeof *counts && ok; i++)
        ok = bench_json_number(d, m, counts[i].key, counts[i].n ? counts[i].n : NAN);
    return ok;
}

bool bench_json_rows(yyjson_mut_doc *d, yyjson_mut_val *o, const char *key, const struct bench_rows *rows) {
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(d, o, key);
    bool ok = list != NULL;
    for (int i = 0; i < rows->n && ok; i++)
        ok = add_row(d, list, &rows->at[i]);
    return ok;
}

yyjson_mut_val *bench_json(yyjson_mut_doc *d, const struct bench_machine *m, const struct bench_rows *rows) {
    yyjson_mut_val *o = yyjson_mut_obj(d);
    yyjson_mut_val *machine = yyjson_mut_obj_add_obj(d, o, "machine");
    bool ok = machine && add_machine(d, machine, m);
    ok = ok && bench_json_rows(d, o, "rows", rows);
    yyjson_mut_doc_set_root(d, o);
    return ok ? o : NULL;
}

/* ---- CSV ---- */

static void csv_text(struct wbuf *out, const char *s) {
    if (!s)
        return;
    if (!s[strcspn(s, ",\"\r\n")]) {
        wbuf_str(out, s);
        return;
    }
    wbuf_str(out, "\"");
    for (; *s; s++)
        wbuf_fmt(out, *s == '"' ? "\"\"" : "%c", *s);
    wbuf_str(out, "\"");
}

void bench_csv(struct wbuf *out, const struct bench_rows *rows) {
    for (int i = 0; i < N_COLUMNS; i++)
        wbuf_fmt(out, "%s%s", i ? "," : "", columns[i].name);
    wbuf_str(out, "\r\n");
    for (int k = 0; k < rows->n; k++) {
        for (int i = 0; i < N_COLUMNS; i++) {
            double v = columns[i].type == TEXT ? NAN : number_of(&columns[i], &rows->at[k]);
            if (i)
                wbuf_str(out, ",");
            if (columns[i].type == TEXT)
                csv_text(out, text_of(&columns[i], &rows->at[k]));
            else if (isfinite(v))
                wbuf_fmt(out, "%.15g", v);
        }
        wbuf_str(out, "\r\n");
    }
}
