#include "tok/hf_json.h"

#include "tok/utf8.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 8 /* of sequences in sequences */

static const char GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const char *json_str(yyjson_val *obj, const char *key, size_t *n) {
    yyjson_val *v = yyjson_obj_get(obj, key);
    *n = yyjson_get_len(v);
    return yyjson_get_str(v);
}

bool json_bool(yyjson_val *obj, const char *key, bool otherwise) {
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : otherwise;
}

static bool is(const char *s, const char *what) {
    return s && strcmp(s, what) == 0;
}

static int unsupported(const char *part, const char *type, const char *detail, struct err *e) {
    return err_set(e, ERR_MODEL, "the %s %.60s%s is not supported", part, type ? type : "without a type", detail);
}

/* Copies a string member; absent is an error. */
static int copy_str(yyjson_val *obj, const char *key, char **out, size_t *n, const char *part, struct err *e) {
    const char *s = json_str(obj, key, n);
    if (!s)
        return err_set(e, ERR_MODEL, "a %s lacks its \"%s\"", part, key);
    *out = malloc(*n + 1);
    if (!*out)
        return err_set(e, ERR_MEMORY, "out of memory for a %s", part);
    memcpy(*out, s, *n + 1);
    return 0;
}

/* {"String": "x"} or {"Regex": "x"}: the text, and which it is. */
static const char *read_pattern(yyjson_val *obj, size_t *n, bool *is_regex) {
    yyjson_val *v = yyjson_obj_get(obj, "pattern");
    const char *s = json_str(v, "Regex", n);
    *is_regex = s != NULL;
    return s ? s : json_str(v, "String", n);
}

static struct norm_step *new_step(struct norm *m, enum norm_kind kind, struct err *e) {
    if (m->n == NORM_MAX_STEPS) {
        err_set(e, ERR_MODEL, "there are more than %d normalizers", NORM_MAX_STEPS);
        return NULL;
    }
    m->step[m->n] = (struct norm_step){.kind = kind};
    return &m->step[m->n++];
}

static int read_replace(struct norm *m, yyjson_val *v, struct err *e) {
    size_t n;
    bool is_regex;
    struct norm_step *s = new_step(m, NORM_REPLACE, e);
    const char *pattern = read_pattern(v, &n, &is_regex);
    if (!s)
        return -1;
    if (!pattern || n == 0)
        return err_set(e, ERR_MODEL, "a Replace lacks its pattern");
    if (is_regex) {
        if (regex_compile(&s->regex, pattern, n, REGEX_ONIG, e) != 0)
            return -1;
    } else {
        s->from = malloc(n);
        if (!s->from)
            return err_set(e, ERR_MEMORY, "out of memory for a Replace");
        memcpy(s->from, pattern, n);
        s->n_from = n;
    }
    return copy_str(v, "content", &s->to, &s->n_to, "Replace", e);
}

static int read_normalizer(struct norm *m, yyjson_val *v, int depth, struct err *e) {
    static const struct {
        const char *type;
        enum norm_kind kind;
    } plain[] = {
        {"NFC", NORM_NFC}, {"NFD", NORM_NFD}, {"NFKC", NORM_NFKC}, {"NFKD", NORM_NFKD}, {"Lowercase", NORM_LOWERCASE}};
    size_t n;
    const char *type = json_str(v, "type", &n);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (is(type, plain[i].type))
            return new_step(m, plain[i].kind, e) ? 0 : -1;
    if (is(type, "Sequence")) {
        yyjson_val *list = yyjson_obj_get(v, "normalizers"), *item;
        size_t i, max;
        if (!yyjson_is_arr(list) || depth == MAX_DEPTH)
            return unsupported("normalizer", type, " without a list, or too deep,", e);
        yyjson_arr_foreach(list, i, max, item) {
            if (read_normalizer(m, item, depth + 1, e) != 0)
                return -1;
        }
        return 0;
    }
    if (is(type, "Prepend")) {
        struct norm_step *s = new_step(m, NORM_PREPEND, e);
        return s ? copy_str(v, "prepend", &s->to, &s->n_to, "Prepend", e) : -1;
    }
    if (is(type, "Strip")) {
        struct norm_step *s = new_step(m, NORM_STRIP, e);
        if (s) {
            s->left = json_bool(v, "strip_left", true);
            s->right = json_bool(v, "strip_right", true);
        }
        return s ? 0 : -1;
    }
    if (is(type, "Replace"))
        return read_replace(m, v, e);
    return unsupported("normalizer", type, "", e);
}

