#include "core/base/wipe.h"
#include "core/draft/iteration.h"

#include <stdlib.h>

enum { RECALL = 3 }; /* tokens that iterate_recall looks for, at most */

struct iteration {
    const struct iterate_ops *ops;
    void *ctx;
    uint32_t n, last; /* of the text of the last guess */
};

void iterate_opts_default(struct iterate_opts *o) {
    *o = (struct iterate_opts){.block = 16, .ngram = 5, .window = 7, .candidates = 7};
}

int iterate_nodes(enum iterate_kind k, const struct iterate_opts *o) {
    return k == ITERATE_JACOBI ? o->block : (o->ngram - 1) * (o->window + o->candidates);
}

int iterate_depth(enum iterate_kind k, const struct iterate_opts *o) {
    return k == ITERATE_JACOBI ? o->block : o->ngram - 1 + (o->window > 0 ? o->window - 1 : 0);
}

int iterate_check(const struct iterate_opts *o, int max_nodes, struct err *e) {
    if (o->block < 1 || o->block > ITERATE_BLOCK_MAX)
        return err_set(e, ERR_USAGE, "a block has 1 to %d tokens", ITERATE_BLOCK_MAX);
    if (o->ngram < 2 || o->ngram > ITERATE_NGRAM_MAX)
        return err_set(e, ERR_USAGE, "an n-gram has 2 to %d tokens", ITERATE_NGRAM_MAX);
    if (o->window < 0 || o->window > ITERATE_WINDOW_MAX)
        return err_set(e, ERR_USAGE, "a lookahead window has 0 to %d columns", ITERATE_WINDOW_MAX);
    if (o->candidates < 0 || o->candidates > ITERATE_CANDIDATES_MAX || o->window + o->candidates == 0)
        return err_set(e, ERR_USAGE, "lookahead tries 0 to %d candidates, and without a window at least one",
                       ITERATE_CANDIDATES_MAX);
    for (int k = 0; k < N_ITERATE_KINDS; k++)
        if (iterate_nodes((enum iterate_kind)k, o) > max_nodes)
            return err_set(e, ERR_USAGE,
                           k == ITERATE_JACOBI ? "a block of %d guesses; at most %d are in flight"
                                               : "lookahead with %d guesses, (ngram - 1) * (window + candidates); at "
                                                 "most %d are in flight",
                           iterate_nodes((enum iterate_kind)k, o), max_nodes);
    return 0;
}

int iteration_create(struct iteration **out, enum iterate_kind k, const struct iterate_opts *o, struct err *e) {
    *out = NULL;
    struct iteration *it = calloc(1, sizeof *it);
    if (!it)
        return err_set(e, ERR_MEMORY, "out of memory");
    it->ops = k == ITERATE_JACOBI ? &jacobi_ops : &lookahead_ops;
    if (it->ops->create(&it->ctx, o, e) != 0) {
        free(it);
        return -1;
    }
    *out = it;
    return 0;
}

void iteration_free(struct iteration *it) {
    if (!it)
        return;
    it->ops->free(it->ctx);
    wipe_free(it, sizeof *it);
}

int iteration_guess(struct iteration *it, const uint32_t *text, uint32_t n, struct draft_node *tree) {
    uint32_t moved = it->n > 0 && n > it->n && text[it->n - 1] == it->last ? n - it->n : 0;
    it->n = n;
    it->last = text[n - 1];
    return it->ops->guess(it->ctx, text, n, moved, tree);
}

void iteration_said(struct iteration *it, const uint32_t *said, int n) {
    it->ops->said(it->ctx, said, n);
}

int iterate_add(struct draft_node *tree, int *n, int parent, uint32_t token) {
    for (int i = parent + 1; i < *n; i++)
        if (tree[i].parent == parent && tree[i].token == token)
            return i;
    tree[*n] = (struct draft_node){.token = token, .parent = parent, .p = 1, .path = 1, .source = DRAFT_POOL};
    return (*n)++;
}

uint32_t iterate_recall(const uint32_t *text, uint32_t n, const uint32_t *more, uint32_t k) {
    uint32_t tail[RECALL] = {0}, m = 0, best = 0, at = n;
    for (; m < RECALL && m < n + k; m++)
        tail[m] = m < k ? more[k - 1 - m] : text[n - 1 - (m - k)];
    /* The end of a match is looked for, latest first, with something behind it. */
    for (uint32_t end = n - 1; end > 0 && best < m; end--) {
        uint32_t len = 0;
        while (len < m && len < end && text[end - 1 - len] == tail[len])
            len++;
        if (len > best) {
            best = len;
            at = end;
        }
    }
    return best > 0 ? text[at] : k > 0 ? more[k - 1] : text[n - 1];
}
