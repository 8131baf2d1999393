/* Iteration: over containers at once, and lazily, as Python's generators are, over what map, select and their kind
 * give. */
#include "tok/template/run.h"

enum iter_kind { IT_VALUES, IT_MAP, IT_SELECT, IT_UNIQUE, IT_REVERSED, IT_WHERE, IT_ITEMS };

struct titer {
    enum iter_kind kind;
    struct tval src;  /* what is walked; for VALUES and REVERSED a container */
    struct titer *in; /* the others walk src through this one, made when the first item is asked for */
    size_t at;        /* VALUES, REVERSED: of src, in items (of a string in bytes) */
    /* MAP, SELECT: what to do to each item */
    const struct tbuiltin *f;
    struct targs args;
    const struct tval *attr, *preset;
    bool want, case_sensitive;
    struct tval seen;     /* UNIQUE: a dict of keys */
    struct tscope *scope; /* WHERE */
    const struct tnode *target, *test;
};

static struct titer *iter_new(struct trun *r, enum iter_kind kind) {
    struct titer *it = tarena_alloc(r->a, sizeof *it);
    if (it)
        it->kind = kind;
    else
        trun_memory(r);
    return it;
}

static void iter_value(struct tval *out, struct titer *it) {
    *out = (struct tval){.kind = TV_ITER, .iter = it};
}

int titer_of(struct trun *r, const struct tval *v, struct titer **out) {
    switch (v->kind) {
    case TV_ITER:
        *out = v->iter;
        return 0;
    case TV_STR:
    case TV_UNDEF:
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_VIEW:
    case TV_RANGE:
        break;
    case TV_LOOP:
        return trun_fail(r, "iterating over 'loop' is not supported");
    default:
        return trun_fail(r, "a %s cannot be iterated over", tval_type(v));
    }
    *out = iter_new(r, IT_VALUES);
    if (!*out)
        return -1;
    (*out)->src = *v;
    if (v->kind == TV_STR)
        (*out)->src.s.safe = false; /* the characters of Markup are plain strings */
    return 0;
}

/* Item i of a dict or one of its views. */
static int pair_item(struct trun *r, const struct tpair *p, enum tview what, struct tval *out) {
    if (what != TVIEW_ITEMS) {
        *out = what == TVIEW_KEYS ? p->k : p->v;
        return 1;
    }
    if (tval_new_list(r, TV_TUPLE, out) != 0 || tlist_push(r, out->list, &p->k) != 0 ||
        tlist_push(r, out->list, &p->v) != 0)
        return -1;
    return 1;
}

static int container_item(struct trun *r, const struct tval *v, size_t i, struct tval *out) {
    switch (v->kind) {
    case TV_LIST:
    case TV_TUPLE:
        *out = v->list->v[i];
        return 1;
    case TV_DICT:
        return pair_item(r, &v->dict->v[i], TVIEW_KEYS, out);
    case TV_VIEW:
        return pair_item(r, &v->view.of->v[i], v->view.what, out);
    case TV_RANGE:
        *out = tval_int(v->range->start + (int64_t)i * v->range->step);
        return 1;
    default:
        return 0;
    }
}

static int next_value(struct trun *r, struct titer *it, struct tval *out) {
    size_t n;
    uint32_t cp;
    if (it->src.kind == TV_STR) {
        struct tstr s = it->src.s;
        if (it->at >= s.n)
            return 0;
        size_t len = tstr_next(s.p + it->at, s.n - it->at, &cp);
        *out = tval_str(tstr_sub(s, it->at, len));
        it->at += len;
        return 1;
    }
    if (tval_len(r, &it->src, &n) != 0)
        return -1;
    if (it->at >= n)
        return 0;
    size_t i = it->at++;
    return container_item(r, &it->src, it->kind == IT_REVERSED ? n - 1 - i : i, out);
}

