/* core/draft/sharpen.h - a model says how likely tokens are; the text that comes is often drawn more sharply than that
 * (always its likeliest token, at temperature 0). How much more is one exponent for each source, learned from what
 * came: the likelihood of the text under p^g, normalised over the tokens named, climbs by Newton's steps, which forget.
 * Knows no model. */
#ifndef CORE_DRAFT_SHARPEN_H
#define CORE_DRAFT_SHARPEN_H

#include "core/draft/ngram.h"

struct sharpness {
    float g;      /* the exponent */
    float spread; /* of log p where it was learned: how sharply the likelihood bends */
};
#define SHARPNESS_START ((struct sharpness){.g = 1, .spread = 2})

/* The counts of s[0..n), which stand by falling count, to the power g. */
void sharpen(struct ngram_succ *s, int n, const struct sharpness *x);
/* truth came where s, which is what sharpen made with x, was said. */
void sharpen_learn(struct sharpness *x, const struct ngram_succ *s, int n, uint32_t truth);

#endif
