/* The pieces tokenizers are made of, each against a plain second way to the same answer. */
#include "test/unit/loading.h"
#include "tok/bpe.h"
#include "tok/normalize.h"
#include "tok/pretok.h"
#include "tok/strset.h"
#include "tok/utf8.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* --- Merging -------------------------------------------------------------------------------------------------------
 */

enum { LETTERS = 4, MERGES = 60, LENGTH = 80 };

struct rules {
    struct vocab vocab;
    uint32_t left[MERGES], right[MERGES], into[MERGES], n; /* in order of rank */
};

/* Letters, then merges of whatever is there. */
static void make_rules(struct rules *r, uint64_t *seed) {
    struct err e = {0};
    *r = (struct rules){0};
    for (uint32_t i = 0; i < LETTERS; i++)
        cr_assert_eq(vocab_set(&r->vocab, i, &(char){(char)('a' + i)}, 1, PIECE_NORMAL, &e), 0);
    for (int k = 0; k < MERGES; k++) {
        uint32_t l = (uint32_t)(noise(seed) % r->vocab.n), m = (uint32_t)(noise(seed) % r->vocab.n);
        size_t n_l, n_m;
        char text[64];
        memcpy(text, vocab_bytes(&r->vocab, l, &n_l), r->vocab.piece[l].len);
        memcpy(text + n_l, vocab_bytes(&r->vocab, m, &n_m), r->vocab.piece[m].len);
        if (n_l + n_m > 12)
            continue;
        cr_assert_eq(vocab_index(&r->vocab, ~0u, &e), 0);
        uint32_t id = vocab_find(&r->vocab, text, n_l + n_m);
        if (id == NO_ID) {
            id = r->vocab.n;
            cr_assert_eq(vocab_set(&r->vocab, id, text, n_l + n_m, PIECE_NORMAL, &e), 0);
        }
        bool known = false;
        for (uint32_t i = 0; i < r->n; i++)
            known = known || (r->left[i] == l && r->right[i] == m);
        if (known)
            continue;
        r->left[r->n] = l;
        r->right[r->n] = m;
        r->into[r->n++] = id;
    }
    cr_assert_eq(vocab_index(&r->vocab, ~0u, &e), 0);
}

/* Again and again the merge of lowest rank, the leftmost of them. by_text: any two that join to a piece, ranked by id.
 */
static uint32_t merge_plainly(const struct rules *r, uint32_t *s, uint32_t n, bool by_text) {
    for (;;) {
        uint32_t best = UINT32_MAX, at = 0, into = 0;
        for (uint32_t i = 0; i + 1 < n; i++) {
            for (uint32_t k = 0; k < r->n && !by_text; k++)
                if (r->left[k] == s[i] && r->right[k] == s[i + 1] && k < best) {
                    best = k;
                    at = i;
                    into = r->into[k];
                }
            if (by_text) {
                char text[64];
                size_t n_l, n_r;
                memcpy(text, vocab_bytes(&r->vocab, s[i], &n_l), r->vocab.piece[s[i]].len);
                memcpy(text + n_l, vocab_bytes(&r->vocab, s[i + 1], &n_r), r->vocab.piece[s[i + 1]].len);
                uint32_t id = vocab_find(&r->vocab, text, n_l + n_r);
                if (id != NO_ID && id < best) {
                    best = into = id;
                    at = i;
                }
            }
        }
        if (best == UINT32_MAX)
            return n;
        s[at] = into;
        memmove(s + at + 1, s + at + 2, (n - at - 2) * sizeof *s);
        n--;
    }
}

static void merges_agree(bool by_text) {
    uint64_t seed = by_text ? 21 : 22;
    struct bpe_work w = {0};
    struct err e = {0};
    for (int round = 0; round < 200; round++) {
        struct rules r;
        struct bpe b = {.vocab = &r.vocab};
        make_rules(&r, &seed);
        if (by_text) {
            b.rank = malloc(r.vocab.n * sizeof *b.rank);
            for (uint32_t i = 0; i < r.vocab.n; i++)
                b.rank[i] = i;
        } else {
            cr_assert_eq(bpe_init_pairs(&b, r.n, &e), 0);
            for (uint32_t i = 0; i < r.n; i++)
                bpe_add(&b, r.left[i], r.right[i], i, r.into[i]);
        }
        for (int t = 0; t < 10; t++) {
            uint8_t text[LENGTH];
            uint32_t want[LENGTH], n = (uint32_t)(noise(&seed) % (LENGTH + 1)), i = 0, k = 0,
                                   range = 1 + (uint32_t)(noise(&seed) % LETTERS);
            w.n = 0;
            for (; i < n; i++) {
                want[i] = (uint32_t)(noise(&seed) % range);
                text[i] = (uint8_t)('a' + want[i]);
                bpe_push(&w, want[i], i, 1, false);
            }
            uint32_t n_want = merge_plainly(&r, want, n, by_text);
            cr_assert_eq(bpe_merge(&b, &w, text), 0);
            for (i = n ? 0 : BPE_END; i != BPE_END; i = w.s[i].next, k++)
                cr_assert(k < n_want && w.s[i].id == want[k], "round %d: piece %u", round, k);
            cr_assert_eq(k, n_want);
        }
        bpe_free(&b);
        vocab_free(&r.vocab);
    }
    bpe_work_free(&w);
}

