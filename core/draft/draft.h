/* core/draft/draft.h - guesses what comes next. A drafter knows the committed tokens of one session (and whatever it
 * has learned elsewhere) and says, for the context followed by a path of guesses, which tokens may come with which
 * probability. It knows no model, no session and no network. Probabilities are calibrated: of the candidates offered at
 * 0.3, three in ten come true (Leviathan et al. 2023, arXiv 2211.17192, for what acceptance means). */
#ifndef CORE_DRAFT_DRAFT_H
#define CORE_DRAFT_DRAFT_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum draft_source {
    DRAFT_SUFFIX,  /* the longest suffix that occurred before in prompt and answer */
    DRAFT_NGRAM,   /* blended n-gram counts of several orders over prompt and answer */
    DRAFT_STORE,   /* the same over what was generated before (store.h) */
    DRAFT_RECYCLE, /* successors with the largest logits when the token was last computed */
    DRAFT_POOL,    /* guesses of Jacobi and lookahead iterations (iterate.h); a drafter has none */
    DRAFT_MODEL,   /* a small model of this machine */
    N_DRAFT_SOURCES
};
const char *draft_source_name(enum draft_source s);

struct draft_candidate {
    uint32_t token;
    float p;        /* that it comes next, given the context and the path */
    uint8_t source; /* the one that gave most of p */
};

struct drafter;
struct draft_store;
struct ngram_succ;

/* May a small model take time for an answer? */
enum draft_compute {
    DRAFT_KNOWN, /* no */
    DRAFT_PAID,  /* as much as pays, for somebody waits for it */
    DRAFT_FREE   /* a pass: there is nothing else to do */
};

/* A small model that guesses as well. It is told the committed tokens and asked what follows them and a path. */
struct draft_model {
    void *ctx;
    void (*sync)(void *ctx, const uint32_t *tokens, uint32_t n);
    /* At most cap tokens with their probabilities as counts of 65535, by falling probability; 0: it does not say. */
    int (*next)(void *ctx, const uint32_t *path, int n, enum draft_compute compute, struct ngram_succ *out, int cap);
};

struct drafter_opts {
    uint32_t vocab;
    uint32_t max_ctx;                /* positions; memory is taken at creation, none later */
    unsigned sources;                /* bits 1 << enum draft_source; 0: all that exist */
    struct draft_store *store;       /* borrowed; NULL: none */
    const struct draft_model *model; /* copied; NULL: none */
};

/* Bytes that a drafter takes. */
uint64_t drafter_bytes(const struct drafter_opts *o);
int drafter_create(struct drafter **out, const struct drafter_opts *o, struct err *e);
void drafter_free(struct drafter *d); /* wipes */

/* The committed tokens are now tokens[0..n): keeps what it knows of the longest common prefix. Cheap when n grew by
 * few. */
void drafter_sync(struct drafter *d, const uint32_t *tokens, uint32_t n);
/* logits [vocab] are those behind `token` (any computed node, accepted or not). */
void drafter_logits(struct drafter *d, uint32_t token, const float *logits);

/* Candidates for what follows the context and path[0..n_path): at most cap, by falling p, their sum at most 1. */
int drafter_next(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap);
/* What came true after the context of the last sync, for calibration. drafter_sync does this by itself for tokens that
 * come in steps of at most 64 (a prompt teaches words, not how far to trust whom); either way a position counts once.
 */
void drafter_outcome(struct drafter *d, const struct draft_candidate *offered, int n, uint32_t truth);

/* What the session taught about how far to trust which source goes into the store, where the next drafter starts from
 * it. */
void drafter_teach(struct drafter *d);

/* A tree of guesses below the last committed token. Nodes stand parents first. */
struct draft_node {
    uint32_t token;
    int parent; /* index; -1: a child of the last committed token */
    float p;    /* given the parent */
    float path; /* product along the path */
    uint8_t source;
};
/* Grows tree[0..n) best first to at most cap nodes (the frontier in the order of path probability), taking no node
 * whose path probability is below least. Nodes that are there already stay as they are. root[0..n_root): tokens between
 * the committed context and the tree's root, such as the one that was just sampled. Returns the new n. */
int draft_tree_grow(struct drafter *d, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap,
                    float least);
/* The same without a root, while nobody waits for the tree: a small model makes at most `passes` passes, on its
 * likeliest paths. *made: how many it made; none means that more of them would not help. */
int draft_tree_ahead(struct drafter *d, struct draft_node *tree, int n, int cap, float least, int passes, int *made);

#endif
