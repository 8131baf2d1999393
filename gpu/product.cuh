/* gpu/product.cuh - products of weight tiles with the rows of a pass, for any type of weights and three forms of work.
 *
 * Weights are operand a of mma.m16n8k16, 16 of them by 16 columns, and 8 rows of the pass are b. Weights are read once
 * per pass (narrow, split) or once per block of pass rows (whole), in the order in which they lie.
 *
 * The order of a sum, the same in all forms: a segment (matrix_layout.h) is a chain from zero over its chunks; in a
 * chunk half 0, half 1; in a half w.hi x.hi, w.hi x.lo, w.lo x.hi, as far as there is a w.lo. Types with block scales
 * form a block from zero and add it to the chain, scaled, with one fused multiply-add (q4_K: then its minimum times its
 * sum of x, with another). The segments' sums are added to zero in order.
 *
 *   narrow   up to 16 rows. A block has one or two tiles and a warp for each segment; sums meet in shared memory.
 *   split    a block has 128 weight rows, 32 or 64 pass rows and one segment; product_combine adds them up.
 *   whole    the same with all segments one after the other: where the matrix or the pass makes blocks enough.
 *
 * What bounds them. A weight of w bytes costs 2 M multiply-adds of the tensor cores for M rows (hi and lo; 3 M for f16
 * and f32), so a card that reads R bytes/s and does F multiply-adds/s is bound by memory up to M = F w / (2 R). With
 * mma.sync at its best: A100 80 GB (1.8 TB/s, 156 T/s) 87 rows of bf16, 43 of q8, 22 of q4; H200 (4.3 TB/s, about 300
 * T/s) 70, 35, 17; RTX 4090 (0.95 TB/s, 82 T/s) 86, 43, 22. */
#ifndef GPU_PRODUCT_CUH
#define GPU_PRODUCT_CUH

#include "gpu/product_args.h"
#include "gpu/product_put.cuh"
#include "gpu/product_weights.cuh"

/* ---- narrow ---- */

enum { SUM_PITCH = GPU_TILE + 4 }; /* floats between columns of a sum in shared memory: stores meet all banks */

/* Steps of weights on their way or at hand, in registers: as many as two blocks to a multiprocessor allow. */
template <enum dtype T, int TILES, int NT> DEVICE constexpr int ring_depth() {
    constexpr int words = (has_scales<T>() ? 36 : 64) - 16 * (NT - 1), least = T == DT_F32 ? 1 : 2;
    constexpr int n = words / (TILES * (weights<T>::words + scales<T>::words));
    return n < least ? least : n > 4 ? 4 : n;
}

template <enum dtype T, int TILES, int NT> DEVICE void product_narrow(const product_args &a) {
    constexpr int DEPTH = ring_depth<T, TILES, NT>();
    SHARED float sums[GPU_SEGMENTS][TILES][NT][8 * SUM_PITCH];
    int lane = thread_x() % 32, warp = thread_x() / 32, g = lane / 4, t = lane % 4;
    int first_tile = block_x() * TILES;
    release_successor();
    weight_tiles tiles = find_tiles<T>(a.quants, a.scales, first_tile, a.n_tiles, a.steps, lane);

    weights<T> ring[DEPTH][TILES];
    scales<T> ring_scales[DEPTH][TILES];
    float acc[TILES][NT][4] = {};
    int from = warp * a.segment_steps, to = at_most(from + a.segment_steps, a.steps);
    UNROLL
    for (int d = 0; d < DEPTH - 1; d++) {
        if (from + d < to) {
            load_weights<T, TILES>(ring[d], tiles, from + d, lane);
            load_scales<T, TILES>(ring_scales[d], tiles, from + d, lane);
        }
    }
    await_predecessor(); /* not before the first weights are under way: they need not wait */
    int n_rows = at_most(a.pass->n_rows, NT * 8);
    if (n_rows < 1)
        return;
    uint32_t x_at[NT]; /* this lane's rows in the planes; rows behind the last repeat it: harmless, and free */
    UNROLL
    for (int n = 0; n < NT; n++)
        x_at[n] = (uint32_t)(at_most(n * 8 + g, n_rows - 1) * a.x.ld);
    for (int first = from; first < to; first += DEPTH) {
        UNROLL
        for (int d = 0; d < DEPTH; d++) {
            int step = first + d;
            if (step >= to)
                break;
            if (step + DEPTH - 1 < to) {
                load_weights<T, TILES>(ring[(d + DEPTH - 1) % DEPTH], tiles, step + DEPTH - 1, lane);
                load_scales<T, TILES>(ring_scales[(d + DEPTH - 1) % DEPTH], tiles, step + DEPTH - 1, lane);
            }
            UNROLL
            for (int c = 0; c < 2; c++) {
                uint32_t column = (uint32_t)(step * MATRIX_STEP + c * GPU_CHUNK);
                fragment f[NT];
                UNROLL
                for (int n = 0; n < NT; n++) {
                    take_plane<T>(f[n].hi, a.x.hi + (x_at[n] + column), t);
                    take_plane<T>(f[n].lo, a.x.lo + (x_at[n] + column), t);
                }
                multiply_chunk<T, TILES, NT, NT>(acc, 0, ring[d], ring_scales[d], c, f);
            }
        }
    }

    UNROLL
    for (int i = 0; i < TILES * NT * 4; i++) {
        int tile = i / 4 / NT, n = i / 4 % NT, k = i % 4;
        sums[warp][tile][n][(2 * t + k % 2) * SUM_PITCH + g + k / 2 * 8] = acc[tile][n][k];
    }
    sync_block();

    int per_tile = n_rows * GPU_TILE;
    bool gated = TILES == 2 && a.use == USE_GATE;
    for (int e = thread_x(); e < (gated ? 1 : TILES) * per_tile; e += block_threads()) {
        int tile = e / per_tile, row = e % per_tile / GPU_TILE, m = e % GPU_TILE;
        int at = row % 8 * SUM_PITCH + m;
        float y = 0, up = 0;
        for (int s = 0; s < a.n_segments; s++) {
            y += sums[s][tile][row / 8][at];
            if (gated)
                up += sums[s][TILES - 1][row / 8][at];
        }
        if (gated)
            put_gated(a, block_x(), m, row, y, up);
        else if (first_tile + tile < a.n_tiles)
            put(a, (first_tile + tile) * GPU_TILE + m, row, y);
    }
    if (gated && first_tile + TILES >= a.n_tiles)
        put_padding(a, 0, n_rows, thread_x(), block_threads());
}