Test(tok_parts, merges_by_pair) {
    merges_agree(false);
}
Test(tok_parts, merges_by_text) {
    merges_agree(true);
}

Test(tok_parts, frozen_symbols_stay) {
    struct vocab v = {0};
    struct bpe b = {.vocab = &v};
    struct bpe_work w = {0};
    struct err e = {0};
    vocab_set(&v, 0, "a", 1, PIECE_NORMAL, &e);
    vocab_set(&v, 1, "aa", 2, PIECE_NORMAL, &e);
    cr_assert_eq(vocab_index(&v, ~0u, &e), 0);
    b.rank = calloc(2, sizeof *b.rank);
    for (uint32_t i = 0; i < 5; i++)
        bpe_push(&w, 0, i, 1, i == 1);
    cr_assert_eq(bpe_merge(&b, &w, (const uint8_t *)"aaaaa"), 0);
    cr_expect_eq(w.s[0].next, 1);
    cr_expect_eq(w.s[1].next, 2);
    cr_expect_eq(w.s[2].next, 4);
    cr_expect_eq(w.s[2].id, 1);
    bpe_free(&b);
    bpe_work_free(&w);
    vocab_free(&v);
}

Test(tok_parts, ranks_order_like_scores) {
    static const float s[] = {1e30f, 3.5f, 1.0f, 1e-40f, 0.0f, -1e-40f, -1.0f, -2.0f, -31999.0f, -1e30f};
    for (size_t i = 0; i + 1 < sizeof s / sizeof s[0]; i++)
        cr_expect_lt(bpe_rank_of_score(s[i]), bpe_rank_of_score(s[i + 1]), "%g, %g", (double)s[i], (double)s[i + 1]);
    cr_expect_eq(bpe_rank_of_score(0.0f), bpe_rank_of_score(-0.0f));
}

/* --- Sets of strings -----------------------------------------------------------------------------------------------
 */

Test(tok_parts, longest_match) {
    uint64_t seed = 31;
    struct err e = {0};
    for (int round = 0; round < 200; round++) {
        struct strset set = {0};
        char member[20][8];
        size_t len[20], n = noise(&seed) % 20;
        for (size_t i = 0; i < n; i++) {
            len[i] = 1 + noise(&seed) % 7;
            for (size_t k = 0; k < len[i]; k++)
                member[i][k] = (char)(noise(&seed) % 16 ? 'a' + noise(&seed) % 2 : 255);
            cr_assert_eq(strset_add(&set, member[i], len[i], (uint32_t)i, &e), 0);
        }
        strset_seal(&set);
        for (int t = 0; t < 50; t++) {
            char text[10];
            size_t n_text = noise(&seed) % 10, best = 0;
            uint32_t value = 77, want = 77;
            for (size_t k = 0; k < n_text; k++)
                text[k] = (char)(noise(&seed) % 16 ? 'a' + noise(&seed) % 2 : 255);
            for (size_t i = 0; i < n; i++)
                if (len[i] <= n_text && len[i] > best && memcmp(text, member[i], len[i]) == 0) {
                    best = len[i];
                    want = (uint32_t)i;
                }
            cr_assert_eq(strset_match(&set, text, n_text, &value), best);
            cr_assert_eq(value, want);
        }
        strset_free(&set);
    }
}

/* --- UTF-8 ---------------------------------------------------------------------------------------------------------
 */

Test(tok_parts, utf8_of_every_code_point) {
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t b[5] = {0};
        uint32_t back = 0;
        size_t n = utf8_put(b, c), k = utf8_char(b, n, &back);
        if (c >= 0xd800 && c < 0xe000) {
            cr_assert_eq(k, 0);
            continue;
        }
        cr_assert(k == n && back == c, "U+%04X", c);
        for (size_t cut = 1; cut < n; cut++)
            cr_assert(utf8_char(b, cut, NULL) == 0 && utf8_partial(b, cut) && utf8_valid_prefix(b, cut) == 0);
        cr_assert_not(utf8_partial(b, n));
    }
}

Test(tok_parts, utf8_refuses) {
    static const char *const bad[] = {"\x80",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x9f\xbf",
                                      "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                                      "\xff",         "\xc3\x28",         "\xe2\x82\x28"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const uint8_t *p = (const uint8_t *)bad[i];
        cr_expect_eq(utf8_char(p, strlen(bad[i]), NULL), 0, "case %zu", i);
        cr_expect_not(utf8_partial(p, strlen(bad[i])), "case %zu", i);
    }
}

