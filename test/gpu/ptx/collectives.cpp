/* test/gpu/ptx/collectives.cpp - what the lanes of a warp do together: shuffles, matrices, their barrier. Where
 * elements of matrices lie follows the tables and formulas of the PTX manual ("Matrix Fragments for mma.m16n8k16",
 * "ldmatrix"). */
#include "test/gpu/ptx/float16.h"
#include "test/gpu/ptx/lanes.h"

namespace ptx {

namespace {

void check_members(const warp &w, uint32_t at) {
    for (int l = 0; l < LANES; l++)
        if (w.narrow[at + (uint32_t)l] != ~0u)
            fail(error::launch_failed, "of some lanes of a warp only (member mask 0x%x)", w.narrow[at + (uint32_t)l]);
}

/* The source lane of bval and the segment that c describes; false: there is none. */
bool up(int lane, int b, int limit, int, int *j) {
    *j = lane - b;
    return *j >= limit;
}
bool down(int lane, int b, int limit, int, int *j) {
    *j = lane + b;
    return *j <= limit;
}
bool butterfly(int lane, int b, int limit, int, int *j) {
    *j = lane ^ b;
    return *j <= limit;
}
bool index(int, int b, int limit, int first, int *j) {
    *j = first | b;
    return *j <= limit;
}

/* at: d, p, a, b, c, members. b's bits beyond the segment count in no mode but idx, where the segment's come first. */
template <bool (*source)(int lane, int b, int limit, int first, int *j)> void shuffle(warp &w, const instruction &i) {
    const uint32_t *a = &w.narrow[i.at[2]], *b = &w.narrow[i.at[3]], *c = &w.narrow[i.at[4]];
    uint32_t r[LANES], valid = 0;
    check_members(w, i.at[5]);
    for (int l = 0; l < LANES; l++) {
        uint32_t clamp = c[l] & 31, segment = c[l] >> 8 & 31, lane = (uint32_t)l, bval = b[l] & 31;
        uint32_t limit = (lane & segment) | (clamp & ~segment), first = lane & segment;
        if (source == &index)
            bval &= ~segment;
        int j;
        bool in_range = source(l, (int)bval, (int)limit, (int)first, &j);
        r[l] = a[in_range ? j : l];
        valid |= (uint32_t)in_range << l;
    }
    memcpy(&w.narrow[i.at[0]], r, sizeof r);
    if (i.at[1] != NONE)
        write_predicate(w, i.at[1], valid);
}

void warp_barrier(warp &w, const instruction &i) {
    check_members(w, i.at[0]);
    w.in->shared.warp_barrier(w.index);
}

typedef float row8 __attribute__((vector_size(32)));

/* d = a b + c. Lanes are in groups of four: groupID = lane >> 2, threadID_in_group = lane % 4.
 *   a_i, i = 0..7:  row groupID, + 8 where i is 2, 3, 6, 7;  column 2 threadID_in_group + (i & 1), + 8 where i >= 4
 *   b_i, i = 0..3:  row 2 threadID_in_group + (i & 1), + 8 where i >= 2;  column groupID
 *   c_i, i = 0..3:  row groupID, + 8 where i >= 2;  column 2 threadID_in_group + (i & 1)
 * An operand's register holds elements 2 r and 2 r + 1, the first in its lower half. */
template <float (*widen)(uint16_t)>
__attribute__((always_inline)) inline void multiply(const uint32_t *const regs[14], uint32_t out[4][LANES]) {
    float a[16][16];
    row8 b[16], c[16];
    for (int l = 0; l < LANES; l++) {
        int group = l >> 2, in_group = l % 4;
        for (int i = 0; i < 8; i++) {
            uint32_t word = regs[4 + i / 2][l];
            a[group + (i & 2 ? 8 : 0)][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] =
                widen((uint16_t)(i & 1 ? word >> 16 : word));
        }
        for (int i = 0; i < 4; i++) {
            uint32_t word = regs[8 + i / 2][l];
            b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = widen((uint16_t)(i & 1 ? word >> 16 : word));
            c[group + (i >= 2 ? 8 : 0)][in_group * 2 + (i & 1)] = float_of(regs[10 + i][l]);
        }
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            c[r] += a[r][k] * b[k];
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 4; i++)
            out[i][l] = bits_of(c[(l >> 2) + (i >= 2 ? 8 : 0)][l % 4 * 2 + (i & 1)]);
}

inline float quick_f16(uint16_t h) {
    /* The exponent's bias changes by 112; what has none is scaled by an exact product. */
    uint32_t rest = h & 0x7fffu, sign = (uint32_t)(h & 0x8000) << 16;
    float f = float_of(rest << 13) * 0x1p112f;
    return float_of((rest >= 0x7c00 ? rest << 13 | 0x7f800000 : bits_of(f)) | sign);
}

#ifdef __x86_64__
template <float (*widen)(uint16_t)>
__attribute__((target("avx2"))) void multiply_avx2(const uint32_t *const regs[14], uint32_t out[4][LANES]) {
    multiply<widen>(regs, out);
}
#endif
template <float (*widen)(uint16_t)> void multiply_any(const uint32_t *const regs[14], uint32_t out[4][LANES]) {
    multiply<widen>(regs, out);
}

template <float (*widen)(uint16_t)> void mma(warp &w, const instruction &i) {
    const uint32_t *regs[14];
    uint32_t out[4][LANES];
    for (int k = 0; k < 14; k++)
        regs[k] = &w.narrow[i.at[k]];
#ifdef __x86_64__
    static void (*const run)(const uint32_t *const[14], uint32_t[4][LANES]) =
        __builtin_cpu_supports("avx2") ? multiply_avx2<widen> : multiply_any<widen>;
#else
    static void (*const run)(const uint32_t *const[14], uint32_t[4][LANES]) = multiply_any<widen>;
#endif
    run(regs, out);
    for (int k = 0; k < 4; k++)
        memcpy(&w.narrow[i.at[k]], out[k], sizeof out[k]);
}

/* Lane 8 m + r gives the address of row r of matrix m, 16 bytes. Of each matrix a lane gets the elements of row lane /
 * 4 (transposed: of column) at 2 (lane % 4) and behind it. */
template <bool transposed> void load_matrices(warp &w, const instruction &i) {
    uint16_t m[4][8][8];
    for (int l = 0; l < LANES; l++)
        memcpy(m[l / 8][l % 8], w.in->shared.read(address_of(w, i, 4, 0, l), 16, w.thread(l)), 16);
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < LANES; l++) {
            int r = l / 4, c = l % 4 * 2;
            uint16_t first = transposed ? m[k][c][r] : m[k][r][c],
                     second = transposed ? m[k][c + 1][r] : m[k][r][c + 1];
            w.narrow[i.at[k] + (uint32_t)l] = first | (uint32_t)second << 16;
        }
}

} // namespace

void add_collectives(forms &f) {
    const kind c = kind::collective;
    f.add("shfl.sync.up.b32", form{"r|=rrrr", shuffle<up>, c});
    f.add("shfl.sync.down.b32", form{"r|=rrrr", shuffle<down>, c});
    f.add("shfl.sync.bfly.b32", form{"r|=rrrr", shuffle<butterfly>, c});
    f.add("shfl.sync.idx.b32", form{"r|=rrrr", shuffle<index>, c});
    f.add("bar.warp.sync", form{"=r", warp_barrier, c});
    const char *mma_operands = "{rrrr}={rrrr}{rr}{rrrr}";
    f.add("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", form{mma_operands, mma<widen_bf16>, c});
    f.add("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", form{mma_operands, mma<quick_f16>, c});
    f.add("ldmatrix.sync.aligned.m8n8.x4.shared.b16", form{"{rrrr}=[", load_matrices<false>, c});
    f.add("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", form{"{rrrr}=[", load_matrices<true>, c});
}

} // namespace ptx
