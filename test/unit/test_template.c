/* tok/template: against what transformers renders (test/golden/templates), where bytes came from, refusals, bounds, and
 * model directories. */
#include "core/base/file.h"
#include "tok/template.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

#define GOLDEN "test/golden/templates"

struct result {
    struct err e;
    struct chat_prompt p;
};

/* Parses and renders; r->e says how it went. */
static void render_vars(struct result *r, const char *src, size_t n, const struct chat_message *m, size_t n_m,
                        const struct chat_vars *v) {
    struct chat_template *t;
    *r = (struct result){0};
    if (chat_template_parse(&t, src, n, "t", &r->e) == 0)
        chat_template_render(t, m, n_m, v, &r->p, &r->e);
    chat_template_free(t);
}

static void render(struct result *r, const char *src, const char *content) {
    struct chat_message m[] = {{"user", content}};
    render_vars(r, src, strlen(src), m, 1, NULL);
}

static const char *text(struct result *r) {
    return wbuf_cstr(&r->p.text);
}

static void check_spans(const struct chat_prompt *p) {
    size_t at = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        cr_assert_eq(p->spans[i].off, at);
        cr_assert(p->spans[i].n > 0);
        cr_assert(i == 0 || p->spans[i].from_user != p->spans[i - 1].from_user, "neighbours are merged");
        at += p->spans[i].n;
    }
    cr_assert_eq(at, p->text.n);
}

/* The text with what came from the user in upper-case brackets. */
static void marked(const struct chat_prompt *p, char *out, size_t cap) {
    size_t n = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        const struct chat_span *s = &p->spans[i];
        n += (size_t)snprintf(out + n, cap - n, s->from_user ? "<%.*s>" : "%.*s", (int)s->n,
                              (const char *)p->text.p + s->off);
        cr_assert(n < cap);
    }
    out[n] = '\0';
}

/* Messages that have nothing but role and content go in as such; *rest is what stays JSON. */
static size_t plain_messages(yyjson_val *vars, struct chat_message *m, size_t cap, char **rest) {
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *copy = yyjson_val_mut_copy(doc, vars);
    yyjson_val *list = yyjson_obj_get(vars, "messages"), *msg;
    size_t i, n, k = 0;
    bool plain = true;
    yyjson_arr_foreach(list, i, n, msg) {
        yyjson_val *content = yyjson_obj_get(msg, "content");
        plain = plain && yyjson_obj_size(msg) == 2 && (yyjson_is_str(content) || yyjson_is_null(content)) && k < cap;
        if (plain)
            m[k++] = (struct chat_message){yyjson_get_str(yyjson_obj_get(msg, "role")), yyjson_get_str(content)};
    }
    if (plain)
        yyjson_mut_obj_remove_key(copy, "messages");
    yyjson_mut_doc_set_root(doc, copy);
    *rest = yyjson_mut_write(doc, 0, NULL);
    yyjson_mut_doc_free(doc);
    return plain ? k : 0;
}

static char *read_all(const char *name, size_t *n) {
    char path[300], *data;
    struct err e = {0};
    snprintf(path, sizeof path, GOLDEN "/%s", name);
    cr_assert_eq(file_read(path, 4 << 20, &data, n, &e), 0, "%s", e.msg);
    return data;
}

