#include "core/draft/context.h"

#include <stdbool.h>

static const struct {
    uint8_t n, lines;
    uint8_t back[CONTEXT_REACH]; /* how far back each of its tokens stands */
} kinds[N_CONTEXTS] = {
    [CONTEXT_0] = {0, 32, {0}},         [CONTEXT_SKIP2] = {1, 2, {2}},         [CONTEXT_1] = {1, 8, {1}},
    [CONTEXT_SKIP13] = {2, 1, {1, 3}},  [CONTEXT_2] = {2, 4, {1, 2}},          [CONTEXT_3] = {3, 2, {1, 2, 3}},
    [CONTEXT_4] = {4, 1, {1, 2, 3, 4}}, [CONTEXT_5] = {5, 1, {1, 2, 3, 4, 5}}, [CONTEXT_6] = {6, 1, {1, 2, 3, 4, 5, 6}},
};
/* Not in the row of ever longer contexts. */
static const unsigned aside = 1u << CONTEXT_SKIP2 | 1u << CONTEXT_SKIP13;

int context_lines(enum context_kind k) {
    return kinds[k].lines;
}

void contexts_of(struct contexts *c, const uint32_t *tail, uint32_t n) {
    c->have = 0;
    for (int k = 0; k < N_CONTEXTS; k++) {
        uint64_t h = 0x8f1bbcdcbfa53e0bu + (uint64_t)k * 0x2545f4914f6cdd1du;
        int m = kinds[k].n;
        if (m > 0 && kinds[k].back[m - 1] > n)
            continue;
        for (int i = 0; i < m; i++)
            h = ngram_hash(h, tail[n - kinds[k].back[i]]);
        c->hash[k] = h;
        c->have |= 1u << k;
    }
}

void contexts_count(const struct ngram_table *t, const struct contexts *c, unsigned wanted, uint32_t token,
                    uint32_t unit, unsigned keep) {
    bool known = false;
    for (int k = N_CONTEXTS - 1; k >= 0; k--) {
        if (!(c->have & wanted & 1u << k) || (known && !(aside & 1u << k)))
            continue;
        uint32_t before = ngram_add(t, c->hash[k], kinds[k].lines, token, unit, k == CONTEXT_0 ? 256 : keep);
        known |= !(aside & 1u << k) && before >= (unit > 1 ? unit * 5 / 8 : 2);
    }
}
