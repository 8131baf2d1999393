/* core/decode/sample: the generator against published vectors, the cuts and the distribution against float64 sums. */
#include "core/decode/sample.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Known answers of philox4x32-10 from Random123's kat_vectors. */
Test(sample, philox_known_answers) {
    cr_assert_eq(philox_u64(0, 0, 0), 0xe169c58d6627e8d5u);
    cr_assert_eq(philox_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0x41c83b0e408f276du);
    cr_assert_eq(philox_u64(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu), 0x94fdccebd16cfe09u);
}

enum { V = 50 };
static float logits[V];

static struct sampler *make(struct sample_params *p) {
    struct err e = {0};
    struct sampler *s;
    cr_assert_eq(sampler_create(&s, V, &e), 0);
    sample_params_default(p);
    for (int i = 0; i < V; i++)
        logits[i] = 3.0f * sinf((float)i * 1.7f) + (float)(i % 7) * 0.2f;
    return s;
}

/* Draws 40,000 times and compares with the weights given, by chi-squared against a bound that a right sampler exceeds
 * once in a million runs at most (the draws are keyed, so the outcome is always the same). */
static void check_distribution(struct sampler *s, struct sample_params *p, const double *weight) {
    enum { DRAWS = 40000 };
    int count[V] = {0}, cells = 0;
    double sum = 0, chi2 = 0;
    for (int i = 0; i < V; i++)
        sum += weight[i];
    for (uint32_t pos = 0; pos < DRAWS; pos++)
        count[sampler_pick(s, p, logits, NULL, 0, 0, pos)]++;
    for (int i = 0; i < V; i++) {
        double want = DRAWS * weight[i] / sum;
        if (weight[i] == 0.0)
            cr_assert_eq(count[i], 0, "token %d was cut", i);
        else {
            chi2 += (count[i] - want) * (count[i] - want) / want;
            cells++;
        }
    }
    double df = cells - 1;
    cr_assert_lt(chi2, df + 5.0 * sqrt(2 * df) + 15, "chi2 %.1f for %d cells", chi2, cells);
}

static int by_logit(const void *a, const void *b) {
    float x = logits[*(const int *)a], y = logits[*(const int *)b];
    return x > y ? -1 : x < y ? 1 : *(const int *)a - *(const int *)b;
}

Test(sample, plain_temperature) {
    struct sample_params p;
    struct sampler *s = make(&p);
    double w[V];
    for (int t = 0; t < 3; t++) {
        p.temperature = (float[]){0.5f, 1.0f, 2.0f}[t];
        for (int i = 0; i < V; i++)
            w[i] = exp((double)logits[i] / (double)p.temperature);
        check_distribution(s, &p, w);
    }
    sampler_free(s);
}

Test(sample, cuts) {
    struct sample_params p;
    struct sampler *s = make(&p);
    int order[V];
    for (int i = 0; i < V; i++)
        order[i] = i;
    qsort(order, V, sizeof order[0], by_logit);
    static const struct {
        int k;
        float top_p, min_p;
    } c[] = {{5, 1, 0}, {1, 1, 0},    {0, 0.6f, 0},  {0, 0.01f, 0},    {0, 0, 0},
             {3, 0, 0}, {0, 1, 0.2f}, {10, 0.8f, 0}, {20, 0.9f, 0.1f}, {0, 0.95f, 0.05f}};
    for (size_t n = 0; n < sizeof c / sizeof c[0]; n++) {
        p.temperature = 0.8f;
        p.top_k = c[n].k;
        p.top_p = c[n].top_p;
        p.min_p = c[n].min_p;
        double w[V] = {0}, sum = 0, run = 0;
        int kept = 0;
        for (int i = 0; i < V && (c[n].k == 0 || i < c[n].k); i++) {
            double x = exp(((double)logits[order[i]] - (double)logits[order[0]]) / (double)p.temperature);
            if (x < (double)c[n].min_p)
                break;
            w[order[i]] = x;
            sum += x;
            kept++;
        }
        for (int i = 0; i < kept; i++) {
            if (i > 0 && c[n].top_p < 1 && run >= (double)c[n].top_p * sum)
                w[order[i]] = 0;
            else
                run += w[order[i]];
        }
        check_distribution(s, &p, w);
    }
    sampler_free(s);
}

