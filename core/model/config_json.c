/* config.json and generation_config.json of a Hugging Face directory. Where a key is missing, the default is the one
 * that transformers has for the family, so that the same file means the same model. */
#include "core/model/config.h"
#include "core/model/config_check.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

struct family_info {
    const char *arch, *model_type;
    enum model_family family;
    int kv_heads; /* default; 0: as many as heads */
    int head_dim; /* default; 0: hidden / heads */
    int max_ctx;  /* default */
    int bos, eos; /* defaults; -1: none */
};

static const struct family_info families[] = {
    {"MistralForCausalLM", "mistral", FAMILY_MISTRAL, 8, 0, 131072, 1, 2},
    {"LlamaForCausalLM", "llama", FAMILY_LLAMA, 0, 0, 2048, 1, 2},
    {"Qwen2ForCausalLM", "qwen2", FAMILY_QWEN2, 32, 0, 32768, -1, -1},
    {"Qwen3ForCausalLM", "qwen3", FAMILY_QWEN3, 32, 128, 32768, -1, -1},
};

enum {
    N_FAMILIES = sizeof families / sizeof *families,
    REQUIRED = INT_MIN,
    MAX_IDS = 64, /* entries of a list of ids that are looked at */
};

struct reader {
    const char *name; /* of the model */
    const char *file;
    bool bad; /* an error has been reported */
    struct err *e;
};

/* A value for a message: short, and no more of it than helps. */
static const char *shown(yyjson_val *v, char buf[64]) {
    if (yyjson_is_str(v))
        snprintf(buf, 64, "\"%.40s\"", yyjson_get_str(v));
    else if (yyjson_is_uint(v))
        snprintf(buf, 64, "%llu", (unsigned long long)yyjson_get_uint(v));
    else if (yyjson_is_sint(v))
        snprintf(buf, 64, "%lld", (long long)yyjson_get_sint(v));
    else if (yyjson_is_real(v) && isnan(yyjson_get_real(v)))
        snprintf(buf, 64, "NaN");
    else if (yyjson_is_real(v))
        snprintf(buf, 64, "%g", yyjson_get_real(v));
    else if (yyjson_is_bool(v))
        snprintf(buf, 64, yyjson_get_bool(v) ? "true" : "false");
    else
        snprintf(buf, 64, "%s", v ? yyjson_get_type_desc(v) : "missing");
    return buf;
}

static void complain(struct reader *r, const char *key, yyjson_val *v, const char *expected) {
    char buf[64];
    err_set(r->e, ERR_MODEL, "%s: %s: %s is %s; expected %s", r->name, r->file, key, shown(v, buf), expected);
    r->bad = true;
}

/* The member, or NULL when it is missing or null: the two mean the same in a config. */
static yyjson_val *member(yyjson_val *obj, const char *key) {
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_null(v) ? NULL : v;
}

static int get_int(struct reader *r, yyjson_val *obj, const char *key, int max, int missing) {
    yyjson_val *v = member(obj, key);
    if (!v && missing != REQUIRED)
        return missing;
    if (yyjson_is_uint(v) && yyjson_get_uint(v) >= 1 && yyjson_get_uint(v) <= (uint64_t)max)
        return (int)yyjson_get_uint(v);
    char expected[48];
    snprintf(expected, sizeof expected, "a whole number from 1 to %d", max);
    complain(r, key, v, expected);
    return 1;
}

/* missing NAN: required. */
static float get_float(struct reader *r, yyjson_val *obj, const char *key, double missing) {
    yyjson_val *v = member(obj, key);
    if (!v && !isnan(missing))
        return (float)missing;
    double d = yyjson_get_num(v);
    if (yyjson_is_num(v) && isfinite(d) && d > 0 && isfinite((float)d) && (float)d > 0)
        return (float)d;
    complain(r, key, v, "a finite number over 0");
    return 1.0f;
}

static bool get_bool(struct reader *r, yyjson_val *obj, const char *key, bool missing) {
    yyjson_val *v = member(obj, key);
    if (v && !yyjson_is_bool(v))
        complain(r, key, v, "true or false");
    return v ? yyjson_get_bool(v) : missing;
}

/* The default when the key is missing, "" when it is something else than a string. */
static const char *get_str(struct reader *r, yyjson_val *obj, const char *key, const char *missing) {
    yyjson_val *v = member(obj, key);
    if (v && !yyjson_is_str(v))
        complain(r, key, v, "a string");
    return !v ? missing : yyjson_is_str(v) ? yyjson_get_str(v) : "";
}

/* ---- family ---- */