/* The item itself or what stands at the attribute path. */
static int looked_up(struct trun *r, const struct titer *it, const struct tval *item, struct tval *out) {
    *out = *item;
    if (!it->attr)
        return 0;
    if (tval_path(r, item, it->attr, out) != 0)
        return -1;
    if (it->preset && it->preset->kind != TV_NONE && out->kind == TV_UNDEF)
        *out = *it->preset;
    return 0;
}

static int next_mapped(struct trun *r, struct titer *it, struct tval *out) {
    struct tval item;
    int rc = titer_next(r, it->in, &item);
    if (rc <= 0)
        return rc;
    if (it->f)
        return tbuiltin_call(r, it->f, &item, &it->args, out) == 0 ? 1 : -1;
    return looked_up(r, it, &item, out) == 0 ? 1 : -1;
}

static int next_selected(struct trun *r, struct titer *it, struct tval *out) {
    int rc;
    while ((rc = titer_next(r, it->in, out)) > 0) {
        struct tval v, yes;
        if (looked_up(r, it, out, &v) != 0 || (it->f && tbuiltin_call(r, it->f, &v, &it->args, &yes) != 0))
            return -1;
        if (tval_truth(it->f ? &yes : &v) == it->want)
            return 1;
    }
    return rc;
}

static int next_unique(struct trun *r, struct titer *it, struct tval *out) {
    int rc;
    while ((rc = titer_next(r, it->in, out)) > 0) {
        struct tval v, none = tval_none(), *old;
        if (looked_up(r, it, out, &v) != 0)
            return -1;
        if (v.kind == TV_STR && !it->case_sensitive) {
            struct tsink k = trun_sink(r);
            tstr_case(&k, v.s, TSTR_LOWER);
            if (trun_text(r, &k, &v.s) != 0)
                return -1;
        }
        if (tdict_find(r, it->seen.dict, &v, &old) != 0)
            return -1;
        if (!old)
            return tdict_set(r, it->seen.dict, &v, &none) == 0 ? 1 : -1;
    }
    return rc;
}

/* The if of a for: the target is bound in a scope of its own. */
static int next_where(struct trun *r, struct titer *it, struct tval *out) {
    int rc;
    while ((rc = titer_next(r, it->in, out)) > 0) {
        struct tval yes;
        if (texec_assign(r, it->scope, it->target, out) != 0 || teval(r, it->scope, it->test, &yes) != 0)
            return -1;
        if (tval_truth(&yes))
            return 1;
    }
    return rc;
}

static int open_source(struct trun *r, struct titer *it) {
    struct tval src = it->src;
    if (it->kind == IT_ITEMS && src.kind == TV_DICT)
        src = (struct tval){.kind = TV_VIEW, .view = {src.dict, TVIEW_ITEMS}};
    else if (it->kind == IT_ITEMS && src.kind != TV_UNDEF)
        return trun_fail(r, "the filter 'items' needs a dict, not %s", tval_type(&src));
    return titer_of(r, &src, &it->in);
}

int titer_next(struct trun *r, struct titer *it, struct tval *out) {
    if (trun_spend(r, 1) != 0)
        return -1;
    if (it->kind == IT_VALUES || it->kind == IT_REVERSED)
        return next_value(r, it, out);
    if (trun_enter(r) != 0) /* iterators over iterators over ... */
        return -1;
    if (!it->in && open_source(r, it) != 0)
        return -1;
    int rc = it->kind == IT_MAP      ? next_mapped(r, it, out)
             : it->kind == IT_SELECT ? next_selected(r, it, out)
             : it->kind == IT_UNIQUE ? next_unique(r, it, out)
             : it->kind == IT_ITEMS  ? titer_next(r, it->in, out)
                                     : next_where(r, it, out);
    trun_leave(r);
    return rc;
}

int titer_list(struct trun *r, const struct tval *v, struct tval *out) {
    struct titer *it;
    struct tval item, l;
    int rc;
    if (titer_of(r, v, &it) != 0 || tval_new_list(r, TV_LIST, &l) != 0)
        return -1;
    while ((rc = titer_next(r, it, &item)) > 0)
        if (tlist_push(r, l.list, &item) != 0)
            return -1;
    *out = l;
    return rc;
}

