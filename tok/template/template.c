#include "tok/template.h"

#include "core/base/wipe.h"
#include "tok/template/parse.h"
#include "tok/template/run.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum { MAX_JSON = 16 << 20 };

struct chat_template {
    struct tast ast;
};

int chat_template_parse(struct chat_template **out, const char *src, size_t n, const char *name, struct err *e) {
    *out = NULL;
    struct chat_template *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory parsing a chat template");
    if (tparse(&t->ast, src, n, name, e) != 0) {
        chat_template_free(t);
        return -1;
    }
    *out = t;
    return 0;
}

void chat_template_free(struct chat_template *t) {
    if (!t)
        return;
    tarena_free(&t->ast.a);
    free(t);
}

/* A role is one of a few words that the application chose; anything else in its place counts as user text. */
static bool plain_role(struct tstr s) {
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
            return false;
    return s.n < 64;
}

static int set(struct trun *r, struct tdict *d, const char *key, struct tval v) {
    struct tval k = tval_str(tstr_lit(key));
    return tdict_set(r, d, &k, &v);
}

static int set_token(struct trun *r, struct tdict *d, const char *key, const char *text) {
    return text ? set(r, d, key, tval_str(tstr_lit(text))) : 0;
}

static int put_messages(struct trun *r, struct tdict *vars, const struct chat_message *m, size_t n) {
    struct tval list, msg;
    if (tval_new_list(r, TV_LIST, &list) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct tstr role = tstr_lit(m[i].role ? m[i].role : "");
        role.user = !plain_role(role);
        struct tval content = tval_none();
        if (m[i].content)
            content = tval_str(tstr_of(m[i].content, strlen(m[i].content), true));
        if (tval_new_dict(r, TV_DICT, &msg) != 0 || set(r, msg.dict, "role", tval_str(role)) != 0 ||
            set(r, msg.dict, "content", content) != 0 || tlist_push(r, list.list, &msg) != 0)
            return -1;
    }
    return set(r, vars, "messages", list);
}

/* yyjson's memory comes from the run's arena: counted against its bound, and wiped with it. */
static void *json_malloc(void *ctx, size_t n) {
    return tarena_alloc(ctx, n);
}
static void *json_realloc(void *ctx, void *p, size_t old, size_t n) {
    void *q = tarena_alloc(ctx, n);
    if (q && p)
        memcpy(q, p, old < n ? old : n);
    return q;
}
static void json_free(void *ctx, void *p) {
    (void)ctx, (void)p;
}

static int put_extra(struct trun *r, struct tdict *vars, const char *json) {
    yyjson_alc alc = {json_malloc, json_realloc, json_free, r->a};
    yyjson_read_err je = {0};
    struct tval v;
    size_t n = strlen(json);
    if (n > MAX_JSON)
        return err_set(r->e, ERR_USAGE, "the extra template variables have %zu bytes; at most %d are read", n,
                       MAX_JSON);
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json, n, 0, &alc, &je); /* does not write without INSITU */
    if (!doc && r->a->bad)
        return trun_memory(r);
    if (!doc || !yyjson_is_obj(yyjson_doc_get_root(doc)))
        return err_set(r->e, ERR_USAGE, "the extra template variables are not a JSON object%s%s", doc ? "" : ": ",
                       doc ? "" : je.msg);
    if (tjson_read(r, yyjson_doc_get_root(doc), &v) != 0)
        return -1;
    for (size_t i = 0; i < v.dict->n; i++)
        if (tdict_set(r, vars, &v.dict->v[i].k, &v.dict->v[i].v) != 0)
            return -1;
    const struct tval *messages = tdict_find_lit(v.dict, "messages");
    for (size_t i = 0; messages && messages->kind == TV_LIST && i < messages->list->n; i++) {
        struct tval *msg = &messages->list->v[i];
        struct tval *role = msg->kind == TV_DICT ? tdict_find_lit(msg->dict, "role") : NULL;
        if (role && role->kind == TV_STR && plain_role(role->s))
            role->s.user = false;
    }
    return 0;
}

