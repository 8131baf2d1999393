/* core/base/file.h - read-only files: mapped (weights) or read whole (configuration, tokenizers). */
#ifndef CORE_BASE_FILE_H
#define CORE_BASE_FILE_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A read-only private mapping. Reading past the end of a file that shrank meanwhile raises SIGBUS as with any mmap;
 * parsers compare every offset with n first. */
struct file_map {
    const uint8_t *p; /* NULL for an empty file */
    size_t n;
};

int file_map(struct file_map *m, const char *path, struct err *e);
void file_unmap(struct file_map *m);

/* Reads a whole regular file of at most max bytes. *data is malloc'ed, has a NUL behind its *n bytes, caller frees. */
int file_read(const char *path, size_t max, char **data, size_t *n, struct err *e);

/* dir + "/" + name into out; -1 with e when it does not fit. */
int file_join(char *out, size_t cap, const char *dir, const char *name, struct err *e);
bool file_exists(const char *path);
bool file_is_dir(const char *path);

#endif
