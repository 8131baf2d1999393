#include "cmd/engine/learned.h"

#include "cmd/term.h"
#include "net/home.h"
#include "net/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So many tokens in a row are no coincidence. */
enum { TAIL = 12 };

int learned_open(struct learned *l, const char *home, const struct tokenizer *t, struct err *e) {
    char *own = home ? NULL : identity_default_home(e);
    const char *dir = home ? home : own;
    const struct draft_store_opts o = {.vocab = tokenizer_n(t), .tokenizer = tokenizer_hash(t)};
    *l = (struct learned){0};
    int rc = dir && home_make(dir, e) == 0 ? draft_store_open(&l->store, dir, &o, e) : -1;
    free(own);
    return rc;
}

void learned_try_open(struct learned *l, const char *home, const struct tokenizer *t) {
    struct err e = {0};
    if (learned_open(l, home, t, &e) != 0)
        term_warn("what was learned earlier is not used, and nothing is learned: %s", e.msg);
}

void learned_close(struct learned *l) {
    draft_store_close(l->store);
    ids_free(&l->last);
    *l = (struct learned){0};
}

size_t learned_new_part(const uint32_t *last, size_t n_last, const uint32_t *prompt, size_t n) {
    size_t same = 0, tail = n_last < TAIL ? n_last : TAIL;
    while (same < n && same < n_last && prompt[same] == last[same])
        same++;
    if (same == n_last || tail == 0)
        return same;
    for (size_t end = n; end >= tail && end > same; end--)
        if (memcmp(prompt + end - tail, last + n_last - tail, tail * sizeof *prompt) == 0)
            return end;
    return same;
}

static int learn(struct learned *l, const struct ids *prompt, const uint32_t *answer, size_t n_answer, struct err *e) {
    size_t from = learned_new_part(l->last.p, l->last.n, prompt->p, prompt->n);
    ids_clear(&l->last);
    for (size_t i = 0; i < prompt->n; i++)
        ids_push(&l->last, prompt->p[i]);
    for (size_t i = 0; i < n_answer; i++)
        ids_push(&l->last, answer[i]);
    if (l->last.bad) {
        ids_free(&l->last);
        return err_set(e, ERR_MEMORY, "out of memory for the tokens of a turn");
    }
    return draft_store_learn(l->store, l->last.p + from, l->last.n - from, e);
}

void learned_turn(struct learned *l, struct drafter *d, const struct ids *prompt, const uint32_t *answer,
                  size_t n_answer) {
    struct err e = {0};
    if (!l->store || n_answer == 0)
        return;
    if (learn(l, prompt, answer, n_answer, &e) == 0) {
        drafter_teach(d);
        return;
    }
    if (!l->failed)
        term_warn("this turn was not learned: %s", e.msg);
    l->failed = true;
}

int learned_forget(const char *home, bool json, struct err *e) {
    struct draft_store_forgotten gone = {0};
    char *own = home ? NULL : identity_default_home(e), size[16];
    const char *dir = home ? home : own;
    int rc = dir ? draft_store_forget(dir, &gone, e) : -1;
    term_size((double)gone.bytes, size);
    if (rc == 0 && json)
        printf("{\"stores\":%d,\"bytes\":%llu}\n", gone.n, (unsigned long long)gone.bytes);
    else if (rc == 0 && gone.bytes == 0)
        term_note("nothing was learned in %s", dir);
    else if (rc == 0)
        term_note("deleted what was learned in %s: %d store%s, %s", dir, gone.n, gone.n == 1 ? "" : "s", size);
    free(own);
    return rc;
}
