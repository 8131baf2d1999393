/* tok/pretok.h - pre-tokenizers: text cut into words, inside which alone merges happen. A list of splitting steps, each
 * of which cuts what the one before it left. Text is any bytes: a stretch that is no UTF-8 is a word of its own. */
#ifndef TOK_PRETOK_H
#define TOK_PRETOK_H

#include "core/base/err.h"
#include "tok/regex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pretok_step {
    struct regex *regex;
    bool invert; /* what the regex does not match is the delimiter */
    enum pretok_behavior {
        SPLIT_ISOLATED,
        SPLIT_REMOVED,
        SPLIT_WITH_PREVIOUS,
        SPLIT_WITH_NEXT,
        SPLIT_CONTIGUOUS
    } behavior;
};

#define PRETOK_MAX_STEPS 32

struct pretok {
    struct pretok_step step[PRETOK_MAX_STEPS];
    int n;
};

struct span {
    uint32_t from, to;
};

struct spans {
    struct span *p;
    size_t n, cap;
    bool bad;
};

void spans_push(struct spans *v, size_t from, size_t to);
void spans_free(struct spans *v);

/* The words of n bytes (fewer than 2^32) in *words, in order; tmp is scratch. Both are cleared first. */
int pretok_run(const struct pretok *m, struct regex_scratch *scratch, const uint8_t *p, size_t n, struct spans *words,
               struct spans *tmp, struct err *e);
void pretok_free(struct pretok *m);

#endif
