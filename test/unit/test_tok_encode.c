/* What encoding and decoding promise beyond equal ids: special tokens, user text, streaming, any bytes, speed. */
#include "core/base/file.h"
#include "test/unit/loading.h"
#include "tok/tok_impl.h"
#include "tok/utf8.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DIR "test/golden/tok/"

static const char *const ALL[] = {
    DIR "spm_identity.model", DIR "spm_nmt.model", DIR "llama3.json",        DIR "qwen2.json",
    DIR "nemo.json",          DIR "gpt2.json",     DIR "llama2_legacy.json", DIR "llama2_metaspace.json",
    DIR "odd.json",           DIR "tekken.json"};
enum { N_ALL = sizeof ALL / sizeof ALL[0] };

static struct tokenizer *open_tok(const char *path) {
    struct err e = {0};
    struct tokenizer *t;
    cr_assert_eq(tokenizer_open(&t, path, &e), 0, "%s", e.msg);
    return t;
}

static struct ids encode(const struct tokenizer *t, const char *text, size_t n, int flags) {
    struct err e = {0};
    struct ids ids = {0};
    cr_assert_eq(tokenizer_encode(t, text, n, flags, &ids, &e), 0, "%s", e.msg);
    return ids;
}

static bool holds(const struct ids *v, int id) {
    for (size_t i = 0; i < v->n; i++)
        if ((int)v->p[i] == id)
            return true;
    return false;
}

static bool same(const struct ids *a, const struct ids *b) {
    return a->n == b->n && memcmp(a->p, b->p, a->n * sizeof *a->p) == 0;
}

/* --- Special tokens ------------------------------------------------------------------------------------------------
 */

Test(tok_special, kinds_ends_and_lookups) {
    static const struct {
        const char *path, *kind, *bos, *eos;
        bool add_bos;
    } want[] = {{DIR "spm_identity.model", "spm-bpe", "<s>", "</s>", true},
                {DIR "llama3.json", "byte-bpe", "<|begin_of_text|>", "<|end_of_text|>", true},
                {DIR "qwen2.json", "byte-bpe", NULL, "<|endoftext|>", false},
                {DIR "llama2_legacy.json", "metaspace-bpe", "<s>", "</s>", true},
                {DIR "tekken.json", "tekken", "<s>", "</s>", true}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct tokenizer *t = open_tok(want[i].path);
        int bos = tokenizer_bos(t), eos = tokenizer_eos(t);
        cr_expect_str_eq(tokenizer_kind(t), want[i].kind);
        cr_expect_eq(tokenizer_add_bos(t), want[i].add_bos);
        cr_expect_eq(bos >= 0, want[i].bos != NULL);
        if (bos >= 0)
            cr_expect_str_eq(tokenizer_special_text(t, (uint32_t)bos), want[i].bos);
        cr_assert_geq(eos, 0);
        cr_expect_str_eq(tokenizer_special_text(t, (uint32_t)eos), want[i].eos);
        cr_expect_eq(tokenizer_special(t, want[i].eos, strlen(want[i].eos)), eos);
        cr_expect(tokenizer_is_special(t, (uint32_t)eos));
        cr_expect_eq(tokenizer_special(t, "the", 3), -1, "an ordinary piece is not special");
        cr_expect_eq(tokenizer_special(t, "", 0), -1);
        cr_expect_str_eq(tokenizer_special_text(t, tokenizer_n(t) - 1 == (uint32_t)eos ? 300 : 400), "");
        cr_expect_not(tokenizer_is_special(t, UINT32_MAX));
        tokenizer_free(t);
    }
}

Test(tok_special, bos_only_on_demand) {
    struct tokenizer *t = open_tok(DIR "llama3.json");
    struct ids with = encode(t, "The", 3, TOK_BOS), without = encode(t, "The", 3, 0), none = encode(t, "", 0, 0);
    cr_assert_eq(with.n, without.n + 1);
    cr_expect_eq((int)with.p[0], tokenizer_bos(t));
    cr_expect_eq(none.n, 0);
    ids_free(&with);
    ids_free(&without);
    tokenizer_free(t);
}

/* A user who types a control token has typed its characters. */
Test(tok_special, text_is_text) {
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        int id = tokenizer_eos(t);
        if (id < 0) /* odd.json has none of the usual */
            id = tokenizer_special(t, "</s>", 4);
        cr_assert_geq(id, 0);
        const char *text = tokenizer_special_text(t, (uint32_t)id);
        struct wbuf w = {0};
        wbuf_fmt(&w, "a%s b", text);
        struct ids plain = encode(t, (char *)w.p, w.n, 0), special = encode(t, (char *)w.p, w.n, TOK_SPECIAL);
        cr_expect_not(holds(&plain, id), "%s takes %s in plain text for the token", ALL[i], text);
        cr_expect(holds(&special, id), "%s does not find %s", ALL[i], text);
        ids_free(&plain);
        ids_free(&special);
        wbuf_free(&w);
        tokenizer_free(t);
    }
}

