/* net/home.h - the directory in which splitinf keeps its own files: made with mode 0700, files with 0600, replaced as a
 * whole so that no reader and no crash sees a half. For identity.c and pin_list.c. */
#ifndef NET_HOME_H
#define NET_HOME_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { HOME_PATH = 4096 };

/* Refuses what is no directory, and one that others may write to. *exists false: it is not there, which is no error. */
int home_check(const char *home, bool *exists, struct err *e);
/* The same, and makes the directory and its parents when they are missing. */
int home_make(const char *home, struct err *e);
/* Waits until no other process writes here. A descriptor, or -1; home_unlock(-1) does nothing. */
int home_lock(const char *home, struct err *e);
void home_unlock(int fd);
/* Writes to path + ".new", under home_lock, then renames; both are on the disk when it returns. */
int home_write(const char *path, const void *data, size_t n, struct err *e);

#endif
