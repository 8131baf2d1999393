/* core/draft/iterate: against targets that are functions of a few tokens, and against a rule written out. */
#include "core/draft/iterate.h"

#include <criterion/criterion.h>
#include <string.h>

enum { VOCAB = 211, TEXT = 600, NODES = 192 };

typedef uint32_t target(const uint32_t *t, uint32_t n);

/* What comes depends on what stood a while ago, so guesses that are wrong harm only those far behind them. */
enum { AGO = 9 };
static uint32_t far_back(const uint32_t *t, uint32_t n) {
    return n < AGO ? n * 31 % VOCAB : (t[n - AGO] * 2654435761u + n * 40503u) >> 9 & 127;
}

/* Each token has one successor, and all of them are one cycle: only one that was not seen yet can come. */
static uint32_t cycle(const uint32_t *t, uint32_t n) {
    return (t[n - 1] + 5) % VOCAB;
}

static uint32_t chaos(const uint32_t *t, uint32_t n) {
    uint32_t h = 7;
    for (uint32_t i = 0; i < 3 && i < n; i++)
        h = (h ^ t[n - 1 - i]) * 2654435761u + 12345u;
    return (h >> 7) % VOCAB;
}

/* Tells a text of `len` tokens behind a prompt of chance; returns round trips. Checks what every guess has to be. */
static int run(enum iterate_kind k, const struct iterate_opts *o, target *f, uint32_t prompt, uint32_t len) {
    struct iteration *it;
    struct err e = {0};
    struct draft_node tree[NODES];
    uint32_t t[TEXT + NODES], said[NODES];
    int steps = 0, most = iterate_nodes(k, o);
    cr_assert_eq(iteration_create(&it, k, o, &e), 0, "%s", e.msg);
    for (uint32_t i = 0; i < prompt; i++)
        t[i] = i * i * 7919u % VOCAB;
    uint32_t n = prompt, end = prompt + len;
    while (n < end) {
        int g = iteration_guess(it, t, n, tree);
        cr_assert(g >= 0 && g <= most, "%d", g);
        for (int i = 0; i < g; i++) {
            uint32_t path[NODES], full[TEXT + NODES];
            int depth = 0;
            cr_assert(tree[i].token < VOCAB && tree[i].parent >= -1 && tree[i].parent < i);
            for (int j = 0; j < i; j++)
                cr_assert(tree[j].parent != tree[i].parent || tree[j].token != tree[i].token, "two alike");
            for (int at = i; at >= 0; at = tree[at].parent)
                path[depth++] = tree[at].token;
            cr_assert_leq(depth, iterate_depth(k, o));
            memcpy(full, t, n * sizeof *t);
            for (int d = 0; d < depth; d++)
                full[n + (uint32_t)d] = path[depth - 1 - d];
            said[i] = f(full, n + (uint32_t)depth);
        }
        iteration_said(it, said, g);
        uint32_t next = f(t, n);
        for (int at = -1, found = 0; found >= 0;) {
            t[n++] = next;
            found = -1;
            for (int i = 0; i < g && n < end; i++)
                if (tree[i].parent == at && tree[i].token == next)
                    found = i;
            if (found >= 0)
                next = said[at = found];
        }
        steps++;
    }
    iteration_free(it);
    return steps;
}

Test(iterate, jacobi_comes_to_the_fixed_point) {
    struct iterate_opts o;
    iterate_opts_default(&o);
    for (o.block = 1; o.block <= ITERATE_BLOCK_MAX; o.block++) {
        /* A block of recalled guesses is wrong and comes back right, as far as what it hangs on is there. */
        int steps = run(ITERATE_JACOBI, &o, far_back, AGO, 500), most = o.block < AGO - 1 ? o.block : AGO - 1;
        cr_assert_leq(steps, 2 * 500 / (most + 2) + 3, "block %d: %d round trips", o.block, steps);
        cr_assert_leq(run(ITERATE_JACOBI, &o, chaos, 20, 100), 100);
    }
}

/* What the target said of the block, moved up by what was accepted, is the next block; the rest is recalled. */
Test(iterate, jacobi_moves_the_block_up) {
    struct iteration *it;
    struct err e = {0};
    struct draft_node tree[4];
    struct iterate_opts o;
    iterate_opts_default(&o);
    o.block = 4;
    cr_assert_eq(iteration_create(&it, ITERATE_JACOBI, &o, &e), 0);
    const uint32_t text[] = {1, 2, 3, 4, 9, 2, 3, 50, 51, 52, 9};
    cr_assert_eq(iteration_guess(it, text, 7, tree), 4);
    const uint32_t first[] = {4, 9, 2, 3}; /* as it went on behind 2 3 the last time */
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(tree[i].token, first[i], "%d: %u", i, tree[i].token);
        cr_assert_eq(tree[i].parent, i - 1);
    }
    iteration_said(it, (const uint32_t[]){51, 52, 9, ITERATE_UNKNOWN}, 4);
    cr_assert_eq(iteration_guess(it, text, 9, tree), 4); /* 50 was not among them, and 51 neither */
    cr_assert_eq(tree[0].token, 52);
    cr_assert_eq(tree[1].token, 9);
    cr_assert_eq(tree[2].token, 2, "%u: recalled", tree[2].token);
    cr_assert_eq(tree[3].token, 3);
    const uint32_t other[] = {5, 6, 7, 8, 5, 6, 7, 8, 5, 6};
    cr_assert_eq(iteration_guess(it, other, 10, tree), 4);
    cr_assert_eq(tree[0].token, 7, "another text: nothing of the block is kept");
    iteration_free(it);
}

