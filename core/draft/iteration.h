/* core/draft/iteration.h - the inside of an iteration, for iterate.c, jacobi.c and lookahead.c only. */
#ifndef CORE_DRAFT_ITERATION_H
#define CORE_DRAFT_ITERATION_H

#include "core/draft/iterate.h"

enum { ITERATE_MAX_NODES = 2048 };

/* One way of iterating. ctx is its state. moved: tokens by which the text grew since the last guess; 0: it is another
 * text, or there was none. */
struct iterate_ops {
    int (*create)(void **ctx, const struct iterate_opts *o, struct err *e);
    void (*free)(void *ctx);
    int (*guess)(void *ctx, const uint32_t *text, uint32_t n, uint32_t moved, struct draft_node *tree);
    void (*said)(void *ctx, const uint32_t *said, int n);
};
extern const struct iterate_ops jacobi_ops, lookahead_ops;

/* The child of parent with this token, which is added when there is none. */
int iterate_add(struct draft_node *tree, int *n, int parent, uint32_t token);

/* A guess of what follows text[0..n) and more[0..k): what stood behind the last few of them when they came last. */
uint32_t iterate_recall(const uint32_t *text, uint32_t n, const uint32_t *more, uint32_t k);

#endif
