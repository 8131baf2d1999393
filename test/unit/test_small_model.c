/* core/decode/small_model: what it says of contexts and paths is what the model says of the same tokens in a row, in
 * whatever order it was asked; cmd/guesser_text: the same through texts. */
#include "cmd/engine/guesser_text.h"
#include "core/decode/small_model.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { CTX = 288, ROWS = 16 };

static struct rig r;
static struct small_model *m;
static uint32_t seed;

static uint32_t rnd(uint32_t n) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void set_up(void) {
    const struct rig_opts o = {.max_rows = ROWS, .ctx = CTX, .kv_type = DT_F16};
    struct err e = {0};
    rig_open(&r, "test/models/tiny", &o);
    const struct small_model_opts so = {.stage = r.front, .kv_type = DT_F16, .max_ctx = CTX, .max_rows = ROWS};
    cr_assert_eq(small_model_create(&m, &so, &e), 0, "%s", e.msg);
    seed = 5;
}

static void tear_down(void) {
    small_model_free(m);
    rig_close(&r);
}

TestSuite(small_model, .init = set_up, .fini = tear_down);

/* What the model says, by the session. */
static void plain(const uint32_t *context, uint32_t n, const uint32_t *path, int n_path, uint32_t *token, double *p) {
    uint32_t all[CTX];
    memcpy(all, context, n * sizeof *all);
    memcpy(all + n, path, (size_t)n_path * sizeof *all);
    const float *l = rig_feed(&r, all, n + (uint32_t)n_path);
    double sum = 0;
    uint32_t best = 0;
    for (uint32_t i = 0; i < (uint32_t)r.config->vocab; i++)
        best = l[i] > l[best] ? i : best;
    for (uint32_t i = 0; i < (uint32_t)r.config->vocab; i++)
        sum += exp((double)l[i] - (double)l[best]);
    *token = best;
    *p = 1 / sum;
}

static void look(const uint32_t *context, uint32_t n, const uint32_t *path, int n_path) {
    struct err e = {0};
    uint32_t token;
    double p;
    cr_assert_eq(small_model_look(m, path, n_path, NULL, NULL, &e), 0, "%s", e.msg);
    const struct small_answer *a = small_model_known(m, path, n_path);
    cr_assert(a);
    plain(context, n, path, n_path, &token, &p);
    cr_assert_eq(a->n, SMALL_TOP);
    cr_assert_eq(a->token[0], token, "%u tokens and %d", n, n_path);
    cr_assert_float_eq((double)a->p[0], p, 1e-4 * p);
    double sum = 0;
    for (int i = 0; i < a->n; i++) {
        cr_assert(i == 0 || a->p[i] <= a->p[i - 1]);
        sum += (double)a->p[i];
    }
    cr_assert_leq(sum, 1.0001);
}

Test(small_model, says_what_the_model_says, .timeout = 300) {
    uint32_t context[CTX], path[SMALL_DEPTH];
    uint32_t n = 0;
    for (int turn = 0; turn < 50; turn++) {
        const struct small_answer *a = n ? small_model_known(m, NULL, 0) : NULL;
        uint32_t what = rnd(8), more = what < 5 ? 1 : what == 5 ? 30 : 0;
        if (what >= 6) /* something else was said */
            n = n / 2 + rnd(2) * (n / 4);
        for (uint32_t i = 0; i < more + (n == 0); i++, a = NULL) /* along what is known, or not */
            context[n++] = a && rnd(3) ? a->token[rnd(2)] : rnd((uint32_t)r.config->vocab);
        if (n > CTX - SMALL_DEPTH - 8)
            n = 3;
        small_model_context(m, context, n);
        if (rnd(4) == 0)
            continue; /* nobody asks */
        int depth = 0;
        look(context, n, path, 0);
        for (int k = (int)rnd(6); k > 0; k--) {
            a = small_model_known(m, path, depth);
            path[depth++] = a && rnd(4) ? a->token[rnd(3)] : rnd((uint32_t)r.config->vocab);
            if (rnd(3))
                look(context, n, path, depth);
        }
        look(context, n, path, depth);
    }
}

Test(small_model, a_chain_costs_a_pass_for_each_token_and_is_kept) {
    uint32_t context[CTX] = {1530, 300, 301, 302}, n = 4;
    struct err e = {0};
    small_model_context(m, context, n);
    for (int i = 0; i < 6; i++) {
        uint32_t path[6], k = 0;
        const struct small_answer *a;
        while ((a = small_model_known(m, path, (int)k)) && k < 6)
            path[k++] = a->token[0];
        if (k < 6)
            cr_assert_eq(small_model_look(m, path, (int)k, NULL, NULL, &e), 0);
    }
    uint64_t passes = small_model_passes(m);
    cr_assert_leq(passes, 6);
    for (int i = 0; i < 5; i++) { /* it is said: nothing is computed again */
        const struct small_answer *a = small_model_known(m, NULL, 0);
        cr_assert(a, "token %d", i);
        context[n++] = a->token[0];
        small_model_context(m, context, n);
    }
    cr_assert(small_model_known(m, NULL, 0));
    cr_assert_eq(small_model_passes(m), passes);
    look(context, n, context, 1);
}

