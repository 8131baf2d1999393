/* test/unit/oracle.h - drafters that know the answer, or harm. One that knows is right at a position or is not, by a
 * hash of (seed, position), so that its accuracy is known and equal in every run. */
#ifndef TEST_ORACLE_H
#define TEST_ORACLE_H

#include "core/decode/session.h"

enum oracle_kind {
    ORACLE_HONEST,       /* says its accuracy as probability */
    ORACLE_BRAGS,        /* says 0.95 whatever it is */
    ORACLE_REPEATS,      /* the same node many times */
    ORACLE_OUT_OF_RANGE, /* tokens, parents and probabilities that cannot be */
    ORACLE_DEEP,         /* one chain, sure of it */
    ORACLE_WIDE,         /* children of the root alone */
    ORACLE_RANDOM,       /* any tree */
    N_ORACLE_KINDS
};

enum { ORACLE_MAX_CTX = 4096 };

struct oracle {
    enum oracle_kind kind;
    const uint32_t *truth; /* prompt and answer; borrowed */
    int n_truth;
    uint32_t vocab;
    double accuracy;
    int width; /* candidates per position, of which the first may be right; 0: 1 */
    uint32_t seed;
    bool ahead; /* drafts on while the session waits: three nodes at once, and as many as there are in a pass */
    /* its own */
    uint32_t context[ORACLE_MAX_CTX];
    int n;
    struct session_drafter drafter;
    uint64_t grown, passes, outcomes, heard;
};

/* The other fields are set. For session_opts.speculation. */
const struct session_drafter *oracle_drafter(struct oracle *o);

#endif