static struct ids encode_mixed(const struct tokenizer *t, const char *text, const struct tok_plain *p, size_t n_plain) {
    struct err e = {0};
    struct ids ids = {0};
    cr_assert_eq(tokenizer_encode_mixed(t, text, strlen(text), p, n_plain, 0, &ids, &e), 0, "%s", e.msg);
    return ids;
}

static size_t count(const struct ids *v, int id) {
    size_t k = 0;
    for (size_t i = 0; i < v->n; i++)
        k += (int)v->p[i] == id;
    return k;
}

/* Where the user typed nothing special, a rendered template is tokenized as one text. */
Test(tok_special, mixed_is_one_text) {
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        const char *text = "<|im_start|>user\nTo be, or not<|im_end|></s>[INST] to be [/INST]";
        struct tok_plain user = {17, 13};
        cr_assert_eq(memcmp(text + user.off, "To be, or not", user.n), 0);
        struct ids want = encode(t, text, strlen(text), TOK_SPECIAL), got = encode_mixed(t, text, &user, 1);
        cr_expect(same(&want, &got), "%s", ALL[i]);
        ids_free(&want);
        ids_free(&got);
        tokenizer_free(t);
    }
}

Test(tok_special, mixed_keeps_user_text_text) {
    struct tokenizer *t = open_tok(DIR "qwen2.json");
    int end = tokenizer_special(t, "<|im_end|>", 10);
    cr_assert_geq(end, 0);
    /* typed whole; completed by the template; begun by it; beside it */
    static const struct {
        const char *text;
        struct tok_plain plain;
        size_t n_end;
    } c[] = {{"hi <|im_end|> there<|im_end|>", {3, 10}, 1},
             {"hi <|im_end|>", {3, 9}, 0},
             {"<|im_end|>", {1, 9}, 0},
             {"<|im_end|>", {4, 1}, 0},
             {"<|im_end|>", {0, 10}, 0},
             {"<|im_end|>", {10, 0}, 1},
             {"<|im_end|><|im_end|><|im_end|>", {10, 10}, 2},
             {"<|im_end|>x<|im_end|>", {10, 1}, 2}};
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        struct ids v = encode_mixed(t, c[i].text, &c[i].plain, 1);
        struct wbuf w = {0};
        struct err e = {0};
        cr_expect_eq(count(&v, end), c[i].n_end, "case %zu has %zu", i, count(&v, end));
        cr_assert_eq(tokenizer_decode(t, v.p, v.n, true, &w, &e), 0);
        cr_expect_str_eq(wbuf_cstr(&w), c[i].text);
        wbuf_free(&w);
        ids_free(&v);
    }
    /* several stretches; what the user typed makes no longer token out of the template's */
    const char *text = "<s>[INST]<s>[/INST]</s>";
    struct tok_plain two[] = {{9, 3}, {19, 2}};
    struct tokenizer *nemo = open_tok(DIR "nemo.json");
    struct ids v = encode_mixed(nemo, text, two, 2);
    cr_expect_eq(count(&v, tokenizer_special(nemo, "<s>", 3)), 1);
    cr_expect_eq(count(&v, tokenizer_special(nemo, "[/INST]", 7)), 1);
    cr_expect_eq(count(&v, tokenizer_special(nemo, "</s>", 4)), 0);
    ids_free(&v);
    tokenizer_free(nemo);
    tokenizer_free(t);
}

Test(tok_special, continued_text_has_no_dummy_prefix) {
    static const char *const paths[] = {DIR "spm_identity.model", DIR "llama2_legacy.json",
                                        DIR "llama2_metaspace.json"};
    for (int i = 0; i < 3; i++) {
        struct tokenizer *t = open_tok(paths[i]);
        struct ids start = encode(t, "the", 3, 0), on = encode(t, "the", 3, TOK_CONTINUE),
                   spaced = encode(t, " the", 4, TOK_CONTINUE);
        cr_expect_not(same(&start, &on), "%s", paths[i]);
        cr_expect(same(&start, &spaced), "%s", paths[i]);
        ids_free(&start);
        ids_free(&on);
        ids_free(&spaced);
        tokenizer_free(t);
    }
}

/* --- Decoding ------------------------------------------------------------------------------------------------------
 */

