/* test/fuzz/tok_fuzz.h - what the fuzz targets of tokenizer files have in common. */
#ifndef TEST_FUZZ_TOK_FUZZ_H
#define TEST_FUZZ_TOK_FUZZ_H

#include "tok/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static inline void tok_fuzz_check(int holds) {
    if (!holds)
        abort();
}

/* After a parse: an error is complete, a tokenizer works. */
static inline void tok_fuzz_use(int rc, struct tokenizer *t, struct err *e) {
    static const char text[] =
        "Hello, the \xc3\xa9t\xc3\xa9  world</s><s>\n\t\xe2\x96\x81 1234 \xff\xe4\xbd\xa0 don't abababab <|im_end|>";
    if (rc != 0) {
        tok_fuzz_check(!t && e->kind != ERR_NONE && e->msg[0]);
        return;
    }
    tok_fuzz_check(t && e->kind == ERR_NONE && tokenizer_n(t) > 0);
    tok_fuzz_check(tokenizer_bos(t) < (int)tokenizer_n(t) && tokenizer_eos(t) < (int)tokenizer_n(t));
    for (int flags = 0; flags < 8; flags++) {
        struct ids v = {0};
        struct wbuf w = {0};
        if (tokenizer_encode(t, text, sizeof text - 1, flags, &v, e) == 0) {
            for (size_t i = 0; i < v.n; i++)
                tok_fuzz_check(v.p[i] < tokenizer_n(t));
            tok_fuzz_check(tokenizer_decode(t, v.p, v.n, flags & 1, &w, e) == 0);
        }
        ids_free(&v);
        wbuf_free(&w);
    }
    tokenizer_free(t);
}

#endif