int hf_read_normalizer(struct tokenizer *t, yyjson_val *v, struct err *e) {
    return !v || yyjson_is_null(v) ? 0 : read_normalizer(&t->hf.norm, v, 0, e);
}

int hf_add_split(struct tokenizer *t, const char *pattern, size_t n, enum regex_dialect dialect,
                 enum pretok_behavior behavior, bool invert, struct err *e) {
    struct pretok *m = &t->hf.pretok;
    if (m->n == PRETOK_MAX_STEPS)
        return err_set(e, ERR_MODEL, "there are more than %d pre-tokenizers", PRETOK_MAX_STEPS);
    struct pretok_step *s = &m->step[m->n++];
    *s = (struct pretok_step){.behavior = behavior, .invert = invert};
    return regex_compile(&s->regex, pattern, n, dialect, e);
}

/* A step that splits at this very text. */
static int add_literal(struct tokenizer *t, const char *text, size_t n, enum pretok_behavior behavior, bool invert,
                       struct err *e) {
    struct wbuf w = {0};
    for (size_t i = 0; i < n; i++) {
        if (memchr("\\^$.|?*+()[]{}&", text[i], 15))
            wbuf_u8(&w, '\\');
        wbuf_u8(&w, (uint8_t)text[i]);
    }
    int rc = w.bad ? err_set(e, ERR_MEMORY, "out of memory for a pre-tokenizer")
                   : hf_add_split(t, wbuf_cstr(&w), w.n, REGEX_ONIG, behavior, invert, e);
    wbuf_free(&w);
    return rc;
}

static int read_split(struct tokenizer *t, yyjson_val *v, struct err *e) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    size_t n, n_name;
    bool is_regex, invert = json_bool(v, "invert", false);
    const char *pattern = read_pattern(v, &n, &is_regex), *name = json_str(v, "behavior", &n_name);
    if (!pattern || n == 0)
        return err_set(e, ERR_MODEL, "the pre_tokenizer Split lacks its pattern");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is(name, names[i]))
            return is_regex ? hf_add_split(t, pattern, n, REGEX_ONIG, (enum pretok_behavior)i, invert, e)
                            : add_literal(t, pattern, n, (enum pretok_behavior)i, invert, e);
    return unsupported("behavior of the pre_tokenizer Split,", name, ",", e);
}

static int read_byte_level(struct tokenizer *t, yyjson_val *v, struct err *e) {
    t->hf.byte_level = true;
    if (json_bool(v, "add_prefix_space", true)) {
        if (t->hf.pretok.n)
            return unsupported("pre_tokenizer", "ByteLevel", " with add_prefix_space behind another pre_tokenizer", e);
        t->hf.prefix = PREFIX_ALWAYS;
    }
    if (json_bool(v, "use_regex", true))
        return hf_add_split(t, GPT2, sizeof GPT2 - 1, REGEX_ONIG, SPLIT_ISOLATED, false, e);
    return 0;
}

static int read_prepend_scheme(yyjson_val *v, int *scheme, struct err *e) {
    size_t n;
    const char *s = json_str(v, "prepend_scheme", &n);
    if (!s)
        *scheme = json_bool(v, "add_prefix_space", true) ? PREFIX_ALWAYS : PREFIX_NEVER;
    else if (is(s, "always"))
        *scheme = PREFIX_ALWAYS;
    else if (is(s, "first"))
        *scheme = PREFIX_FIRST;
    else if (is(s, "never"))
        *scheme = PREFIX_NEVER;
    else
        return unsupported("prepend_scheme", s, "", e);
    return 0;
}

