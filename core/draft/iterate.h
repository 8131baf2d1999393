/* core/draft/iterate.h - guesses that the target makes better by itself: what it says behind each guess of one round
 * trip is what those of the next are made from. No model and no counts are needed, and rows are spent freely.
 *
 * Jacobi: the tokens behind the text are the unknowns of a triangular system, solved by fixed-point iteration
 * (Santilli et al. 2023, arXiv 2305.10427). A block of guesses is a chain; the next block is what the target said
 * behind each, moved up by what was accepted.
 *
 * Lookahead (Fu et al. 2024, arXiv 2402.02057): a grid of n - 1 levels and `window` columns. Level 0 is a chain; the
 * parent of a cell above is the cell one level down in its column. What the target says above the top level completes
 * an n-gram per column; n-grams that begin with the newest token are candidates, in the same window as the grid.
 *
 * It knows the tokens of one conversation and no model, session or network. */
#ifndef CORE_DRAFT_ITERATE_H
#define CORE_DRAFT_ITERATE_H

#include "core/base/err.h"
#include "core/draft/draft.h"

#include <stdint.h>

enum iterate_kind { ITERATE_JACOBI, ITERATE_LOOKAHEAD, N_ITERATE_KINDS };

struct iterate_opts {
    int block;      /* jacobi: guesses of a block */
    int ngram;      /* lookahead: tokens of an n-gram, the one that it is looked up by included */
    int window;     /* columns of the grid; 0: no grid, and the oldest n-grams of the text are the candidates */
    int candidates; /* n-grams that are tried at once */
};
void iterate_opts_default(struct iterate_opts *o);

enum { ITERATE_BLOCK_MAX = 128, ITERATE_NGRAM_MAX = 16, ITERATE_WINDOW_MAX = 64, ITERATE_CANDIDATES_MAX = 64 };

/* The most guesses of one round trip, and the longest chain among them. */
int iterate_nodes(enum iterate_kind k, const struct iterate_opts *o);
int iterate_depth(enum iterate_kind k, const struct iterate_opts *o);

/* ERR_USAGE that names what is out of range, for both kinds. max_nodes: guesses that there is room for. */
int iterate_check(const struct iterate_opts *o, int max_nodes, struct err *e);

struct iteration;

/* The options are sound. All memory is taken here. */
int iteration_create(struct iteration **out, enum iterate_kind k, const struct iterate_opts *o, struct err *e);
void iteration_free(struct iteration *it); /* wipes */

/* Guesses below text[0..n), n > 0: tree[0..) parents first, no two children of a node alike, iterate_nodes at most;
 * their probabilities are not known and stand as 1. Returns how many. */
int iteration_guess(struct iteration *it, const uint32_t *text, uint32_t n, struct draft_node *tree);

/* What the target says behind each of the n guesses: said[i] follows tree[i], or is ITERATE_UNKNOWN. Once after each
 * iteration_guess, or not at all. */
#define ITERATE_UNKNOWN UINT32_MAX
void iteration_said(struct iteration *it, const uint32_t *said, int n);

#endif
