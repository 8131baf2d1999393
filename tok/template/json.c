/* JSON: values in (extra variables), text out (the tojson filter, as Python's json.dumps writes it). */
#include "tok/template/run.h"

#include <stdio.h>
#include <string.h>
#include <yyjson.h>

int tjson_read(struct trun *r, yyjson_val *j, struct tval *out) {
    if (trun_spend(r, 1) != 0)
        return -1;
    size_t i, n;
    yyjson_val *k, *v;
    struct tval key, item;
    int rc = 0;
    switch (yyjson_get_type(j)) {
    case YYJSON_TYPE_NULL:
        *out = tval_none();
        return 0;
    case YYJSON_TYPE_BOOL:
        *out = tval_bool(yyjson_get_bool(j));
        return 0;
    case YYJSON_TYPE_NUM:
        if (yyjson_is_real(j)) {
            *out = tval_float(yyjson_get_real(j));
            return 0;
        }
        if (yyjson_is_uint(j) && yyjson_get_uint(j) > INT64_MAX)
            return trun_fail(r, "a number in the JSON variables is too large");
        *out = tval_int(yyjson_get_sint(j));
        return 0;
    case YYJSON_TYPE_STR:
        *out = tval_str(tstr_of(yyjson_get_str(j), yyjson_get_len(j), true));
        return 0;
    case YYJSON_TYPE_ARR:
        if (trun_enter(r) != 0 || tval_new_list(r, TV_LIST, out) != 0)
            return -1;
        yyjson_arr_foreach(j, i, n, v) {
            if ((rc = tjson_read(r, v, &item)) != 0 || (rc = tlist_push(r, out->list, &item)) != 0)
                break;
        }
        trun_leave(r);
        return rc;
    case YYJSON_TYPE_OBJ:
        if (trun_enter(r) != 0 || tval_new_dict(r, TV_DICT, out) != 0)
            return -1;
        yyjson_obj_foreach(j, i, n, k, v) {
            key = tval_str(tstr_of(yyjson_get_str(k), yyjson_get_len(k), true));
            if ((rc = tjson_read(r, v, &item)) != 0 || (rc = tdict_set(r, out->dict, &key, &item)) != 0)
                break;
        }
        trun_leave(r);
        return rc;
    default:
        return trun_fail(r, "the JSON variables hold something unknown");
    }
}

struct writer {
    struct trun *r;
    struct tsink *k;
    bool ascii, sort, indented;
    struct tstr indent, item_sep, key_sep;
    int level;
};

/* The escape of one character; "" when it stands for itself. byte: what it is when it is not valid UTF-8. */
static void escape(char out[24], uint32_t cp, unsigned char byte, bool ascii) {
    static const char named[] = "\"\\\n\r\t\f\b", letter[] = "\"\\nrtfb";
    const char *hit = cp && cp < 0x80 ? strchr(named, (int)cp) : NULL;
    out[0] = '\0';
    if (hit)
        snprintf(out, 24, "\\%c", letter[hit - named]);
    else if (cp < 0x20 || (ascii && cp > 0x7e && cp < 0x10000))
        snprintf(out, 24, "\\u%04x", (unsigned)cp);
    else if (ascii && cp == TSTR_INVALID)
        snprintf(out, 24, "\\udc%02x", byte);
    else if (ascii && cp >= 0x10000)
        snprintf(out, 24, "\\u%04x\\u%04x", 0xd7c0 + (unsigned)(cp >> 10), 0xdc00 + (unsigned)(cp & 0x3ff));
}

static void put_string(struct writer *w, struct tstr s) {
    uint32_t cp;
    tsink_lit(w->k, "\"");
    for (size_t i = 0, len; i < s.n; i += len) {
        char esc[24];
        len = tstr_next(s.p + i, s.n - i, &cp);
        escape(esc, cp, (unsigned char)s.p[i], w->ascii);
        if (esc[0])
            tsink_lit(w->k, esc);
        else
            tsink_put(w->k, tstr_sub(s, i, len));
    }
    tsink_lit(w->k, "\"");
}

static void newline(struct writer *w) {
    if (!w->indented)
        return;
    tsink_lit(w->k, "\n");
    for (int i = 0; i < w->level; i++)
        tsink_put(w->k, w->indent);
}

static int put_value(struct writer *w, const struct tval *v);

static int put_scalar(struct writer *w, const struct tval *v) {
    switch (v->kind) {
    case TV_NONE:
        tsink_lit(w->k, "null");
        return 0;
    case TV_BOOL:
        tsink_lit(w->k, v->b ? "true" : "false");
        return 0;
    case TV_INT:
        return tval_print(w->r, w->k, v);
    case TV_FLOAT:
        if (v->f != v->f)
            tsink_lit(w->k, "NaN");
        else if (v->f - v->f != 0)
            tsink_lit(w->k, v->f < 0 ? "-Infinity" : "Infinity");
        else
            tval_print_double(w->k, v->f);
        return 0;
    default:
        return trun_fail(w->r, "a %s cannot be written as JSON", tval_type(v));
    }
}