static int read_metaspace(struct tokenizer *t, yyjson_val *v, struct err *e) {
    size_t n;
    int scheme;
    if (t->hf.pretok.n)
        return unsupported("pre_tokenizer", "Metaspace", " behind another pre_tokenizer", e);
    if (read_prepend_scheme(v, &scheme, e) != 0)
        return -1;
    t->hf.metaspace = true;
    t->hf.prefix = scheme;
    if (copy_str(v, "replacement", &t->hf.meta, &n, "Metaspace", e) != 0)
        return -1;
    if (n == 0 || utf8_char((const uint8_t *)t->hf.meta, n, NULL) != n || strlen(t->hf.meta) != n)
        return err_set(e, ERR_MODEL, "the replacement of the pre_tokenizer Metaspace is not one character");
    return json_bool(v, "split", true) ? add_literal(t, t->hf.meta, n, SPLIT_WITH_NEXT, false, e) : 0;
}

static int read_pre_tokenizer(struct tokenizer *t, yyjson_val *v, int depth, struct err *e) {
    size_t n;
    const char *type = json_str(v, "type", &n);
    if (t->hf.byte_level)
        return unsupported("pre_tokenizer", type, " behind ByteLevel", e);
    if (is(type, "Sequence")) {
        yyjson_val *list = yyjson_obj_get(v, "pretokenizers"), *item;
        size_t i, max;
        if (!yyjson_is_arr(list) || depth == MAX_DEPTH)
            return unsupported("pre_tokenizer", type, " without a list, or too deep,", e);
        yyjson_arr_foreach(list, i, max, item) {
            if (read_pre_tokenizer(t, item, depth + 1, e) != 0)
                return -1;
        }
        return 0;
    }
    if (is(type, "ByteLevel"))
        return read_byte_level(t, v, e);
    if (is(type, "Split"))
        return read_split(t, v, e);
    if (is(type, "Metaspace"))
        return read_metaspace(t, v, e);
    if (is(type, "Digits"))
        return hf_add_split(t, "\\p{N}", 5, REGEX_ONIG,
                            json_bool(v, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, e);
    if (is(type, "WhitespaceSplit"))
        return hf_add_split(t, "\\s", 2, REGEX_ONIG, SPLIT_REMOVED, false, e);
    return unsupported("pre_tokenizer", type, "", e);
}

int hf_read_pre_tokenizer(struct tokenizer *t, yyjson_val *v, struct err *e) {
    return !v || yyjson_is_null(v) ? 0 : read_pre_tokenizer(t, v, 0, e);
}

/* The special tokens that the template puts before the text. */
static int read_template(struct tokenizer *t, yyjson_val *v, struct err *e) {
    yyjson_val *item, *id;
    size_t i, max, k, k_max, n;
    yyjson_arr_foreach(yyjson_obj_get(v, "single"), i, max, item) {
        const char *name = json_str(yyjson_obj_get(item, "SpecialToken"), "id", &n);
        if (yyjson_obj_get(item, "Sequence"))
            return 0;
        yyjson_val *ids = yyjson_obj_get(yyjson_obj_get(yyjson_obj_get(v, "special_tokens"), name ? name : ""), "ids");
        if (!name || !yyjson_is_arr(ids) || t->n_front > 16)
            return err_set(e, ERR_MODEL, "the post_processor TemplateProcessing is damaged");
        yyjson_arr_foreach(ids, k, k_max, id) {
            if (!yyjson_is_uint(id) || tok_add_front(t, (uint32_t)yyjson_get_uint(id), e) != 0)
                return err_set(e, ERR_MODEL, "the post_processor TemplateProcessing has a wrong token id in it");
        }
    }
    return err_set(e, ERR_MODEL, "the post_processor TemplateProcessing has no place for the text");
}

static int read_post_processor(struct tokenizer *t, yyjson_val *v, int depth, struct err *e) {
    size_t n;
    const char *type = json_str(v, "type", &n);
    if (is(type, "ByteLevel"))
        return 0; /* only offsets, which we have none of */
    if (is(type, "TemplateProcessing"))
        return read_template(t, v, e);
    if (is(type, "Sequence")) {
        yyjson_val *list = yyjson_obj_get(v, "processors"), *item;
        size_t i, max;
        if (!yyjson_is_arr(list) || depth == MAX_DEPTH)
            return unsupported("post_processor", type, " without a list, or too deep,", e);
        yyjson_arr_foreach(list, i, max, item) {
            if (read_post_processor(t, item, depth + 1, e) != 0)
                return -1;
        }
        return 0;
    }
    return unsupported("post_processor", type, "", e);
}

int hf_read_post_processor(struct tokenizer *t, yyjson_val *v, struct err *e) {
    return !v || yyjson_is_null(v) ? 0 : read_post_processor(t, v, 0, e);
}

/* Decoders are functions from a list of strings to a list of strings. What is supported is what can be done token by
 * token: replacements before Fuse, ByteFallback, and one leading space stripped after Fuse. */
struct decoder_state {
    bool fused, any;
};

static int read_decoder(struct tokenizer *t, yyjson_val *v, int depth, struct decoder_state *s, struct err *e) {
    size_t n;
    const char *type = json_str(v, "type", &n);
    struct hf *hf = &t->hf;
    if (is(type, "Sequence")) {
        yyjson_val *list = yyjson_obj_get(v, "decoders"), *item;
        size_t i, max;
        if (!yyjson_is_arr(list) || depth == MAX_DEPTH)
            return unsupported("decoder", type, " without a list, or too deep,", e);
        yyjson_arr_foreach(list, i, max, item) {
            if (read_decoder(t, item, depth + 1, s, e) != 0)
                return -1;
        }
        return 0;
    }
    bool first = !s->any;
    s->any = true;
    if (is(type, "ByteLevel") && first) {
        hf->decode = DECODE_BYTES;
        s->fused = true;
        return 0;
    }
    if (hf->decode == DECODE_BYTES && !first)
        return is(type, "Fuse") ? 0 : unsupported("decoder", type, " behind ByteLevel", e);
    if (is(type, "Metaspace") && first) {
        int scheme;
        if (read_prepend_scheme(v, &scheme, e) != 0)
            return -1;
        const char *meta = json_str(v, "replacement", &n);
        struct norm_step *step = new_step(&hf->decode_replace, NORM_REPLACE, e);
        if (!meta || n == 0 || !step)
            return err_set(e, ERR_MODEL, "the decoder Metaspace lacks its replacement");
        hf->decode = scheme == PREFIX_NEVER ? DECODE_TEXT : DECODE_METASPACE;
        step->from = strndup(meta, n);
        step->to = strdup(" ");
        step->n_from = n;
        step->n_to = 1;
        return step->from && step->to ? 0 : err_set(e, ERR_MEMORY, "out of memory for a decoder");
    }
    if (first)
        hf->decode = DECODE_TEXT;
    if (is(type, "Replace") && !s->fused && hf->decode == DECODE_TEXT && !hf->decode_fallback)
        return read_replace(&hf->decode_replace, v, e);
    if (is(type, "ByteFallback") && !s->fused) {
        hf->decode_fallback = true;
        return 0;
    }
    if (is(type, "Fuse")) {
        s->fused = true;
        return 0;
    }
    if (is(type, "Strip") && s->fused && !hf->strip_first && hf->decode == DECODE_TEXT) {
        yyjson_val *start = yyjson_obj_get(v, "start"), *stop = yyjson_obj_get(v, "stop");
        if (is(json_str(v, "content", &n), " ") && yyjson_get_uint(start) <= 1 && yyjson_get_uint(stop) == 0) {
            hf->strip_first = yyjson_get_uint(start) == 1;
            return 0;
        }
        return unsupported("decoder", type, " of anything but one leading space", e);
    }
    return unsupported("decoder", type, " in this place", e);
}

int hf_read_decoder(struct tokenizer *t, yyjson_val *v, struct err *e) {
    struct decoder_state s = {0};
    t->hf.decode = DECODE_JOINED; /* without a decoder the library puts spaces between tokens */
    return !v || yyjson_is_null(v) ? 0 : read_decoder(t, v, 0, &s, e);
}
