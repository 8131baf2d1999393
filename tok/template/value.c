/* Construction, truth, equality, order, membership. */
#include "tok/template/run.h"

#include <math.h>
#include <string.h>

struct tval tval_none(void) {
    return (struct tval){.kind = TV_NONE};
}
struct tval tval_bool(bool b) {
    return (struct tval){.kind = TV_BOOL, .b = b};
}
struct tval tval_int(int64_t i) {
    return (struct tval){.kind = TV_INT, .i = i};
}
struct tval tval_float(double f) {
    return (struct tval){.kind = TV_FLOAT, .f = f};
}
struct tval tval_str(struct tstr s) {
    return (struct tval){.kind = TV_STR, .s = s};
}
struct tval tval_undef(const char *name) {
    return (struct tval){.kind = TV_UNDEF, .undef = {.name = name, .n = name ? strlen(name) : 0}};
}
struct tval tval_missing(const struct tval *obj, struct tstr name) {
    bool secret = tstr_has_user(name); /* a name that came from the conversation is not to be told */
    return (struct tval){
        .kind = TV_UNDEF,
        .undef = {.name = secret ? NULL : name.p, .n = secret ? 0 : name.n, .of = tval_type(obj)},
    };
}

int tval_new_list(struct trun *r, enum tval_kind list_or_tuple, struct tval *out) {
    struct tlist *l = tarena_alloc(r->a, sizeof *l);
    if (!l)
        return trun_memory(r);
    *out = (struct tval){.kind = list_or_tuple, .list = l};
    return 0;
}

int tval_new_dict(struct trun *r, enum tval_kind dict_or_namespace, struct tval *out) {
    struct tdict *d = tarena_alloc(r->a, sizeof *d);
    if (!d)
        return trun_memory(r);
    *out = (struct tval){.kind = dict_or_namespace, .dict = d};
    return 0;
}

int tlist_push(struct trun *r, struct tlist *l, const struct tval *v) {
    if (trun_spend(r, 1) != 0)
        return -1;
    if (tarena_grow(r->a, (void **)&l->v, l->n, &l->cap, sizeof *l->v) != 0)
        return trun_memory(r);
    l->v[l->n++] = *v;
    return 0;
}

int tdict_set(struct trun *r, struct tdict *d, const struct tval *k, const struct tval *v) {
    struct tval *old;
    if (tdict_find(r, d, k, &old) != 0)
        return -1;
    if (old) {
        *old = *v;
        return 0;
    }
    if (tarena_grow(r->a, (void **)&d->v, d->n, &d->cap, sizeof *d->v) != 0)
        return trun_memory(r);
    d->v[d->n++] = (struct tpair){*k, *v};
    return 0;
}

void tlist_reverse(struct tlist *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        struct tval t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

static struct tval *find_str(const struct tdict *d, struct tstr key) {
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].k.kind == TV_STR && tstr_eq(d->v[i].k.s, key))
            return &d->v[i].v;
    return NULL;
}

int tdict_find(struct trun *r, const struct tdict *d, const struct tval *k, struct tval **out) {
    *out = NULL;
    if (!tval_hashable(k))
        return trun_fail(r, "a %s cannot be the key of a dict", tval_type(k));
    if (k->kind == TV_STR) { /* nearly always */
        *out = find_str(d, k->s);
        return trun_spend(r, 1 + d->n / 16);
    }
    for (size_t i = 0; i < d->n; i++) {
        bool same;
        if (tval_eq(r, &d->v[i].k, k, &same) != 0)
            return -1;
        if (same) {
            *out = &d->v[i].v;
            return 0;
        }
    }
    return 0;
}

struct tval *tdict_find_lit(const struct tdict *d, const char *key) {
    return find_str(d, tstr_lit(key));
}

const char *tval_type(const struct tval *v) {
    switch (v->kind) {
    case TV_UNDEF:
        return "Undefined";
    case TV_NONE:
        return "None";
    case TV_BOOL:
        return "bool";
    case TV_INT:
        return "int";
    case TV_FLOAT:
        return "float";
    case TV_STR:
        return "str";
    case TV_LIST:
        return "list";
    case TV_TUPLE:
        return "tuple";
    case TV_DICT:
        return "dict";
    case TV_VIEW:
        return v->view.what == TVIEW_KEYS ? "dict_keys" : v->view.what == TVIEW_VALUES ? "dict_values" : "dict_items";
    case TV_RANGE:
        return "range";
    case TV_ITER:
        return "generator";
    case TV_NAMESPACE:
        return "Namespace";
    case TV_LOOP:
        return "loop";
    case TV_FUNC:
        return "function";
    case TV_METHOD:
        return "method";
    case TV_MACRO:
        return "macro";
    }
    return "value";
}

