/* tok/template/str.h - strings of the template interpreter: bytes that remember where they came from.
 *
 * Each byte is either the template's (or another trusted part's) or came out of user data. The mark goes with the byte
 * through every operation, so that a rendered prompt can say which stretches may hold special tokens. Strings are views
 * into arenas, immutable, not NUL-terminated; slicing copies nothing. Text should be UTF-8; a byte that belongs to no
 * valid sequence counts as one character and is passed through. Knows nothing of templates. */
#ifndef TOK_TEMPLATE_STR_H
#define TOK_TEMPLATE_STR_H

#include "tok/template/arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tstr {
    const char *p;
    const uint8_t *mark; /* n flags (1: from user data), or NULL when all bytes have the flag `user` */
    size_t n;
    bool user;
    bool safe; /* what the `safe` and `escape` filters give: Jinja's Markup */
};

struct tstr tstr_lit(const char *s);                       /* the program's own text */
struct tstr tstr_of(const char *p, size_t n, bool user);   /* borrowed */
struct tstr tstr_sub(struct tstr s, size_t off, size_t n); /* off + n <= s.n */
bool tstr_has_user(struct tstr s);
bool tstr_is(struct tstr s, const char *lit);
bool tstr_eq(struct tstr a, struct tstr b);
int tstr_cmp(struct tstr a, struct tstr b); /* by code point */
/* Which of the words of "a b c" s is, or -1. */
int tstr_word(struct tstr s, const char *words);

/* Characters. */
enum { TSTR_INVALID = 0x110000 }; /* code point of a byte that is not part of valid UTF-8 */
/* Bytes of the character at p (n > 0 bytes there); *cp its code point, or TSTR_INVALID. */
size_t tstr_next(const char *p, size_t n, uint32_t *cp);
/* Bytes of the character that ends at p + n. */
size_t tstr_prev(const char *p, size_t n, uint32_t *cp);
size_t tstr_chars(struct tstr s);
/* Byte offset of character number k, k <= tstr_chars(s). */
size_t tstr_offset(struct tstr s, size_t k);
/* Writes 1 to 4 bytes; cp <= 0x10FFFF. */
size_t tstr_encode(char out[4], uint32_t cp);
bool tstr_space(uint32_t cp);     /* Python's str.isspace */
bool tstr_printable(uint32_t cp); /* Python's str.isprintable */

/* Offset of the first (last) occurrence of needle at or after from, or SIZE_MAX. An empty needle is found at once. */
size_t tstr_find(struct tstr s, struct tstr needle, size_t from);
size_t tstr_rfind(struct tstr s, struct tstr needle);
/* Strips white space, or the characters of *chars, off the sides asked for. */
struct tstr tstr_strip(struct tstr s, const struct tstr *chars, bool left, bool right);

/* Collects text. Zero but for a (and max, 0: no bound of its own). Failures are sticky: see tsink_ok. */
struct tsink {
    struct tarena *a;
    char *p;
    uint8_t *mark;
    size_t n, cap, max;
    bool user; /* of all bytes so far, while mark is NULL */
    bool over; /* max was passed */
};
void tsink_put(struct tsink *k, struct tstr s);
void tsink_bytes(struct tsink *k, const char *p, size_t n, bool user);
void tsink_char(struct tsink *k, uint32_t cp, bool user);
void tsink_lit(struct tsink *k, const char *s);
bool tsink_ok(const struct tsink *k);
struct tstr tsink_str(const struct tsink *k); /* valid until the next put */

enum tstr_case { TSTR_UPPER, TSTR_LOWER, TSTR_CAPITALIZE, TSTR_TITLE };
/* Python's upper(), lower(), capitalize() and title(). */
void tstr_case(struct tsink *k, struct tstr s, enum tstr_case how);

#endif
