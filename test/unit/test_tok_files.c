/* Tokenizer files: what is not supported is refused by name, what is damaged is refused, directories and their
 * tokenizer_config.json. */
#include "core/base/file.h"
#include "core/model/gguf.h"
#include "test/unit/loading.h"
#include "tok/tokenizer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR "test/golden/tok/"

/* --- tokenizer.json ------------------------------------------------------------------------------------------------
 */

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3},\"merges\":[\"a b\"]}"

static struct ids ids_of(const char *json, const char *text) {
    struct err e = {0};
    struct tokenizer *t;
    struct ids v = {0};
    cr_assert_eq(tokenizer_parse_hf(&t, json, strlen(json), "t.json", &e), 0, "%s: %s", json, e.msg);
    cr_assert_eq(tokenizer_encode(t, text, strlen(text), 0, &v, &e), 0, "%s", e.msg);
    tokenizer_free(t);
    return v;
}

static void expect_ids(const char *json, const char *text, const char *want) {
    struct ids v = ids_of(json, text);
    struct wbuf w = {0};
    for (size_t i = 0; i < v.n; i++)
        wbuf_fmt(&w, "%s%u", i ? " " : "", v.p[i]);
    cr_expect_str_eq(wbuf_cstr(&w), want, "%s, \"%s\": %s, not %s", json, text, wbuf_cstr(&w), want);
    wbuf_free(&w);
    ids_free(&v);
}

Test(tok_files, the_smallest_tokenizer_json) {
    expect_ids("{" MODEL "}", "abba", "2 1 0");
    expect_ids("{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}}", "xaby", "2");
}

static uint64_t hash_of(const char *vocab, const char *rest) {
    struct err e = {0};
    struct tokenizer *t;
    char json[400];
    snprintf(json, sizeof json, "{\"model\":{\"vocab\":{%s},\"merges\":[]}%s}", vocab, rest);
    cr_assert_eq(tokenizer_parse_hf(&t, json, strlen(json), "t.json", &e), 0, "%s: %s", json, e.msg);
    uint64_t h = tokenizer_hash(t);
    tokenizer_free(t);
    return h;
}

Test(tok_files, hash_tells_vocabularies_apart) {
    static const char lower[] = ",\"normalizer\":{\"type\":\"Lowercase\"}",
                      added[] = ",\"added_tokens\":[{\"id\":2,\"content\":\"abc\",\"special\":false}]",
                      special[] = ",\"added_tokens\":[{\"id\":2,\"content\":\"abc\",\"special\":true}]";
    uint64_t h = hash_of("\"a\":0,\"b\":1,\"abc\":2", "");
    cr_assert_eq(hash_of("\"abc\":2,\"b\":1,\"a\":0", lower), h, "how text is cut does not say what ids mean");
    cr_assert_neq(hash_of("\"a\":1,\"b\":0,\"abc\":2", ""), h);
    cr_assert_neq(hash_of("\"a\":0,\"b\":1", ""), h);
    cr_assert_neq(hash_of("\"ab\":0,\"b\":1,\"bc\":2", ""), hash_of("\"a\":0,\"bb\":1,\"bc\":2", ""));
    cr_assert_neq(hash_of("\"a\":0,\"b\":1", special), hash_of("\"a\":0,\"b\":1", added));
}

static void refused(const char *json, const char *a, const char *b) {
    struct err e = {0};
    struct tokenizer *t = NULL;
    cr_expect_eq(tokenizer_parse_hf(&t, json, strlen(json), "t.json", &e), -1, "%s is accepted", json);
    cr_expect_null(t);
    expect_err(&e, ERR_MODEL, "t.json", a, b, NULL);
}