bool tval_is_number(const struct tval *v) {
    return v->kind == TV_INT || v->kind == TV_FLOAT || v->kind == TV_BOOL;
}

bool tval_as_int(const struct tval *v, int64_t *i) {
    if (v->kind != TV_INT && v->kind != TV_BOOL)
        return false;
    *i = v->kind == TV_BOOL ? v->b : v->i;
    return true;
}

double tval_as_double(const struct tval *v) {
    return v->kind == TV_FLOAT ? v->f : v->kind == TV_BOOL ? v->b : (double)v->i;
}

bool tval_hashable(const struct tval *v) {
    if (v->kind == TV_TUPLE) {
        for (size_t i = 0; i < v->list->n; i++)
            if (v->list->v[i].kind == TV_TUPLE || !tval_hashable(&v->list->v[i]))
                return false; /* tuples in tuples: could be, but nobody needs them as keys */
        return true;
    }
    return v->kind != TV_LIST && v->kind != TV_DICT && v->kind != TV_VIEW;
}

bool tval_truth(const struct tval *v) {
    switch (v->kind) {
    case TV_UNDEF:
    case TV_NONE:
        return false;
    case TV_BOOL:
        return v->b;
    case TV_INT:
        return v->i != 0;
    case TV_FLOAT:
        return v->f != 0;
    case TV_STR:
        return v->s.n != 0;
    case TV_LIST:
    case TV_TUPLE:
        return v->list->n != 0;
    case TV_DICT:
        return v->dict->n != 0;
    case TV_VIEW:
        return v->view.of->n != 0;
    case TV_RANGE:
        return v->range->n != 0;
    default:
        return true;
    }
}

/* -1, 0, 1 as a is below, equal to or above b; 2: not comparable (NaN). */
static int compare_numbers(const struct tval *a, const struct tval *b) {
    int64_t i, j;
    if (tval_as_int(a, &i) && tval_as_int(b, &j))
        return (i > j) - (i < j);
    double x = tval_as_double(a), y = tval_as_double(b);
    if (isnan(x) || isnan(y))
        return 2;
    /* An integer beyond 2^53 against a float: exact, as in Python. */
    const struct tval *whole = a->kind == TV_FLOAT ? b : a;
    if (x == y && tval_as_int(whole, &i) && (i > (INT64_C(1) << 53) || i < -(INT64_C(1) << 53))) {
        double f = a->kind == TV_FLOAT ? x : y;
        int c = f >= 0x1p63 ? -1 : f < -0x1p63 ? 1 : (i > (int64_t)f) - (i < (int64_t)f);
        return whole == a ? c : -c;
    }
    return (x > y) - (x < y);
}

static int equal_items(struct trun *r, const struct tlist *a, const struct tlist *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++)
        if (tval_eq(r, &a->v[i], &b->v[i], out) != 0)
            return -1;
    return 0;
}

static int equal_dicts(struct trun *r, const struct tdict *a, const struct tdict *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        struct tval *v;
        if (tdict_find(r, b, &a->v[i].k, &v) != 0)
            return -1;
        *out = v != NULL;
        if (v && tval_eq(r, &a->v[i].v, v, out) != 0)
            return -1;
    }
    return 0;
}

int tval_eq(struct trun *r, const struct tval *a, const struct tval *b, bool *out) {
    int rc = 0;
    *out = false;
    if (trun_spend(r, 1) != 0)
        return -1;
    if (tval_is_number(a) && tval_is_number(b)) {
        *out = compare_numbers(a, b) == 0;
        return 0;
    }
    if (a->kind != b->kind)
        return 0;
    switch (a->kind) {
    case TV_UNDEF:
    case TV_NONE:
        *out = true;
        return 0;
    case TV_STR:
        *out = tstr_eq(a->s, b->s);
        return a->s.n == b->s.n ? trun_spend_bytes(r, a->s.n) : 0;
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
        if (trun_enter(r) != 0)
            return -1;
        rc = a->kind == TV_DICT ? equal_dicts(r, a->dict, b->dict, out) : equal_items(r, a->list, b->list, out);
        trun_leave(r);
        return rc;
    case TV_RANGE: {
        const struct trange *x = a->range, *y = b->range;
        *out = x->n == y->n && (x->n == 0 || (x->start == y->start && (x->n == 1 || x->step == y->step)));
        return 0;
    }
    case TV_NAMESPACE:
        *out = a->dict == b->dict;
        return 0;
    case TV_ITER:
        *out = a->iter == b->iter;
        return 0;
    case TV_LOOP:
        *out = a->loop == b->loop;
        return 0;
    case TV_FUNC:
        *out = a->func.f == b->func.f;
        return 0;
    default:
        return trun_fail(r, "comparing values of type %s is not supported", tval_type(a));
    }
}

