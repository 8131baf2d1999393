/* core/draft/suffix.h - the suffix automaton of a growing list of tokens: for any text, the longest of its suffixes
 * that occurred in the list, and what stood behind it there. Amortised constant time for each token (Blumer et al.
 * 1985, The smallest automaton recognizing the subwords of a text); memory is taken at creation. */
#ifndef CORE_DRAFT_SUFFIX_H
#define CORE_DRAFT_SUFFIX_H

#include "core/base/err.h"

#include <stdint.h>

struct suffix;

/* A position in the automaton: the state of a text that occurs in the list. */
struct suffix_match {
    uint32_t state;
    uint32_t len; /* tokens of the longest suffix that occurs; 0: none */
};

uint64_t suffix_bytes(uint32_t max_tokens);
int suffix_create(struct suffix **out, uint32_t max_tokens, struct err *e);
void suffix_free(struct suffix *s); /* wipes */
void suffix_clear(struct suffix *s);
/* One more token; beyond max_tokens nothing is added. */
void suffix_add(struct suffix *s, uint32_t token);
uint32_t suffix_n(const struct suffix *s);

/* The longest suffix of the whole list that also ends earlier in it. */
struct suffix_match suffix_here(const struct suffix *s);
/* The longest suffix of (m's text + token) that occurs. */
struct suffix_match suffix_step(const struct suffix *s, struct suffix_match m, uint32_t token);
/* Where an occurrence of m ends in the list (as late a one as is known): the index of the token behind it. At most
 * suffix_n; m.len > 0. */
uint32_t suffix_next(const struct suffix *s, struct suffix_match m);

#endif
