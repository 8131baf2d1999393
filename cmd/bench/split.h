/* cmd/bench/split.h - a split model over distances: modes x round trips x bandwidths x codecs x prompts. */
#ifndef CMD_BENCH_SPLIT_H
#define CMD_BENCH_SPLIT_H

#include "cmd/engine/engine.h"

struct bench_split_opts {
    const char *mode, *rtt, *mbit, *codec; /* lists; rtt NULL: 0,20,80, or none before a real cloud */
    const char *nodes;                     /* a list; NULL: what a session takes by itself */
    const char *prompts;                   /* a file; NULL: those of the program */
    const char *replay;                    /* recorded answers to follow; NULL: none */
    int answers;                           /* of replay; 0: 8 */
    struct strings prime;                  /* borrowed */
    const char *draft;                     /* a small model that guesses too; NULL: none */
    const char *out;                       /* a directory for reports; NULL: none */
    int tokens, repeat;                    /* of each answer; times that it is made */
    double temperature;
    uint64_t seed;
    bool json;
};
extern const struct opt bench_split_options[];

/* Measures and prints a table, or one JSON object, on standard output. Returns the exit status, or -1 with e set: 1
 * when an answer differed from that of sequential decoding. Ctrl-C ends the measuring; what there is until then is
 * printed.
 */
int bench_split(const struct engine_opts *engine, const struct bench_split_opts *o, struct err *e);

#endif
