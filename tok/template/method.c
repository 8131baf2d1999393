/* Methods of strings, dicts and loops, as Python has them. */
#include "tok/template/builtin.h"

#include <string.h>

int ttext_strip(struct trun *r, struct tstr s, const struct tval *chars, bool left, bool right, struct tval *out) {
    struct tstr set;
    bool given = chars && chars->kind != TV_NONE;
    if (given && tcall_str(r, chars, "the argument of strip", &set) != 0)
        return -1;
    if (given && set.n > 64 && trun_spend(r, set.n / 64 * (s.n + 1)) != 0)
        return -1;
    *out = tval_str(tstr_strip(s, given ? &set : NULL, left, right));
    return trun_spend_bytes(r, s.n);
}

int ttext_case(struct trun *r, struct tstr s, enum tstr_case how, struct tval *out) {
    struct tsink k = trun_sink(r);
    tstr_case(&k, s, how);
    out->kind = TV_STR;
    int rc = trun_text(r, &k, &out->s);
    out->s.safe = s.safe;
    return rc;
}

int ttext_replace(struct trun *r, struct tstr s, struct tstr from, struct tstr to, int64_t count, struct tval *out) {
    struct tsink k = trun_sink(r);
    size_t at = 0;
    uint32_t cp;
    while (count != 0) {
        size_t hit = tstr_find(s, from, at);
        if (hit == SIZE_MAX || trun_spend(r, 1) != 0)
            break;
        tsink_put(&k, tstr_sub(s, at, hit - at));
        tsink_put(&k, to);
        at = hit + from.n;
        count -= count > 0;
        if (from.n == 0) { /* between all characters, and at both ends */
            if (at >= s.n) {
                at = s.n;
                break;
            }
            size_t len = tstr_next(s.p + at, s.n - at, &cp);
            tsink_put(&k, tstr_sub(s, at, len));
            at += len;
        }
    }
    tsink_put(&k, tstr_sub(s, at, s.n - at));
    out->kind = TV_STR;
    return r->e->kind ? -1 : trun_text(r, &k, &out->s);
}

bool ttext_line(struct tstr s, size_t *off, struct tstr *line) {
    uint32_t cp;
    if (*off >= s.n)
        return false;
    size_t from = *off, i = from;
    while (i < s.n) {
        size_t len = tstr_next(s.p + i, s.n - i, &cp);
        if ((cp >= 0x0a && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 || cp == 0x2029) {
            *line = tstr_sub(s, from, i - from);
            i += len;
            *off = i + (cp == '\r' && i < s.n && s.p[i] == '\n');
            return true;
        }
        i += len;
    }
    *line = tstr_sub(s, from, s.n - from);
    *off = s.n;
    return true;
}

static int str_strip(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return ttext_strip(r, self->s, c->arg[0], true, true, out);
}
static int str_lstrip(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return ttext_strip(r, self->s, c->arg[0], true, false, out);
}
static int str_rstrip(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return ttext_strip(r, self->s, c->arg[0], false, true, out);
}
static int str_upper(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return ttext_case(r, self->s, TSTR_UPPER, out);
}
static int str_lower(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return ttext_case(r, self->s, TSTR_LOWER, out);
}
static int str_title(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return ttext_case(r, self->s, TSTR_TITLE, out);
}
static int str_capitalize(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)c;
    return ttext_case(r, self->s, TSTR_CAPITALIZE, out);
}

static bool affix_is(struct tstr s, struct tstr affix, bool at_end) {
    return affix.n <= s.n && tstr_eq(tstr_sub(s, at_end ? s.n - affix.n : 0, affix.n), affix);
}

static int has_affix(struct trun *r, const struct tval *self, const struct tval *affix, bool at_end, struct tval *out) {
    bool yes = false;
    struct tstr s;
    if (affix->kind == TV_TUPLE) {
        for (size_t i = 0; i < affix->list->n && !yes; i++) {
            if (tcall_str(r, &affix->list->v[i], "each prefix or suffix", &s) != 0)
                return -1;
            yes = affix_is(self->s, s, at_end);
        }
    } else {
        if (tcall_str(r, affix, "a prefix or suffix", &s) != 0)
            return -1;
        yes = affix_is(self->s, s, at_end);
    }
    *out = tval_bool(yes);
    return 0;
}

static int str_startswith(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return has_affix(r, self, c->arg[0], false, out);
}
static int str_endswith(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return has_affix(r, self, c->arg[0], true, out);
}

