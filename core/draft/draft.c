#include "core/draft/drafter.h"

#include "core/base/wipe.h"
#include "core/draft/store.h"

#include <stdlib.h>
#include <string.h>

/* Session counts are in fixed point, so that they can fade. */
enum {
    UNIT = 64,
    DISCOUNT = 40,
    SESSION_KEEP = 240,
    ADAPT_MAX = 64,
    MAX_VIEWS = 2 * N_CONTEXTS + 4,
    MODEL_TOP = 16,
    MAX_SUCC = 4096
};

enum { /* experts, from the weakest to the most specific; stored shares depend on the order */
       EXPERT_STORE = 0,
       EXPERT_SESSION = N_CONTEXTS,
       EXPERT_RECYCLE = 2 * N_CONTEXTS,
       EXPERT_FREE, /* nobody's now; the others keep their places */
       EXPERT_SUFFIX,
       EXPERT_MODEL, /* what it starts with is assumed: recorded answers have no model beside them */
       N_EXPERTS
};
_Static_assert((int)N_EXPERTS <= (int)BLEND_EXPERTS, "experts have shares");

static const unsigned session_contexts = 1u << CONTEXT_0 | 1u << CONTEXT_1 | 1u << CONTEXT_2 | 1u << CONTEXT_3 |
                                         1u << CONTEXT_4 | 1u << CONTEXT_6 | 1u << CONTEXT_SKIP2 | 1u << CONTEXT_SKIP13;

const char *draft_source_name(enum draft_source s) {
    static const char *const names[N_DRAFT_SOURCES] = {"suffix", "ngram", "store", "recycle", "pool", "model"};
    return (unsigned)s < N_DRAFT_SOURCES ? names[s] : "unknown";
}

static bool uses(const struct drafter *d, enum draft_source s) {
    return d->o.sources & 1u << s;
}

static unsigned session_bits(const struct drafter_opts *o) {
    unsigned bits = NGRAM_MIN_BITS;
    while (((uint64_t)NGRAM_LINE << bits) < (uint64_t)o->max_ctx * N_CONTEXTS * 3 / 2 && bits < NGRAM_MAX_BITS)
        bits++;
    return bits;
}

uint64_t drafter_bytes(const struct drafter_opts *o) {
    unsigned sources = o->sources ? o->sources : (1u << N_DRAFT_SOURCES) - 1;
    uint64_t n = sizeof(struct drafter) + ngram_bytes(session_bits(o)) + o->max_ctx * sizeof(uint32_t) +
                 MAX_SUCC * sizeof(struct ngram_succ) + DRAFT_FRONTIER * sizeof(struct frontier_item);
    n += sources & 1u << DRAFT_SUFFIX ? suffix_bytes(o->max_ctx) : 0;
    return n + (sources & 1u << DRAFT_RECYCLE ? recycle_bytes(o->vocab) : 0);
}

int drafter_create(struct drafter **out, const struct drafter_opts *o, struct err *e) {
    struct drafter *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_MEMORY, "out of memory for a drafter");
    d->o = *o;
    d->memory = BLEND_MEMORY;
    d->sharpness = SHARPNESS_START;
    if (d->o.sources == 0)
        d->o.sources = (1u << N_DRAFT_SOURCES) - 1;
    if (!o->store)
        d->o.sources &= ~(1u << DRAFT_STORE);
    if (!o->model)
        d->o.sources &= ~(1u << DRAFT_MODEL);
    else
        d->model = *o->model;
    if (o->vocab > NGRAM_MAX_VOCAB) {
        err_set(e, ERR_MODEL, "a vocabulary of %u tokens: drafts work with at most %d", o->vocab, NGRAM_MAX_VOCAB);
        goto fail;
    }
    unsigned bits = session_bits(o);
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
    blend_doubt(&d->shares, EXPERT_MODEL, DRAFT_MODEL); /* each is another one */
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

/* v is what succ[0..n) say, which are counts in units. */
static bool view_init(struct blend_view *v, struct ngram_succ *succ, int n, int expert, enum draft_source source,
                      uint32_t unit) {
    uint32_t total = 0;
    for (int i = 0; i < n; i++)
        total += succ[i].count;
    *v = (struct blend_view){.s = succ, .n = n, .expert = expert, .source = source};
    v->bucket = blend_bucket((total + unit / 2) / unit, n);
    for (int i = 0; i < n; i++) { /* what was seen once weighs less than half of what was seen twice */
        uint32_t c = succ[i].count * (UNIT / unit);
        succ[i].count = c > UNIT ? c - DISCOUNT : c * (UNIT - DISCOUNT) / UNIT + 1;
        v->sum += (float)succ[i].count;
    }
    return n > 0;
}

static bool ask_store(struct drafter *d, const struct contexts *c, int k, struct ngram_succ *succ,
                      struct blend_view *v) {
    if (!uses(d, DRAFT_STORE) || !(c->have & draft_store_contexts & 1u << k))
        return false;
    int lines = context_lines(k);
    int n = ngram_find(draft_store_table(d->o.store), c->hash[k], lines, d->o.vocab, succ, NGRAM_LINE * lines);
    return view_init(v, succ, n, EXPERT_STORE + k, DRAFT_STORE, 1);
}

