/* gpu/plan.h - what a part of a model is made of on a card: which tensors become which matrices, what each layer takes,
 * and how layers are dealt out to several cards, and rows to those of a team. Host memory only: reads the headers of
 * files, touches no card. File content is untrusted; shapes and types come checked out of weights_get and matrix_plan.
 *
 * A card of a team has of q, k and v the rows of its heads, and of every other matrix a slice of the rows. Never
 * columns: sums are formed whole, in the order of one card. */
#ifndef GPU_PLAN_H
#define GPU_PLAN_H

#include "gpu/matrix.h"

#include <stddef.h>

/* The matrices of a layer, in the order of computing, and the tensors that they are made of. */
enum { LAYER_QKV, LAYER_O, LAYER_GATE_UP, LAYER_DOWN, N_LAYER_MATRICES };
enum { N_LAYER_TENSORS = 7 };
struct layer_matrix {
    const char *name;
    int first, n; /* tensors */
    bool interleave;
};
extern const struct layer_matrix layer_matrices[N_LAYER_MATRICES];

/* A card's place in its team; alone it is the first of one. */
struct seat {
    int rank, n;
};

/* Rows [first, first + n) are a card's: whole tiles, `each` of them, and less at the end only. So column c of an
 * activation, which is cut likewise, is column c % each of slice c / each. A card alone has one slice of all columns.
 */
struct slice {
    int first, n, each;
};
struct slice plan_slice(int rows, struct seat seat);
/* ERR_USAGE where n cards cannot compute layers of this model together, with what is in the way and what would do. */
int plan_check_team(const struct model_config *c, int n, const char *model, struct err *e);

struct layer_plan {
    struct matrix_part tensors[N_LAYER_TENSORS];
    struct gpu_matrix w[N_LAYER_MATRICES];
    size_t bytes; /* on the card: matrices and vectors */
};

struct stage_plan {
    struct weights *weights;
    const struct model_config *config;
    struct part part;
    struct seat seat;
    enum quant quant;
    struct layer_plan *layers; /* part.hi - part.lo */
    struct matrix_part head_tensor;
    struct gpu_matrix head;
    size_t head_bytes; /* with the final norm; 0: the part has none */
    uint64_t file;     /* bytes of all these rows in the file */
};

/* Finds every tensor of the part, and the rows of it that belong to the seat. On error p is empty. */
int stage_plan_make(struct stage_plan *p, struct weights *w, const struct part *part, struct seat seat,
                    enum quant quant, struct err *e);
void stage_plan_free(struct stage_plan *p);

/* The vectors of layers [lo, hi), and with the head the final norm: one block of floats. Counts only while host is
 * NULL; then decodes into it. card is where host[0] will be; the pointers that are handed out are the card's. */
struct vectors {
    float *host;
    const float *card;
    size_t n;
};
struct layer_vectors {
    const float *bias[N_LAYER_MATRICES]; /* [rows of the matrix, padded], or NULL */
    const float *attn_norm, *mlp_norm;   /* [hidden] */
    const float *q_norm, *k_norm;        /* [head_dim], or NULL */
};
int plan_layer_vectors(const struct stage_plan *p, int layer, struct vectors *v, struct layer_vectors *out,
                       struct err *e);
int plan_head_vectors(const struct stage_plan *p, struct vectors *v, const float **at, struct err *e);

/* Deals n layers and the head behind them (0 bytes: none) out to cards (or teams of them), in order and in proportion
 * to the memory that each has left: each goes to the card in whose share of the whole its middle lies. Card i gets
 * n_layers[i]; returns the head's card. */
int spread_layers(const size_t *cost, int n, size_t head, const size_t *left, int n_cards, int *n_layers);

/* "3.20 GB", "12.5 MB", for messages. */
const char *memory_text(double bytes, char text[24]);

#endif
