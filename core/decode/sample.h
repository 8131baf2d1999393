/* core/decode/sample.h - from logits to one token, once per position.
 *
 * The random number of a position is a function of (seed, position) alone (Philox4x32-10, Salmon et al. 2011), so a
 * draft node that equals the sampled token can be accepted and any sampled output equals the one without speculation.
 */
#ifndef CORE_DECODE_SAMPLE_H
#define CORE_DECODE_SAMPLE_H

#include "core/base/err.h"

#include <stdint.h>

enum { SAMPLE_MAX_BIAS = 512 };

struct logit_bias {
    uint32_t token;
    float bias; /* added to the logit; -INFINITY bans */
};

struct sample_params {
    float temperature;        /* 0: the largest logit, ties to the smallest id */
    int top_k;                /* 0: off */
    float top_p;              /* 1: off; 0: the likeliest token alone */
    float min_p;              /* 0: off; keeps p >= min_p * p_max */
    float repetition_penalty; /* 1: off (Keskar et al. 2019: divides positive, multiplies negative logits) */
    float presence_penalty;   /* 0: off; OpenAI's meaning, over generated tokens only */
    float frequency_penalty;
    int penalty_window; /* repetition_penalty looks at this many last tokens, prompt included; 0: all */
    uint64_t seed;
    const struct logit_bias *bias; /* borrowed */
    int n_bias;
};

struct sampler;

void sample_params_default(struct sample_params *p);
/* ERR_USAGE that names the parameter and its range. */
int sample_params_check(const struct sample_params *p, int vocab, struct err *e);

/* A sampler owns scratch for one vocabulary; nothing is allocated per token. */
int sampler_create(struct sampler **out, int vocab, struct err *e);
void sampler_free(struct sampler *s);

/* The token at position pos. context: the n tokens before it, of which the last n_generated were generated. logits
 * [vocab] are not changed. Order: bias, penalties, temperature, top-k, min-p, top-p, draw. A row without any finite
 * logit yields token 0. */
uint32_t sampler_pick(struct sampler *s, const struct sample_params *p, const float *logits, const uint32_t *context,
                      int n, int n_generated, uint32_t pos);

/* 64 random bits of (seed, position, counter). */
uint64_t philox_u64(uint64_t seed, uint64_t position, uint64_t counter);

#endif