Test(sample, greedy_and_ties) {
    struct sample_params p;
    struct sampler *s = make(&p);
    float x[V] = {0};
    x[9] = x[31] = 2.0f;
    cr_assert_eq(sampler_pick(s, &p, x, NULL, 0, 0, 3), 9);
    for (int i = 0; i < V; i++)
        x[i] = -INFINITY;
    cr_assert_eq(sampler_pick(s, &p, x, NULL, 0, 0, 3), 0);
    x[4] = NAN;
    x[7] = -5.0f;
    cr_assert_eq(sampler_pick(s, &p, x, NULL, 0, 0, 3), 7);
    p.temperature = 1.0f;
    for (uint32_t pos = 0; pos < 100; pos++)
        cr_assert_eq(sampler_pick(s, &p, x, NULL, 0, 0, pos), 7, "NaN is never drawn");
    sampler_free(s);
}

Test(sample, a_position_is_drawn_the_same_whenever_it_is_drawn) {
    struct sample_params p;
    struct sampler *s = make(&p);
    p.temperature = 1.5f;
    p.seed = 42;
    uint32_t first[64];
    int differs = 0;
    for (uint32_t i = 0; i < 64; i++)
        first[i] = sampler_pick(s, &p, logits, NULL, 0, 0, i);
    for (uint32_t i = 64; i-- > 0;)
        cr_assert_eq(sampler_pick(s, &p, logits, NULL, 0, 0, i), first[i]);
    p.seed = 43;
    for (uint32_t i = 0; i < 64; i++)
        differs += sampler_pick(s, &p, logits, NULL, 0, 0, i) != first[i];
    cr_assert_gt(differs, 20);
    sampler_free(s);
}

Test(sample, penalties_and_bias) {
    struct sample_params p;
    struct sampler *s = make(&p);
    float x[V] = {0};
    const uint32_t ctx[] = {1, 2, 2, 3, 3, 3};
    x[1] = 4.0f, x[2] = 5.0f, x[3] = 6.0f, x[4] = 3.5f, x[5] = -1.0f;
    p.repetition_penalty = 2.0f; /* 1: 2, 2: 2.5, 3: 3 -> 4 wins */
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 0, 6), 4);
    p.penalty_window = 3; /* only the three 3s are seen */
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 0, 6), 2);
    sample_params_default(&p);
    p.frequency_penalty = 1.0f; /* generated are the last three: 3 loses 3 */
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 3, 6), 2);
    p.presence_penalty = 1.0f; /* all generated: 1: 4-2, 2: 5-3, 3: 6-4 -> 4 */
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 6, 6), 4);
    sample_params_default(&p);
    struct logit_bias b[] = {{3, -INFINITY}, {5, 10.0f}};
    p.bias = b;
    p.n_bias = 1;
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 0, 6), 2);
    p.n_bias = 2;
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 0, 6), 5);
    x[3] = 6.0f;
    p.bias = NULL;
    p.n_bias = 0;
    cr_assert_eq(sampler_pick(s, &p, x, ctx, 6, 0, 6), 3, "counts of earlier calls leave no trace");
    sampler_free(s);
}

Test(sample, parameters_out_of_range_are_named) {
    struct err e;
    const struct {
        struct sample_params p;
        const char *names;
    } bad[] = {
        {{.temperature = -1, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.temperature = NAN, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.top_p = -0.1f, .repetition_penalty = 1}, "top-p"},
        {{.top_p = NAN, .repetition_penalty = 1}, "top-p"},
        {{.top_p = 1, .min_p = 2, .repetition_penalty = 1}, "min-p"},
        {{.top_p = 1, .top_k = -1, .repetition_penalty = 1}, "top-k"},
        {{.top_p = 1, .repetition_penalty = 0}, "repetition"},
        {{.top_p = 1, .repetition_penalty = 1, .presence_penalty = INFINITY}, "presence"},
        {{.top_p = 1, .repetition_penalty = 1, .n_bias = 1, .bias = &(struct logit_bias){V, 1}}, "token 50"},
        {{.top_p = 1, .repetition_penalty = 1, .n_bias = 1, .bias = &(struct logit_bias){1, NAN}}, "token 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        e = (struct err){0};
        cr_assert_eq(sample_params_check(&bad[i].p, V, &e), -1, "case %zu", i);
        cr_assert_eq(e.kind, ERR_USAGE);
        cr_assert(strstr(e.msg, bad[i].names), "%s", e.msg);
    }
}
