/* Attributes, items and slices, with jinja2's way of trying both an attribute and an item. */
#include "tok/template/run.h"

#include <string.h>

/* What Python's getattr would find. *found false: nothing. */
static int python_attr(struct trun *r, const struct tval *obj, struct tstr name, struct tval *out, bool *found) {
    *found = true;
    if (obj->kind == TV_NAMESPACE) {
        struct tval key = tval_str(name), *v;
        if (tdict_find(r, obj->dict, &key, &v) != 0)
            return -1;
        *found = v != NULL;
        if (v)
            *out = *v;
        return 0;
    }
    const struct tbuiltin *m = tmethod_find(obj->kind, name);
    if (m) {
        struct tval *self = trun_box(r, obj);
        if (!self)
            return -1;
        *out = (struct tval){.kind = TV_METHOD, .func = {m, self}};
        return 0;
    }
    if (obj->kind == TV_LOOP) {
        if (tmethod_refused(obj->kind, name))
            return trun_fail(r, "this attribute of a loop is not supported");
        return tloop_attr(r, obj->loop, name, out, found);
    }
    if (tmethod_refused(obj->kind, name) || (name.n >= 2 && memcmp(name.p, "__", 2) == 0 && obj->kind != TV_DICT))
        return trun_fail(r, "this attribute of a %s is not supported", tval_type(obj));
    *found = false;
    return 0;
}

/* obj[key] where an absent key is no error. */
static int python_item(struct trun *r, const struct tval *obj, const struct tval *key, struct tval *out, bool *found) {
    struct tval *v;
    int64_t i;
    size_t n;
    *found = false;
    if (obj->kind == TV_DICT) {
        if (!tval_hashable(key))
            return 0; /* a TypeError, which jinja2 catches too */
        if (tdict_find(r, obj->dict, key, &v) != 0)
            return -1;
        *found = v != NULL;
        if (v)
            *out = *v;
        return 0;
    }
    bool indexed = obj->kind == TV_STR || obj->kind == TV_LIST || obj->kind == TV_TUPLE || obj->kind == TV_RANGE;
    if (!indexed || !tval_as_int(key, &i))
        return 0;
    if (tval_len(r, obj, &n) != 0)
        return -1;
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n)
        return 0;
    *found = true;
    if (obj->kind == TV_RANGE) {
        *out = tval_int(obj->range->start + i * obj->range->step);
    } else if (obj->kind == TV_STR) {
        uint32_t cp;
        size_t off = tstr_offset(obj->s, (size_t)i);
        *out = tval_str(tstr_sub(obj->s, off, tstr_next(obj->s.p + off, obj->s.n - off, &cp)));
    } else {
        *out = obj->list->v[i];
    }
    return 0;
}

int tval_attr(struct trun *r, const struct tval *obj, struct tstr name, struct tval *out) {
    bool found;
    struct tval key = tval_str(name);
    if (obj->kind == TV_UNDEF)
        return trun_undefined(r, obj);
    if (python_attr(r, obj, name, out, &found) != 0)
        return -1;
    if (!found && python_item(r, obj, &key, out, &found) != 0)
        return -1;
    if (!found)
        *out = tval_missing(obj, name);
    return 0;
}

int tval_item(struct trun *r, const struct tval *obj, const struct tval *key, struct tval *out) {
    bool found;
    if (obj->kind == TV_UNDEF)
        return trun_undefined(r, obj);
    if (python_item(r, obj, key, out, &found) != 0)
        return -1;
    if (!found && key->kind == TV_STR && python_attr(r, obj, key->s, out, &found) != 0)
        return -1;
    if (!found)
        *out = tval_missing(obj, key->kind == TV_STR ? key->s : tstr_lit("such element"));
    return 0;
}

