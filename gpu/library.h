/* gpu/library.h - shared libraries opened at run time: NVIDIA's. A static binary must not do that, and gets
 * library_none.c instead. */
#ifndef GPU_LIBRARY_H
#define GPU_LIBRARY_H

#include "core/base/err.h"

/* The first of names (NULL-terminated) that can be opened, never closed again. NULL with ERR_DEVICE: what was looked
 * for and why the last one could not be had. */
void *library_open(const char *const *names, struct err *e);
/* NULL: the library has no such function. */
void *library_function(void *library, const char *name);

#endif
