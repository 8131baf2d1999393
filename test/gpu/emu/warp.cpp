/* test/gpu/emu/warp.cpp - what all lanes of a warp do together, and conversions. */
#include "test/gpu/emu/block.h"

namespace emu {

uint16_t f16_of(float f) {
    uint32_t u = bits_of_f32(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return 0x7fff;
    if (u >= 0x477ff000) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) { /* under 2^-14: a multiple of 2^-24, rounded by an addition whose last bit is that */
        uint32_t r = bits_of_f32(f32_of_bits(u) + 0.5f) - bits_of_f32(0.5f);
        return (uint16_t)(sign | r);
    }
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | ((u >> 13) - (112 << 10)));
}

typedef float f32x4 __attribute__((vector_size(16)));
union row8 {
    f32x4 half[2];
    float at[8];
};

/* n words of two elements each: the lower ones to f[0], the upper ones to f[1]. */
template <float widen(uint16_t), int n> static void widen_words(float f[2][n], const uint32_t *words) {
    for (int i = 0; i < n; i++)
        f[0][i] = widen((uint16_t)words[i]);
    for (int i = 0; i < n; i++)
        f[1][i] = widen((uint16_t)(words[i] >> 16));
}

/* d += a b, in f32, each sum in the order of k. Lane 4 g + t has what simt.cuh says. */
template <float widen(uint16_t)> static void mma(operands *const lanes[32]) {
    uint32_t a_words[4][32], b_words[2][32];
    float a[4][2][32], b_lanes[2][2][32];
    row8 b[16], d[16];
    for (int l = 0; l < 32; l++) {
        const uint32_t *la = (const uint32_t *)lanes[l]->a, *lb = (const uint32_t *)lanes[l]->b;
        const float *ld = (const float *)lanes[l]->out;
        for (int i = 0; i < 4; i++) {
            a_words[i][l] = la[i];
            d[l / 4 + i / 2 * 8].at[l % 4 * 2 + i % 2] = ld[i];
        }
        b_words[0][l] = lb[0];
        b_words[1][l] = lb[1];
    }
    for (int i = 0; i < 4; i++)
        widen_words<widen, 32>(a[i], a_words[i]);
    for (int i = 0; i < 2; i++)
        widen_words<widen, 32>(b_lanes[i], b_words[i]);
    for (int k = 0; k < 16; k++)
        for (int g = 0; g < 8; g++)
            b[k].at[g] = b_lanes[k / 8][k % 2][4 * g + k % 8 / 2];
    for (int r = 0; r < 16; r++) {
        f32x4 left = d[r].half[0], right = d[r].half[1];
        for (int k = 0; k < 16; k++) {
            float x = a[k / 8 * 2 + r / 8][k % 2][r % 8 * 4 + k % 8 / 2];
            left += x * b[k].half[0];
            right += x * b[k].half[1];
        }
        d[r].half[0] = left;
        d[r].half[1] = right;
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            ((float *)lanes[l]->out)[i] = d[l / 4 + i / 2 * 8].at[l % 4 * 2 + i % 2];
}

static void shuffle(operands *const lanes[32]) {
    uint32_t v[32];
    for (int l = 0; l < 32; l++)
        memcpy(&v[l], lanes[l]->a, 4);
    for (int l = 0; l < 32; l++)
        memcpy(lanes[l]->out, &v[*(const int *)lanes[l]->b], 4);
}

static void load_matrices(operands *const lanes[32], bool transposed, where at) {
    uint16_t m[4][8][8];
    for (int l = 0; l < 32; l++) {
        const void *row = lanes[l]->a;
        check_aligned(row, op_name(op::load_matrices), at);
        if (!in_shared(row, 16))
            broken(at, "lane %d loads a matrix from what is not the block's shared memory", l);
        memcpy(m[l / 8][l % 8], row, 16);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            int r = l / 4, c = l % 4 * 2;
            ((uint32_t *)lanes[l]->out)[i] =
                transposed ? m[i][c][r] | (uint32_t)m[i][c + 1][r] << 16 : m[i][r][c] | (uint32_t)m[i][r][c + 1] << 16;
        }
}

void warp_execute(op kind, operands *const lanes[32], where at) {
    switch (kind) {
    case op::shuffle:
        shuffle(lanes);
        break;
    case op::mma_bf16:
        mma<f32_of_bf16>(lanes);
        break;
    case op::mma_f16:
        mma<f32_of_f16>(lanes);
        break;
    case op::load_matrices:
    case op::load_matrices_transposed:
        load_matrices(lanes, kind == op::load_matrices_transposed, at);
        break;
    case op::sync_warp:
    case op::sync_block:
    case op::await_predecessor:
        break;
    }
}

const char *op_name(op kind) {
    switch (kind) {
    case op::sync_block:
        return "sync_block";
    case op::await_predecessor:
        return "await_predecessor";
    case op::sync_warp:
        return "sync_warp";
    case op::shuffle:
        return "shuffle";
    case op::mma_bf16:
        return "mma_bf16";
    case op::mma_f16:
        return "mma_f16";
    case op::load_matrices:
        return "load_matrices";
    case op::load_matrices_transposed:
        return "load_matrices_transposed";
    }
    return "";
}

} // namespace emu