static int less_items(struct trun *r, const struct tlist *a, const struct tlist *b, bool *out) {
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        if (tval_eq(r, &a->v[i], &b->v[i], &same) != 0)
            return -1;
        if (!same)
            return tval_less(r, &a->v[i], &b->v[i], out);
    }
    *out = a->n < b->n;
    return 0;
}

int tval_less(struct trun *r, const struct tval *a, const struct tval *b, bool *out) {
    *out = false;
    if (trun_spend(r, 1) != 0)
        return -1;
    if (tval_is_number(a) && tval_is_number(b)) {
        *out = compare_numbers(a, b) == -1;
        return 0;
    }
    if (a->kind == TV_STR && b->kind == TV_STR) {
        *out = tstr_cmp(a->s, b->s) < 0;
        return trun_spend_bytes(r, a->s.n < b->s.n ? a->s.n : b->s.n);
    }
    if (a->kind == b->kind && (a->kind == TV_LIST || a->kind == TV_TUPLE)) {
        if (trun_enter(r) != 0)
            return -1;
        int rc = less_items(r, a->list, b->list, out);
        trun_leave(r);
        return rc;
    }
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF)
        return trun_undefined(r, a->kind == TV_UNDEF ? a : b);
    return trun_fail(r, "a %s and a %s have no order", tval_type(a), tval_type(b));
}

static int in_range(const struct tval *needle, const struct trange *g) {
    int64_t i;
    if (needle->kind == TV_FLOAT) {
        if (needle->f != floor(needle->f) || fabs(needle->f) > 0x1p62)
            return false;
        i = (int64_t)needle->f;
    } else if (!tval_as_int(needle, &i)) {
        return false;
    }
    if (!g->n)
        return false;
    int64_t last = g->start + g->step * (int64_t)(g->n - 1); /* was in range when the range was made */
    return g->step > 0
               ? i >= g->start && i <= last && ((uint64_t)i - (uint64_t)g->start) % (uint64_t)g->step == 0
               : i <= g->start && i >= last && ((uint64_t)g->start - (uint64_t)i) % (0 - (uint64_t)g->step) == 0;
}

int tval_in(struct trun *r, const struct tval *needle, const struct tval *hay, bool *out) {
    struct tval *found, item;
    struct titer *it;
    int rc;
    *out = false;
    switch (hay->kind) {
    case TV_STR:
        if (needle->kind != TV_STR)
            return trun_fail(r, "'in' on a str needs a str on its left, not %s", tval_type(needle));
        *out = tstr_find(hay->s, needle->s, 0) != SIZE_MAX;
        return trun_spend_bytes(r, hay->s.n);
    case TV_DICT:
    case TV_VIEW:
        if (hay->kind == TV_DICT || hay->view.what == TVIEW_KEYS) {
            if (tdict_find(r, hay->kind == TV_DICT ? hay->dict : hay->view.of, needle, &found) != 0)
                return -1;
            *out = found != NULL;
            return 0;
        }
        break;
    case TV_RANGE:
        *out = in_range(needle, hay->range);
        return 0;
    default:
        break;
    }
    if (titer_of(r, hay, &it) != 0)
        return -1;
    while ((rc = titer_next(r, it, &item)) > 0) {
        if (tval_eq(r, &item, needle, out) != 0)
            return -1;
        if (*out)
            return 0;
    }
    return rc;
}

int tval_len(struct trun *r, const struct tval *v, size_t *n) {
    switch (v->kind) {
    case TV_UNDEF:
        *n = 0;
        return 0;
    case TV_STR:
        *n = tstr_chars(v->s);
        return trun_spend_bytes(r, v->s.n);
    case TV_LIST:
    case TV_TUPLE:
        *n = v->list->n;
        return 0;
    case TV_DICT:
        *n = v->dict->n;
        return 0;
    case TV_VIEW:
        *n = v->view.of->n;
        return 0;
    case TV_RANGE:
        *n = v->range->n;
        return 0;
    default:
        return trun_fail(r, "a %s has no length", tval_type(v));
    }
}

int tval_compare(struct trun *r, enum tcompare op, const struct tval *a, const struct tval *b, struct tval *out) {
    bool yes = false, same = false;
    int rc;
    switch (op) {
    case TC_EQ:
    case TC_NE:
        rc = tval_eq(r, a, b, &yes);
        break;
    case TC_LT:
    case TC_LE:
        rc = tval_less(r, a, b, &yes);
        break;
    case TC_GT:
    case TC_GE:
        rc = tval_less(r, b, a, &yes);
        break;
    default:
        rc = tval_in(r, a, b, &yes);
        break;
    }
    if (rc == 0 && !yes && (op == TC_LE || op == TC_GE))
        rc = tval_eq(r, a, b, &same);
    *out = tval_bool(op == TC_NE || op == TC_NOT_IN ? !yes : yes || same);
    return rc;
}
