#include "test/unit/tree_rig.h"

#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <stdlib.h>

void tree_open(struct tree *t, size_t vocab) {
    *t = (struct tree){.logits = malloc(TREE_NODES * vocab * sizeof *t->logits)};
    cr_assert_not_null(t->logits);
}

void tree_close(struct tree *t) {
    free(t->logits);
}

void tree_grow(struct tree *t, uint32_t vocab, uint32_t *seed) {
    /* Few different tokens, so that siblings and neighbours are alike now and then; and all, to reach each of them. */
    uint32_t alphabet = toy_rnd(seed) % 3 ? vocab : 4, shape = toy_rnd(seed) % 4;
    t->n_prefix = 1 + toy_rnd(seed) % TREE_PREFIX;
    for (uint32_t i = toy_rnd(seed) % TREE_PREFIX; i < t->n_prefix; i++) /* the beginning may be the one from before */
        t->text[i] = toy_rnd(seed) % vocab;
    t->n = 1 + (int)(toy_rnd(seed) % TREE_NODES);
    for (int i = 0; i < t->n; i++) {
        t->tokens[i] = toy_rnd(seed) % alphabet;
        t->parents[i] = shape == 0   ? i - 1                                      /* a chain */
                        : shape == 1 ? -1                                         /* a star */
                        : shape == 2 ? i - 1 - (int)(toy_rnd(seed) % 3) % (i + 1) /* deep */
                                     : (int)(toy_rnd(seed) % (uint32_t)(i + 1)) - 1;
    }
}

/* Node by node, depth first: each is one token behind a context that is there. */
static void visit(struct session *plain, struct tree *t, int parent, uint32_t depth, size_t vocab, const char *model) {
    struct err e = {0};
    for (int i = 0; i < t->n; i++) {
        if (t->parents[i] != parent)
            continue;
        t->text[depth] = t->tokens[i];
        cr_assert_eq(session_feed(plain, t->text, depth + 1, NULL, NULL, &e), 0, "%s", e.msg);
        cr_assert_arr_eq(session_logits(plain), t->logits + (size_t)i * vocab, vocab * sizeof *t->logits,
                         "%s: node %d of %d behind %u tokens", model, i, t->n, t->n_prefix);
        visit(plain, t, i, depth + 1, vocab, model);
    }
}

void tree_compare(struct tree *t, struct session *windows, struct session *plain, size_t vocab, const char *model) {
    struct err e = {0};
    cr_assert_eq(session_feed(windows, t->text, t->n_prefix, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(session_try_tree(windows, t->tokens, t->parents, t->n, t->logits, &e), 0, "%s", e.msg);
    for (uint32_t n = 1; n <= t->n_prefix; n++)
        cr_assert_eq(session_feed(plain, t->text, n, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_arr_eq(session_logits(windows), session_logits(plain), vocab * sizeof(float), "%s: %u tokens", model,
                     t->n_prefix);
    visit(plain, t, -1, t->n_prefix, vocab, model);
}
