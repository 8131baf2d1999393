#include "cmd/bench/lists.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bench_list_numbers(const char *option, const char *text, double min, double max, int whole, double out[BENCH_LIST],
                       struct err *e) {
    int n = 0;
    for (const char *s = text;; s++) {
        char *end;
        double v = strtod(s, &end);
        bool seen = false, sound = end != s && isfinite(v) && v >= min && v <= max && (!whole || v == floor(v)) &&
                                   (*end == ',' || *end == '\0');
        for (int i = 0; i < n; i++)
            seen = seen || out[i] == v;
        if (!sound || (!seen && n == BENCH_LIST))
            return err_set(e, ERR_USAGE, "--%s %s: up to %d %snumbers from %g to %g, with commas between them", option,
                           text, BENCH_LIST, whole ? "whole " : "", min, max);
        if (!seen)
            out[n++] = v;
        if (*end == '\0')
            return n;
        s = end;
    }
}

static int find(const char *s, size_t n, const char *const *names, int n_names) {
    for (int i = 0; i < n_names; i++)
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0)
            return i;
    return -1;
}

int bench_list_names(const char *option, const char *text, const char *const *names, int n_names, int out[BENCH_LIST],
                     struct err *e) {
    int n = 0;
    for (const char *s = text;; s++) {
        size_t len = strcspn(s, ",");
        int at = find(s, len, names, n_names);
        bool seen = false;
        for (int i = 0; i < n; i++)
            seen = seen || out[i] == at;
        if (at < 0 || (!seen && n == BENCH_LIST)) {
            char list[200] = "";
            for (int i = 0, used = 0; i < n_names && used < (int)sizeof list; i++)
                used += snprintf(list + used, sizeof list - (size_t)used, "%s%s", i ? ", " : "", names[i]);
            return err_set(e, ERR_USAGE, "--%s %s: one or more of %s, with commas between them", option, text, list);
        }
        if (!seen)
            out[n++] = at;
        s += len;
        if (*s == '\0')
            return n;
    }
}
