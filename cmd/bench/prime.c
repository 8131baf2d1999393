#include "cmd/bench/prime.h"

#include "core/draft/draft.h"

enum { TEACH_EVERY = 8, TEACH_MAX = 8192, TABLE_BYTES = 64 << 20 };

static int teach(struct draft_store *s, uint32_t vocab, const struct trace *t, struct err *e) {
    struct drafter *d;
    const struct drafter_opts o = {.vocab = vocab, .max_ctx = t->n, .store = s};
    if (drafter_create(&d, &o, e) != 0)
        return -1;
    for (uint32_t n = t->n_prompt; n <= t->n; n++)
        drafter_sync(d, t->tokens, n);
    drafter_teach(d);
    drafter_free(d);
    return 0;
}

int prime_store(struct draft_store **out, uint32_t vocab, const struct traces *t, const bool *leave_out,
                struct err *e) {
    if (draft_store_create(out, &(struct draft_store_opts){.vocab = vocab, .table_bytes = TABLE_BYTES}, e) != 0)
        return -1;
    for (int i = 0; i < t->n; i++) {
        const struct trace *x = &t->at[i];
        if (leave_out[i])
            continue;
        /* The last ones: by then it knows something. */
        bool sample = i % TEACH_EVERY == TEACH_EVERY - 1 && i > t->n / 2 && x->n <= TEACH_MAX;
        if ((sample && teach(*out, vocab, x, e) != 0) || draft_store_learn(*out, x->tokens, x->n, e) != 0)
            return -1;
    }
    return 0;
}
