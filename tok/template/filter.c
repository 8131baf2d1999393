/* Filters over text, numbers and anything. */
#include "tok/template/builtin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int f_trim(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr s;
    return tval_to_str(r, self, &s) != 0 ? -1 : ttext_strip(r, s, c->arg[0], true, true, out);
}

static int recase(struct trun *r, const struct tval *self, enum tstr_case how, struct tval *out) {
    struct tstr s;
    return tval_to_str(r, self, &s) != 0 ? -1 : ttext_case(r, s, how, out);
}
static int f_upper(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return recase(r, self, TSTR_UPPER, out);
}
static int f_lower(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return recase(r, self, TSTR_LOWER, out);
}
static int f_capitalize(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return recase(r, self, TSTR_CAPITALIZE, out);
}

/* Unlike str.title(): words begin behind white space and ( { [ < -, and nowhere else. */
static int f_title(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tstr s;
    uint32_t cp;
    (void)c;
    if (tval_to_str(r, self, &s) != 0)
        return -1;
    for (size_t i = 0; i < s.n;) {
        size_t end = i, first = 0;
        while (end < s.n) {
            size_t len = tstr_next(s.p + end, s.n - end, &cp);
            if (tstr_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp)))
                break;
            first = first ? first : len;
            end += len;
        }
        if (first) {
            tstr_case(&k, tstr_sub(s, i, first), TSTR_UPPER);
            tstr_case(&k, tstr_sub(s, i + first, end - i - first), TSTR_LOWER);
        }
        i = end;
        if (i < s.n) {
            size_t len = tstr_next(s.p + i, s.n - i, &cp);
            tsink_put(&k, tstr_sub(s, i, len));
            i += len;
        }
    }
    out->kind = TV_STR;
    return trun_text(r, &k, &out->s);
}

static int f_length(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    size_t n;
    (void)c;
    if (tval_len(r, self, &n) != 0)
        return -1;
    *out = tval_int((int64_t)n);
    return 0;
}

static int f_default(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r;
    bool use = self->kind == TV_UNDEF || (tcall_flag(c, 1) && !tval_truth(self));
    *out = !use ? *self : c->arg[0] ? *c->arg[0] : tval_str(tstr_lit(""));
    return 0;
}

static int f_string(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr s;
    (void)c;
    if (tval_to_str(r, self, &s) != 0)
        return -1;
    *out = tval_str(s);
    return 0;
}

static int f_safe(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    if (f_string(r, self, c, out) != 0)
        return -1;
    out->s.safe = true;
    return 0;
}

static int f_escape(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return f_string(r, self, c, out) != 0 ? -1 : tval_escape(r, out->s, &out->s);
}

static int f_tojson(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tjson_style style = {
        .ensure_ascii = tcall_flag(c, 0), .indent = c->arg[1], .separators = c->arg[2], .sort_keys = tcall_flag(c, 3)};
    if (tjson_write(r, &k, self, &style) != 0)
        return -1;
    out->kind = TV_STR;
    return trun_text(r, &k, &out->s);
}

static int f_replace(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr s, from, to;
    int64_t count = -1;
    if (tval_to_str(r, self, &s) != 0 || tval_to_str(r, c->arg[0], &from) != 0 || tval_to_str(r, c->arg[1], &to) != 0)
        return -1;
    if (c->arg[2] && c->arg[2]->kind != TV_NONE && !tval_as_int(c->arg[2], &count))
        return trun_fail(r, "the count of replace must be an int");
    s.safe = to.safe = false; /* str() of Markup is a plain string */
    return ttext_replace(r, s, from, to, count, out);
}

