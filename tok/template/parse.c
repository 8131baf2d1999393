/* Statements, and the parser's plumbing. */
#include "tok/template/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tparse_error(struct tparser *p, const char *fmt, ...) {
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (p->ast->a.bad)
        err_set(p->e, ERR_MEMORY, "%s: the template needs too much memory", p->ast->name);
    else
        err_set(p->e, ERR_MODEL, "%s, line %u: %s", p->ast->name, p->tok->line, what);
}

int tparse_expected(struct tparser *p, const char *what) {
    char got[80];
    tlex_describe(p->tok, got, sizeof got);
    return tparse_fail(p, "expected %s, got %s", what, got);
}

struct tnode *tparse_node(struct tparser *p, enum tnode_kind kind, uint32_t line) {
    struct tnode *n = tarena_alloc(&p->ast->a, sizeof *n);
    if (!n) {
        tparse_error(p, "out of memory");
        return NULL;
    }
    n->kind = kind;
    n->line = line;
    return n;
}

int tparse_enter(struct tparser *p) {
    if (p->depth >= TAST_MAX_DEPTH)
        return tparse_fail(p, "expressions or blocks are nested deeper than %d", TAST_MAX_DEPTH);
    p->depth++;
    return 0;
}

void tparse_leave(struct tparser *p) {
    p->depth--;
}

int tparse_symbol(struct tparser *p, struct tstr name, uint32_t *sym) {
    struct tast *t = p->ast;
    for (size_t i = 0; i < t->n_syms; i++)
        if (tstr_eq(name, t->sym[i])) {
            *sym = (uint32_t)i;
            return 0;
        }
    if (t->n_syms >= TAST_MAX_SYMBOLS)
        return tparse_fail(p, "the template has more than %d variables", TAST_MAX_SYMBOLS);
    if (tarena_grow(&t->a, (void **)&t->sym, t->n_syms, &t->cap_syms, sizeof *t->sym) != 0)
        return tparse_fail(p, "out of memory");
    *sym = (uint32_t)t->n_syms;
    t->sym[t->n_syms++] = name;
    return 0;
}

bool tparse_at_op(const struct tparser *p, char op) {
    return p->tok->type == TT_OP && p->tok->op == op;
}

bool tparse_at_name(const struct tparser *p, const char *name) {
    return p->tok->type == TT_NAME && tstr_is(p->tok->s, name);
}

bool tparse_skip_op(struct tparser *p, char op) {
    bool at = tparse_at_op(p, op);
    p->tok += at;
    return at;
}

bool tparse_skip_name(struct tparser *p, const char *name) {
    bool at = tparse_at_name(p, name);
    p->tok += at;
    return at;
}

int tparse_expect_op(struct tparser *p, char op) {
    char what[80];
    if (tparse_skip_op(p, op))
        return 0;
    tlex_describe(&(struct ttoken){.type = TT_OP, .op = op}, what, sizeof what);
    return tparse_expected(p, what);
}

int tparse_push(struct tparser *p, struct tnodes *l, struct tnode *n) {
    if (!n)
        return -1; /* the error is set */
    if (tarena_grow(&p->ast->a, (void **)&l->v, l->n, &l->cap, sizeof *l->v) != 0)
        return tparse_fail(p, "out of memory");
    l->v[l->n++] = n;
    return 0;
}

static int block_end(struct tparser *p) {
    if (p->tok->type != TT_BLOCK_END)
        return tparse_expected(p, "'%}'");
    p->tok++;
    return 0;
}

/* Statements up to a tag named in ends ("a b c"), which becomes the current token; the whole template when ends is
 * NULL. */
static int statements(struct tparser *p, const char *ends, struct tbody *out);

/* Behind the head of a block tag: its end, and its body. */
static int body_until(struct tparser *p, const char *ends, struct tbody *out) {
    tparse_skip_op(p, ':'); /* jinja2 allows it */
    return block_end(p) != 0 ? -1 : statements(p, ends, out);
}

/* A body that ends with just one tag, which is passed. */
static int whole_body(struct tparser *p, const char *end, struct tbody *out) {
    if (body_until(p, end, out) != 0)
        return -1;
    p->tok++;
    return 0;
}

static struct tnode *set(struct tparser *p, uint32_t line) {
    struct tnode *target = tparse_target(p, true);
    if (!target)
        return NULL;
    bool simple = tparse_skip_op(p, '=');
    struct tnode *n = tparse_node(p, simple ? TN_SET : TN_SET_BLOCK, line);
    if (!n)
        return NULL;
    n->set.target = target;
    if (simple)
        return (n->set.value = tparse_tuple(p, true)) ? n : NULL;
    if (tparse_at_op(p, '|') && !(n->set.value = tparse_filters(p, NULL, false)))
        return NULL;
    return whole_body(p, "endset", &n->set.body) == 0 ? n : NULL;
}

