/* cmd/bench/card.h - the tables of `splitinf bench --kernels --backend cuda`: products of a model's shapes and whole
 * passes on a card, against what the card can do, which is measured in the same run. */
#ifndef CMD_BENCH_CARD_H
#define CMD_BENCH_CARD_H

#include "cmd/engine/engine.h"
#include "gpu/limits.h"

enum { CARD_ROWS = 16, CARD_RESULTS = 512 };

/* One time that was measured. */
struct card_result {
    const char *model;
    char what[48]; /* "gate+up q8_0 fast", "pass of 32 layers" */
    int rows;      /* of activations */
    double ms;     /* the best of several */
    double bytes;  /* of weights and keys that have to be read */
    double flop;   /* of the products as the model states them: a product with f32 activations is two on the card */
    int layers;    /* of a pass; 0: a product alone */
};

struct card_bench {
    const struct engine_opts *o;
    int rows[CARD_ROWS]; /* increasing */
    int n_rows;
    struct backend *backend;
    struct gpu *g; /* the first card of it, in a second use */
    struct gpu_clock clock;
    struct gpu_limits limits;
    struct card_result results[CARD_RESULTS];
    int n_results;
    struct progress progress;
    uint64_t done, all;
};

/* Products of one layer and the head of the model. */
int card_products(struct card_bench *b, const char *model, const struct model_config *c, struct err *e);
/* Passes through the backend over all layers of the model, as a cloud would run them. */
int card_passes(struct card_bench *b, const char *model, struct weights *w, struct err *e);
/* What says --math in the name of a row: " fast", or nothing. */
const char *card_math(const struct card_bench *b);
/* NULL when there is no place left. Interrupted: ERR_IO. */
struct card_result *card_add(struct card_bench *b);
int card_step(struct card_bench *b, struct err *e);

/* rows: "1,4,8"; o->model NULL: Mistral-7B and eight layers of NeMo. */
int bench_card(const struct engine_opts *o, const char *rows, bool json, struct err *e);

#endif
