/* core/cpu/isa.h - the kernels of one instruction set: single-threaded loops over memory that the caller has laid out.
 * matmul.c, attend.c, rows.c and pack.c cut the work into pieces and give them to threads. Every isa_*.c compiles the
 * same bodies (*.inc) over its own vec_*.h; what differs is speed. Not for use outside core/cpu. */
#ifndef CORE_CPU_ISA_H
#define CORE_CPU_ISA_H

#include "core/model/dtype.h"
#include "core/model/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PANEL = 16,    /* rows of a weight panel = lanes */
    QBLOCK = 32,   /* weights, and elements of x, that share a scale */
    SUPER = 256,   /* elements of a super-block of the K types */
    TILE_MAX = 12, /* most rows of x in one tile */
    GROUP_MAX = 4, /* most panels that one tile call multiplies */
    KV_BLOCK = 64, /* logical positions per softmax block */

    RAW_BYTES = 512 << 10, /* panels of a raw matrix that are made and multiplied at a time: half an L2 cache */
};

/* clang-format off */
/* Layouts. Weights stand in panels of 16 rows. The dwords of the file's rows are transposed: 64 bytes hold the same dword
 * of each of the 16 rows.
 *   F32    [cols][16] f32
 *   BF16   [cols/2 rounded up][16][2]: the even k in the low half of a dword; beside an odd last k stand zeros
 *   F16    [cols][16] f16
 *   Q8_0   [blocks][8][16][4] int8, then scales [blocks][16] f16
 *   Q4_0   [blocks][4][16][4] bytes as in the file (element j low, j + 16 high), then scales [blocks][16] f16
 *   Q4_K   [supers][32][16][4] bytes as in the file, then [supers] of d [16] f16, dmin [16] f16 and 8 x {sc [16] u8,
 *          m [16] u8}
 *   Q6_K   [supers] of ql [32][16][4] and qh [16][16][4] as in the file, then [supers] of d [16] f16 and sc [16][16] int8
 *
 * Rows of x stand in tiles of R rows:
 *   float weights    [cols][R] f32
 *   block weights    32 elements share a scale; an element is scale * (128 * hi + lo), hi int16, 0 <= lo < 128: 23 bits,
 *                    about what f32 has. Per block [8][3][R] dwords: for elements 4i to 4i + 3 the hi of 4i and 4i + 2,
 *                    the hi of 4i + 1 and 4i + 3, the four lo. Then for all blocks: scales [blocks][R] f32, minus
 *                    scale * sum of the block's integers [blocks][R] f32, and of each half block the sum of hi and the
 *                    sum of lo [blocks][2][2][R] int32. */
/* clang-format on */

static inline bool dtype_is_float(enum dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

/* Bytes that one row of x takes in a tile. */
static inline size_t tile_row_bytes(bool is_float, int cols) {
    return is_float ? (size_t)cols * 4 : (size_t)cols * 3 + (size_t)cols / QBLOCK * 24;
}

/* acc[p][r][lane] = sum over k in [k0, k1) of weight and x, in the order of k. With `more` the sums go on from what acc
 * holds, so cutting K into several calls changes no bit. For block weights k0 and k1 are multiples of their block. */
struct tile {
    const uint8_t *w; /* first panel */
    size_t panel_bytes;
    int n_panels;     /* 1, or what float_tiles or block_tiles says */
    const uint8_t *x; /* the tile */
    int rows;         /* a size for which they do not say 0 */
    int cols, k0, k1;
    bool more;
    float *acc; /* panel p, row r at p * acc_panel + r * acc_row */
    size_t acc_panel, acc_row;
};

struct cpu_isa {
    const char *name;
    /* [TILE_MAX + 1]: panels per call for a tile of so many rows; 0: no such size. For float weights and block weights.
     */
    const uint8_t *float_tiles, *block_tiles;
    void (*tile[DT_COUNT])(const struct tile *t);
    /* acc of several panels to y [rows][ldy], n lanes of them; bias may be NULL. acc as in struct tile with dense rows.
     */
    void (*store_rows)(float *y, size_t ldy, const float *acc, size_t acc_panel, int rows, const float *bias, int n,
                       bool add);
    /* Makes one tile of `size` rows from x [rows][ldx]; the rows beyond are zeros. */
    void (*pack_f32)(uint8_t *dst, const float *x, size_t ldx, int rows, int size, int cols);
    void (*pack_int)(uint8_t *dst, const float *x, size_t ldx, int rows, int size, int cols);

    /* dst [n][16] = dword i of each of 16 rows that start `off` bytes behind rows[]; and the same for 16-bit elements.
     */
    void (*transpose)(uint8_t *dst, const uint8_t *const rows[PANEL], size_t off, size_t n);
    void (*transpose_half)(uint8_t *dst, const uint8_t *const rows[PANEL], size_t off, size_t n);

    void (*rmsnorm)(float *y, const float *x, const float *w, int cols, float eps);
    void (*silu_mul)(float *gate, const float *up, size_t n);
    void (*rope)(float *x, const float *cs, int n_heads, int head_dim);
    void (*f32_to_f16)(uint16_t *dst, const float *src, size_t n);

    /* A block of scores s [KV_BLOCK] (raw dot products) of one query becomes weights e^(scale * s - max), 0 outside of
     * [lo, hi). Updates the query's running max and sum; returns what its older sums must be multiplied by. */
    float (*softmax_block)(float *s, int lo, int hi, float scale, float *max, float *sum);
    /* y = x * a, and y = x / a */
    void (*scale)(float *y, const float *x, float a, int n);
    void (*divide)(float *y, const float *x, float a, int n);

    int fma_chains; /* multiply-adds of 16 lanes in one of fma_rounds' rounds */
    float (*fma_rounds)(int n);
    uint32_t (*read_bytes)(const uint8_t *p, size_t n);
};

/* Panel `panel` of t as type, to dst; scratch as in panel_scratch. pack.c. */
void panel_make(uint8_t *dst, const struct cpu_isa *isa, const struct tensor *t, enum dtype type, int panel,
                uint8_t *scratch);
/* How many panels of a raw matrix are made at a time. */
static inline int raw_panels(size_t panel_bytes) {
    size_t n = RAW_BYTES / panel_bytes;
    return n < 1 ? 1 : n < GROUP_MAX ? (int)n : GROUP_MAX;
}
/* Bytes of scratch, a multiple of 64: 16 source rows, 16 re-encoded rows, one row of f32. */
size_t panel_scratch(const struct tensor *t, enum dtype type);

extern const struct cpu_isa cpu_isa_portable;
extern const struct cpu_isa cpu_isa_avx2;
extern const struct cpu_isa cpu_isa_avx512;
extern const struct cpu_isa cpu_isa_neon;

#endif
