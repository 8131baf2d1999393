/* core/draft/context.h - which contexts tokens are counted in: the last one, the last two, ... and some with a gap, which
 * help where little was seen. Session and store count in the same way. */
#ifndef CORE_DRAFT_CONTEXT_H
#define CORE_DRAFT_CONTEXT_H

#include <stdint.h>

enum { CONTEXT_REACH = 6 }; /* tokens that a context reaches back */

enum context_kind { /* from the weakest to the most specific */
    CONTEXT_0,
    CONTEXT_SKIP2,  /* the one before the last */
    CONTEXT_1,
    CONTEXT_SKIP13, /* the last and the third last */
    CONTEXT_2,
    CONTEXT_3,
    CONTEXT_4,
    CONTEXT_5,
    CONTEXT_6,
    N_CONTEXTS
};

struct contexts {
    uint64_t hash[N_CONTEXTS];
    unsigned have; /* bits 1 << kind: those that the text is long enough for */
};

/* The contexts of what follows tail[0..n); only the last CONTEXT_REACH count. */
void contexts_of(struct contexts *c, const uint32_t *tail, uint32_t n);
/* Lines that the successors of a context may spread over. */
int context_lines(enum context_kind k);

#endif