static int put_key(struct writer *w, const struct tval *k) {
    if (k->kind == TV_STR) {
        put_string(w, k->s);
        return 0;
    }
    tsink_lit(w->k, "\"");
    int rc = put_scalar(w, k);
    tsink_lit(w->k, "\"");
    return rc;
}

/* The pairs in order of their keys. */
static int sort_pairs(struct writer *w, const struct tdict *d, const struct tpair **p) {
    for (size_t i = 0; i < d->n; i++) {
        size_t j = i;
        for (; j; j--) {
            bool less;
            if (tval_less(w->r, &d->v[i].k, &p[j - 1]->k, &less) != 0)
                return -1;
            if (!less)
                break;
            p[j] = p[j - 1];
        }
        p[j] = &d->v[i];
    }
    return 0;
}

static int put_dict(struct writer *w, const struct tdict *d) {
    const struct tpair **order = tarena_array(w->r->a, d->n, sizeof *order);
    if (!order)
        return trun_memory(w->r);
    for (size_t i = 0; i < d->n; i++)
        order[i] = &d->v[i];
    if (w->sort && sort_pairs(w, d, order) != 0)
        return -1;
    tsink_lit(w->k, "{");
    w->level++;
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            tsink_put(w->k, w->item_sep);
        newline(w);
        if (put_key(w, &order[i]->k) != 0)
            return -1;
        tsink_put(w->k, w->key_sep);
        if (put_value(w, &order[i]->v) != 0)
            return -1;
    }
    w->level--;
    if (d->n)
        newline(w);
    tsink_lit(w->k, "}");
    return 0;
}

static int put_list(struct writer *w, const struct tlist *l) {
    tsink_lit(w->k, "[");
    w->level++;
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            tsink_put(w->k, w->item_sep);
        newline(w);
        if (put_value(w, &l->v[i]) != 0)
            return -1;
    }
    w->level--;
    if (l->n)
        newline(w);
    tsink_lit(w->k, "]");
    return 0;
}

static int put_value(struct writer *w, const struct tval *v) {
    if (trun_spend(w->r, 1) != 0)
        return -1;
    if (v->kind == TV_STR) {
        put_string(w, v->s);
        return trun_spend_bytes(w->r, v->s.n);
    }
    if (v->kind != TV_DICT && v->kind != TV_LIST && v->kind != TV_TUPLE)
        return put_scalar(w, v);
    if (trun_enter(w->r) != 0)
        return -1;
    int rc = v->kind == TV_DICT ? put_dict(w, v->dict) : put_list(w, v->list);
    trun_leave(w->r);
    return rc;
}

static int read_style(struct writer *w, const struct tjson_style *style) {
    struct trun *r = w->r;
    int64_t n;
    w->item_sep = tstr_lit(", ");
    w->key_sep = tstr_lit(": ");
    if (style->indent && style->indent->kind != TV_NONE) {
        w->indented = true;
        w->item_sep = tstr_lit(",");
        if (style->indent->kind == TV_STR) {
            w->indent = style->indent->s;
        } else if (tval_as_int(style->indent, &n)) {
            struct tsink k = trun_sink(r);
            if (n > 1000)
                return trun_fail(r, "tojson's indent is too large");
            for (int64_t i = 0; i < n; i++)
                tsink_lit(&k, " ");
            if (trun_text(r, &k, &w->indent) != 0)
                return -1;
        } else {
            return trun_fail(r, "tojson's indent is a %s", tval_type(style->indent));
        }
    }
    const struct tval *s = style->separators;
    if (!s || s->kind == TV_NONE)
        return 0;
    if ((s->kind != TV_TUPLE && s->kind != TV_LIST) || s->list->n != 2 || s->list->v[0].kind != TV_STR ||
        s->list->v[1].kind != TV_STR)
        return trun_fail(r, "tojson's separators must be two strings");
    w->item_sep = s->list->v[0].s;
    w->key_sep = s->list->v[1].s;
    return 0;
}

int tjson_write(struct trun *r, struct tsink *k, const struct tval *v, const struct tjson_style *style) {
    struct tsink whole = trun_sink(r);
    struct tstr s;
    struct writer w = {.r = r, .k = &whole, .ascii = style->ensure_ascii, .sort = style->sort_keys};
    if (read_style(&w, style) != 0 || put_value(&w, v) != 0 || trun_text(r, &whole, &s) != 0)
        return -1;
    tsink_bytes(k, s.p, s.n, tstr_has_user(s)); /* user data is user data with its braces and quotes */
    return 0;
}