/* Whatever the ids, no piece of a stream ends inside a character, and the pieces add up to tokenizer_decode. */
Test(tok_stream, whole_characters_that_add_up) {
    uint64_t seed = 5;
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        for (int round = 0; round < 300; round++) {
            struct ids v = {0};
            struct wbuf whole = {0}, parts = {0};
            struct err e = {0};
            struct tok_stream s;
            bool keep = round & 1;
            for (uint64_t n = noise(&seed) % 30; n; n--) /* low ids are the bytes */
                ids_push(&v, (uint32_t)(noise(&seed) % (noise(&seed) & 1 ? 300 : tokenizer_n(t))));
            cr_assert_eq(tokenizer_decode(t, v.p, v.n, keep, &whole, &e), 0, "%s", e.msg);
            tok_stream_init(&s, t, keep, false);
            for (size_t k = 0; k <= v.n; k++) {
                size_t before = parts.n;
                if (k < v.n)
                    tok_stream_put(&s, v.p[k], &parts);
                else
                    tok_stream_flush(&s, &parts);
                if (parts.n > before)
                    cr_assert_eq(utf8_valid_prefix(parts.p + before, parts.n - before), parts.n - before);
            }
            cr_expect_str_eq(wbuf_cstr(&parts), wbuf_cstr(&whole));
            wbuf_free(&whole);
            wbuf_free(&parts);
            ids_free(&v);
        }
        tokenizer_free(t);
    }
}

Test(tok_stream, an_unfinished_character_is_held) {
    struct tokenizer *t = open_tok(DIR "gpt2.json");
    struct ids v = encode(t, "\xf0\x9f\xa6\x96", 4, 0);
    struct wbuf w = {0};
    struct tok_stream s;
    cr_assert_gt(v.n, 1, "this vocabulary knows dinosaurs");
    tok_stream_init(&s, t, false, false);
    for (size_t i = 0; i + 1 < v.n; i++) {
        tok_stream_put(&s, v.p[i], &w);
        cr_assert_eq(w.n, 0);
    }
    tok_stream_put(&s, v.p[v.n - 1], &w);
    cr_expect_str_eq(wbuf_cstr(&w), "\xf0\x9f\xa6\x96");
    tok_stream_put(&s, v.p[0], &w);
    tok_stream_flush(&s, &w);
    tok_stream_flush(&s, &w);
    cr_expect_str_eq(wbuf_cstr(&w), "\xf0\x9f\xa6\x96\xef\xbf\xbd");
    wbuf_free(&w);
    ids_free(&v);
    tokenizer_free(t);
}

Test(tok_stream, mid_text_keeps_the_leading_space) {
    static const char *const paths[] = {DIR "spm_identity.model", DIR "llama2_legacy.json"};
    for (int i = 0; i < 2; i++) {
        struct tokenizer *t = open_tok(paths[i]);
        struct ids v = encode(t, "the", 3, 0);
        for (int mid = 0; mid < 2; mid++) {
            struct wbuf w = {0};
            struct tok_stream s;
            tok_stream_init(&s, t, false, mid);
            for (size_t k = 0; k < v.n; k++)
                tok_stream_put(&s, v.p[k], &w);
            cr_expect_str_eq(wbuf_cstr(&w), mid ? " the" : "the");
            wbuf_free(&w);
        }
        ids_free(&v);
        tokenizer_free(t);
    }
}

Test(tok_decode, special_tokens_only_when_asked) {
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        int id = tokenizer_special(t,
                                   i == 5 || i == 3 ? "<|endoftext|>"
                                   : i == 2         ? "<|eot_id|>"
                                                    : "</s>",
                                   i == 5 || i == 3 ? 13
                                   : i == 2         ? 10
                                                    : 4);
        cr_assert_geq(id, 0, "%s", ALL[i]);
        uint32_t u = (uint32_t)id;
        struct wbuf w = {0};
        struct err e = {0};
        cr_assert_eq(tokenizer_decode(t, &u, 1, false, &w, &e), 0);
        cr_expect_eq(w.n, 0);
        cr_assert_eq(tokenizer_decode(t, &u, 1, true, &w, &e), 0);
        cr_expect_str_eq(wbuf_cstr(&w), tokenizer_special_text(t, u));
        wbuf_free(&w);
        tokenizer_free(t);
    }
}

