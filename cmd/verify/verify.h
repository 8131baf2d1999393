/* cmd/verify/verify.h - what the rooms of the verify command share. */
#ifndef CMD_VERIFY_VERIFY_H
#define CMD_VERIFY_VERIFY_H

#include "cmd/engine/engine.h"
#include "cmd/engine/loopback.h"
#include "net/wire.h"

struct audit_report {
    char backend[WIRE_MAX_BACKEND + 1]; /* what the cloud says of itself, */
    double tolerance;                   /* and what it is allowed for that: relative L2 of a row; 0: equal bits */
    double worst;                       /* the largest of all rows */
    int n_rows;                         /* positions of the window */
    int n_layers;                       /* opened and found right */
};

/* Between unlike backends: the relative L2 distance that the logits of a position may have, where both round
 * activations alike; where one of them does so for --math fast; and with fp8 keys and values. docs/threat-model.md has
 * the measurements behind them. */
#define VERIFY_NEAR      2e-2
#define VERIFY_NEAR_FAST 5e-2
#define VERIFY_NEAR_FP8  2e-1

struct near_report {
    double worst; /* distance of a position */
    int at;       /* the first position that is further off than `most`; -1: none */
};

/* Continues prompt by n_tokens likeliest tokens of `alone` in both sessions and compares the logits of each position.
 */
int verify_near(struct session *alone, struct session *split, const struct ids *prompt, int n_tokens, int vocab,
                double most, struct near_report *r, struct err *e);

/* Commits a cloud to what its layers computed for n tokens (a window from position 0; fewer when it takes no window of
 * n), opens `rounds` layers chosen at
 * random and computes each of them from this machine's own weights, on the CPU where the cloud's math is not this
 * machine's. The three parts of en are loaded; m is a remote
 * middle in which nothing is in flight. Prints a line per layer to standard output unless quiet. -1 with ERR_PEER: the
 * cloud was caught; ERR_NONE: stopped. */
int verify_audit(struct engine *en, struct middle *m, const struct part *middle, const uint32_t *tokens, int n,
                 int rounds, bool quiet, struct audit_report *report, struct err *e);

#endif
