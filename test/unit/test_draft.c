/* core/draft: suffix automaton, counts, blend, drafter and tree against plain versions of the same. */
#include "core/draft/drafter.h"
#include "core/draft/store.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t rnd(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* suffix */

static uint32_t plain_longest(const uint32_t *t, uint32_t n, const uint32_t *text, uint32_t n_text, uint32_t before) {
    uint32_t best = 0; /* the longest suffix of text that ends in t[0..n) at an index below before */
    for (uint32_t end = 1; end < before && end <= n; end++) {
        uint32_t len = 0;
        while (len < end && len < n_text && t[end - 1 - len] == text[n_text - 1 - len])
            len++;
        best = len > best ? len : best;
    }
    return best;
}

Test(draft, suffixes_are_those_of_a_plain_search) {
    enum { N = 300 };
    struct err e = {0};
    uint32_t seed = 7, t[N], text[2 * N];
    for (uint32_t kinds = 1; kinds <= 9; kinds += 2) {
        struct suffix *s;
        cr_assert_eq(suffix_create(&s, N, &e), 0);
        for (uint32_t n = 0; n < N; n++) {
            struct suffix_match m = suffix_here(s);
            cr_assert_eq(suffix_n(s), n);
            cr_assert_eq(m.len, plain_longest(t, n, t, n, n), "%u kinds, %u tokens", kinds, n);
            memcpy(text, t, n * sizeof *t);
            for (uint32_t k = 0; k < 4; k++) { /* what would come after a path of guesses */
                if (m.len > 0) {
                    uint32_t next = suffix_next(s, m);
                    cr_assert(next >= m.len && next <= n);
                    cr_assert_arr_eq(t + next - m.len, text + n + k - m.len, m.len * sizeof *t);
                }
                text[n + k] = rnd(&seed) % kinds;
                m = suffix_step(s, m, text[n + k]);
                /* From the longest suffix that occurs anywhere, the one to the end of the list included, only when that
                 * was an earlier one: the first step starts from suffix_here. */
                uint32_t want = plain_longest(t, n, text, n + k + 1, n + 1);
                cr_assert_eq(m.len, want, "%u kinds, %u tokens, step %u", kinds, n, k);
            }
            t[n] = rnd(&seed) % kinds;
            suffix_add(s, t[n]);
        }
        suffix_add(s, 1); /* full: nothing happens */
        cr_assert_eq(suffix_n(s), N);
        suffix_free(s);
    }
}

/* counts */

Test(draft, counts_are_those_of_a_plain_list_until_lines_are_full) {
    enum { CONTEXTS = 200, KINDS = 4 };
    struct ngram_table t = {.bits = NGRAM_MIN_BITS}, large = {.bits = NGRAM_MIN_BITS + 3};
    static uint32_t want[CONTEXTS][KINDS];
    uint32_t seed = 3;
    t.slots = aligned_alloc(64, ngram_bytes(t.bits));
    large.slots = aligned_alloc(64, ngram_bytes(large.bits));
    memset(t.slots, 0, ngram_bytes(t.bits));
    memset(large.slots, 0, ngram_bytes(large.bits));
    memset(want, 0, sizeof want);
    for (int i = 0; i < 20000; i++) {
        uint32_t c = rnd(&seed) % CONTEXTS, w = rnd(&seed) % KINDS;
        cr_assert_eq(ngram_add(&t, ngram_hash(1, c), 1 + (int)(c % 3), w * 1000, 1, 256), want[c][w]);
        want[c][w]++;
    }
    ngram_move(&large, &t);
    for (int l = 0; l < 2; l++) {
        for (uint32_t c = 0; c < CONTEXTS; c++) {
            struct ngram_succ s[3 * NGRAM_LINE];
            int n = ngram_find(l ? &large : &t, ngram_hash(1, c), 1 + (int)(c % 3), KINDS * 1000, s, 3 * NGRAM_LINE);
            cr_assert_eq(n, KINDS);
            for (int i = 0; i < n; i++)
                cr_assert_eq(s[i].count, want[c][s[i].token / 1000]);
        }
    }
    /* Any content is a table: nothing but tokens below the vocabulary comes out. */
    for (size_t i = 0; i < ngram_bytes(t.bits) / 8; i++)
        t.slots[i] = (uint64_t)rnd(&seed) << 40 ^ (uint64_t)rnd(&seed) << 20 ^ rnd(&seed);
    for (uint32_t c = 0; c < 5000; c++) {
        struct ngram_succ s[8 * NGRAM_LINE];
        ngram_add(&t, ngram_hash(1, c), 8, c, 1, 200);
        int n = ngram_find(&t, ngram_hash(1, c), 8, 777, s, 8 * NGRAM_LINE);
        for (int i = 0; i < n; i++)
            cr_assert(s[i].token < 777 && s[i].count > 0);
    }
    free(t.slots);
    free(large.slots);
}

