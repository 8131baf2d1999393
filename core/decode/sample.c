#include "core/decode/sample.h"

#include "core/base/wipe.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    double p;
    uint32_t id;
};

struct sampler {
    int vocab;
    float *logits;          /* [vocab] after bias and penalties */
    struct candidate *heap; /* [vocab] */
    uint32_t *seen;         /* [vocab] counts; all zero between calls */
};

void sample_params_default(struct sample_params *p) {
    *p = (struct sample_params){.top_p = 1.0f, .repetition_penalty = 1.0f};
}

int sample_params_check(const struct sample_params *p, int vocab, struct err *e) {
    /* Written so that NaN fails each test. */
    if (!(p->temperature >= 0.0f && p->temperature <= 100.0f))
        return err_set(e, ERR_USAGE, "temperature must be from 0 to 100");
    if (!(p->top_p >= 0.0f && p->top_p <= 1.0f))
        return err_set(e, ERR_USAGE, "top-p must be from 0 to 1");
    if (!(p->min_p >= 0.0f && p->min_p <= 1.0f))
        return err_set(e, ERR_USAGE, "min-p must be from 0 to 1");
    if (p->top_k < 0)
        return err_set(e, ERR_USAGE, "top-k must be 0 (off) or more");
    if (!(p->repetition_penalty > 0.0f && p->repetition_penalty <= 100.0f))
        return err_set(e, ERR_USAGE, "repetition penalty must be above 0 and at most 100");
    if (!(fabsf(p->presence_penalty) <= 100.0f) || !(fabsf(p->frequency_penalty) <= 100.0f))
        return err_set(e, ERR_USAGE, "presence and frequency penalty must be from -100 to 100");
    if (p->penalty_window < 0)
        return err_set(e, ERR_USAGE, "the penalty window must be 0 (all tokens) or more");
    if (p->n_bias < 0 || p->n_bias > SAMPLE_MAX_BIAS)
        return err_set(e, ERR_USAGE, "at most %d logit biases", SAMPLE_MAX_BIAS);
    for (int i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token >= (uint32_t)vocab)
            return err_set(e, ERR_USAGE, "logit bias for token %u; the vocabulary has %d", p->bias[i].token, vocab);
        if (isnan(p->bias[i].bias) || p->bias[i].bias == INFINITY)
            return err_set(e, ERR_USAGE, "logit bias for token %u is not a number below infinity", p->bias[i].token);
    }
    return 0;
}

int sampler_create(struct sampler **out, int vocab, struct err *e) {
    *out = NULL;
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory");
    s->vocab = vocab;
    s->logits = malloc((size_t)vocab * sizeof *s->logits);
    s->heap = malloc((size_t)vocab * sizeof *s->heap);
    s->seen = calloc((size_t)vocab, sizeof *s->seen);
    if (!s->logits || !s->heap || !s->seen) {
        sampler_free(s);
        return err_set(e, ERR_MEMORY, "out of memory for sampling from %d tokens", vocab);
    }
    *out = s;
    return 0;
}

void sampler_free(struct sampler *s) {
    if (!s)
        return;
    size_t n = (size_t)s->vocab;
    wipe_free(s->logits, n * sizeof *s->logits);
    wipe_free(s->heap, n * sizeof *s->heap);
    free(s->seen);
    free(s);
}

uint64_t philox_u64(uint64_t seed, uint64_t position, uint64_t counter) {
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), (uint32_t)counter, (uint32_t)(counter >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t)c[1] << 32 | c[0];
}

static void apply_bias(struct sampler *s, const struct sample_params *p) {
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].token < (uint32_t)s->vocab)
            s->logits[p->bias[i].token] += p->bias[i].bias;
}

