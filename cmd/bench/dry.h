/* cmd/bench/dry.h - tokens per round trip on recorded answers, without a model: how well drafts guess real text. */
#ifndef CMD_BENCH_DRY_H
#define CMD_BENCH_DRY_H

#include "cmd/options.h"
#include "core/base/err.h"

#include <stdbool.h>

struct bench_dry_opts {
    bool dry;
    const char *replay, *tokenizer;
    struct strings prime;
    const char *nodes; /* "4,8,16" */
    int answers;       /* measured at most, spread over the file; 0: all */
    int folds;
    const char *out; /* a directory for reports; NULL: none */
    bool json;
};
extern const struct opt bench_dry_options[];

/* Prints a table, or one JSON object {"machine", "rows"}, on standard output. */
int bench_dry(const struct bench_dry_opts *o, struct err *e);

#endif
