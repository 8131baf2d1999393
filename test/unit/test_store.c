/* core/draft/store: what is learned stays, through damage of any kind and with several processes at once. */
#include "core/base/log.h"
#include "core/draft/context.h"
#include "core/draft/drafter.h"
#include "core/draft/store.h"
#include "core/draft/store_log.h"
#include "core/draft/store_table.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VOCAB = 1000, N = 200 };
static const char name[] = "drafts-0000000000000007";

static char dir[64];
static int n_warnings;

static void on_log(void *ctx, enum log_level level, const char *line) {
    (void)ctx, (void)line;
    n_warnings += level == LOG_WARN;
}

static void empty_dir(void) {
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));)
        unlinkat(dirfd(d), x->d_name, 0);
    if (d)
        closedir(d);
}

static void set_up(void) {
    snprintf(dir, sizeof dir, "/tmp/splitinf-store-XXXXXX");
    cr_assert(mkdtemp(dir));
    log_to(on_log, NULL, LOG_WARN);
}

static void tear_down(void) {
    empty_dir();
    rmdir(dir);
}

TestSuite(store, .init = set_up, .fini = tear_down);

static struct draft_store *open_sized(size_t table, size_t log) {
    struct draft_store *s = NULL;
    struct err e = {0};
    struct draft_store_opts o = {.vocab = VOCAB, .tokenizer = 7, .table_bytes = table, .log_bytes = log};
    cr_assert_eq(draft_store_open(&s, dir, &o, &e), 0, "%s", e.msg);
    return s;
}

static struct draft_store *open_store(void) {
    return open_sized(0, 0);
}

static const char *path_of(const char *end) {
    static char path[2][200];
    static int i;
    i = !i;
    snprintf(path[i], sizeof path[i], "%s/%s.%s", dir, name, end);
    return path[i];
}

static off_t size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : -1;
}

static void text(uint32_t *t, uint32_t seed) {
    for (uint32_t i = 0; i < N; i++)
        t[i] = (seed * 37 + i * i % 83) % VOCAB;
}

static void learn(struct draft_store *s, uint32_t seed) {
    uint32_t t[N];
    struct err e = {0};
    text(t, seed);
    cr_assert_eq(draft_store_learn(s, t, N, &e), 0, "%s", e.msg);
}

/* The share of the tokens of a text that the store has seen behind the three before. */
static double knows(const struct draft_store *s, uint32_t seed) {
    uint32_t t[N];
    int hits = 0;
    text(t, seed);
    for (uint32_t i = 3; i < N; i++) {
        struct contexts c;
        struct ngram_succ found[NGRAM_LINE * 2];
        contexts_of(&c, t, i);
        int n =
            ngram_find(draft_store_table(s), c.hash[CONTEXT_3], context_lines(CONTEXT_3), VOCAB, found, NGRAM_LINE * 2);
        for (int k = 0; k < n; k++)
            hits += found[k].token == t[i];
    }
    return hits / (double)(N - 3);
}

Test(store, learns_and_stays) {
    struct draft_store *s = open_store();
    cr_assert_eq(knows(s, 1), 0);
    learn(s, 1);
    cr_assert_gt(knows(s, 1), 0.95);
    cr_assert_eq(draft_store_tokens(s), N);
    draft_store_close(s);
    s = open_store();
    cr_assert_gt(knows(s, 1), 0.95);
    cr_assert_lt(knows(s, 2), 0.05);
    cr_assert_eq(draft_store_tokens(s), N);
    struct stat st;
    static const char *const ends[] = {"log", "table", "lock"};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(stat(path_of(ends[i]), &st), 0);
        cr_assert_eq(st.st_mode & 0777, 0600);
    }
    draft_store_close(s);
    cr_assert_eq(n_warnings, 0);
    struct draft_store_forgotten gone;
    struct err e = {0};
    uint64_t bytes = (uint64_t)(size_of(path_of("log")) + size_of(path_of("table")));
    cr_assert_eq(draft_store_forget(dir, &gone, &e), 0);
    cr_assert(gone.n == 1 && gone.bytes == bytes);
    cr_assert_eq(size_of(path_of("lock")), -1);
    cr_assert_eq(size_of(path_of("log")), -1);
    cr_assert_eq(size_of(path_of("table")), -1);
}

Test(store, tokens_out_of_range_end_a_text) {
    struct draft_store *s = open_store();
    struct err e = {0};
    uint32_t t[] = {1, 2, 3, VOCAB, 4};
    cr_assert_eq(draft_store_learn(s, t, 5, &e), 0);
    cr_assert_eq(draft_store_learn(s, t + 3, 2, &e), 0);
    cr_assert_eq(draft_store_tokens(s), 3);
    draft_store_close(s);
}

static void copy_file(const char *from, const char *to, off_t n) {
    static char buf[1 << 20];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t k = read(in, buf, (size_t)n);
    cr_assert_eq(k, n);
    cr_assert_eq(write(out, buf, (size_t)n), n);
    close(in);
    close(out);
}

