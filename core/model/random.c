#include "core/model/random.h"

#include "core/model/dtype.h"
#include "core/model/names.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LLAMA3_ROPE(f)                                                                                                 \
    {                                                                                                                  \
        .theta = 500000.0f, .scaling = ROPE_LLAMA3, .factor = (f), .low_freq_factor = 1.0f, .high_freq_factor = 4.0f,  \
        .original_ctx = 8192                                                                                           \
    }

/* Shapes as in the published config.json of the instruction-tuned models. */
static const struct {
    const char *name;
    struct model_config config;
} models[] = {
    {"mistral-7b", /* v0.3 */
     {.family = FAMILY_MISTRAL,
      .arch = "MistralForCausalLM",
      .hidden = 4096,
      .n_layers = 32,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .ffn = 14336,
      .vocab = 32768,
      .max_ctx = 32768,
      .rms_eps = 1e-5f,
      .rope = {.theta = 1e6f},
      .bos = 1,
      .eos = {2},
      .n_eos = 1}},
    {"nemo-12b",
     {.family = FAMILY_MISTRAL,
      .arch = "MistralForCausalLM",
      .hidden = 5120,
      .n_layers = 40,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .ffn = 14336,
      .vocab = 131072,
      .max_ctx = 131072,
      .rms_eps = 1e-5f,
      .rope = {.theta = 1e6f},
      .bos = 1,
      .eos = {2},
      .n_eos = 1}},
    {"llama-3.1-8b",
     {.family = FAMILY_LLAMA,
      .arch = "LlamaForCausalLM",
      .hidden = 4096,
      .n_layers = 32,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .ffn = 14336,
      .vocab = 128256,
      .max_ctx = 131072,
      .rms_eps = 1e-5f,
      .rope = LLAMA3_ROPE(8.0f),
      .bos = 128000,
      .eos = {128001, 128008, 128009},
      .n_eos = 3}},
    {"llama-3.2-1b",
     {.family = FAMILY_LLAMA,
      .arch = "LlamaForCausalLM",
      .hidden = 2048,
      .n_layers = 16,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 64,
      .ffn = 8192,
      .vocab = 128256,
      .max_ctx = 131072,
      .rms_eps = 1e-5f,
      .rope = LLAMA3_ROPE(32.0f),
      .tied_head = true,
      .bos = 128000,
      .eos = {128001, 128008, 128009},
      .n_eos = 3}},
    {"qwen2.5-0.5b",
     {.family = FAMILY_QWEN2,
      .arch = "Qwen2ForCausalLM",
      .hidden = 896,
      .n_layers = 24,
      .n_heads = 14,
      .n_kv_heads = 2,
      .head_dim = 64,
      .ffn = 4864,
      .vocab = 151936,
      .max_ctx = 32768,
      .rms_eps = 1e-6f,
      .rope = {.theta = 1e6f},
      .tied_head = true,
      .qkv_bias = true,
      .bos = 151643,
      .eos = {151645, 151643},
      .n_eos = 2}},
    {"qwen3-8b",
     {.family = FAMILY_QWEN3,
      .arch = "Qwen3ForCausalLM",
      .hidden = 4096,
      .n_layers = 36,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .ffn = 12288,
      .vocab = 151936,
      .max_ctx = 40960,
      .rms_eps = 1e-6f,
      .rope = {.theta = 1e6f},
      .qk_norm = true,
      .bos = 151643,
      .eos = {151645, 151643},
      .n_eos = 2}},
};

enum { N_MODELS = sizeof models / sizeof *models, MAX_NAME = 40 };

/* The output function of SplitMix64: a bijection of 64 bits with good avalanche. */
static inline uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t hash_string(uint64_t h, const char *s) {
    for (; *s; s++)
        h = mix(h ^ (uint8_t)*s);
    return mix(h ^ 0x100);
}

static size_t edit_distance(const char *a, const char *b) {
    size_t row[MAX_NAME + 1], nb = strnlen(b, MAX_NAME);
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < nb; j++) {
            size_t change = diagonal + (a[i] != b[j]), other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < other ? change : other;
        }
    }
    return row[nb];
}

static int unknown_name(const char *name, struct err *e) {
    size_t best = 0, best_distance = SIZE_MAX;
    char list[160] = "";
    for (size_t i = 0; i < N_MODELS; i++) {
        size_t n = strlen(list), d = edit_distance(name, models[i].name);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", models[i].name);
        if (d < best_distance) {
            best = i;
            best_distance = d;
        }
    }
    return err_set(e, ERR_USAGE, "random:%s is not known; did you mean random:%s? There are %s", name,
                   models[best].name, list);
}

