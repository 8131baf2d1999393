/* config.json against transformers, and what must be refused. */
#include "core/model/config.h"
#include "core/model/names.h"
#include "loading.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static int parse(struct model_config *c, const char *json, const char *generation, struct err *e) {
    return config_from_json(c, json, strlen(json), generation, generation ? strlen(generation) : 0, "M", e);
}

/* ---- transformers ---- */

static int number(yyjson_val *expected, const char *key) {
    yyjson_val *v = yyjson_obj_get(expected, key);
    cr_assert(yyjson_is_int(v), "%s", key);
    return (int)yyjson_get_sint(v);
}

static void compare_shape(const struct model_config *c, yyjson_val *x, const char *name) {
    const struct {
        const char *key;
        int value;
    } ints[] = {
        {"hidden", c->hidden},         {"n_layers", c->n_layers}, {"n_heads", c->n_heads},
        {"n_kv_heads", c->n_kv_heads}, {"head_dim", c->head_dim}, {"ffn", c->ffn},
        {"vocab", c->vocab},           {"max_ctx", c->max_ctx},   {"bos", c->bos},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        cr_assert_eq(ints[i].value, number(x, ints[i].key), "%s: %s is %d", name, ints[i].key, ints[i].value);
    cr_assert_eq(c->rms_eps, (float)yyjson_get_real(yyjson_obj_get(x, "rms_eps")), "%s", name);
    cr_assert_eq(c->tied_head, yyjson_get_bool(yyjson_obj_get(x, "tied")), "%s", name);

    yyjson_val *eos = yyjson_obj_get(x, "eos");
    cr_assert_eq(c->n_eos, (int)yyjson_arr_size(eos), "%s", name);
    for (int i = 0; i < c->n_eos; i++)
        cr_assert_eq(c->eos[i], yyjson_get_int(yyjson_arr_get(eos, (size_t)i)), "%s", name);

    yyjson_val *windows = yyjson_obj_get(x, "windows");
    cr_assert_eq(yyjson_arr_size(windows), (size_t)c->n_layers);
    for (int i = 0; i < c->n_layers; i++)
        cr_assert_eq(i >= c->sliding_from ? c->sliding_window : 0, yyjson_get_int(yyjson_arr_get(windows, (size_t)i)),
                     "%s: window of layer %d", name, i);
}

/* The distance of two floats of one sign in units of the last place. */
static int32_t ulps(float a, uint32_t b_bits) {
    int32_t x;
    memcpy(&x, &a, sizeof x);
    return abs(x - (int32_t)b_bits);
}

static void compare_rope(const struct model_config *c, yyjson_val *expected, const char *name) {
    float inv[CONFIG_MAX_HEAD_DIM / 2];
    cr_assert_eq(yyjson_arr_size(expected), (size_t)c->head_dim / 2);
    config_rope_freqs(c, inv);
    int off = 0;
    for (int i = 0; i < c->head_dim / 2; i++) {
        int32_t d = ulps(inv[i], (uint32_t)yyjson_get_uint(yyjson_arr_get(expected, (size_t)i)));
        /* ours is rounded exactly, torch's power function nearly always */
        cr_assert_leq(d, 1, "%s: inv_freq[%d] is %.9g, %d ulps off", name, i, (double)inv[i], d);
        off += d != 0;
    }
    cr_assert_leq(off, c->head_dim / 16, "%s: %d frequencies differ", name, off);
}

static const char *const layer_names[] = {
    "input_layernorm.weight",  "self_attn.q_proj.weight",
    "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.o_proj.weight", "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",   "self_attn.v_proj.bias",
    "self_attn.o_proj.bias",   "self_attn.q_norm.weight",
    "self_attn.k_norm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight",      "post_attention_layernorm.weight",
    "mlp.down_proj.weight",    "mlp.gate_proj.bias",
    "mlp.up_proj.bias",        "mlp.down_proj.bias",
};

static void compare_tensors(const struct model_config *c, yyjson_val *expected, const char *name) {
    struct tensor_info info;
    size_t i, max;
    yyjson_val *t;
    yyjson_arr_foreach(expected, i, max, t) {
        const char *hf = yyjson_get_str(yyjson_arr_get(t, 0));
        cr_assert(names_find(c, hf, &info), "%s: %s", name, hf);
        cr_assert_eq(info.rows, yyjson_get_uint(yyjson_arr_get(t, 1)), "%s: %s", name, hf);
        cr_assert_eq(info.cols, yyjson_get_uint(yyjson_arr_get(t, 2)), "%s: %s", name, hf);
        cr_assert_str_eq(info.gguf, yyjson_get_str(yyjson_arr_get(t, 3)), "%s: %s", name, hf);
    }
    /* and no others */
    size_t n = names_find(c, "model.embed_tokens.weight", &info) + names_find(c, "model.norm.weight", &info) +
               names_find(c, "lm_head.weight", &info);
    for (size_t k = 0; k < sizeof layer_names / sizeof *layer_names; k++) {
        char hf[96];
        snprintf(hf, sizeof hf, "model.layers.0.%s", layer_names[k]);
        n += names_find(c, hf, &info);
    }
    cr_assert_eq(n, yyjson_arr_size(expected), "%s: %zu tensors", name, n);
}

Test(config, agrees_with_transformers) {
    size_t n, i, max;
    char *text = load_file(GOLDEN "configs.json", &n);
    yyjson_doc *doc = yyjson_read(text, n, 0);
    yyjson_val *one;
    cr_assert_geq(yyjson_arr_size(yyjson_doc_get_root(doc)), 40);
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, one) {
        const char *name = yyjson_get_str(yyjson_obj_get(one, "name"));
        yyjson_val *generation = yyjson_obj_get(one, "generation"), *x = yyjson_obj_get(one, "expected");
        char *json = yyjson_val_write(yyjson_obj_get(one, "config"), 0, NULL);
        char *gen = yyjson_is_null(generation) ? NULL : yyjson_val_write(generation, 0, NULL);
        struct model_config c;
        struct err e = {0};
        cr_assert_eq(parse(&c, json, gen, &e), 0, "%s: %s", name, e.msg);
        compare_shape(&c, x, name);
        compare_rope(&c, yyjson_obj_get(x, "inv_freq"), name);
        compare_tensors(&c, yyjson_obj_get(x, "tensors"), name);
        config_free(&c);
        free(json);
        free(gen);
    }
    yyjson_doc_free(doc);
    free(text);
}