Test(store, a_log_cut_anywhere_is_recovered, .timeout = 120) {
    char saved[100];
    struct draft_store *s = open_store();
    for (uint32_t i = 1; i <= 3; i++)
        learn(s, i);
    draft_store_close(s);
    off_t n = size_of(path_of("log")), record = 8 + 4 * N;
    cr_assert_eq(n, STORE_LOG_HEAD + 3 * record);
    snprintf(saved, sizeof saved, "%s/saved", dir);
    copy_file(path_of("log"), saved, n);
    for (off_t cut = 0; cut <= n; cut += cut > STORE_LOG_HEAD + 20 && cut < n - record - 20 ? 13 : 1) {
        copy_file(saved, path_of("log"), cut);
        unlink(path_of("table")); /* counted from nothing but the log */
        n_warnings = 0;
        s = open_store();
        off_t whole = cut < STORE_LOG_HEAD ? 0 : (cut - STORE_LOG_HEAD) / record;
        cr_assert_eq(draft_store_tokens(s), (uint64_t)whole * N, "cut at %ld", (long)cut);
        cr_assert_eq(n_warnings, cut > 0 && cut != STORE_LOG_HEAD + whole * record, "cut at %ld", (long)cut);
        learn(s, 9);
        cr_assert_gt(knows(s, 9), 0.95);
        draft_store_close(s);
        if (cut % 7 == 0) { /* what was appended stands behind the last whole record */
            n_warnings = 0;
            unlink(path_of("table"));
            s = open_store();
            cr_assert_eq(draft_store_tokens(s), (uint64_t)(whole + 1) * N);
            cr_assert_eq(n_warnings, 0);
            draft_store_close(s);
        }
    }
}

Test(store, a_table_cut_or_changed_is_made_again, .timeout = 120) {
    struct draft_store *s = open_store();
    for (uint32_t i = 1; i <= 3; i++)
        learn(s, i);
    draft_store_close(s);
    off_t n = size_of(path_of("table"));
    for (off_t cut = 0; cut < n; cut += cut < 64 ? 1 : 6007) {
        cr_assert_eq(truncate(path_of("table"), cut), 0);
        n_warnings = 0;
        s = open_store();
        cr_assert_eq(draft_store_tokens(s), 3 * N);
        cr_assert_eq(n_warnings, 1);
        cr_assert_gt(knows(s, 2), 0.95);
        draft_store_close(s);
    }
    for (off_t at = 0; at < (off_t)offsetof(struct store_head, applied);
         at++) { /* a bit of the header, anywhere in what is checked */
        unsigned char b;
        int fd = open(path_of("table"), O_RDWR);
        cr_assert_eq(pread(fd, &b, 1, at), 1);
        b ^= 0x10;
        cr_assert_eq(pwrite(fd, &b, 1, at), 1);
        close(fd);
        n_warnings = 0;
        s = open_store();
        cr_assert_eq(n_warnings, 1, "byte %ld", (long)at);
        cr_assert_gt(knows(s, 2), 0.95);
        draft_store_close(s);
    }
    /* Rubbish as counts and shares: bad guesses, no more. */
    uint32_t x = 1;
    int fd = open(path_of("table"), O_RDWR);
    for (off_t at = offsetof(struct store_head, applied); at < n; at += 4) {
        x = x * 1664525u + 1013904223u;
        cr_assert_eq(pwrite(fd, &x, 4, at), 4);
    }
    close(fd);
    s = open_store();
    struct drafter *d;
    struct err e = {0};
    uint32_t t[N];
    struct draft_node tree[64];
    text(t, 1);
    struct drafter_opts o = {.vocab = VOCAB, .max_ctx = N, .store = s};
    cr_assert_eq(drafter_create(&d, &o, &e), 0);
    for (uint32_t i = 1; i < N; i++) {
        drafter_sync(d, t, i);
        int k = draft_tree_grow(d, NULL, 0, tree, 0, 64, 0);
        for (int j = 0; j < k; j++)
            cr_assert(tree[j].token < VOCAB && tree[j].p > 0 && tree[j].p <= 1.0001f);
    }
    drafter_free(d);
    learn(s, 4);
    draft_store_close(s);
}

Test(store, files_stay_within_their_bounds, .timeout = 120) {
    size_t table = ngram_bytes(NGRAM_MIN_BITS + 2), log = 40 * 1024;
    struct draft_store *s = open_sized(table, log);
    for (uint32_t i = 0; i < 1000; i++) {
        learn(s, i * 7919 + 13);
        cr_assert_leq(size_of(path_of("log")), (off_t)log);
        cr_assert_leq(size_of(path_of("table")), (off_t)(table + STORE_TABLE_HEAD));
    }
    cr_assert_eq(draft_store_tokens(s), 1000 * N);
    cr_assert_eq(size_of(path_of("table")), (off_t)(table + STORE_TABLE_HEAD), "it has grown to its bound");
    learn(s, 5);
    cr_assert_gt(knows(s, 5), 0.5, "a full table still learns");
    draft_store_close(s);
    unlink(path_of("table"));
    s = open_sized(table, log); /* the newer part of the text */
    cr_assert(draft_store_tokens(s) * 4 > log / 3 && draft_store_tokens(s) * 4 < log);
    cr_assert_gt(knows(s, 5), 0.5);
    draft_store_close(s);
    cr_assert_eq(n_warnings, 0);
}