/* ---- split and whole ---- */

/* What a step needs, in shared memory: the quants of PRODUCT_BLOCK_TILES tiles as they lie in the matrix, then N rows
 * of activations, each 128 bytes of hi and 128 of lo in units of 16. Units are moved about by the row so that the eight
 * lanes of a phase of a 16-byte load, two rows of 64 bytes, meet all banks, and so do the sixteen of an 8-byte load,
 * four rows of 32 bytes. */
enum { X_PITCH = 2 * MATRIX_STEP /* elements */ };

DEVICE int unit_at(int row, int unit) {
    return unit ^ ((row & 1) << 2 | (row & 2));
}

/* What a thread copies of a step: its warp's share of the two tiles that the warp multiplies, and a unit each of some
 * rows. Pointers go on with the steps. */
struct filler {
    const uint8_t *w, *x;
    size_t to_tile, to_row; /* bytes from the first tile to the second; from one row of this thread to its next */
    int n_rows;             /* to the last, from this thread's first; what lies behind is not copied */
};
template <enum dtype T> DEVICE constexpr int tile_units() {
    return matrix_step_words(T) / 4;
}

template <enum dtype T, int THREADS>
DEVICE filler find_filler(const product_args &a, int first_tile, int first_row, int step) {
    int tile = at_most(first_tile, a.n_tiles - 1), row = first_row + thread_x() / 16;
    size_t tile_bytes = (size_t)a.steps * (tile_units<T>() * 16), row_bytes = (size_t)a.x.ld * 2;
    const uint16_t *plane = thread_x() / 8 % 2 ? a.x.lo : a.x.hi;
    filler f;
    f.w = a.quants + (size_t)tile * tile_bytes + (size_t)step * (tile_units<T>() * 16);
    f.to_tile = tile + 1 < a.n_tiles ? tile_bytes : 0;
    f.x = (const uint8_t *)plane + (size_t)row * row_bytes + (size_t)(step * MATRIX_STEP * 2 + thread_x() % 8 * 16);
    f.to_row = THREADS / 16 * row_bytes;
    f.n_rows = -row; /* to which the rows of the pass are added, when it is known how many there are */
    return f;
}

