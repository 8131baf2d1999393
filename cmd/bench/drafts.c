#include "cmd/bench/drafts.h"

#include "core/base/clock.h"

#include <string.h>

/* Drafted tokens that the answer follows from position at on. */
static uint32_t accepted(const struct draft_node *tree, int n, const struct trace *t, uint32_t at) {
    int node = -1;
    uint32_t a = 0;
    for (int i = 0; i < n && at + a < t->n; i++) {
        if (tree[i].parent == node && tree[i].token == t->tokens[at + a]) {
            node = i;
            a++;
        }
    }
    return a;
}

int drafts_follow(const struct trace *t, const struct drafter_opts *o, struct bench_row *r, double *draft_ms,
                  struct err *e) {
    struct draft_node tree[DRAFTS_MAX_NODES];
    struct drafter *d;
    struct drafter_opts mine = *o;
    uint32_t at = t->n_prompt;
    mine.max_ctx = t->n;
    if (drafter_create(&d, &mine, e) != 0)
        return -1;
    drafter_sync(d, t->tokens, at);
    double t0 = clock_ms();
    while (at < t->n) {
        drafter_sync(d, t->tokens, at);
        int n = draft_tree_grow(d, NULL, 0, tree, 0, r->nodes, 0);
        uint32_t a = accepted(tree, n, t, at);
        at += a + 1 < t->n - at ? a + 1 : t->n - at;
        r->steps++;
    }
    *draft_ms += clock_ms() - t0;
    r->tokens += t->n - t->n_prompt;
    drafter_free(d);
    return 0;
}

enum { CANDIDATES = 5 };

void drafts_follow_reference(const struct trace *t, int order, struct bench_row *r) {
    uint32_t at = t->n_prompt;
    while (at < t->n) {
        uint32_t best = 0, found = 0;
        for (uint32_t i = 0; i + (uint32_t)order <= at && found < CANDIDATES; i++) {
            if (t->tokens[i] != t->tokens[at - 1])
                continue;
            uint32_t a = 0;
            while (a + 1 < (uint32_t)order && at + a < t->n && t->tokens[i + 1 + a] == t->tokens[at + a])
                a++;
            best = a > best ? a : best;
            bool seen = false;
            for (uint32_t j = 0; j < i && !seen; j++)
                seen = memcmp(t->tokens + j, t->tokens + i, (size_t)order * sizeof *t->tokens) == 0;
            found += !seen;
        }
        at += best + 1 < t->n - at ? best + 1 : t->n - at;
        r->steps++;
    }
    r->tokens += t->n - t->n_prompt;
}

struct bench_row drafts_reference_row(int order) {
    static const char *const names[] = {"n=3", "n=4", "n=5", "n=6", "n=7"};
    return bench_row_of("reference", names[order - DRAFTS_FIRST_ORDER], CANDIDATES * (order - 1));
}
