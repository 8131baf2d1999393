/* str() and repr(). */
#include "tok/template/run.h"

#include <stdio.h>
#include <string.h>

static void repr_str(struct tsink *k, struct tstr s) {
    bool single = tstr_find(s, tstr_lit("'"), 0) != SIZE_MAX, twice = tstr_find(s, tstr_lit("\""), 0) != SIZE_MAX;
    uint32_t quote = single && !twice ? '"' : '\'', cp;
    tsink_char(k, quote, false);
    for (size_t i = 0, len; i < s.n; i += len) {
        char esc[16] = "";
        len = tstr_next(s.p + i, s.n - i, &cp);
        if (cp == '\\' || cp == quote)
            snprintf(esc, sizeof esc, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            snprintf(esc, sizeof esc, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp == TSTR_INVALID)
            snprintf(esc, sizeof esc, "\\udc%02x", (unsigned)(unsigned char)s.p[i]);
        else if (!tstr_printable(cp))
            snprintf(esc, sizeof esc, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
        if (esc[0])
            tsink_lit(k, esc);
        else
            tsink_put(k, tstr_sub(s, i, len));
    }
    tsink_char(k, quote, false);
}

static int repr_items(struct trun *r, struct tsink *k, const struct tlist *l) {
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            tsink_lit(k, ", ");
        if (tval_repr(r, k, &l->v[i]) != 0)
            return -1;
    }
    return 0;
}

static int repr_dict(struct trun *r, struct tsink *k, const struct tdict *d) {
    tsink_lit(k, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            tsink_lit(k, ", ");
        if (tval_repr(r, k, &d->v[i].k) != 0)
            return -1;
        tsink_lit(k, ": ");
        if (tval_repr(r, k, &d->v[i].v) != 0)
            return -1;
    }
    tsink_lit(k, "}");
    return 0;
}

static int repr_view(struct trun *r, struct tsink *k, const struct tval *v) {
    const struct tdict *d = v->view.of;
    tsink_lit(k, tval_type(v));
    tsink_lit(k, "([");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            tsink_lit(k, ", ");
        bool items = v->view.what == TVIEW_ITEMS;
        if (items)
            tsink_lit(k, "(");
        if (v->view.what != TVIEW_VALUES && tval_repr(r, k, &d->v[i].k) != 0)
            return -1;
        if (items)
            tsink_lit(k, ", ");
        if (v->view.what != TVIEW_KEYS && tval_repr(r, k, &d->v[i].v) != 0)
            return -1;
        if (items)
            tsink_lit(k, ")");
    }
    tsink_lit(k, "])");
    return 0;
}

static int repr_container(struct trun *r, struct tsink *k, const struct tval *v) {
    if (v->kind == TV_DICT)
        return repr_dict(r, k, v->dict);
    if (v->kind == TV_VIEW)
        return repr_view(r, k, v);
    tsink_lit(k, v->kind == TV_LIST ? "[" : "(");
    if (repr_items(r, k, v->list) != 0)
        return -1;
    tsink_lit(k, v->kind == TV_LIST ? "]" : v->list->n == 1 ? ",)" : ")");
    return 0;
}

int tval_repr(struct trun *r, struct tsink *k, const struct tval *v) {
    char text[100];
    if (trun_spend(r, 1) != 0)
        return -1;
    switch (v->kind) {
    case TV_UNDEF:
        tsink_lit(k, "Undefined");
        return 0;
    case TV_NONE:
        tsink_lit(k, "None");
        return 0;
    case TV_BOOL:
        tsink_lit(k, v->b ? "True" : "False");
        return 0;
    case TV_INT:
        snprintf(text, sizeof text, "%lld", (long long)v->i);
        tsink_lit(k, text);
        return 0;
    case TV_FLOAT:
        tval_print_double(k, v->f);
        return 0;
    case TV_STR:
        tsink_lit(k, v->s.safe ? "Markup(" : "");
        repr_str(k, v->s);
        tsink_lit(k, v->s.safe ? ")" : "");
        return trun_spend_bytes(r, v->s.n);
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_VIEW:
        if (trun_enter(r) != 0)
            return -1;
        int rc = repr_container(r, k, v);
        trun_leave(r);
        return rc;
    case TV_RANGE: {
        const struct trange *g = v->range;
        int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)g->start, (long long)g->stop);
        snprintf(text + n, sizeof text - (size_t)n, g->step == 1 ? ")" : ", %lld)", (long long)g->step);
        tsink_lit(k, text);
        return 0;
    }
    default:
        return trun_fail(r, "printing a %s is not supported", tval_type(v));
    }
}

int tval_print(struct trun *r, struct tsink *k, const struct tval *v) {
    if (v->kind == TV_STR) {
        tsink_put(k, v->s);
        return trun_spend_bytes(r, v->s.n);
    }
    if (v->kind == TV_UNDEF)
        return 0;
    if (v->kind != TV_LIST && v->kind != TV_TUPLE && v->kind != TV_DICT && v->kind != TV_VIEW)
        return tval_repr(r, k, v);
    /* A container with user text in it is user text altogether: its quotes and commas belong to no template. */
    struct tsink whole = trun_sink(r);
    struct tstr s;
    if (tval_repr(r, &whole, v) != 0 || trun_text(r, &whole, &s) != 0)
        return -1;
    tsink_bytes(k, s.p, s.n, tstr_has_user(s));
    return 0;
}

int tval_to_str(struct trun *r, const struct tval *v, struct tstr *out) {
    if (v->kind == TV_STR) {
        *out = v->s;
        return 0;
    }
    struct tsink k = trun_sink(r);
    return tval_print(r, &k, v) != 0 ? -1 : trun_text(r, &k, out);
}

int tval_escape(struct trun *r, struct tstr s, struct tstr *out) {
    static const char special[] = "&<>'\"";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct tsink k = trun_sink(r);
    *out = s;
    if (s.safe)
        return 0;
    for (size_t i = 0; i < s.n; i++) {
        const char *hit = s.p[i] ? strchr(special, s.p[i]) : NULL;
        struct tstr one = tstr_sub(s, i, 1);
        if (hit)
            tsink_bytes(&k, entity[hit - special], strlen(entity[hit - special]), tstr_has_user(one));
        else
            tsink_put(&k, one);
    }
    if (trun_text(r, &k, out) != 0)
        return -1;
    out->safe = true;
    return 0;
}
