#include "test/unit/oracle.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { MAX_WIDTH = 4, MAX_TREE = SESSION_MAX_NODES };

static uint32_t mix(uint32_t seed, uint32_t a) {
    uint64_t z = ((uint64_t)seed << 32 | a) + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)(z >> 32);
}

static void on_sync(void *ctx, const uint32_t *tokens, uint32_t n) {
    struct oracle *o = ctx;
    cr_assert_leq(n, ORACLE_MAX_CTX);
    memcpy(o->context, tokens, n * sizeof *tokens);
    o->n = (int)n;
}

static void on_logits(void *ctx, uint32_t token, const float *logits) {
    struct oracle *o = ctx;
    cr_assert(token < o->vocab && logits);
    o->heard++;
}

static void on_outcome(void *ctx, const struct draft_candidate *offered, int n, uint32_t truth) {
    struct oracle *o = ctx;
    (void)offered;
    cr_assert(n >= 0 && truth < o->vocab);
    o->outcomes++;
}

/* Does the path follow the truth? */
static bool on_course(const struct oracle *o, const uint32_t *path, int n) {
    return o->n + n <= o->n_truth && memcmp(o->context, o->truth, (size_t)o->n * sizeof *o->truth) == 0 &&
           memcmp(path, o->truth + o->n, (size_t)n * sizeof *path) == 0;
}

static int on_next(void *ctx, const uint32_t *path, int n_path, struct draft_candidate *c, int cap) {
    struct oracle *o = ctx;
    int pos = o->n + n_path, width = o->width ? o->width : 1;
    bool knows = pos < o->n_truth && (n_path == 0 || on_course(o, path, n_path));
    uint32_t truth = knows ? o->truth[pos] : mix(o->seed, (uint32_t)pos) % o->vocab;
    bool right = knows && mix(o->seed, (uint32_t)pos) < o->accuracy * 4294967295.0;
    float p = o->kind == ORACLE_BRAGS ? 0.95F : (float)o->accuracy;
    width = width < cap ? width : cap;
    for (int i = 0; i < width; i++)
        c[i] = (struct draft_candidate){.token = i == 0 && right ? truth : (truth + 1 + (uint32_t)i) % o->vocab,
                                        .p = i == 0 ? p : (1 - p) / (float)(4 * width),
                                        .source = DRAFT_NGRAM};
    return width;
}

/* Best first, as the contract says. */
static int grow_best(struct oracle *o, struct draft_node *tree, int n, int cap, float least) {
    static struct draft_candidate c[MAX_TREE + 1][MAX_WIDTH];
    static int n_c[MAX_TREE + 1], used[MAX_TREE + 1]; /* [node + 1] */
    for (int at = -1; at < n; at++) {
        uint32_t path[MAX_TREE];
        int depth = 0;
        for (int k = at; k >= 0; k = tree[k].parent)
            depth++;
        for (int k = at, i = depth; k >= 0; k = tree[k].parent)
            path[--i] = tree[k].token;
        n_c[at + 1] = on_next(o, path, depth, c[at + 1], MAX_WIDTH);
        used[at + 1] = 0;
        if (at + 1 < n) /* another node is to be looked at before any is added */
            continue;
        int best = -2;
        float most = 0;
        for (int k = -1; k < n && n < cap; k++) {
            for (bool there = true; there && used[k + 1] < n_c[k + 1];) {
                there = false;
                for (int i = 0; i < n; i++)
                    there = there || (tree[i].parent == k && tree[i].token == c[k + 1][used[k + 1]].token);
                used[k + 1] += there;
            }
            if (used[k + 1] == n_c[k + 1])
                continue;
            float p = (k < 0 ? 1 : tree[k].path) * c[k + 1][used[k + 1]].p;
            if (p > most) {
                most = p;
                best = k;
            }
        }
        if (best < -1 || most < least)
            return n;
        const struct draft_candidate *b = &c[best + 1][used[best + 1]++];
        tree[n++] =
            (struct draft_node){.token = b->token, .parent = best, .p = b->p, .path = most, .source = b->source};
    }
    return n;
}

static int on_grow(void *ctx, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap, float least) {
    struct oracle *o = ctx;
    (void)root;
    cr_assert_eq(n_root, 0);
    cr_assert_leq(cap, MAX_TREE);
    o->grown++;
    if (o->kind <= ORACLE_BRAGS)
        return grow_best(o, tree, n, cap, least);
    for (; n < cap; n++) {
        uint32_t dice = mix(o->seed, (uint32_t)(o->n * 1000 + n));
        int pos = o->n + n;
        struct draft_node a = {.token = dice % o->vocab, .parent = -1, .p = 0.9F, .path = 0.9F};
        if (o->kind == ORACLE_REPEATS)
            a.token = pos - n < o->n_truth ? o->truth[o->n] : 0;
        if (o->kind == ORACLE_OUT_OF_RANGE) {
            static const int parents[] = {-1, -7, 1000, 0, -1, -1};
            a.parent = dice % 6 == 2 ? n : parents[dice % 6];
            a.token = dice % 3 ? o->vocab + dice % 5 : dice % o->vocab;
            a.path = dice % 4 ? 0.9F : dice % 8 ? -1 : NAN;
        }
        if (o->kind == ORACLE_DEEP) {
            a.parent = n - 1;
            a.token = pos < o->n_truth ? o->truth[pos] : a.token;
            a.p = a.path = 1;
        }
        if (o->kind == ORACLE_RANDOM)
            a.parent = (int)(dice % (uint32_t)(n + 1)) - 1;
        tree[n] = a;
    }
    return n;
}

static int on_ahead(void *ctx, struct draft_node *tree, int n, int cap, float least, int passes, int *made) {
    struct oracle *o = ctx;
    int m = on_grow(o, NULL, 0, tree, n, passes || cap < n + 3 ? cap : n + 3, least);
    *made = passes > 0 && m > n;
    o->passes += *made > 0;
    return m;
}

const struct session_drafter *oracle_drafter(struct oracle *o) {
    o->drafter = (struct session_drafter){
        .ctx = o, .sync = on_sync, .logits = on_logits, .next = on_next, .outcome = on_outcome, .grow = on_grow};
    if (o->ahead)
        o->drafter.ahead = on_ahead;
    return &o->drafter;
}