Test(tok_files, unsupported_components_are_named) {
    static const struct {
        const char *json, *what, *name;
    } c[] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "model", "Unigram"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "model", "WordPiece"},
        {"{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout", "random"},
        {"{\"model\":{\"continuing_subword_prefix\":\"##\",\"vocab\":{\"a\":0},\"merges\":[]}}", "model",
         "continuing_subword_prefix"},
        {"{\"model\":{\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}", "model",
         "end_of_word_suffix"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", "normalizer", "BertNormalizer"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\"}]}}",
         "normalizer", "Precompiled"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "pre_tokenizer", "UnicodeScripts"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\","
         "\"add_prefix_space\":false},{\"type\":\"Digits\"}]}}",
         "Digits", "behind ByteLevel"},
        {"{" MODEL
         ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h\"},\"behavior\":\"Isolated\"}}",
         "regular expression", "\\h"},
        {"{" MODEL
         ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":\"Isolated\"}}",
         "regular expression", "&&"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}}",
         "regular expression", "parenthes"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}}",
         "behavior", "Sideways"},
        {"{" MODEL ",\"decoder\":{\"type\":\"WordPiece\"}}", "decoder", "WordPiece"},
        {"{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\","
         "\"content\":\"x\",\"start\":1,\"stop\":0}]}}",
         "decoder", "Strip"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", "post_processor", "BertProcessing"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        refused(c[i].json, c[i].what, c[i].name);
}

Test(tok_files, damaged_tokenizer_json) {
    static const struct {
        const char *json, *what;
    } c[] = {
        {"", "JSON"},
        {"{", "JSON"},
        {"[]", "model"},
        {"{}", "model"},
        {"{\"model\":{}}", "vocab"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "wrong id"},
        {"{\"model\":{\"vocab\":{\"a\":4000000},\"merges\":[]}}", "wrong id"},
        {"{\"model\":{\"vocab\":{\"a\":99999999999},\"merges\":[]}}", "wrong id"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "two pieces"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merge 0"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}", "merge 0"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}}", "merge 0"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", "merge 0"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}", "unk_token"},
        {"{" MODEL ",\"added_tokens\":[{\"id\":9}]}", "added token 0"},
        {"{" MODEL ",\"added_tokens\":[{\"id\":1,\"content\":\"zz\"}]}", "zz"},
        {"{" MODEL
         ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}}",
         "TemplateProcessing"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
         "{\"Sequence\":{}}],\"special_tokens\":{\"x\":{\"ids\":[77]}}}}",
         "77"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}}", "pattern"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}}",
         "Replace"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Prepend\"}}", "prepend"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        refused(c[i].json, c[i].what, "");
}

Test(tok_files, deep_sequences_are_refused) {
    struct wbuf w = {0};
    wbuf_str(&w, "{" MODEL ",\"normalizer\":");
    for (int i = 0; i < 20; i++)
        wbuf_str(&w, "{\"type\":\"Sequence\",\"normalizers\":[");
    wbuf_str(&w, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 20; i++)
        wbuf_str(&w, "]}");
    wbuf_str(&w, "}");
    refused(wbuf_cstr(&w), "normalizer", "deep");
    wbuf_free(&w);
}

Test(tok_files, normalizers_cannot_blow_text_up) {
    struct wbuf json = {0}, big = {0};
    struct err e = {0};
    struct tokenizer *t;
    struct ids v = {0};
    for (int i = 0; i < 20000; i++)
        wbuf_str(&big, "x");
    wbuf_fmt(&json,
             "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"%s\"}}",
             wbuf_cstr(&big));
    cr_assert_eq(tokenizer_parse_hf(&t, (char *)json.p, json.n, "t.json", &e), 0, "%s", e.msg);
    cr_assert_eq(tokenizer_encode(t, "aaaaaaaaaa", 10, 0, &v, &e), -1);
    expect_err(&e, ERR_MEMORY, "normalised", NULL);
    tokenizer_free(t);
    wbuf_free(&json);
    wbuf_free(&big);
    ids_free(&v);
}