static bool ask_session(struct drafter *d, const struct contexts *c, int k, struct ngram_succ *succ,
                        struct blend_view *v) {
    if (!uses(d, DRAFT_NGRAM) || !(c->have & session_contexts & 1u << k))
        return false;
    int lines = context_lines(k);
    int n = ngram_find(&d->session, c->hash[k], lines, d->o.vocab, succ, NGRAM_LINE * lines);
    return view_init(v, succ, n, EXPERT_SESSION + k, DRAFT_NGRAM, UNIT);
}

static bool ask_recycle(struct drafter *d, const uint32_t *text, uint32_t n, struct ngram_succ *succ,
                        struct blend_view *v) {
    int got = d->recycle && n > 0 ? recycle_get(d->recycle, text[n - 1], succ) : 0;
    if (got == 0)
        return false;
    *v = (struct blend_view){.s = succ, .n = got, .expert = EXPERT_RECYCLE, .source = DRAFT_RECYCLE};
    v->bucket = (int)(succ[0].count >> 11); /* how sure the target was */
    for (int i = 0; i < got; i++)
        v->sum += (float)succ[i].count;
    return true;
}

static bool ask_suffix(struct drafter *d, struct suffix_match m, struct ngram_succ *succ, struct blend_view *v) {
    if (!d->suffix || m.len == 0 || suffix_next(d->suffix, m) >= d->n)
        return false;
    *succ = (struct ngram_succ){d->tokens[suffix_next(d->suffix, m)], 1};
    *v = (struct blend_view){.s = succ, .n = 1, .expert = EXPERT_SUFFIX, .source = DRAFT_SUFFIX, .sum = 1};
    v->bucket = (int)(m.len < BLEND_BUCKETS ? m.len : BLEND_BUCKETS - 1);
    return true;
}

/* What the small model says behind path. In time that is free it is first asked for what it knows. */
static int compute_model(struct drafter *d, const uint32_t *path, int n, struct ngram_succ *succ) {
    enum draft_compute first = d->computing == DRAFT_FREE ? DRAFT_KNOWN : d->computing;
    int got = d->model.next(d->model.ctx, path, n, first, succ, MODEL_TOP);
    if (got > 0 || d->computing != DRAFT_FREE || d->passes == 0)
        return got;
    got = d->model.next(d->model.ctx, path, n, DRAFT_FREE, succ, MODEL_TOP);
    if (got > 0) {
        d->passes--;
        d->made++;
    }
    return got;
}

/* text[0..n) is what is committed, with a path behind it. */
static bool ask_model(struct drafter *d, const uint32_t *text, uint32_t n, struct ngram_succ *succ,
                      struct blend_view *v) {
    int got = 0;
    if (uses(d, DRAFT_MODEL) && n >= d->model_n && n - d->model_n <= DRAFT_DEPTH)
        got = compute_model(d, text + d->model_n, (int)(n - d->model_n), succ);
    if (got <= 0)
        return false;
    *v = (struct blend_view){.s = succ, .n = got, .expert = EXPERT_MODEL, .source = DRAFT_MODEL};
    v->bucket = (int)(succ[0].count < 65536 ? succ[0].count >> 13 << 2 : 28); /* how sure it is */
    sharpen(succ, got, &d->sharpness);
    for (int i = 0; i < got; i++)
        v->sum += (float)succ[i].count;
    return v->sum > 0;
}

/* What each expert says about the token behind text[0..n), from the weakest on. m: the suffix automaton's part of text.
 */
static int ask_all(struct drafter *d, const struct contexts *c, const uint32_t *text, uint32_t n, struct suffix_match m,
                   struct blend_view *v) {
    struct ngram_succ *succ = d->succ;
    int k_views = 0;
    for (int k = 0; k < N_CONTEXTS; k++) {
        k_views += ask_store(d, c, k, succ, &v[k_views]);
        succ += (size_t)NGRAM_LINE * (size_t)context_lines(k);
        k_views += ask_session(d, c, k, succ, &v[k_views]);
        succ += (size_t)NGRAM_LINE * (size_t)context_lines(k);
        if (k == CONTEXT_1) {
            k_views += ask_recycle(d, text, n, succ, &v[k_views]);
            succ += RECYCLE_TOP;
        }
    }
    k_views += ask_suffix(d, m, succ, &v[k_views]);
    return k_views + ask_model(d, text, n, succ + 1, &v[k_views]);
}

static bool is_more(struct ngram_succ a, struct ngram_succ b) {
    return a.count != b.count ? a.count > b.count : a.token < b.token;
}

/* Shell's sort: qsort may allocate. */
static void sort_by_count(struct ngram_succ *s, int n) {
    static const int gaps[] = {132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (int i = gaps[g], at; i < n; i++) {
            struct ngram_succ x = s[i];
            for (at = i; at >= gaps[g] && is_more(x, s[at - gaps[g]]); at -= gaps[g])
                s[at] = s[at - gaps[g]];
            s[at] = x;
        }
    }
}

