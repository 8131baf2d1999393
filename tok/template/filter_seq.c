/* Filters that walk a sequence to its end or put it in order. */
#include "tok/template/builtin.h"

int tfilter_first(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct titer *it;
    (void)c;
    if (titer_of(r, self, &it) != 0)
        return -1;
    int rc = titer_next(r, it, out);
    if (rc == 0)
        *out = tval_undef("the first item of an empty sequence");
    return rc < 0 ? -1 : 0;
}

int tfilter_last(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval back, minus = tval_int(-1);
    (void)c;
    if (self->kind == TV_ITER)
        return trun_fail(r, "the filter 'last' needs a sequence that can be reversed, not a generator");
    if (self->kind == TV_STR) {
        if (tval_item(r, self, &minus, out) != 0)
            return -1;
    } else if (titer_reversed(r, self, &back) != 0 || tfilter_first(r, &back, c, out) != 0) {
        return -1;
    }
    if (out->kind == TV_UNDEF && !tval_truth(self))
        *out = tval_undef("the last item of an empty sequence");
    return 0;
}

static bool given(const struct tval *v) {
    return v && v->kind != TV_NONE;
}

int tfilter_join(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct tstr sep = tstr_lit(""), s;
    struct titer *it;
    struct tval item;
    int rc;
    if (c->arg[0] && tval_to_str(r, c->arg[0], &sep) != 0)
        return -1;
    if (titer_of(r, self, &it) != 0)
        return -1;
    for (bool first = true; (rc = titer_next(r, it, &item)) > 0; first = false) {
        if (given(c->arg[1]) && tval_path(r, &item, c->arg[1], &item) != 0)
            return -1;
        if (tval_to_str(r, &item, &s) != 0)
            return -1;
        if (!first)
            tsink_put(&k, sep);
        tsink_put(&k, s);
    }
    out->kind = TV_STR;
    return rc < 0 ? -1 : trun_text(r, &k, &out->s);
}

int tfilter_sum(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct titer *it;
    struct tval item, sum = c->arg[1] ? *c->arg[1] : tval_int(0);
    int rc;
    if (sum.kind == TV_STR)
        return trun_fail(r, "the filter 'sum' does not add strings; use join");
    if (titer_of(r, self, &it) != 0)
        return -1;
    while ((rc = titer_next(r, it, &item)) > 0) {
        if (given(c->arg[0]) && tval_path(r, &item, c->arg[0], &item) != 0)
            return -1;
        if (tval_add(r, &sum, &item, &sum) != 0)
            return -1;
    }
    *out = sum;
    return rc;
}

/* What an item is compared by: the value at the attribute path, in lower case unless case matters. */
static int sort_key(struct trun *r, const struct tval *item, const struct tval *attr, bool case_sensitive,
                    struct tval *out) {
    *out = *item;
    if (given(attr) && tval_path(r, item, attr, out) != 0)
        return -1;
    if (out->kind != TV_STR || case_sensitive)
        return 0;
    struct tsink k = trun_sink(r);
    tstr_case(&k, out->s, TSTR_LOWER);
    return trun_text(r, &k, &out->s);
}

static int extreme(struct trun *r, const struct tval *self, const struct tcall *c, bool max, struct tval *out) {
    struct titer *it;
    struct tval item, key, best;
    int rc;
    bool any = false;
    if (titer_of(r, self, &it) != 0)
        return -1;
    while ((rc = titer_next(r, it, &item)) > 0) {
        bool better = true;
        if (sort_key(r, &item, c->arg[1], tcall_flag(c, 0), &key) != 0)
            return -1;
        if (any && tval_less(r, max ? &best : &key, max ? &key : &best, &better) != 0)
            return -1;
        if (better) {
            best = key;
            *out = item;
        }
        any = true;
    }
    if (!any)
        *out = tval_undef("the smallest or largest item of an empty sequence");
    return rc;
}

int tfilter_min(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return extreme(r, self, c, false, out);
}
int tfilter_max(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return extreme(r, self, c, true, out);
}

struct keyed {
    struct tval item, key;
};

