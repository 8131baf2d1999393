/* Expressions, in the order of precedence that jinja2's own parser has. */
#include "tok/template/parse.h"
#include "tok/template/run.h"

#include <string.h>

static struct tnode *binary(struct tparser *p, enum tnode_kind kind, char op, struct tnode *a, struct tnode *b,
                            uint32_t line) {
    struct tnode *n = a && b ? tparse_node(p, kind, line) : NULL;
    if (n) {
        n->bin.a = a;
        n->bin.b = b;
        n->bin.op = op;
    }
    return n;
}

static struct tnode *unary_node(struct tparser *p, enum tnode_kind kind, struct tnode *a, uint32_t line) {
    struct tnode *n = a ? tparse_node(p, kind, line) : NULL;
    if (n)
        n->bin.a = a;
    return n;
}

static struct tnode *constant(struct tparser *p, struct tval v) {
    struct tnode *n = tparse_node(p, TN_CONST, p->tok->line);
    if (n)
        n->value = v;
    return n;
}

static struct tnode *name(struct tparser *p, bool with_namespace) {
    struct tstr s = p->tok->s;
    uint32_t line = p->tok->line;
    struct tnode *n = NULL;
    if (tstr_is(s, "true") || tstr_is(s, "True"))
        n = constant(p, tval_bool(true));
    else if (tstr_is(s, "false") || tstr_is(s, "False"))
        n = constant(p, tval_bool(false));
    else if (tstr_is(s, "none") || tstr_is(s, "None"))
        n = constant(p, tval_none());
    if (n || p->e->kind) {
        p->tok++;
        return n;
    }
    if (p->in_macro && (tstr_is(s, "varargs") || tstr_is(s, "kwargs") || tstr_is(s, "caller"))) {
        tparse_error(p, "'%.*s' in a macro is not supported", (int)s.n, s.p);
        return NULL;
    }
    p->tok++;
    bool ns = with_namespace && tparse_skip_op(p, '.');
    n = tparse_node(p, ns ? TN_NS_ATTR : TN_NAME, line);
    if (!n)
        return NULL;
    if (ns) {
        if (p->tok->type != TT_NAME) {
            tparse_expected(p, "a name");
            return NULL;
        }
        n->attr.name = p->tok++->s;
    }
    return tparse_symbol(p, s, ns ? &n->attr.sym : &n->sym) == 0 ? n : NULL;
}

static struct tnode *string(struct tparser *p) {
    struct tstr s = p->tok->s;
    struct tnode *n = constant(p, tval_str(s));
    if (!n)
        return NULL;
    p->tok++;
    if (p->tok->type != TT_STRING)
        return n;
    struct tsink k = {.a = &p->ast->a};
    for (tsink_put(&k, s); p->tok->type == TT_STRING; p->tok++)
        tsink_put(&k, p->tok->s);
    if (!tsink_ok(&k)) {
        tparse_error(p, "out of memory");
        return NULL;
    }
    n->value.s = tsink_str(&k);
    return n;
}

/* The items between brackets, up to and with close. pairs: key: value. */
static struct tnode *bracketed(struct tparser *p, enum tnode_kind kind, char close, bool pairs) {
    struct tnode *n = tparse_node(p, kind, p->tok->line);
    struct tnodes items = {0};
    if (!n)
        return NULL;
    for (p->tok++; !tparse_skip_op(p, close);) {
        if (items.n && tparse_expect_op(p, ',') != 0)
            return NULL;
        if (tparse_skip_op(p, close))
            break;
        if (tparse_push(p, &items, tparse_expr(p)) != 0)
            return NULL;
        if (pairs && (tparse_expect_op(p, ':') != 0 || tparse_push(p, &items, tparse_expr(p)) != 0))
            return NULL;
    }
    n->list = (struct tbody){.v = items.v, .n = items.n};
    return n;
}

static struct tnode *tuple(struct tparser *p, bool targets, bool with_cond, bool parenthesised, bool with_namespace);

