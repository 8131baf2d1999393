#include "core/draft/store.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/draft/context.h"
#include "core/draft/store_files.h"
#include "core/draft/store_guard.h"
#include "core/draft/store_log.h"
#include "core/draft/store_table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t DEFAULT_BYTES = (size_t)256 << 20;

const unsigned draft_store_contexts = 1u << CONTEXT_0 | 1u << CONTEXT_SKIP2 | 1u << CONTEXT_1 | 1u << CONTEXT_SKIP13 |
                                      1u << CONTEXT_2 | 1u << CONTEXT_3 | 1u << CONTEXT_4 | 1u << CONTEXT_5;

/* Both files, opened. */
struct opened {
    struct store_table table;
    int log; /* a descriptor; -1: none */
    ino_t log_inode;
    uint64_t log_end; /* of its sound part */
};

struct draft_store {
    struct store_kind kind;
    struct opened at;
    unsigned max_bits;
    uint64_t max_log;
    bool files;
    struct store_paths paths;
};

static struct draft_store *store_new(const struct draft_store_opts *o, struct err *e) {
    struct draft_store *s = calloc(1, sizeof *s);
    size_t bytes = o->table_bytes ? o->table_bytes : DEFAULT_BYTES;
    if (o->vocab == 0 || o->vocab > NGRAM_MAX_VOCAB) {
        free(s);
        err_set(e, ERR_MODEL, "a vocabulary of %u tokens: drafts work with 1 to %d", o->vocab, NGRAM_MAX_VOCAB);
        return NULL;
    }
    if (!s) {
        err_set(e, ERR_MEMORY, "out of memory for a draft store");
        return NULL;
    }
    s->kind = (struct store_kind){.tokenizer = o->tokenizer, .vocab = o->vocab, .contexts = draft_store_contexts};
    s->max_bits = NGRAM_MIN_BITS;
    while (s->max_bits < NGRAM_MAX_BITS && ngram_bytes(s->max_bits + 1) <= bytes)
        s->max_bits++;
    s->max_log = o->log_bytes ? o->log_bytes : DEFAULT_BYTES;
    s->at.log = -1;
    return s;
}

static void let_go(struct opened *o) {
    store_table_close(&o->table);
    if (o->log >= 0)
        close(o->log);
    *o = (struct opened){.log = -1};
}

void draft_store_close(struct draft_store *s) {
    if (!s)
        return;
    let_go(&s->at);
    free(s);
}

/* Counting */

static void grow_if_full(struct draft_store *s) {
    const struct ngram_table *t = &s->at.table.ngrams;
    uint64_t slots = (uint64_t)NGRAM_LINE << t->bits;
    struct err e = {0};
    if (t->bits >= s->max_bits || s->at.table.head->tokens / 3 * N_CONTEXTS < slots / 2)
        return;
    if (store_table_grow(&s->at.table, s->files ? s->paths.table : NULL, &s->kind, &e) == 0)
        return;
    log_line(LOG_WARN, "the draft store stays at %zu MB: %s", ngram_bytes(t->bits) >> 20, e.msg);
    s->max_bits = t->bits;
}

/* The tokens of one record: as they stand in the log, or (log NULL) as numbers. */
static void count(struct draft_store *s, const uint8_t *log, const uint32_t *tokens, uint32_t n) {
    uint32_t tail[2 * CONTEXT_REACH];
    uint32_t n_tail = 0;
    if (!log && !tokens)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = log ? store_log_token(log, i) : tokens[i];
        struct contexts c;
        if (token >= s->kind.vocab)
            break;
        contexts_of(&c, tail, n_tail);
        contexts_count(&s->at.table.ngrams, &c, s->kind.contexts, token, 1, 256);
        if (n_tail == 2 * CONTEXT_REACH) {
            memmove(tail, tail + CONTEXT_REACH, CONTEXT_REACH * sizeof *tail);
            n_tail = CONTEXT_REACH;
        }
        tail[n_tail++] = token;
        s->at.table.head->tokens++;
        if (i % 4096 == 4095)
            grow_if_full(s);
    }
    grow_if_full(s);
}

