/* gpu/matrix.h - a weight matrix on a card, in the order in which tensor cores take it.
 *
 * Tiles of 16 rows x 32 columns, the tiles of a row one after the other. Within a tile each lane of a warp finds its
 * own elements in one 16-byte piece per 16 bits of weight (8 for q8, 4 for q4), lane after lane, so that a warp reads
 * whole lines; which column an element is follows from matrix_column. Block scales lie in a second array, tile by tile.
 * Rows are padded to whole tiles and columns to whole pairs of tiles, with zeros. The arithmetic is in matrix_layout.h,
 * shared with the kernels and tested on its own. */
#ifndef GPU_MATRIX_H
#define GPU_MATRIX_H

#include "core/model/backend.h"
#include "core/model/weights.h"
#include "gpu/gpu.h"

struct gpu_matrix {
    enum dtype type;       /* as stored on the card */
    int rows, cols;        /* padded rows (a multiple of 16) of all parts; true columns */
    int cols_padded;       /* a multiple of 64 */
    cu_ptr quants, scales; /* scales: 0 for bf16, f16, f32 */
    size_t bytes;
};

/* One tensor of a matrix that is made of several. Row r of part i of a stacked matrix is row at + r; interleaved
 * matrices have two parts (gate, up) whose tiles of 16 rows take turns. */
struct matrix_part {
    struct tensor t;
    int at; /* first row in the whole matrix; filled by matrix_plan */
};

/* Bytes that matrix_load will take, and where the parts come to lie. type: as QUANT says for what the tensors hold;
 * parts of different types are stored as the widest of them. */
int matrix_plan(struct gpu_matrix *m, struct matrix_part *parts, int n_parts, bool interleave, enum quant quant,
                struct err *e);

/* Allocates, streams the tensors in through pinned buffers and packs them on the card. progress as in load_opts, with
 * the bytes of these tensors. */
struct matrix_loader; /* pinned buffers, a raw buffer on the card; one per backend */
int matrix_loader_create(struct matrix_loader **out, struct gpu *g, struct err *e);
void matrix_loader_free(struct matrix_loader *l);
int matrix_load(struct matrix_loader *l, struct gpu_matrix *m, const struct matrix_part *parts, int n_parts,
                bool interleave, enum quant quant, int (*progress)(void *ctx, uint64_t bytes), void *ctx,
                struct err *e);
void matrix_free(struct gpu *g, struct gpu_matrix *m);

#endif
