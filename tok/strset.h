/* tok/strset.h - a set of strings that answers which of them, the longest, starts a text: added tokens and
 * user-defined symbols. Building is O(total length * log n), a query O(matched length * log n). */
#ifndef TOK_STRSET_H
#define TOK_STRSET_H

#include "core/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct strset {
    struct strset_entry {
        uint32_t off, len;
        uint32_t value;
    } * e;
    size_t n, cap;
    uint8_t *bytes;
    size_t n_bytes, cap_bytes;
    uint32_t first[257]; /* entries that start with byte b: first[b] .. first[b+1]-1 */
};

/* Adds a copy of a string that is not empty. */
int strset_add(struct strset *s, const void *p, size_t n, uint32_t value, struct err *e);
/* Once, after the last add. Of equal strings the first added is found. */
void strset_seal(struct strset *s);
/* Bytes of the longest member that the text starts with, its value in *value; 0: none. */
size_t strset_match(const struct strset *s, const void *text, size_t n, uint32_t *value);
/* The value of exactly this string, or UINT32_MAX. */
uint32_t strset_find(const struct strset *s, const void *p, size_t n);
void strset_free(struct strset *s);

#endif
