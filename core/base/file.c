#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file; its size in *n. Returns the descriptor or -1. */
static int open_regular(const char *path, size_t *n, struct err *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    struct stat st;
    if (fd < 0)
        return err_sys(e, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0) {
        err_sys(e, errno, "cannot read %s", path);
    } else if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_IO, "%s is not a regular file", path);
    } else {
        *n = (size_t)st.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

int file_map(struct file_map *m, const char *path, struct err *e) {
    *m = (struct file_map){0};
    size_t n = 0;
    int fd = open_regular(path, &n, e);
    if (fd < 0)
        return -1;
    void *p = n ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int errnum = errno;
    close(fd);
    if (p == MAP_FAILED)
        return err_sys(e, errnum, "cannot map %s", path);
    m->p = p;
    m->n = n;
    return 0;
}

void file_unmap(struct file_map *m) {
    if (m->p)
        munmap((void *)(uintptr_t)m->p, m->n);
    *m = (struct file_map){0};
}

int file_read(const char *path, size_t max, char **data, size_t *n, struct err *e) {
    *data = NULL;
    *n = 0;
    size_t size = 0, got = 0;
    int rc = -1;
    char *p = NULL;
    int fd = open_regular(path, &size, e);
    if (fd < 0)
        return -1;
    if (size > max) {
        err_set(e, ERR_IO, "%s has %zu bytes; at most %zu are read", path, size, max);
        goto out;
    }
    p = malloc(size + 1);
    if (!p) {
        err_set(e, ERR_MEMORY, "out of memory reading %s (%zu bytes)", path, size);
        goto out;
    }
    while (got < size) {
        ssize_t k = read(fd, p + got, size - got);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            err_sys(e, errno, "cannot read %s", path);
            goto out;
        }
        if (k == 0)
            break; /* the file shrank while we read: what is there is what there is */
        got += (size_t)k;
    }
    p[got] = '\0';
    *data = p;
    *n = got;
    p = NULL;
    rc = 0;
out:
    free(p);
    close(fd);
    return rc;
}

int file_join(char *out, size_t cap, const char *dir, const char *name, struct err *e) {
    int n = snprintf(out, cap, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= cap)
        return err_set(e, ERR_USAGE, "path too long: %.200s/%.100s", dir, name);
    return 0;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}