/* ---- what is refused ---- */

#define LLAMA                                                                                                          \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,"   \
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100"
#define QWEN2                                                                                                          \
    "\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,"    \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100"

/* The config with `key` set to `value` (NULL: without it). */
static char *changed(const char *base, const char *key, const char *value) {
    yyjson_doc *doc = yyjson_read(base, strlen(base), 0);
    cr_assert(doc != NULL, "%s", base);
    yyjson_mut_doc *m = yyjson_doc_mut_copy(doc, NULL);
    yyjson_mut_val *root = yyjson_mut_doc_get_root(m);
    yyjson_mut_obj_remove_key(root, key);
    if (value)
        yyjson_mut_obj_add_val(m, root, key, yyjson_mut_raw(m, value));
    char *out = yyjson_mut_write(m, 0, NULL);
    yyjson_mut_doc_free(m);
    yyjson_doc_free(doc);
    return out;
}

static void refused(const char *base, const char *key, const char *value, const char *expected) {
    struct model_config c;
    struct err e = {0};
    char *json = changed(base, key, value);
    cr_assert_eq(parse(&c, json, NULL, &e), -1, "accepted: %s", json);
    expect_err(&e, ERR_MODEL, "M: ", expected, NULL);
    cr_assert_null(c.rope.freq_divisors);
    free(json);
}

Test(config, the_base_of_these_tests_is_accepted) {
    const char *const bases[] = {"{" LLAMA "}", "{" QWEN2 "}"};
    for (int i = 0; i < 2; i++) {
        struct model_config c;
        struct err e = {0};
        cr_assert_eq(parse(&c, bases[i], NULL, &e), 0, "%s", e.msg);
        config_free(&c);
    }
}

Test(config, missing_and_wrong_sizes) {
    static const char *const keys[] = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                       "vocab_size"};
    static const char *const values[] = {NULL,         "null", "0",        "-1", "4.5",   "64.0",
                                         "\"64\"",     "[64]", "true",     "{}", "1e400", "18446744073709551616",
                                         "1000000000", "NaN",  "-Infinity"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            refused("{" LLAMA "}", keys[k], values[v], keys[k]);
    static const char *const optional[] = {"num_key_value_heads", "head_dim", "max_position_embeddings"};
    for (size_t k = 0; k < sizeof optional / sizeof *optional; k++)
        for (size_t v = 2; v < sizeof values / sizeof *values; v++)
            refused("{" LLAMA "}", optional[k], values[v], optional[k]);
}