static void golden_case(yyjson_val *c, yyjson_val *conversations) {
    char name[80], *rest, *src;
    struct chat_message m[16];
    struct result r;
    size_t n, number = yyjson_get_uint(yyjson_arr_get(c, 1));
    const char *kind = yyjson_get_str(yyjson_arr_get(c, 2));
    yyjson_val *want = yyjson_arr_get(c, 3);
    snprintf(name, sizeof name, "%s.jinja", yyjson_get_str(yyjson_arr_get(c, 0)));
    src = read_all(name, &n);
    size_t n_m = plain_messages(yyjson_arr_get(conversations, number), m, 16, &rest);
    /* The oracle's date is given through the clock and, unless the conversation has its own, as a variable. */
    struct chat_vars v = {.bos_token = "<s>", .eos_token = "</s>", .date = "26 Jul 2024", .extra_json = rest};
    render_vars(&r, src, n, m, n_m, &v);
    if (strcmp(kind, "ok") == 0) {
        cr_assert_eq(r.e.kind, ERR_NONE, "%s %zu: %s", name, number, r.e.msg);
        cr_assert(r.p.text.n == yyjson_get_len(want) && memcmp(text(&r), yyjson_get_str(want), r.p.text.n) == 0,
                  "%s %zu: expected\n%s\ngot\n%s", name, number, yyjson_get_str(want), text(&r));
        check_spans(&r.p);
    } else if (strcmp(kind, "usage") == 0) {
        cr_assert_eq(r.e.kind, ERR_USAGE, "%s %zu", name, number);
        cr_assert_str_eq(r.e.msg, yyjson_get_str(want));
    } else {
        cr_assert_eq(r.e.kind, ERR_MODEL, "%s %zu: the oracle fails here, we gave %s", name, number, text(&r));
    }
    chat_prompt_free(&r.p);
    free(rest);
    free(src);
}

Test(template, as_transformers_renders) {
    size_t n, i, n_cases;
    char *data = read_all("cases.json", &n);
    yyjson_doc *doc = yyjson_read(data, n, 0);
    cr_assert_not_null(doc);
    yyjson_val *cases = yyjson_obj_get(yyjson_doc_get_root(doc), "cases"), *c;
    cr_assert(yyjson_arr_size(cases) >= 400);
    yyjson_arr_foreach(cases, i, n_cases, c) {
        golden_case(c, yyjson_obj_get(yyjson_doc_get_root(doc), "conversations"));
    }
    yyjson_doc_free(doc);
    free(data);
}

/* {source, content of the user's message, the result with user text in <>} */
static const char *const origins[][3] = {
    {"[{{ messages[0].content }}]", "hi", "[<hi>]"},
    {"{{ '[INST] ' + messages[0]['content'] + ' [/INST]' }}", "</s>", "[INST] <</s>> [/INST]"},
    {"{{ '<s>' ~ messages[0].content ~ messages[0].role }}", "a", "<s><a>user"},
    {"{{ messages[0].content | trim }}|{{ messages[0].content.strip('x') }}", " ax ", "<ax>|< ax >"},
    {"{{ ('a' + messages[0].content + 'b')[1:-1] }}", "XY", "<XY>"},
    {"{{ ('a' + messages[0].content + 'b')[::-1] }}", "XY", "b<YX>a"},
    {"{{ ('a' + messages[0].content)[1] }}{{ 'z'[0] }}", "XY", "<X>z"},
    {"{{ messages[0].content.split(',')[1] }}{{ 'p,q'.split(',')[1] }}", "a,b", "<b>q"},
    {"{{ 'a-b'.replace('-', messages[0].content) }}", "+", "a<+>b"},
    {"{{ (messages[0].content ~ '.').replace('b', 'TT') }}", "abc", "<a>TT<c>."},
    {"{{ (messages[0].content ~ 'x') | upper }}", "aß", "<ASS>X"},
    {"{{ ('x' ~ messages[0].content) | title }}{{ 'ab' | capitalize }}", "Y z", "X<y Z>Ab"},
    {"{{ [messages[0].content, 'k'] | join('-') }}", "u", "<u>-k"},
    {"{{ '-'.join(['k', messages[0].content]) }}", "u", "k-<u>"},
    {"{{ messages[0].content | tojson }}{{ 'k' | tojson }}", "u\"", "<\"u\\\"\">\"k\""},
    {"{{ {'k': messages[0].content} | tojson }}{{ {'k': 1} }}", "u", "<{\"k\": \"u\"}>{'k': 1}"},
    {"{{ messages[0] }}", "u", "<{'role': 'user', 'content': 'u'}>"},
    {"{{ messages[0].content | list }}", "u", "<['u']>"},
    {"{% for c in messages[0].content %}{{ c }},{% endfor %}", "ab", "<a>,<b>,"},
    {"{% set x %}({{ messages[0].content }}){% endset %}{{ x }}{{ x | length }}", "ab", "(<ab>)4"},
    {"{% macro m(a) %}={{ a }}={% endmacro %}{{ m(messages[0].content) }}", "ab", "=<ab>="},
    {"{% filter upper %}k{{ messages[0].content }}{% endfilter %}", "ab", "K<AB>"},
    {"{% set ns = namespace(v='k') %}{% set ns.v = ns.v + messages[0].content %}{{ ns.v }}", "ab", "k<ab>"},
    {"{{ messages[0].content | default('d') }}{{ messages[0].nope | default('d') }}", "ab", "<ab>d"},
    {"{{ messages | map(attribute='content') | first }}", "ab", "<ab>"},
    {"{{ messages[0].content | indent(2) }}", "a\nb", "<a>\n  <b>"},
    {"{{ messages[0].content * 2 }}{{ 'k' * 2 }}", "ab", "<abab>kk"},
    {"{{ messages[0].content | escape }}", "<", "<&lt;>"},
    {"{{ ('<' + (messages[0].content | safe) + '>') ~ ('<' ~ (messages[0].content | e)) }}", "&",
     "&lt;<&>&gt;<<&amp;>"},
    {"{{ messages[0].content | reverse }}{{ messages[0].content | string }}", "ab", "<baab>"},
    {"{{ messages[0].content.splitlines() | last }}", "a\nb", "<b>"},
    {"{{ messages[0].content.removeprefix('a') ~ messages[0].content.rstrip('b') }}", "ab", "<ba>"},
    {"{{ messages[0].content if messages[0].content else 'none' }}", "", "none"},
    {"{{ messages[0].content | length }}", "abc", "3"},
    {"{{ '<|im_start|>' + messages[0].role + '\n' + messages[0].content + '<|im_end|>' }}", "<|im_end|>",
     "<|im_start|>user\n<<|im_end|>><|im_end|>"},
};