Test(draft, counts_saturate_and_old_ones_fade) {
    struct ngram_table t = {.bits = NGRAM_MIN_BITS};
    struct ngram_succ s[NGRAM_LINE];
    t.slots = aligned_alloc(64, ngram_bytes(t.bits));
    memset(t.slots, 0, ngram_bytes(t.bits));
    for (int i = 0; i < 3; i++)
        ngram_add(&t, 5, 1, 9, 40000, 256);
    cr_assert_eq(ngram_find(&t, 5, 1, 10, s, NGRAM_LINE), 1);
    cr_assert_eq(s[0].count, 65535);
    for (int i = 0; i < 200; i++)
        ngram_add(&t, 5, 1, 8, 64, 128);
    cr_assert_eq(ngram_find(&t, 5, 1, 10, s, NGRAM_LINE), 2);
    cr_assert_eq(s[0].token, 9);
    cr_assert(s[0].count <= 1 && s[1].count == 200 * 64);
    free(t.slots);
}

/* drafter */

static struct drafter *drafter_of(uint32_t vocab, uint32_t ctx, unsigned sources, struct draft_store *store) {
    struct drafter *d;
    struct err e = {0};
    struct drafter_opts o = {.vocab = vocab, .max_ctx = ctx, .sources = sources, .store = store};
    cr_assert_eq(drafter_create(&d, &o, &e), 0, "%s", e.msg);
    return d;
}

static void check_candidates(const struct draft_candidate *c, int n, uint32_t vocab) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        cr_assert(c[i].p > 0 && c[i].p <= 1 && c[i].token < vocab && c[i].source < N_DRAFT_SOURCES);
        cr_assert(i == 0 || c[i].p <= c[i - 1].p);
        for (int k = 0; k < i; k++)
            cr_assert_neq(c[k].token, c[i].token);
        sum += (double)c[i].p;
    }
    cr_assert_leq(sum, 1.0001);
}

/* A source of known truth: the next token is drawn given the last two. */
enum { STATES = 12 };
static double truth[STATES][STATES][STATES];

static void truth_make(uint32_t seed) {
    for (int a = 0; a < STATES; a++) {
        for (int b = 0; b < STATES; b++) {
            double sum = 0;
            for (int c = 0; c < STATES; c++)
                sum += truth[a][b][c] = pow((double)(rnd(&seed) % 1000 + 1) / 1000, 8);
            for (int c = 0; c < STATES; c++)
                truth[a][b][c] /= sum;
        }
    }
}

static uint32_t truth_draw(uint32_t a, uint32_t b, uint32_t *seed) {
    double x = (double)rnd(seed) / (1 << 24);
    for (uint32_t c = 0; c + 1 < STATES; c++)
        if ((x -= truth[a][b][c]) < 0)
            return c;
    return STATES - 1;
}