Test(config, sizes_that_do_not_fit_together) {
    refused("{" LLAMA "}", "num_key_value_heads", "3", "4 attention heads cannot share 3 key-value heads");
    refused("{" LLAMA "}", "num_key_value_heads", "8", "4 attention heads cannot share 8");
    refused("{" LLAMA "}", "head_dim", "15", "head dimension is 15");
    refused("{" LLAMA "}", "hidden_size", "60", "head dimension is 15");
    refused("{" LLAMA "}", "hidden_size", "62", "hidden_size is 62; expected a multiple");
}

/* Not a number, infinite, zero, negative, of a wrong type: for every real number that a config has. */
Test(config, nan_in_config) {
    static const char *const keys[] = {"rms_norm_eps", "rope_theta", "partial_rotary_factor"};
    static const char *const values[] = {"NaN", "Infinity", "-Infinity", "1e400", "0",
                                         "-1",  "1e-60",    "\"1\"",     "[]",    "true"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            refused("{" LLAMA "}", keys[k], values[v], keys[k]);
    refused("{" LLAMA "}", "rms_norm_eps", "NaN", "config.json: rms_norm_eps is NaN");
    refused("{" LLAMA "}", "rms_norm_eps", "2", "rms_norm_eps is 2");
    refused("{" LLAMA "}", "rope_theta", "0.5", "rope_theta is 0.5");
    refused("{" LLAMA "}", "rope_theta", "1e20", "rope_theta is 1e+20");

    static const char *const inner[] = {"factor", "low_freq_factor", "high_freq_factor", "rope_theta"};
    for (size_t k = 0; k < sizeof inner / sizeof *inner; k++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            char rope[300];
            snprintf(rope, sizeof rope,
                     "{\"%s\":%s,\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
                     inner[k], values[v]);
            refused("{" LLAMA "}", "rope_scaling", rope, inner[k]);
            refused("{" LLAMA "}", "rope_parameters", rope, inner[k]);
        }
    }
}

Test(config, rope_scaling_of_other_kinds) {
    refused("{" LLAMA "}", "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4}", "type \"yarn\" is not supported");
    refused("{" LLAMA "}", "rope_scaling", "{\"type\":\"dynamic\",\"factor\":4}", "\"dynamic\"");
    refused("{" QWEN2 "}", "rope_scaling", "{\"type\":\"mrope\",\"mrope_section\":[1]}", "\"mrope\"");
    refused("{" LLAMA "}", "rope_scaling", "{\"rope_type\":\"linear\"}", "factor is missing");
    refused("{" LLAMA "}", "rope_scaling", "{\"rope_type\":7}", "rope_type is 7");
    refused("{" LLAMA "}", "rope_scaling", "8", "rope_scaling is 8");
    refused("{" LLAMA "}", "rope_scaling",
            "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}", "0 < low < high");
    refused("{" LLAMA "}", "rope_scaling",
            "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
            "\"original_max_position_embeddings\":-8192}",
            "original_max_position_embeddings is -8192");
    refused("{" LLAMA "}", "rope_parameters", "{\"full_attention\":{\"rope_theta\":1e4}}", "rope_parameters");
    refused("{" LLAMA "}", "partial_rotary_factor", "0.5", "partial_rotary_factor is 0.5");
}

Test(config, unsupported_architecture) {
    refused("{" LLAMA "}", "architectures", "[\"MixtralForCausalLM\"]",
            "the architecture MixtralForCausalLM is not supported; supported are MistralForCausalLM, LlamaForCausalLM, "
            "Qwen2ForCausalLM, Qwen3ForCausalLM");
    refused("{" LLAMA "}", "architectures", "[\"Gemma2ForCausalLM\"]", "Gemma2ForCausalLM");
    refused("{" LLAMA "}", "architectures", "[\"MistralForCausalLM\"]",
            "MistralForCausalLM and model_type llama contradict");
    refused("{" LLAMA "}", "model_type", "\"qwen2_moe\"", "model_type qwen2_moe is not supported");
    refused("{" LLAMA "}", "architectures", "\"LlamaForCausalLM\"", "architectures is");
    refused("{" LLAMA "}", "architectures", "[7]", "architectures is");
    char *none = changed("{" LLAMA "}", "model_type", NULL);
    refused(none, "architectures", NULL, "architectures is missing");
    free(none);
}

