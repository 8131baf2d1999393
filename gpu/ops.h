/* gpu/ops.h - the steps of a forward pass as launches on a card: geometry and arguments for each kernel. Device memory
 * only; each enqueues and returns, failures are the card's (gpu_wait). `rows` is the bucket that a launch is made for:
 * at least pass->n_rows, which the kernels read on the card. */
#ifndef GPU_OPS_H
#define GPU_OPS_H

#include "gpu/gpu.h"
#include "gpu/kernels.h"
#include "gpu/matrix.h"

/* out = x / rms(x) * w over rows of `cols`; x f32 in slices of so many columns: [slice][rows][slice]. slice cols: x is
 * [rows][cols]; else it is a multiple of 16. The bits are the same. Zhang & Sennrich 2019. */
void op_rmsnorm(struct gpu *g, const struct gpu_pass *pass, int rows, const float *x, int slice, const float *w,
                int cols, float eps, struct planes out);

/* Planes that the cards of a team have made, each `each` columns, and gathered: a block of each card, one behind the
 * other, of hi [rows][op_join_ld] and lo behind it. */
int op_join_ld(int each);
size_t op_join_block(int rows, int each); /* bytes */
/* Puts them together, with zeros behind the last column of the last one. */
void op_join(struct gpu *g, const struct gpu_pass *pass, int rows, const uint16_t *blocks, int n, int each,
             struct planes out);

/* What becomes of y = W x + bias. */
enum product_use {
    PRODUCT_STORE, /* to[row][out row] = y */
    PRODUCT_ADD,   /* to[row][out row] += y; the sum is formed first */
    PRODUCT_GATE,  /* W is interleaved (matrix.h): gated = silu(gate) * up, with zeros behind, up to gated's ld */
};
/* Out rows are those of matrix_row, the zeros between parts included; those at ld or behind it are not written: a `to`
 * of the model's true width is ld wide. Rows of the pass behind its n_rows are neither written nor do they matter. */
struct product {
    const struct gpu_matrix *w;
    struct planes x;   /* ld at least w->cols_padded; not the planes that are written; rounded: fewer products */
    const float *bias; /* [w->rows], zeros between parts, or NULL */
    enum product_use use;
    float *to; /* STORE, ADD */
    int ld;    /* of to */
    struct planes gated;
};
/* Bytes of scratch that products of up to `rows` rows need for w, whatever their bucket; the largest is allocated once
 * per stage. */
size_t op_product_scratch(const struct gpu *g, const struct gpu_matrix *w, int rows);
void op_product(struct gpu *g, const struct gpu_pass *pass, int rows, const struct product *p, float *scratch);

/* The attention part of one layer. Heads of q, k, v lie in qkv [rows][ld] f32 at columns q_at, k_at, v_at. K and V of
 * the layer: f16, kv head h, slot s at element (h * n_slots + s) * head_dim; or, with factors, fp8 by the rules of
 * core/model/e4m3.h: codes at byte (h * n_slots + s) * op_kv_row, and factors at element h * n_slots + s. */
struct attention {
    float *qkv;
    int ld, q_at, k_at, v_at;
    int n_heads, n_kv_heads, head_dim;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;
    void *k, *v;
    uint32_t *factors; /* 2^8 times the scale, as f16: of K in the lower half, of V in the upper one. NULL: f16 */
    uint32_t n_slots;
    int window;        /* keys a query may see; 0: all */
    struct planes out; /* [rows][n_heads * head_dim] */
};
size_t op_kv_row(int head_dim); /* bytes of the codes of a head */
/* q/k norm and RoPE: of q in place, of k on its way into the rows' slots, with v. A head whose v f16 cannot hold is
 * stored as v = 0 and k = NaN; so is one whose k or v fp8 cannot. */
void op_rope_kv(struct gpu *g, const struct gpu_pass *pass, int rows, const struct attention *t);
/* How the rows of a pass become items, for gpu_pass.items; returns their number. rows: trunk offsets and counts filled.
 */
int op_attend_items(const struct gpu_row *rows, int n, int n_heads, int n_kv_heads, struct gpu_item *items);
int op_attend_max_items(int n_rows, int n_heads, int n_kv_heads);
/* Scratch (f32) for passes of up to rows rows over up to max_keys keys. */
size_t op_attend_scratch(const struct gpu *g, int rows, int n_heads, int n_kv_heads, int head_dim, uint32_t max_keys);
/* max_keys: the largest pos + 1 of the pass, rounded up to what launches are made for (a power of two of splits). */
void op_attend(struct gpu *g, const struct gpu_pass *pass, int rows, uint32_t max_keys, const struct attention *t,
               float *scratch);

#endif