/* A regular expression that backtracks without end is stopped. */
Test(tok_files, hostile_regex_is_bounded, .timeout = 300) {
    static const char json[] = "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},"
                               "\"behavior\":\"Isolated\"}}";
    struct err e = {0};
    struct tokenizer *t;
    struct ids v = {0};
    cr_assert_eq(tokenizer_parse_hf(&t, json, sizeof json - 1, "t.json", &e), 0, "%s", e.msg);
    const char *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    if (tokenizer_encode(t, text, strlen(text), 0, &v, &e) != 0)
        expect_err(&e, ERR_MODEL, "regular expression", NULL);
    tokenizer_free(t);
    ids_free(&v);
}

Test(tok_files, split_behaviors) {
#define SPLIT(behavior, invert)                                                                                        \
    "{\"model\":{\"vocab\":{\"a\":0,\"-\":1,\"a-\":2,\"-a\":3,\"--\":4,\"aa\":5},\"merges\":[\"a -\",\"- a\",\"- "     \
    "-\",\"a a\"]},"                                                                                                   \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"" behavior                    \
    "\",\"invert\":" invert "}}"
    expect_ids(SPLIT("Isolated", "false"), "aa--a", "5 1 1 0");
    expect_ids(SPLIT("Removed", "false"), "aa--a", "5 0");
    expect_ids(SPLIT("Removed", "true"), "aa--a", "1 1");
    expect_ids(SPLIT("Contiguous", "false"), "aa--a", "5 4 0");
    expect_ids(SPLIT("MergedWithPrevious", "false"), "a--a", "2 1 0");
    expect_ids(SPLIT("MergedWithNext", "false"), "a--a", "0 1 3");
#undef SPLIT
}

/* --- Damage --------------------------------------------------------------------------------------------------------
 */

typedef int (*parser)(struct tokenizer **out, const uint8_t *p, size_t n, struct err *e);

static int parse_spm(struct tokenizer **out, const uint8_t *p, size_t n, struct err *e) {
    return tokenizer_parse_spm(out, p, n, "t", e);
}
static int parse_hf(struct tokenizer **out, const uint8_t *p, size_t n, struct err *e) {
    return tokenizer_parse_hf(out, (const char *)p, n, "t", e);
}
static int parse_tekken(struct tokenizer **out, const uint8_t *p, size_t n, struct err *e) {
    return tokenizer_parse_tekken(out, (const char *)p, n, "t", e);
}
static int parse_gguf(struct tokenizer **out, const uint8_t *p, size_t n, struct err *e) {
    struct gguf *g;
    *out = NULL;
    if (gguf_parse(&g, p, n, "t", e) != 0)
        return -1;
    int rc = tokenizer_from_gguf(out, g, e);
    gguf_free(g);
    return rc;
}

/* Parses a copy of exactly n bytes and, where that works, encodes and decodes with the outcome. */
static void try_one(parser parse, const uint8_t *p, size_t n) {
    struct err e = {0};
    struct tokenizer *t = NULL;
    uint8_t *copy = exact_copy(p, n);
    if (parse(&t, copy, n, &e) != 0) {
        cr_assert_null(t);
        cr_assert(e.kind == ERR_MODEL || e.kind == ERR_MEMORY, "%d: %s", e.kind, e.msg);
    } else {
        static const char text[] = "Hello, \xc3\xa9 world</s>\xff\n 123";
        struct ids v = {0};
        struct wbuf w = {0};
        cr_assert_eq(e.kind, ERR_NONE);
        if (tokenizer_encode(t, text, sizeof text - 1, TOK_SPECIAL | TOK_BOS, &v, &e) == 0)
            cr_assert_eq(tokenizer_decode(t, v.p, v.n, true, &w, &e), 0, "%s", e.msg);
        ids_free(&v);
        wbuf_free(&w);
        tokenizer_free(t);
    }
    free(copy);
}

