/* The configuration of a model out of a GGUF file's metadata and tensor directory. */
#include "core/model/config.h"
#include "core/model/config_check.h"
#include "core/model/gguf.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    enum model_family family;
    const char *arch;
} families[] = {
    {FAMILY_LLAMA, "llama"}, /* Llama, Mistral and NeMo alike */
    {FAMILY_QWEN2, "qwen2"},
    {FAMILY_QWEN3, "qwen3"},
};

struct reader {
    const struct gguf *g;
    const char *arch;
    char key[80]; /* the last one built by full_key */
    struct err *e;
};

static const char *full_key(struct reader *r, const char *key) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, key);
    return r->key;
}

static int read_arch(struct reader *r, struct model_config *c) {
    struct gguf_str s;
    if (!gguf_string(r->g, "general.architecture", &s))
        return err_set(r->e, ERR_MODEL, "%s: metadata key general.architecture is missing", gguf_name(r->g));
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (s.n == strlen(families[i].arch) && memcmp(s.p, families[i].arch, s.n) == 0) {
            c->family = families[i].family;
            snprintf(c->arch, sizeof c->arch, "%s", families[i].arch);
            r->arch = c->arch;
            return 0;
        }
    }
    return err_set(r->e, ERR_MODEL, "%s: the architecture %.*s is not supported; supported are llama, qwen2, qwen3",
                   gguf_name(r->g), s.n < 80 ? (int)s.n : 80, s.p);
}

/* Does the metadata have the key at all, with whatever type? */
static bool has(const struct gguf *g, const char *key) {
    uint64_t u;
    double d;
    bool b;
    struct gguf_str s;
    struct gguf_array a;
    return gguf_u64(g, key, &u) || gguf_f64(g, key, &d) || gguf_bool(g, key, &b) || gguf_string(g, key, &s) ||
           gguf_arr(g, key, &a);
}

/* A count that must be there; some files give it for each layer, which is fine while all are equal. */
static int get_int(struct reader *r, const char *key, int max, int *v) {
    const char *k = full_key(r, key);
    uint64_t u = 0;
    struct gguf_array a;
    if (gguf_arr(r->g, k, &a) && a.type != GGUF_STR && a.n > 0) {
        int64_t first = gguf_arr_i64(&a, 0);
        for (uint64_t i = 1; i < a.n; i++)
            if (gguf_arr_i64(&a, i) != first)
                return err_set(r->e, ERR_MODEL, "%s: %s differs between layers, which is not supported",
                               gguf_name(r->g), k);
        u = first > 0 ? (uint64_t)first : 0;
    } else if (!gguf_u64(r->g, k, &u) && !has(r->g, k)) {
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s is missing", gguf_name(r->g), k);
    }
    if (u < 1 || u > (uint64_t)max)
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s is not a whole number from 1 to %d", gguf_name(r->g), k,
                       max);
    *v = (int)u;
    return 0;
}

/* As get_int, but *v stays as it is when the key is missing. */
static int get_int_or(struct reader *r, const char *key, int max, int *v) {
    return has(r->g, full_key(r, key)) ? get_int(r, key, max, v) : 0;
}

static int get_float_or(struct reader *r, const char *key, float *v) {
    const char *k = full_key(r, key);
    double d;
    if (!has(r->g, k))
        return 0;
    if (!gguf_f64(r->g, k, &d) || !(d > 0 && d < 1e30))
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s is not a finite number over 0", gguf_name(r->g), k);
    *v = (float)d;
    return 0;
}

