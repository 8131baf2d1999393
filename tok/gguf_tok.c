/* The tokenizer inside a GGUF file: model "llama" is SentencePiece with scores, model "gpt2" byte-level merges whose
 * splitting pattern is only named (tokenizer.ggml.pre), not given. */
#include "core/model/gguf.h"
#include "tok/hf_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define APOSTROPHES "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2        APOSTROPHES "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(digits)                                                                                                 \
    "(?i:" APOSTROPHES ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                                       \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN                                                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"                        \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}"                \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What the names mean: the pre-tokenizers of the models that the names come from. */
static const struct pre {
    const char *name;
    const char *split[2]; /* one after the other */
    bool whole_words, add_bos, nfc;
} pres[] = {
    {"llama-bpe", {LLAMA3("\\p{N}{1,3}")}, true, true, false},
    {"llama3", {LLAMA3("\\p{N}{1,3}")}, true, true, false},
    {"llama-v3", {LLAMA3("\\p{N}{1,3}")}, true, true, false},
    {"smaug-bpe", {LLAMA3("\\p{N}{1,3}")}, false, false, false},
    {"qwen2", {LLAMA3("\\p{N}")}, false, false, true},
    {"deepseek-r1-qwen", {LLAMA3("\\p{N}")}, false, false, true},
    {"tekken", {TEKKEN}, true, true, false},
    {"gpt-2", {GPT2}, false, false, false},
    {"gpt2", {GPT2}, false, false, false},
    {"smollm", {"\\p{N}", GPT2}, false, false, false},
    {"starcoder", {"\\p{N}", GPT2}, false, false, false},
};

static bool equal(struct gguf_str s, const char *what) {
    return s.n == strlen(what) && memcmp(s.p, what, s.n) == 0;
}

/* The token whose id stands under key; -1 when there is no such key, an error when there is no such token. */
static int token_id(const struct tokenizer *t, const struct gguf *g, const char *key, int *id, struct err *e) {
    uint64_t v;
    if (!gguf_u64(g, key, &v))
        return 0;
    if (v >= t->vocab.n)
        return err_set(e, ERR_MODEL, "%s is %llu, the vocabulary has %u tokens", key, (unsigned long long)v,
                       t->vocab.n);
    *id = (int)v;
    return 0;
}

static int finish(struct tokenizer *t, const struct gguf *g, bool add_bos, struct err *e) {
    if (token_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, e) != 0 ||
        token_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, e) != 0)
        return -1;
    (void)gguf_bool(g, "tokenizer.ggml.add_bos_token", &add_bos);
    return add_bos && t->bos >= 0 ? tok_add_front(t, (uint32_t)t->bos, e) : 0;
}

struct arrays {
    struct gguf_array tokens, types, scores, merges;
};

/* An array of n elements that every tokenizer of this model has. */
static int need(const struct gguf *g, const char *key, bool strings, uint64_t n, struct gguf_array *a, struct err *e) {
    if (!gguf_arr(g, key, a) || (a->type == GGUF_STR) != strings)
        return err_set(e, ERR_MODEL, "%s is missing, or not an array of %s", key, strings ? "strings" : "numbers");
    if (n && a->n != n)
        return err_set(e, ERR_MODEL, "%s has %llu elements for %llu tokens", key, (unsigned long long)a->n,
                       (unsigned long long)n);
    if (a->n == 0 || a->n > VOCAB_MAX_IDS)
        return err_set(e, ERR_MODEL, "%s has %llu elements", key, (unsigned long long)a->n);
    return 0;
}

static enum piece_type type_at(const struct arrays *a, uint64_t i) {
    int64_t v = gguf_arr_i64(&a->types, i);
    return v >= PIECE_NORMAL && v <= PIECE_BYTE ? (enum piece_type)v : PIECE_UNUSED;
}

static int read_llama(struct tokenizer *t, const struct gguf *g, const struct arrays *a, struct err *e) {
    struct gguf_str s;
    size_t off = 0;
    int unk = -1;
    t->spm.dummy_prefix = t->spm.escape = t->spm.byte_fallback = true;
    (void)gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->spm.dummy_prefix);
    for (uint64_t i = 0; gguf_arr_next_str(&a->tokens, &off, &s); i++) {
        double score = gguf_arr_f64(&a->scores, i);
        enum piece_type type = s.n ? type_at(a, i) : PIECE_UNUSED;
        if (isnan(score))
            return err_set(e, ERR_MODEL, "the score of token %llu is not a number", (unsigned long long)i);
        if (spm_add_piece(t, (const uint8_t *)s.p, s.n, type, (float)score, e) != 0)
            return -1;
    }
    if (token_id(t, g, "tokenizer.ggml.unknown_token_id", &unk, e) != 0)
        return -1;
    if (t->unk < 0)
        t->unk = unk;
    t->spm.unk_surface = strdup(" \xe2\x81\x87 ");
    if (!t->spm.unk_surface)
        return err_set(e, ERR_MEMORY, "out of memory for a tokenizer");
    return spm_finish(t, e);
}

