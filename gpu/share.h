/* gpu/share.h - the part of a stage that one card holds: weights, scratch, K and V of consecutive layers, and passes
 * through them. Loaded by share.c, with kv.c for keys and values; run by forward.c. Not for use outside gpu/ and its
 * tests.
 *
 * All memory is taken when a stage is loaded and when its KV is made; a pass allocates nothing (but for longer slot
 * tables than any pass before). Activations are in scratch, KV and pinned memory, and are wiped with them. */
#ifndef GPU_SHARE_H
#define GPU_SHARE_H

#include "core/model/backend.h"
#include "gpu/kernels.h"
#include "gpu/ops.h"
#include "gpu/plan.h"

enum {
    PIECE_ROWS = 512,    /* a pass of more rows goes through a card in pieces */
    OVERLAP_ROWS = 256,  /* and one of more than these in two, so that the host copies while the card computes */
    MAX_RECORDINGS = 64, /* of one KV; the least recently used is forgotten */
};

struct card {
    struct gpu *gpu;
    struct err broken; /* why a pass failed: nothing on this card can be trusted any more */
};

/* ---- card (backend.c) ---- */

/* Before anything is done on it: fails when a pass on it has failed. */
int card_enter(struct card *c, struct err *e);
/* Waits for all that was enqueued; a failure is remembered. */
int card_wait(struct card *c, struct err *e);

struct cuda_layer {
    struct gpu_matrix w[N_LAYER_MATRICES];
    struct layer_vectors v;
    int k_at, v_at; /* columns of the product with the stacked matrix; q's are the first */
};

/* Where the description of a piece of a pass stands in the memory that goes to the card, for pieces of up to so many
 * rows: it follows from the bucket alone, so that recorded launches find it. */
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
    int max_rows;   /* of a pass */
    int piece_rows; /* of a piece, a bucket */
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

    cu_ptr in; /* what a piece brings along, as struct layout says */
    size_t in_bytes;
    unsigned in_epoch; /* counts its moves: recorded launches name it */
    struct staging staging[2];
    float *logits_host; /* pinned, [head_rows][vocab] */
    struct trunk *trunks;
    uint32_t *trunk_of; /* [max_rows]: index of each row's */
    int n_trunks;
};

/* Launches that were recorded, or seen once (exec NULL): the second time is when it pays. */
struct recording {
    int lo, hi, rows;
    uint32_t max_keys;
    unsigned in_epoch;
    uint64_t used;
    cu_graph_exec exec;
};

/* K and V of a share's layers; each has K, V, of fp8 factors too, as ops.h says. */
struct share_kv {
    struct share *share;
    uint32_t n_slots;
    enum dtype type; /* DT_F16, DT_E4M3 */
    size_t layer;    /* bytes of one */
    cu_ptr data;
    size_t bytes;
    cu_ptr scratch; /* of attention */
    size_t scratch_bytes;
    struct recording *recordings;
    int n_recordings, most_recordings;
    uint64_t clock; /* of their use */
};

/* ---- share (share.c) ---- */

/* Progress over all shares of a stage. */
struct loading {
    const struct load_opts *opts;
    struct readahead *ahead;
    uint64_t done, total; /* bytes of matrices, read and in all */
};

/* Layers [lo, hi) of the plan, and its head. On error nothing of it stays allocated. */
int share_load(struct share *s, struct card *card, struct stage_plan *p, int lo, int hi, bool head, int max_rows,
               struct loading *l, struct err *e);
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
void share_kv_place(const struct share_kv *kv, int layer, struct attention *a);
void share_kv_free(struct share_kv *kv); /* wipes */
void share_kv_clear(struct share_kv *kv);
/* The bucket of keys for which launches are made, and the largest: no row sees more keys than there are slots, nor more
 * than the model has positions for. */
uint32_t kv_key_bucket(uint32_t n_keys);
uint32_t kv_max_keys(const struct model_config *c, uint32_t n_slots);

/* ---- forward (forward.c) ---- */

/* Layers [lo, hi), all on this share, over x [b->n][hidden]. */
int share_layers(struct share *s, struct share_kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e);
int share_head(struct share *s, const float *x, int n, float *logits, struct err *e);

#endif
