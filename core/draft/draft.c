#include "core/draft/drafter.h"

#include "core/base/wipe.h"
#include "core/draft/store.h"

#include <stdlib.h>
#include <string.h>

/* Session counts are in fixed point, so that they can fade. */
enum { UNIT = 64, DISCOUNT = 40, SESSION_KEEP = 240, ADAPT_MAX = 64, MAX_VIEWS = 2 * N_CONTEXTS + 3, MAX_SUCC = 4096 };

enum { /* experts, from the weakest to the most specific; stored shares depend on the order */
    EXPERT_STORE = 0,
    EXPERT_SESSION = N_CONTEXTS,
    EXPERT_RECYCLE = 2 * N_CONTEXTS,
    EXPERT_POOL,
    EXPERT_SUFFIX,
    N_EXPERTS
};
_Static_assert((int)N_EXPERTS <= (int)BLEND_EXPERTS, "experts have shares");

static const unsigned session_contexts = 1u << CONTEXT_0 | 1u << CONTEXT_1 | 1u << CONTEXT_2 | 1u << CONTEXT_3 |
                                         1u << CONTEXT_4 | 1u << CONTEXT_6 | 1u << CONTEXT_SKIP2 | 1u << CONTEXT_SKIP13;

const char *draft_source_name(enum draft_source s) {
    static const char *const names[N_DRAFT_SOURCES] = {"suffix", "ngram", "store", "recycle", "pool"};
    return (unsigned)s < N_DRAFT_SOURCES ? names[s] : "unknown";
}

static bool uses(const struct drafter *d, enum draft_source s) {
    return d->o.sources & 1u << s;
}

int drafter_create(struct drafter **out, const struct drafter_opts *o, struct err *e) {
    struct drafter *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_MEMORY, "out of memory for a drafter");
    d->o = *o;
    d->memory = BLEND_MEMORY;
    if (d->o.sources == 0)
        d->o.sources = (1u << N_DRAFT_SOURCES) - 1;
    if (!o->store)
        d->o.sources &= ~(1u << DRAFT_STORE);
    if (o->vocab > NGRAM_MAX_VOCAB) {
        err_set(e, ERR_MODEL, "a vocabulary of %u tokens: drafts work with at most %d", o->vocab, NGRAM_MAX_VOCAB);
        goto fail;
    }
    unsigned bits = NGRAM_MIN_BITS;
    while (((uint64_t)NGRAM_LINE << bits) < (uint64_t)o->max_ctx * N_CONTEXTS * 3 / 2 && bits < NGRAM_MAX_BITS)
        bits++;
    d->session.bits = bits;
    d->session.slots = aligned_alloc(64, ngram_bytes(bits));
    d->tokens = calloc((size_t)o->max_ctx + DRAFT_DEPTH, sizeof *d->tokens);
    d->succ = calloc(MAX_SUCC, sizeof *d->succ);
    d->frontier = calloc(DRAFT_FRONTIER, sizeof *d->frontier);
    if (!d->session.slots || !d->tokens || !d->succ || !d->frontier) {
        err_set(e, ERR_MEMORY, "out of memory for drafts over %u positions", o->max_ctx);
        goto fail;
    }
    memset(d->session.slots, 0, ngram_bytes(bits));
    if ((uses(d, DRAFT_SUFFIX) && suffix_create(&d->suffix, o->max_ctx, e) != 0) ||
        (uses(d, DRAFT_RECYCLE) && recycle_create(&d->recycle, o->vocab, e) != 0))
        goto fail;
    if (uses(d, DRAFT_STORE))
        draft_store_shares(o->store, &d->shares);
    else
        blend_start_with(&d->shares, false);
    *out = d;
    return 0;
fail:
    drafter_free(d);
    return -1;
}

void drafter_free(struct drafter *d) {
    if (!d)
        return;
    if (d->session.slots)
        wipe_free(d->session.slots, ngram_bytes(d->session.bits));
    if (d->tokens)
        wipe_free(d->tokens, ((size_t)d->o.max_ctx + DRAFT_DEPTH) * sizeof *d->tokens);
    if (d->succ)
        wipe_free(d->succ, MAX_SUCC * sizeof *d->succ);
    if (d->frontier)
        wipe_free(d->frontier, DRAFT_FRONTIER * sizeof *d->frontier);
    suffix_free(d->suffix);
    recycle_free(d->recycle);
    wipe_free(d, sizeof *d);
}

static void view_add(struct drafter *d, struct blend_view *v, int *n_views, int n, int *used, int expert,
                     enum draft_source source, uint32_t unit) {
    if (n == 0)
        return;
    uint32_t total = 0;
    for (int i = 0; i < n; i++)
        total += d->succ[*used + i].count;
    v[(*n_views)++] = (struct blend_view){.s = d->succ + *used, .n = n, .expert = expert,
        .bucket = blend_bucket((total + unit / 2) / unit, n), .source = source};
    for (int i = 0; i < n; i++) { /* what was seen once weighs less than half of what was seen twice */
        uint32_t c = d->succ[*used + i].count * (UNIT / unit);
        d->succ[*used + i].count = c > UNIT ? c - DISCOUNT : c * (UNIT - DISCOUNT) / UNIT + 1;
    }
    *used += n;
}