static int remove_affix(struct trun *r, const struct tval *self, const struct tcall *c, bool at_end, struct tval *out) {
    struct tstr s = self->s, affix;
    if (tcall_str(r, c->arg[0], "a prefix or suffix", &affix) != 0)
        return -1;
    if (affix_is(s, affix, at_end))
        s = tstr_sub(s, at_end ? 0 : affix.n, s.n - affix.n);
    *out = tval_str(s);
    return 0;
}
static int str_removeprefix(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return remove_affix(r, self, c, false, out);
}
static int str_removesuffix(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return remove_affix(r, self, c, true, out);
}

static int find_in(struct trun *r, const struct tval *self, const struct tcall *c, bool last, struct tval *out) {
    struct tstr what;
    if (tcall_str(r, c->arg[0], "what find looks for", &what) != 0)
        return -1;
    if (last && what.n > 64 && trun_spend(r, what.n / 64 * (self->s.n + 1)) != 0)
        return -1;
    size_t hit = last ? tstr_rfind(self->s, what) : tstr_find(self->s, what, 0);
    *out = tval_int(hit == SIZE_MAX ? -1 : (int64_t)tstr_chars(tstr_sub(self->s, 0, hit)));
    return trun_spend_bytes(r, self->s.n);
}
static int str_find(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return find_in(r, self, c, false, out);
}
static int str_rfind(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return find_in(r, self, c, true, out);
}

static int str_count(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr what;
    int64_t n = 0;
    if (tcall_str(r, c->arg[0], "what count counts", &what) != 0)
        return -1;
    if (what.n == 0)
        n = (int64_t)tstr_chars(self->s) + 1;
    for (size_t at = 0; what.n && (at = tstr_find(self->s, what, at)) != SIZE_MAX; at += what.n)
        n++;
    *out = tval_int(n);
    return trun_spend_bytes(r, self->s.n);
}

static int str_replace(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr from, to;
    int64_t count = -1;
    if (tcall_str(r, c->arg[0], "what replace looks for", &from) != 0 ||
        tcall_str(r, c->arg[1], "what replace puts in", &to) != 0 || (self->s.safe && tval_escape(r, to, &to) != 0))
        return -1;
    if (c->arg[2] && !tval_as_int(c->arg[2], &count))
        return trun_fail(r, "the count of replace must be an int");
    int rc = ttext_replace(r, self->s, from, to, count, out);
    out->s.safe = self->s.safe;
    return rc;
}

static int str_join(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tsink k = trun_sink(r);
    struct titer *it;
    struct tval item;
    struct tstr s;
    int rc;
    if (titer_of(r, c->arg[0], &it) != 0)
        return -1;
    for (bool first = true; (rc = titer_next(r, it, &item)) > 0; first = false) {
        if (tcall_str(r, &item, "each item that join joins", &s) != 0 || (self->s.safe && tval_escape(r, s, &s) != 0))
            return -1;
        if (!first)
            tsink_put(&k, self->s);
        tsink_put(&k, s);
    }
    if (rc < 0 || trun_text(r, &k, &s) != 0)
        return -1;
    *out = tval_str(s);
    out->s.safe = self->s.safe;
    return 0;
}

static int push_str(struct trun *r, struct tlist *l, struct tstr s) {
    struct tval v = tval_str(s);
    return tlist_push(r, l, &v);
}

/* At runs of white space; what is left after the last allowed cut keeps its white space on the far side. */
static int split_space(struct trun *r, struct tstr s, int64_t max, bool from_end, struct tlist *l) {
    uint32_t cp;
    for (;; max--) {
        s = tstr_strip(s, NULL, !from_end, from_end);
        if (s.n == 0)
            return 0;
        if (max == 0)
            return push_str(r, l, s);
        size_t n = 0;
        while (n < s.n) {
            size_t len = from_end ? tstr_prev(s.p, s.n - n, &cp) : tstr_next(s.p + n, s.n - n, &cp);
            if (tstr_space(cp))
                break;
            n += len;
        }
        if (push_str(r, l, tstr_sub(s, from_end ? s.n - n : 0, n)) != 0)
            return -1;
        s = tstr_sub(s, from_end ? 0 : n, s.n - n);
    }
}

static int split_at(struct trun *r, struct tstr s, struct tstr sep, int64_t max, bool from_end, struct tlist *l) {
    for (; max != 0; max--) {
        size_t hit = from_end ? tstr_rfind(s, sep) : tstr_find(s, sep, 0);
        if (hit == SIZE_MAX)
            break;
        size_t after = hit + sep.n;
        if (push_str(r, l, from_end ? tstr_sub(s, after, s.n - after) : tstr_sub(s, 0, hit)) != 0)
            return -1;
        s = from_end ? tstr_sub(s, 0, hit) : tstr_sub(s, after, s.n - after);
    }
    return push_str(r, l, s);
}

