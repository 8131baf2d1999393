/* tekken.json (Mistral NeMo and later): a byte-pair vocabulary in order of rank, a splitting pattern, special tokens
 * whose ids come before the vocabulary's. Merging goes by the rank of the joined text, as in tiktoken. */
#include "tok/hf_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPECIAL 65536u

/* Files up to v7 do not list their special tokens. */
static const char *const OLD_SPECIAL[] = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

/* Decodes standard base64 with padding; returns the number of bytes, or SIZE_MAX when it is none or does not fit. */
static size_t base64(const char *s, size_t n, uint8_t *out, size_t cap) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t k = 0;
    if (n % 4 != 0 || n / 4 * 3 > cap + 2)
        return SIZE_MAX;
    uint32_t v[4];
    for (size_t i = 0; i < n; i += 4) {
        size_t n_digits = 4;
        while (n_digits > 2 && i + 4 == n && s[i + n_digits - 1] == '=')
            n_digits--;
        for (size_t j = 0; j < 4; j++) {
            const char *d = j < n_digits ? memchr(digits, s[i + j], 64) : digits;
            if (!d)
                return SIZE_MAX;
            v[j] = (uint32_t)(d - digits);
        }
        uint32_t w = v[0] << 18 | v[1] << 12 | v[2] << 6 | v[3];
        for (size_t j = 0; j + 1 < n_digits; j++) {
            if (k == cap)
                return SIZE_MAX;
            out[k++] = (uint8_t)(w >> (16 - 8 * j));
        }
    }
    return k;
}

static int add_special(struct tokenizer *t, uint32_t id, const char *text, size_t n, struct err *e) {
    struct added a = {.id = id, .special = true};
    if (vocab_set(&t->vocab, id, text, n, PIECE_CONTROL, e) != 0)
        return -1;
    return tok_add_token(t, &a, text, n, e);
}

static int read_special(struct tokenizer *t, yyjson_val *list, uint32_t n_special, struct err *e) {
    yyjson_val *v;
    size_t i, max, n;
    uint32_t listed = 0;
    if (yyjson_is_arr(list)) {
        yyjson_arr_foreach(list, i, max, v) {
            const char *text = json_str(v, "token_str", &n);
            uint64_t rank = yyjson_get_uint(yyjson_obj_get(v, "rank"));
            if (!text || !yyjson_is_uint(yyjson_obj_get(v, "rank")) || rank >= n_special)
                return err_set(e, ERR_MODEL, "special token %zu lacks its token_str, or a rank below %u", i, n_special);
            if (add_special(t, (uint32_t)rank, text, n, e) != 0)
                return -1;
        }
        listed = (uint32_t)yyjson_arr_size(list);
    } else {
        listed = sizeof OLD_SPECIAL / sizeof OLD_SPECIAL[0];
        for (uint32_t id = 0; id < listed && id < n_special; id++)
            if (add_special(t, id, OLD_SPECIAL[id], strlen(OLD_SPECIAL[id]), e) != 0)
                return -1;
    }
    for (uint32_t id = listed; id < n_special; id++) {
        char text[32];
        if (id < t->vocab.n && vocab_type(&t->vocab, id) != PIECE_NONE)
            continue; /* a list with gaps: the names below fill up from its length on */
        snprintf(text, sizeof text, "<SPECIAL_%u>", id);
        if (add_special(t, id, text, strlen(text), e) != 0)
            return -1;
    }
    return 0;
}

