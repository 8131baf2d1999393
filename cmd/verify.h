/* cmd/verify.h - what the rooms of the verify command share. */
#ifndef CMD_VERIFY_H
#define CMD_VERIFY_H

#include "cmd/engine.h"
#include "cmd/loopback.h"

/* Commits a cloud to what its layers computed for n tokens (a window from position 0), opens `rounds` layers chosen at
 * random and computes each of them from this machine's own weights. The three parts of en are loaded; m is a remote
 * middle in which nothing is in flight. Prints a line per layer to standard output unless quiet. -1 with ERR_PEER: the
 * cloud was caught. *worst: the largest relative L2 of a row. */
int verify_audit(struct engine *en, struct middle *m, const struct part *middle, const uint32_t *tokens, int n,
                 int rounds, bool quiet, double *worst, struct err *e);

#endif