Test(config, model_type_alone_is_enough) {
    struct model_config c;
    struct err e = {0};
    char *json = changed("{" LLAMA "}", "architectures", NULL);
    cr_assert_eq(parse(&c, json, NULL, &e), 0, "%s", e.msg);
    cr_assert_str_eq(c.arch, "LlamaForCausalLM");
    config_free(&c);
    free(json);
}

Test(config, what_we_cannot_compute) {
    refused("{" LLAMA "}", "hidden_act", "\"gelu\"", "hidden_act is \"gelu\"");
    refused("{" LLAMA "}", "hidden_act", "1", "hidden_act is 1");
    refused("{" LLAMA "}", "quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4}", "\"gptq\"");
    refused("{" LLAMA "}", "quantization_config", "{\"quant_method\":\"awq\"}", "\"awq\"");
    refused("{" LLAMA "}", "quantization_config", "{\"quant_method\":\"fp8\"}", "\"fp8\"");
    refused("{" LLAMA "}", "quantization_config", "{}", "an unnamed method");
    refused("{" LLAMA "}", "tie_word_embeddings", "\"yes\"", "tie_word_embeddings is \"yes\"");
    refused("{" LLAMA "}", "attention_bias", "1", "attention_bias is 1");
    refused("{" LLAMA "}", "mlp_bias", "[]", "mlp_bias");
}

Test(config, sliding_windows_that_make_no_sense) {
#define SLIDES "{" QWEN2 ",\"use_sliding_window\":true,\"sliding_window\":8}"
    refused(SLIDES, "sliding_window", "0", "sliding_window is 0");
    refused(SLIDES, "sliding_window", "-1", "sliding_window is -1");
    refused(SLIDES, "sliding_window", "4.5", "sliding_window is 4.5");
    refused(SLIDES, "max_window_layers", "-1", "max_window_layers is -1");
    refused(SLIDES, "use_sliding_window", "1", "use_sliding_window is 1");
    refused(SLIDES, "layer_types", "[\"full_attention\"]", "one entry for each layer");
    refused(SLIDES, "layer_types", "[\"full_attention\",\"full_attention\",\"full_attention\",\"mamba\"]", "\"mamba\"");
    refused(SLIDES, "layer_types", "[\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]",
            "other orders are not supported");
    refused("{" QWEN2 "}", "layer_types",
            "[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
            "no sliding_window in use");
}

Test(config, special_tokens) {
    struct model_config c;
    struct err e = {0};
    const char *json = "{" LLAMA ",\"eos_token_id\":[2,7,2],\"bos_token_id\":101}";
    cr_assert_eq(parse(&c, json, NULL, &e), 0, "%s", e.msg);
    cr_assert(c.n_eos == 2 && c.eos[0] == 2 && c.eos[1] == 7, "each once");
    cr_assert_eq(c.bos, -1, "an id outside the vocabulary can never occur");
    cr_assert_eq(parse(&c, json, "{\"eos_token_id\":[3,100,99]}", &e), 0, "%s", e.msg);
    cr_assert(c.n_eos == 2 && c.eos[0] == 3 && c.eos[1] == 99);
    cr_assert_eq(parse(&c, json, "{\"eos_token_id\":9}", &e), 0, "%s", e.msg);
    cr_assert(c.n_eos == 1 && c.eos[0] == 9);
    cr_assert_eq(parse(&c, json, "{}", &e), 0, "%s", e.msg);
    cr_assert_eq(c.n_eos, 2, "generation_config.json says nothing: config.json decides");

    cr_assert_eq(parse(&c, json, "{\"eos_token_id\":\"</s>\"}", &e), -1);
    expect_err(&e, ERR_MODEL, "generation_config.json: eos_token_id is \"</s>\"", NULL);
    e = (struct err){0};
    cr_assert_eq(parse(&c, json, "{", &e), -1);
    expect_err(&e, ERR_MODEL, "generation_config.json: not JSON", NULL);
    refused("{" LLAMA "}", "eos_token_id", "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", "more than 16");
    refused("{" LLAMA "}", "bos_token_id", "[1]", "bos_token_id");
}

Test(config, not_json) {
    static const char *const bad[] = {"", "{", "[]", "7", "null", "\xff\xfe", "{\"a\":1}{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct model_config c;
        struct err e = {0};
        cr_assert_eq(parse(&c, bad[i], NULL, &e), -1, "%s", bad[i]);
        expect_err(&e, ERR_MODEL, "M: config.json: ", NULL);
    }
}

