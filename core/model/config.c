#include "core/model/config.h"

#include "core/base/log.h"
#include "core/model/config_check.h"
#include "core/model/e4m3.h"

#include <math.h>
#include <stdlib.h>

static int check_rope(const struct model_config *c, const char *name, struct err *e) {
    const struct rope_config *r = &c->rope;
    if (!(r->theta >= 1.0f && r->theta <= 1e12f))
        return err_set(e, ERR_MODEL, "%s: rope_theta is %g; expected 1 to 1e12", name, (double)r->theta);
    if (r->scaling != ROPE_PLAIN && !(r->factor >= 1e-3f && r->factor <= 1e6f))
        return err_set(e, ERR_MODEL, "%s: the RoPE scaling factor is %g; expected 0.001 to 1e6", name,
                       (double)r->factor);
    if (r->scaling == ROPE_LLAMA3) {
        if (!(r->low_freq_factor >= 1e-3f && r->high_freq_factor > r->low_freq_factor && r->high_freq_factor <= 1e6f))
            return err_set(e, ERR_MODEL, "%s: RoPE low_freq_factor %g and high_freq_factor %g; expected 0 < low < high",
                           name, (double)r->low_freq_factor, (double)r->high_freq_factor);
        if (r->original_ctx < 1 || r->original_ctx > CONFIG_MAX_CTX)
            return err_set(e, ERR_MODEL, "%s: RoPE original_max_position_embeddings is %d; expected 1 to %d", name,
                           r->original_ctx, CONFIG_MAX_CTX);
    }
    for (int i = 0; r->freq_divisors && i < c->head_dim / 2; i++)
        if (!(r->freq_divisors[i] >= 1e-6f && r->freq_divisors[i] <= 1e6f))
            return err_set(e, ERR_MODEL, "%s: rope_freqs.weight[%d] is %g; expected 1e-6 to 1e6", name, i,
                           (double)r->freq_divisors[i]);
    return 0;
}

int config_check(const struct model_config *c, const char *name, struct err *e) {
    const struct {
        const char *what;
        int value, max;
    } limits[] = {
        {"hidden size", c->hidden, CONFIG_MAX_HIDDEN},
        {"number of layers", c->n_layers, CONFIG_MAX_LAYERS},
        {"number of attention heads", c->n_heads, CONFIG_MAX_HEADS},
        {"number of key-value heads", c->n_kv_heads, CONFIG_MAX_HEADS},
        {"head dimension", c->head_dim, CONFIG_MAX_HEAD_DIM},
        {"intermediate size", c->ffn, CONFIG_MAX_FFN},
        {"vocabulary size", c->vocab, CONFIG_MAX_VOCAB},
        {"context length", c->max_ctx, CONFIG_MAX_CTX},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].max)
            return err_set(e, ERR_MODEL, "%s: the %s is %d; expected 1 to %d", name, limits[i].what, limits[i].value,
                           limits[i].max);
    if (c->n_heads % c->n_kv_heads != 0)
        return err_set(e, ERR_MODEL, "%s: %d attention heads cannot share %d key-value heads evenly", name, c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return err_set(e, ERR_MODEL, "%s: the head dimension is %d; RoPE needs an even one", name, c->head_dim);
    if (!(c->rms_eps >= 1e-12f && c->rms_eps <= 0.1f))
        return err_set(e, ERR_MODEL, "%s: rms_norm_eps is %g; expected 1e-12 to 0.1", name, (double)c->rms_eps);
    if (c->sliding_window < 0 || c->sliding_from < 0 || c->sliding_from > c->n_layers)
        return err_set(e, ERR_MODEL, "%s: the sliding window (%d, from layer %d) makes no sense", name,
                       c->sliding_window, c->sliding_from);
    return check_rope(c, name, e);
}

int config_add_eos(struct model_config *c, int64_t id, const char *name, struct err *e) {
    if (id < 0 || id >= c->vocab) {
        log_line(LOG_WARN, "%s: end-of-sequence id %lld is outside the vocabulary of %d and is ignored", name,
                 (long long)id, c->vocab);
        return 0;
    }
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return 0;
    if (c->n_eos == CONFIG_MAX_EOS)
        return err_set(e, ERR_MODEL, "%s: more than %d end-of-sequence ids", name, CONFIG_MAX_EOS);
    c->eos[c->n_eos++] = (int)id;
    return 0;
}

void config_set_bos(struct model_config *c, int64_t id, const char *name) {
    c->bos = -1;
    if (id >= 0 && id < c->vocab)
        c->bos = (int)id;
    else
        log_line(LOG_WARN, "%s: begin-of-sequence id %lld is outside the vocabulary of %d and is ignored", name,
                 (long long)id, c->vocab);
}

void config_free(struct model_config *c) {
    free(c->rope.freq_divisors);
    *c = (struct model_config){0};
}

size_t config_kv_bytes(const struct model_config *c, enum dtype type) {
    size_t heads = 2 * (size_t)c->n_kv_heads, head_dim = (size_t)c->head_dim;
    if (type == DT_E4M3)
        return heads * ((head_dim + E4M3_ALIGN - 1) / E4M3_ALIGN * E4M3_ALIGN + sizeof(uint16_t));
    return heads * dtype_row_bytes(type, head_dim);
}

/* Llama 3.1's smooth scaling: long wavelengths are divided by factor, short ones stay, those between are mixed. The
 * order of operations, and the reciprocals, are those of transformers in float32. */
static float llama3_scaled(const struct rope_config *r, float f) {
    float old = (float)r->original_ctx;
    float low_wavelen = old / r->low_freq_factor, high_wavelen = old / r->high_freq_factor;
    float wavelen = (1.0f / f) * (float)(2.0 * M_PI);
    if (wavelen > low_wavelen)
        return f / r->factor;
    if (wavelen < high_wavelen)
        return f;
    float smooth = ((1.0f / wavelen) * old - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1.0f - smooth) * f / r->factor + smooth * f;
}

void config_rope_freqs(const struct model_config *c, float *inv_freq) {
    const struct rope_config *r = &c->rope;
    for (int i = 0; i < c->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)c->head_dim;
        /* pow in double, rounded once: the same float with every libm */
        float f = 1.0f / (float)pow((double)r->theta, (double)exponent);
        if (r->scaling == ROPE_LINEAR)
            f /= r->factor;
        if (r->scaling == ROPE_LLAMA3)
            f = llama3_scaled(r, f);
        if (r->freq_divisors)
            f /= r->freq_divisors[i];
        inv_freq[i] = f;
    }
}