static struct tnode *primary(struct tparser *p, bool with_namespace) {
    struct tnode *n = NULL;
    switch (p->tok->type) {
    case TT_NAME:
        return name(p, with_namespace);
    case TT_STRING:
        return string(p);
    case TT_INTEGER:
        n = constant(p, tval_int(p->tok->i));
        p->tok++;
        return n;
    case TT_FLOAT:
        n = constant(p, tval_float(p->tok->f));
        p->tok++;
        return n;
    default:
        break;
    }
    if (tparse_at_op(p, '[') || tparse_at_op(p, '{') || tparse_at_op(p, '(')) {
        if (tparse_enter(p) != 0)
            return NULL;
        if (tparse_at_op(p, '['))
            n = bracketed(p, TN_LIST, ']', false);
        else if (tparse_at_op(p, '{'))
            n = bracketed(p, TN_DICT, '}', true);
        else {
            p->tok++;
            n = tuple(p, false, true, true, false);
            if (n && tparse_expect_op(p, ')') != 0)
                n = NULL;
        }
        tparse_leave(p);
        return n;
    }
    tparse_expected(p, "an expression");
    return NULL;
}

static bool tuple_end(const struct tparser *p, bool targets) {
    return p->tok->type == TT_VAR_END || p->tok->type == TT_BLOCK_END || tparse_at_op(p, ')') ||
           (targets && tparse_at_name(p, "in"));
}