static void damage(parser parse, const char *path, int n_cuts, int n_mutations) {
    size_t n;
    uint8_t *data = (uint8_t *)load_file(path, &n);
    uint64_t seed = 17;
    for (int i = 0; i < n_cuts; i++) {
        size_t cut = i < 40 ? (size_t)i : noise(&seed) % n;
        try_one(parse, data, cut);
    }
    for (int i = 0; i < n_mutations; i++) {
        uint8_t *copy = exact_copy(data, n);
        mutate(copy, n, &seed);
        try_one(parse, copy, n);
        free(copy);
    }
    free(data);
}

Test(tok_files, damaged_spm) {
    damage(parse_spm, DIR "spm_identity.model", 200, 500);
    damage(parse_spm, DIR "spm_nmt.model", 50, 200);
}
Test(tok_files, damaged_hf) {
    damage(parse_hf, DIR "odd.json", 60, 300);
    damage(parse_hf, DIR "llama2_legacy.json", 60, 100);
}
Test(tok_files, damaged_tekken) {
    damage(parse_tekken, DIR "tekken.json", 60, 100);
}
Test(tok_files, damaged_gguf) {
    damage(parse_gguf, DIR "llama.gguf", 100, 300);
    damage(parse_gguf, DIR "qwen2.gguf", 100, 300);
}

/* --- SentencePiece and GGUF ----------------------------------------------------------------------------------------
 */

/* A protobuf field that holds bytes. */
static void pb(struct wbuf *w, unsigned number, const void *p, size_t n) {
    wbuf_u8(w, (uint8_t)(number << 3 | 2));
    cr_assert_lt(n, 128);
    wbuf_u8(w, (uint8_t)n);
    wbuf_put(w, p, n);
}

static void refused_spm(const struct wbuf *w, const char *what) {
    struct err e = {0};
    struct tokenizer *t;
    cr_expect_eq(tokenizer_parse_spm(&t, w->p, w->n, "t.model", &e), -1);
    expect_err(&e, ERR_MODEL, "t.model", what, NULL);
}

Test(tok_files, refused_spm_models) {
    static const uint8_t piece_a[] = {0x0a, 1, 'a', 0x15, 0, 0, 0, 0},
                         unk[] = {0x0a, 5, '<', 'u', 'n', 'k', '>', 0x18, 2},
                         nan_score[] = {0x0a, 1, 'b', 0x15, 0, 0, 0xc0, 0x7f}, bad_type[] = {0x0a, 1, 'b', 0x18, 9},
                         no_text[] = {0x18, 1}, byte_piece[] = {0x0a, 2, 'x', 'y', 0x18, 6}, bpe[] = {0x18, 2},
                         unigram[] = {0x18, 1}, bpe_bytes[] = {0x18, 2, 0x98, 2, 1},
                         map[] = {0x12, 4, 0xff, 0xff, 0xff, 0x7f};
    struct wbuf w = {0};
    refused_spm(&w, "not a SentencePiece model");
    pb(&w, 1, unk, sizeof unk);
    pb(&w, 1, piece_a, sizeof piece_a);
    refused_spm(&w, "unigram"); /* what a file means that does not say */
    size_t n = w.n;
#define CASE(number, bytes, what)                                                                                      \
    w.n = n;                                                                                                           \
    pb(&w, number, bytes, sizeof bytes);                                                                               \
    refused_spm(&w, what)
    CASE(2, unigram, "unigram");
    CASE(1, nan_score, "piece 2");
    CASE(1, bad_type, "piece 2");
    CASE(1, no_text, "piece 2");
    CASE(1, byte_piece, "byte piece 2");
    CASE(1, unk, "unknown piece");
    pb(&w, 2, bpe, sizeof bpe);
    n = w.n = n + 4;
    memcpy(w.p + n - 4, (uint8_t[]){0x12, 2, 0x18, 2}, 4);
    struct err e = {0};
    struct tokenizer *t;
    cr_assert_eq(tokenizer_parse_spm(&t, w.p, w.n, "t.model", &e), 0, "%s", e.msg);
    cr_expect_eq(tokenizer_bos(t), -1);
    tokenizer_free(t);
    CASE(3, map, "charsmap");
    CASE(5, map, "denormaliser");
    CASE(2, bpe_bytes, "<0x00>");
#undef CASE
    wbuf_free(&w);
}

