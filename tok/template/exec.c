/* Statements, scopes, loops and macros. */
#include "tok/template/run.h"

enum flow { FLOW_ERR = -1, FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static struct tscope *scope_new(struct trun *r, struct tscope *up) {
    struct tscope *s = tarena_alloc(r->a, sizeof *s);
    if (s)
        s->up = up;
    else
        trun_memory(r);
    return s;
}

static int scope_bind(struct trun *r, struct tscope *s, uint32_t sym, const struct tval *v) {
    struct tbind *b = s->first;
    while (b && b->sym != sym) {
        if (trun_spend(r, 1) != 0)
            return -1;
        b = b->next;
    }
    if (!b) {
        b = tarena_alloc(r->a, sizeof *b);
        if (!b)
            return trun_memory(r);
        b->sym = sym;
        b->next = s->first;
        s->first = b;
    }
    b->v = *v;
    b->set = true;
    return 0;
}

/* Binds what begins undefined in a scope with this body. */
static int bind_blank(struct trun *r, struct tscope *s, const struct tbody *b) {
    for (size_t i = 0; i < b->n_blank; i++) {
        uint32_t sym = b->blank[i];
        struct tval v = {.kind = TV_UNDEF, .undef = {.name = r->ast->sym[sym].p, .n = r->ast->sym[sym].n}};
        if (r->globals[sym].kind != TV_UNDEF && scope_bind(r, s, sym, &v) != 0)
            return -1;
    }
    return 0;
}

/* A scope for a body, within up. */
static struct tscope *scope_enter(struct trun *r, struct tscope *up, const struct tbody *b) {
    struct tscope *s = scope_new(r, up);
    return s && bind_blank(r, s, b) == 0 ? s : NULL;
}

/* A scope for the next round of a loop: the last round's, emptied, unless a macro still needs that one. */
static struct tscope *scope_again(struct trun *r, struct tscope *last, struct tscope *up, const struct tbody *b) {
    if (!last || last->kept)
        return scope_enter(r, up, b);
    for (struct tbind *v = last->first; v; v = v->next)
        v->set = false;
    return bind_blank(r, last, b) == 0 ? last : NULL;
}

static int assign_attr(struct trun *r, struct tscope *s, const struct tnode *target, const struct tval *v) {
    struct tnode name = {.kind = TN_NAME, .line = target->line, .sym = target->attr.sym};
    struct tval ns, key = tval_str(target->attr.name);
    if (teval(r, s, &name, &ns) != 0)
        return -1;
    if (ns.kind != TV_NAMESPACE)
        return trun_fail(r, "only an attribute of a namespace can be set, not one of a %s", tval_type(&ns));
    if (target->attr.name.p[0] == '_')
        return trun_fail(r, "an attribute of a namespace cannot begin with an underscore");
    return tdict_set(r, ns.dict, &key, v);
}

int texec_assign(struct trun *r, struct tscope *s, const struct tnode *target, const struct tval *v) {
    struct titer *it;
    struct tval item;
    if (target->kind == TN_NAME)
        return scope_bind(r, s, target->sym, v);
    if (target->kind == TN_NS_ATTR)
        return assign_attr(r, s, target, v);
    if (titer_of(r, v, &it) != 0)
        return -1;
    for (size_t i = 0; i < target->list.n; i++) {
        int rc = titer_next(r, it, &item);
        if (rc < 0)
            return -1;
        if (rc == 0)
            return trun_fail(r, "%zu variables are set from %zu values", target->list.n, i);
        if (texec_assign(r, s, target->list.v[i], &item) != 0)
            return -1;
    }
    int rc = titer_next(r, it, &item);
    return rc > 0 ? trun_fail(r, "%zu variables are set from more values", target->list.n) : rc;
}

/* The next item of a loop, or 0: those fetched ahead first. */
static int loop_next(struct trun *r, struct tloop *l, struct tval *out) {
    if (l->ahead_at < l->ahead.n) {
        *out = l->ahead.v[l->ahead_at++];
        return 1;
    }
    return titer_next(r, l->it, out);
}

/* Fetches one more item ahead of the loop: 1, or 0 at the end. */
static int look_ahead(struct trun *r, struct tloop *l) {
    struct tval v;
    int rc = titer_next(r, l->it, &v);
    return rc <= 0 ? rc : tlist_push(r, &l->ahead, &v) != 0 ? -1 : 1;
}

static int loop_rest(struct trun *r, struct tloop *l, size_t *n) {
    int rc;
    while ((rc = look_ahead(r, l)) > 0)
        ;
    *n = l->ahead.n - l->ahead_at;
    return rc;
}

int tloop_attr(struct trun *r, struct tloop *l, struct tstr name, struct tval *out, bool *found) {
    size_t rest = 0;
    *found = true;
    if (tstr_is(name, "index0") || tstr_is(name, "index")) {
        *out = tval_int((int64_t)l->index0 + tstr_is(name, "index"));
    } else if (tstr_is(name, "first")) {
        *out = tval_bool(l->index0 == 0);
    } else if (tstr_is(name, "last") || tstr_is(name, "nextitem")) {
        int rc = l->ahead_at < l->ahead.n ? 1 : look_ahead(r, l);
        if (rc < 0)
            return -1;
        if (tstr_is(name, "last"))
            *out = tval_bool(!rc);
        else
            *out = rc ? l->ahead.v[l->ahead_at] : tval_undef("loop.nextitem of the last item");
    } else if (tstr_is(name, "previtem")) {
        *out = l->index0 ? l->prev : tval_undef("loop.previtem of the first item");
    } else if (tstr_is(name, "length") || tstr_is(name, "revindex") || tstr_is(name, "revindex0")) {
        if (loop_rest(r, l, &rest) != 0)
            return -1;
        bool all = tstr_is(name, "length");
        *out = tval_int((int64_t)rest + (all ? (int64_t)l->index0 + 1 : tstr_is(name, "revindex")));
    } else if (tstr_is(name, "depth") || tstr_is(name, "depth0")) {
        *out = tval_int(tstr_is(name, "depth"));
    } else {
        *found = false;
    }
    return 0;
}

static enum flow exec_body(struct trun *r, struct tscope *s, struct tsink *k, const struct tbody *b);

static enum flow exec_for(struct trun *r, struct tscope *s, struct tsink *k, const struct tnode *n) {
    struct tval over, item, self;
    struct tloop *l = tarena_alloc(r->a, sizeof *l);
    struct tscope *inner = NULL;
    bool completed = false;
    int rc;
    if (!l)
        return trun_memory(r);
    if (teval(r, s, n->loop.iter, &over) != 0)
        return FLOW_ERR;
    rc = n->loop.where ? titer_where(r, &over, s, n->loop.target, n->loop.where, &l->it) : titer_of(r, &over, &l->it);
    if (rc != 0)
        return FLOW_ERR;
    self = (struct tval){.kind = TV_LOOP, .loop = l};
    for (; (rc = loop_next(r, l, &item)) > 0; l->index0++) {
        inner = scope_again(r, inner, s, &n->loop.body);
        l->prev = l->current;
        l->current = item;
        if (!inner || texec_assign(r, inner, n->loop.target, &item) != 0 ||
            scope_bind(r, inner, r->ast->sym_loop, &self) != 0)
            return FLOW_ERR;
        enum flow f = exec_body(r, inner, k, &n->loop.body);
        if (f == FLOW_ERR)
            return f;
        if (f == FLOW_BREAK)
            break;
        completed = completed || f == FLOW_ON;
    }
    if (rc < 0)
        return FLOW_ERR;
    if (completed || !n->loop.empty.n) /* jinja2 runs the else also when every round ended by continue or break */
        return FLOW_ON;
    inner = scope_enter(r, s, &n->loop.empty);
    return inner ? exec_body(r, inner, k, &n->loop.empty) : FLOW_ERR;
}

/* The filters of a set or filter block, innermost first, upon the block's text. */
static int filter_chain(struct trun *r, struct tscope *s, const struct tnode *f, struct tval *v) {
    struct targs args;
    struct tval out;
    if (!f)
        return 0;
    if (filter_chain(r, s, f->call.of, v) != 0 || teval_args(r, s, f->call.args, &args) != 0)
        return -1;
    r->line = f->line;
    if (tbuiltin_call(r, f->call.f, v, &args, &out) != 0)
        return -1;
    *v = out;
    return 0;
}

static enum flow exec_captured(struct trun *r, struct tscope *s, struct tsink *k, const struct tnode *n) {
    struct tsink own = trun_sink(r);
    struct tscope *inner = scope_enter(r, s, &n->set.body);
    struct tval v = {.kind = TV_STR};
    enum flow f = inner ? exec_body(r, inner, &own, &n->set.body) : FLOW_ERR;
    if (f != FLOW_ON)
        return f;
    if (trun_text(r, &own, &v.s) != 0 || filter_chain(r, inner, n->set.value, &v) != 0)
        return FLOW_ERR;
    int rc = n->kind == TN_SET_BLOCK ? texec_assign(r, s, n->set.target, &v) : tval_print(r, k, &v);
    return rc != 0 ? FLOW_ERR : FLOW_ON;
}

static enum flow exec_with(struct trun *r, struct tscope *s, struct tsink *k, const struct tnode *n) {
    struct tscope *inner = scope_enter(r, s, &n->with.body);
    struct tval v;
    for (size_t i = 0; inner && i < n->with.n; i++)
        if (teval(r, s, n->with.value[i], &v) != 0 || texec_assign(r, inner, n->with.target[i], &v) != 0)
            return FLOW_ERR;
    return inner ? exec_body(r, inner, k, &n->with.body) : FLOW_ERR;
}

static enum flow exec_if(struct trun *r, struct tscope *s, struct tsink *k, const struct tnode *n) {
    for (size_t i = 0; i < n->branches.n; i++) {
        struct tval v;
        if (n->branches.v[i].test && teval(r, s, n->branches.v[i].test, &v) != 0)
            return FLOW_ERR;
        if (!n->branches.v[i].test || tval_truth(&v))
            return exec_body(r, s, k, &n->branches.v[i].body);
    }
    return FLOW_ON;
}

static int define_macro(struct trun *r, struct tscope *s, const struct tnode *n) {
    struct tmacro *m = tarena_alloc(r->a, sizeof *m);
    if (!m)
        return trun_memory(r);
    m->node = n;
    m->scope = s;
    for (struct tscope *up = s; up; up = up->up)
        up->kept = true;
    struct tval v = {.kind = TV_MACRO, .macro = m};
    return scope_bind(r, s, n->macro.sym, &v);
}

static int bind_parameters(struct trun *r, struct tscope *s, const struct tnode *n, const struct targs *args) {
    size_t taken = 0;
    bool given[TMACRO_MAX_PARAMS] = {0};
    if (args->n_pos > n->macro.n_params)
        return trun_fail(r, "the macro '%.*s' takes at most %zu arguments", (int)n->macro.name.n, n->macro.name.p,
                         n->macro.n_params);
    for (size_t i = 0; i < n->macro.n_params; i++) {
        const struct tparam *p = &n->macro.param[i];
        const struct tval *v = i < args->n_pos ? &args->pos[i] : NULL;
        for (size_t j = 0; !v && j < args->n_kw; j++)
            if (tstr_eq(args->kw[j].name, p->name)) {
                v = &args->kw[j].v;
                taken++;
            }
        given[i] = v != NULL;
        struct tval none = tval_missing(&(struct tval){.kind = TV_MACRO}, p->name);
        if (scope_bind(r, s, p->sym, v ? v : &none) != 0)
            return -1;
    }
    if (taken != args->n_kw)
        return trun_fail(r, "the macro '%.*s' is given an argument that it does not take", (int)n->macro.name.n,
                         n->macro.name.p);
    for (size_t i = 0; i < n->macro.n_params; i++) { /* a default may use the parameters before it */
        struct tval v;
        if (given[i] || !n->macro.param[i].preset)
            continue;
        if (teval(r, s, n->macro.param[i].preset, &v) != 0 || scope_bind(r, s, n->macro.param[i].sym, &v) != 0)
            return -1;
    }
    return 0;
}

int texec_macro(struct trun *r, const struct tmacro *m, const struct targs *args, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tscope *s = scope_enter(r, m->scope, &m->node->macro.body);
    if (!s || bind_parameters(r, s, m->node, args) != 0 || exec_body(r, s, &k, &m->node->macro.body) == FLOW_ERR)
        return -1;
    out->kind = TV_STR;
    return trun_text(r, &k, &out->s);
}

static enum flow exec(struct trun *r, struct tscope *s, struct tsink *k, const struct tnode *n) {
    struct tval v;
    struct tscope *inner;
    switch (n->kind) {
    case TN_DATA:
        return tval_print(r, k, &n->value) == 0 ? FLOW_ON : FLOW_ERR;
    case TN_OUTPUT:
        return teval(r, s, n->bin.a, &v) == 0 && tval_print(r, k, &v) == 0 ? FLOW_ON : FLOW_ERR;
    case TN_IF:
        return exec_if(r, s, k, n);
    case TN_FOR:
        return exec_for(r, s, k, n);
    case TN_SET:
        return teval(r, s, n->set.value, &v) == 0 && texec_assign(r, s, n->set.target, &v) == 0 ? FLOW_ON : FLOW_ERR;
    case TN_SET_BLOCK:
    case TN_FILTER_BLOCK:
        return exec_captured(r, s, k, n);
    case TN_MACRO:
        return define_macro(r, s, n) == 0 ? FLOW_ON : FLOW_ERR;
    case TN_WITH:
        return exec_with(r, s, k, n);
    case TN_GENERATION:
        inner = scope_enter(r, s, &n->set.body);
        return inner ? exec_body(r, inner, k, &n->set.body) : FLOW_ERR;
    case TN_BREAK:
        return FLOW_BREAK;
    case TN_CONTINUE:
        return FLOW_CONTINUE;
    default:
        return trun_fail(r, "an expression stands where a statement should");
    }
}

static enum flow exec_body(struct trun *r, struct tscope *s, struct tsink *k, const struct tbody *b) {
    enum flow f = FLOW_ON;
    if (r->depth >= TRUN_MAX_DEPTH)
        return trun_fail(r, "the template nests deeper than %d, perhaps a macro that calls itself", TRUN_MAX_DEPTH);
    r->depth++;
    for (size_t i = 0; i < b->n && f == FLOW_ON; i++) {
        r->line = b->v[i]->line;
        f = trun_spend(r, 1) != 0 ? FLOW_ERR : exec(r, s, k, b->v[i]);
        if (f == FLOW_ON && !tsink_ok(k))
            f = trun_memory(r);
    }
    r->depth--;
    return f;
}

int texec(struct trun *r, struct tsink *k) {
    struct tscope *root = scope_enter(r, NULL, &r->ast->body);
    return !root || exec_body(r, root, k, &r->ast->body) == FLOW_ERR ? -1 : 0;
}
