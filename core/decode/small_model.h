/* core/decode/small_model.h - a whole model on this machine that says which tokens may come next: behind a context, and
 * behind paths of guesses below it. What it computed it keeps, as a tree of nodes with their keys and values, so a path
 * is computed once, also when it becomes context. A pass takes a handful of rows, for few cost little more than one.
 * Knows no text, no target and no network; its answers are guesses. */
#ifndef CORE_DECODE_SMALL_MODEL_H
#define CORE_DECODE_SMALL_MODEL_H

#include "core/base/err.h"
#include "core/model/backend.h"

#include <stdint.h>

enum {
    SMALL_TOP = 8,     /* tokens of an answer */
    SMALL_NODES = 512, /* below the context */
    SMALL_ROWS = 8,    /* of a pass that looks ahead */
    SMALL_DEPTH = 128, /* tokens of a path */
    SMALL_READ = 512   /* tokens of a context that are read at once: of a longer one only the end */
};

struct small_answer {
    int n;
    uint32_t token[SMALL_TOP]; /* by falling p */
    float p[SMALL_TOP];
};

struct small_model;

struct small_model_opts {
    struct stage *stage; /* borrowed: all layers, with embedding and head */
    enum dtype kv_type;
    uint32_t max_ctx;
    int max_rows; /* of a pass over the context; the stage takes as many. At least SMALL_ROWS */
};

/* Bytes beside the stage and its KV; KV places that it takes. */
uint64_t small_model_bytes(const struct model_config *c, uint32_t max_ctx, int max_rows);
uint32_t small_model_slots(uint32_t max_ctx, int max_rows);

int small_model_create(struct small_model **out, const struct small_model_opts *o, struct err *e);
void small_model_free(struct small_model *m); /* wipes */

/* The context is tokens[0..n) from now on; computes nothing. What is known of a common beginning stays. A guess does
 * not need all that was said: of what does not fit, or would be long to read, only the end counts. */
void small_model_context(struct small_model *m, const uint32_t *tokens, uint32_t n);

/* What follows the context and path[0..n), or NULL: not computed. Valid until the next call of another function. */
const struct small_answer *small_model_known(const struct small_model *m, const uint32_t *path, int n);

/* Computes that: one pass, when few tokens of the context are missing, which takes along the likeliest of the other
 * nodes that are one step away. progress (may be NULL) is asked before each other pass, over a context of which much is
 * missing; non-zero stops (-1 with ERR_NONE), and what was read stays. ERR_USAGE: there is no context, the path is too
 * long, a token is not in the vocabulary. */
int small_model_look(struct small_model *m, const uint32_t *path, int n, int (*progress)(void *ctx), void *ctx,
                     struct err *e);
uint64_t small_model_passes(const struct small_model *m);  /* so far */
uint32_t small_model_missing(const struct small_model *m); /* tokens of the context that are not read yet */

#endif
