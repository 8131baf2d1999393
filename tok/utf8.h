/* tok/utf8.h - strict UTF-8 (no surrogates, nothing overlong, nothing over U+10FFFF) over bytes that may be anything.
 */
#ifndef TOK_UTF8_H
#define TOK_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the valid character at p (n > 0 bytes are there), 0 when there is none. *cp may be NULL. */
size_t utf8_char(const uint8_t *p, size_t n, uint32_t *cp);
/* When the n bytes at p (1 to 3) are a proper start of a character that needs more: 1, else 0. */
int utf8_partial(const uint8_t *p, size_t n);
/* Writes cp (a valid one) to p, returns its length. */
size_t utf8_put(uint8_t p[4], uint32_t cp);
/* Length of the longest valid prefix of n bytes at p. */
size_t utf8_valid_prefix(const uint8_t *p, size_t n);

#endif
