/* Which variables of a scope begin undefined.
 *
 * jinja2 compiles a template to Python, and a name that a scope sets - at its own level, not in an if, and before it is
 * read there - is a local variable from the scope's start. Inner scopes that run earlier then see it undefined, even
 * when the rendering was given a variable of that name. We look names up as we go, so such names are found here, once,
 * and bound to undefined when their scope is entered. (jinja2/idtracking.py is the other implementation.) */
#include "tok/template/parse.h"

struct scope {
    struct tparser *p;
    const struct scope *up;
    bool *ref;   /* by symbol: this scope knows the name */
    bool *blank; /* ... and it begins undefined */
    int in_if, depth;
};

static bool known(const struct scope *s, uint32_t sym) {
    for (; s; s = s->up)
        if (s->ref[sym])
            return true;
    return false;
}

static void load(struct scope *s, uint32_t sym) {
    if (!known(s, sym))
        s->ref[sym] = true;
}

static void store(struct scope *s, uint32_t sym) {
    if (s->ref[sym])
        return;
    s->blank[sym] = !s->in_if && !known(s->up, sym);
    s->ref[sym] = true;
}

static int visit(struct scope *s, const struct tnode *n);

static int visit_all(struct scope *s, struct tnode *const *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (visit(s, v[i]) != 0)
            return -1;
    return 0;
}

static int visit_args(struct scope *s, const struct tnode_args *a) {
    if (visit_all(s, a->pos, a->n_pos) != 0)
        return -1;
    for (size_t i = 0; i < a->n_kw; i++)
        if (visit(s, a->kw[i].v) != 0)
            return -1;
    return 0;
}

/* What an expression reads. */
static int visit_kind(struct scope *s, const struct tnode *n) {
    switch (n->kind) {
    case TN_NAME:
        load(s, n->sym);
        return 0;
    case TN_NS_ATTR:
        load(s, n->attr.sym);
        return 0;
    case TN_LIST:
    case TN_TUPLE:
    case TN_DICT:
    case TN_CONCAT:
        return visit_all(s, n->list.v, n->list.n);
    case TN_ATTR:
        return visit(s, n->attr.of);
    case TN_ITEM:
        return visit(s, n->item.of) != 0 ? -1 : visit(s, n->item.key);
    case TN_SLICE:
        return visit_all(s, (struct tnode *const[]){n->slice.of, n->slice.from, n->slice.to, n->slice.step}, 4);
    case TN_CALL:
    case TN_FILTER:
    case TN_TEST:
        return visit(s, n->call.of) != 0 ? -1 : visit_args(s, n->call.args);
    case TN_NOT:
    case TN_NEG:
    case TN_POS:
        return visit(s, n->bin.a);
    case TN_AND:
    case TN_OR:
    case TN_ADD:
    case TN_ARITH:
        return visit(s, n->bin.a) != 0 ? -1 : visit(s, n->bin.b);
    case TN_COMPARE:
        if (visit(s, n->compare.first) != 0)
            return -1;
        for (size_t i = 0; i < n->compare.n; i++)
            if (visit(s, n->compare.v[i].with) != 0)
                return -1;
        return 0;
    case TN_COND:
        return visit_all(s, (struct tnode *const[]){n->cond.test, n->cond.yes, n->cond.no}, 3);
    default:
        return 0;
    }
}

static int visit(struct scope *s, const struct tnode *n) {
    if (!n)
        return 0;
    if (s->depth >= TAST_MAX_CHAIN)
        return tparse_fail(s->p, "an expression before this line has more than %d parts", TAST_MAX_CHAIN);
    s->depth++;
    int rc = visit_kind(s, n);
    s->depth--;
    return rc;
}

static int visit_target(struct scope *s, const struct tnode *n) {
    if (n->kind == TN_NAME)
        store(s, n->sym);
    else if (n->kind == TN_TUPLE)
        for (size_t i = 0; i < n->list.n; i++)
            visit_target(s, n->list.v[i]); /* no deeper than the parser went */
    else
        return visit(s, n);
    return 0;
}

static int own_level(struct scope *s, const struct tbody *b);