static int read_heads(struct reader *r, struct model_config *c) {
    if (get_int(r, "attention.head_count", CONFIG_MAX_HEADS, &c->n_heads) != 0)
        return -1;
    c->n_kv_heads = c->n_heads;
    if (get_int_or(r, "attention.head_count_kv", CONFIG_MAX_HEADS, &c->n_kv_heads) != 0 ||
        get_int_or(r, "attention.key_length", CONFIG_MAX_HEAD_DIM, &c->head_dim) != 0)
        return -1;
    if (c->head_dim == 0) {
        if (c->hidden % c->n_heads != 0)
            return err_set(r->e, ERR_MODEL, "%s: %d heads do not divide a hidden size of %d, and there is no %s",
                           gguf_name(r->g), c->n_heads, c->hidden, full_key(r, "attention.key_length"));
        c->head_dim = c->hidden / c->n_heads;
    }
    int value = c->head_dim, rotary = c->head_dim;
    if (get_int_or(r, "attention.value_length", CONFIG_MAX_HEAD_DIM, &value) != 0 ||
        get_int_or(r, "rope.dimension_count", CONFIG_MAX_HEAD_DIM, &rotary) != 0)
        return -1;
    if (value != c->head_dim || rotary != c->head_dim)
        return err_set(r->e, ERR_MODEL,
                       "%s: heads of %d with values of %d and %d rotary dimensions; only equal ones are supported",
                       gguf_name(r->g), c->head_dim, value, rotary);
    return 0;
}

/* Llama 3.x: the scaling is baked into a tensor of divisors. */
static int read_rope_freqs(struct reader *r, struct model_config *c) {
    const struct gguf_tensor *t = gguf_tensor(r->g, "rope_freqs.weight");
    if (!t)
        return 0;
    if (c->rope.scaling != ROPE_PLAIN)
        return err_set(r->e, ERR_MODEL, "%s: has both rope_freqs.weight and a RoPE scaling factor", gguf_name(r->g));
    size_t n = (size_t)c->head_dim / 2;
    if (n == 0 || t->dtype != DT_F32 || t->n_dims != 1 || t->dims[0] != n)
        return err_set(r->e, ERR_MODEL, "%s: rope_freqs.weight is no f32 vector of %zu", gguf_name(r->g), n);
    if (!t->data)
        return err_set(r->e, ERR_MODEL, "%s: rope_freqs.weight lies outside the file, which is truncated",
                       gguf_name(r->g));
    c->rope.freq_divisors = calloc(n, sizeof(float));
    if (!c->rope.freq_divisors)
        return err_set(r->e, ERR_MEMORY, "out of memory reading %s", gguf_name(r->g));
    dtype_decode(DT_F32, t->data, n, c->rope.freq_divisors);
    return 0;
}

static int read_rope(struct reader *r, struct model_config *c) {
    struct rope_config *rope = &c->rope;
    rope->theta = 10000.0f;
    if (get_float_or(r, "rope.freq_base", &rope->theta) != 0)
        return -1;
    struct gguf_str type;
    bool given = gguf_string(r->g, full_key(r, "rope.scaling.type"), &type);
    bool none = given && type.n == 4 && memcmp(type.p, "none", 4) == 0;
    if (given && !none && !(type.n == 6 && memcmp(type.p, "linear", 6) == 0))
        return err_set(r->e, ERR_MODEL, "%s: RoPE scaling of type %.*s is not supported; supported are none, linear",
                       gguf_name(r->g), type.n < 40 ? (int)type.n : 40, type.p);
    rope->factor = 1.0f;
    /* scale_linear is the name that older files have for it */
    if (!none && (get_float_or(r, "rope.scale_linear", &rope->factor) != 0 ||
                  get_float_or(r, "rope.scaling.factor", &rope->factor) != 0))
        return -1;
    rope->scaling = rope->factor != 1.0f ? ROPE_LINEAR : ROPE_PLAIN;
    return read_rope_freqs(r, c);
}

static int read_sliding(struct reader *r, struct model_config *c) {
    const char *k = full_key(r, "attention.sliding_window");
    uint64_t v;
    if (!has(r->g, k))
        return 0;
    if (!gguf_u64(r->g, k, &v) || v > INT_MAX)
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s is not a window size", gguf_name(r->g), k);
    if (v > 0 && has(r->g, full_key(r, "attention.sliding_window_pattern")))
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s: alternating windows are not supported", gguf_name(r->g),
                       r->key);
    c->sliding_window = (int)v;
    return 0;
}