static int read_gpt2_tokens(struct tokenizer *t, const struct arrays *a, struct err *e) {
    struct gguf_str s;
    size_t off = 0;
    for (uint32_t i = 0; gguf_arr_next_str(&a->tokens, &off, &s); i++) {
        enum piece_type type = s.n ? type_at(a, i) : PIECE_UNUSED;
        struct added added = {.id = i, .special = type != PIECE_USER};
        if (type == PIECE_UNKNOWN)
            type = PIECE_CONTROL;
        if (vocab_set(&t->vocab, i, s.p, s.n, type, e) != 0)
            return -1;
        if ((type == PIECE_CONTROL || type == PIECE_USER) && tok_add_token(t, &added, s.p, s.n, e) != 0)
            return -1;
    }
    return 0;
}

static int read_gpt2(struct tokenizer *t, const struct pre *pre, const struct arrays *a, struct err *e) {
    /* a user-defined token may be a merge's result too */
    const unsigned pieces = 1u << PIECE_NORMAL | 1u << PIECE_USER;
    struct gguf_str s;
    size_t off = 0;
    t->hf.byte_level = true;
    t->hf.decode = DECODE_BYTES;
    t->hf.whole_words = pre->whole_words;
    if (read_gpt2_tokens(t, a, e) != 0 || vocab_index(&t->vocab, pieces, e) != 0 ||
        bpe_init_pairs(&t->bpe, (uint32_t)a->merges.n, e) != 0)
        return -1;
    for (uint32_t i = 0; gguf_arr_next_str(&a->merges, &off, &s); i++) {
        const char *space = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        size_t n_l = space ? (size_t)(space - s.p) : 0;
        if (!space)
            return err_set(e, ERR_MODEL, "merge %u is not of the form \"a b\"", i);
        if (hf_add_merge(t, s.p, n_l, space + 1, s.n - n_l - 1, i, e) != 0)
            return -1;
    }
    if (pre->nfc)
        t->hf.norm.step[t->hf.norm.n++] = (struct norm_step){.kind = NORM_NFC};
    for (size_t i = 0; i < 2 && pre->split[i]; i++)
        if (hf_add_split(t, pre->split[i], strlen(pre->split[i]), REGEX_ONIG, SPLIT_ISOLATED, false, e) != 0)
            return -1;
    if (hf_finish_added(t, e) != 0 || hf_unmap_bytes(t, e) != 0 || vocab_index(&t->vocab, 1u << PIECE_NORMAL, e) != 0)
        return -1;
    for (unsigned b = 0; b < 256; b++)
        t->byte_id[b] = vocab_find(&t->vocab, &(uint8_t){(uint8_t)b}, 1);
    return 0;
}

static int read_tokenizer(struct tokenizer **out, const struct gguf *g, struct err *e) {
    struct gguf_str model, name = {.p = "default", .n = 7};
    struct arrays a;
    const struct pre *pre = NULL;
    if (!gguf_string(g, "tokenizer.ggml.model", &model))
        return err_set(e, ERR_MODEL, "there is no tokenizer in it (tokenizer.ggml.model is missing)");
    bool llama = equal(model, "llama");
    if (!llama && !equal(model, "gpt2"))
        return err_set(e, ERR_MODEL, "the tokenizer.ggml.model %.*s is not supported, only llama and gpt2",
                       (int)(model.n < 40 ? model.n : 40), model.p);
    (void)gguf_string(g, "tokenizer.ggml.pre", &name);
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++)
        if (equal(name, pres[i].name))
            pre = &pres[i];
    if (!llama && !pre)
        return err_set(e, ERR_MODEL, "the tokenizer.ggml.pre %.*s is not supported", (int)(name.n < 40 ? name.n : 40),
                       name.p);
    if (need(g, "tokenizer.ggml.tokens", true, 0, &a.tokens, e) != 0 ||
        need(g, "tokenizer.ggml.token_type", false, a.tokens.n, &a.types, e) != 0 ||
        (llama && need(g, "tokenizer.ggml.scores", false, a.tokens.n, &a.scores, e) != 0) ||
        (!llama && need(g, "tokenizer.ggml.merges", true, 0, &a.merges, e) != 0))
        return -1;
    struct tokenizer *t = *out = tok_new(llama ? KIND_SPM : KIND_BYTE, e);
    if (!t || (llama ? read_llama(t, g, &a, e) : read_gpt2(t, pre, &a, e)) != 0)
        return -1;
    return finish(t, g, llama || pre->add_bos, e);
}

int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, struct err *e) {
    *out = NULL;
    if (read_tokenizer(out, g, e) == 0)
        return 0;
    err_wrap(e, "%s", gguf_name(g));
    tokenizer_free(*out);
    *out = NULL;
    return -1;
}