/* Calls for every distinct token of list: its logit changes by what count says. seen[] is left zero. */
static void apply_penalties(struct sampler *s, const struct sample_params *p, const uint32_t *context, int n,
                            int n_generated) {
    int window = p->penalty_window > 0 && p->penalty_window < n ? p->penalty_window : n;
    if (p->repetition_penalty != 1.0f) {
        const uint32_t *list = context + (n - window);
        for (int i = 0; i < window; i++)
            if (list[i] < (uint32_t)s->vocab && s->seen[list[i]]++ == 0) {
                float *l = &s->logits[list[i]];
                *l = *l > 0.0f ? *l / p->repetition_penalty : *l * p->repetition_penalty;
            }
        for (int i = 0; i < window; i++)
            if (list[i] < (uint32_t)s->vocab)
                s->seen[list[i]] = 0;
    }
    if (p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f) {
        const uint32_t *list = context + (n - n_generated);
        for (int i = 0; i < n_generated; i++)
            if (list[i] < (uint32_t)s->vocab)
                s->seen[list[i]]++;
        for (int i = 0; i < n_generated; i++)
            if (list[i] < (uint32_t)s->vocab && s->seen[list[i]] > 0) {
                s->logits[list[i]] -= p->presence_penalty + p->frequency_penalty * (float)s->seen[list[i]];
                s->seen[list[i]] = 0;
            }
    }
}

static uint32_t argmax(const float *x, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (x[i] > -INFINITY && (best < 0 || x[i] > x[best])) /* NaN compares false */
            best = i;
    return best < 0 ? 0 : (uint32_t)best;
}

/* Larger probability first; equal ones by smaller id, so that the order is one and only one. */
static bool before(const struct candidate *a, const struct candidate *b) {
    return a->p > b->p || (a->p == b->p && a->id < b->id);
}

static void sift_down(struct candidate *h, int n, int i) {
    struct candidate x = h[i];
    for (int c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && before(&h[c + 1], &h[c]))
            c++;
        if (!before(&h[c], &x))
            break;
        h[i] = h[c];
    }
    h[i] = x;
}

/* Sorts only as much as is needed: takes the best candidates off a heap until top-k or top-p is reached. They gather,
 * in order, from the end of the array backwards. Returns how many; *sum is their weight. */
static int take_best(struct candidate *h, int n, int top_k, double nucleus, double *sum) {
    for (int i = n / 2 - 1; i >= 0; i--)
        sift_down(h, n, i);
    int left = n, taken = 0;
    *sum = 0.0;
    while (left > 0 && (top_k <= 0 || taken < top_k)) {
        struct candidate best = h[0];
        h[0] = h[--left];
        sift_down(h, left, 0);
        h[left] = best;
        *sum += best.p;
        taken++;
        if (*sum >= nucleus)
            break;
    }
    return taken;
}

uint32_t sampler_pick(struct sampler *s, const struct sample_params *p, const float *logits, const uint32_t *context,
                      int n, int n_generated, uint32_t pos) {
    if (n_generated > n)
        n_generated = n;
    memcpy(s->logits, logits, (size_t)s->vocab * sizeof *logits);
    apply_bias(s, p);
    apply_penalties(s, p, context, n, n_generated);
    uint32_t top = argmax(s->logits, s->vocab);
    float best = s->logits[top];
    if (p->temperature == 0.0f || !(best > -INFINITY && best < INFINITY))
        return top;

    /* Weights relative to the best token; what min-p or a vanishing weight rules out never enters. */
    double kept = 0.0;
    int m = 0;
    for (int i = 0; i < s->vocab; i++) {
        double w = exp(((double)s->logits[i] - (double)best) / (double)p->temperature);
        if (!(w > 0.0) || w < (double)p->min_p)
            continue;
        kept += w;
        s->heap[m++] = (struct candidate){w, (uint32_t)i};
    }
    bool cut_k = p->top_k > 0 && p->top_k < m, cut_p = p->top_p < 1.0f;
    double u = (double)(philox_u64(p->seed, pos, 0) >> 11) * 0x1p-53;
    if (!cut_k && !cut_p) {
        double left = u * kept;
        for (int i = 0; i < m; i++)
            if ((left -= s->heap[i].p) < 0.0)
                return s->heap[i].id;
        return top;
    }
    /* Top-k first; top-p then counts within what top-k left, so its nucleus needs that sum before it can cut. */
    int k = take_best(s->heap, m, cut_k ? p->top_k : 0, cut_k || !cut_p ? INFINITY : (double)p->top_p * kept, &kept);
    const struct candidate *last = &s->heap[m - 1]; /* the best; the next ones lie before it */
    if (cut_k && cut_p) {
        double nucleus = (double)p->top_p * kept, sum = 0.0;
        int i = 0;
        while (i < k && sum < nucleus)
            sum += last[-i++].p;
        k = i;
        kept = sum;
    }
    double left = u * kept;
    for (int i = 0; i < k; i++)
        if ((left -= last[-i].p) < 0.0)
            return last[-i].id;
    return last->id;
}
