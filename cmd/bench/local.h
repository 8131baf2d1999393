/* cmd/bench/local.h - how fast this machine alone reads a prompt and writes an answer with a model. */
#ifndef CMD_BENCH_LOCAL_H
#define CMD_BENCH_LOCAL_H

#include "cmd/engine/engine.h"

struct bench_local_opts {
    int prefill; /* tokens of the prompt */
    int tokens;  /* tokens generated behind it */
    int repeat;
    bool json;
};

/* Loads the model of o (no tokenizer is needed: the tokens are pseudo-random) and measures. Prints a table, or one JSON
 * object, on standard output. */
int bench_local(const struct engine_opts *o, const struct bench_local_opts *b, struct err *e);

#endif
