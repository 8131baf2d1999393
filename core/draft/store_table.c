#include "core/draft/store_table.h"

#include "core/base/wipe.h"
#include "core/draft/store_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = "SIDRTAB1";
_Static_assert(sizeof(struct store_head) <= STORE_TABLE_HEAD, "the header has room");

static uint32_t check_of(const struct store_head *h) {
    uint64_t x = h->tokenizer;
    x = ngram_hash(x, h->vocab);
    x = ngram_hash(x, h->bits);
    x = ngram_hash(x, h->contexts);
    return (uint32_t)(x >> 32);
}

bool store_table_sound(const uint8_t *p, size_t n, const struct store_kind *k) {
    struct store_head h;
    if (n < STORE_TABLE_HEAD)
        return false;
    memcpy(&h, p, sizeof h);
    return memcmp(h.magic, magic, sizeof magic) == 0 && h.check == check_of(&h) && h.tokenizer == k->tokenizer &&
           h.vocab == k->vocab && h.contexts == k->contexts && h.bits >= NGRAM_MIN_BITS && h.bits <= NGRAM_MAX_BITS &&
           n - STORE_TABLE_HEAD == ngram_bytes(h.bits);
}

static void settle(struct store_table *t, uint8_t *map, size_t n, ino_t inode) {
    t->map = map;
    t->n = n;
    t->inode = inode;
    t->guard = inode ? store_guard_add(map, n) : -1;
    t->head = (struct store_head *)(void *)map;
    t->ngrams = (struct ngram_table){.slots = (uint64_t *)(void *)(map + STORE_TABLE_HEAD), .bits = t->head->bits};
}

static void head_init(uint8_t *map, const struct store_kind *k, unsigned bits) {
    struct store_head *h = (struct store_head *)(void *)map;
    memcpy(h->magic, magic, sizeof magic);
    h->tokenizer = k->tokenizer;
    h->vocab = k->vocab;
    h->contexts = k->contexts;
    h->bits = bits;
    h->check = check_of(h);
}

static void copy(struct store_table *t, const struct store_table *from) {
    ngram_move(&t->ngrams, &from->ngrams);
    t->head->applied = from->head->applied;
    t->head->tokens = from->head->tokens;
    t->head->has_shares = from->head->has_shares;
    t->head->shares = from->head->shares;
}

/* A table that starts with what is in from (NULL: empty). The name becomes its own when it is complete. */
static int make(struct store_table *t, const char *path, const struct store_kind *k, unsigned bits,
                const struct store_table *from, struct err *e) {
    char temp[4096];
    size_t n = STORE_TABLE_HEAD + ngram_bytes(bits);
    struct stat st = {0};
    int fd = -1;
    uint8_t *map = MAP_FAILED;
    *t = (struct store_table){0};
    if (path) {
        int rc = snprintf(temp, sizeof temp, "%s.new", path);
        if (rc < 0 || (size_t)rc >= sizeof temp)
            return err_set(e, ERR_USAGE, "path too long: %.300s", path);
        fd = open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return err_sys(e, errno, "cannot make the draft store %s", temp);
        /* Room on the disk is taken now: a page that cannot be had later would kill us with SIGBUS. */
        int full = posix_fallocate(fd, 0, (off_t)n);
        if (full != 0 || fstat(fd, &st) != 0) {
            err_sys(e, full ? full : errno, "no room for the draft store %s (%zu bytes)", temp, n);
            goto fail;
        }
    }
    map = mmap(NULL, n, PROT_READ | PROT_WRITE, path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
    if (map == MAP_FAILED) {
        err_sys(e, errno, "cannot map the draft store (%zu bytes)", n);
        goto fail;
    }
    head_init(map, k, bits);
    settle(t, map, n, st.st_ino);
    if (from)
        copy(t, from);
    if (path && rename(temp, path) != 0) {
        err_sys(e, errno, "cannot rename %s", temp);
        goto fail;
    }
    if (fd >= 0)
        close(fd);
    return 0;
fail:
    if (t->map)
        store_guard_remove(t->guard);
    *t = (struct store_table){0};
    if (map != MAP_FAILED)
        munmap(map, n);
    if (fd >= 0) {
        close(fd);
        unlink(temp);
    }
    return -1;
}

int store_table_make(struct store_table *t, const char *path, const struct store_kind *k, unsigned bits,
                     struct err *e) {
    return make(t, path, k, bits, NULL, e);
}

int store_table_map(struct store_table *t, const char *path, const struct store_kind *k, struct err *e) {
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = 2;
    if (fd < 0)
        return errno == ENOENT ? 1 : err_sys(e, errno, "cannot open the draft store %s", path);
    uint8_t *map = MAP_FAILED;
    size_t n = 0;
    if (fstat(fd, &st) != 0) {
        rc = err_sys(e, errno, "cannot read %s", path);
        goto out;
    }
    n = (size_t)st.st_size;
    if (!S_ISREG(st.st_mode) || n < STORE_TABLE_HEAD || n - STORE_TABLE_HEAD > ngram_bytes(NGRAM_MAX_BITS))
        goto out;
    map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        rc = err_sys(e, errno, "cannot map %s", path);
        goto out;
    }
    if (!store_table_sound(map, n, k))
        goto out;
    settle(t, map, n, st.st_ino);
    map = MAP_FAILED;
    rc = 0;
out:
    if (map != MAP_FAILED)
        munmap(map, n);
    close(fd);
    return rc;
}

void store_table_close(struct store_table *t) {
    if (t->map && t->inode == 0)
        wipe(t->map, t->n); /* a file keeps what it holds */
    if (t->map) {
        store_guard_remove(t->guard);
        munmap(t->map, t->n);
    }
    *t = (struct store_table){0};
}

int store_table_grow(struct store_table *t, const char *path, const struct store_kind *k, struct err *e) {
    struct store_table larger;
    if (make(&larger, path, k, t->ngrams.bits + 1, t, e) != 0)
        return -1;
    store_table_close(t);
    *t = larger;
    return 0;
}