static int split(struct trun *r, const struct tval *self, const struct tcall *c, bool from_end, struct tval *out) {
    int64_t max = -1;
    struct tstr sep;
    bool given = c->arg[0] && c->arg[0]->kind != TV_NONE;
    if (given && tcall_str(r, c->arg[0], "the separator of split", &sep) != 0)
        return -1;
    if (c->arg[1] && !tval_as_int(c->arg[1], &max))
        return trun_fail(r, "the maxsplit of split must be an int");
    if (given && sep.n == 0)
        return trun_fail(r, "the separator of split is empty");
    if (tval_new_list(r, TV_LIST, out) != 0 || trun_spend_bytes(r, self->s.n) != 0)
        return -1;
    if (from_end && given && sep.n > 64 && trun_spend(r, sep.n / 64 * (self->s.n + 1)) != 0)
        return -1;
    if (max < 0)
        max = -1; /* counts down and never meets 0 */
    int rc =
        given ? split_at(r, self->s, sep, max, from_end, out->list) : split_space(r, self->s, max, from_end, out->list);
    if (from_end && rc == 0)
        tlist_reverse(out->list);
    return rc;
}

static int str_split(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return split(r, self, c, false, out);
}
static int str_rsplit(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    return split(r, self, c, true, out);
}

static int str_splitlines(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr line;
    size_t off = 0;
    if (tval_new_list(r, TV_LIST, out) != 0)
        return -1;
    for (size_t from = 0; ttext_line(self->s, &off, &line); from = off)
        if (push_str(r, out->list, tcall_flag(c, 0) ? tstr_sub(self->s, from, off - from) : line) != 0)
            return -1;
    return trun_spend_bytes(r, self->s.n);
}

const struct tbuiltin tmethod_str_table[] = {
    {"strip", str_strip, "chars", 0},
    {"lstrip", str_lstrip, "chars", 0},
    {"rstrip", str_rstrip, "chars", 0},
    {"split", str_split, "sep maxsplit", 0},
    {"rsplit", str_rsplit, "sep maxsplit", 0},
    {"splitlines", str_splitlines, "keepends", 0},
    {"startswith", str_startswith, "prefix", 1},
    {"endswith", str_endswith, "suffix", 1},
    {"removeprefix", str_removeprefix, "prefix", 1},
    {"removesuffix", str_removesuffix, "suffix", 1},
    {"upper", str_upper, "", 0},
    {"lower", str_lower, "", 0},
    {"title", str_title, "", 0},
    {"capitalize", str_capitalize, "", 0},
    {"replace", str_replace, "old new count", 2},
    {"join", str_join, "iterable", 1},
    {"find", str_find, "sub", 1},
    {"rfind", str_rfind, "sub", 1},
    {"count", str_count, "sub", 1},
    {0},
};

static int view(const struct tval *self, enum tview what, struct tval *out) {
    *out = (struct tval){.kind = TV_VIEW, .view = {self->dict, what}};
    return 0;
}
static int dict_items(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    return view(self, TVIEW_ITEMS, out);
}
static int dict_keys(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    return view(self, TVIEW_KEYS, out);
}
static int dict_values(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    return view(self, TVIEW_VALUES, out);
}
static int dict_get(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tval *v;
    if (tdict_find(r, self->dict, c->arg[0], &v) != 0)
        return -1;
    *out = v ? *v : c->arg[1] ? *c->arg[1] : tval_none();
    return 0;
}
static int dict_copy(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)r, (void)c;
    *out = *self; /* no template can change a dict */
    return 0;
}

const struct tbuiltin tmethod_dict_table[] = {
    {"items", dict_items, "", 0},        {"keys", dict_keys, "", 0}, {"values", dict_values, "", 0},
    {"get", dict_get, "key default", 1}, {"copy", dict_copy, "", 0}, {0},
};

static int loop_cycle(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    if (!c->raw->n_pos || c->raw->n_kw)
        return trun_fail(r, "loop.cycle needs values to cycle through");
    *out = c->raw->pos[self->loop->index0 % c->raw->n_pos];
    return 0;
}

const struct tbuiltin tmethod_loop_table[] = {{"cycle", loop_cycle, NULL, 0}, {0}};
