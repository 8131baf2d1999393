#include "core/model/names.h"

#include <stdio.h>
#include <string.h>

enum extent { ONE, HIDDEN, Q, KV, FFN, VOCAB, HEAD_DIM };

enum condition { ALWAYS, QKV_BIAS, O_BIAS, MLP_BIAS, QK_NORM, OWN_HEAD };

struct entry {
    const char *hf, *gguf; /* of a layer: behind "model.layers.N." and "blk.N." */
    enum extent rows, cols;
    enum tensor_role role;
    enum condition when;
};

static const struct entry layer_entries[] = {
    {"input_layernorm.weight", "attn_norm.weight", ONE, HIDDEN, ROLE_NORM, ALWAYS},
    {"self_attn.q_proj.weight", "attn_q.weight", Q, HIDDEN, ROLE_MATRIX, ALWAYS},
    {"self_attn.k_proj.weight", "attn_k.weight", KV, HIDDEN, ROLE_MATRIX, ALWAYS},
    {"self_attn.v_proj.weight", "attn_v.weight", KV, HIDDEN, ROLE_MATRIX, ALWAYS},
    {"self_attn.o_proj.weight", "attn_output.weight", HIDDEN, Q, ROLE_RESIDUAL, ALWAYS},
    {"self_attn.q_proj.bias", "attn_q.bias", ONE, Q, ROLE_BIAS, QKV_BIAS},
    {"self_attn.k_proj.bias", "attn_k.bias", ONE, KV, ROLE_BIAS, QKV_BIAS},
    {"self_attn.v_proj.bias", "attn_v.bias", ONE, KV, ROLE_BIAS, QKV_BIAS},
    {"self_attn.o_proj.bias", "attn_output.bias", ONE, HIDDEN, ROLE_BIAS, O_BIAS},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", ONE, HEAD_DIM, ROLE_NORM, QK_NORM},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", ONE, HEAD_DIM, ROLE_NORM, QK_NORM},
    {"post_attention_layernorm.weight", "ffn_norm.weight", ONE, HIDDEN, ROLE_NORM, ALWAYS},
    {"mlp.gate_proj.weight", "ffn_gate.weight", FFN, HIDDEN, ROLE_MATRIX, ALWAYS},
    {"mlp.up_proj.weight", "ffn_up.weight", FFN, HIDDEN, ROLE_MATRIX, ALWAYS},
    {"mlp.down_proj.weight", "ffn_down.weight", HIDDEN, FFN, ROLE_RESIDUAL, ALWAYS},
    {"mlp.gate_proj.bias", "ffn_gate.bias", ONE, FFN, ROLE_BIAS, MLP_BIAS},
    {"mlp.up_proj.bias", "ffn_up.bias", ONE, FFN, ROLE_BIAS, MLP_BIAS},
    {"mlp.down_proj.bias", "ffn_down.bias", ONE, HIDDEN, ROLE_BIAS, MLP_BIAS},
};

static const struct entry model_entries[] = {
    {"model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN, ROLE_EMBED, ALWAYS},
    {"model.norm.weight", "output_norm.weight", ONE, HIDDEN, ROLE_NORM, ALWAYS},
    {"lm_head.weight", "output.weight", VOCAB, HIDDEN, ROLE_EMBED, OWN_HEAD},
};

static uint32_t extent_of(const struct model_config *c, enum extent x) {
    switch (x) {
    case ONE:
        return 1;
    case HIDDEN:
        return (uint32_t)c->hidden;
    case Q:
        return (uint32_t)c->n_heads * (uint32_t)c->head_dim;
    case KV:
        return (uint32_t)c->n_kv_heads * (uint32_t)c->head_dim;
    case FFN:
        return (uint32_t)c->ffn;
    case VOCAB:
        return (uint32_t)c->vocab;
    case HEAD_DIM:
        return (uint32_t)c->head_dim;
    }
    return 0;
}

static bool holds(const struct model_config *c, enum condition when) {
    switch (when) {
    case ALWAYS:
        return true;
    case QKV_BIAS:
        return c->qkv_bias;
    case O_BIAS:
        return c->o_bias;
    case MLP_BIAS:
        return c->mlp_bias;
    case QK_NORM:
        return c->qk_norm;
    case OWN_HEAD:
        return !c->tied_head;
    }
    return false;
}

static const struct entry *find(const struct entry *t, size_t n, const char *hf) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].hf, hf) == 0)
            return &t[i];
    return NULL;
}

/* "N." in canonical decimal (no sign, no leading zero), N < limit. The text behind it, or NULL. */
static const char *layer_number(const char *s, int limit, int *layer) {
    int v = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (*p - '0');
        if (v >= limit)
            return NULL;
    }
    if (p == s || *p != '.' || (s[0] == '0' && p - s > 1))
        return NULL;
    *layer = v;
    return p + 1;
}

bool names_find(const struct model_config *c, const char *hf_name, struct tensor_info *out) {
    static const char prefix[] = "model.layers.";
    const struct entry *en;
    int layer = -1;
    if (strncmp(hf_name, prefix, sizeof prefix - 1) == 0) {
        const char *rest = layer_number(hf_name + sizeof prefix - 1, c->n_layers, &layer);
        en = rest ? find(layer_entries, sizeof layer_entries / sizeof *layer_entries, rest) : NULL;
    } else {
        en = find(model_entries, sizeof model_entries / sizeof *model_entries, hf_name);
    }
    if (!en || !holds(c, en->when))
        return false;
    *out = (struct tensor_info){
        .layer = layer, .role = en->role, .rows = extent_of(c, en->rows), .cols = extent_of(c, en->cols)};
    if (strncmp(en->hf, "self_attn.q_proj", 16) == 0)
        out->heads = (uint32_t)c->n_heads;
    if (strncmp(en->hf, "self_attn.k_proj", 16) == 0)
        out->heads = (uint32_t)c->n_kv_heads;
    if (layer >= 0)
        snprintf(out->gguf, sizeof out->gguf, "blk.%d.%s", layer, en->gguf);
    else
        snprintf(out->gguf, sizeof out->gguf, "%s", en->gguf);
    return true;
}

bool names_of_layer(const struct model_config *c, int layer, int i, char hf_name[NAMES_MAX]) {
    for (size_t k = 0; k < sizeof layer_entries / sizeof *layer_entries; k++) {
        if (!holds(c, layer_entries[k].when) || i-- > 0)
            continue;
        snprintf(hf_name, NAMES_MAX, "model.layers.%d.%s", layer, layer_entries[k].hf);
        return true;
    }
    return false;
}
