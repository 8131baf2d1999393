#include "core/cpu/isa.h"

#include <math.h>
#include <string.h>

#include "core/cpu/vec_neon.h"

/* In this order: each stands on the ones before it. */
#include "core/cpu/kernel_macros.h"

#include "core/cpu/row_kernels.inc"

#include "core/cpu/matmul_kernels.inc"

#include "core/cpu/attend_kernels.inc"

const struct cpu_isa cpu_isa_neon = {
    .name = "neon",
    .tile_rows = 6,
    .tile = tile,
    .pack_x = pack_x,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
    .rope = rope,
    .attend_gather = attend_gather,
    .attend_block = attend_block,
    .attend_finish = attend_finish,
    .f32_to_f16 = to_f16,
};