static int read_vocab(struct reader *r, struct model_config *c) {
    const struct gguf_tensor *t = gguf_tensor(r->g, "token_embd.weight");
    if (!t)
        return get_int(r, "vocab_size", CONFIG_MAX_VOCAB, &c->vocab);
    if (t->n_dims != 2 || t->dims[1] > CONFIG_MAX_VOCAB)
        return err_set(r->e, ERR_MODEL, "%s: token_embd.weight is no matrix with at most %d rows", gguf_name(r->g),
                       CONFIG_MAX_VOCAB);
    c->vocab = (int)t->dims[1];
    return 0;
}

/* End of sequence, of turn and of message: generation ends at each of them. */
static int read_special(struct reader *r, struct model_config *c) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    uint64_t v;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (gguf_u64(r->g, ends[i], &v) &&
            config_add_eos(c, v > INT_MAX ? INT_MAX : (int64_t)v, gguf_name(r->g), r->e) != 0)
            return -1;
    if (gguf_u64(r->g, "tokenizer.ggml.bos_token_id", &v))
        config_set_bos(c, v > INT_MAX ? INT_MAX : (int64_t)v, gguf_name(r->g));
    return 0;
}

static int refuse_unsupported(struct reader *r) {
    uint64_t v;
    if (gguf_u64(r->g, "split.count", &v) && v > 1)
        return err_set(r->e, ERR_MODEL,
                       "%s: one of %llu parts of a split GGUF, which is not supported; merge them with "
                       "llama-gguf-split --merge",
                       gguf_name(r->g), (unsigned long long)v);
    if (gguf_u64(r->g, full_key(r, "expert_count"), &v) && v > 0)
        return err_set(r->e, ERR_MODEL, "%s: a mixture of %llu experts (%s), which is not supported", gguf_name(r->g),
                       (unsigned long long)v, r->key);
    return 0;
}

/* Does any layer have the tensor? Not only the first: a file may hold some of the layers. One without is found when
 * that layer is loaded. */
static bool any_layer_has(const struct reader *r, const struct model_config *c, const char *tensor) {
    char name[64];
    for (int i = 0; i < c->n_layers; i++) {
        snprintf(name, sizeof name, "blk.%d.%s", i, tensor);
        if (gguf_tensor(r->g, name))
            return true;
    }
    return false;
}

static int read_all(struct reader *r, struct model_config *c) {
    if (read_arch(r, c) != 0 || refuse_unsupported(r) != 0 ||
        get_int(r, "embedding_length", CONFIG_MAX_HIDDEN, &c->hidden) != 0 ||
        get_int(r, "block_count", CONFIG_MAX_LAYERS, &c->n_layers) != 0 ||
        get_int(r, "feed_forward_length", CONFIG_MAX_FFN, &c->ffn) != 0 ||
        get_int(r, "context_length", CONFIG_MAX_CTX, &c->max_ctx) != 0 ||
        get_float_or(r, "attention.layer_norm_rms_epsilon", &c->rms_eps) != 0)
        return -1;
    if (c->rms_eps == 0)
        return err_set(r->e, ERR_MODEL, "%s: metadata key %s is missing", gguf_name(r->g), r->key);
    if (read_heads(r, c) != 0 || read_rope(r, c) != 0 || read_sliding(r, c) != 0 || read_vocab(r, c) != 0 ||
        read_special(r, c) != 0)
        return -1;
    c->tied_head = !gguf_tensor(r->g, "output.weight");
    c->qk_norm = c->family == FAMILY_QWEN3;
    c->qkv_bias = c->family == FAMILY_QWEN2 || any_layer_has(r, c, "attn_q.bias");
    c->o_bias = any_layer_has(r, c, "attn_output.bias");
    c->mlp_bias = any_layer_has(r, c, "ffn_gate.bias");
    return config_check(c, gguf_name(r->g), r->e);
}

int config_from_gguf(struct model_config *c, const struct gguf *g, struct err *e) {
    *c = (struct model_config){.bos = -1};
    struct reader r = {.g = g, .e = e};
    if (read_all(&r, c) == 0)
        return 0;
    config_free(c);
    return -1;
}
