/* Numbers: arithmetic, and their text as Python reads and prints it. Never through libc's locale. */
#include "tok/template/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

/* The shortest digits that read back as f: "12345", and the power of ten of the first one. */
static int shortest(double f, char digits[32], int *exponent) {
    yyjson_mut_val v = {0};
    yyjson_mut_set_real(&v, fabs(f));
    size_t n = 0, n_digits = 0;
    char *text = yyjson_mut_val_write(&v, 0, &n);
    if (!text)
        return -1;
    int point = -1, ten = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '.')
            point = (int)n_digits;
        else if (text[i] == 'e' || text[i] == 'E') {
            ten = (int)strtol(text + i + 1, NULL, 10);
            break;
        } else if (n_digits < 31)
            digits[n_digits++] = text[i];
    }
    free(text);
    if (point < 0)
        point = (int)n_digits;
    size_t zeros = 0;
    while (zeros + 1 < n_digits && digits[zeros] == '0')
        zeros++;
    memmove(digits, digits + zeros, n_digits - zeros);
    n_digits -= zeros;
    while (n_digits > 1 && digits[n_digits - 1] == '0')
        n_digits--;
    digits[n_digits] = '\0';
    *exponent = point - 1 - (int)zeros + ten;
    return 0;
}

void tval_print_double(struct tsink *k, double f) {
    char digits[32], exp_text[16];
    int e;
    if (signbit(f) && !isnan(f))
        tsink_lit(k, "-");
    if (isnan(f) || isinf(f)) {
        tsink_lit(k, isnan(f) ? "nan" : "inf");
        return;
    }
    if (f == 0) {
        tsink_lit(k, "0.0");
        return;
    }
    if (shortest(f, digits, &e) != 0) {
        k->a->bad = true;
        return;
    }
    size_t n = strlen(digits);
    if (e < -4 || e >= 16) {
        tsink_bytes(k, digits, 1, false);
        if (n > 1) {
            tsink_lit(k, ".");
            tsink_bytes(k, digits + 1, n - 1, false);
        }
        snprintf(exp_text, sizeof exp_text, "e%c%02d", e < 0 ? '-' : '+', e < 0 ? -e : e);
        tsink_lit(k, exp_text);
        return;
    }
    if (e < 0) {
        tsink_lit(k, "0.");
        for (int i = -1; i > e; i--)
            tsink_lit(k, "0");
        tsink_bytes(k, digits, n, false);
        return;
    }
    for (int i = 0; i <= e; i++)
        tsink_bytes(k, (size_t)i < n ? digits + i : "0", 1, false);
    tsink_lit(k, ".");
    if (n > (size_t)e + 1)
        tsink_bytes(k, digits + e + 1, n - (size_t)e - 1, false);
    else
        tsink_lit(k, "0");
}

/* One digit group with single underscores inside, onto text; how many source bytes it took (0: none). */
static size_t digit_group(const char *p, size_t n, char *text, size_t *len, size_t cap) {
    size_t i = 0;
    for (; i < n; i++) {
        bool digit = p[i] >= '0' && p[i] <= '9';
        if (!digit && !(p[i] == '_' && i && i + 1 < n && p[i - 1] != '_' && p[i + 1] >= '0' && p[i + 1] <= '9'))
            break;
        if (digit && *len < cap)
            text[(*len)++] = p[i];
    }
    return i;
}

int tval_parse_int(struct tstr s, int64_t *out) {
    s = tstr_strip(s, NULL, true, true);
    bool minus = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = tstr_sub(s, 1, s.n - 1);
    char text[64];
    size_t len = 0;
    size_t used = digit_group(s.p, s.n, text, &len, sizeof text);
    if (s.n == 0 || used != s.n)
        return -1;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        uint64_t d = (uint64_t)(text[i] - '0');
        if (v > (UINT64_MAX - d) / 10)
            return -1;
        v = v * 10 + d;
    }
    if (len == sizeof text || v > (uint64_t)INT64_MAX)
        return -1;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return 0;
}

