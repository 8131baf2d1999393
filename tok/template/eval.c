/* Expressions. */
#include "tok/template/run.h"

static struct tbind *bound(const struct tscope *s, uint32_t sym) {
    for (struct tbind *b = s->first; b; b = b->next)
        if (b->sym == sym && b->set)
            return b;
    return NULL;
}

static int eval_name(struct trun *r, struct tscope *s, uint32_t sym, struct tval *out) {
    for (; s; s = s->up) {
        struct tbind *b = bound(s, sym);
        if (trun_spend(r, 1) != 0)
            return -1;
        if (b) {
            *out = b->v;
            return 0;
        }
    }
    *out = r->globals[sym];
    return 0;
}

static int eval_items(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval l, v;
    if (tval_new_list(r, n->kind == TN_LIST ? TV_LIST : TV_TUPLE, &l) != 0)
        return -1;
    for (size_t i = 0; i < n->list.n; i++)
        if (teval(r, s, n->list.v[i], &v) != 0 || tlist_push(r, l.list, &v) != 0)
            return -1;
    *out = l;
    return 0;
}

static int eval_dict(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval d, k, v;
    if (tval_new_dict(r, TV_DICT, &d) != 0)
        return -1;
    for (size_t i = 0; i < n->list.n; i += 2)
        if (teval(r, s, n->list.v[i], &k) != 0 || teval(r, s, n->list.v[i + 1], &v) != 0 ||
            tdict_set(r, d.dict, &k, &v) != 0)
            return -1;
    *out = d;
    return 0;
}

static int eval_slice(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    const struct tnode *part[3] = {n->slice.from, n->slice.to, n->slice.step};
    struct tval of, v[3];
    const struct tval *p[3] = {0};
    if (teval(r, s, n->slice.of, &of) != 0)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (part[i] && teval(r, s, part[i], &v[i]) != 0)
            return -1;
        p[i] = part[i] ? &v[i] : NULL;
    }
    return tval_slice(r, &of, p[0], p[1], p[2], out);
}

static int eval_concat(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tsink k = trun_sink(r);
    for (size_t i = 0; i < n->list.n; i++) {
        struct tval v;
        if (teval(r, s, n->list.v[i], &v) != 0)
            return -1;
        if (tval_print(r, &k, &v) != 0)
            return -1;
    }
    out->kind = TV_STR;
    return trun_text(r, &k, &out->s);
}

static int eval_compare(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval a, b;
    if (teval(r, s, n->compare.first, &a) != 0)
        return -1;
    for (size_t i = 0; i < n->compare.n; i++) {
        if (teval(r, s, n->compare.v[i].with, &b) != 0 || tval_compare(r, n->compare.v[i].op, &a, &b, out) != 0)
            return -1;
        if (!out->b)
            return 0;
        a = b;
    }
    return 0;
}

int teval_args(struct trun *r, struct tscope *s, const struct tnode_args *n, struct targs *out) {
    out->n_pos = n->n_pos;
    out->n_kw = n->n_kw;
    out->pos = tarena_array(r->a, n->n_pos, sizeof *out->pos);
    out->kw = tarena_array(r->a, n->n_kw, sizeof *out->kw);
    if (r->a->bad)
        return trun_memory(r);
    for (size_t i = 0; i < n->n_pos; i++)
        if (teval(r, s, n->pos[i], &out->pos[i]) != 0)
            return -1;
    for (size_t i = 0; i < n->n_kw; i++) {
        out->kw[i].name = n->kw[i].name;
        if (teval(r, s, n->kw[i].v, &out->kw[i].v) != 0)
            return -1;
    }
    return 0;
}

int teval_call(struct trun *r, const struct tval *f, const struct targs *args, struct tval *out) {
    switch (f->kind) {
    case TV_FUNC:
    case TV_METHOD:
        return tbuiltin_call(r, f->func.f, f->func.self, args, out);
    case TV_MACRO:
        return texec_macro(r, f->macro, args, out);
    case TV_UNDEF:
        return trun_undefined(r, f);
    default:
        return trun_fail(r, "a %s cannot be called", tval_type(f));
    }
}