Test(iterate, lookahead_finds_ngrams_that_no_text_has) {
    struct iterate_opts o;
    iterate_opts_default(&o);
    /* What stands in prompt or answer does not come again; the grid goes on from each word of the prompt. */
    const struct iterate_opts plain = {.block = 1, .ngram = 5, .candidates = 7};
    cr_assert_eq(run(ITERATE_LOOKAHEAD, &plain, cycle, 8, 150), 150);
    int steps = run(ITERATE_LOOKAHEAD, &o, cycle, 8, 150);
    cr_assert_lt(steps, 120, "%d round trips", steps);
    for (o.ngram = 2; o.ngram <= 7; o.ngram++)
        for (o.window = 0; o.window <= 12; o.window += 4)
            for (o.candidates = o.window ? 0 : 1; o.candidates < 16; o.candidates += 5)
                cr_assert_leq(run(ITERATE_LOOKAHEAD, &o, chaos, 30, 200), 200);
}

/* The reference's scheme (coder903/split-inference), as its description says: n-grams of prompt and answer under their
 * first token, of which the five oldest different ones are candidates. */
static int reference(const uint32_t *t, uint32_t at, uint32_t n, uint32_t order) {
    int steps = 0;
    for (; at < n; steps++) {
        uint32_t best = 0, tried[5], n_tried = 0;
        for (uint32_t i = 0; i + order <= at && n_tried < 5; i++) {
            uint32_t hit = 0, same = 0;
            for (uint32_t k = 0; k < n_tried; k++)
                same += memcmp(t + tried[k], t + i, order * sizeof *t) == 0;
            if (t[i] != t[at - 1] || same)
                continue;
            tried[n_tried++] = i;
            while (hit < order - 1 && at + hit < n && t[i + 1 + hit] == t[at + hit])
                hit++;
            best = hit > best ? hit : best;
        }
        at += best + 1;
    }
    return steps;
}

Test(iterate, without_a_grid_it_is_the_reference) {
    for (uint32_t order = 3; order <= 7; order++)
        for (uint32_t seed = 1; seed < 8; seed++) {
            struct iteration *it;
            struct err e = {0};
            const struct iterate_opts o = {.block = 1, .ngram = (int)order, .candidates = 5};
            uint32_t t[TEXT], s = seed;
            int steps = 0;
            /* Words of three, some of them often. */
            for (uint32_t i = 0; i < TEXT; i++) {
                s = i % 3 ? s : s * 1664525u + 1013904223u;
                t[i] = ((s >> 16) % 12 * 3 + i % 3) % 23;
            }
            cr_assert_eq(iteration_create(&it, ITERATE_LOOKAHEAD, &o, &e), 0, "%s", e.msg);
            for (uint32_t n = 50; n < TEXT; steps++) {
                struct draft_node tree[64];
                int g = iteration_guess(it, t, n, tree), at = -1;
                cr_assert_leq(g, 5 * ((int)order - 1));
                for (int i = 0; i < g && n < TEXT; i++)
                    if (tree[i].parent == at && tree[i].token == t[n]) {
                        at = i;
                        n++;
                    }
                n++;
                iteration_said(it, (uint32_t[64]){0}, g);
            }
            cr_assert_eq(steps, reference(t, 50, TEXT, order), "n %u, seed %u", order, seed);
            cr_assert_lt(steps, TEXT - 50);
            iteration_free(it);
        }
}

Test(iterate, bad_options_are_refused) {
    static const struct {
        struct iterate_opts o;
        const char *says;
    } bad[] = {{{.block = 0, .ngram = 3, .candidates = 1}, "a block has 1 to 128 tokens"},
               {{.block = 129, .ngram = 3, .candidates = 1}, "a block has 1 to 128 tokens"},
               {{.block = 4, .ngram = 1, .candidates = 1}, "an n-gram has 2 to 16 tokens"},
               {{.block = 4, .ngram = 17, .candidates = 1}, "an n-gram has 2 to 16 tokens"},
               {{.block = 4, .ngram = 3, .window = 65}, "a lookahead window has 0 to 64 columns"},
               {{.block = 4, .ngram = 3, .candidates = -1}, "candidates"},
               {{.block = 4, .ngram = 3}, "candidates"},
               {{.block = 4, .ngram = 16, .window = 7, .candidates = 7}, "lookahead with 210 guesses"},
               {{.block = 128, .ngram = 3, .window = 7, .candidates = 7}, NULL}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        cr_assert_eq(iterate_check(&bad[i].o, 192, &e), bad[i].says ? -1 : 0, "%zu", i);
        cr_assert(!bad[i].says || (e.kind == ERR_USAGE && strstr(e.msg, bad[i].says)), "%zu: %s", i, e.msg);
    }
}
