/* gpu/share.h - the part of a stage that one card holds: weights, scratch, K and V of consecutive layers, and passes
 * through them. Loaded by share.c, with kv.c for keys and values; run by forward.c. Not for use outside gpu/ and its
 * tests.
 *
 * Cards of a team hold the same layers, of each matrix other rows (plan.h), and K and V of other heads. x, what
 * attention brings and the MLP's gated values are gathered behind the products that make them, so that every card has
 * all of each and forms the bits that one card would. The shares of a team stand in an array, rank 0's first; what is
 * done by all of them takes that array. A card alone is a team of one.
 *
 * All memory is taken when a stage is loaded and when its KV is made; a pass allocates nothing (but for longer slot
 * tables than any pass before). Activations are in scratch, KV and pinned memory, and are wiped with them. */
#ifndef GPU_SHARE_H
#define GPU_SHARE_H

#include "core/model/backend.h"
#include "gpu/card.h"
#include "gpu/kernels.h"
#include "gpu/ops.h"
#include "gpu/recording.h"

enum {
    PIECE_ROWS = 512,   /* a pass of more rows goes through a card in pieces */
    OVERLAP_ROWS = 256, /* and one of more than these in two, so that the host copies while the card computes */
};

struct cuda_layer {
    struct gpu_matrix w[N_LAYER_MATRICES];
    struct layer_vectors v;
    int k_at, v_at; /* columns of the product with the stacked matrix; q's are the first */
};

/* Where the description of a piece of a pass stands in the memory that goes to the card, for pieces of up to so many
 * rows: it follows from the bucket alone, so that recorded launches find it. x is [slice][bucket][columns of
 * a slice]. */
struct layout {
    size_t rows, items, cs, x, slots; /* byte offsets; struct gpu_pass is at 0, slots are the last */
};

/* Pinned memory of one piece on its way in and out. */
struct staging {
    uint8_t *p;
    cu_event done; /* its x is back */
};

/* The distinct trunks of a pass, by address, each once. */
struct trunk {
    const uint32_t *slots;
    uint32_t n, at; /* how many a row sees at most; offset in the slots of the pass */
};

struct share {
    struct card *card;
    const struct model_config *config;
    int lo, hi;
    bool has_head;
    int n_heads, n_kv_heads;         /* its own */
    struct slice hidden, ffn, vocab; /* its own */
    int max_rows;                    /* of a pass */
    int piece_rows;                  /* of a piece, a bucket */
    struct cuda_layer *layers;
    struct gpu_matrix head;
    const float *norm;
    cu_ptr vectors;
    float *inv_freq; /* on the host, [head_dim / 2] */
    size_t bytes;    /* on the card */

    cu_ptr scratch; /* one block of which the following are parts */
    size_t scratch_bytes;
    struct planes h, att, gated; /* [piece_rows][...] */
    float *qkv, *product, *logits;
    uint16_t *gathered; /* of a team: planes of each card, [rank][hi, lo][rows of the piece][...] */

    cu_ptr in; /* what a piece brings along, as struct layout says */
    size_t in_bytes;
    unsigned in_epoch; /* counts its moves: recorded launches name it */
    struct staging staging[2];
    float *logits_host; /* pinned, [head_rows][its vocab] */
    struct trunk *trunks;
    uint32_t *trunk_of; /* [max_rows]: index of each row's */
    int n_trunks;

    struct matrix_loader *loader; /* from share_begin to share_end */
};

/* K and V of a share's layers, its own heads; each has K, V, of fp8 factors too, as ops.h says. */
struct share_kv {
    struct share *share;
    uint32_t n_slots;
    enum dtype type; /* DT_F16, DT_E4M3 */
    size_t layer;    /* bytes of one */
    cu_ptr data;
    size_t bytes;
    cu_ptr scratch; /* of attention */
    size_t scratch_bytes;
    struct recordings recordings;
};

/* ---- share (share.c) ---- */

/* Progress over all shares of a stage. */
struct loading {
    const struct load_opts *opts;
    struct readahead *ahead;
    uint64_t done, total; /* bytes of matrices, read and in all */
};

/* Takes a card's share of what p, made for its seat, says: all memory but that of the matrices, for which it sees that
 * there is enough. Then they are loaded, in the order of their file (a team in step, so that it is read once), and
 * share_end waits for them. On error of share_begin nothing of it stays allocated; behind it, share_free. */
int share_begin(struct share *s, struct card *card, const struct stage_plan *p, int max_rows, struct err *e);
int share_load(struct share *s, struct stage_plan *p, int layer, int matrix, struct loading *l, struct err *e);
int share_load_head(struct share *s, struct stage_plan *p, struct loading *l, struct err *e);
int share_end(struct share *s, struct err *e);
void share_free(struct share *s); /* wipes; an empty one is fine */
/* Room for `slots` slot numbers behind the largest piece. Nothing may be under way. */
int share_reserve_slots(struct share *s, size_t slots, struct err *e);
/* The bucket that serves a piece of n rows, and where its things stand. */
int share_bucket(int n);
struct layout share_layout(const struct share *s, int bucket);
int share_head_rows(const struct share *s);

/* ---- KV (kv.c) ---- */

int share_kv_create(struct share_kv *kv, struct share *s, uint32_t n_slots, enum dtype type, struct err *e);
/* Where K and V of a layer lie: fills k, v, factors and n_slots of a. */
void share_kv_layer(const struct share_kv *kv, int layer, struct attention *a);
void share_kv_free(struct share_kv *kv); /* wipes */
void share_kv_clear(struct share_kv *kv);
/* The bucket of keys for which launches are made, and the largest: no row sees more keys than there are slots, nor more
 * than the model has positions for. */
uint32_t kv_key_bucket(uint32_t n_keys);
uint32_t kv_max_keys(const struct model_config *c, uint32_t n_slots);

/* ---- forward (forward.c) ---- */

/* Layers [lo, hi), all on these shares of a team, with their KV, over x [b->n][hidden]. What takes memory comes before
 * anything is enqueued on any card: without memory a pass fails and nothing else. What fails later breaks all cards of
 * the team. */
int share_layers(struct share *shares, struct share_kv *kvs, const struct batch *b, int lo, int hi, float *x,
                 struct err *e);
int share_head(struct share *shares, const float *x, int n, float *logits, struct err *e);

#endif
