/* core/model/config.h - what a model is: shapes and constants, read from config.json or GGUF metadata (both untrusted).
 * Everything here has been checked: finite, positive, within the limits below, divisible where it must be. */
#ifndef CORE_MODEL_CONFIG_H
#define CORE_MODEL_CONFIG_H

#include "core/base/err.h"
#include "core/model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum model_family { FAMILY_LLAMA, FAMILY_MISTRAL, FAMILY_QWEN2, FAMILY_QWEN3 };

enum {
    CONFIG_MAX_LAYERS = 512,
    CONFIG_MAX_HIDDEN = 65536,
    CONFIG_MAX_FFN = 262144,
    CONFIG_MAX_HEADS = 1024,
    CONFIG_MAX_HEAD_DIM = 512,
    CONFIG_MAX_VOCAB = 1 << 22,
    CONFIG_MAX_CTX = 1 << 21,
    CONFIG_MAX_EOS = 16,
};

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct rope_config {
    float theta;
    enum rope_scaling scaling;
    float factor;           /* LINEAR, LLAMA3 */
    float low_freq_factor;  /* LLAMA3 */
    float high_freq_factor; /* LLAMA3 */
    int original_ctx;       /* LLAMA3 */
    /* GGUF files of Llama 3.x carry the scaling as a tensor of divisors (rope_freqs.weight); then this is set,
     * malloc'ed, head_dim/2 long, and scaling is ROPE_PLAIN. Owned by the config. */
    float *freq_divisors;
};

struct model_config {
    enum model_family family;
    char arch[32]; /* as the file says it: "LlamaForCausalLM", "qwen2" */
    int hidden;    /* hidden size */
    int n_layers;
    int n_heads, n_kv_heads; /* n_heads % n_kv_heads == 0 */
    int head_dim;            /* even; not always hidden / n_heads */
    int ffn;                 /* intermediate size of the gated MLP */
    int vocab;
    int max_ctx; /* max_position_embeddings */
    float rms_eps;
    struct rope_config rope;
    int sliding_window;      /* keys a query may see, itself included; 0: all */
    int sliding_from;        /* the first layer that uses the window (Qwen2 max_window_layers); 0: all layers */
    bool tied_head;          /* the head is the embedding */
    bool qkv_bias;           /* Qwen2; Llama attention_bias */
    bool o_bias;             /* Llama attention_bias: o_proj has a bias too */
    bool mlp_bias;           /* Llama mlp_bias */
    bool qk_norm;            /* Qwen3: RMSNorm over head_dim of q and k before RoPE */
    int bos;                 /* -1: none */
    int eos[CONFIG_MAX_EOS]; /* from generation_config.json when present, else config.json */
    int n_eos;
};

/* Parses config.json (json, n bytes). generation (may be NULL) is generation_config.json. name is used in messages. */
int config_from_json(struct model_config *c, const char *json, size_t n, const char *generation, size_t n_generation,
                     const char *name, struct err *e);
struct gguf;
int config_from_gguf(struct model_config *c, const struct gguf *g, struct err *e);
void config_free(struct model_config *c);

/* Inverse frequencies of RoPE, head_dim/2 of them, scaling applied (f32, as transformers computes them). */
void config_rope_freqs(const struct model_config *c, float *inv_freq);

/* Bytes of one position of K and V of one layer: of type DT_F16, DT_F32, or as a card keeps DT_E4M3, with scales (two
 * bytes each) and padding. */
size_t config_kv_bytes(const struct model_config *c, enum dtype type);

#endif