Test(config, no_err_no_crash) {
    struct model_config c;
    cr_assert_eq(parse(&c, "{}", NULL, NULL), -1);
    cr_assert_eq(parse(&c, "{" LLAMA ",\"hidden_act\":\"gelu\",\"quantization_config\":{}}", NULL, NULL), -1);
}

/* Every prefix and thousands of damaged copies of a file with all keys. */
Test(config, truncated_and_damaged) {
    static const char json[] =
        "{" LLAMA ",\"head_dim\":16,\"rms_norm_eps\":1e-05,\"rope_theta\":500000.0,\"hidden_act\":\"silu\","
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192},\"eos_token_id\":[1,2],\"bos_token_id\":1,\"mlp_bias\":true,"
        "\"tie_word_embeddings\":true,\"attention_bias\":false,\"max_position_embeddings\":131072}";
    static const char gen[] = "{\"eos_token_id\":[1,2]}";
    size_t n = sizeof json - 1;
    uint64_t state = 1;
    int accepted = 0;
    for (size_t k = 0; k <= n; k++) {
        struct model_config c;
        struct err e = {0};
        uint8_t *p = exact_copy(json, k);
        int rc = config_from_json(&c, (char *)p, k, NULL, 0, "M", &e);
        cr_assert_eq(rc, k == n ? 0 : -1, "prefix of %zu", k);
        config_free(&c);
        free(p);
    }
    for (int k = 0; k < 20000; k++) {
        struct model_config c;
        struct err e = {0};
        uint8_t *p = exact_copy(json, n), *g = exact_copy(gen, sizeof gen - 1);
        mutate(p, n, &state);
        if (k % 8 == 0)
            mutate(g, sizeof gen - 1, &state);
        if (config_from_json(&c, (char *)p, n, (char *)g, sizeof gen - 1, "M", &e) == 0) {
            float inv[CONFIG_MAX_HEAD_DIM / 2];
            config_rope_freqs(&c, inv);
            for (int i = 0; i < c.head_dim / 2; i++)
                cr_assert(isfinite(inv[i]) && inv[i] > 0);
            accepted++;
            config_free(&c);
        } else {
            cr_assert_eq(e.kind, ERR_MODEL);
        }
        free(p);
        free(g);
    }
    cr_assert(accepted > 100 && accepted < 15000, "%d accepted: the noise tests nothing", accepted);
}

/* Numbers from the Llama 3.1 paper's reference code are covered by the golden file; here the divisors of GGUF. */
Test(config, divisors_divide) {
    float divisors[8] = {1, 2, 3, 4, 5, 6, 7, 8}, plain[8], divided[8];
    struct model_config c = {.head_dim = 16, .rope = {.theta = 10000.0f}};
    config_rope_freqs(&c, plain);
    c.rope.freq_divisors = divisors;
    config_rope_freqs(&c, divided);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(divided[i], plain[i] / divisors[i]);
}

Test(config, kv_bytes) {
    struct model_config c = {.n_kv_heads = 8, .head_dim = 128};
    cr_assert_eq(config_kv_bytes(&c, DT_F16), 4096);
    cr_assert_eq(config_kv_bytes(&c, DT_F32), 8192);
    cr_assert_eq(config_kv_bytes(&c, DT_E4M3), 2048 + 32);
    c.head_dim = 20; /* padded to 32 */
    cr_assert_eq(config_kv_bytes(&c, DT_E4M3), 16 * 34);
}

Test(names, only_what_a_model_has) {
    struct model_config c = {
        .hidden = 64, .n_layers = 11, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 100};
    struct tensor_info info;
    cr_assert(names_find(&c, "model.layers.10.self_attn.k_proj.weight", &info));
    cr_assert(info.layer == 10 && info.rows == 32 && info.cols == 64 && info.heads == 2);
    static const char *const none[] = {
        "",
        "model.layers.",
        "model.layers.11.input_layernorm.weight",
        "model.layers.-1.input_layernorm.weight",
        "model.layers.01.input_layernorm.weight",
        "model.layers.+1.input_layernorm.weight",
        "model.layers.1",
        "model.layers.99999999999999999999.input_layernorm.weight",
        "model.layers..input_layernorm.weight",
        "model.layers.1.input_layernorm.weightx",
        "model.layers.1.",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "input_layernorm.weight",
        "lm_head.bias",
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert_not(names_find(&c, none[i], &info), "%s", none[i]);
}
