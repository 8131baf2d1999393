/* core/draft/store_files.h - where a store's files lie, who may write to them, and how all of them go. For store.c
 * only. */
#ifndef CORE_DRAFT_STORE_FILES_H
#define CORE_DRAFT_STORE_FILES_H

#include "core/base/err.h"
#include "core/draft/store.h"

#include <stdint.h>

enum { STORE_PATH = 4096 };

struct store_paths {
    char log[STORE_PATH], table[STORE_PATH], lock[STORE_PATH];
};

int store_paths_of(struct store_paths *p, const char *dir, uint64_t tokenizer, struct err *e);

/* Waits until nobody else writes here, and gives up after some seconds: whoever stopped in the middle of it must not
 * stop us. A descriptor, which is closed to let others in, or -1. */
int store_lock(const char *path, struct err *e);

#endif
