/* cmd/bench/traces.h - recorded answers as tokens: files of lines {"id", "prompt", "output"}, or plain text to prime
 * with. */
#ifndef CMD_BENCH_TRACES_H
#define CMD_BENCH_TRACES_H

#include "core/base/err.h"
#include "tok/tokenizer.h"

struct trace {
    uint64_t prompt_hash;
    uint32_t *tokens; /* prompt, as the chat template frames it, and answer */
    uint32_t n_prompt, n;
};

struct traces {
    struct trace *at;
    int n;
};

/* Appends the answers of a file whose first character is '{'; of any other file the whole text, as one answer without a
 * prompt. */
int traces_read(struct traces *t, const char *path, const struct tokenizer *tok, struct err *e);
void traces_free(struct traces *t);

#endif
