/* tok/template/value.h - values of the template interpreter: their kinds, containers, truth, equality and order. What
 * else Python does with them is in ops.h.
 *
 * Values are small and copied; what they point at lives in the run's arena and never changes, save namespaces and
 * one-shot iterators. Anything that Python would answer with an exception is an error here (see run.h). */
#ifndef TOK_TEMPLATE_VALUE_H
#define TOK_TEMPLATE_VALUE_H

#include "tok/template/str.h"

struct trun;
struct tnode;
struct tscope;
struct tbuiltin;
struct titer;

enum tval_kind {
    TV_UNDEF, /* Jinja's default Undefined */
    TV_NONE,
    TV_BOOL,
    TV_INT,
    TV_FLOAT,
    TV_STR,
    TV_LIST,
    TV_TUPLE,
    TV_DICT,
    TV_VIEW,      /* dict.keys(), values(), items() */
    TV_RANGE,     /* range() */
    TV_ITER,      /* what map, select, reverse, items ... give: may be walked once */
    TV_NAMESPACE, /* namespace(): the one thing that a template can change */
    TV_LOOP,
    TV_FUNC,   /* a global function */
    TV_METHOD, /* a method bound to its object */
    TV_MACRO,
};

enum tview { TVIEW_KEYS, TVIEW_VALUES, TVIEW_ITEMS };

struct tval {
    enum tval_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        struct tstr s;
        struct tlist *list; /* list and tuple */
        struct tdict *dict; /* dict and namespace */
        struct {
            struct tdict *of;
            enum tview what;
        } view;
        struct trange *range;
        struct titer *iter;
        struct tloop *loop;
        struct {
            const struct tbuiltin *f;
            struct tval *self; /* NULL for a function */
        } func;
        struct tmacro *macro;
        struct {
            const char *name; /* n bytes: what was asked for; NULL: not to be told */
            size_t n;
            const char *of; /* the type that has no such attribute; NULL: a variable */
        } undef;
    };
};

struct tlist {
    struct tval *v;
    size_t n, cap;
};
struct tpair {
    struct tval k, v;
};
struct tdict { /* in order of insertion; small, so searched from the front */
    struct tpair *v;
    size_t n, cap;
};
struct trange {
    int64_t start, stop, step;
    size_t n;
};
struct tmacro {
    const struct tnode *node;
    struct tscope *scope; /* where it was defined */
};
struct tloop {
    struct titer *it;
    size_t index0;
    struct tval prev, current;
    struct tlist ahead; /* items fetched early because somebody asked for loop.last or loop.length */
    size_t ahead_at;
};

struct tval tval_none(void);
struct tval tval_bool(bool b);
struct tval tval_int(int64_t i);
struct tval tval_float(double f);
struct tval tval_str(struct tstr s);
struct tval tval_undef(const char *name);
/* Undefined for an attribute or item that obj does not have. */
struct tval tval_missing(const struct tval *obj, struct tstr name);

/* New containers; 0, or -1 when out of memory. */
int tval_new_list(struct trun *r, enum tval_kind list_or_tuple, struct tval *out);
int tval_new_dict(struct trun *r, enum tval_kind dict_or_namespace, struct tval *out);
int tlist_push(struct trun *r, struct tlist *l, const struct tval *v);
void tlist_reverse(struct tlist *l);
/* Sets a key, which must be hashable (else an error). */
int tdict_set(struct trun *r, struct tdict *d, const struct tval *k, const struct tval *v);
/* *out NULL when there is no such key. */
int tdict_find(struct trun *r, const struct tdict *d, const struct tval *k, struct tval **out);
struct tval *tdict_find_lit(const struct tdict *d, const char *key);

const char *tval_type(const struct tval *v); /* "dict", "str", ... for messages */
bool tval_is_number(const struct tval *v);   /* int, float, bool */
double tval_as_double(const struct tval *v); /* of a number */
/* An int or bool as a whole number. */
bool tval_as_int(const struct tval *v, int64_t *i);
bool tval_hashable(const struct tval *v);
bool tval_truth(const struct tval *v);
int tval_eq(struct trun *r, const struct tval *a, const struct tval *b, bool *out);
/* a < b as Python has it; an error for types that have no order. */
int tval_less(struct trun *r, const struct tval *a, const struct tval *b, bool *out);
enum tcompare { TC_EQ, TC_NE, TC_LT, TC_LE, TC_GT, TC_GE, TC_IN, TC_NOT_IN };
int tval_compare(struct trun *r, enum tcompare op, const struct tval *a, const struct tval *b, struct tval *out);
int tval_in(struct trun *r, const struct tval *needle, const struct tval *hay, bool *out);
int tval_len(struct trun *r, const struct tval *v, size_t *n);

#endif