static int eval_call(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval f;
    struct targs args;
    if (teval(r, s, n->call.of, &f) != 0 || teval_args(r, s, n->call.args, &args) != 0)
        return -1;
    r->line = n->line;
    return teval_call(r, &f, &args, out);
}

static int eval_builtin(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval v;
    struct targs args;
    if (teval(r, s, n->call.of, &v) != 0 || teval_args(r, s, n->call.args, &args) != 0)
        return -1;
    r->line = n->line;
    return tbuiltin_call(r, n->call.f, &v, &args, out);
}

static int eval_binary(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval a, b;
    if (teval(r, s, n->bin.a, &a) != 0 || teval(r, s, n->bin.b, &b) != 0)
        return -1;
    r->line = n->line;
    return n->kind == TN_ADD ? tval_add(r, &a, &b, out) : tval_arith(r, n->bin.op, &a, &b, out);
}

static int eval_unary(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval v;
    if (teval(r, s, n->bin.a, &v) != 0)
        return -1;
    if (n->kind == TN_NOT) {
        *out = tval_bool(!tval_truth(&v));
        return 0;
    }
    if (v.kind == TV_UNDEF)
        return trun_undefined(r, &v);
    if (tval_negate(r, &v, out) != 0)
        return -1;
    return n->kind == TN_NEG ? 0 : tval_negate(r, out, out);
}

static int eval_node(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    struct tval v, k;
    switch (n->kind) {
    case TN_CONST:
        *out = n->value;
        return 0;
    case TN_NAME:
        return eval_name(r, s, n->sym, out);
    case TN_LIST:
    case TN_TUPLE:
        return eval_items(r, s, n, out);
    case TN_DICT:
        return eval_dict(r, s, n, out);
    case TN_ATTR:
        return teval(r, s, n->attr.of, &v) != 0 ? -1 : tval_attr(r, &v, n->attr.name, out);
    case TN_ITEM:
        if (teval(r, s, n->item.of, &v) != 0 || teval(r, s, n->item.key, &k) != 0)
            return -1;
        return tval_item(r, &v, &k, out);
    case TN_SLICE:
        return eval_slice(r, s, n, out);
    case TN_CALL:
        return eval_call(r, s, n, out);
    case TN_FILTER:
    case TN_TEST:
        return eval_builtin(r, s, n, out);
    case TN_NOT:
    case TN_NEG:
    case TN_POS:
        return eval_unary(r, s, n, out);
    case TN_AND:
    case TN_OR:
        if (teval(r, s, n->bin.a, out) != 0)
            return -1;
        return tval_truth(out) == (n->kind == TN_OR) ? 0 : teval(r, s, n->bin.b, out);
    case TN_ADD:
    case TN_ARITH:
        return eval_binary(r, s, n, out);
    case TN_CONCAT:
        return eval_concat(r, s, n, out);
    case TN_COMPARE:
        return eval_compare(r, s, n, out);
    case TN_COND:
        if (teval(r, s, n->cond.test, &v) != 0)
            return -1;
        if (tval_truth(&v))
            return teval(r, s, n->cond.yes, out);
        if (n->cond.no)
            return teval(r, s, n->cond.no, out);
        *out = tval_undef("the value of an 'if' without 'else'");
        return 0;
    default:
        return trun_fail(r, "a statement stands where an expression should");
    }
}

int teval(struct trun *r, struct tscope *s, const struct tnode *n, struct tval *out) {
    if (r->depth >= TRUN_MAX_DEPTH)
        return trun_fail(r, "the template nests deeper than %d, perhaps a macro that calls itself", TRUN_MAX_DEPTH);
    if (trun_spend(r, 1) != 0)
        return -1;
    r->depth++;
    r->line = n->line;
    int rc = eval_node(r, s, n, out);
    r->depth--;
    return rc;
}