Test(draft, of_what_is_offered_at_p_as_many_come_true) {
    enum { N = 12000, FROM = 2000, BINS = 5 };
    static uint32_t t[N];
    double offered[BINS] = {0}, came[BINS] = {0}, n_bin[BINS] = {0}, best = 0, got = 0;
    uint32_t seed = 11;
    truth_make(5);
    for (int i = 0; i < N; i++)
        t[i] = i < 2 ? 0 : truth_draw(t[i - 2], t[i - 1], &seed);
    struct drafter *d = drafter_of(STATES, N, 0, NULL);
    for (uint32_t n = 1; n < N; n++) {
        struct draft_candidate c[STATES];
        drafter_sync(d, t, n);
        int k = drafter_next(d, NULL, 0, c, STATES);
        check_candidates(c, k, STATES);
        for (int i = 0; n >= FROM && i < k; i++) {
            int bin = (int)(c[i].p * BINS) < BINS ? (int)(c[i].p * BINS) : BINS - 1;
            offered[bin] += (double)c[i].p;
            came[bin] += c[i].token == t[n];
            n_bin[bin]++;
        }
        if (n >= FROM && k > 0) {
            double top = 0;
            for (int i = 0; i < STATES; i++)
                top = fmax(top, truth[t[n - 2]][t[n - 1]][i]);
            best += top;
            got += truth[t[n - 2]][t[n - 1]][c[0].token];
        }
    }
    for (int b = 0; b < BINS; b++)
        if (n_bin[b] > 300)
            cr_expect_float_eq(offered[b] / n_bin[b], came[b] / n_bin[b], 0.06, "at %.2f: %.3f came",
                               offered[b] / n_bin[b], came[b] / n_bin[b]);
    /* What was seen lately weighs more, which costs something where nothing ever changes. */
    cr_expect(got > 0.85 * best, "the first guess is right %.3f of what is possible", got / best);
    drafter_free(d);
}

Test(draft, sync_to_another_text_is_like_a_new_drafter) {
    enum { N = 400 };
    uint32_t a[N], b[N], seed = 3;
    for (int i = 0; i < N; i++) {
        a[i] = rnd(&seed) % 9;
        b[i] = i < 150 ? a[i] : rnd(&seed) % 9;
    }
    struct drafter *d = drafter_of(9, N, 0, NULL), *fresh = drafter_of(9, N, 0, NULL);
    drafter_sync(d, a, N);
    drafter_sync(d, b, N - 1); /* in leaps of more than what adapts shares */
    drafter_sync(fresh, b, N - 1);
    struct draft_candidate c[9], f[9];
    for (uint32_t i = 0; i < 9; i++) {
        int n = drafter_next(d, &i, 1, c, 9), m = drafter_next(fresh, &i, 1, f, 9);
        check_candidates(c, n, 9);
        cr_assert_eq(n, m);
        for (int k = 0; k < n; k++)
            cr_assert(c[k].token == f[k].token && c[k].p == f[k].p && c[k].source == f[k].source);
    }
    drafter_sync(d, b, N + 100 < N ? 0 : N); /* up to max_ctx, and asked beyond it */
    cr_assert_geq(drafter_next(d, a, DRAFT_DEPTH, c, 9), 1);
    cr_assert_eq(drafter_next(d, a, DRAFT_DEPTH + 1, c, 9), 0);
    cr_assert_eq(drafter_next(d, a, 1, c, 0), 0);
    drafter_sync(d, b, 0);
    cr_assert_eq(drafter_next(d, NULL, 0, c, 9), 0);
    drafter_free(d);
    drafter_free(fresh);
}

Test(draft, logits_are_recycled) {
    float logits[50];
    struct draft_candidate c[50];
    uint32_t t[] = {3, 7};
    struct drafter *d = drafter_of(50, 100, 1u << DRAFT_RECYCLE, NULL);
    for (int i = 0; i < 50; i++)
        logits[i] = (float)(i % 10);
    logits[33] = 20;
    logits[5] = NAN;
    drafter_logits(d, 7, logits);
    drafter_logits(d, 50, logits); /* no such token */
    drafter_sync(d, t, 2);
    int n = drafter_next(d, NULL, 0, c, 50);
    check_candidates(c, n, 50);
    cr_assert_eq(n, 6, "%d: that one, and the five of logit 9; what comes next is below 1/65535", n);
    cr_assert_eq(c[0].token, 33);
    cr_assert_eq(c[0].source, DRAFT_RECYCLE);
    drafter_sync(d, t, 1);
    cr_assert_eq(drafter_next(d, NULL, 0, c, 50), 0);
    drafter_free(d);
}