static int map_log(const struct draft_store *s, struct file_map *m, int *guard, struct err *e) {
    if (file_map(m, s->paths.log, e) != 0)
        return -1;
    *guard = store_guard_add((void *)(uintptr_t)m->p, m->n);
    return 0;
}

static void unmap_log(struct file_map *m, int guard) {
    store_guard_remove(guard);
    file_unmap(m);
}

/* Counts what the log has and the table has not, and cuts the log behind its last whole record. */
static int catch_up(struct draft_store *s, struct err *e) {
    struct file_map m;
    int rc = -1, guard;
    if (map_log(s, &m, &guard, e) != 0)
        return -1;
    size_t off = s->at.table.head->applied;
    if (off < STORE_LOG_HEAD || off > m.n) /* never counted, or a log that lost its end */
        off = off > m.n ? m.n : STORE_LOG_HEAD;
    const uint8_t *tokens;
    for (uint32_t n; (n = store_log_next(m.p, m.n, &off, &tokens)) > 0;) {
        count(s, tokens, NULL, n);
        s->at.table.head->applied = off;
    }
    s->at.table.head->applied = s->at.log_end = off;
    if (off < m.n) {
        log_line(LOG_WARN, "the draft store's log %s is damaged; %zu bytes at its end are dropped", s->paths.log,
                 m.n - off);
        if (ftruncate(s->at.log, (off_t)off) != 0) {
            err_sys(e, errno, "cannot mend %s", s->paths.log);
            goto out;
        }
    }
    rc = 0;
out:
    unmap_log(&m, guard);
    return rc;
}

/* Files */

static int log_open(struct draft_store *s, struct err *e) {
    uint8_t want[STORE_LOG_HEAD], have[STORE_LOG_HEAD];
    struct stat st;
    s->at.log = open(s->paths.log, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (s->at.log < 0 || fstat(s->at.log, &st) != 0)
        return err_sys(e, errno, "cannot open the draft store's log %s", s->paths.log);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_IO, "%s is not a regular file", s->paths.log);
    s->at.log_inode = st.st_ino;
    store_log_head(want, s->kind.tokenizer, s->kind.vocab);
    if (pread(s->at.log, have, sizeof have, 0) == (ssize_t)sizeof have && memcmp(want, have, sizeof want) == 0)
        return 0;
    if (st.st_size > 0)
        log_line(LOG_WARN, "the draft store's log %s is damaged; a new one is started", s->paths.log);
    if (ftruncate(s->at.log, 0) != 0 || pwrite(s->at.log, want, sizeof want, 0) != (ssize_t)sizeof want)
        return err_sys(e, errno, "cannot write to %s", s->paths.log);
    return 0;
}

static int open_both(struct draft_store *s, struct err *e) {
    if (log_open(s, e) != 0)
        return -1;
    int rc = store_table_map(&s->at.table, s->paths.table, &s->kind, e);
    if (rc == 2)
        log_line(LOG_WARN,
                 "the draft store %s is damaged; it is made again from its log, which takes about "
                 "a second for each million tokens",
                 s->paths.table);
    if (rc > 0)
        rc = store_table_make(&s->at.table, s->paths.table, &s->kind, NGRAM_MIN_BITS, e);
    return rc == 0 && s->at.table.head ? catch_up(s, e) : -1;
}

/* Under the lock: both files, whatever state they are in. On failure s keeps what it had. */
static int load(struct draft_store *s, struct err *e) {
    struct opened old = s->at;
    s->at = (struct opened){.log = -1};
    int rc = open_both(s, e);
    let_go(rc == 0 ? &old : &s->at);
    if (rc != 0)
        s->at = old;
    return rc;
}

/* Whether another process has replaced or deleted a file, or cut one that should only grow. */
static bool moved(const struct draft_store *s) {
    struct stat a, b;
    return stat(s->paths.log, &a) != 0 || stat(s->paths.table, &b) != 0 || a.st_ino != s->at.log_inode ||
           b.st_ino != s->at.table.inode || a.st_size < STORE_LOG_HEAD || (uint64_t)b.st_size != s->at.table.n ||
           store_guard_hit(s->at.table.guard);
}

