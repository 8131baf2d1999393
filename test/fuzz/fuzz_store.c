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

static char dir[] = "/tmp/splitinf-fuzz-XXXXXX";

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

/* The first byte says what the rest is: a log, or the head of a table of the right size; both are opened with what is
 * sound beside them. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct draft_store *s;
    struct drafter *d;
    struct err e = {0};
    const struct draft_store_opts o = {
        .vocab = 100, .tokenizer = 7, .table_bytes = ngram_bytes(NGRAM_MIN_BITS), .log_bytes = 4096};
    uint32_t t[] = {1, 2, 3, 1, 2};
    if (strstr(dir, "XXXXXX")) {
        log_to(NULL, NULL, LOG_ERROR);
        if (!mkdtemp(dir))
            abort();
        atexit(clean_up);
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
    struct drafter_opts dopts = {.vocab = 100, .max_ctx = 8, .store = s};
    if (drafter_create(&d, &dopts, &e) != 0)
        abort();
    struct draft_node tree[16];
    drafter_sync(d, t, 5);
    int n = draft_tree_grow(d, NULL, 0, tree, 0, 16, 0);
    for (int i = 0; i < n; i++)
        if (tree[i].token >= 100 || tree[i].parent >= i || !(tree[i].path > 0))
            abort();
    drafter_teach(d);
    drafter_free(d);
    draft_store_close(s);
    return 0;
}
