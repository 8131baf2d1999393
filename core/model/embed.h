/* core/model/embed.h - the embedding of a model, whose rows are decoded on the host, from where they lie: the same for
 * every backend. */
#ifndef CORE_MODEL_EMBED_H
#define CORE_MODEL_EMBED_H

#include "core/model/weights.h"

struct embedding {
    struct tensor rows; /* [vocab][hidden], borrowed */
    void *scratch;      /* of one row; NULL: there is no embedding here */
};

/* ERR_MODEL as weights_get; ERR_MEMORY. */
int embedding_open(struct embedding *m, struct weights *w, struct err *e);
void embedding_close(struct embedding *m); /* an empty one is fine */

/* x[n][hidden] = rows of tokens. ERR_USAGE: a token >= vocab, or there is no embedding. One thread at a time. */
int embedding_take(const struct embedding *m, const uint32_t *tokens, int n, float *x, struct err *e);

#endif
