#include "net/home.h"

#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int home_check(const char *home, bool *exists, struct err *e) {
    struct stat st;
    *exists = false;
    if (stat(home, &st) != 0) {
        if (errno == ENOENT)
            return 0;
        return err_sys(e, errno, "cannot use %s as the directory of splitinf's own files (--home DIR names another)",
                       home);
    }
    *exists = true;
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s is no directory; --home DIR names another one", home);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(e, ERR_CRYPTO,
                       "others may write to %s, and so put keys and pins of theirs there; type: chmod go-w %s", home,
                       home);
    return 0;
}

int home_make(const char *home, struct err *e) {
    char path[HOME_PATH];
    bool exists;
    size_t n = strlen(home);
    if (n == 0 || n >= sizeof path)
        return err_set(e, ERR_USAGE, "--home: '%.100s' is no usable path", home);
    if (home_check(home, &exists, e) != 0)
        return -1;
    if (exists)
        return 0;
    for (size_t i = 1; i <= n; i++) {
        if (home[i] != '/' && home[i] != '\0')
            continue;
        memcpy(path, home, i);
        path[i] = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return err_sys(e, errno, "cannot make the directory %s for splitinf's own files (--home DIR names another)",
                           path);
    }
    return 0;
}

int home_lock(const char *home, struct err *e) {
    char path[HOME_PATH];
    if (file_join(path, sizeof path, home, "lock", e) != 0)
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, errno, "cannot write to %s", path);
    while (flock(fd, LOCK_EX) != 0) {
        if (errno == EINTR)
            continue;
        err_sys(e, errno, "cannot lock %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

void home_unlock(int fd) {
    if (fd >= 0)
        close(fd);
}

static int write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno != EINTR)
            return -1;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
    }
    return 0;
}

int home_write(const char *path, const void *data, size_t n, struct err *e) {
    char fresh[HOME_PATH + 8], parent[HOME_PATH + 8];
    if (strlen(path) >= HOME_PATH)
        return err_set(e, ERR_USAGE, "path too long: %.200s", path);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    snprintf(parent, sizeof parent, "%s", path);
    unlink(fresh); /* of a process that died */
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "cannot write %s", fresh);
    int failed = write_all(fd, data, n) != 0 || fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && !failed)
        failed = errno;
    if (!failed && rename(fresh, path) != 0)
        failed = errno;
    if (failed) {
        unlink(fresh);
        return err_sys(e, failed, "cannot write %s", path);
    }
    int dir = open(dirname(parent), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
        fsync(dir); /* a file system that cannot do that is no reason to fail */
        close(dir);
    }
    return 0;
}