Test(template, remembers_what_the_user_wrote) {
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        struct result r;
        char got[400];
        render(&r, origins[i][0], origins[i][1]);
        cr_assert_eq(r.e.kind, ERR_NONE, "%s: %s", origins[i][0], r.e.msg);
        check_spans(&r.p);
        marked(&r.p, got, sizeof got);
        cr_assert_str_eq(got, origins[i][2], "%s", origins[i][0]);
        chat_prompt_free(&r.p);
    }
}

Test(template, roles_and_extra_variables) {
    const char *src = "{{ messages[0].role }}|{{ messages[1].role }}|{{ note }}|{{ tools[0].name }}|{{ bos_token }}";
    struct chat_message m[] = {{"user", "a"}, {"user</s>", "b"}};
    struct chat_vars v = {.bos_token = "<s>", .extra_json = "{\"note\":\"n\",\"tools\":[{\"name\":\"f\"}]}"};
    struct result r;
    char got[200];
    render_vars(&r, src, strlen(src), m, 2, &v);
    cr_assert_eq(r.e.kind, ERR_NONE, "%s", r.e.msg);
    marked(&r.p, got, sizeof got);
    cr_assert_str_eq(got, "user|<user</s>>|<n>|<f>|<s>", "a role that is not a plain word counts as user text");
    v.extra_json = "{\"messages\":[{\"role\":\"tool\",\"content\":\"c\"},{\"role\":\"a b\"}]}";
    chat_prompt_free(&r.p);
    render_vars(&r, src, strlen(src), m, 2, &v);
    marked(&r.p, got, sizeof got);
    cr_assert_str_eq(got, "", "tools is none here, so its item is an error: %s", r.e.msg);
    src = "{{ messages[0].role }}|{{ messages[1].role }}|{{ messages[0].content }}|{{ tools is none }}";
    render_vars(&r, src, strlen(src), m, 2, &v);
    marked(&r.p, got, sizeof got);
    cr_assert_str_eq(got, "tool|<a b>|<c>|True");
    chat_prompt_free(&r.p);
}

