/* tok/normalize.h - the normalizers of tokenizer.json: a list of steps over text. Text is any bytes: stretches that are
 * no UTF-8 pass unchanged. */
#ifndef TOK_NORMALIZE_H
#define TOK_NORMALIZE_H

#include "core/base/buf.h"
#include "core/base/err.h"
#include "tok/regex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct norm_step {
    enum norm_kind {
        NORM_NFC,
        NORM_NFD,
        NORM_NFKC,
        NORM_NFKD,
        NORM_LOWERCASE,
        NORM_STRIP,
        NORM_PREPEND,
        NORM_REPLACE
    } kind;
    bool left, right; /* strip */
    char *from;       /* replace: this text, unless there is a regex */
    size_t n_from;
    struct regex *regex;
    char *to; /* replace, prepend */
    size_t n_to;
};

#define NORM_MAX_STEPS 32
#define NORM_MAX_TEXT  ((size_t)1 << 30) /* offsets in normalised text have 32 bits */

/* Bytes that n may become: a rule in a hostile file could blow the text up without end. */
static inline size_t norm_bound(size_t n) {
    return n < NORM_MAX_TEXT / 64 ? 64 * n + 4096 : NORM_MAX_TEXT;
}

struct norm {
    struct norm_step step[NORM_MAX_STEPS];
    int n;
};

/* Appends the normalised form of n bytes to out. prefix false leaves the prepend steps out. scratch is needed when a
 * step has a regex. */
int norm_run(const struct norm *m, struct regex_scratch *scratch, const uint8_t *p, size_t n, bool prefix,
             struct wbuf *out, struct err *e);
void norm_free(struct norm *m);

/* White_Space, as Rust's char::is_whitespace. */
bool unicode_is_space(uint32_t cp);
/* What Rust's regex crate takes for \w. */
bool unicode_is_word(uint32_t cp);

#endif
