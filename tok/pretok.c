#include "tok/pretok.h"

#include "core/base/wipe.h"
#include "tok/utf8.h"

#include <stdlib.h>
#include <string.h>

void spans_push(struct spans *v, size_t from, size_t to) {
    if (v->n == v->cap && !v->bad) {
        size_t cap = v->cap ? 2 * v->cap : 256;
        struct span *p = malloc(cap * sizeof *p);
        if (p) {
            if (v->n)
                memcpy(p, v->p, v->n * sizeof *p);
            wipe_free(v->p, v->cap * sizeof *v->p);
            v->p = p;
            v->cap = cap;
        }
        v->bad = !p;
    }
    if (!v->bad)
        v->p[v->n++] = (struct span){(uint32_t)from, (uint32_t)to};
}

void spans_free(struct spans *v) {
    wipe_free(v->p, v->cap * sizeof *v->p);
    *v = (struct spans){0};
}

/* Takes the pieces of one string in order, matches and what lies between, and makes words of them by the behaviour. */
struct cutter {
    enum pretok_behavior behavior;
    struct spans *out;
    size_t base;
    bool open, open_is_match; /* a word whose end is not known yet */
    size_t from, to;
};

static void cutter_close(struct cutter *c) {
    if (c->open && c->to > c->from)
        spans_push(c->out, c->base + c->from, c->base + c->to);
    c->open = false;
}

static void cutter_put(struct cutter *c, size_t from, size_t to, bool match) {
    bool join = false;
    switch (c->behavior) {
    case SPLIT_REMOVED:
        if (match) {
            cutter_close(c);
            return;
        }
        break;
    case SPLIT_CONTIGUOUS:
        join = c->open && c->open_is_match == match;
        break;
    case SPLIT_WITH_PREVIOUS:
        join = c->open && match && !c->open_is_match;
        break;
    case SPLIT_WITH_NEXT:
        join = c->open && c->open_is_match && !match;
        break;
    case SPLIT_ISOLATED:
        break;
    }
    if (!join) {
        cutter_close(c);
        c->from = from;
    }
    c->to = to;
    c->open = true;
    c->open_is_match = match;
}

/* Cuts n bytes of valid UTF-8. Empty matches cut too. */
static int cut(const struct pretok_step *s, struct regex_scratch *scratch, const uint8_t *p, size_t n, struct cutter *c,
               struct err *e) {
    struct regex_iter m = regex_iter_of(s->regex, scratch, p, n);
    size_t at = 0;
    int found;
    while ((found = regex_next(&m, e)) == 1) {
        if (at < m.start)
            cutter_put(c, at, m.start, s->invert);
        cutter_put(c, m.start, m.end, !s->invert);
        at = m.end;
    }
    if (at < n)
        cutter_put(c, at, n, s->invert);
    return found;
}

static int run_step(const struct pretok_step *s, struct regex_scratch *scratch, const uint8_t *p, struct span word,
                    struct spans *out, struct err *e) {
    p += word.from;
    size_t n = word.to - word.from;
    for (size_t i = 0; i < n;) {
        size_t k = utf8_valid_prefix(p + i, n - i);
        struct cutter c = {.behavior = s->behavior, .out = out, .base = word.from + i};
        if (k && cut(s, scratch, p + i, k, &c, e) != 0)
            return -1;
        cutter_close(&c);
        i += k;
        size_t bad = i;
        while (i < n && utf8_char(p + i, n - i, NULL) == 0)
            i++;
        if (bad < i)
            spans_push(out, word.from + bad, word.from + i);
    }
    return 0;
}

int pretok_run(const struct pretok *m, struct regex_scratch *scratch, const uint8_t *p, size_t n, struct spans *words,
               struct spans *tmp, struct err *e) {
    words->n = 0;
    if (n)
        spans_push(words, 0, n);
    for (int i = 0; i < m->n; i++) {
        struct spans in = *words;
        *words = *tmp;
        *tmp = in;
        words->n = 0;
        for (size_t j = 0; j < in.n; j++)
            if (run_step(&m->step[i], scratch, p, in.p[j], words, e) != 0)
                return -1;
    }
    if (words->bad || tmp->bad)
        return err_set(e, ERR_MEMORY, "out of memory splitting text into words");
    return 0;
}

void pretok_free(struct pretok *m) {
    for (int i = 0; i < m->n; i++)
        regex_free(m->step[i].regex);
    *m = (struct pretok){0};
}