static void flat_make(struct drafter *d, const struct contexts *c) {
    for (int i = 0; i < 2; i++) {
        struct blend_view *v = &d->flat_view[i];
        if (!(i == 0 ? ask_store : ask_session)(d, c, CONTEXT_0, d->flat[i], v))
            v->n = 0;
        sort_by_count(d->flat[i], v->n);
    }
    d->flat_ready = true;
}

static int look(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap, float least) {
    struct suffix_match m = d->suffix ? suffix_here(d->suffix) : (struct suffix_match){0, 0};
    struct blend_room *room = &d->room;
    struct blend_view v;
    struct contexts x;
    if (n_path < 0 || n_path > DRAFT_DEPTH)
        return 0;
    for (int i = 0; i < n_path; i++) {
        d->tokens[d->n + (uint32_t)i] = path[i];
        if (d->suffix)
            m = suffix_step(d->suffix, m, path[i]);
    }
    uint32_t n = d->n + (uint32_t)n_path;
    float skip = least / 20;
    contexts_of(&x, d->tokens, n);
    for (int k = N_CONTEXTS - 1; k > 0 && uses(d, DRAFT_STORE); k--)
        if (x.have & draft_store_contexts & 1u << k)
            ngram_prefetch(draft_store_table(d->o.store), x.hash[k], context_lines(k));
    blend_begin(room);
    if (ask_model(d, d->tokens, n, d->succ, &v))
        blend_add(&d->shares, &v, room, skip, false);
    if (ask_suffix(d, m, d->succ, &v))
        blend_add(&d->shares, &v, room, skip, false);
    for (int k = N_CONTEXTS - 1; k > 0 && room->left > skip; k--) {
        if (k == CONTEXT_1 && ask_recycle(d, d->tokens, n, d->succ, &v))
            blend_add(&d->shares, &v, room, skip, false);
        if (ask_session(d, &x, k, d->succ, &v))
            blend_add(&d->shares, &v, room, skip, false);
        if (ask_store(d, &x, k, d->succ, &v))
            blend_add(&d->shares, &v, room, skip, false);
    }
    if (!d->flat_ready)
        flat_make(d, &x);
    for (int i = 1; i >= 0 && room->left > skip; i--)
        if (d->flat_view[i].n > 0)
            blend_add(&d->shares, &d->flat_view[i], room, skip, true);
    return blend_end(room, c, cap, least);
}

int drafter_look(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap, float least) {
    int n = look(d, path, n_path, c, cap, least / 2);
    blend_calibrate(&d->shares, c, n);
    return n;
}

int drafter_next(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap) {
    return drafter_look(d, path, n_path, c, cap, 0);
}

static void restart(struct drafter *d) {
    memset(d->session.slots, 0, ngram_bytes(d->session.bits));
    if (d->suffix)
        suffix_clear(d->suffix);
    d->n = d->learned = 0;
    d->model_n = UINT32_MAX; /* what it knows belongs to other tokens, until it is told these */
    d->flat_ready = false;
}

/* token comes behind what is committed: how far whom to trust. Once for each position. */
static void learn(struct drafter *d, const struct contexts *c, uint32_t token) {
    struct suffix_match m = d->suffix ? suffix_here(d->suffix) : (struct suffix_match){0, 0};
    struct draft_candidate offered[DRAFT_CHILDREN];
    struct blend_view v[MAX_VIEWS];
    if (d->learned == d->n + 1)
        return;
    d->learned = d->n + 1;
    int n = look(d, NULL, 0, offered, DRAFT_CHILDREN, 0);
    blend_came(&d->shares, offered, n, token, d->memory);
    n = ask_all(d, c, d->tokens, d->n, m, v);
    blend_learn(&d->shares, v, n, token, 1.0f / (float)d->o.vocab, d->memory);
    for (int i = 0; i < n; i++)
        if (v[i].expert == EXPERT_MODEL)
            sharpen_learn(&d->sharpness, v[i].s, v[i].n, token);
}

static void add(struct drafter *d, uint32_t token, bool adapt) {
    struct contexts c;
    contexts_of(&c, d->tokens, d->n);
    if (adapt)
        learn(d, &c, token);
    contexts_count(&d->session, &c, session_contexts, token, UNIT, SESSION_KEEP);
    if (d->suffix)
        suffix_add(d->suffix, token);
    d->tokens[d->n++] = token;
    d->flat_ready = false;
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
    if (uses(d, DRAFT_MODEL))
        d->model.sync(d->model.ctx, d->tokens, d->n);
    d->model_n = d->n;
}

void drafter_logits(struct drafter *d, uint32_t token, const float *logits) {
    if (d->recycle)
        recycle_put(d->recycle, token, logits);
}

void drafter_outcome(struct drafter *d, const struct draft_candidate *offered, int n, uint32_t truth) {
    struct contexts c;
    (void)offered, (void)n; /* what the sources said is looked up again, uncorrected */
    contexts_of(&c, d->tokens, d->n);
    learn(d, &c, truth);
}

void drafter_teach(struct drafter *d) {
    if (uses(d, DRAFT_STORE))
        draft_store_keep_shares(d->o.store, &d->shares);
}