/* What each expert says about the token behind text[0..n), of which the suffix automaton's part is m. */
static int look(struct drafter *d, const uint32_t *text, uint32_t n, struct suffix_match m, struct blend_view *v) {
    struct contexts c;
    int n_views = 0, used = 0;
    contexts_of(&c, text, n);
    const struct ngram_table *store = uses(d, DRAFT_STORE) ? draft_store_table(d->o.store) : NULL;
    for (int k = 0; k < N_CONTEXTS; k++)
        if (store && c.have & draft_store_contexts & 1u << k)
            ngram_prefetch(store, c.hash[k], context_lines(k));
    for (int k = 0; k < N_CONTEXTS; k++) {
        int lines = context_lines(k);
        if (store && c.have & draft_store_contexts & 1u << k)
            view_add(d, v, &n_views,
                     ngram_find(store, c.hash[k], lines, d->o.vocab, d->succ + used, NGRAM_LINE * lines), &used,
                     EXPERT_STORE + k, DRAFT_STORE, 1);
        if (uses(d, DRAFT_NGRAM) && c.have & session_contexts & 1u << k)
            view_add(d, v, &n_views,
                     ngram_find(&d->session, c.hash[k], lines, d->o.vocab, d->succ + used, NGRAM_LINE * lines), &used,
                     EXPERT_SESSION + k, DRAFT_NGRAM, UNIT);
        if (k == CONTEXT_1 && d->recycle && n > 0) {
            int got = recycle_get(d->recycle, text[n - 1], d->succ + used);
            if (got > 0) {
                v[n_views++] = (struct blend_view){d->succ + used, got, EXPERT_RECYCLE,
                    (int)(d->succ[used].count >> 11), DRAFT_RECYCLE};
                used += got;
            }
        }
    }
    if (d->suffix && m.len > 0 && suffix_next(d->suffix, m) < d->n) {
        d->succ[used] = (struct ngram_succ){d->tokens[suffix_next(d->suffix, m)], 1};
        v[n_views++] = (struct blend_view){d->succ + used, 1, EXPERT_SUFFIX, (int)(m.len < 31 ? m.len : 31), DRAFT_SUFFIX};
    }
    return n_views;
}

static void restart(struct drafter *d) {
    memset(d->session.slots, 0, ngram_bytes(d->session.bits));
    if (d->suffix)
        suffix_clear(d->suffix);
    d->n = 0;
}

static void add(struct drafter *d, uint32_t token, bool adapt) {
    struct suffix_match m = d->suffix ? suffix_here(d->suffix) : (struct suffix_match){0, 0};
    if (adapt) {
        struct blend_view v[MAX_VIEWS];
        int n = look(d, d->tokens, d->n, m, v);
        blend_learn(&d->shares, v, n, &d->room, token, 1.0f / (float)d->o.vocab, d->memory);
    }
    struct contexts c;
    contexts_of(&c, d->tokens, d->n);
    contexts_count(&d->session, &c, session_contexts, token, UNIT, SESSION_KEEP);
    if (d->suffix)
        suffix_add(d->suffix, token);
    d->tokens[d->n++] = token;
}

void drafter_sync(struct drafter *d, const uint32_t *tokens, uint32_t n) {
    if (n > d->o.max_ctx)
        n = d->o.max_ctx;
    uint32_t same = 0;
    while (same < n && same < d->n && tokens[same] == d->tokens[same])
        same++;
    if (same < d->n)
        restart(d);
    bool adapt = n - d->n <= ADAPT_MAX;
    while (d->n < n)
        add(d, tokens[d->n], adapt && d->n >= same);
}

void drafter_logits(struct drafter *d, uint32_t token, const float *logits) {
    if (d->recycle)
        recycle_put(d->recycle, token, logits);
}

int drafter_next(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap) {
    struct blend_view v[MAX_VIEWS];
    struct suffix_match m = d->suffix ? suffix_here(d->suffix) : (struct suffix_match){0, 0};
    if (n_path < 0 || n_path > DRAFT_DEPTH)
        return 0;
    for (int i = 0; i < n_path; i++) {
        d->tokens[d->n + (uint32_t)i] = path[i];
        if (d->suffix)
            m = suffix_step(d->suffix, m, path[i]);
    }
    int n = look(d, d->tokens, d->n + (uint32_t)n_path, m, v);
    return blend_mix(&d->shares, v, n, &d->room, c, cap);
}

void drafter_outcome(struct drafter *d, const struct draft_candidate *offered, int n, uint32_t truth) {
    (void)d, (void)offered, (void)n, (void)truth;
}

void drafter_teach(struct drafter *d) {
    if (uses(d, DRAFT_STORE))
        draft_store_keep_shares(d->o.store, &d->shares);
}