static bool word_is(struct tstr s, const char *lower) {
    size_t n = strlen(lower);
    if (s.n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((s.p[i] | 32) != lower[i])
            return false;
    return true;
}

int tval_parse_double(struct tstr s, double *out) {
    enum { CAP = 400 };
    char text[CAP + 32];
    size_t len = 0, whole, i = 0;
    s = tstr_strip(s, NULL, true, true);
    bool minus = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = tstr_sub(s, 1, s.n - 1);
    if (word_is(s, "inf") || word_is(s, "infinity") || word_is(s, "nan")) {
        *out = (s.p[0] | 32) == 'n' ? NAN : minus ? -INFINITY : INFINITY;
        return 0;
    }
    /* To JSON's grammar: "01_0.": 10.0 */
    i = whole = digit_group(s.p, s.n, text, &len, CAP);
    size_t zeros = 0;
    while (zeros + 1 < len && text[zeros] == '0')
        zeros++;
    memmove(text, text + zeros, len - zeros);
    len -= zeros;
    if (!whole)
        text[len++] = '0';
    if (i < s.n && s.p[i] == '.') {
        text[len++] = '.';
        size_t frac = digit_group(s.p + i + 1, s.n - i - 1, text, &len, CAP);
        if (!frac && !whole)
            return -1;
        if (!frac)
            text[len++] = '0';
        i += 1 + frac;
    } else if (!whole) {
        return -1;
    }
    if (i < s.n && (s.p[i] | 32) == 'e') {
        text[len++] = 'e';
        i++;
        if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
            text[len++] = s.p[i++];
        size_t exp = digit_group(s.p + i, s.n - i, text, &len, CAP + 16);
        if (!exp)
            return -1;
        i += exp;
    }
    if (i != s.n || len >= CAP)
        return -1;
    text[len] = '\0';
    yyjson_val v;
    yyjson_read_flag flags = YYJSON_READ_ALLOW_INF_AND_NAN;
    const char *end = yyjson_read_number(text, &v, flags, NULL, NULL);
    if (!end || *end)
        return -1;
    double f = yyjson_get_num(&v);
    *out = minus ? -f : f;
    return 0;
}

static int overflow(struct trun *r) {
    return trun_fail(r, "a number became too large");
}

static int need_numbers(struct trun *r, const char *op, const struct tval *a, const struct tval *b) {
    if (tval_is_number(a) && tval_is_number(b))
        return 0;
    if (a->kind == TV_UNDEF || (b->kind == TV_UNDEF && a->kind != TV_STR))
        return trun_undefined(r, a->kind == TV_UNDEF ? a : b);
    return trun_fail(r, "the operator %s on %s and %s is not supported", op, tval_type(a), tval_type(b));
}

static int join_strings(struct trun *r, const struct tval *a, const struct tval *b, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tstr x = a->s, y = b->s;
    bool safe = x.safe || y.safe;
    if (safe && (tval_escape(r, x, &x) != 0 || tval_escape(r, y, &y) != 0))
        return -1;
    tsink_put(&k, x);
    tsink_put(&k, y);
    out->kind = TV_STR;
    int rc = trun_text(r, &k, &out->s);
    out->s.safe = safe;
    return rc;
}

static int join_lists(struct trun *r, const struct tlist *a, const struct tlist *b, struct tval *out,
                      enum tval_kind kind) {
    struct tval v;
    if (tval_new_list(r, kind, &v) != 0)
        return -1;
    for (size_t i = 0; i < a->n; i++)
        if (tlist_push(r, v.list, &a->v[i]) != 0)
            return -1;
    for (size_t i = 0; i < b->n; i++)
        if (tlist_push(r, v.list, &b->v[i]) != 0)
            return -1;
    *out = v;
    return 0;
}

int tval_add(struct trun *r, const struct tval *a, const struct tval *b, struct tval *out) {
    int64_t i, j;
    if (a->kind == TV_STR && b->kind == TV_STR)
        return join_strings(r, a, b, out);
    if (a->kind == b->kind && (a->kind == TV_LIST || a->kind == TV_TUPLE))
        return join_lists(r, a->list, b->list, out, a->kind);
    if (need_numbers(r, "+", a, b) != 0)
        return -1;
    if (tval_as_int(a, &i) && tval_as_int(b, &j)) {
        int64_t sum;
        if (__builtin_add_overflow(i, j, &sum))
            return overflow(r);
        *out = tval_int(sum);
        return 0;
    }
    *out = tval_float(tval_as_double(a) + tval_as_double(b));
    return 0;
}

/* "ab" * 3, [x] * 3 */
static int repeat(struct trun *r, const struct tval *v, int64_t times, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tval l;
    if (times < 0)
        times = 0;
    if (v->kind == TV_STR) {
        if (v->s.n && (uint64_t)times > TRUN_MAX_OUTPUT / v->s.n)
            return trun_fail(r, "a repeated string is too long");
        for (int64_t i = 0; v->s.n && i < times; i++)
            tsink_put(&k, v->s);
        struct tval whole = {.kind = TV_STR};
        int rc = trun_text(r, &k, &whole.s);
        whole.s.safe = v->s.safe;
        *out = whole;
        return rc;
    }
    if (tval_new_list(r, v->kind, &l) != 0)
        return -1;
    for (int64_t i = 0; v->list->n && i < times; i++)
        for (size_t j = 0; j < v->list->n; j++)
            if (tlist_push(r, l.list, &v->list->v[j]) != 0)
                return -1;
    *out = l;
    return 0;
}

static bool repeatable(const struct tval *v) {
    return v->kind == TV_STR || v->kind == TV_LIST || v->kind == TV_TUPLE;
}

static int int_power(struct trun *r, int64_t base, int64_t exp, struct tval *out) {
    int64_t v = 1;
    if (base >= -1 && base <= 1)
        v = exp == 0 ? 1 : base == -1 && exp % 2 == 0 ? 1 : base;
    else
        for (int64_t i = 0; i < exp; i++) /* passes 2^63 long before 64 rounds */
            if (__builtin_mul_overflow(v, base, &v))
                return overflow(r);
    *out = tval_int(v);
    return 0;
}

static int int_arith(struct trun *r, char op, int64_t i, int64_t j, struct tval *out) {
    int64_t v = 0;
    if (op == '-' ? __builtin_sub_overflow(i, j, &v) : op == '*' && __builtin_mul_overflow(i, j, &v))
        return overflow(r);
    if (op == 'f' || op == '%') {
        if (i == INT64_MIN && j == -1)
            return overflow(r);
        int64_t q = i / j, rem = i % j;
        if (rem && (rem < 0) != (j < 0)) { /* towards minus infinity */
            q--;
            rem += j;
        }
        v = op == 'f' ? q : rem;
    }
    *out = tval_int(v);
    return 0;
}

static double float_arith(char op, double x, double y) {
    switch (op) {
    case '-':
        return x - y;
    case '*':
        return x * y;
    case '/':
        return x / y;
    default:
        break;
    }
    double m = fmod(x, y);
    if (m != 0 && (m < 0) != (y < 0))
        m += y;
    else if (m == 0)
        m = copysign(0, y);
    if (op == '%')
        return m;
    double q = (x - m) / y, whole = floor(q);
    return q == 0 ? copysign(0, x / y) : q - whole > 0.5 ? whole + 1 : whole;
}

int tval_arith(struct trun *r, char op, const struct tval *a, const struct tval *b, struct tval *out) {
    const char *name = op == '-' ? "-" : op == '*' ? "*" : op == '/' ? "/" : op == 'f' ? "//" : op == '%' ? "%" : "**";
    int64_t i, j;
    if (op == '*' && repeatable(a) && tval_as_int(b, &j))
        return repeat(r, a, j, out);
    if (op == '*' && repeatable(b) && tval_as_int(a, &i))
        return repeat(r, b, i, out);
    if (need_numbers(r, name, a, b) != 0)
        return -1;
    bool whole = tval_as_int(a, &i) && tval_as_int(b, &j);
    double x = tval_as_double(a), y = tval_as_double(b);
    if ((op == '/' || op == 'f' || op == '%') && y == 0)
        return trun_fail(r, "division by zero");
    if (op == 'p') {
        if (whole && j >= 0)
            return int_power(r, i, j, out);
        if (x == 0 && y < 0)
            return trun_fail(r, "division by zero");
        double f = pow(x, y);
        if ((isnan(f) && !isnan(x) && !isnan(y)) || (isinf(f) && isfinite(x) && isfinite(y)))
            return overflow(r);
        *out = tval_float(f);
        return 0;
    }
    if (whole && op != '/')
        return int_arith(r, op, i, j, out);
    const int64_t exact = INT64_C(1) << 53;
    if (whole && (i > exact || i < -exact || j > exact || j < -exact))
        return overflow(r); /* Python would round this quotient once; we would three times */
    *out = tval_float(float_arith(op, x, y));
    return 0;
}

int tval_negate(struct trun *r, const struct tval *a, struct tval *out) {
    int64_t i;
    if (tval_as_int(a, &i)) {
        if (i == INT64_MIN)
            return overflow(r);
        *out = tval_int(-i);
        return 0;
    }
    if (a->kind != TV_FLOAT)
        return trun_fail(r, "a %s cannot be negated", tval_type(a));
    *out = tval_float(-a->f);
    return 0;
}
