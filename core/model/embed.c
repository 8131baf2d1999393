#include "core/model/embed.h"

#include <stdlib.h>

int embedding_open(struct embedding *m, struct weights *w, struct err *e) {
    const struct model_config *c = weights_config(w);
    *m = (struct embedding){0};
    if (weights_get(w, "model.embed_tokens.weight", (uint32_t)c->vocab, (uint32_t)c->hidden, &m->rows, e) != 0)
        return -1;
    m->scratch = malloc(m->rows.row_bytes);
    return m->scratch ? 0 : err_set(e, ERR_MEMORY, "out of memory loading the model");
}

void embedding_close(struct embedding *m) {
    free(m->scratch);
    *m = (struct embedding){0};
}

int embedding_take(const struct embedding *m, const uint32_t *tokens, int n, float *x, struct err *e) {
    const struct tensor *t = &m->rows;
    if (!m->scratch)
        return err_set(e, ERR_USAGE, "this part of the model has no embedding");
    for (int i = 0; i < n; i++) {
        if (tokens[i] >= t->rows)
            return err_set(e, ERR_USAGE, "token %u is outside the vocabulary of %u", tokens[i], t->rows);
        dtype_decode(t->dtype, tensor_row(t, tokens[i], m->scratch), t->cols, x + (size_t)i * t->cols);
    }
    return 0;
}