int tval_path(struct trun *r, const struct tval *obj, const struct tval *path, struct tval *out) {
    struct tval at = *obj;
    if (path->kind != TV_STR) {
        if (path->kind != TV_INT)
            return trun_fail(r, "an attribute path must be a str or int, not %s", tval_type(path));
        return tval_item(r, obj, path, out);
    }
    for (size_t from = 0; from <= path->s.n;) {
        size_t dot = tstr_find(path->s, tstr_lit("."), from);
        size_t end = dot == SIZE_MAX ? path->s.n : dot;
        struct tstr part = tstr_sub(path->s, from, end - from);
        struct tval key = tval_str(part), next;
        bool digits = part.n > 0;
        for (size_t i = 0; i < part.n; i++)
            digits = digits && part.p[i] >= '0' && part.p[i] <= '9';
        if (digits) {
            key.kind = TV_INT;
            if (tval_parse_int(part, &key.i) != 0)
                return trun_fail(r, "a number in an attribute path is too large");
        }
        if (tval_item(r, &at, &key, &next) != 0)
            return -1;
        at = next;
        from = end + 1;
    }
    *out = at;
    return 0;
}

/* Python's slice.indices. */
static int indices(struct trun *r, const struct tval *from, const struct tval *to, const struct tval *step, size_t n,
                   int64_t *start, int64_t *count, int64_t *by) {
    int64_t len = (int64_t)n, a, b;
    *by = 1;
    if (step && step->kind != TV_NONE && !tval_as_int(step, by))
        return trun_fail(r, "a slice needs whole numbers, not %s", tval_type(step));
    if (*by == 0)
        return trun_fail(r, "the step of a slice is zero");
    if (*by < -INT64_MAX)
        *by = -INT64_MAX;
    int64_t low = *by < 0 ? -1 : 0, high = *by < 0 ? len - 1 : len;
    a = *by < 0 ? high : low;
    b = *by < 0 ? low : high;
    for (int i = 0; i < 2; i++) {
        const struct tval *v = i ? to : from;
        int64_t k;
        if (!v || v->kind == TV_NONE)
            continue;
        if (!tval_as_int(v, &k))
            return trun_fail(r, "a slice needs whole numbers, not %s", tval_type(v));
        if (k < 0)
            k += len;
        k = k < low ? low : k > high ? high : k;
        *(i ? &b : &a) = k;
    }
    *start = a;
    *count = *by > 0 ? (b > a ? (b - a - 1) / *by + 1 : 0) : (a > b ? (a - b - 1) / -*by + 1 : 0);
    return 0;
}

static int slice_str(struct trun *r, struct tstr s, int64_t start, int64_t count, int64_t by, struct tval *out) {
    struct tsink k = trun_sink(r);
    uint32_t cp;
    out->kind = TV_STR;
    if (count == 0) {
        out->s = tstr_sub(s, 0, 0);
        return 0;
    }
    size_t at = tstr_offset(s, (size_t)start);
    if (by == 1) {
        struct tstr rest = tstr_sub(s, at, s.n - at);
        out->s = tstr_sub(rest, 0, tstr_offset(rest, (size_t)count));
        return 0;
    }
    for (int64_t i = 0;;) {
        size_t len = tstr_next(s.p + at, s.n - at, &cp);
        tsink_put(&k, tstr_sub(s, at, len));
        if (++i == count)
            break;
        for (int64_t j = 0; j < by; j++)
            at += tstr_next(s.p + at, s.n - at, &cp);
        for (int64_t j = 0; j < -by; j++)
            at -= tstr_prev(s.p, at, &cp);
    }
    int rc = trun_text(r, &k, &out->s);
    out->s.safe = s.safe;
    return rc;
}

int tval_slice(struct trun *r, const struct tval *obj, const struct tval *from, const struct tval *to,
               const struct tval *step, struct tval *out) {
    int64_t start = 0, count = 0, by = 1;
    size_t n;
    if (obj->kind == TV_UNDEF)
        return trun_undefined(r, obj);
    if (obj->kind != TV_STR && obj->kind != TV_LIST && obj->kind != TV_TUPLE)
        return trun_fail(r, "a slice of a %s is not supported", tval_type(obj));
    if (tval_len(r, obj, &n) != 0 || indices(r, from, to, step, n, &start, &count, &by) != 0)
        return -1;
    if (obj->kind == TV_STR) {
        return trun_spend_bytes(r, obj->s.n) != 0 ? -1 : slice_str(r, obj->s, start, count, by, out);
    }
    struct tval l;
    if (tval_new_list(r, obj->kind, &l) != 0)
        return -1;
    for (int64_t i = 0; i < count; i++)
        if (tlist_push(r, l.list, &obj->list->v[start + i * by]) != 0)
            return -1;
    *out = l;
    return 0;
}