Test(template, a_prompt_can_be_used_again) {
    struct chat_template *t;
    struct err e = {0};
    struct chat_prompt p = {0};
    const char *src = "{{ messages[0].content }}{{ 'end' if messages[0].content else none.x.y }}";
    cr_assert_eq(chat_template_parse(&t, src, strlen(src), NULL, &e), 0);
    for (int i = 0; i < 3; i++) {
        struct chat_message m = {"user", "text"};
        cr_assert_eq(chat_template_render(t, &m, 1, NULL, &p, &e), 0);
        cr_assert_str_eq(wbuf_cstr(&p.text), "textend");
        cr_assert_eq(p.n_spans, 2);
    }
    struct chat_message empty = {"user", ""};
    cr_assert_eq(chat_template_render(t, &empty, 1, NULL, &p, &e), -1);
    cr_assert_eq(e.kind, ERR_MODEL);
    cr_assert_eq(p.text.n + p.n_spans, 0, "nothing is left of a rendering that failed");
    chat_prompt_free(&p);
    chat_template_free(t);
}

Test(template, raised_messages_do_not_quote_the_user) {
    struct result r;
    render(&r, "{{ raise_exception('No ' + messages[0].role + ' may say \"' ~ messages[0].content ~ '\" here') }}",
           "a secret");
    cr_assert_eq(r.e.kind, ERR_USAGE);
    cr_assert_str_eq(r.e.msg, "No user may say \"[...]\" here");
    render(&r, "{{ [1][messages[0].content].x }}", "a secret");
    cr_assert_eq(r.e.kind, ERR_MODEL);
    cr_assert_null(strstr(r.e.msg, "secret"), "%s", r.e.msg);
}

