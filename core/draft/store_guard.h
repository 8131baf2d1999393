/* core/draft/store_guard.h - a mapped file may lose its end while it is mapped (another program cuts it) or a page of
 * it may be out of reach (a bad disk, a full one under a sparse file). The kernel answers the next touch with SIGBUS.
 * For the store's files that must not end the process: what cannot be read is worth nothing, and any content is valid.
 * So a guarded range that faults becomes zeros from there to its end, and its owner can ask whether that happened.
 *
 * Installs a handler for SIGBUS with the first range; faults elsewhere go where they went before. For store*.c only. */
#ifndef CORE_DRAFT_STORE_GUARD_H
#define CORE_DRAFT_STORE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* p[0..n) is a mapping, page aligned. A handle for the other two, or -1: so many ranges are not guarded at once, and
 * this one is not. */
int store_guard_add(void *p, size_t n);
void store_guard_remove(int guard); /* before the range is unmapped; -1 is fine */
/* Did it fault? */
bool store_guard_hit(int guard);

#endif
