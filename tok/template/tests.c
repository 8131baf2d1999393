/* Tests: what stands behind "is". */
#include "tok/template/builtin.h"

static int of_kind(const struct tval *self, unsigned kinds, struct tval *out) {
    *out = tval_bool(kinds >> self->kind & 1);
    return 0;
}

#define KIND_TEST(name, kinds)                                                                                         \
    static int name(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {                \
        (void)r, (void)c;                                                                                              \
        return of_kind(self, kinds, out);                                                                              \
    }
#define K(kind) (1u << (kind))

KIND_TEST(t_defined, ~K(TV_UNDEF))
KIND_TEST(t_undefined, K(TV_UNDEF))
KIND_TEST(t_none, K(TV_NONE))
KIND_TEST(t_string, K(TV_STR))
KIND_TEST(t_mapping, K(TV_DICT))
KIND_TEST(t_number, K(TV_INT) | K(TV_FLOAT) | K(TV_BOOL))
KIND_TEST(t_integer, K(TV_INT))
KIND_TEST(t_float, K(TV_FLOAT))
KIND_TEST(t_boolean, K(TV_BOOL))
KIND_TEST(t_iterable, K(TV_UNDEF) | K(TV_STR) | K(TV_LIST) | K(TV_TUPLE) | K(TV_DICT) | K(TV_VIEW) | K(TV_RANGE) |
                          K(TV_ITER) | K(TV_LOOP))
/* What has a length and items by subscript. */
KIND_TEST(t_sequence, K(TV_UNDEF) | K(TV_STR) | K(TV_LIST) | K(TV_TUPLE) | K(TV_DICT) | K(TV_RANGE))
KIND_TEST(t_callable, K(TV_UNDEF) | K(TV_FUNC) | K(TV_METHOD) | K(TV_MACRO) | K(TV_LOOP))

static int t_true(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    *out = tval_bool(self->kind == TV_BOOL && self->b);
    return 0;
}
static int t_false(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    *out = tval_bool(self->kind == TV_BOOL && !self->b);
    return 0;
}

static int divides(struct trun *r, const struct tval *self, const struct tval *by, int64_t rest, struct tval *out) {
    struct tval m, want = tval_int(rest);
    bool same;
    if (tval_arith(r, '%', self, by, &m) != 0 || tval_eq(r, &m, &want, &same) != 0)
        return -1;
    *out = tval_bool(same);
    return 0;
}
static int t_odd(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval two = tval_int(2);
    (void)c;
    return divides(r, self, &two, 1, out);
}
static int t_even(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval two = tval_int(2);
    (void)c;
    return divides(r, self, &two, 0, out);
}
static int t_divisibleby(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return divides(r, self, c->arg[0], 0, out);
}

static int equal(struct trun *r, const struct tval *a, const struct tval *b, bool want, struct tval *out) {
    bool same;
    if (tval_eq(r, a, b, &same) != 0)
        return -1;
    *out = tval_bool(same == want);
    return 0;
}
static int t_eq(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return equal(r, self, c->arg[0], true, out);
}
static int t_ne(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return equal(r, self, c->arg[0], false, out);
}

static int t_in(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    bool yes;
    if (tval_in(r, self, c->arg[0], &yes) != 0)
        return -1;
    *out = tval_bool(yes);
    return 0;
}

static int t_lt(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return tval_compare(r, TC_LT, self, c->arg[0], out);
}
static int t_le(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return tval_compare(r, TC_LE, self, c->arg[0], out);
}
static int t_gt(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return tval_compare(r, TC_GT, self, c->arg[0], out);
}
static int t_ge(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return tval_compare(r, TC_GE, self, c->arg[0], out);
}

/* True when changing case to how changes nothing and there is something to change: str.isupper(), str.islower(). */
static int cased(struct trun *r, const struct tval *self, bool upper, struct tval *out) {
    struct tstr s;
    bool any = false, all = true;
    uint32_t cp;
    if (tval_to_str(r, self, &s) != 0)
        return -1;
    for (size_t i = 0; i < s.n; i += tstr_next(s.p + i, s.n - i, &cp)) {
        unsigned char b = (unsigned char)s.p[i];
        if (b >= 0x80)
            return trun_fail(r, "the tests 'upper' and 'lower' on other than ASCII are not supported");
        bool letter = (b | 32) >= 'a' && (b | 32) <= 'z';
        any = any || letter;
        all = all && (!letter || (b < 'a') == upper);
    }
    *out = tval_bool(any && all);
    return 0;
}
static int t_upper(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return cased(r, self, true, out);
}
static int t_lower(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return cased(r, self, false, out);
}

/* Is the object the same one? Decidable for what Python has only one of. */
static int t_sameas(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    const struct tval *o = c->arg[0];
    if (self->kind != TV_BOOL && self->kind != TV_NONE && o->kind != TV_BOOL && o->kind != TV_NONE)
        return trun_fail(r, "the test 'sameas' on other than true, false and none is not supported");
    *out = tval_bool(self->kind == o->kind && (self->kind == TV_NONE || self->b == o->b));
    return 0;
}

const struct tbuiltin ttest_table[] = {
    {"defined", t_defined, "", 0},
    {"undefined", t_undefined, "", 0},
    {"none", t_none, "", 0},
    {"string", t_string, "", 0},
    {"mapping", t_mapping, "", 0},
    {"iterable", t_iterable, "", 0},
    {"sequence", t_sequence, "", 0},
    {"number", t_number, "", 0},
    {"integer", t_integer, "", 0},
    {"float", t_float, "", 0},
    {"boolean", t_boolean, "", 0},
    {"callable", t_callable, "", 0},
    {"true", t_true, "", 0},
    {"false", t_false, "", 0},
    {"odd", t_odd, "", 0},
    {"even", t_even, "", 0},
    {"divisibleby", t_divisibleby, "num", 1},
    {"eq", t_eq, "other", 1},
    {"equalto", t_eq, "other", 1},
    {"==", t_eq, "other", 1},
    {"ne", t_ne, "other", 1},
    {"!=", t_ne, "other", 1},
    {"in", t_in, "seq", 1},
    {"lt", t_lt, "other", 1},
    {"lessthan", t_lt, "other", 1},
    {"<", t_lt, "other", 1},
    {"le", t_le, "other", 1},
    {"<=", t_le, "other", 1},
    {"gt", t_gt, "other", 1},
    {"greaterthan", t_gt, "other", 1},
    {">", t_gt, "other", 1},
    {"ge", t_ge, "other", 1},
    {">=", t_ge, "other", 1},
    {"upper", t_upper, "", 0},
    {"lower", t_lower, "", 0},
    {"sameas", t_sameas, "other", 1},
    {0},
};