/* --- Regular expressions and normal forms --------------------------------------------------------------------------
 */

/* "start-end" of the first match of pattern in text. */
static void expect_match(enum regex_dialect d, const char *pattern, const char *text, size_t start, size_t end) {
    struct err e = {0};
    struct regex *r;
    struct regex_scratch *s = regex_scratch_new(&e);
    cr_assert_eq(regex_compile(&r, pattern, strlen(pattern), d, &e), 0, "%s: %s", pattern, e.msg);
    struct regex_iter m = regex_iter_of(r, s, (const uint8_t *)text, strlen(text));
    int found = regex_next(&m, &e);
    cr_expect_eq(found, start != SIZE_MAX, "%s in %s: %d", pattern, text, found);
    if (found == 1)
        cr_expect(m.start == start && m.end == end, "%s in %s: %zu-%zu", pattern, text, m.start, m.end);
    regex_free(r);
    regex_scratch_free(s);
}

Test(tok_parts, regex_means_what_its_engine_means) {
    enum regex_dialect o = REGEX_ONIG, f = REGEX_FANCY;
    expect_match(o, "\\s+", "a\xe1\xa0\x8e", SIZE_MAX, 0); /* U+180E is no space */
    expect_match(o, "[^\\s]+", "\xe1\xa0\x8e ", 0, 3);
    expect_match(o, "\\S", "\xc2\x85x", 2, 3);
    expect_match(o, "[\\S]", "\xc2\x85x", 2, 3);
    expect_match(o, "\\v", "\n\x0b", 1, 2); /* the vertical tab, not any vertical space */
    expect_match(o, "\\p{L}+", "\xf0\x90\xb5\x90\xf0\x90\xb5\x91.", 0, 8); /* Garay: Unicode 16 */
    expect_match(o, "[^\\p{L}]", "\xf0\x90\xb5\x90.", 4, 5);
    expect_match(o, "\\P{L}", "\xf0\x90\xb5\x90.", 4, 5);
    expect_match(o, "\\p{^L}", "\xf0\x90\xb5\x90.", 4, 5);
    expect_match(o, "\\w+", ".\xcc\x81\xe2\x80\xbf", 1, 6); /* marks and connectors are of words */
    expect_match(o, "(?i:'s)", "x'\xc5\xbf", 1, 4);         /* the long s */
    expect_match(o, "a$", "a\nb", 0, 1);                    /* Ruby's $ */
    expect_match(f, "a$", "a\nb", SIZE_MAX, 0);
    expect_match(f, "a$", "a\n", SIZE_MAX, 0);
    expect_match(f, "a{1,3}+a", "aaa", SIZE_MAX, 0); /* possessive */
    expect_match(o, "\\u0061|\\x{1F600}|\\x62", "b", 0, 1);
    expect_match(o, "[[:alpha:]-]+", ".a-b", 1, 4);
}

Test(tok_parts, regex_refuses_by_name) {
    static const char *const bad[] = {"\\h",    "\\R",    "\\K",   "\\1",    "a{,3}",     "a{1,3}+",
                                      "[a[b]]", "[a&&b]", "(?m)a", "a(?i)b", "(*ACCEPT)", "(?<name>a)",
                                      "\\xe9",  "[\\W]",  "\\p{",  "\\",     "[]a]",      "\\x{zz}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = {0};
        struct regex *r;
        cr_expect_eq(regex_compile(&r, bad[i], strlen(bad[i]), REGEX_ONIG, &e), -1, "%s is accepted", bad[i]);
        expect_err(&e, ERR_MODEL, "regular expression", NULL);
    }
}

static void expect_form(enum norm_kind kind, const char *text, const char *want) {
    struct norm m = {.n = 1, .step = {{.kind = kind}}};
    struct wbuf w = {0};
    struct err e = {0};
    cr_assert_eq(norm_run(&m, NULL, (const uint8_t *)text, strlen(text), true, &w, &e), 0, "%s", e.msg);
    cr_expect_str_eq(wbuf_cstr(&w), want);
    wbuf_free(&w);
}

Test(tok_parts, normal_forms) {
    expect_form(NORM_NFC, "e\xcc\x81", "\xc3\xa9");
    expect_form(NORM_NFD, "\xc3\xa9", "e\xcc\x81");
    expect_form(NORM_NFC, "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");
    expect_form(NORM_NFKC, "\xef\xac\x81", "fi");
    expect_form(NORM_NFC, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c");
    expect_form(NORM_NFC, "e\xff\xcc\x81", "e\xff\xcc\x81"); /* nothing composes across what is no UTF-8 */
    expect_form(NORM_LOWERCASE, "\xc4\xb0\xce\xa3", "i\xcc\x87\xcf\x83");
}