static void unsupported(struct reader *r, const char *what, const char *value) {
    char list[128] = "";
    for (size_t i = 0; i < N_FAMILIES; i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", families[i].arch);
    }
    err_set(r->e, ERR_MODEL, "%s: %s: the %s %.80s is not supported; supported are %s", r->name, r->file, what, value,
            list);
    r->bad = true;
}

static const struct family_info *read_family(struct reader *r, yyjson_val *root) {
    const struct family_info *by_arch = NULL, *by_type = NULL;
    yyjson_val *archs = member(root, "architectures"), *first = yyjson_arr_get_first(archs);
    const char *arch = yyjson_get_str(first), *type = get_str(r, root, "model_type", NULL);
    if (archs && (!yyjson_is_arr(archs) || (first && !arch))) {
        complain(r, "architectures", archs, "a list with one name");
        return NULL;
    }
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (arch && strcmp(arch, families[i].arch) == 0)
            by_arch = &families[i];
        if (type && strcmp(type, families[i].model_type) == 0)
            by_type = &families[i];
    }
    if (arch && !by_arch)
        unsupported(r, "architecture", arch);
    else if (type && !by_type)
        unsupported(r, "model_type", type);
    else if (!arch && !type)
        complain(r, "architectures", NULL, "a list with one name");
    else if (by_arch && by_type && by_arch != by_type) {
        err_set(r->e, ERR_MODEL, "%s: %s: architecture %s and model_type %s contradict each other", r->name, r->file,
                arch, type);
        r->bad = true;
    }
    return r->bad ? NULL : by_arch ? by_arch : by_type;
}

/* ---- RoPE ---- */

/* Old files: rope_theta at the top and rope_scaling, an object or null. Since transformers 5: rope_parameters with all
 * of it. When both are there, transformers takes rope_scaling. */
static void read_rope(struct reader *r, yyjson_val *root, struct model_config *c) {
    yyjson_val *p = member(root, "rope_scaling");
    const char *where = "rope_scaling";
    if (!p || (yyjson_is_obj(p) && yyjson_obj_size(p) == 0)) {
        p = member(root, "rope_parameters");
        where = "rope_parameters";
    }
    if (p && !yyjson_is_obj(p)) {
        complain(r, where, p, "an object or null");
        return;
    }
    if (yyjson_is_obj(yyjson_obj_get(p, "full_attention")) || yyjson_is_obj(yyjson_obj_get(p, "sliding_attention"))) {
        complain(r, where, p, "one set of parameters for all layers, not one for each layer type");
        return;
    }
    struct rope_config *rope = &c->rope;
    rope->theta = get_float(r, member(p, "rope_theta") ? p : root, "rope_theta", 10000.0);
    static const char partial[] = "partial_rotary_factor";
    yyjson_val *holder = member(p, partial) ? p : root;
    if (get_float(r, holder, partial, 1.0) != 1.0f)
        complain(r, partial, member(holder, partial), "1: RoPE over a part of a head is not supported");

    const char *type = get_str(r, p, "rope_type", NULL);
    if (!type)
        type = get_str(r, p, "type", "default");
    if (strcmp(type, "default") == 0) {
        rope->scaling = ROPE_PLAIN;
    } else if (strcmp(type, "linear") == 0) {
        rope->scaling = ROPE_LINEAR;
        rope->factor = get_float(r, p, "factor", NAN);
    } else if (strcmp(type, "llama3") == 0) {
        static const char original[] = "original_max_position_embeddings";
        rope->scaling = ROPE_LLAMA3;
        rope->factor = get_float(r, p, "factor", NAN);
        rope->low_freq_factor = get_float(r, p, "low_freq_factor", NAN);
        rope->high_freq_factor = get_float(r, p, "high_freq_factor", NAN);
        rope->original_ctx = get_int(r, member(root, original) ? root : p, original, CONFIG_MAX_CTX, c->max_ctx);
    } else if (!r->bad) {
        err_set(r->e, ERR_MODEL,
                "%s: %s: RoPE scaling of type \"%.40s\" is not supported; supported are default, linear, "
                "llama3",
                r->name, r->file, type);
        r->bad = true;
    }
}

/* ---- sliding window ---- */

