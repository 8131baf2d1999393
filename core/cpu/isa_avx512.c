/* core/cpu/isa_avx512.c - the kernels for x86-64 with AVX-512 F, BW, DQ, VL and VNNI. */
#include "core/cpu/isa.h"
#include "core/cpu/kernel_macros.h"
#include "core/cpu/vec_avx512.h"

#include <math.h>
#include <string.h>

/* Bytes ahead of its use that a panel is asked for. */
enum { PREFETCH_BYTES = 256 };

/* 32 registers: at most 24 accumulators. */
#define FLOAT_SIZES(X) X(1, 1) X(1, 4) X(2, 1) X(2, 4) X(4, 1) X(4, 4) X(6, 1) X(6, 4) X(8, 1) X(8, 3) X(12, 1) X(12, 2)
#define BLOCK_SIZES(X) X(1, 1) X(1, 4) X(2, 1) X(2, 4) X(4, 1) X(4, 2) X(8, 1)

static const uint8_t float_tiles[TILE_MAX + 1] = {[1] = 4, [2] = 4, [4] = 4, [6] = 4};
static const uint8_t block_tiles[TILE_MAX + 1] = {[1] = 4, [2] = 4, [4] = 2, [8] = 1};

#include "core/cpu/matmul_kernels.inc"
#include "core/cpu/pack_kernels.inc"
#include "core/cpu/row_kernels.inc"

#include "core/cpu/limit_kernels.inc"

#include "core/cpu/attend_kernels.inc" /* uses vec_exp of the rows */

const struct cpu_isa cpu_isa_avx512 = {
    .name = "avx512",
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