/* {source, what the message must say}; all of them are ERR_MODEL. */
static const char *const refusals[][2] = {
    {"a\n{% block x %}{% endblock %}", "line 2: the tag 'block' is not supported"},
    {"{% include 'x' %}", "'include' is not supported"},
    {"{% import 'x' as y %}", "'import' is not supported"},
    {"{% call f() %}{% endcall %}", "'call' is not supported"},
    {"{% autoescape true %}{% endautoescape %}", "'autoescape' is not supported"},
    {"{% do x %}", "'do' is not supported"},
    {"\n\n{{ x | urlize }}", "line 3: the filter 'urlize' is not supported"},
    {"{{ x | groupby('a') }}", "filter 'groupby'"},
    {"{{ x | map('pprint') }}", "the filter 'pprint' is not supported"},
    {"{{ x | select('escaped') }}", "the test 'escaped' is not supported"},
    {"{{ x | rejectattr('a', 'module') }}", "the test 'module' is not supported"},
    {"{{ x is filter }}", "test 'filter' is not supported"},
    {"{% for a in b recursive %}{% endfor %}", "recursive"},
    {"{{ f(*a) }}", "*args"},
    {"{{ f(**a) }}", "*args and **kwargs"},
    {"{{ x.append(1) }}", "method 'append' is not supported"},
    {"{{ 'a'.format(1) }}", "method 'format' is not supported"},
    {"{{ x.__class__ }}", "'__class__' is not supported"},
    {"{% macro m() %}{{ varargs }}{% endmacro %}", "'varargs' in a macro"},
    {"{{ '%s' % 1 }}", "operator % on str and int"},
    {"{{ range }}", "printing a function"},
    {"{{ 0x10 }}", "another base than ten"},
    {"{{ 99999999999999999999 }}", "too large"},
    {"{{ 9223372036854775807 + 1 }}", "too large"},
    {"{{ a[1, 2] }}", "several subscripts"},
    {"{% if x %}\n{{ y }}", "line 2: the template ends inside a block"},
    {"{% endfor %}", "'endfor' belongs to nothing"},
    {"{% else %}", "'else' belongs to nothing"},
    {"{% for x in y %}{% endif %}", "'endif' belongs to nothing here; expected one of: endfor else"},
    {"{% break %}", "'break' outside a for"},
    {"{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}", "'continue' outside a for"},
    {"{{ x", "{{ is not closed"},
    {"{% if x", "{% is not closed"},
    {"{# x", "comment is not closed"},
    {"{% raw %}x", "raw block is not closed"},
    {"{{ 'x }}", "string is not closed"},
    {"{{ (1] }}", "bracket does not match"},
    {"{{ 1 + }}", "expected an expression, got '}}'"},
    {"{{ }}", "expected an expression"},
    {"{{ a ! b }}", "unexpected character '!'"},
    {"{{ \x01 }}", "unexpected character 0x01"},
    {"{% set 1 = 2 %}", "can be assigned to"},
    {"{% set x.y.z = 2 %}", "expected '%}', got '.'"},
    {"{% for loop in x %}{% endfor %}", "'loop' cannot be assigned"},
    {"{{ '\\N{DASH}' }}", "\\N{...}"},
    {"{{ '\\ud800' }}", "not a character"},
    {"{{ '\\xg0' }}", "malformed"},
    {"{{ nothing.x }}", "'nothing' is undefined"},
    {"{{ messages[0].nope.x }}", "a dict has no 'nope'"},
    {"{{ nothing + 1 }}", "'nothing' is undefined"},
    {"{{ nothing() }}", "'nothing' is undefined"},
    {"{{ -nothing }}", "'nothing' is undefined"},
    {"{{ nothing < 1 }}", "'nothing' is undefined"},
    {"{{ strftime_now('%Y') }}", "'strftime_now' is undefined"},
    {"{{ 1 + 'a' }}", "operator + on int and str"},
    {"{{ 1 < 'a' }}", "no order"},
    {"{{ none | length }}", "None has no length"},
    {"{{ 1 in 'a' }}", "needs a str"},
    {"{% for x in 1 %}{% endfor %}", "int cannot be iterated"},
    {"{{ {[]: 1} }}", "list cannot be the key"},
    {"{% set a, b = [1] %}", "set from 1 values"},
    {"{% set a, b = [1, 2, 3] %}", "from more values"},
    {"{% set x = {} %}{% set x.y = 1 %}", "only an attribute of a namespace"},
    {"{{ namespace(_a=1) }}", "underscore"},
    {"{{ 1 // 0 }}", "division by zero"},
    {"{{ [1][::0] }}", "step of a slice is zero"},
    {"{{ 'a' | trim(1, 2) }}", "'trim' takes at most 1"},
    {"{{ 'a' | trim(x=2) }}", "does not take"},
    {"{{ 'a' | replace('a') }}", "needs 2 arguments"},
    {"{{ 'a'.split('') }}", "separator of split is empty"},
    {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "takes at most 1"},
    {"{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "does not take"},
    {"{% macro m(a, a) %}{% endmacro %}", "same name"},
    {"{% macro m(a=1, b) %}{% endmacro %}", "without a default"},
    {"{{ f(a=1, 2) }}", "positional argument follows"},
    {"{{ f(a=1, a=2) }}", "given twice"},
    {"{{ nothing | tojson }}", "Undefined cannot be written as JSON"},
    {"{{ messages[0].content | int }}", "ASCII digits"},
};

Test(template, names_what_it_refuses) {
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct result r;
        render(&r, refusals[i][0], "\xd9\xa3");
        cr_assert_eq(r.e.kind, ERR_MODEL, "%s: %s %s", refusals[i][0], r.e.msg, text(&r));
        cr_assert(strstr(r.e.msg, refusals[i][1]), "%s: %s", refusals[i][0], r.e.msg);
        cr_assert_eq(strncmp(r.e.msg, "t, line ", 8), 0, "%s", r.e.msg);
        chat_prompt_free(&r.p);
    }
}

static char *repeated(const char *head, const char *part, size_t times, const char *tail) {
    size_t k = strlen(part), n = strlen(head), end = strlen(tail);
    char *s = malloc(n + k * times + end + 1);
    memcpy(s, head, n);
    for (size_t i = 0; i < times; i++, n += k)
        memcpy(s + n, part, k);
    memcpy(s + n, tail, end + 1);
    return s;
}