static void refused_gguf(const struct wbuf *w, const char *what) {
    struct err e = {0};
    struct gguf *g;
    struct tokenizer *t;
    cr_assert_eq(gguf_parse(&g, w->p, w->n, "t.gguf", &e), 0, "%s", e.msg);
    cr_expect_eq(tokenizer_from_gguf(&t, g, &e), -1);
    expect_err(&e, ERR_MODEL, "t.gguf", what, NULL);
    gguf_free(g);
}

Test(tok_files, refused_gguf_tokenizers) {
    struct wbuf w = {0};
    gg_start(&w, 3, 0, 1);
    gg_key_str(&w, "general.architecture", "llama");
    refused_gguf(&w, "tokenizer.ggml.model");
    wbuf_clear(&w);
    gg_start(&w, 3, 0, 1);
    gg_key_str(&w, "tokenizer.ggml.model", "rwkv");
    refused_gguf(&w, "rwkv");
    wbuf_clear(&w);
    gg_start(&w, 3, 0, 2);
    gg_key_str(&w, "tokenizer.ggml.model", "gpt2");
    gg_key_str(&w, "tokenizer.ggml.pre", "new-thing");
    refused_gguf(&w, "new-thing");
    wbuf_clear(&w);
    gg_start(&w, 3, 0, 1);
    gg_key_str(&w, "tokenizer.ggml.model", "gpt2");
    refused_gguf(&w, "default");
    wbuf_clear(&w);
    gg_start(&w, 3, 0, 1);
    gg_key_str(&w, "tokenizer.ggml.model", "llama");
    refused_gguf(&w, "tokenizer.ggml.tokens");
    wbuf_free(&w);
}

/* --- Directories ---------------------------------------------------------------------------------------------------
 */

static void copy_in(const char *dir, const char *from, const char *name) {
    size_t n;
    char *data = load_file(from, &n);
    store_file(dir, name, data, n);
    free(data);
}

static struct tokenizer *open_dir(const char *dir) {
    struct err e = {0};
    struct tokenizer *t;
    cr_assert_eq(tokenizer_open(&t, dir, &e), 0, "%s", e.msg);
    return t;
}

static void expect_kind(const char *dir, const char *kind) {
    struct tokenizer *t = open_dir(dir);
    cr_expect_str_eq(tokenizer_kind(t), kind);
    tokenizer_free(t);
}

Test(tok_files, which_file_of_a_directory) {
    char dir[64], path[200];
    struct err e = {0};
    struct tokenizer *t;
    scratch_make(dir);
    cr_assert_eq(tokenizer_open(&t, dir, &e), -1);
    expect_err(&e, ERR_MODEL, dir, "tokenizer.json", NULL);
    copy_in(dir, DIR "spm_identity.model", "tokenizer.model.v3");
    expect_kind(dir, "spm-bpe");
    copy_in(dir, DIR "spm_nmt.model", "tokenizer.model");
    t = open_dir(dir);
    cr_expect_eq(tokenizer_n(t), 800, "tokenizer.model goes before tokenizer.model.v3");
    tokenizer_free(t);
    copy_in(dir, DIR "tekken.json", "tekken.json");
    expect_kind(dir, "tekken");
    copy_in(dir, DIR "gpt2.json", "tokenizer.json");
    expect_kind(dir, "byte-bpe");
    cr_assert_eq(file_join(path, sizeof path, dir, "absent.model", &e), 0);
    e = (struct err){0};
    cr_assert_eq(tokenizer_open(&t, path, &e), -1);
    expect_err(&e, ERR_IO, "absent.model", NULL);
    scratch_remove(dir);
}