static int stop(void *ctx) {
    (void)ctx;
    return 1;
}

Test(small_model, what_it_cannot_answer) {
    uint32_t context[CTX] = {1530};
    struct err e = {0};
    cr_assert_eq(small_model_look(m, NULL, 0, NULL, NULL, &e), -1, "no context");
    for (uint32_t i = 1; i < CTX; i++)
        context[i] = 300 + i;
    small_model_context(m, context, 90);
    e = (struct err){0};
    cr_assert_eq(small_model_look(m, context, SMALL_DEPTH + 1, NULL, NULL, &e), -1, "too deep");
    cr_assert_eq(e.kind, ERR_USAGE);
    e = (struct err){0};
    cr_assert_eq(small_model_look(m, NULL, 0, stop, NULL, &e), -1);
    cr_assert_eq(e.kind, ERR_NONE, "stopped while it read");
    cr_assert_eq(small_model_look(m, NULL, 0, NULL, NULL, &e), 0);
    context[7] = (uint32_t)r.config->vocab;
    small_model_context(m, context, 9);
    cr_assert_eq(small_model_look(m, NULL, 0, NULL, NULL, &e), -1, "no such token");
    small_model_context(m, context, 7);
    look(context, 7, context + 1, 3);
}

/* Of a context that is too long the end counts; it is read anew when it has grown by half of what fits. */
Test(small_model, long_contexts) {
    enum { LONG = 420, ROOM = CTX - SMALL_DEPTH, END = CTX / 2 };
    uint32_t context[LONG], from = 0;
    for (uint32_t i = 0; i < LONG; i++)
        context[i] = 1 + rnd(1500);
    for (uint32_t n = 60; n <= LONG; n += 1 + rnd(3)) {
        small_model_context(m, context, n);
        if (n - from > ROOM)
            from = n - END;
        look(context + from, n - from, context, (int)rnd(3));
    }
    cr_assert_gt(from, END);
    small_model_context(m, context, 50); /* another turn */
    look(context, 50, context, 1);
    cr_assert_lt(small_model_passes(m), LONG + 8 * LONG / ROWS);
}

/* ---- texts ---- */

static int passes_left;

static int on_look(void *ctx, const uint32_t *path, int n) {
    struct err e = {0};
    (void)ctx;
    return passes_left-- > 0 ? small_model_look(m, path, n, NULL, NULL, &e) : -1;
}

/* With one tokenizer on both sides, a guess through the text is what the model says. */
Test(small_model, guesses_through_the_text, .timeout = 300) {
    static const char said[] =
        "Once upon a time there was a writer called Emma. She lived near the forest with her duck. "
        "One day Emma found a red hat in the garden. The hat was very old.";
    struct err e = {0};
    struct tokenizer *t;
    struct guesser_text *g;
    struct ids ids = {0};
    int right = 0, asked = 0;
    cr_assert_eq(tokenizer_open(&t, "test/models/tiny", &e), 0, "%s", e.msg);
    cr_assert_eq(guesser_text_create(&g, t, t, m, &e), 0);
    cr_assert_eq(tokenizer_encode(t, said, strlen(said), TOK_BOS, &ids, &e), 0);
    for (uint32_t n = 4; n <= ids.n; n++) {
        uint32_t token, want, path[CTX];
        double q;
        float p;
        int depth = 0;
        cr_assert_eq(guesser_text_sync(g, ids.p, n, &e), 0, "%s", e.msg);
        passes_left = 12;
        while (depth < 3 && guesser_text_next(g, path, depth, on_look, NULL, &token, &p)) {
            cr_assert(p >= 0 && p <= 1.0001f);
            plain(ids.p, n, path, depth, &want, &q);
            asked++;
            right += token == want;
            path[depth++] = token;
        }
        passes_left = 0;
        float again;
        for (int k = 0; k < depth; k++) { /* what was found is remembered */
            cr_assert(guesser_text_next(g, path, k, NULL, NULL, &token, &again));
            cr_assert_eq(token, path[k]);
        }
        cr_assert(!guesser_text_next(g, &(uint32_t){path[0] + 1}, 1, NULL, NULL, &token, &again), "another path");
    }
    cr_assert_gt(asked, (int)ids.n, "%d of %zu tokens", asked, ids.n);
    /* Where a word was cut between context and tail the model reads other tokens than the session. */
    cr_assert_gt(right, asked * 9 / 10, "%d of %d", right, asked);
    cr_assert_eq(guesser_text_sync(g, ids.p, 3, &e), 0); /* another turn */
    ids_free(&ids);
    guesser_text_free(g);
    tokenizer_free(t);
}