Test(store, processes_share_it, .timeout = 120) {
    enum { PROCESSES = 3, TEXTS = 60 };
    pid_t pid[PROCESSES];
    struct draft_store *s = open_sized(0, 100 * 1024);
    for (int p = 0; p < PROCESSES; p++) {
        pid[p] = fork();
        cr_assert_geq(pid[p], 0);
        if (pid[p] == 0) {
            struct draft_store *own = open_sized(0, 100 * 1024); /* logs are shortened meanwhile */
            for (uint32_t i = 0; i < TEXTS; i++)
                learn(own, (uint32_t)p * TEXTS + i);
            draft_store_close(own);
            _exit(0);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        cr_assert_eq(waitpid(pid[p], &status, 0), pid[p]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    learn(s, 999); /* finds that its files were replaced */
    cr_assert_eq(draft_store_tokens(s), (PROCESSES * TEXTS + 1) * N);
    cr_assert_gt(knows(s, 2 * TEXTS - 1), 0.8);
    struct draft_store_forgotten gone;
    struct err e = {0};
    cr_assert_eq(draft_store_forget(dir, &gone, &e), 0);
    learn(s, 1000);
    cr_assert_eq(draft_store_tokens(s), N, "what was forgotten stays forgotten");
    draft_store_close(s);
}

Test(store, makes_drafts_better) {
    struct draft_store *s;
    struct err e = {0};
    struct draft_store_opts so = {.vocab = VOCAB};
    uint32_t t[N];
    cr_assert_eq(draft_store_create(&s, &so, &e), 0);
    for (int i = 0; i < 20; i++)
        learn(s, 1);
    text(t, 1);
    int right = 0;
    struct drafter *d;
    struct drafter_opts o = {.vocab = VOCAB, .max_ctx = N, .store = s};
    cr_assert_eq(drafter_create(&d, &o, &e), 0);
    for (uint32_t i = 3; i < 60; i++) {
        struct draft_candidate c[4];
        drafter_sync(d, t, i);
        right += drafter_next(d, NULL, 0, c, 4) > 0 && c[0].token == t[i];
    }
    cr_assert_gt(right, 50);
    drafter_teach(d);
    struct blend_shares w;
    draft_store_shares(s, &w);
    cr_assert_eq(memcmp(&w, &d->shares, sizeof w), 0);
    drafter_free(d);
    draft_store_close(s);
}

/* Another program cuts a file that is mapped: what is gone counts as nothing, and learning repairs it. */
Test(store, files_cut_while_open, .timeout = 120) {
    static const off_t cuts[] = {0, 100, STORE_TABLE_HEAD, STORE_TABLE_HEAD + 5000, -1};
    struct draft_store *s = open_store();
    learn(s, 1);
    off_t n = size_of(path_of("table"));
    for (int i = 0; cuts[i] >= 0; i++) {
        cr_assert_eq(truncate(path_of("table"), cuts[i]), 0);
        struct blend_shares w;
        cr_assert_lt(knows(s, 1), 1.01);
        draft_store_shares(s, &w);
        draft_store_keep_shares(s, &w);
        n_warnings = 0;
        learn(s, 2);
        cr_assert_eq(n_warnings, 1, "cut at %ld", (long)cuts[i]);
        cr_assert_gt(knows(s, 1), 0.95);
        cr_assert_gt(knows(s, 2), 0.95);
        cr_assert_eq(size_of(path_of("table")), n);
    }
    /* Cut and written over, so that the size is right again. */
    cr_assert_eq(truncate(path_of("table"), 0), 0);
    cr_assert_eq(knows(s, 1), 0);
    cr_assert_eq(truncate(path_of("table"), n), 0);
    learn(s, 2);
    cr_assert_gt(knows(s, 1), 0.95);
    for (off_t cut = 0; cut < 200; cut += 40) {
        cr_assert_eq(truncate(path_of("log"), cut), 0);
        learn(s, 3);
        draft_store_close(s);
        n_warnings = 0;
        s = open_store();
        cr_assert_eq(n_warnings, 0, "cut at %ld", (long)cut);
    }
    draft_store_close(s);
}

/* A store that cannot be written to goes on with what it knows. */
Test(store, learning_that_fails_changes_nothing) {
    struct draft_store *s = open_store();
    struct err e = {0};
    uint32_t t[N];
    text(t, 2);
    learn(s, 1);
    unlink(path_of("log"));
    cr_assert_eq(mkdir(path_of("log"), 0700), 0);
    cr_assert_eq(draft_store_learn(s, t, N, &e), -1);
    cr_assert(strstr(e.msg, path_of("log")), "%s", e.msg);
    cr_assert_gt(knows(s, 1), 0.95);
    rmdir(path_of("log"));
    learn(s, 2);
    cr_assert_gt(knows(s, 2), 0.95);
    draft_store_close(s);
}