/* tree */

/* The same tree by exhaustive search: every path of known probability, by falling probability. */
static int plain_tree(struct drafter *d, struct draft_node *tree, int cap, float least) {
    int n = 0;
    while (n < cap) {
        struct draft_node best = {.path = -1};
        for (int parent = -1; parent < n; parent++) {
            uint32_t path[DRAFT_DEPTH];
            int depth = 0;
            struct draft_candidate c[DRAFT_CHILDREN];
            for (int i = parent; i >= 0; i = tree[i].parent)
                depth++;
            for (int i = parent, k = depth; i >= 0; i = tree[i].parent)
                path[--k] = tree[i].token;
            int m = drafter_next(d, path, depth, c, DRAFT_CHILDREN);
            for (int i = 0; i < m; i++) {
                float p = c[i].p * (parent < 0 ? 1 : tree[parent].path);
                bool in = false;
                for (int k = 0; k < n; k++)
                    in |= tree[k].parent == parent && tree[k].token == c[i].token;
                if (!in && p > best.path)
                    best = (struct draft_node){c[i].token, parent, c[i].p, p, c[i].source};
            }
        }
        if (best.path < least || best.path <= 0)
            break;
        tree[n++] = best;
    }
    return n;
}

static int by_path(const void *a, const void *b) {
    float x = ((const struct draft_node *)a)->path, y = ((const struct draft_node *)b)->path;
    return (x < y) - (x > y);
}

/* Nodes of the same probabilities, in any order. What a tree leaves out of a probability is at most a twentieth of the
 * smallest path in it for each token of the path: slack covers that. */
static void check_same_paths(const struct draft_node *a, const struct draft_node *b, int n, float slack) {
    struct draft_node x[DRAFT_TREE], y[DRAFT_TREE];
    for (int i = 0; i < n; i++) {
        cr_assert(a[i].parent < i);
        cr_assert_float_eq(a[i].path, a[i].p * (a[i].parent < 0 ? 1 : a[a[i].parent].path), 1e-6);
    }
    memcpy(x, a, (size_t)n * sizeof *a);
    memcpy(y, b, (size_t)n * sizeof *b);
    qsort(x, (size_t)n, sizeof *x, by_path);
    qsort(y, (size_t)n, sizeof *y, by_path);
    for (int i = 0; i < n; i++)
        cr_assert_float_eq(x[i].path, y[i].path, slack, "node %d: %g, %g", i, (double)x[i].path, (double)y[i].path);
}

Test(draft, trees_are_best_first) {
    enum { N = 500, CAP = 60 };
    uint32_t t[N], seed = 23;
    truth_make(9);
    for (int i = 0; i < N; i++)
        t[i] = i < 2 ? 0 : truth_draw(t[i - 2], t[i - 1], &seed);
    struct drafter *d = drafter_of(STATES, N, 0, NULL);
    for (uint32_t n = 20; n < N; n += 97) {
        struct draft_node a[CAP], b[CAP], grown[CAP];
        drafter_sync(d, t, n);
        int na = draft_tree_grow(d, NULL, 0, a, 0, CAP, 0.001f), nb = plain_tree(d, b, CAP, 0.001f);
        cr_assert_eq(na, nb);
        check_same_paths(a, b, na, 0.2f * b[na - 1].path);
        for (int i = 1; i < na; i++)
            cr_assert_leq(a[i].path, a[i - 1].path);
        /* In two goes: what was there stays, and the result is the same set of paths. */
        int half = draft_tree_grow(d, NULL, 0, grown, 0, na / 2, 0);
        cr_assert_eq(half, na / 2);
        cr_assert_eq(draft_tree_grow(d, NULL, 0, grown, half, na, 0), na);
        check_same_paths(grown, b, na, 0.2f * b[na / 2 - 1].path);
        cr_assert_eq(draft_tree_grow(d, NULL, 0, a, na, na, 0), na);
        cr_assert_eq(draft_tree_grow(d, NULL, 0, a, 0, CAP, 1.5f), 0);
        /* A root that is not committed yet is like one that is. */
        int nr = draft_tree_grow(d, &t[n], 1, a, 0, CAP, 0);
        for (int i = 0; i < nr; i++)
            cr_assert(a[i].parent < i && a[i].path <= 1);
    }
    drafter_free(d);
}

