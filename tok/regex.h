/* tok/regex.h - the regular expressions of tokenizer files, over PCRE2. A pattern is hostile input: what means
 * something else in PCRE2 than in the engine it was written for is translated, or refused by name; matching is bounded.
 */
#ifndef TOK_REGEX_H
#define TOK_REGEX_H

#include "core/base/err.h"

#include <stdbool.h>
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

/* All matches, one after the other, in n bytes of valid UTF-8. An empty match right behind the one before does not
 * count. */
struct regex_iter {
    const struct regex *r;
    struct regex_scratch *s;
    const uint8_t *p;
    size_t n;
    size_t start, end; /* of the match found */
    size_t from;       /* where the next one is looked for */
    bool any;          /* there was one, which ended at end */
};
struct regex_iter regex_iter_of(const struct regex *r, struct regex_scratch *s, const uint8_t *p, size_t n);
/* 1: the next match stands in start and end; 0: there is none; -1 with e: the engine's limit of steps was hit. */
int regex_next(struct regex_iter *m, struct err *e);

#endif