static int read_vocab(struct tokenizer *t, yyjson_val *list, uint32_t n_vocab, uint32_t n_special, struct err *e) {
    uint8_t bytes[VOCAB_MAX_PIECE];
    yyjson_val *v;
    size_t i, max, n;
    t->bpe.rank = malloc(((size_t)n_vocab + n_special) * sizeof *t->bpe.rank);
    if (!t->bpe.rank)
        return err_set(e, ERR_MEMORY, "out of memory for %u ranks", n_vocab);
    yyjson_arr_foreach(list, i, max, v) {
        if (i == n_vocab)
            break;
        const char *text = json_str(v, "token_bytes", &n);
        size_t n_bytes = text ? base64(text, n, bytes, sizeof bytes) : SIZE_MAX;
        yyjson_val *rank = yyjson_obj_get(v, "rank");
        if (n_bytes == SIZE_MAX || n_bytes == 0 || !yyjson_is_uint(rank) || yyjson_get_uint(rank) != i)
            return err_set(e, ERR_MODEL, "vocab entry %zu is damaged, or not of rank %zu", i, i);
        if (i < 256 && !(n_bytes == 1 && bytes[0] == i))
            return err_set(e, ERR_MODEL, "vocab entry %zu is not the byte %zu", i, i);
        uint32_t id = n_special + (uint32_t)i;
        if (vocab_set(&t->vocab, id, bytes, n_bytes, PIECE_NORMAL, e) != 0)
            return -1;
        t->bpe.rank[id] = (uint32_t)i;
        if (i < 256)
            t->byte_id[i] = id;
    }
    return 0;
}

static int read_root(struct tokenizer *t, yyjson_val *root, struct err *e) {
    yyjson_val *config = yyjson_obj_get(root, "config"), *vocab = yyjson_obj_get(root, "vocab");
    size_t n_pattern, n_version;
    const char *pattern = json_str(config, "pattern", &n_pattern), *version = json_str(config, "version", &n_version);
    uint64_t n_all = yyjson_get_uint(yyjson_obj_get(config, "default_vocab_size"));
    uint64_t n_special = yyjson_get_uint(yyjson_obj_get(config, "default_num_special_tokens"));
    if (!pattern || !version || !yyjson_is_arr(vocab))
        return err_set(e, ERR_MODEL, "there is no config with pattern and version, or no vocab, in it");
    if (n_special < 3 || n_special > MAX_SPECIAL || n_all > VOCAB_MAX_IDS || n_all < n_special + 256 ||
        n_all - n_special > yyjson_arr_size(vocab))
        return err_set(e, ERR_MODEL,
                       "default_vocab_size %llu, default_num_special_tokens %llu and %zu vocab entries do not "
                       "fit together",
                       (unsigned long long)n_all, (unsigned long long)n_special, yyjson_arr_size(vocab));
    t->hf.byte_level = t->hf.whole_words = true;
    t->hf.decode = DECODE_BYTES;
    if (read_special(t, yyjson_obj_get(root, "special_tokens"), (uint32_t)n_special, e) != 0 ||
        read_vocab(t, vocab, (uint32_t)(n_all - n_special), (uint32_t)n_special, e) != 0 ||
        vocab_index(&t->vocab, 1u << PIECE_NORMAL, e) != 0 || hf_finish_added(t, e) != 0 ||
        hf_add_split(t, pattern, n_pattern, REGEX_FANCY, SPLIT_ISOLATED, false, e) != 0)
        return -1;
    t->bpe.vocab = &t->vocab;
    t->bos = tokenizer_special(t, "<s>", 3);
    t->eos = tokenizer_special(t, "</s>", 4);
    t->unk = tokenizer_special(t, "<unk>", 5);
    return t->bos >= 0 ? tok_add_front(t, (uint32_t)t->bos, e) : 0;
}

int tokenizer_parse_tekken(struct tokenizer **out, const char *p, size_t n, const char *name, struct err *e) {
    yyjson_read_err why;
    int rc = -1;
    *out = NULL;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)p, n, 0, NULL, &why);
    if (!doc)
        return err_set(e, ERR_MODEL, "%s is not valid JSON (%s at byte %zu)", name, why.msg, why.pos);
    struct tokenizer *t = tok_new(KIND_TEKKEN, e);
    if (t && read_root(t, yyjson_doc_get_root(doc), e) == 0) {
        *out = t;
        t = NULL;
        rc = 0;
    }
    if (rc != 0)
        err_wrap(e, "%s", name);
    tokenizer_free(t);
    yyjson_doc_free(doc);
    return rc;
}
