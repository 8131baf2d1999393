/* gpu/join.cu - planes of the cards of a team, each its columns, as planes of whole rows. */
#include "gpu/attend.h"
#include "gpu/simt.cuh"

struct alignas(16) u16x8 {
    uint16_t v[JOIN_COLUMNS];
};
static_assert(sizeof(u16x8) == JOIN_COLUMNS * sizeof(uint16_t), "columns of a thread are one load");

/* Columns [at, at + 8) of a row of hi (lo: behind it), zeros behind the last card's. */
DEVICE u16x8 load_columns(const struct join_args &a, const uint16_t *row, int at) {
    const size_t block = 2 * a.plane;
    u16x8 r;
    if (a.each % JOIN_COLUMNS == 0 && at < a.n * a.each)
        return *reinterpret_cast<const u16x8 *>(row + (size_t)(at / a.each) * block + at % a.each);
    UNROLL
    for (int i = 0; i < JOIN_COLUMNS; i++) {
        int column = at + i;
        r.v[i] = column < a.n * a.each ? row[(size_t)(column / a.each) * block + column % a.each] : (uint16_t)0;
    }
    return r;
}

KERNEL(JOIN_THREADS, join, struct join_args a) {
    release_successor();
    await_predecessor();
    int row = block_x(), at = (block_y() * JOIN_THREADS + thread_x()) * JOIN_COLUMNS;
    if (row >= a.pass->n_rows || at >= a.out.ld)
        return;
    const uint16_t *hi = a.blocks + (size_t)row * (size_t)a.ld;
    size_t to = (size_t)row * (size_t)a.out.ld + (size_t)at;
    *reinterpret_cast<u16x8 *>(a.out.hi + to) = load_columns(a, hi, at);
    *reinterpret_cast<u16x8 *>(a.out.lo + to) = load_columns(a, hi + a.plane, at);
}