static int f_indent(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tsink k = trun_sink(r), pad = trun_sink(r);
    struct tstr s, width, line;
    int64_t n = 4;
    size_t off = 0;
    if (tcall_str(r, self, "what is indented", &s) != 0)
        return -1;
    bool safe = s.safe;
    if (c->arg[0] && c->arg[0]->kind == TV_STR) {
        width = c->arg[0]->s;
    } else {
        if (c->arg[0] && !tval_as_int(c->arg[0], &n))
            return trun_fail(r, "the width of indent must be an int or str");
        if (n > 1000)
            return trun_fail(r, "the width of indent is too large");
        for (int64_t i = 0; i < n; i++)
            tsink_lit(&pad, " ");
        if (trun_text(r, &pad, &width) != 0)
            return -1;
    }
    bool first = tcall_flag(c, 1), blank = tcall_flag(c, 2);
    /* jinja2 splits s + "\n": so an empty string has one empty line, and a last newline makes an empty one. */
    struct tsink whole = trun_sink(r);
    tsink_put(&whole, s);
    tsink_lit(&whole, "\n");
    if (trun_text(r, &whole, &s) != 0)
        return -1;
    for (size_t i = 0; ttext_line(s, &off, &line); i++) {
        if (i)
            tsink_lit(&k, "\n");
        if (i ? blank || line.n : first)
            tsink_put(&k, width);
        tsink_put(&k, line);
    }
    out->kind = TV_STR;
    int rc = trun_text(r, &k, &out->s);
    out->s.safe = safe;
    return rc;
}

static bool ascii(struct tstr s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return false;
    return true;
}

/* int() and float() of text read any script's digits; we read ASCII and say so. */
static int number_text(struct trun *r, const struct tval *self, struct tstr *s) {
    *s = tstr_strip(self->s, NULL, true, true);
    return ascii(*s) ? 0 : trun_fail(r, "a number in other than ASCII digits is not supported");
}

static int f_int(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval preset = c->arg[0] ? *c->arg[0] : tval_int(0);
    int64_t i;
    double f;
    struct tstr s;
    *out = preset;
    if (self->kind == TV_UNDEF)
        return trun_undefined(r, self);
    if (c->arg[1] && (!tval_as_int(c->arg[1], &i) || i != 10))
        return trun_fail(r, "the filter 'int' in another base than ten is not supported");
    if (tval_as_int(self, &i)) {
        *out = tval_int(i);
        return 0;
    }
    if (self->kind == TV_STR) {
        if (number_text(r, self, &s) != 0)
            return -1;
        if (tval_parse_int(s, &i) == 0) {
            *out = tval_int(i);
            return 0;
        }
        if (tval_parse_double(s, &f) != 0)
            return 0;
    } else if (self->kind == TV_FLOAT) {
        f = self->f;
    } else {
        return 0;
    }
    if (isnan(f) || isinf(f))
        return 0;
    if (fabs(f) >= 0x1p63)
        return trun_fail(r, "a number became too large");
    *out = tval_int((int64_t)f);
    return 0;
}

static int f_float(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr s;
    double f;
    *out = c->arg[0] ? *c->arg[0] : tval_float(0);
    if (self->kind == TV_UNDEF)
        return trun_undefined(r, self);
    if (self->kind == TV_STR) {
        if (number_text(r, self, &s) != 0)
            return -1;
        if (tval_parse_double(s, &f) == 0)
            *out = tval_float(f);
    } else if (tval_is_number(self)) {
        *out = tval_float(tval_as_double(self));
    }
    return 0;
}

static int f_abs(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    if (!tval_is_number(self))
        return self->kind == TV_UNDEF ? trun_undefined(r, self) : trun_fail(r, "abs of a %s", tval_type(self));
    int64_t i;
    *out = tval_float(fabs(tval_as_double(self)));
    if (!tval_as_int(self, &i))
        return 0;
    *out = tval_int(i);
    return i < 0 ? tval_negate(r, out, out) : 0;
}

/* The decimal nearest to f at so many places, ties decided by f's exact value: what printf gives. */
static int round_common(struct trun *r, double f, int64_t places, struct tval *out) {
    char text[400];
    double v;
    int n = snprintf(text, sizeof text, "%.*f", (int)places, f);
    for (int i = 0; i < n && i < (int)sizeof text; i++)
        if (text[i] != '-' && (text[i] < '0' || text[i] > '9'))
            text[i] = '.'; /* whatever the locale's decimal point is */
    if (n < 0 || n >= (int)sizeof text || tval_parse_double(tstr_lit(text), &v) != 0)
        return trun_fail(r, "this number cannot be rounded");
    *out = tval_float(v);
    return 0;
}

