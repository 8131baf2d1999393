/* core/draft/context.h - which contexts tokens are counted in: the last one, the last two, ... and some with a gap,
 * which help where little was seen. Session and store count in the same way. */
#ifndef CORE_DRAFT_CONTEXT_H
#define CORE_DRAFT_CONTEXT_H

#include "core/draft/ngram.h"

#include <stdint.h>

enum { CONTEXT_REACH = 6 }; /* tokens that a context reaches back */

enum context_kind { /* from the weakest to the most specific */
                    CONTEXT_0,
                    CONTEXT_SKIP2, /* the one before the last */
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
/* token stands behind the contexts c, of which those in wanted are counted, from the most specific down. Where it was
 * known there, the less specific ones learn nothing: they are asked in other surroundings than these (Kneser and Ney
 * 1995; Moffat 1990, update exclusion). keep: see ngram_add. */
void contexts_count(const struct ngram_table *t, const struct contexts *c, unsigned wanted, uint32_t token,
                    uint32_t unit, unsigned keep);
/* Lines that the successors of a context may spread over. */
int context_lines(enum context_kind k);

#endif
