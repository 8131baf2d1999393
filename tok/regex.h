/* tok/regex.h - the regular expressions of tokenizer files, over PCRE2. A pattern is hostile input: what means
 * something else in PCRE2 than in the engine it was written for is translated, or refused by name; matching is bounded.
 */
#ifndef TOK_REGEX_H
#define TOK_REGEX_H

#include "core/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct regex;
struct regex_scratch; /* per encode call; regexes themselves are shared between threads */

enum regex_dialect {
    REGEX_ONIG,  /* tokenizer.json: Oniguruma, Ruby syntax */
    REGEX_FANCY, /* tekken.json: Rust fancy-regex */
};

int regex_compile(struct regex **out, const char *pattern, size_t n, enum regex_dialect dialect, struct err *e);
void regex_free(struct regex *r);

struct regex_scratch *regex_scratch_new(struct err *e);
void regex_scratch_free(struct regex_scratch *s);

/* The first match at or after from in the n bytes at p, which are valid UTF-8: 1 with *start and *end, 0 for none,
 * -1 with e when a limit of the engine was hit. */
int regex_find(const struct regex *r, struct regex_scratch *s, const uint8_t *p, size_t n, size_t from, size_t *start,
               size_t *end, struct err *e);

#endif