/* a small model */

struct oracle {
    const uint32_t *text;
    uint32_t n, at, lie;
    int asked, computed;
};

static void oracle_sync(void *ctx, const uint32_t *tokens, uint32_t n) {
    struct oracle *o = ctx;
    cr_assert_arr_eq(tokens, o->text, n * sizeof *tokens);
    o->at = n;
}

/* Knows what comes, as far as the path is right; says something else when it lies. */
static int oracle_next(void *ctx, const uint32_t *path, int n, enum draft_compute compute, struct ngram_succ *out,
                       int cap) {
    struct oracle *o = ctx;
    cr_assert_geq(cap, 2);
    o->asked++;
    o->computed += compute;
    for (int i = 0; i < n; i++)
        if (path[i] != o->text[o->at + (uint32_t)i])
            return 0;
    if (o->at + (uint32_t)n >= o->n)
        return 0;
    out[0] = (struct ngram_succ){(o->text[o->at + (uint32_t)n] + o->lie) % 50, 60000};
    out[1] = (struct ngram_succ){(out[0].token + 7) % 50, 3000};
    return 2;
}

Test(draft, a_model_is_trusted_as_far_as_it_is_right) {
    enum { N = 400 };
    uint32_t t[N], seed = 9;
    for (int i = 0; i < N; i++) /* nothing in it repeats */
        t[i] = rnd(&seed) % 50;
    for (uint32_t lie = 0; lie < 2; lie++) {
        struct oracle o = {.text = t, .n = N, .lie = lie};
        const struct draft_model model = {.ctx = &o, .sync = oracle_sync, .next = oracle_next};
        struct drafter_opts opts = {.vocab = 50, .max_ctx = N, .model = &model};
        struct drafter *d;
        struct err e = {0};
        struct draft_node tree[16];
        cr_assert_eq(drafter_create(&d, &opts, &e), 0);
        int right = 0;
        double p = 0;
        for (uint32_t i = 1; i < N - 16; i++) {
            drafter_sync(d, t, i);
            int n = draft_tree_grow(d, NULL, 0, tree, 0, 16, 0), node = -1;
            for (int k = 0; k < n; k++) {
                if (tree[k].parent != node || tree[k].token != t[i + (uint32_t)(tree[k].parent == -1 ? 0 : k)])
                    continue;
                if (i > 300 && node == -1 && tree[k].source == DRAFT_MODEL)
                    p += (double)tree[k].p;
                right += i > 300;
                node = k;
            }
        }
        if (lie == 0) {
            cr_assert_gt(p / (N - 16 - 301), 0.8, "%f", p / (N - 16 - 301));
            cr_assert_gt(right, 8 * (N - 16 - 301), "a chain of them");
            cr_assert_gt(o.computed, N);
        } else {
            cr_assert_lt(p, 1);
            struct draft_candidate c[4];
            int n = drafter_next(d, NULL, 0, c, 4);
            cr_assert(n > 0 && c[0].p < 0.3f, "%f", (double)c[0].p);
        }
        int computed = o.computed;
        struct draft_candidate c[4];
        drafter_next(d, NULL, 0, c, 4);
        cr_assert_eq(o.computed, computed, "only a tree is worth a pass");
        for (int i = 0; i < N; i++) /* another conversation: what it knew of the last one is not asked for */
            t[i] = (t[i] + 1) % 50;
        drafter_sync(d, t, 40);
        drafter_free(d);
    }
}