/* What names mean that no scope knows: the variables of this rendering, then the functions. */
static int put_globals(struct trun *r, const struct tdict *vars) {
    const struct tast *t = r->ast;
    r->globals = tarena_array(r->a, t->n_syms, sizeof *r->globals);
    if (!r->globals)
        return trun_memory(r);
    for (size_t i = 0; i < t->n_syms; i++) {
        struct tval key = tval_str(t->sym[i]), *v, *g = &r->globals[i];
        if (tdict_find(r, vars, &key, &v) != 0)
            return -1;
        const struct tbuiltin *f = v ? NULL : tfunc_find(t->sym[i]);
        if (f && !r->date && tstr_is(t->sym[i], "strftime_now"))
            f = NULL;
        *g = (struct tval){.kind = TV_UNDEF, .undef = {.name = t->sym[i].p, .n = t->sym[i].n}};
        if (v)
            *g = *v;
        else if (f)
            *g = (struct tval){.kind = TV_FUNC, .func = {.f = f}};
    }
    return 0;
}

static int put_variables(struct trun *r, const struct chat_message *m, size_t n, const struct chat_vars *v) {
    struct tval vars;
    if (tval_new_dict(r, TV_DICT, &vars) != 0 || put_messages(r, vars.dict, m, n) != 0 ||
        set(r, vars.dict, "tools", tval_none()) != 0 || set(r, vars.dict, "documents", tval_none()) != 0 ||
        set(r, vars.dict, "add_generation_prompt", tval_bool(v->add_generation_prompt)) != 0 ||
        set_token(r, vars.dict, "bos_token", v->bos_token) != 0 ||
        set_token(r, vars.dict, "eos_token", v->eos_token) != 0 || set_token(r, vars.dict, "date_string", v->date) != 0)
        return -1;
    if (v->extra_json && put_extra(r, vars.dict, v->extra_json) != 0)
        return -1;
    return put_globals(r, vars.dict);
}

static int add_span(struct chat_prompt *p, size_t off, size_t n, bool user) {
    if (p->n_spans == p->cap_spans) {
        size_t cap = p->cap_spans ? p->cap_spans * 2 : 16;
        struct chat_span *s = realloc(p->spans, cap * sizeof *s);
        if (!s)
            return -1;
        p->spans = s;
        p->cap_spans = cap;
    }
    p->spans[p->n_spans++] = (struct chat_span){off, n, user};
    return 0;
}

static int put_prompt(struct chat_prompt *p, struct tstr s) {
    wbuf_put(&p->text, s.p, s.n);
    for (size_t i = 0, from; i < s.n;) {
        bool user = s.mark ? s.mark[i] : s.user;
        for (from = i; i < s.n && (s.mark ? s.mark[i] : s.user) == user;)
            i = s.mark ? i + 1 : s.n;
        if (add_span(p, from, i - from, user) != 0)
            return -1;
    }
    return p->text.bad ? -1 : 0;
}

int chat_template_render(const struct chat_template *t, const struct chat_message *m, size_t n,
                         const struct chat_vars *v, struct chat_prompt *out, struct err *e) {
    static const struct chat_vars none;
    struct tarena a = {.max = TRUN_MAX_MEMORY};
    struct err local = {0};
    struct trun r = {.a = &a, .e = &local, .ast = &t->ast, .line = 1};
    struct tsink k = trun_sink(&r);
    struct tstr text;
    wbuf_clear(&out->text);
    out->n_spans = 0;
    v = v ? v : &none;
    r.date = v->date;
    if (put_variables(&r, m, n, v) != 0 || texec(&r, &k) != 0 || trun_text(&r, &k, &text) != 0)
        goto out;
    if (put_prompt(out, text) != 0)
        err_set(&local, ERR_MEMORY, "out of memory rendering a chat template");
out:
    tarena_free(&a);
    if (!local.kind)
        return 0;
    wbuf_clear(&out->text);
    out->n_spans = 0;
    return err_set(e, local.kind, "%s", local.msg);
}

void chat_prompt_free(struct chat_prompt *p) {
    wbuf_free(&p->text);
    free(p->spans);
    *p = (struct chat_prompt){0};
}
