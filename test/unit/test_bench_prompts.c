/* cmd/bench: what is answered (prompts of the program, of files, recorded answers), what primes a store, and how drafts
 * are counted along an answer, by hand. */
#include "cmd/bench/ablation.h"
#include "cmd/bench/drafts.h"
#include "cmd/bench/prime.h"
#include "cmd/bench/prompts.h"
#include "cmd/text_file.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct engine en;
static struct bench_prompts prompts;
static char path[] = "/tmp/splitinf-bench-XXXXXX";
static struct err e;

static void start(void) {
    const struct engine_opts o = {.model = "test/models/tiny", .front = 2, .back = 2};
    cr_assert_eq(engine_open(&en, &o, &e), 0, "%s", e.msg);
    cr_assert_eq(engine_open_tokenizer(&en, &e), 0, "%s", e.msg);
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void end(void) {
    bench_prompts_free(&prompts);
    engine_close(&en);
    unlink(path);
}

static void write_text(const char *text) {
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

Test(bench_prompts, two_of_each_category_in_the_chat_template, .init = start, .fini = end) {
    int of[BENCH_CATEGORIES] = {0};
    cr_assert_eq(bench_prompts_builtin(&prompts, &en, &e), 0, "%s", e.msg);
    cr_assert_eq(prompts.n, 8);
    for (int i = 0; i < prompts.n; i++) {
        const struct bench_prompt *p = &prompts.at[i];
        bool special = false;
        of[p->category]++;
        for (size_t k = 1; k < p->ids.n; k++)
            special = special || tokenizer_is_special(en.tok, p->ids.p[k]);
        cr_assert(special && p->ids.n > 10 && p->next.n == 0);
    }
    for (int c = 0; c < BENCH_CATEGORIES; c++)
        cr_assert_eq(of[c], 2);
}

static char seen[256];

static int remember(void *ctx, const char *text, size_t n, struct err *why) {
    int *left = ctx;
    (void)why;
    snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "[%.*s]", (int)n, text);
    return --*left == 0 ? 7 : 0;
}

Test(bench_prompts, texts_of_a_file, .init = start, .fini = end) {
    static const char *const cases[][2] = {{"one", "[one]"},
                                           {"one\n\n", "[one]"},
                                           {"one\ntwo\n---\n----\nthree\n---", "[one\ntwo][----\nthree]"},
                                           {"---\n---\n\n---\nx\n --- \n", "[x\n --- ]"},
                                           {"a\r\n---\nb", "[a\r][b]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int left = 100;
        seen[0] = '\0';
        write_text(cases[i][0]);
        cr_assert_eq(text_file_each(path, remember, &left, &e), 0, "%s", e.msg);
        cr_assert_str_eq(seen, cases[i][1]);
    }
    int left = 1;
    seen[0] = '\0';
    write_text("a\n---\nb");
    cr_assert_eq(text_file_each(path, remember, &left, &e), 7); /* and it ends there */
    cr_assert_str_eq(seen, "[a]");
    static const char *const none[] = {"", "\n\n", "---\n---\n"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        e = (struct err){0};
        write_text(none[i]);
        cr_assert_eq(text_file_each(path, remember, &left, &e), -1);
        cr_assert(e.kind == ERR_USAGE && strstr(e.msg, path), "%s", e.msg);
    }
    write_text("Name three rivers.\n---\nAnd three lakes.\n");
    cr_assert_eq(bench_prompts_file(&prompts, &en, path, &e), 0, "%s", e.msg);
    cr_assert(prompts.n == 2 && prompts.at[0].category == -1);
}

Test(bench_prompts, recorded_answers_are_cut_and_spread, .init = start, .fini = end) {
    write_text("{\"id\":1,\"prompt\":\"a fox\",\"output\":\"the fox and the fox and the fox\"}\n"
               "{\"id\":2,\"prompt\":\"b\",\"output\":\"\"}\n"
               "{\"id\":3,\"prompt\":\"a cat\",\"output\":\"a cat\"}\n");
    cr_assert_eq(bench_prompts_replay(&prompts, &en, path, 8, 3, &e), 0, "%s", e.msg);
    cr_assert_eq(prompts.n, 2); /* an empty answer is none */
    cr_assert_eq(prompts.at[0].next.n, 3);
    cr_assert_neq(prompts.at[0].hash, prompts.at[1].hash);
    bench_prompts_free(&prompts);
    cr_assert_eq(bench_prompts_replay(&prompts, &en, path, 1, 3, &e), 0, "%s", e.msg);
    cr_assert_eq(prompts.n, 1);
    write_text("{\"prompt\":\"a\"}\n");
    cr_assert_eq(bench_prompts_replay(&prompts, &en, path, 1, 3, &e), -1);
    cr_assert(strstr(e.msg, "line 1"), "%s", e.msg);
}

Test(bench_prompts, a_store_learns_nothing_of_what_is_left_out) {
    uint32_t a[] = {1, 2, 3, 4, 5, 6}, b[] = {7, 8, 9};
    struct trace at[] = {{1, a, 2, 6}, {2, b, 1, 3}};
    const struct traces t = {at, 2};
    static const bool none[2], second[2] = {false, true}, both[2] = {true, true};
    static const bool *const out[] = {none, second, both};
    static const uint64_t tokens[] = {9, 6, 0};
    for (int i = 0; i < 3; i++) {
        struct draft_store *s = NULL;
        cr_assert_eq(prime_store(&s, 16, &t, out[i], &e), 0, "%s", e.msg);
        cr_assert_eq(draft_store_tokens(s), tokens[i]);
        draft_store_close(s);
    }
}

/* ---- drafts along an answer ---- */

Test(bench_drafts, the_references_round_trips_by_hand) {
    uint32_t ids[] = {1, 2, 3, 1, 2, 3, 1, 2, 3};
    const struct trace t = {.tokens = ids, .n_prompt = 3, .n = 9};
    struct bench_row r = drafts_reference_row(3);
    /* 1 (nothing starts with 3 yet), then 2 3 1 from (1 2 3), then the 2 3 that are left. */
    drafts_follow_reference(&t, 3, &r);
    cr_assert_eq(r.tokens, 6);
    cr_assert_eq(r.steps, 3);
    cr_assert_str_eq(r.source, "n=3");
    uint32_t five[] = {1, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1, 7, 8, 1, 7, 1, 2};
    const struct trace u = {.tokens = five, .n_prompt = 14, .n = 17};
    r = drafts_reference_row(3);
    /* Behind 1 the five oldest are (1 2 1) (1 3 1) (1 4 1) (1 5 1) (1 6 1): 7 is not among them, 2 is. */
    drafts_follow_reference(&u, 3, &r);
    cr_assert_eq(r.tokens, 3);
    cr_assert_eq(r.steps, 3);
}

Test(bench_drafts, a_tree_follows_what_repeats_and_each_step_brings_one_more) {
    enum { N = 120 };
    uint32_t ids[N];
    struct bench_row r = bench_row_of("auto", "suffix+ngram", 8);
    double ms = 0;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = 1 + i % 4;
    const struct trace t = {.tokens = ids, .n_prompt = 40, .n = N};
    const struct drafter_opts o = {.vocab = 16};
    cr_assert_eq(drafts_follow(&t, &o, &r, &ms, &e), 0, "%s", e.msg);
    cr_assert_eq(r.tokens, 80);
    cr_assert_geq(r.steps, 9); /* at most 8 + 1 each */
    cr_assert_leq(r.steps, 20);
    for (uint32_t i = 0; i < N; i++) /* nothing repeats: nothing is guessed */
        ids[i] = i;
    struct bench_row none = bench_row_of("auto", "suffix+ngram", 8);
    const struct drafter_opts wide = {.vocab = 256};
    cr_assert_eq(drafts_follow(&t, &wide, &none, &ms, &e), 0, "%s", e.msg);
    cr_assert_eq(none.steps, none.tokens);
}

Test(bench_drafts, the_ablation_counts_each_category_and_all, .init = start, .fini = end) {
    struct bench_rows rows = {0};
    struct ids answers[8] = {0};
    cr_assert_eq(bench_prompts_builtin(&prompts, &en, &e), 0, "%s", e.msg);
    for (int i = 0; i < 7; i++) /* the last was not made */
        for (uint32_t k = 0; k < 10; k++)
            ids_push(&answers[i], k % 3 + 5);
    cr_assert_eq(bench_ablation(&rows, &prompts, answers, (uint32_t)en.config->vocab, &e), 0, "%s", e.msg);
    cr_assert_eq(rows.n, 5 * 6); /* n = 3 to 7 and our tree; four categories and all */
    long long of_categories = 0;
    for (int i = 0; i < rows.n; i++)
        if (strcmp(rows.at[i].source, "n=5") == 0) {
            of_categories += rows.at[i].category ? rows.at[i].tokens : 0;
            cr_assert(rows.at[i].category || rows.at[i].tokens == 70);
        }
    cr_assert_eq(of_categories, 70);
    for (int i = 0; i < 8; i++)
        ids_free(&answers[i]);
    bench_rows_free(&rows);
}
