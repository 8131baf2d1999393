/* Global functions. */
#include "tok/template/builtin.h"

#include <stdio.h>
#include <string.h>

static int g_range(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    int64_t v[3] = {0, 0, 1};
    const struct targs *a = c->raw;
    (void)self;
    if (a->n_kw || a->n_pos < 1 || a->n_pos > 3)
        return trun_fail(r, "range takes one to three numbers");
    for (size_t i = 0; i < a->n_pos; i++) {
        if (a->pos[i].kind == TV_UNDEF)
            return trun_undefined(r, &a->pos[i]);
        if (!tval_as_int(&a->pos[i], &v[a->n_pos == 1 ? 1 : i]))
            return trun_fail(r, "range takes whole numbers, not %s", tval_type(&a->pos[i]));
    }
    if (v[2] == 0)
        return trun_fail(r, "the step of range is zero");
    struct trange *g = tarena_alloc(r->a, sizeof *g);
    if (!g)
        return trun_memory(r);
    *g = (struct trange){.start = v[0], .stop = v[1], .step = v[2]};
    uint64_t dist = v[2] > 0 ? (v[1] > v[0] ? (uint64_t)v[1] - (uint64_t)v[0] : 0)
                             : (v[0] > v[1] ? (uint64_t)v[0] - (uint64_t)v[1] : 0);
    uint64_t by = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    uint64_t n = dist / by + (dist % by != 0);
    if (n > TRUN_MAX_RANGE)
        return trun_fail(r, "range of more than %d numbers", TRUN_MAX_RANGE);
    g->n = (size_t)n;
    *out = (struct tval){.kind = TV_RANGE, .range = g};
    return 0;
}

/* dict(mapping, key=value, ...) and namespace(...) */
static int fill(struct trun *r, const struct targs *a, enum tval_kind kind, struct tval *out) {
    if (a->n_pos > 1 || (a->n_pos && a->pos[0].kind != TV_DICT))
        return trun_fail(r, "%s takes named arguments, and one dict in front", kind == TV_DICT ? "dict" : "namespace");
    if (tval_new_dict(r, kind, out) != 0)
        return -1;
    for (size_t i = 0; a->n_pos && i < a->pos[0].dict->n; i++)
        if (tdict_set(r, out->dict, &a->pos[0].dict->v[i].k, &a->pos[0].dict->v[i].v) != 0)
            return -1;
    for (size_t i = 0; i < a->n_kw; i++) {
        struct tval key = tval_str(a->kw[i].name);
        if (tdict_set(r, out->dict, &key, &a->kw[i].v) != 0)
            return -1;
    }
    return 0;
}

static int g_dict(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)self;
    return fill(r, c->raw, TV_DICT, out);
}

static int g_namespace(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    (void)self;
    if (fill(r, c->raw, TV_NAMESPACE, out) != 0)
        return -1;
    for (size_t i = 0; i < out->dict->n; i++) {
        const struct tval *k = &out->dict->v[i].k;
        if (k->kind == TV_STR && k->s.n && k->s.p[0] == '_')
            return trun_fail(r, "an attribute of a namespace cannot begin with an underscore");
    }
    return 0;
}

static int g_raise(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    char msg[sizeof r->e->msg];
    size_t n = 0;
    struct tstr s;
    (void)self, (void)out;
    if (tval_to_str(r, c->arg[0], &s) != 0)
        return -1;
    /* The template's words are for the user to read; what it quotes of the conversation stays out of messages and logs.
     */
    bool hidden = false;
    for (size_t i = 0; i < s.n && n + 6 < sizeof msg; i++) {
        bool user = s.mark ? s.mark[i] : s.user;
        if (!user)
            msg[n++] = s.p[i];
        else if (!hidden)
            n += (size_t)snprintf(msg + n, sizeof msg - n, "[...]");
        hidden = user;
    }
    msg[n] = '\0';
    return err_set(r->e, ERR_USAGE, "%s", msg);
}

static int g_strftime_now(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out) {
    struct tstr s;
    (void)self;
    return tcall_str(r, c->arg[0], "the format of strftime_now", &s) != 0 ? -1 : tdate_format(r, s, out);
}

const struct tbuiltin tfunc_table[] = {
    {"range", g_range, NULL, 0},
    {"dict", g_dict, NULL, 0},
    {"namespace", g_namespace, NULL, 0},
    {"raise_exception", g_raise, "message", 1},
    {"strftime_now", g_strftime_now, "format", 1},
    {0},
};