/* Begins to copy the weights of the next step to a stage. */
template <enum dtype T, int N> DEVICE void fill_weights(uint32_t *stage, filler &f) {
    constexpr int WN = product_columns(T, N), UNITS = 2 * tile_units<T>();
    int warp = thread_x() / 32, lane = thread_x() % 32, part = warp % WN;
    uint32_t *w = stage + warp / WN * UNITS * 4;
    UNROLL
    for (int i = 0; i < UNITS; i += 32 * WN) {
        int j = i + part * 32 + lane;
        if (UNITS % (32 * WN) == 0 || j < UNITS)
            copy_async(w + j * 4, f.w + (size_t)(j / tile_units<T>()) * f.to_tile + (size_t)(j % tile_units<T>() * 16));
    }
    f.w += tile_units<T>() * 16;
}
/* And its activations. */
template <enum dtype T, int N> DEVICE void fill_rows(uint32_t *stage, filler &f) {
    constexpr int ROWS = product_threads(T, N) / 16;
    uint16_t *x = (uint16_t *)(void *)(stage + PRODUCT_BLOCK_TILES * tile_units<T>() * 4);
    int row = thread_x() / 16;
    x += row * X_PITCH + thread_x() / 8 % 2 * MATRIX_STEP + unit_at(row, thread_x() % 8) * 8;
    const uint8_t *from = f.x;
    UNROLL
    for (int i = 0; i < N; i += ROWS) {
        if (i < f.n_rows)
            copy_async(x + i * X_PITCH, from);
        from += f.to_row;
    }
    f.x += MATRIX_STEP * 2;
}

/* The fragment of the 8 rows from x on, for a chunk. */
template <enum dtype T> DEVICE void take_stage(fragment &f, const uint16_t *x, int chunk, int g, int t) {
    const uint16_t *row = x + g * X_PITCH;
    if (T == DT_Q6_K) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            int at = unit_at(g, chunk * 4 + half * 2 + t / 2) * 8 + t % 2 * 4;
            take_words<2>(f.hi + half * 2, row + at);
            take_words<2>(f.lo + half * 2, row + MATRIX_STEP + at);
        }
    } else {
        int at = unit_at(g, chunk * 4 + t) * 8;
        take_words<4>(f.hi, row + at);
        take_words<4>(f.lo, row + MATRIX_STEP + at);
    }
}

enum wide_form : bool { split, whole };

/* A block of 8 tiles and N rows of the pass; a warp has two tiles and 8 NT rows. Grid: blocks of pass rows, blocks of
 * tiles, segments (1 when WHOLE). */