/* An iterator of the kind over v, as a value. Like a Python generator it looks at v only when it is walked. */
static struct titer *over(struct trun *r, enum iter_kind kind, const struct tval *v, struct tval *out) {
    struct titer *it = iter_new(r, kind);
    if (!it)
        return NULL;
    bool nothing = (kind == IT_MAP || kind == IT_SELECT) && !tval_truth(v); /* jinja2 asks "if value" */
    it->src = nothing ? tval_undef(NULL) : *v;
    iter_value(out, it);
    return it;
}

int titer_map(struct trun *r, const struct tval *v, const struct targs *args, struct tval *out) {
    struct titer *it = over(r, IT_MAP, v, out);
    if (!it)
        return -1;
    if (args->n_pos) {
        if (args->pos[0].kind != TV_STR || !(it->f = tfilter_find(args->pos[0].s)))
            return trun_fail(r, "map with a filter that is not supported");
        it->args = *args;
        it->args.pos++;
        it->args.n_pos--;
        return 0;
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        if (tstr_is(args->kw[i].name, "attribute"))
            it->attr = &args->kw[i].v;
        else if (tstr_is(args->kw[i].name, "default"))
            it->preset = &args->kw[i].v;
        else
            return trun_fail(r, "map takes a filter, or attribute= and default=");
    }
    return it->attr ? 0 : trun_fail(r, "map takes a filter, or attribute= and default=");
}

int titer_select(struct trun *r, const struct tval *v, const struct targs *args, bool by_attr, bool want,
                 struct tval *out) {
    struct titer *it = over(r, IT_SELECT, v, out);
    if (!it)
        return -1;
    it->want = want;
    it->args = *args;
    if (by_attr) {
        if (!args->n_pos)
            return trun_fail(r, "selectattr and rejectattr need the name of an attribute");
        it->attr = &args->pos[0];
        it->args.pos++;
        it->args.n_pos--;
    }
    if (!it->args.n_pos)
        return 0;
    if (it->args.pos[0].kind != TV_STR || !(it->f = ttest_find(it->args.pos[0].s)))
        return trun_fail(r, "select or reject with a test that is not supported");
    it->args.pos++;
    it->args.n_pos--;
    return 0;
}

int titer_unique(struct trun *r, const struct tval *v, bool case_sensitive, const struct tval *attr, struct tval *out) {
    struct titer *it = over(r, IT_UNIQUE, v, out);
    if (!it || tval_new_dict(r, TV_DICT, &it->seen) != 0)
        return -1;
    it->case_sensitive = case_sensitive;
    it->attr = attr && attr->kind != TV_NONE ? attr : NULL;
    return 0;
}

int titer_items(struct trun *r, const struct tval *v, struct tval *out) {
    struct titer *it = over(r, IT_ITEMS, v, out);
    return it ? 0 : -1;
}

int titer_reversed(struct trun *r, const struct tval *v, struct tval *out) {
    struct titer *it;
    if (v->kind == TV_ITER) { /* Python can only reverse a generator by making a list of it */
        if (titer_list(r, v, out) != 0)
            return -1;
        tlist_reverse(out->list);
        return 0;
    }
    if (titer_of(r, v, &it) != 0)
        return -1;
    it->kind = IT_REVERSED;
    iter_value(out, it);
    return 0;
}

int titer_where(struct trun *r, const struct tval *v, struct tscope *s, const struct tnode *target,
                const struct tnode *test, struct titer **out) {
    struct titer *it = iter_new(r, IT_WHERE);
    if (!it || titer_of(r, v, &it->in) != 0)
        return -1;
    it->scope = tarena_alloc(r->a, sizeof *it->scope);
    if (!it->scope)
        return trun_memory(r);
    it->scope->up = s;
    it->target = target;
    it->test = test;
    *out = it;
    return 0;
}
