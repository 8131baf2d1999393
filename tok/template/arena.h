/* tok/template/arena.h - memory of one parsed template or of one rendering: allocated piecewise, released at once.
 *
 * What a rendering holds is prompt text, so releasing wipes. The total is bounded; the first allocation that fails, or
 * would pass the bound, sets `bad` and every later one fails too, so callers may check late. */
#ifndef TOK_TEMPLATE_ARENA_H
#define TOK_TEMPLATE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct tarena_block;

struct tarena {
    struct tarena_block *top;
    size_t total, max; /* bytes taken from malloc, and their bound */
    bool bad;
};

/* n zeroed bytes, aligned for any object; NULL when out of memory or over the bound. Zero bytes give a valid pointer.
 */
void *tarena_alloc(struct tarena *a, size_t n);
/* The same for an array; also NULL when n * size overflows. */
void *tarena_array(struct tarena *a, size_t n, size_t size);
/* A copy of n bytes with a NUL behind it. */
char *tarena_copy(struct tarena *a, const char *p, size_t n);
/* Room for one more element in an arena array that grows by doubling: *p and *cap are updated. 0 or -1. */
int tarena_grow(struct tarena *a, void **p, size_t n, size_t *cap, size_t size);
/* Wipes and releases all of it; a is as new, its bound kept. */
void tarena_free(struct tarena *a);

#endif