/* layer_types, when given, says for each layer whether it slides. We can express "from layer k on". */
static void read_layer_types(struct reader *r, yyjson_val *types, struct model_config *c) {
    if (!yyjson_is_arr(types) || yyjson_arr_size(types) != (size_t)c->n_layers) {
        complain(r, "layer_types", types, "a list with one entry for each layer");
        return;
    }
    size_t i, max;
    yyjson_val *v;
    int from = c->n_layers;
    yyjson_arr_foreach(types, i, max, v) {
        bool slides = yyjson_equals_str(v, "sliding_attention");
        if (!slides && !yyjson_equals_str(v, "full_attention")) {
            complain(r, "an entry of layer_types", v, "\"full_attention\" or \"sliding_attention\"");
            return;
        }
        if (slides && from == c->n_layers)
            from = (int)i;
        if (!slides && from < c->n_layers) {
            complain(r, "layer_types", types,
                     "full attention in the first layers and sliding in the rest; other orders are "
                     "not supported");
            return;
        }
    }
    if (from < c->n_layers && c->sliding_window == 0)
        complain(r, "layer_types", types, "no sliding layers, for there is no sliding_window in use");
    c->sliding_from = from;
}

static void read_sliding(struct reader *r, yyjson_val *root, struct model_config *c) {
    if (c->family == FAMILY_LLAMA)
        return;
    /* Missing means 4096 and only null means none: so it is in transformers. */
    int window = yyjson_is_null(yyjson_obj_get(root, "sliding_window"))
                     ? 0
                     : get_int(r, root, "sliding_window", INT_MAX - 1, 4096);
    if (c->family == FAMILY_MISTRAL) {
        c->sliding_window = window;
        return;
    }
    if (get_bool(r, root, "use_sliding_window", false))
        c->sliding_window = window;
    yyjson_val *from = member(root, "max_window_layers"), *types = member(root, "layer_types");
    c->sliding_from = 28;
    if (types) {
        read_layer_types(r, types, c);
    } else if (from) {
        if (yyjson_is_uint(from))
            c->sliding_from = yyjson_get_uint(from) < (uint64_t)c->n_layers ? (int)yyjson_get_uint(from) : c->n_layers;
        else
            complain(r, "max_window_layers", from, "a whole number");
    }
    if (c->sliding_from >= c->n_layers)
        c->sliding_window = 0;
    if (c->sliding_window == 0)
        c->sliding_from = 0;
}

/* ---- special tokens ---- */

/* An id, or a list of ids. */
static void read_eos(struct reader *r, yyjson_val *v, struct model_config *c) {
    yyjson_val *one = v;
    size_t n = yyjson_is_arr(v) ? yyjson_arr_size(v) : 1;
    for (size_t i = 0; i < n && i < MAX_IDS && !r->bad; i++) {
        if (yyjson_is_arr(v))
            one = yyjson_arr_get(v, i);
        if (!yyjson_is_int(one))
            complain(r, "eos_token_id", one, "a token id or a list of them");
        else if (config_add_eos(c,
                                yyjson_is_uint(one) && yyjson_get_uint(one) > INT_MAX ? INT_MAX : yyjson_get_sint(one),
                                r->name, r->e) != 0)
            r->bad = true;
    }
}

static void read_special(struct reader *r, yyjson_val *root, yyjson_val *generation, const struct family_info *f,
                         struct model_config *c) {
    yyjson_val *bos = yyjson_obj_get(root, "bos_token_id"), *eos = yyjson_obj_get(root, "eos_token_id");
    c->bos = -1;
    if (yyjson_is_int(bos))
        config_set_bos(c, yyjson_is_uint(bos) && yyjson_get_uint(bos) > INT_MAX ? INT_MAX : yyjson_get_sint(bos),
                       r->name);
    else if (bos && !yyjson_is_null(bos))
        complain(r, "bos_token_id", bos, "a token id or null");
    else if (!bos && f->bos >= 0 && f->bos < c->vocab)
        c->bos = f->bos;

    yyjson_val *g = member(generation, "eos_token_id");
    if (g) {
        r->file = "generation_config.json";
        read_eos(r, g, c);
        r->file = "config.json";
    } else if (eos && !yyjson_is_null(eos)) {
        read_eos(r, eos, c);
    } else if (!eos && f->eos >= 0 && f->eos < c->vocab) {
        c->eos[c->n_eos++] = f->eos;
    }
}

/* ---- all of it ---- */

static void refuse_quantised(struct reader *r, yyjson_val *root) {
    yyjson_val *q = member(root, "quantization_config");
    if (!q)
        return;
    const char *method = yyjson_get_str(yyjson_obj_get(q, "quant_method"));
    err_set(r->e, ERR_MODEL,
            "%s: %s: the weights are quantised with \"%.40s\", which is not supported; take the model's unquantised "
            "weights, "
            "or a GGUF of type q8_0, q4_0, q4_K or q6_K",
            r->name, r->file, method ? method : "an unnamed method");
    r->bad = true;
}

