/* Lookahead decoding: the grid, and the n-grams that it finds (iterate.h). */
#include "core/base/wipe.h"
#include "core/draft/iteration.h"

#include <stdlib.h>
#include <string.h>

enum { POOL = 4096 /* n-grams that are remembered */, REST_MAX = ITERATE_NGRAM_MAX - 1 };

struct lookahead {
    struct iterate_opts o;
    int levels;                                  /* of the grid: ngram - 1 */
    uint32_t grid[REST_MAX][ITERATE_WINDOW_MAX]; /* [level][column] */
    int node[ITERATE_WINDOW_MAX];                /* of the top level, in the last guess */
    uint32_t *pool;                              /* [POOL][ngram], a ring */
    int first, n;
    uint32_t rest[ITERATE_CANDIDATES_MAX][REST_MAX]; /* candidates, without their first token */
    int n_rest;
};

static void lookahead_free(void *ctx) {
    struct lookahead *l = ctx;
    if (l && l->pool)
        wipe_free(l->pool, (size_t)POOL * (size_t)l->o.ngram * sizeof *l->pool);
    if (l)
        wipe_free(l, sizeof *l);
}

static int lookahead_create(void **ctx, const struct iterate_opts *o, struct err *e) {
    struct lookahead *l = *ctx = calloc(1, sizeof *l);
    if (l) {
        l->o = *o;
        l->levels = o->ngram - 1;
        l->pool = calloc((size_t)POOL * (size_t)o->ngram, sizeof *l->pool);
    }
    if (l && l->pool)
        return 0;
    lookahead_free(l);
    return err_set(e, ERR_MEMORY, "out of memory for n-grams");
}

/* ---- candidates ---- */

static bool offer(struct lookahead *l, const uint32_t *ngram) {
    size_t bytes = (size_t)l->levels * sizeof *ngram;
    for (int i = 0; i < l->n_rest; i++)
        if (memcmp(l->rest[i], ngram + 1, bytes) == 0)
            return true;
    if (l->n_rest == l->o.candidates)
        return false;
    memcpy(l->rest[l->n_rest++], ngram + 1, bytes);
    return true;
}

/* Different n-grams that begin with the newest token. With a grid: those that it found, the newest first, then those of
 * the text, the newest first. Without: the oldest of the text (as in coder903/split-inference). */
static void find_candidates(struct lookahead *l, const uint32_t *text, uint32_t n) {
    uint32_t len = (uint32_t)l->o.ngram, key = text[n - 1], places = n >= len ? n - len + 1 : 0;
    bool room = l->o.candidates > 0;
    l->n_rest = 0;
    for (int i = l->n - 1; i >= 0 && room; i--) {
        const uint32_t *g = l->pool + (size_t)((l->first + i) % POOL) * len;
        if (g[0] == key)
            room = offer(l, g);
    }
    for (uint32_t i = 0; i < places && room; i++) {
        const uint32_t *g = text + (l->o.window > 0 ? places - 1 - i : i);
        if (g[0] == key)
            room = offer(l, g);
    }
}

/* ---- the grid ---- */

static void fill_column(struct lookahead *l, int column, const uint32_t *text, uint32_t n) {
    /* Something that may be: a piece of the text, each column another one. */
    uint32_t at = (uint32_t)(((uint64_t)n * 0x9E3779B9u + (uint64_t)column * 0x85EBCA6Bu) % n);
    for (int level = 0; level < l->levels; level++)
        l->grid[level][column] = text[(at + (uint32_t)level) % n];
}

static int lookahead_guess(void *ctx, const uint32_t *text, uint32_t n, uint32_t moved, struct draft_node *tree) {
    struct lookahead *l = ctx;
    int count = 0;
    if (moved == 0) { /* what another text led to is of no use */
        wipe(l->pool, (size_t)POOL * (size_t)l->o.ngram * sizeof *l->pool);
        l->n = l->first = 0;
        for (int c = 0; c < l->o.window; c++)
            fill_column(l, c, text, n);
    }
    find_candidates(l, text, n);
    for (int i = 0; i < l->n_rest; i++)
        for (int k = 0, at = -1; k < l->levels; k++)
            at = iterate_add(tree, &count, at, l->rest[i][k]);
    for (int c = 0, chain = -1; c < l->o.window; c++) {
        int at = chain = iterate_add(tree, &count, chain, l->grid[0][c]);
        for (int level = 1; level < l->levels; level++)
            at = iterate_add(tree, &count, at, l->grid[level][c]);
        l->node[c] = at;
    }
    return count;
}

/* Each column has a new top: the n-gram is remembered, and the levels move down, as the text did by a token. */
static void lookahead_said(void *ctx, const uint32_t *said, int n) {
    struct lookahead *l = ctx;
    for (int c = 0; c < l->o.window; c++) {
        uint32_t top = l->node[c] < n ? said[l->node[c]] : ITERATE_UNKNOWN;
        if (top == ITERATE_UNKNOWN)
            continue;
        uint32_t *g = l->pool + (size_t)((l->first + l->n) % POOL) * (size_t)l->o.ngram;
        if (l->n == POOL)
            l->first = (l->first + 1) % POOL;
        else
            l->n++;
        for (int level = 0; level < l->levels; level++)
            g[level] = l->grid[level][c];
        g[l->levels] = top;
        for (int level = 0; level + 1 < l->levels; level++)
            l->grid[level][c] = l->grid[level + 1][c];
        l->grid[l->levels - 1][c] = top;
    }
}

const struct iterate_ops lookahead_ops = {
    .create = lookahead_create, .free = lookahead_free, .guess = lookahead_guess, .said = lookahead_said};
