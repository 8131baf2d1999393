#include "core/draft/sharpen.h"

#include <math.h>

static const float TOP = 1 << 24; /* what the largest count becomes */
static const float LEAST = 0.5f, MOST = 16, STEP = 0.25f, FORGET = 0.99f, LEAST_SPREAD = 0.5f, UNLIKELY = 0.02f;

void sharpen(struct ngram_succ *s, int n, const struct sharpness *x) {
    float most = n > 0 ? (float)s[0].count : 0;
    for (int i = 0; i < n; i++) {
        float c = s[i].count ? TOP * powf((float)s[i].count / most, x->g) : 0;
        s[i].count = c >= 1 ? (uint32_t)c : 1;
    }
}

/* With w = p^g the derivatives by g are those by log w, over g and over its square. */
void sharpen_learn(struct sharpness *x, const struct ngram_succ *s, int n, uint32_t truth) {
    float sum = 0, mean = 0, square = 0, at = -1;
    for (int i = 0; i < n; i++) {
        float w = (float)s[i].count, l = logf(w);
        sum += w;
        mean += w * l;
        square += w * l * l;
        if (s[i].token == truth)
            at = l;
    }
    if (at < 0 || n < 2)
        return; /* that none of them came says nothing about their order */
    /* What the model all but excludes comes for reasons that no exponent explains: it counts as unlikely, not more. */
    at = fmaxf(at, logf(UNLIKELY * sum));
    mean /= sum;
    x->spread = x->spread * FORGET + fmaxf(square / sum - mean * mean, 0) / (x->g * x->g);
    float step = (at - mean) / x->g / fmaxf(x->spread, LEAST_SPREAD);
    x->g += fmaxf(fminf(step, STEP), -STEP);
    x->g = fmaxf(fminf(x->g, MOST), LEAST);
}
