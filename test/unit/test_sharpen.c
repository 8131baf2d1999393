/* core/draft/sharpen: the exponent that made a text of what a model said is found, whichever it was. */
#include "core/draft/sharpen.h"

#include <criterion/criterion.h>
#include <math.h>

enum { N = 8 };

static uint64_t state = 88172645463325252u;

static double rnd(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* Some distribution by falling probability, and a token drawn from its power. */
static uint32_t say(struct ngram_succ *s, double power) {
    double w[N], sum = 0, all = 0;
    for (int i = 0; i < N; i++)
        sum += w[i] = exp(-rnd() * 2 - i * rnd());
    for (int i = 0; i < N; i++)
        for (int k = i; k > 0 && w[k - 1] < w[k]; k--) {
            double x = w[k];
            w[k] = w[k - 1];
            w[k - 1] = x;
        }
    for (int i = 0; i < N; i++) {
        s[i] = (struct ngram_succ){.token = 100 + (uint32_t)i, .count = 1 + (uint32_t)(w[i] / sum * 65000)};
        all += pow((double)s[i].count, power);
    }
    double at = rnd() * all;
    for (int i = 0; i < N; i++)
        if ((at -= pow((double)s[i].count, power)) <= 0)
            return s[i].token;
    return s[N - 1].token;
}

Test(sharpen, finds_the_exponent) {
    static const double powers[] = {0.6, 1, 2, 4};
    for (size_t k = 0; k < sizeof powers / sizeof *powers; k++) {
        struct sharpness x = SHARPNESS_START;
        double mean = 0;
        for (int i = 0; i < 4000; i++) {
            struct ngram_succ s[N];
            uint32_t truth = say(s, powers[k]);
            sharpen(s, N, &x);
            sharpen_learn(&x, s, N, truth);
            mean += i >= 2000 ? (double)x.g / 2000 : 0;
        }
        cr_assert(mean > 0.75 * powers[k] && mean < 1.3 * powers[k], "%g instead of %g", mean, powers[k]);
    }
}

Test(sharpen, the_likeliest_always_makes_it_sharp_and_bounded) {
    struct sharpness x = SHARPNESS_START;
    for (int i = 0; i < 3000; i++) {
        struct ngram_succ s[N];
        (void)say(s, 1);
        sharpen(s, N, &x);
        sharpen_learn(&x, s, N, 100);
        cr_assert(x.g >= 0.5F && x.g <= 16 && isfinite(x.spread));
    }
    cr_assert_gt(x.g, 4);
}

Test(sharpen, keeps_the_order_and_names_what_was_named) {
    const struct sharpness x = {.g = 16, .spread = 1};
    struct ngram_succ s[] = {{7, 60000}, {8, 5000}, {9, 1}, {10, 0}};
    sharpen(s, 4, &x);
    for (int i = 0; i < 4; i++)
        cr_assert(s[i].token == 7 + (uint32_t)i && s[i].count >= 1 && (i == 0 || s[i].count <= s[i - 1].count));
    sharpen(s, 0, &x);
    struct sharpness y = SHARPNESS_START;
    sharpen_learn(&y, s, 4, 77);
    sharpen_learn(&y, s, 1, 7);
    cr_assert_float_eq(y.g, 1, 1e-6);
}