Test(template, is_bounded, .timeout = 120) {
    static const char *const cases[][2] = {
        {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "come to an end"},
        {"{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "nests deeper"},
        {"{{ range(100001) }}", "range of more than"},
        {"{{ range(-9223372036854775807, 9223372036854775807) }}", "range of more than"},
        {"{{ 'x' * 9223372036854775807 }}", "too long"},
        {"{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor "
         "%}",
         "too much memory"},
        {"{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}", "too much memory"},
        {"{% set ns = namespace(l=[0]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
         "t, line 1"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
         "nested deeper"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson "
         "}}",
         "nested deeper"},
        {"{% set ns = namespace(l=[1]) %}{% for i in range(1000) %}{% set ns.l = ns.l | map('string') %}{% endfor %}"
         "{{ ns.l | list }}",
         "nested deeper"},
        {"{{ 'a' | indent(100000) }}", "too large"},
        {"{{ 2 ** 64 }}", "too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct result r;
        render(&r, cases[i][0], "");
        cr_assert_neq(r.e.kind, ERR_NONE, "%s", cases[i][0]);
        cr_assert(strstr(r.e.msg, cases[i][1]), "%s: %s", cases[i][0], r.e.msg);
        cr_assert_eq(r.p.text.n, 0);
        chat_prompt_free(&r.p);
    }
}

Test(template, deep_and_long_sources, .timeout = 120) {
    static const char *const cases[][4] = {
        /* head, part, tail; part stands 100000 times */
        {"{{ ", "(", "", "nested too deep"},     {"{{ ", "[1,", "", "nested too deep"},
        {"{{ ", "-", "1 }}", "nested deeper"},   {"{{ ", "not ", "1 }}", "nested deeper"},
        {"{{ 1", " + 1", " }}", "more than"},    {"{{ 1", " if 1 else 1", " }}", "nested deeper"},
        {"", "{% if 1 %}", "", "nested deeper"}, {"{{ x", ".a", " }}", "more than"},
        {"{{ x", "|trim", " }}", "more than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct result r;
        char *src = repeated(cases[i][0], cases[i][1], 50000, cases[i][2]);
        render(&r, src, "");
        cr_assert_eq(r.e.kind, ERR_MODEL, "%s%s", cases[i][0], cases[i][1]);
        cr_assert(strstr(r.e.msg, cases[i][3]), "%s%s: %s", cases[i][0], cases[i][1], r.e.msg);
        free(src);
    }
    struct result r;
    char *src = repeated("", "x", (1 << 20) + 1, "");
    render(&r, src, "");
    cr_assert_eq(r.e.kind, ERR_MODEL);
    cr_assert(strstr(r.e.msg, "at most 1048576"), "%s", r.e.msg);
    free(src);
    src = repeated("{{ 'a'", " ~ 'a'", 20000, " }}"); /* wide, not deep */
    render(&r, src, "");
    cr_assert_eq(r.e.kind, ERR_NONE, "%s", r.e.msg);
    cr_assert_eq(r.p.text.n, 20001);
    chat_prompt_free(&r.p);
    free(src);
}

Test(template, long_content_is_cheap, .timeout = 20) {
    struct result r;
    char *content = repeated("<think>", "a b\xc3\xa4 ", 400000, "</think> x"); /* 2 MB */
    render(&r,
           "{% set c = messages[0].content %}{{ c.split('</think>')[-1].lstrip('\\n') }}{{ (c | trim)[-1] }}"
           "{{ c | length }}{{ c[::-1] | length }}{{ c.replace('a', 'b') | upper | length }}",
           content);
    cr_assert_eq(r.e.kind, ERR_NONE, "%s", r.e.msg);
    cr_assert_str_eq(text(&r), " xx200001720000172000017");
    chat_prompt_free(&r.p);
    free(content);
}

Test(template, bytes_that_are_not_utf8_pass) {
    struct result r;
    render(&r,
           "{{ messages[0].content | trim }}|{{ messages[0].content | length }}|{{ messages[0].content[::-1] }}|"
           "{{ messages[0].content | upper }}",
           " a\xff\xe4\xb8z\xc3\xa9 ");
    cr_assert_eq(r.e.kind, ERR_NONE, "%s", r.e.msg);
    cr_assert_str_eq(text(&r), "a\xff\xe4\xb8z\xc3\xa9|8| \xc3\xa9z\xb8\xe4\xff"
                               "a | A\xff\xe4\xb8Z\xc3\x89 ");
    chat_prompt_free(&r.p);
}

Test(template, dates) {
    static const char *const cases[][3] = {
        {"26 Jul 2024", "%d %b %Y", "26 Jul 2024"},
        {"2024-07-26", "%d %B %Y", "26 July 2024"},
        {"2024-07-26", "%A %a %F %j %U %W %w %u %y %m %-d %H:%M:%S %I %p %%",
         "Friday Fri 2024-07-26 208 29 30 5 5 24 07 26 00:00:00 12 AM %"},
        {"1 Mar 2023", "%d %-d %j %a", "01 1 060 Wed"},
        {"29 Feb 2000", "%a %j", "Tue 060"},
        {"31 Dec 1999", "%U %W %A", "52 52 Friday"},
        {"29 Feb 2023", "%d", NULL},
        {"soon", "%d", NULL},
        {"", "%d", NULL},
        {"26 Jul 2024 ", "%d", NULL},
        {"2024-07", "%d", NULL},
        {"26 July 2024", "%d", NULL},
        {"2024-13-01", "%d", NULL},
        {"26 Jul 2024", "%Q", NULL},
        {"26 Jul 2024", "%", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char src[200];
        struct result r;
        struct chat_vars v = {.date = cases[i][0]};
        snprintf(src, sizeof src, "{{ strftime_now('%s') }}", cases[i][1]);
        render_vars(&r, src, strlen(src), NULL, 0, &v);
        cr_assert_eq(r.e.kind, cases[i][2] ? ERR_NONE : ERR_MODEL, "%s %s: %s", cases[i][0], src, r.e.msg);
        cr_assert_str_eq(text(&r), cases[i][2] ? cases[i][2] : "", "%s %s", cases[i][0], src);
        chat_prompt_free(&r.p);
    }
    const char *src = "{{ date_string }} {{ strftime_now is defined }}";
    struct chat_vars v = {.date = "26 Jul 2024"};
    struct result r;
    render_vars(&r, src, strlen(src), NULL, 0, &v);
    cr_assert_str_eq(text(&r), "26 Jul 2024 True");
    chat_prompt_free(&r.p);
    render_vars(&r, src, strlen(src), NULL, 0, NULL);
    cr_assert_str_eq(text(&r), " False", "without a date both are undefined");
    chat_prompt_free(&r.p);
}

Test(template, bad_extra_variables) {
    static const char *const bad[] = {"", "[]", "{", "{\"a\":1}x", "{\"a\":\"\xff\"}", "nonsense"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct result r;
        struct chat_vars v = {.extra_json = bad[i]};
        render_vars(&r, "x", 1, NULL, 0, &v);
        cr_assert_eq(r.e.kind, ERR_USAGE, "%s", bad[i]);
        cr_assert(strstr(r.e.msg, "JSON object"), "%s", r.e.msg);
    }
    struct result r;
    char *deep = repeated("{\"a\":", "[", 200, "");
    char *closed = repeated(deep, "]", 200, "}");
    struct chat_vars v = {.extra_json = closed};
    render_vars(&r, "x", 1, NULL, 0, &v);
    cr_assert_eq(r.e.kind, ERR_MODEL);
    cr_assert(strstr(r.e.msg, "nested deeper"), "%s", r.e.msg);
    free(deep);
    free(closed);
}

/* Model directories. */

struct dir {
    char path[64];
};

static struct dir dir_new(void) {
    struct dir d = {"/tmp/splitinf-template-XXXXXX"};
    cr_assert_not_null(mkdtemp(d.path));
    return d;
}

static void put(const struct dir *d, const char *name, const char *data) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", d->path, name);
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, strlen(data), f), strlen(data));
    fclose(f);
}

static void dir_remove(const struct dir *d) {
    static const char *const names[] = {"chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"};
    char path[200];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", d->path, names[i]);
        unlink(path);
    }
    cr_assert_eq(rmdir(d->path), 0);
}

