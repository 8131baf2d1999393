#include "cmd/bench/ablation.h"

#include "cmd/bench/drafts.h"
#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

enum { TREE_NODES = 64, N_ORDERS = DRAFTS_LAST_ORDER - DRAFTS_FIRST_ORDER + 1 };

/* Prompt and answer as one; tokens NULL: no answer, or no memory. */
static struct trace join(const struct bench_prompt *p, const struct ids *answer) {
    const struct ids *a = p->next.n ? &p->next : answer;
    struct trace t = {.n_prompt = (uint32_t)p->ids.n, .n = (uint32_t)(p->ids.n + a->n)};
    t.tokens = answer->n ? malloc((size_t)t.n * sizeof *t.tokens) : NULL;
    if (t.tokens) {
        memcpy(t.tokens, p->ids.p, p->ids.n * sizeof *t.tokens);
        memcpy(t.tokens + p->ids.n, a->p, a->n * sizeof *t.tokens);
    }
    return t;
}

static int draft(struct bench_row rows[N_ORDERS + 1], const struct trace *t, uint32_t vocab, double *draft_ms,
                 struct err *e) {
    const struct drafter_opts o = {.vocab = vocab};
    for (int i = 0; i < N_ORDERS; i++)
        drafts_follow_reference(t, DRAFTS_FIRST_ORDER + i, &rows[i]);
    return drafts_follow(t, &o, &rows[N_ORDERS], draft_ms, e);
}

int bench_ablation(struct bench_rows *out, const struct bench_prompts *p, const struct ids *answers, uint32_t vocab,
                   struct err *e) {
    int rc = 0;
    for (int c = 0; c <= BENCH_CATEGORIES && rc == 0; c++) { /* the last: all */
        struct bench_row rows[N_ORDERS + 1];
        double draft_ms = 0;
        for (int i = 0; i < N_ORDERS; i++)
            rows[i] = drafts_reference_row(DRAFTS_FIRST_ORDER + i);
        rows[N_ORDERS] = bench_row_of("stop-and-wait", "suffix+ngram", TREE_NODES);
        for (int i = 0; i < p->n && rc == 0; i++) {
            if (c < BENCH_CATEGORIES && p->at[i].category != c)
                continue;
            struct trace t = join(&p->at[i], &answers[i]);
            if (t.tokens)
                rc = draft(rows, &t, vocab, &draft_ms, e);
            wipe_free(t.tokens, t.tokens ? t.n * sizeof *t.tokens : 0);
        }
        for (int i = 0; i <= N_ORDERS && rc == 0 && rows[i].tokens; i++) {
            rows[i].category = c < BENCH_CATEGORIES ? bench_categories[c] : NULL;
            rc = bench_rows_add(out, &rows[i], e);
        }
    }
    return rc;
}