/* Merge sort, stable in both directions. */
static int sort_range(struct trun *r, struct keyed *v, struct keyed *tmp, size_t n, bool down) {
    if (n < 2)
        return 0;
    size_t half = n / 2, i = 0, j = half, k = 0;
    if (sort_range(r, v, tmp, half, down) != 0 || sort_range(r, v + half, tmp, n - half, down) != 0)
        return -1;
    while (i < half && j < n) {
        bool second;
        if (tval_less(r, down ? &v[i].key : &v[j].key, down ? &v[j].key : &v[i].key, &second) != 0)
            return -1;
        tmp[k++] = second ? v[j++] : v[i++];
    }
    while (i < half)
        tmp[k++] = v[i++];
    while (j < n)
        tmp[k++] = v[j++];
    for (i = 0; i < n; i++)
        v[i] = tmp[i];
    return 0;
}

static int sort_list(struct trun *r, struct tval *list, struct keyed *v, bool down) {
    size_t n = list->list->n;
    struct keyed *tmp = tarena_array(r->a, n, sizeof *tmp);
    if (!tmp)
        return trun_memory(r);
    if (sort_range(r, v, tmp, n, down) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        list->list->v[i] = v[i].item;
    return 0;
}

/* jinja2 sorts by a list of keys, one for each attribute of "a,b". */
static int sort_keys(struct trun *r, const struct tval *item, const struct tval *attr, bool case_sensitive,
                     struct tval *out) {
    struct tval key, part;
    if (tval_new_list(r, TV_LIST, out) != 0)
        return -1;
    if (!given(attr) || attr->kind != TV_STR)
        return sort_key(r, item, attr, case_sensitive, &key) != 0 ? -1 : tlist_push(r, out->list, &key);
    for (size_t from = 0; from <= attr->s.n;) {
        size_t comma = tstr_find(attr->s, tstr_lit(","), from), end = comma == SIZE_MAX ? attr->s.n : comma;
        part = tval_str(tstr_sub(attr->s, from, end - from));
        if (sort_key(r, item, &part, case_sensitive, &key) != 0 || tlist_push(r, out->list, &key) != 0)
            return -1;
        from = end + 1;
    }
    return 0;
}

int tfilter_sort(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    if (titer_list(r, self, out) != 0)
        return -1;
    size_t n = out->list->n;
    struct keyed *v = tarena_array(r->a, n, sizeof *v);
    if (!v)
        return trun_memory(r);
    for (size_t i = 0; i < n; i++) {
        v[i].item = out->list->v[i];
        if (sort_keys(r, &v[i].item, c->arg[2], tcall_flag(c, 1), &v[i].key) != 0)
            return -1;
    }
    return sort_list(r, out, v, tcall_flag(c, 0));
}

int tfilter_dictsort(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr by = tstr_lit("key");
    if (self->kind != TV_DICT)
        return self->kind == TV_UNDEF ? trun_undefined(r, self)
                                      : trun_fail(r, "the filter 'dictsort' needs a dict, not %s", tval_type(self));
    if (c->arg[1] && tcall_str(r, c->arg[1], "what dictsort sorts by", &by) != 0)
        return -1;
    bool by_key = tstr_is(by, "key");
    if (!by_key && !tstr_is(by, "value"))
        return trun_fail(r, "dictsort sorts by \"key\" or by \"value\"");
    struct tval view = {.kind = TV_VIEW, .view = {self->dict, TVIEW_ITEMS}};
    if (titer_list(r, &view, out) != 0)
        return -1;
    size_t n = out->list->n;
    struct keyed *v = tarena_array(r->a, n, sizeof *v);
    if (!v)
        return trun_memory(r);
    for (size_t i = 0; i < n; i++) {
        const struct tpair *p = &self->dict->v[i];
        v[i].item = out->list->v[i];
        if (sort_key(r, by_key ? &p->k : &p->v, NULL, tcall_flag(c, 0), &v[i].key) != 0)
            return -1;
    }
    return sort_list(r, out, v, tcall_flag(c, 2));
}