/* The newer half of the log takes its place. The counts stay. */
static int shorten(struct draft_store *s, struct err *e) {
    char temp[STORE_PATH + 8];
    struct file_map m;
    const uint8_t *tokens;
    size_t off = STORE_LOG_HEAD, from, n;
    int guard;
    if (map_log(s, &m, &guard, e) != 0)
        return -1;
    from = off;
    while (m.n - from > s->max_log / 2 && store_log_next(m.p, m.n, &off, &tokens) > 0)
        from = off;
    snprintf(temp, sizeof temp, "%s.new", s->paths.log);
    int fd = open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), rc = -1;
    n = m.n - from;
    if (fd < 0 || write(fd, m.p, STORE_LOG_HEAD) != STORE_LOG_HEAD ||
        (n > 0 && write(fd, m.p + from, n) != (ssize_t)n) || fsync(fd) != 0) {
        err_sys(e, errno, "cannot write %s", temp);
        goto out;
    }
    /* A crash between the two: the log is found shorter than what is counted, which is harmless. */
    if (rename(temp, s->paths.log) != 0) {
        err_sys(e, errno, "cannot rename %s", temp);
        goto out;
    }
    s->at.table.head->applied = STORE_LOG_HEAD + n;
    rc = load(s, e);
out:
    if (fd >= 0)
        close(fd);
    if (rc != 0)
        unlink(temp);
    unmap_log(&m, guard);
    return rc;
}

static int learn_files(struct draft_store *s, const uint32_t *tokens, uint32_t n, struct err *e) {
    if (moved(s) ? load(s, e) != 0 : catch_up(s, e) != 0)
        return -1;
    if (store_log_append(s->at.log, &s->at.log_end, tokens, n, e) != 0 || catch_up(s, e) != 0)
        return -1;
    return s->at.log_end > s->max_log ? shorten(s, e) : 0;
}

int draft_store_open(struct draft_store **out, const char *dir, const struct draft_store_opts *o, struct err *e) {
    struct draft_store *s = store_new(o, e);
    if (!s)
        return -1;
    s->files = true;
    int fd = store_paths_of(&s->paths, dir, o->tokenizer, e) == 0 ? store_lock(s->paths.lock, e) : -1;
    int rc = fd >= 0 ? load(s, e) : -1;
    if (fd >= 0)
        close(fd);
    if (rc != 0) {
        draft_store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

int draft_store_create(struct draft_store **out, const struct draft_store_opts *o, struct err *e) {
    struct draft_store *s = store_new(o, e);
    if (!s)
        return -1;
    if (store_table_make(&s->at.table, NULL, &s->kind, NGRAM_MIN_BITS, e) != 0) {
        draft_store_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

int draft_store_learn(struct draft_store *s, const uint32_t *tokens, size_t n, struct err *e) {
    size_t sound = 0;
    while (sound < n && tokens[sound] < s->kind.vocab)
        sound++;
    int fd = s->files && sound > 0 ? store_lock(s->paths.lock, e) : -1, rc = 0;
    if (s->files && sound > 0 && fd < 0)
        return -1;
    for (size_t at = 0; rc == 0 && at < sound;) {
        uint32_t k = sound - at < STORE_LOG_TOKENS ? (uint32_t)(sound - at) : STORE_LOG_TOKENS;
        if (s->files)
            rc = learn_files(s, tokens + at, k, e);
        else
            count(s, NULL, tokens + at, k);
        at += k;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

uint64_t draft_store_tokens(const struct draft_store *s) {
    return s->at.table.head->tokens;
}

uint64_t draft_store_bytes(const struct draft_store *s) {
    return s->at.table.n + s->at.log_end;
}

const struct ngram_table *draft_store_table(const struct draft_store *s) {
    return &s->at.table.ngrams;
}

void draft_store_shares(const struct draft_store *s, struct blend_shares *out) {
    if (s->at.table.head->has_shares == 1)
        *out = s->at.table.head->shares;
    else
        blend_start_with(out, true);
    blend_sanitise(out);
}

void draft_store_keep_shares(struct draft_store *s, const struct blend_shares *w) {
    s->at.table.head->shares = *w;
    s->at.table.head->has_shares = 1;
}
