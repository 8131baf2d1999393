/* core/base/wipe.h - the one function that erases secrets: prompts, tokens, activations, KV, keys. */
#ifndef CORE_BASE_WIPE_H
#define CORE_BASE_WIPE_H

#include <stddef.h>

/* Overwrites n bytes with zeros in a way that the compiler may not remove. p may be NULL when n is 0. */
void wipe(void *p, size_t n);

/* Wipes n bytes and frees p. NULL is fine. */
void wipe_free(void *p, size_t n);

#endif