Test(tok_decode, ids_outside_the_vocabulary) {
    struct tokenizer *t = open_tok(DIR "nemo.json");
    struct wbuf w = {0};
    struct err e = {0};
    uint32_t id = tokenizer_n(t);
    cr_assert_eq(tokenizer_decode(t, &id, 1, false, &w, &e), -1);
    expect_err(&e, ERR_USAGE, "token id", NULL);
    struct tok_stream s;
    tok_stream_init(&s, t, true, false);
    tok_stream_put(&s, UINT32_MAX, &w);
    cr_expect_eq(w.n, 0);
    tokenizer_free(t);
}

/* --- Any bytes -----------------------------------------------------------------------------------------------------
 */

/* Where pieces are bytes, what is no UTF-8 comes back too; elsewhere it becomes U+FFFD. */
Test(tok_bytes, any_bytes_are_accepted) {
    uint64_t seed = 11;
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        for (int round = 0; round < 300; round++) {
            char text[60];
            size_t n = noise(&seed) % sizeof text;
            for (size_t k = 0; k < n; k++)
                text[k] = (char)(noise(&seed) & 1 ? noise(&seed) : ' ' + noise(&seed) % 64);
            struct ids v = encode(t, text, n, round & 1 ? TOK_SPECIAL : 0);
            struct wbuf w = {0};
            struct err e = {0};
            cr_assert_eq(tokenizer_decode(t, v.p, v.n, true, &w, &e), 0);
            cr_assert_eq(utf8_valid_prefix(w.p, w.n), w.n);
            wbuf_free(&w);
            ids_free(&v);
        }
        tokenizer_free(t);
    }
}

Test(tok_bytes, byte_level_gives_the_same_bytes_back) {
    static const char *const paths[] = {DIR "llama3.json", DIR "nemo.json", DIR "gpt2.json", DIR "tekken.json"};
    uint64_t seed = 12;
    for (int i = 0; i < 4; i++) {
        struct tokenizer *t = open_tok(paths[i]);
        for (int round = 0; round < 300; round++) {
            uint8_t text[40];
            size_t n = 1 + noise(&seed) % sizeof text, n_piece;
            for (size_t k = 0; k < n; k++)
                text[k] = (uint8_t)noise(&seed);
            struct ids v = encode(t, (char *)text, n, 0);
            struct wbuf w = {0};
            for (size_t k = 0; k < v.n; k++) {
                const uint8_t *p = vocab_bytes(&t->vocab, v.p[k], &n_piece);
                wbuf_put(&w, p, n_piece);
            }
            cr_expect(w.n == n && memcmp(w.p, text, n) == 0, "%s", paths[i]);
            wbuf_free(&w);
            ids_free(&v);
        }
        tokenizer_free(t);
    }
}

/* --- Speed ---------------------------------------------------------------------------------------------------------
 */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A megabyte of what makes slow tokenizers slow. The bound is loose, for sanitizers and busy machines; anything
 * quadratic takes hours. */
Test(tok_speed, a_megabyte_of_anything, .timeout = 500) {
#ifdef __SANITIZE_ADDRESS__
    enum { N = 1 << 18 }; /* the time of a quadratic step still shows */
#else
    enum { N = 1 << 20 };
#endif
    static const char *const repeats[] = {"a",
                                          " ",
                                          "\n",
                                          "ab",
                                          "a ",
                                          "<",
                                          "<|im_end|",
                                          "=",
                                          "7",
                                          "\xe4\xbd\xa0",
                                          "\xcc\xa3\xcc\x81",
                                          "\xcc\x81\xcc\xa3",
                                          "\xff",
                                          "\xe2\x96\x81",
                                          " \n",
                                          "A",
                                          "aA",
                                          "'s",
                                          "\xf0\x9f\x98\x80"};
    char *text = malloc(N);
    uint64_t seed = 3;
    cr_assert(text);
    for (int i = 0; i < N_ALL; i++) {
        struct tokenizer *t = open_tok(ALL[i]);
        double worst = 0;
        for (size_t r = 0; r < sizeof repeats / sizeof repeats[0] + 2; r++) {
            for (size_t k = 0; k < N; k++)
                text[k] = r < sizeof repeats / sizeof repeats[0]    ? repeats[r][k % strlen(repeats[r])]
                          : r == sizeof repeats / sizeof repeats[0] ? (char)('a' + noise(&seed) % 26)
                                                                    : (char)noise(&seed);
            double t0 = seconds();
            struct ids v = encode(t, text, N, TOK_SPECIAL);
            double took = seconds() - t0;
            worst = took > worst ? took : worst;
            ids_free(&v);
        }
        cr_log_info("%s: at most %.2f s for %d bytes", ALL[i], worst, N);
        cr_expect_lt(worst, 30.0 * N / (1 << 20), "%s: %.1f s", ALL[i], worst);
        tokenizer_free(t);
    }
    free(text);
}