static struct tnode *tuple(struct tparser *p, bool targets, bool with_cond, bool parenthesised, bool with_namespace) {
    struct tnodes items = {0};
    uint32_t line = p->tok->line;
    bool is_tuple = false;
    for (;;) {
        if (tuple_end(p, targets))
            break;
        struct tnode *n = targets ? primary(p, with_namespace) : with_cond ? tparse_expr(p) : tparse_expr_no_cond(p);
        if (tparse_push(p, &items, n) != 0)
            return NULL;
        if (!tparse_skip_op(p, ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && items.n)
        return items.v[0];
    if (!is_tuple && !parenthesised) {
        tparse_expected(p, "an expression");
        return NULL;
    }
    struct tnode *n = tparse_node(p, TN_TUPLE, line);
    if (n)
        n->list = (struct tbody){.v = items.v, .n = items.n};
    return n;
}

struct tnode *tparse_tuple(struct tparser *p, bool with_cond) {
    return tuple(p, false, with_cond, false, false);
}

static int assignable(struct tparser *p, const struct tnode *n) {
    if (n->kind == TN_TUPLE) {
        for (size_t i = 0; i < n->list.n; i++)
            if (assignable(p, n->list.v[i]) != 0)
                return -1;
        return 0;
    }
    if (n->kind != TN_NAME && n->kind != TN_NS_ATTR)
        return tparse_fail(p, "only variables, tuples of them and namespace attributes can be assigned to");
    if (n->kind == TN_NAME && n->sym == p->ast->sym_loop && p->in_loop)
        return tparse_fail(p, "the variable 'loop' cannot be assigned to inside a for");
    return 0;
}

struct tnode *tparse_target(struct tparser *p, bool with_namespace) {
    struct tnode *n = tuple(p, true, false, false, with_namespace);
    return n && assignable(p, n) == 0 ? n : NULL;
}

static int call_args(struct tparser *p, struct tnode_args **out) {
    struct tnode_args *args = tarena_alloc(&p->ast->a, sizeof *args);
    struct tnodes pos = {0};
    size_t cap = 0;
    bool first = true;
    if (!args)
        return tparse_fail(p, "out of memory");
    for (p->tok++; !tparse_skip_op(p, ')'); first = false) { /* from the parenthesis */
        if (!first && tparse_expect_op(p, ',') != 0)
            return -1;
        if (!first && tparse_skip_op(p, ')'))
            break;
        if (tparse_at_op(p, '*') || tparse_at_op(p, 'p'))
            return tparse_fail(p, "*args and **kwargs in a call are not supported");
        if (p->tok->type == TT_NAME && p->tok[1].type == TT_OP && p->tok[1].op == '=') {
            if (tarena_grow(&p->ast->a, (void **)&args->kw, args->n_kw, &cap, sizeof *args->kw) != 0)
                return tparse_fail(p, "out of memory");
            struct tnode_kw *kw = &args->kw[args->n_kw++];
            kw->name = p->tok->s;
            for (size_t i = 0; i + 1 < args->n_kw; i++)
                if (tstr_eq(args->kw[i].name, kw->name))
                    return tparse_fail(p, "the argument '%.*s' is given twice", (int)kw->name.n, kw->name.p);
            p->tok += 2;
            struct tnode *v = tparse_expr(p);
            args->kw[args->n_kw - 1].v = v; /* kw may have moved */
            if (!v)
                return -1;
        } else if (args->n_kw) {
            return tparse_fail(p, "a positional argument follows a named one");
        } else if (tparse_push(p, &pos, tparse_expr(p)) != 0) {
            return -1;
        }
    }
    args->pos = pos.v;
    args->n_pos = pos.n;
    *out = args;
    return 0;
}

static struct tnode *call(struct tparser *p, struct tnode *of) {
    struct tnode *n = tparse_node(p, TN_CALL, p->tok->line);
    if (!n)
        return NULL;
    if (of->kind == TN_ATTR && tmethod_refused_anywhere(of->attr.name)) {
        tparse_error(p, "the method '%.*s' is not supported", (int)of->attr.name.n, of->attr.name.p);
        return NULL;
    }
    n->call.of = of;
    return call_args(p, &n->call.args) == 0 ? n : NULL;
}

static struct tnode *subscript(struct tparser *p, struct tnode *of) {
    uint32_t line = p->tok->line;
    p->tok++; /* [ */
    struct tnode *from = NULL, *to = NULL, *step = NULL, *n;
    bool slice = false;
    if (!tparse_at_op(p, ':') && !(from = tparse_expr(p)))
        return NULL;
    if (tparse_skip_op(p, ':')) {
        slice = true;
        if (!tparse_at_op(p, ':') && !tparse_at_op(p, ']') && !tparse_at_op(p, ',') && !(to = tparse_expr(p)))
            return NULL;
        if (tparse_skip_op(p, ':') && !tparse_at_op(p, ']') && !tparse_at_op(p, ',') && !(step = tparse_expr(p)))
            return NULL;
    }
    if (tparse_at_op(p, ',')) {
        tparse_error(p, "several subscripts in one pair of brackets are not supported");
        return NULL;
    }
    if (tparse_expect_op(p, ']') != 0 || !(n = tparse_node(p, slice ? TN_SLICE : TN_ITEM, line)))
        return NULL;
    if (slice) {
        n->slice.of = of;
        n->slice.from = from;
        n->slice.to = to;
        n->slice.step = step;
    } else {
        n->item.of = of;
        n->item.key = from;
    }
    return n;
}

static struct tnode *attribute(struct tparser *p, struct tnode *of) {
    uint32_t line = p->tok->line;
    p->tok++; /* . */
    struct tnode *n = NULL;
    if (p->tok->type == TT_NAME) {
        if (p->tok->s.n >= 2 && memcmp(p->tok->s.p, "__", 2) == 0) {
            tparse_error(p, "the attribute '%.*s' is not supported", p->tok->s.n < 60 ? (int)p->tok->s.n : 60,
                         p->tok->s.p);
            return NULL;
        }
        n = tparse_node(p, TN_ATTR, line);
        if (n) {
            n->attr.of = of;
            n->attr.name = p->tok->s;
        }
    } else if (p->tok->type == TT_INTEGER) {
        struct tnode *key = constant(p, tval_int(p->tok->i));
        n = key ? tparse_node(p, TN_ITEM, line) : NULL;
        if (n) {
            n->item.of = of;
            n->item.key = key;
        }
    } else {
        tparse_expected(p, "a name or number");
    }
    p->tok += n != NULL;
    return n;
}

static struct tnode *postfix(struct tparser *p, struct tnode *n) {
    while (n) {
        if (tparse_at_op(p, '.'))
            n = attribute(p, n);
        else if (tparse_at_op(p, '['))
            n = subscript(p, n);
        else if (tparse_at_op(p, '('))
            n = call(p, n);
        else
            break;
    }
    return n;
}

/* The name of a filter or test, and its table entry. */
static const struct tbuiltin *builtin(struct tparser *p, bool filter) {
    if (p->tok->type != TT_NAME) {
        tparse_expected(p, filter ? "the name of a filter" : "the name of a test");
        return NULL;
    }
    struct tstr s = p->tok->s;
    const struct tbuiltin *f = filter ? tfilter_find(s) : ttest_find(s);
    if (!f)
        tparse_error(p, "the %s '%.*s' is not supported", filter ? "filter" : "test", s.n < 60 ? (int)s.n : 60, s.p);
    p->tok++;
    if (f && tparse_at_op(p, '.')) {
        tparse_error(p, "a dotted name of a %s is not supported", filter ? "filter" : "test");
        return NULL;
    }
    return f;
}

static struct tnode *no_args(struct tparser *p, struct tnode *n) {
    n->call.args = tarena_alloc(&p->ast->a, sizeof *n->call.args);
    if (!n->call.args)
        tparse_error(p, "out of memory");
    return n->call.args ? n : NULL;
}

/* The filter that map is given, or the test of select and its kind, when it is written as a string. */
static int check_named(struct tparser *p, const struct tnode *n) {
    bool map = strcmp(n->call.f->name, "map") == 0, attr = strstr(n->call.f->name, "attr") != NULL;
    const struct tnode_args *a = n->call.args;
    if (n->call.f->params || a->n_pos <= (size_t)attr)
        return 0;
    const struct tnode *name = a->pos[attr];
    if (name->kind != TN_CONST || name->value.kind != TV_STR)
        return 0;
    struct tstr s = name->value.s;
    if (map ? tfilter_find(s) != NULL : ttest_find(s) != NULL)
        return 0;
    return tparse_fail(p, "the %s '%.*s' is not supported", map ? "filter" : "test", s.n < 60 ? (int)s.n : 60, s.p);
}

struct tnode *tparse_filters(struct tparser *p, struct tnode *of, bool start_inline) {
    while (start_inline || tparse_at_op(p, '|')) {
        p->tok += !start_inline;
        start_inline = false;
        struct tnode *n = tparse_node(p, TN_FILTER, p->tok->line);
        if (!n || !(n->call.f = builtin(p, true)))
            return NULL;
        n->call.of = of;
        if (tparse_at_op(p, '(') ? call_args(p, &n->call.args) != 0 : !no_args(p, n))
            return NULL;
        if (check_named(p, n) != 0)
            return NULL;
        of = n;
    }
    return of;
}

static struct tnode *test(struct tparser *p, struct tnode *of) {
    uint32_t line = p->tok->line;
    p->tok++; /* is */
    bool negated = tparse_skip_name(p, "not");
    struct tnode *n = tparse_node(p, TN_TEST, line), *arg;
    if (!n || !(n->call.f = builtin(p, false)))
        return NULL;
    n->call.of = of;
    enum tlex_type t = p->tok->type;
    if (tparse_at_op(p, '(')) {
        if (call_args(p, &n->call.args) != 0)
            return NULL;
    } else if ((t == TT_NAME && !tparse_at_name(p, "else") && !tparse_at_name(p, "or") && !tparse_at_name(p, "and")) ||
               t == TT_STRING || t == TT_INTEGER || t == TT_FLOAT || tparse_at_op(p, '[') || tparse_at_op(p, '{')) {
        struct tnodes pos = {0};
        if (tparse_at_name(p, "is")) {
            tparse_error(p, "tests cannot be chained with 'is'");
            return NULL;
        }
        arg = primary(p, false);
        if (!(arg = postfix(p, arg)) || !no_args(p, n) || tparse_push(p, &pos, arg) != 0)
            return NULL;
        n->call.args->pos = pos.v;
        n->call.args->n_pos = pos.n;
    } else if (!no_args(p, n)) {
        return NULL;
    }
    return negated ? unary_node(p, TN_NOT, n, line) : n;
}

static struct tnode *unary(struct tparser *p, bool with_filter) {
    struct tnode *n;
    uint32_t line = p->tok->line;
    if (tparse_at_op(p, '-') || tparse_at_op(p, '+')) {
        enum tnode_kind kind = tparse_at_op(p, '-') ? TN_NEG : TN_POS;
        if (tparse_enter(p) != 0)
            return NULL;
        p->tok++;
        n = unary(p, false);
        tparse_leave(p);
        n = unary_node(p, kind, n, line);
    } else {
        n = primary(p, false);
    }
    n = postfix(p, n);
    while (n && with_filter) {
        if (tparse_at_op(p, '|'))
            n = tparse_filters(p, n, false);
        else if (tparse_at_name(p, "is"))
            n = test(p, n);
        else if (tparse_at_op(p, '('))
            n = call(p, n);
        else
            break;
    }
    return n;
}

static struct tnode *power(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *n = unary(p, true);
    while (n && tparse_skip_op(p, 'p'))
        n = binary(p, TN_ARITH, 'p', n, unary(p, true), line);
    return n;
}

static struct tnode *product(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *n = power(p);
    while (n && p->tok->type == TT_OP && strchr("*/f%", p->tok->op)) {
        char op = p->tok++->op;
        n = binary(p, TN_ARITH, op, n, power(p), line);
    }
    return n;
}

static struct tnode *concat(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnodes items = {0};
    if (tparse_push(p, &items, product(p)) != 0)
        return NULL;
    while (tparse_skip_op(p, '~'))
        if (tparse_push(p, &items, product(p)) != 0)
            return NULL;
    if (items.n == 1)
        return items.v[0];
    struct tnode *n = tparse_node(p, TN_CONCAT, line);
    if (n)
        n->list = (struct tbody){.v = items.v, .n = items.n};
    return n;
}

static struct tnode *sum(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *n = concat(p);
    while (n && (tparse_at_op(p, '+') || tparse_at_op(p, '-'))) {
        char op = p->tok++->op;
        n = binary(p, op == '+' ? TN_ADD : TN_ARITH, op, n, concat(p), line);
    }
    return n;
}

static bool compare_op(struct tparser *p, enum tcompare *op) {
    static const struct {
        char op;
        enum tcompare c;
    } ops[] = {{'e', TC_EQ}, {'n', TC_NE}, {'<', TC_LT}, {'l', TC_LE}, {'>', TC_GT}, {'g', TC_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (tparse_skip_op(p, ops[i].op)) {
            *op = ops[i].c;
            return true;
        }
    *op = TC_IN;
    if (tparse_skip_name(p, "in"))
        return true;
    *op = TC_NOT_IN;
    if (!tparse_at_name(p, "not") || p->tok[1].type != TT_NAME || !tstr_is(p->tok[1].s, "in"))
        return false;
    p->tok += 2;
    return true;
}

static struct tnode *compare(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *first = sum(p);
    struct tcompare_op *v = NULL;
    size_t n = 0, cap = 0;
    enum tcompare op;
    while (first && compare_op(p, &op)) {
        struct tnode *with = sum(p);
        if (!with)
            return NULL;
        if (tarena_grow(&p->ast->a, (void **)&v, n, &cap, sizeof *v) != 0) {
            tparse_error(p, "out of memory");
            return NULL;
        }
        v[n++] = (struct tcompare_op){op, with};
    }
    if (!first || n == 0)
        return first;
    struct tnode *c = tparse_node(p, TN_COMPARE, line);
    if (c) {
        c->compare.first = first;
        c->compare.v = v;
        c->compare.n = n;
    }
    return c;
}

static struct tnode *negation(struct tparser *p) {
    uint32_t line = p->tok->line;
    if (!tparse_at_name(p, "not"))
        return compare(p);
    if (tparse_enter(p) != 0)
        return NULL;
    p->tok++;
    struct tnode *n = negation(p);
    tparse_leave(p);
    return unary_node(p, TN_NOT, n, line);
}

static struct tnode *conjunction(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *n = negation(p);
    while (n && tparse_skip_name(p, "and"))
        n = binary(p, TN_AND, 0, n, negation(p), line);
    return n;
}

struct tnode *tparse_expr_no_cond(struct tparser *p) {
    uint32_t line = p->tok->line;
    struct tnode *n = conjunction(p);
    while (n && tparse_skip_name(p, "or"))
        n = binary(p, TN_OR, 0, n, conjunction(p), line);
    return n;
}

struct tnode *tparse_expr(struct tparser *p) {
    uint32_t line = p->tok->line;
    if (tparse_enter(p) != 0)
        return NULL;
    struct tnode *n = tparse_expr_no_cond(p);
    while (n && tparse_skip_name(p, "if")) {
        struct tnode *c = tparse_node(p, TN_COND, line);
        if (!c)
            return NULL;
        c->cond.yes = n;
        c->cond.test = tparse_expr_no_cond(p);
        bool has_else = c->cond.test && tparse_skip_name(p, "else");
        if (!c->cond.test || (has_else && !(c->cond.no = tparse_expr(p))))
            return NULL;
        n = c;
    }
    tparse_leave(p);
    return n;
}