/* {bos, eos, whether text starts with bos} under a tokenizer_config.json. */
static void expect_ends(const char *dir, const char *config, int bos, int eos, bool add) {
    store_text(dir, "tokenizer_config.json", config);
    struct tokenizer *t = open_dir(dir);
    struct ids v = {0};
    struct err e = {0};
    cr_expect_eq(tokenizer_bos(t), bos, "%s: bos %d", config, tokenizer_bos(t));
    cr_expect_eq(tokenizer_eos(t), eos, "%s: eos %d", config, tokenizer_eos(t));
    cr_expect_eq(tokenizer_add_bos(t), add, "%s", config);
    cr_assert_eq(tokenizer_encode(t, "", 0, TOK_BOS, &v, &e), 0);
    cr_expect_eq(v.n, add, "%s", config);
    if (add)
        cr_expect_eq((int)v.p[0], bos);
    ids_free(&v);
    tokenizer_free(t);
}

Test(tok_files, tokenizer_config) {
    char dir[64];
    struct err e = {0};
    struct tokenizer *t;
    scratch_make(dir);
    copy_in(dir, DIR "spm_identity.model", "tokenizer.model");
    expect_ends(dir, "{}", 1, 2, true);
    expect_ends(dir, "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}", 1, 2, false);
    expect_ends(dir, "{\"add_bos_token\":true,\"eos_token\":{\"content\":\"[INST]\"}}", 1, 3, true);
    copy_in(dir, DIR "qwen2.json", "tokenizer.json");
    expect_ends(dir, "{\"bos_token\":null,\"add_bos_token\":false,\"eos_token\":\"<|im_end|>\"}", -1, 2002, false);
    expect_ends(dir, "{\"bos_token\":\"<|endoftext|>\",\"add_bos_token\":true}", 2000, 2000, true);
    copy_in(dir, DIR "llama3.json", "tokenizer.json");
    expect_ends(dir, "{\"bos_token\":\"<|begin_of_text|>\",\"eos_token\":\"<|eot_id|>\"}", 2500, 2504, true);
    expect_ends(dir, "{\"bos_token\":\"<|begin_of_text|>\",\"add_bos_token\":false}", 2500, 2501, false);
    store_text(dir, "tokenizer_config.json", "{\"eos_token\":\"<absent>\"}");
    cr_assert_eq(tokenizer_open(&t, dir, &e), -1);
    expect_err(&e, ERR_MODEL, "tokenizer_config.json", "<absent>", NULL);
    e = (struct err){0};
    store_text(dir, "tokenizer_config.json", "{");
    cr_assert_eq(tokenizer_open(&t, dir, &e), -1);
    expect_err(&e, ERR_MODEL, "tokenizer_config.json", "JSON", NULL);
    scratch_remove(dir);
}

/* "legacy": whether text behind a special token starts with the dummy prefix again. */
Test(tok_files, legacy_prefix) {
    char dir[64];
    struct err e = {0};
    scratch_make(dir);
    copy_in(dir, DIR "spm_identity.model", "tokenizer.model");
    size_t n[2];
    for (int legacy = 0; legacy < 2; legacy++) {
        struct ids v = {0};
        store_text(dir, "tokenizer_config.json", legacy ? "{\"legacy\":true}" : "{\"legacy\":false}");
        struct tokenizer *t = open_dir(dir);
        cr_assert_eq(tokenizer_encode(t, "[INST] the[/INST]\n", 18, TOK_SPECIAL, &v, &e), 0);
        n[legacy] = v.n;
        ids_free(&v);
        tokenizer_free(t);
    }
    cr_expect_eq(n[0], 4, "[INST] _the [/INST] \\n: %zu", n[0]);
    cr_expect_gt(n[1], n[0]);
    scratch_remove(dir);
}
