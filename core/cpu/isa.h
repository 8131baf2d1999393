/* core/cpu/isa.h - the kernels of one instruction set: single-threaded loops over memory that the caller has laid out.
 * matmul.c, attend.c, rows.c and pack.c cut the work into pieces and give them to threads. Every isa_*.c compiles the
 * same bodies (*.inc) over its own vec_*.h; what differs is speed. */
#ifndef CORE_CPU_ISA_H
#define CORE_CPU_ISA_H

#include "core/model/dtype.h"

#include <stddef.h>
#include <stdint.h>

enum {
    PANEL = 16,    /* rows of a weight panel = lanes */
    TILE_MAX = 12, /* most rows of x in one tile */
    GROUP_MAX = 4, /* most panels that one tile call multiplies */
    KV_BLOCK = 64, /* logical positions per softmax block */
};

struct cpu_isa {
    const char *name;
    int tile_rows; /* rows of x in a full tile, at most TILE_MAX */

    /* acc[p][r][lane] = sum over k of panel p's weight [k][lane] * x[k][r], for n_panels panels that stand panel_bytes
     * apart and x packed as [cols][rows]. */
    void (*tile)(enum dtype layout, const uint8_t *w, size_t panel_bytes, int n_panels, const float *x, int rows,
                 int cols, float *acc);
    void (*pack_x)(float *dst, const float *x, int ldx, int rows, int tile, int cols);

    void (*rmsnorm)(float *y, const float *x, const float *w, int cols, float eps);
    void (*silu_mul)(float *gate, const float *up, size_t n);
    void (*rope)(float *x, const float *cs, int n_heads, int head_dim);

    /* One block of keys against `rows` queries that see the same ones; see attend_kernels.inc. */
    void (*attend_gather)(float *kt, float *v, const void *k, const void *vals, enum dtype type, const uint32_t *slots,
                          int n, int head_dim);
    void (*attend_block)(float *const *state, const float *const *q, int rows, const float *kt, const float *v, int lo,
                         int hi, int head_dim, float scale);
    void (*attend_finish)(float *out, const float *state, int head_dim);
    void (*f32_to_f16)(uint16_t *dst, const float *src, size_t n);
};

extern const struct cpu_isa cpu_isa_portable;
extern const struct cpu_isa cpu_isa_avx2;
extern const struct cpu_isa cpu_isa_avx512;
extern const struct cpu_isa cpu_isa_neon;

#endif