static int f_round(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    int64_t places = 0, i;
    struct tstr method = tstr_lit("common");
    if (!tval_is_number(self))
        return self->kind == TV_UNDEF ? trun_undefined(r, self) : trun_fail(r, "round of a %s", tval_type(self));
    if (c->arg[0] && (!tval_as_int(c->arg[0], &places) || places < 0 || places > 15))
        return trun_fail(r, "round takes 0 to 15 places");
    if (c->arg[1] && tcall_str(r, c->arg[1], "the method of round", &method) != 0)
        return -1;
    if (tstr_is(method, "common")) {
        if (tval_as_int(self, &i)) {
            *out = tval_int(i);
            return 0;
        }
        if (isnan(self->f) || isinf(self->f)) {
            *out = *self;
            return 0;
        }
        return round_common(r, self->f, places, out);
    }
    bool up = tstr_is(method, "ceil");
    if (!up && !tstr_is(method, "floor"))
        return trun_fail(r, "the method of round must be common, ceil or floor");
    double ten = 1;
    for (int64_t k = 0; k < places; k++)
        ten *= 10;
    double scaled = tval_as_double(self) * ten;
    if (isnan(scaled) || isinf(scaled) || fabs(scaled) > 0x1p53)
        return trun_fail(r, "this number cannot be rounded");
    double whole = up ? ceil(scaled) : floor(scaled);
    *out = tval_float((whole == 0 ? 0 : whole) / ten); /* Python's ceil gives an int, which has no -0 */
    return 0;
}

static int f_list(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return titer_list(r, self, out);
}

static int f_items(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return titer_items(r, self, out);
}

static int f_reverse(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval back = tval_int(-1);
    (void)c;
    if (self->kind == TV_STR)
        return tval_slice(r, self, NULL, NULL, &back, out);
    return titer_reversed(r, self, out);
}

static int f_map(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_map(r, self, c->raw, out);
}
static int f_select(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_select(r, self, c->raw, false, true, out);
}
static int f_reject(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_select(r, self, c->raw, false, false, out);
}
static int f_selectattr(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_select(r, self, c->raw, true, true, out);
}
static int f_rejectattr(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_select(r, self, c->raw, true, false, out);
}
static int f_unique(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return titer_unique(r, self, tcall_flag(c, 0), c->arg[1], out);
}

const struct tbuiltin tfilter_table[] = {
    {"trim", f_trim, "chars", 0},
    {"upper", f_upper, "", 0},
    {"lower", f_lower, "", 0},
    {"capitalize", f_capitalize, "", 0},
    {"title", f_title, "", 0},
    {"length", f_length, "", 0},
    {"count", f_length, "", 0},
    {"default", f_default, "default_value boolean", 0},
    {"d", f_default, "default_value boolean", 0},
    {"string", f_string, "", 0},
    {"safe", f_safe, "", 0},
    {"escape", f_escape, "", 0},
    {"e", f_escape, "", 0},
    {"tojson", f_tojson, "ensure_ascii indent separators sort_keys", 0},
    {"replace", f_replace, "old new count", 2},
    {"indent", f_indent, "width first blank", 0},
    {"int", f_int, "default base", 0},
    {"float", f_float, "default", 0},
    {"abs", f_abs, "", 0},
    {"round", f_round, "precision method", 0},
    {"list", f_list, "", 0},
    {"items", f_items, "", 0},
    {"reverse", f_reverse, "", 0},
    {"map", f_map, NULL, 0},
    {"select", f_select, NULL, 0},
    {"reject", f_reject, NULL, 0},
    {"selectattr", f_selectattr, NULL, 0},
    {"rejectattr", f_rejectattr, NULL, 0},
    {"unique", f_unique, "case_sensitive attribute", 0},
    {"first", tfilter_first, "", 0},
    {"last", tfilter_last, "", 0},
    {"join", tfilter_join, "d attribute", 0},
    {"sum", tfilter_sum, "attribute start", 0},
    {"min", tfilter_min, "case_sensitive attribute", 0},
    {"max", tfilter_max, "case_sensitive attribute", 0},
    {"sort", tfilter_sort, "reverse case_sensitive attribute", 0},
    {"dictsort", tfilter_dictsort, "case_sensitive by reverse", 0},
    {0},
};