template <enum dtype T, int N, bool WHOLE> DEVICE void product_wide(const product_args &a) {
    constexpr int WN = product_columns(T, N), NT = N / 8 / WN, STAGES = product_stages(T, N);
    constexpr int STAGE_WORDS = product_stage_bytes(T, N) / 4, TILE_WORDS = matrix_step_words(T);
    constexpr int GROUP = has_scales<T>() ? 2 : 4; /* fragments in registers at a time */
    DYNAMIC_SHARED(uint32_t, stages);
    int lane = thread_x() % 32, warp = thread_x() / 32, g = lane / 4, t = lane % 4;
    int block_tile = block_y() * PRODUCT_BLOCK_TILES, first_tile = block_tile + warp / WN * 2;
    int first_row = block_x() * N, warp_row = warp % WN * 8 * NT;
    int from = WHOLE ? 0 : block_z() * a.segment_steps, to = WHOLE ? a.steps : at_most(from + a.segment_steps, a.steps);

    release_successor();
    filler filler = find_filler<T, product_threads(T, N)>(a, first_tile, first_row, from);
    weight_tiles tiles = find_tiles<T>(a.quants, a.scales, first_tile, a.n_tiles, a.steps, lane);
    scales<T> now[2], then[2];
    load_scales<T, 2>(then, tiles, from, lane);
    float acc[2][NT][4] = {}, total[2][WHOLE ? NT : 1][4] = {};
    UNROLL
    for (int s = 0; s < STAGES - 1; s++)
        if (from + s < to)
            fill_weights<T, N>(stages + s * STAGE_WORDS, filler);
    await_predecessor();
    int n_rows = a.pass->n_rows;
    if (first_row >= n_rows) {
        copy_commit();
        copy_wait<0>();
        return;
    }
    filler.n_rows += n_rows;
    UNROLL
    for (int s = 0; s < STAGES - 1; s++) {
        if (from + s < to)
            fill_rows<T, N>(stages + s * STAGE_WORDS, filler);
        copy_commit(); /* the first one takes all weights along that were begun */
    }
    int slot = 0, end = from + a.segment_steps;
    bool idle = first_tile >= a.n_tiles || first_row + warp_row >= n_rows; /* this warp only copies */
    for (int step = from; step < to; step++) {
        copy_wait<STAGES - 2>();
        sync_block(); /* this step is there, and nobody reads the one before it any more */
        int free_slot = slot == 0 ? STAGES - 1 : slot - 1;
        if (step + STAGES - 1 < to) {
            fill_weights<T, N>(stages + free_slot * STAGE_WORDS, filler);
            fill_rows<T, N>(stages + free_slot * STAGE_WORDS, filler);
        }
        copy_commit();

        const uint32_t *stage = stages + slot * STAGE_WORDS;
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        if (idle)
            continue;
        const uint16_t *x = (const uint16_t *)(const void *)(stage + PRODUCT_BLOCK_TILES * TILE_WORDS);
        weights<T> w[2];
        UNROLL
        for (int i = 0; i < 2; i++)
            now[i] = then[i];
        if (step + 1 < to)
            load_scales<T, 2>(then, tiles, step + 1, lane);
        UNROLL
        for (int i = 0; i < 2; i++)
            take_weights<T>(w[i], stage + (warp / WN * 2 + i) * TILE_WORDS, lane);
        UNROLL
        for (int i = 0; i < 2 * NT; i += GROUP) {
            int chunk = i / NT, n = i % NT;
            fragment f[GROUP];
            UNROLL
            for (int j = 0; j < GROUP; j++)
                take_stage<T>(f[j], x + (warp_row + (n + j) * 8) * X_PITCH, chunk, g, t);
            multiply_chunk<T, 2, NT, GROUP>(acc, n, w, now, chunk, f);
        }

        if (WHOLE && (step + 1 == end || step + 1 == to)) {
            end += a.segment_steps;
            UNROLL
            for (int i = 0; i < 2 * NT * 4; i++) {
                int tile = i / 4 / NT, n = i / 4 % NT;
                total[tile][WHOLE ? n : 0][i % 4] += acc[tile][n][i % 4];
                acc[tile][n][i % 4] = 0;
            }
        }
    }

    if (idle)
        return;
    UNROLL
    for (int i = 0; i < NT * 4; i++) {
        int n = i / 4, k = i % 4, row = first_row + warp_row + n * 8 + 2 * t + k % 2, m = g + k / 2 * 8;
        if (row >= n_rows)
            continue;
        if (!WHOLE) {
            put_partial(a, block_z(), first_tile * GPU_TILE + m, row, acc[0][n][k]);
            if (first_tile + 1 < a.n_tiles)
                put_partial(a, block_z(), (first_tile + 1) * GPU_TILE + m, row, acc[1][n][k]);
        } else if (a.use == USE_GATE) {
            put_gated(a, first_tile / 2, m, row, total[0][WHOLE ? n : 0][k], total[1][WHOLE ? n : 0][k]);
        } else {
            put(a, first_tile * GPU_TILE + m, row, total[0][WHOLE ? n : 0][k]);
            if (first_tile + 1 < a.n_tiles)
                put(a, (first_tile + 1) * GPU_TILE + m, row, total[1][WHOLE ? n : 0][k]);
        }
    }
    if (WHOLE && a.use == USE_GATE && block_tile + PRODUCT_BLOCK_TILES >= a.n_tiles && warp < WN)
        put_padding(a, first_row + warp_row, at_most(first_row + warp_row + 8 * NT, n_rows), lane, 32);
}

/* Two blocks to a multiprocessor, where a lane's 128 registers are enough; f16's second terms need more of them. */
#define NARROW_BLOCKS(T, tiles, n) ((T) == DT_F16 && (tiles) * (n) == 32 ? 1 : 2)

/* The kernels of one type, as kernel_list.h names them. */
#define PRODUCT_NARROW(name, T, tiles, n)                                                                              \
    KERNEL_INSTANCE_BLOCKS(256, NARROW_BLOCKS(T, tiles, n), product_##name##_narrow_##tiles##x##n,                     \
                           struct product_args, product_narrow<T, tiles, n / 8>)
#define PRODUCT_WIDE(name, T, form, n)                                                                                 \
    KERNEL_INSTANCE(product_threads(T, n), product_##name##_##form##_##n, struct product_args, product_wide<T, n, form>)
#define PRODUCT_KERNELS(name, T)                                                                                       \
    PRODUCT_NARROW(name, T, 1, 8)                                                                                      \
    PRODUCT_NARROW(name, T, 2, 8)                                                                                      \
    PRODUCT_NARROW(name, T, 1, 16)                                                                                     \
    PRODUCT_NARROW(name, T, 2, 16)                                                                                     \
    PRODUCT_WIDE(name, T, split, 32)                                                                                   \
    PRODUCT_WIDE(name, T, split, 64)                                                                                   \
    PRODUCT_WIDE(name, T, whole, 32)                                                                                   \
    PRODUCT_WIDE(name, T, whole, 64)

#endif