static void read_shape(struct reader *r, yyjson_val *root, const struct family_info *f, struct model_config *c) {
    c->hidden = get_int(r, root, "hidden_size", CONFIG_MAX_HIDDEN, REQUIRED);
    c->n_layers = get_int(r, root, "num_hidden_layers", CONFIG_MAX_LAYERS, REQUIRED);
    c->n_heads = get_int(r, root, "num_attention_heads", CONFIG_MAX_HEADS, REQUIRED);
    c->ffn = get_int(r, root, "intermediate_size", CONFIG_MAX_FFN, REQUIRED);
    c->vocab = get_int(r, root, "vocab_size", CONFIG_MAX_VOCAB, REQUIRED);
    c->max_ctx = get_int(r, root, "max_position_embeddings", CONFIG_MAX_CTX, f->max_ctx);
    c->rms_eps = get_float(r, root, "rms_norm_eps", 1e-6);
    /* null: one for each head; missing: the family's default */
    bool null_kv = yyjson_is_null(yyjson_obj_get(root, "num_key_value_heads"));
    c->n_kv_heads = get_int(r, root, "num_key_value_heads", CONFIG_MAX_HEADS,
                            null_kv || f->kv_heads == 0 ? c->n_heads : f->kv_heads);
    c->head_dim = get_int(r, root, "head_dim", CONFIG_MAX_HEAD_DIM, f->head_dim);
    if (c->head_dim == 0 && !r->bad) {
        if (c->hidden % c->n_heads != 0)
            complain(r, "hidden_size", yyjson_obj_get(root, "hidden_size"),
                     "a multiple of num_attention_heads, for there is no head_dim");
        c->head_dim = c->hidden / c->n_heads;
    }
}

static void read_config(struct reader *r, yyjson_val *root, yyjson_val *generation, struct model_config *c) {
    if (!yyjson_is_obj(root)) {
        err_set(r->e, ERR_MODEL, "%s: %s: not a JSON object", r->name, r->file);
        r->bad = true;
        return;
    }
    const struct family_info *f = read_family(r, root);
    if (!f)
        return;
    c->family = f->family;
    snprintf(c->arch, sizeof c->arch, "%s", f->arch);
    refuse_quantised(r, root);
    read_shape(r, root, f, c);
    if (r->bad)
        return;

    const char *act = get_str(r, root, "hidden_act", "silu");
    if (!r->bad && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        complain(r, "hidden_act", yyjson_obj_get(root, "hidden_act"), "\"silu\", the only one that is supported");
    bool bias = get_bool(r, root, "attention_bias", false);
    c->tied_head = get_bool(r, root, "tie_word_embeddings", false);
    c->qk_norm = f->family == FAMILY_QWEN3;
    c->o_bias = bias && (f->family == FAMILY_LLAMA || f->family == FAMILY_QWEN3);
    c->qkv_bias = c->o_bias || f->family == FAMILY_QWEN2;
    c->mlp_bias = f->family == FAMILY_LLAMA && get_bool(r, root, "mlp_bias", false);
    read_rope(r, root, c);
    read_sliding(r, root, c);
    read_special(r, root, generation, f, c);
}

/* NaN and infinities, which Python's writer lets through, are read here so that the message can name their key. */
static yyjson_doc *read_json(struct reader *r, const char *json, size_t n) {
    yyjson_read_err why = {0};
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json, n, YYJSON_READ_ALLOW_INF_AND_NAN, NULL, &why);
    if (!doc) {
        err_set(r->e, why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? ERR_MEMORY : ERR_MODEL,
                "%s: %s: not JSON: %s at byte %zu", r->name, r->file, why.msg, why.pos);
        r->bad = true;
    }
    return doc;
}

int config_from_json(struct model_config *c, const char *json, size_t n, const char *generation, size_t n_generation,
                     const char *name, struct err *e) {
    *c = (struct model_config){.bos = -1};
    struct reader r = {.name = name, .file = "config.json", .e = e};
    yyjson_doc *g = NULL, *doc = read_json(&r, json, n);
    if (!r.bad && generation) {
        r.file = "generation_config.json";
        g = read_json(&r, generation, n_generation);
        r.file = "config.json";
    }
    if (!r.bad)
        read_config(&r, yyjson_doc_get_root(doc), yyjson_doc_get_root(g), c);
    if (!r.bad && config_check(c, name, e) != 0)
        r.bad = true;
    yyjson_doc_free(doc);
    yyjson_doc_free(g);
    if (r.bad)
        config_free(c);
    return r.bad ? -1 : 0;
}
