/* core/draft/drafter.h - the inside of a drafter, for draft.c and tree.c only. */
#ifndef CORE_DRAFT_DRAFTER_H
#define CORE_DRAFT_DRAFTER_H

#include "core/draft/blend.h"
#include "core/draft/context.h"
#include "core/draft/draft.h"
#include "core/draft/recycle.h"
#include "core/draft/sharpen.h"
#include "core/draft/suffix.h"

enum {
    DRAFT_DEPTH = 256,   /* tokens of root and path together */
    DRAFT_CHILDREN = 64, /* of one node */
    DRAFT_TREE = 1024,   /* nodes */
    DRAFT_FRONTIER = 8192,
    DRAFT_FLAT = NGRAM_LINE * 32 /* successors of the empty context */
};

/* Something to do next while a tree grows: take a candidate into it, or look for the children of a node. */
struct frontier_item {
    float path;
    float p;
    uint32_t token;
    int32_t node; /* the parent of the candidate, or the node to expand */
    uint8_t source;
    uint8_t expand;
};

struct drafter {
    struct drafter_opts o;
    uint32_t *tokens; /* committed */
    uint32_t n;
    uint32_t learned; /* 1 + the position whose outcome the shares have seen last */
    struct ngram_table session;
    /* What comes anywhere, which is the same all over a tree: by falling count. Store and session. */
    struct ngram_succ flat[2][DRAFT_FLAT];
    struct blend_view flat_view[2];
    bool flat_ready;
    float bound[DRAFT_TREE]; /* the best path probabilities that a tree can have, the smallest on top */
    struct draft_model model;
    uint32_t model_n; /* tokens that it was told; UINT32_MAX: others than these */
    enum draft_compute computing;
    int passes, made;           /* of DRAFT_FREE: it may still make, and has made, for the tree that grows */
    struct sharpness sharpness; /* of what the model says */
    struct suffix *suffix;
    struct recycle *recycle;
    struct blend_shares shares;
    struct blend_room room;
    struct ngram_succ *succ; /* room for what the views point to */
    struct frontier_item *frontier;
    float memory; /* see blend_learn */
};

/* drafter_next for a tree: only candidates of at least `least` matter, and their p may lack a twentieth of that. */
int drafter_look(struct drafter *d, const uint32_t *path, int n_path, struct draft_candidate *c, int cap, float least);

#endif
