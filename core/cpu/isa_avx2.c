/* core/cpu/isa_avx2.c - the kernels for x86-64 with AVX2, FMA and F16C. */
#include "core/cpu/isa.h"
#include "core/cpu/kernel_macros.h"
#include "core/cpu/vec_avx2.h"

#include <math.h>
#include <string.h>

/* Bytes ahead of its use that a panel is asked for. */
enum { PREFETCH_BYTES = 2048 };

/* 16 registers: at most 6 rows of two, beside the weights. */
#define FLOAT_SIZES(X) X(1, 1) X(1, 4) X(2, 1) X(2, 2) X(4, 1) X(6, 1)
#define BLOCK_SIZES(X) X(1, 1) X(1, 2) X(2, 1) X(4, 1)

static const uint8_t float_tiles[TILE_MAX + 1] = {[1] = 4, [2] = 2, [4] = 1, [6] = 1};
static const uint8_t block_tiles[TILE_MAX + 1] = {[1] = 2, [2] = 1, [4] = 1};

#include "core/cpu/matmul_kernels.inc"
#include "core/cpu/pack_kernels.inc"
#include "core/cpu/row_kernels.inc"

#include "core/cpu/limit_kernels.inc"

#include "core/cpu/attend_kernels.inc" /* uses vec_exp of the rows */

const struct cpu_isa cpu_isa_avx2 = {
    .name = "avx2",
    .float_tiles = float_tiles,
    .block_tiles = block_tiles,
    .tile = {[DT_F32] = tile_f32,
             [DT_F16] = tile_f16,
             [DT_BF16] = tile_bf16,
             [DT_Q8_0] = tile_q8_0,
             [DT_Q4_0] = tile_q4_0,
             [DT_Q4_K] = tile_q4_k,
             [DT_Q6_K] = tile_q6_k},
    .store_rows = store_rows,
    .pack_f32 = pack_f32,
    .pack_int = pack_int,
    .transpose = transpose,
    .transpose_half = transpose_half,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
    .rope = rope,
    .f32_to_f16 = f32s_to_f16,
    .softmax_block = softmax_block,
    .scale = scale_row,
    .divide = divide_row,
    .fma_chains = FMA_CHAINS,
    .fma_rounds = fma_rounds,
    .read_bytes = read_bytes,
};