static struct tnode *for_loop(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_FOR, line);
    if (!n)
        return NULL;
    p->in_loop++; /* already for the target, which may not be named loop */
    if (!(n->loop.target = tparse_target(p, false)))
        return NULL;
    if (!tparse_skip_name(p, "in")) {
        tparse_expected(p, "'in'");
        return NULL;
    }
    if (!(n->loop.iter = tparse_tuple(p, false)))
        return NULL;
    if (tparse_skip_name(p, "if") && !(n->loop.where = tparse_expr(p)))
        return NULL;
    if (tparse_at_name(p, "recursive")) {
        tparse_error(p, "recursive for loops are not supported");
        return NULL;
    }
    if (body_until(p, "endfor else", &n->loop.body) != 0)
        return NULL;
    p->in_loop--;
    if (tparse_skip_name(p, "else"))
        return whole_body(p, "endfor", &n->loop.empty) == 0 ? n : NULL;
    p->tok++;
    return n;
}

static struct tnode *conditional(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_IF, line);
    size_t cap = 0;
    bool more = true;
    while (n && more) {
        struct tbranch b = {0};
        if (!(b.test = tparse_tuple(p, false)) || body_until(p, "elif else endif", &b.body) != 0)
            return NULL;
        more = tparse_skip_name(p, "elif");
        if (tarena_grow(&p->ast->a, (void **)&n->branches.v, n->branches.n, &cap, sizeof b) != 0) {
            tparse_error(p, "out of memory");
            return NULL;
        }
        n->branches.v[n->branches.n++] = b;
    }
    if (!n)
        return NULL;
    if (tparse_skip_name(p, "else")) {
        struct tbranch b = {0};
        if (whole_body(p, "endif", &b.body) != 0)
            return NULL;
        if (tarena_grow(&p->ast->a, (void **)&n->branches.v, n->branches.n, &cap, sizeof b) != 0) {
            tparse_error(p, "out of memory");
            return NULL;
        }
        n->branches.v[n->branches.n++] = b;
        return n;
    }
    p->tok++;
    return n;
}

static int parameters(struct tparser *p, struct tnode *macro) {
    size_t cap = 0;
    if (tparse_expect_op(p, '(') != 0)
        return -1;
    while (!tparse_skip_op(p, ')')) {
        if (macro->macro.n_params && tparse_expect_op(p, ',') != 0)
            return -1;
        if (p->tok->type != TT_NAME)
            return tparse_expected(p, "the name of a parameter");
        if (macro->macro.n_params == TMACRO_MAX_PARAMS)
            return tparse_fail(p, "a macro has more than %d parameters", TMACRO_MAX_PARAMS);
        struct tparam param = {.name = p->tok->s};
        if (tparse_symbol(p, p->tok->s, &param.sym) != 0)
            return -1;
        for (size_t i = 0; i < macro->macro.n_params; i++)
            if (macro->macro.param[i].sym == param.sym)
                return tparse_fail(p, "a macro has two parameters of the same name");
        p->tok++;
        if (tparse_skip_op(p, '=')) {
            if (!(param.preset = tparse_expr(p)))
                return -1;
        } else if (macro->macro.n_params && macro->macro.param[macro->macro.n_params - 1].preset) {
            return tparse_fail(p, "a parameter without a default follows one with a default");
        }
        if (tarena_grow(&p->ast->a, (void **)&macro->macro.param, macro->macro.n_params, &cap, sizeof param) != 0)
            return tparse_fail(p, "out of memory");
        macro->macro.param[macro->macro.n_params++] = param;
    }
    return 0;
}

static struct tnode *macro(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_MACRO, line);
    if (!n)
        return NULL;
    if (p->tok->type != TT_NAME) {
        tparse_expected(p, "the name of a macro");
        return NULL;
    }
    n->macro.name = p->tok->s;
    if (tparse_symbol(p, p->tok->s, &n->macro.sym) != 0)
        return NULL;
    p->tok++;
    int loops = p->in_loop;
    p->in_loop = 0; /* break does not reach out of a macro */
    p->in_macro++;
    if (parameters(p, n) != 0 || whole_body(p, "endmacro", &n->macro.body) != 0)
        return NULL;
    p->in_macro--;
    p->in_loop = loops;
    return n;
}

static struct tnode *with(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_WITH, line);
    struct tnodes targets = {0}, values = {0};
    while (n && p->tok->type != TT_BLOCK_END) {
        if (targets.n && tparse_expect_op(p, ',') != 0)
            return NULL;
        if (p->tok->type == TT_NAME && p->tok[1].type == TT_OP && p->tok[1].op == ',') {
            tparse_error(p, "tuples in 'with' are not supported");
            return NULL;
        }
        if (tparse_push(p, &targets, tparse_target(p, false)) != 0 || tparse_expect_op(p, '=') != 0 ||
            tparse_push(p, &values, tparse_expr(p)) != 0)
            return NULL;
    }
    if (!n || whole_body(p, "endwith", &n->with.body) != 0)
        return NULL;
    n->with.target = targets.v;
    n->with.value = values.v;
    n->with.n = targets.n;
    return n;
}

static struct tnode *filter_block(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_FILTER_BLOCK, line);
    if (!n || !(n->set.value = tparse_filters(p, NULL, true)))
        return NULL;
    return whole_body(p, "endfilter", &n->set.body) == 0 ? n : NULL;
}

