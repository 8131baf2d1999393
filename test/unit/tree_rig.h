/* test/unit/tree_rig.h - random trees behind random texts, and their logits held against decoding token by token.
 * Everything asserts. */
#ifndef TEST_UNIT_TREE_RIG_H
#define TEST_UNIT_TREE_RIG_H

#include "core/decode/session.h"

#include <stddef.h>
#include <stdint.h>

/* Contexts that these trees need, and rows of their windows. */
enum { TREE_PREFIX = 24, TREE_NODES = 20, TREE_DEPTH = TREE_PREFIX + TREE_NODES, TREE_CTX = 48, TREE_ROWS = 20 };

struct tree {
    uint32_t text[TREE_DEPTH]; /* the prefix, and the path of the node being visited */
    uint32_t n_prefix;
    uint32_t tokens[TREE_NODES];
    int parents[TREE_NODES], n;
    float *logits; /* [TREE_NODES][vocab] */
};

void tree_open(struct tree *t, size_t vocab);
void tree_close(struct tree *t);

/* The next tree of a sequence; its text may begin as the one before did. */
void tree_grow(struct tree *t, uint32_t vocab, uint32_t *seed);
/* Its prefix in windows, then the tree in one, by `windows`; token by token by `plain`: the same bits. model is for
 * messages. */
void tree_compare(struct tree *t, struct session *windows, struct session *plain, size_t vocab, const char *model);

#endif
