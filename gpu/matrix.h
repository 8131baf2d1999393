/* gpu/matrix.h - a weight matrix on a card, in the order in which tensor cores take it (matrix_layout.h), and its way
 * there from a file.
 *
 * A matrix is made of one tensor, of several stacked ones (q, k, v: one product), or of two that are interleaved (gate
 * and up: their tiles of 16 rows take turns). Each tensor is filled up to whole tiles with rows of zeros, and to
 * columns of a multiple of 64. Stacked tensors of different types keep them: the matrix is then several runs of tiles,
 * and op_product launches once for each; nothing above notices. Interleaved ones of different types are both stored as
 * f32.
 *
 * Tensors have been checked against their file (weights.h); what their bytes say is not trusted and may be anything. */
#ifndef GPU_MATRIX_H
#define GPU_MATRIX_H

#include "core/model/backend.h"
#include "core/model/weights.h"
#include "gpu/gpu.h"

enum { MATRIX_PARTS = 3 };

/* Tiles of one type, one behind the other. */
struct gpu_run {
    enum dtype type;
    int tile, n_tiles;     /* first tile in the matrix */
    cu_ptr quants, scales; /* scales: 0 for f32, f16, bf16 */
};

struct gpu_matrix {
    int rows, cols;  /* rows of all parts, each filled up to a multiple of 16; true columns */
    int cols_padded; /* a multiple of 64: planes that are multiplied by it have at least this ld */
    bool interleaved;
    struct gpu_run runs[MATRIX_PARTS];
    int n_runs;
    cu_ptr memory;
    size_t bytes;
};

/* One tensor of a matrix, or rows [first, first + n) of it; n 0: all. matrix_row tells where they are. */
struct matrix_part {
    struct tensor t;
    uint32_t first, n;
    int at; /* where the first of them is; filled in by matrix_plan */
};

static inline uint32_t matrix_part_rows(const struct matrix_part *p) {
    return p->n ? p->n : p->t.rows;
}

/* The r-th row of a part, as a row of the whole: what a product calls it, and where its bias belongs. */
static inline int matrix_row(const struct gpu_matrix *m, const struct matrix_part *p, int r) {
    return m->interleaved ? p->at + r / 16 * 32 + r % 16 : p->at + r;
}

/* Fills in shape, runs and bytes of m, and `at` of the parts (1 to MATRIX_PARTS; interleaved: 2, of equal rows). All
 * have equal columns. Allocates nothing. quant as in load_opts: q8 for floats, q4 for floats, q8_0 and q6_K, where
 * columns are a multiple of 32. ERR_MODEL for what is too large. */
int matrix_plan(struct gpu_matrix *m, struct matrix_part *parts, int n_parts, bool interleave, enum quant quant,
                struct err *e);

/* Pinned buffers, their like on the card, and threads that fill them. One at a time per card; it uses the card's stream
 * and its loads stream, and must be freed before it. */
struct matrix_loader;
int matrix_loader_create(struct matrix_loader **out, struct gpu *g, struct err *e);
void matrix_loader_free(struct matrix_loader *l); /* waits for what is under way */

/* Plans, allocates (`what` is it for messages, as "layer 3's mlp.down_proj"), and streams the tensors in: several
 * threads read rows (and re-encode them), while the rows before are on their way to the card, and those before are
 * packed there. progress(ctx, bytes): so many more bytes of tensors were read; may be NULL; not 0 stops the load
 * (ERR_IO "loading was stopped"). Returns when everything was read, with the last rows still on their way: passes that
 * are enqueued from then on see the whole matrix, and gpu_wait tells if the way there failed. On error nothing stays
 * and m is zeroed. */
int matrix_load(struct matrix_loader *l, struct gpu_matrix *m, struct matrix_part *parts, int n_parts, bool interleave,
                enum quant quant, int (*progress)(void *ctx, uint64_t bytes), void *ctx, const char *what,
                struct err *e);
void matrix_free(struct gpu *g, struct gpu_matrix *m); /* and zeroes it; a zeroed one is fine */

#endif
