/* Filters, tests, functions and methods by name, and how their arguments are bound. */
#include "tok/template/builtin.h"

static const struct tbuiltin *find(const struct tbuiltin *table, struct tstr name) {
    for (const struct tbuiltin *f = table; f->name; f++)
        if (tstr_is(name, f->name))
            return f;
    return NULL;
}

const struct tbuiltin *tfilter_find(struct tstr name) {
    return find(tfilter_table, name);
}

const struct tbuiltin *ttest_find(struct tstr name) {
    return find(ttest_table, name);
}

const struct tbuiltin *tfunc_find(struct tstr name) {
    return find(tfunc_table, name);
}

const struct tbuiltin *tmethod_find(enum tval_kind kind, struct tstr name) {
    switch (kind) {
    case TV_STR:
        return find(tmethod_str_table, name);
    case TV_DICT:
        return find(tmethod_dict_table, name);
    case TV_LOOP:
        return find(tmethod_loop_table, name);
    default:
        return NULL;
    }
}

/* Python 3's public attributes that are not in the tables. */
static const char no_str[] =
    "casefold center encode expandtabs format format_map index isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper ljust maketrans partition "
    "rindex rjust rpartition swapcase translate zfill";
static const char no_dict[] = "clear fromkeys pop popitem setdefault update";
static const char no_list[] = "append clear copy count extend index insert pop remove reverse sort";
static const char no_number[] =
    "as_integer_ratio bit_count bit_length conjugate denominator from_bytes fromhex hex imag "
    "is_integer numerator real to_bytes";
static const char no_loop[] = "changed";
static const char no_view[] = "isdisjoint mapping";
static const char no_range[] = "count index start step stop";
static const char no_iter[] = "close gi_code gi_frame gi_running gi_suspended gi_yieldfrom send throw";
static const char no_macro[] = "arguments caller catch_kwargs catch_varargs explicit_caller name";

bool tmethod_refused(enum tval_kind kind, struct tstr name) {
    switch (kind) {
    case TV_STR:
        return tstr_word(name, no_str) >= 0;
    case TV_DICT:
        return tstr_word(name, no_dict) >= 0;
    case TV_LIST:
    case TV_TUPLE:
        return tstr_word(name, no_list) >= 0;
    case TV_INT:
    case TV_BOOL:
    case TV_FLOAT:
        return tstr_word(name, no_number) >= 0;
    case TV_VIEW:
        return tstr_word(name, no_view) >= 0;
    case TV_RANGE:
        return tstr_word(name, no_range) >= 0;
    case TV_ITER:
        return tstr_word(name, no_iter) >= 0;
    case TV_LOOP:
        return tstr_word(name, no_loop) >= 0;
    case TV_MACRO:
        return tstr_word(name, no_macro) >= 0;
    default:
        return false;
    }
}

bool tmethod_refused_anywhere(struct tstr name) {
    bool refused = tstr_word(name, no_str) >= 0 || tstr_word(name, no_dict) >= 0 || tstr_word(name, no_list) >= 0 ||
                   tstr_word(name, no_number) >= 0 || tstr_word(name, no_loop) >= 0;
    return refused && !tmethod_find(TV_STR, name) && !tmethod_find(TV_DICT, name) && !tmethod_find(TV_LOOP, name);
}

static int count(const char *params) {
    int n = *params != '\0';
    for (; *params; params++)
        n += *params == ' ';
    return n;
}

int tbuiltin_call(struct trun *r, const struct tbuiltin *f, const struct tval *self, const struct targs *args,
                  struct tval *out) {
    struct tcall c = {.raw = args};
    if (trun_spend(r, 1) != 0)
        return -1;
    if (!f->params)
        return f->fn(r, self, &c, out);
    int n = count(f->params);
    if (args->n_pos > (size_t)n)
        return trun_fail(r, "'%s' takes at most %d arguments", f->name, n);
    for (size_t i = 0; i < args->n_pos; i++)
        c.arg[i] = &args->pos[i];
    for (size_t i = 0; i < args->n_kw; i++) {
        int k = tstr_word(args->kw[i].name, f->params);
        if (k < 0 || c.arg[k])
            return trun_fail(r, "'%s' got an argument that it does not take, or the same one twice", f->name);
        c.arg[k] = &args->kw[i].v;
    }
    for (int i = 0; i < f->n_required; i++)
        if (!c.arg[i])
            return trun_fail(r, "'%s' needs %d arguments", f->name, f->n_required);
    return f->fn(r, self, &c, out);
}

bool tcall_flag(const struct tcall *c, int i) {
    return c->arg[i] && tval_truth(c->arg[i]);
}

int tcall_str(struct trun *r, const struct tval *v, const char *what, struct tstr *out) {
    if (v->kind == TV_UNDEF)
        return trun_undefined(r, v);
    if (v->kind != TV_STR)
        return trun_fail(r, "%s must be a str, not %s", what, tval_type(v));
    *out = v->s;
    return 0;
}
