/* tok/template/run.h - one rendering in progress: its memory, its budget and its way to fail, and what evaluates.
 *
 * Messages name constructs, types and template names, never values: they may be printed and logged, prompts may not. */
#ifndef TOK_TEMPLATE_RUN_H
#define TOK_TEMPLATE_RUN_H

#include "tok/template/ast.h"
#include "tok/template/ops.h"

enum {
    TRUN_MAX_STEPS = 5 * 1000 * 1000, /* well under a second */
    TRUN_MAX_DEPTH = 600,             /* nested evaluations and macro calls */
    TRUN_MAX_NEST = 100,              /* lists in lists, JSON, ... */
    TRUN_MAX_RANGE = 100000,          /* as in Jinja's sandbox */
};
#define TRUN_MAX_OUTPUT ((size_t)32 << 20)
#define TRUN_MAX_MEMORY ((size_t)256 << 20)

struct tbind {
    struct tbind *next;
    uint32_t sym;
    bool set;
    struct tval v;
};
struct tscope {
    struct tscope *up;
    struct tbind *first;
    bool kept; /* a macro defined in it, or in a scope within it, refers to it */
};

struct trun {
    struct tarena *a;
    struct err *e;
    const struct tast *ast;
    const char *date;     /* for strftime_now, or NULL */
    struct tval *globals; /* by symbol: what no scope has */
    size_t steps;         /* spent */
    int depth, nest;
    uint32_t line; /* of what is being evaluated */
};

/* Sets "NAME, line N: ...", ERR_MODEL. */
void trun_error(struct trun *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same as an expression that is -1, which callers and analysers can see. */
#define trun_fail(...) (trun_error(__VA_ARGS__), -1)
/* Names the variable or attribute that v, an Undefined, was asked for. Returns -1. */
int trun_undefined(struct trun *r, const struct tval *v);
int trun_memory(struct trun *r);
/* Pays for work; -1 when the budget is gone. */
int trun_spend(struct trun *r, size_t n);
/* Pays for touching n bytes. */
int trun_spend_bytes(struct trun *r, size_t n);
/* The collected text; -1 with an error when collecting failed. */
int trun_text(struct trun *r, const struct tsink *k, struct tstr *out);
struct tsink trun_sink(struct trun *r);
/* An arena copy of a value, NULL with an error. */
struct tval *trun_box(struct trun *r, const struct tval *v);
/* Guards recursion over nested values: -1 when too deep. Leave after each successful enter. */
int trun_enter(struct trun *r);
void trun_leave(struct trun *r);

/* Evaluated arguments of a call. */
struct tkw {
    struct tstr name;
    struct tval v;
};
struct targs {
    struct tval *pos;
    size_t n_pos;
    struct tkw *kw;
    size_t n_kw;
};

/* A filter, test, function or method. */
enum { TBUILTIN_ARGS = 5 };
struct tcall {
    const struct tval *arg[TBUILTIN_ARGS]; /* by parameter; NULL: not given */
    const struct targs *raw;
};
struct tbuiltin {
    const char *name;
    int (*fn)(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
    const char *params; /* "a b c"; NULL: takes anything, see raw */
    int n_required;
};

const struct tbuiltin *tfilter_find(struct tstr name);
const struct tbuiltin *ttest_find(struct tstr name);
const struct tbuiltin *tfunc_find(struct tstr name);
const struct tbuiltin *tmethod_find(enum tval_kind kind, struct tstr name);
/* Is this the name of a Python attribute of that kind of value which we do not have? */
bool tmethod_refused(enum tval_kind kind, struct tstr name);
/* Is it one of any kind of value, and no kind of value has it here? */
bool tmethod_refused_anywhere(struct tstr name);

int tbuiltin_call(struct trun *r, const struct tbuiltin *f, const struct tval *self, const struct targs *args,
                  struct tval *out);

/* strftime_now over chat_vars.date. */
int tdate_format(struct trun *r, struct tstr format, struct tval *out);

/* Evaluation (eval.c) and statements (exec.c). */
int teval(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out);
int teval_args(struct trun *r, struct tscope *s, const struct tnode_args *n, struct targs *out);
int teval_call(struct trun *r, const struct tval *f, const struct targs *args, struct tval *out);
int tloop_attr(struct trun *r, struct tloop *l, struct tstr name, struct tval *out, bool *found);
int texec_macro(struct trun *r, const struct tmacro *m, const struct targs *args, struct tval *out);
/* The whole template onto k. */
int texec(struct trun *r, struct tsink *k);
/* Binds a for or set target. */
int texec_assign(struct trun *r, struct tscope *s, const struct tnode *target, const struct tval *v);

/* Iterators that call back. */
int titer_map(struct trun *r, const struct tval *v, const struct targs *args, struct tval *out);
int titer_select(struct trun *r, const struct tval *v, const struct targs *args, bool by_attr, bool want,
                 struct tval *out);
int titer_unique(struct trun *r, const struct tval *v, bool case_sensitive, const struct tval *attr, struct tval *out);
int titer_items(struct trun *r, const struct tval *v, struct tval *out);
int titer_reversed(struct trun *r, const struct tval *v, struct tval *out);
int titer_where(struct trun *r, const struct tval *v, struct tscope *s, const struct tnode *target,
                const struct tnode *test, struct titer **out);

#endif
