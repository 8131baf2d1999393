/* Fuzzes the files of a draft store: the input is a log and a table, of which each opens, learns and drafts. */
#include "core/base/log.h"
#include "core/draft/drafter.h"
#include "core/draft/store.h"
#include "core/draft/store_log.h"
#include "core/draft/store_table.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static void clean_up(void) {
    struct draft_store_forgotten gone;
    struct err e = {0};
    draft_store_forget(dir, &gone, &e);
    rmdir(dir);
}

static void put(const char *end, const void *p, size_t n, off_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/drafts-0000000000000007.%s", dir, end);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n || (size > (off_t)n && ftruncate(fd, size) != 0))
        abort();
    close(fd);
}

/* In memory where there is such a place: on a disk most of the time goes into waiting for it. */
static void make_dir(void) {
    static const char *const places[] = {"/dev/shm", "/tmp"};
    for (int i = 0; i < 2; i++) {
        snprintf(dir, sizeof dir, "%s/splitinf-fuzz-XXXXXX", places[i]);
        if (mkdtemp(dir)) {
            atexit(clean_up);
            return;
        }
    }
    abort();
}

static void drafts(struct draft_store *s, const uint32_t *t, uint32_t n) {
    struct draft_node tree[16];
    struct drafter *d;
    struct err e = {0};
    /* Of the sources only the one that the files feed. */
    struct drafter_opts o = {.vocab = 100, .max_ctx = 8, .store = s, .sources = 1u << DRAFT_STORE};
    if (drafter_create(&d, &o, &e) != 0)
        abort();
    drafter_sync(d, t, n);
    int k = draft_tree_grow(d, NULL, 0, tree, 0, 16, 0);
    for (int i = 0; i < k; i++)
        if (tree[i].token >= 100 || tree[i].parent >= i || !(tree[i].path > 0))
            abort();
    drafter_teach(d);
    drafter_free(d);
}

/* The first byte says what the rest is: a log, or the head of a table of the right size; both are opened with what is
 * sound beside them. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct draft_store *s;
    struct err e = {0};
    const struct draft_store_opts o = {
        .vocab = 100, .tokenizer = 7, .table_bytes = ngram_bytes(NGRAM_MIN_BITS), .log_bytes = 4096};
    uint32_t t[] = {1, 2, 3, 1, 2};
    if (!dir[0]) {
        log_to(NULL, NULL, LOG_ERROR);
        make_dir();
    }
    if (size == 0)
        return 0;
    if (data[0] & 1)
        put("table", data + 1, size - 1, STORE_TABLE_HEAD + (off_t)ngram_bytes(NGRAM_MIN_BITS));
    else
        put("log", data + 1, size - 1, 0);
    if (draft_store_open(&s, dir, &o, &e) != 0)
        abort(); /* whatever the files hold, there is a store */
    if (draft_store_learn(s, t, 5, &e) != 0)
        abort();
    if (data[0] & 1)
        drafts(s, t, 5);
    draft_store_close(s);
    return 0;
}