struct opened {
    struct err e;
    struct chat_template *t;
    char *bos, *eos;
    int rc;
};

static struct opened open_dir(const struct dir *d) {
    struct opened o = {0};
    o.rc = chat_template_open_dir(&o.t, &o.bos, &o.eos, d->path, &o.e);
    return o;
}

static void closed(struct opened *o) {
    chat_template_free(o->t);
    free(o->bos);
    free(o->eos);
}

static void expect(struct opened *o, const char *out) {
    struct err e = {0};
    struct chat_prompt p = {0};
    cr_assert_eq(o->rc, 0, "%s", o->e.msg);
    cr_assert_not_null(o->t);
    cr_assert_eq(chat_template_render(o->t, NULL, 0, NULL, &p, &e), 0, "%s", e.msg);
    cr_assert_str_eq(wbuf_cstr(&p.text), out);
    chat_prompt_free(&p);
}

Test(template, of_a_directory) {
    struct dir d = dir_new();
    struct opened o = open_dir(&d);
    cr_assert(o.rc == 0 && !o.t && !o.bos && !o.eos, "an empty directory has none: %s", o.e.msg);
    put(&d, "tokenizer_config.json", "{\"chat_template\": null, \"bos_token\": null}");
    o = open_dir(&d);
    cr_assert(o.rc == 0 && !o.t && !o.bos && !o.eos);
    put(&d, "tokenizer_config.json",
        "{\"chat_template\": \"one\", \"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}");
    o = open_dir(&d);
    expect(&o, "one");
    cr_assert_str_eq(o.bos, "<s>");
    cr_assert_str_eq(o.eos, "</s>");
    closed(&o);
    put(&d, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, {\"name\": \"default\", \"template\": "
        "\"two\"}]}");
    put(&d, "special_tokens_map.json", "{\"bos_token\": {\"content\": \"B\"}, \"eos_token\": 7}");
    o = open_dir(&d);
    expect(&o, "two");
    cr_assert_str_eq(o.bos, "B", "what the one file lacks, the other may have");
    cr_assert_null(o.eos);
    closed(&o);
    put(&d, "chat_template.jinja", "three\n");
    o = open_dir(&d);
    expect(&o, "three");
    closed(&o);
    dir_remove(&d);
}

Test(template, of_a_bad_directory) {
    static const char *const bad[][2] = {
        {"{", "is not JSON"},
        {"[]", "is not a JSON object"},
        {"{\"chat_template\": 7}", "neither a string nor a list"},
        {"{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}", "neither a string nor a list"},
        {"{\"chat_template\": [{\"name\": \"default\", \"template\": 1}, 2]}", "neither a string nor a list"},
        {"{\"chat_template\": \"{% frob %}\", \"bos_token\": \"x\"}", "tokenizer_config.json, line 1: the tag 'frob'"},
        {"{\"bos_token\": \"a\\u0000b\"}", "not usable text"},
    };
    struct dir d = dir_new();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put(&d, "tokenizer_config.json", bad[i][0]);
        struct opened o = open_dir(&d);
        cr_assert(o.rc == -1 && !o.t && !o.bos && !o.eos, "%s", bad[i][0]);
        cr_assert_eq(o.e.kind, ERR_MODEL, "%s: %s", bad[i][0], o.e.msg);
        cr_assert(strstr(o.e.msg, bad[i][1]), "%s: %s", bad[i][0], o.e.msg);
    }
    dir_remove(&d);
    struct opened o = open_dir(&d);
    cr_assert_eq(o.rc, -1);
    cr_assert_eq(o.e.kind, ERR_IO);
}