/* transformers marks what the model itself says with it; for a prompt it is only a scope. */
static struct tnode *generation(struct tparser *p, uint32_t line) {
    struct tnode *n = tparse_node(p, TN_GENERATION, line);
    int loops = p->in_loop;
    p->in_loop = 0;
    if (!n || whole_body(p, "endgeneration", &n->set.body) != 0)
        return NULL;
    p->in_loop = loops;
    return n;
}

static struct tnode *jump(struct tparser *p, uint32_t line, enum tnode_kind kind) {
    if (p->in_loop)
        return tparse_node(p, kind, line);
    tparse_error(p, "'%s' outside a for", kind == TN_BREAK ? "break" : "continue");
    return NULL;
}

static struct tnode *output(struct tparser *p, struct tnode *of, uint32_t line) {
    struct tnode *n = of ? tparse_node(p, TN_OUTPUT, line) : NULL;
    if (n)
        n->bin.a = of;
    return n;
}

static struct tnode *statement(struct tparser *p, const char *ends) {
    if (p->tok->type != TT_NAME) {
        tparse_expected(p, "the name of a tag");
        return NULL;
    }
    uint32_t line = p->tok->line;
    struct tstr s = p->tok->s;
    p->tok++;
    if (tstr_is(s, "set"))
        return set(p, line);
    if (tstr_is(s, "for"))
        return for_loop(p, line);
    if (tstr_is(s, "if"))
        return conditional(p, line);
    if (tstr_is(s, "macro"))
        return macro(p, line);
    if (tstr_is(s, "with"))
        return with(p, line);
    if (tstr_is(s, "filter"))
        return filter_block(p, line);
    if (tstr_is(s, "generation"))
        return generation(p, line);
    if (tstr_is(s, "break"))
        return jump(p, line, TN_BREAK);
    if (tstr_is(s, "continue"))
        return jump(p, line, TN_CONTINUE);
    p->tok--;
    int n = s.n < 60 ? (int)s.n : 60;
    if ((s.n > 3 && memcmp(s.p, "end", 3) == 0) || tstr_is(s, "else") || tstr_is(s, "elif"))
        tparse_error(p, "the tag '%.*s' belongs to nothing here%s%s", n, s.p, ends ? "; expected one of: " : "",
                     ends ? ends : "");
    else
        tparse_error(p, "the tag '%.*s' is not supported", n, s.p);
    return NULL;
}

static int statements(struct tparser *p, const char *ends, struct tbody *out) {
    struct tnodes l = {0};
    if (tparse_enter(p) != 0)
        return -1;
    for (;;) {
        struct tnode *n = NULL;
        uint32_t line = p->tok->line;
        switch (p->tok->type) {
        case TT_DATA:
            n = tparse_node(p, TN_DATA, line);
            if (n)
                n->value = tval_str(p->tok++->s);
            break;
        case TT_VAR_BEGIN:
            p->tok++;
            n = output(p, tparse_tuple(p, true), line);
            if (n && p->tok->type != TT_VAR_END)
                return tparse_expected(p, "'}}'");
            p->tok += n != NULL;
            break;
        case TT_BLOCK_BEGIN:
            p->tok++;
            if (ends && p->tok->type == TT_NAME && tstr_word(p->tok->s, ends) >= 0)
                goto done;
            n = statement(p, ends);
            if (n && block_end(p) != 0)
                return -1;
            break;
        default: /* the lexer puts nothing but these between tags */
            if (ends)
                return tparse_fail(p, "the template ends inside a block; expected one of: %s", ends);
            goto done;
        }
        if (tparse_push(p, &l, n) != 0)
            return -1;
    }
done:
    tparse_leave(p);
    *out = (struct tbody){.v = l.v, .n = l.n};
    return 0;
}

int tparse(struct tast *ast, const char *src, size_t n, const char *name, struct err *e) {
    struct err local = {0}; /* the parser asks whether an error has been set */
    struct tparser p = {.ast = ast, .e = &local};
    struct ttoken *tok = NULL;
    size_t n_tok;
    ast->a.max = TAST_MAX_MEMORY;
    ast->name = name ? tarena_copy(&ast->a, name, strnlen(name, 200)) : "chat template";
    if (!ast->name) {
        err_set(&local, ERR_MEMORY, "out of memory parsing a chat template");
        goto out;
    }
    if (n > TAST_MAX_SOURCE) {
        err_set(&local, ERR_MODEL, "%s: the template has %zu bytes; at most %d are read", ast->name, n,
                TAST_MAX_SOURCE);
        goto out;
    }
    if (tlex(&ast->a, src, n, ast->name, &tok, &n_tok, &local) != 0)
        goto out;
    p.tok = tok;
    if (tparse_symbol(&p, tstr_lit("loop"), &ast->sym_loop) == 0 && statements(&p, NULL, &ast->body) == 0)
        tparse_scopes(&p);
out:
    if (local.kind)
        err_set(e, local.kind, "%s", local.msg);
    return local.kind ? -1 : 0;
}