/* A decimal number that fills [s, end), at most max. */
static bool parse_number(const char *s, const char *end, unsigned long long max, unsigned long long *v) {
    if (s == end || *s < '0' || *s > '9')
        return false;
    char *stop;
    errno = 0;
    *v = strtoull(s, &stop, 10);
    return errno == 0 && stop == end && *v <= max;
}

int random_model_parse(struct random_model *m, const char *spec, struct err *e) {
    const char *end = spec + strlen(spec), *colon = strchr(spec, ':');
    const char *layers_end = colon ? colon : end;
    const char *slash = memchr(spec, '/', (size_t)(layers_end - spec));
    unsigned long long seed = 0, layers = 0;
    char name[MAX_NAME + 1];
    snprintf(name, sizeof name, "%.*s", (int)((slash ? slash : layers_end) - spec), spec);

    size_t i = 0;
    while (i < N_MODELS && strcmp(models[i].name, name) != 0)
        i++;
    if (i == N_MODELS)
        return unknown_name(name, e);
    if (slash && (!parse_number(slash + 1, layers_end, CONFIG_MAX_LAYERS, &layers) || layers == 0))
        return err_set(e, ERR_USAGE, "random:%.100s: behind / stands a number of layers, from 1 to %d", spec,
                       CONFIG_MAX_LAYERS);
    if (colon && !parse_number(colon + 1, end, UINT64_MAX, &seed))
        return err_set(e, ERR_USAGE, "random:%.100s: behind : stands a seed, a whole number", spec);

    m->config = models[i].config;
    if (slash)
        m->config.n_layers = (int)layers;
    m->key = hash_string(mix(seed + 0x9e3779b97f4a7c15u), name);
    return 0;
}

uint64_t random_tensor_key(const struct random_model *m, const char *hf_name) {
    return hash_string(m->key, hf_name);
}

float random_tensor_scale(const struct random_model *m, const char *hf_name) {
    struct tensor_info info;
    if (!names_find(&m->config, hf_name, &info))
        return 0.0f;
    float fan_in = sqrtf((float)info.cols);
    switch (info.role) {
    case ROLE_NORM:
        return 0.0f;
    case ROLE_BIAS:
    case ROLE_EMBED:
        return 0.02f;
    case ROLE_MATRIX:
        return 1.0f / fan_in; /* unit variance in, unit variance out */
    case ROLE_RESIDUAL:
        return 0.25f / fan_in; /* the stream grows by a little in each layer, as in trained models */
    }
    return 0.0f;
}

/* Each 64-bit draw gives two values: the sum of four of its bytes, 0 to 1020, which is normal enough (to 3.45 sigma)
 * and takes no float operation that could differ between machines. */
void random_row(uint64_t key, float scale, uint32_t row, uint16_t *dst, size_t n) {
    enum { BLOCK = 64 };
    const float unit = scale / 147.80167f; /* sqrt(4 * (256^2 - 1) / 12) */
    uint64_t state = mix(key ^ mix(row + 1));
    if (scale == 0.0f) {
        for (size_t i = 0; i < n; i++)
            dst[i] = 0x3f80;
        return;
    }
    for (size_t at = 0; at < n; at += BLOCK) {
        int32_t sums[BLOCK];
        for (size_t i = 0; i < BLOCK / 2; i++) {
            uint64_t z = mix(state + (at / 2 + i) * 0x9e3779b97f4a7c15u);
            uint64_t pairs = (z & 0x00ff00ff00ff00ffu) + (z >> 8 & 0x00ff00ff00ff00ffu);
            pairs = (pairs + (pairs >> 16)) & 0x0000ffff0000ffffu;
            sums[2 * i] = (int32_t)(pairs & 0xffffffffu) - 510;
            sums[2 * i + 1] = (int32_t)(pairs >> 32) - 510;
        }
        size_t k = n - at < BLOCK ? n - at : BLOCK;
        for (size_t i = 0; i < k; i++) {
            float f = (float)sums[i] * unit;
            uint32_t u;
            memcpy(&u, &f, sizeof u);
            dst[at + i] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16); /* never NaN: plain rounding will do */
        }
    }
}