/* What a statement does to the scope that it stands in; inner scopes come later. */
static int own_statement(struct scope *s, const struct tnode *n) {
    switch (n->kind) {
    case TN_OUTPUT:
        return visit(s, n->bin.a);
    case TN_IF:
        s->in_if++;
        for (size_t i = 0; i < n->branches.n; i++)
            if (visit(s, n->branches.v[i].test) != 0 || own_level(s, &n->branches.v[i].body) != 0)
                return -1;
        s->in_if--;
        return 0;
    case TN_FOR:
        return visit(s, n->loop.iter);
    case TN_SET:
        return visit(s, n->set.value) != 0 ? -1 : visit_target(s, n->set.target);
    case TN_SET_BLOCK:
        return visit_target(s, n->set.target);
    case TN_FILTER_BLOCK:
        return visit(s, n->set.value);
    case TN_MACRO:
        store(s, n->macro.sym);
        return 0;
    case TN_WITH:
        return visit_all(s, n->with.value, n->with.n);
    default:
        return 0;
    }
}

static int own_level(struct scope *s, const struct tbody *b) {
    for (size_t i = 0; i < b->n; i++)
        if (own_statement(s, b->v[i]) != 0)
            return -1;
    return 0;
}

static int inner_scopes(struct scope *s, const struct tbody *b);

/* Analyses one scope: owner is the statement whose body it is, NULL for the template. */
static int analyse(struct tparser *p, const struct scope *up, struct tnode *owner, struct tbody *b) {
    struct tast *t = p->ast;
    struct scope s = {.p = p, .up = up};
    s.ref = tarena_array(&t->a, t->n_syms, sizeof *s.ref);
    s.blank = tarena_array(&t->a, t->n_syms, sizeof *s.blank);
    if (!s.ref || !s.blank)
        return tparse_fail(p, "out of memory");
    if (owner && owner->kind == TN_FOR && b == &owner->loop.body && visit_target(&s, owner->loop.target) != 0)
        return -1;
    if (owner && owner->kind == TN_FILTER_BLOCK && visit(&s, owner->set.value) != 0)
        return -1;
    for (size_t i = 0; owner && owner->kind == TN_MACRO && i < owner->macro.n_params; i++)
        store(&s, owner->macro.param[i].sym);
    for (size_t i = 0; i < t->n_syms; i++)
        s.blank[i] = false; /* parameters have their value at once */
    for (size_t i = 0; owner && owner->kind == TN_MACRO && i < owner->macro.n_params; i++)
        if (visit(&s, owner->macro.param[i].preset) != 0)
            return -1;
    for (size_t i = 0; owner && owner->kind == TN_WITH && i < owner->with.n; i++)
        if (visit_target(&s, owner->with.target[i]) != 0)
            return -1;
    if (own_level(&s, b) != 0)
        return -1;
    size_t n = 0, cap = 0;
    for (uint32_t i = 0; i < t->n_syms; i++) {
        if (!s.blank[i])
            continue;
        if (tarena_grow(&t->a, (void **)&b->blank, n, &cap, sizeof *b->blank) != 0)
            return tparse_fail(p, "out of memory");
        b->blank[n++] = i;
    }
    b->n_blank = n;
    return inner_scopes(&s, b);
}

static int inner_scopes(struct scope *s, const struct tbody *b) {
    for (size_t i = 0; i < b->n; i++) {
        struct tnode *n = b->v[i];
        int rc = 0;
        switch (n->kind) {
        case TN_IF:
            for (size_t j = 0; j < n->branches.n && rc == 0; j++)
                rc = inner_scopes(s, &n->branches.v[j].body);
            break;
        case TN_FOR:
            rc = analyse(s->p, s, n, &n->loop.body);
            if (rc == 0)
                rc = analyse(s->p, s, n, &n->loop.empty);
            break;
        case TN_SET_BLOCK:
        case TN_FILTER_BLOCK:
        case TN_GENERATION:
            rc = analyse(s->p, s, n, &n->set.body);
            break;
        case TN_MACRO:
            rc = analyse(s->p, s, n, &n->macro.body);
            break;
        case TN_WITH:
            rc = analyse(s->p, s, n, &n->with.body);
            break;
        default:
            break;
        }
        if (rc != 0)
            return -1;
    }
    return 0;
}

int tparse_scopes(struct tparser *p) {
    return analyse(p, NULL, NULL, &p->ast->body);
}
