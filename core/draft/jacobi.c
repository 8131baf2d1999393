/* Jacobi iteration over a block of tokens (iterate.h). */
#include "core/base/wipe.h"
#include "core/draft/iteration.h"

#include <stdlib.h>

struct jacobi {
    int block;
    int n_said;                       /* what the target said behind the last block, of which */
    uint32_t said[ITERATE_BLOCK_MAX]; /* said[i] is the new guess for the position behind guess i */
    uint32_t next[ITERATE_BLOCK_MAX]; /* the block in the making */
};

static int jacobi_create(void **ctx, const struct iterate_opts *o, struct err *e) {
    struct jacobi *j = *ctx = calloc(1, sizeof *j);
    if (!j)
        return err_set(e, ERR_MEMORY, "out of memory");
    j->block = o->block;
    return 0;
}

static void jacobi_free(void *ctx) {
    wipe_free(ctx, sizeof(struct jacobi));
}

/* The text grew by what was accepted and by the token behind it: what was said behind the guess at the position of its
 * last token is the guess for the next one. */
static int jacobi_guess(void *ctx, const uint32_t *text, uint32_t n, uint32_t moved, struct draft_node *tree) {
    struct jacobi *j = ctx;
    uint32_t k = 0;
    for (int at = (int)(moved < ITERATE_BLOCK_MAX ? moved : ITERATE_BLOCK_MAX) - 1; moved && at < j->n_said; at++) {
        if (j->said[at] == ITERATE_UNKNOWN)
            break;
        j->next[k++] = j->said[at];
    }
    for (; k < (uint32_t)j->block; k++)
        j->next[k] = iterate_recall(text, n, j->next, k);
    j->n_said = 0;
    for (int i = 0, count = 0; i < j->block; i++)
        iterate_add(tree, &count, i - 1, j->next[i]);
    return j->block;
}

static void jacobi_said(void *ctx, const uint32_t *said, int n) {
    struct jacobi *j = ctx;
    j->n_said = n < j->block ? n : j->block;
    for (int i = 0; i < j->n_said; i++)
        j->said[i] = said[i];
}

const struct iterate_ops jacobi_ops = {
    .create = jacobi_create, .free = jacobi_free, .guess = jacobi_guess, .said = jacobi_said};
