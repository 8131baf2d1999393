#include "core/draft/recycle.h"

#include "core/base/wipe.h"

#include <math.h>
#include <stdlib.h>

/* What lies this far below the largest logit adds next to nothing to the sum, and would cost most of the time. */
static const float NEAR = 14.0f;

struct top {
    uint32_t token[RECYCLE_TOP];
    uint16_t p[RECYCLE_TOP]; /* of 65535; falling; 0: none */
};

struct recycle {
    uint32_t vocab;
    struct top *of;
};

uint64_t recycle_bytes(uint32_t vocab) {
    return vocab * (uint64_t)sizeof(struct top);
}

int recycle_create(struct recycle **out, uint32_t vocab, struct err *e) {
    struct recycle *r = calloc(1, sizeof *r);
    if (!r || !(r->of = calloc(vocab, sizeof *r->of))) {
        free(r);
        return err_set(e, ERR_MEMORY, "out of memory for drafts over a vocabulary of %u", vocab);
    }
    r->vocab = vocab;
    *out = r;
    return 0;
}

void recycle_free(struct recycle *r) {
    if (!r)
        return;
    wipe_free(r->of, r->vocab * sizeof *r->of);
    free(r);
}

void recycle_put(struct recycle *r, uint32_t token, const float *logits) {
    if (token >= r->vocab)
        return;
    uint32_t best[RECYCLE_TOP];
    int n = 0;
    for (uint32_t i = 0; i < r->vocab; i++) {
        if (!(logits[i] > -INFINITY) || (n == RECYCLE_TOP && logits[i] <= logits[best[n - 1]]))
            continue;
        int at = n < RECYCLE_TOP ? n++ : n - 1;
        for (; at > 0 && logits[best[at - 1]] < logits[i]; at--)
            best[at] = best[at - 1];
        best[at] = i;
    }
    double sum = 0;
    for (uint32_t i = 0; n > 0 && i < r->vocab; i++)
        if (logits[i] > logits[best[0]] - NEAR)
            sum += exp((double)logits[i] - (double)logits[best[0]]);
    struct top *t = &r->of[token];
    for (int i = 0; i < RECYCLE_TOP; i++) {
        double p = i < n ? exp((double)logits[best[i]] - (double)logits[best[0]]) / sum : 0;
        t->token[i] = i < n ? best[i] : 0;
        t->p[i] = p > 0 && p <= 1 ? (uint16_t)lrint(p * 65535) : 0; /* an infinite logit gives no number: nothing */
    }
}

int recycle_get(const struct recycle *r, uint32_t token, struct ngram_succ out[RECYCLE_TOP]) {
    int n = 0;
    if (token >= r->vocab)
        return 0;
    for (int i = 0; i < RECYCLE_TOP && r->of[token].p[i]; i++)
        out[n++] = (struct ngram_succ){r->of[token].token[i], r->of[token].p[i]};
    return n;
}
