#include "core/draft/store_files.h"

#include "core/base/clock.h"
#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, MAX_LOCKS = 256 };
static const char prefix[] = "drafts-", lock_end[] = ".lock", log_end[] = ".log";

int store_paths_of(struct store_paths *p, const char *dir, uint64_t tokenizer, struct err *e) {
    static const char *const ends[] = {log_end, ".table", lock_end};
    char *const to[] = {p->log, p->table, p->lock};
    char name[64];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%016" PRIx64 "%s", prefix, tokenizer, ends[i]);
        if (file_join(to[i], STORE_PATH, dir, name, e) != 0)
            return -1;
    }
    return 0;
}

/* Whether fd is still the file of that name: whoever forgets a store deletes the lock as well, while holding it. */
static bool is_current(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int store_lock(const char *path, struct err *e) {
    double end = clock_ms() + PATIENCE_MS;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0)
            return err_sys(e, errno, "cannot open %s", path);
        int rc = flock(fd, LOCK_EX | LOCK_NB), why = errno;
        if (rc == 0 && is_current(fd, path))
            return fd;
        close(fd);
        if (rc != 0 && why != EWOULDBLOCK && why != EINTR)
            return err_sys(e, why, "cannot lock %s", path);
        if (clock_ms() > end)
            return err_set(e, ERR_IO, "another process has held %s for %d seconds", path, PATIENCE_MS / 1000);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0;
}

/* Calls f for each file of a store in d. */
static int each(DIR *d, int (*f)(void *ctx, int dir, const char *name, struct err *e), void *ctx, struct err *e) {
    int rc = 0;
    rewinddir(d);
    for (struct dirent *x; (x = readdir(d));)
        if (strncmp(x->d_name, prefix, strlen(prefix)) == 0 && f(ctx, dirfd(d), x->d_name, e) != 0)
            rc = -1;
    return rc;
}

struct forgetting {
    const char *dir;
    struct draft_store_forgotten *done;
    int locks[MAX_LOCKS], n_locks;
};

static int take_lock(void *ctx, int dir, const char *name, struct err *e) {
    struct forgetting *f = ctx;
    char path[STORE_PATH];
    (void)dir;
    if (!ends_with(name, lock_end) || f->n_locks == MAX_LOCKS)
        return 0;
    int fd = file_join(path, sizeof path, f->dir, name, e) == 0 ? store_lock(path, e) : -1;
    if (fd < 0)
        return -1;
    f->locks[f->n_locks++] = fd;
    return 0;
}

static int delete_file(void *ctx, int dir, const char *name, struct err *e) {
    struct forgetting *f = ctx;
    struct stat st;
    bool sized = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (unlinkat(dir, name, 0) != 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "cannot delete %s/%s", f->dir, name);
    f->done->n += ends_with(name, log_end);
    f->done->bytes += sized ? (uint64_t)st.st_size : 0;
    return 0;
}

int draft_store_forget(const char *dir, struct draft_store_forgotten *done, struct err *e) {
    struct forgetting f = {.dir = dir, .done = done};
    DIR *d = opendir(dir);
    *done = (struct draft_store_forgotten){0};
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, errno, "cannot read the directory %s", dir);
    /* Under the locks, so that nobody renames into place what was just deleted. */
    int rc = each(d, take_lock, &f, e);
    if (rc == 0)
        rc = each(d, delete_file, &f, e);
    for (int i = 0; i < f.n_locks; i++)
        close(f.locks[i]);
    closedir(d);
    return rc;
}
