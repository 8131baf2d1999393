#include "cmd/bench/prompts.h"

#include "cmd/bench/traces.h"
#include "cmd/engine/prompt.h"
#include "cmd/text_file.h"
#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPTS = 1024, RANDOM_PROMPTS = 2, RANDOM_TOKENS = 48 };

const char *const bench_categories[BENCH_CATEGORIES] = {"code", "structured", "creative", "conversational"};

/* The eight tasks of the paper (arXiv 2602.16760), two of each category, in our words. */
static const struct {
    int category;
    const char *text;
} builtin[] = {
    {0, "Implement binary search over a sorted list as a Python function, with type hints and a docstring."},
    {0, "Implement a linked list as a Python class that can insert, delete and search."},
    {1, "Make a table of the ten largest countries by area, with the capital and the population of each."},
    {1,
     "Go through what happens in an HTTP request step by step, from the DNS lookup until the page is on the screen."},
    {2, "Tell a short story about a robot that finds out that it can dream. It should move the reader and end in a "
        "surprise."},
    {2, "Write a poem about the sea at midnight, with strong pictures and metaphors nobody expects."},
    {3, "How do Python and Rust differ, and when would you take which of them?"},
    {3, "What is quantum computing? Explain it to a child of ten, with comparisons from everyday life."},
};
enum { N_BUILTIN = sizeof builtin / sizeof *builtin };

void bench_prompts_free(struct bench_prompts *v) {
    for (int i = 0; i < v->n; i++) {
        ids_free(&v->at[i].ids);
        ids_free(&v->at[i].next);
    }
    free(v->at);
    *v = (struct bench_prompts){0};
}

static struct bench_prompt *add(struct bench_prompts *v, int category, struct err *e) {
    struct bench_prompt *at = v->n < MAX_PROMPTS ? realloc(v->at, (size_t)(v->n + 1) * sizeof *at) : NULL;
    if (!at) {
        err_set(e, v->n < MAX_PROMPTS ? ERR_MEMORY : ERR_USAGE, "more than %d prompts do not fit", v->n);
        return NULL;
    }
    v->at = at;
    at[v->n] = (struct bench_prompt){.category = category};
    return &at[v->n++];
}

/* ---- texts ---- */

struct reader {
    struct bench_prompts *v;
    struct prompt_source source;
    struct prompt_maker maker;
    int category;
};

static int reader_open(struct reader *r, struct bench_prompts *v, struct engine *en) {
    struct err none = {0};
    (void)engine_open_template(en, &none); /* without one the text is continued */
    *r = (struct reader){
        .v = v, .source = {.tok = en->tok, .tmpl = en->tmpl, .bos = en->bos, .eos = en->eos}, .category = -1};
    prompt_maker_init(&r->maker, &r->source);
    return 0;
}

static int read_text(void *ctx, const char *text, size_t n, struct err *e) {
    struct reader *r = ctx;
    struct conversation c;
    const struct ids *ids = NULL;
    char *copy = strndup(text, n);
    struct bench_prompt *p = copy ? add(r->v, r->category, e) : NULL;
    int rc = -1;
    conversation_init(&c);
    if (p && conversation_add(&c, "user", copy, e) == 0 && conversation_prompt(&c, &r->maker, &ids, e) == 0) {
        for (size_t i = 0; i < ids->n; i++)
            ids_push(&p->ids, ids->p[i]);
        rc = p->ids.bad ? -1 : 0;
    }
    if (rc != 0)
        err_set(e, ERR_MEMORY, "out of memory for prompts");
    conversation_free(&c);
    wipe_free(copy, copy ? n : 0);
    return rc;
}

int bench_prompts_builtin(struct bench_prompts *v, struct engine *en, struct err *e) {
    struct reader r;
    int rc = reader_open(&r, v, en);
    for (int i = 0; i < N_BUILTIN && rc == 0; i++) {
        r.category = builtin[i].category;
        rc = read_text(&r, builtin[i].text, strlen(builtin[i].text), e);
    }
    return rc;
}

int bench_prompts_file(struct bench_prompts *v, struct engine *en, const char *path, struct err *e) {
    struct reader r;
    return reader_open(&r, v, en) == 0 ? text_file_each(path, read_text, &r, e) : -1;
}

/* ---- tokens ---- */

static int add_trace(struct bench_prompts *v, const struct trace *t, int n_tokens, struct err *e) {
    struct bench_prompt *p = add(v, -1, e);
    if (!p)
        return -1;
    p->hash = t->prompt_hash;
    for (uint32_t i = 0; i < t->n_prompt; i++)
        ids_push(&p->ids, t->tokens[i]);
    for (uint32_t i = t->n_prompt; i < t->n && i - t->n_prompt < (uint32_t)n_tokens; i++)
        ids_push(&p->next, t->tokens[i]);
    return p->ids.bad || p->next.bad ? err_set(e, ERR_MEMORY, "out of memory for recorded answers") : 0;
}

int bench_prompts_replay(struct bench_prompts *v, const struct engine *en, const char *path, int n, int n_tokens,
                         struct err *e) {
    struct traces t = {0};
    int rc = traces_read(&t, path, en->tok, e);
    int every = n > 0 && n < t.n ? t.n / n : 1;
    for (int i = 0; i < t.n && rc == 0 && v->n < n; i += every)
        if (t.at[i].n > t.at[i].n_prompt && t.at[i].n_prompt > 0)
            rc = add_trace(v, &t.at[i], n_tokens, e);
    if (rc == 0 && v->n == 0)
        rc = err_set(e, ERR_USAGE, "--replay %s: no answer in it", path);
    traces_free(&t);
    return rc;
}

int bench_prompts_random(struct bench_prompts *v, const struct engine *en, struct err *e) {
    for (uint64_t i = 0; i < RANDOM_PROMPTS; i++) {
        struct bench_prompt *p = add(v, -1, e);
        for (uint64_t k = 0; p && k < RANDOM_TOKENS; k++)
            ids_push(&p->ids, (uint32_t)(philox_u64(1, i, k) % (uint64_t)en->config->vocab));
        if (!p || p->ids.bad)
            return err_set(e, ERR_MEMORY, "out of memory for prompts");
    }
    return 0;
}
