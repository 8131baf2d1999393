/* gpu/attend.cu - attention of the rows of a pass over slots of K and V, on tensor cores.
 *
 * What a block of threads does. It takes one kv head and one item: up to 16 queries, which are the heads that share
 * that kv head, of a few rows that share a trunk - one tile of the tensor cores. (Of larger passes four items, a warp
 * each, so that keys and values are fetched once for all of them.) It goes through the keys in steps of 64 logical
 * positions, as FlashAttention-2 does (Dao 2023):
 *
 *   fetch    64 rows of K and of V come from their slots into shared memory, asynchronously: K of the next step while
 *            V of this one is multiplied, V of the next while its scores are (attend_cells.cuh, which also makes f16 of
 *            fp8).
 *   scores   S = Q K', 16 x 64 in f32; Q holds log2(e) / sqrt(head_dim), so that weights are powers of two.
 *   weights  keys that a query does not see get -inf; its top rises to the largest score; P = 2^(S - top).
 *   values   O = O * 2^(old top - new top) + P V, and the sum of P, as P times ones.
 *
 * Every 256 keys (a split) begin a new top, sum and O, and these partial results are folded in their order, by the
 * functions of attend.cuh. That makes splits independent: for few rows over many keys each is a block of its own that
 * writes its partial result to scratch, and a second kernel folds them (Flash-Decoding: Dao, Haziza, Massa & Sizov
 * 2023); when there are more than scratch has room for, some splits first, then the next. Otherwise the block goes
 * through all splits and folds as it goes. Both give the same bits.
 *
 * Why a query's bits are its own. Blocks and splits are aligned to position 0, so a key has the same place in the same
 * tile whatever else is there. What other queries see, or a step that this query has no part in, meets it as scores of
 * -inf: top stays, the factor is 2^0 = 1, zeros are added. Slots of keys that nobody in the block sees are not read;
 * and V in memory is always finite (rope.cu), so that a weight of zero does not let a value through.
 *
 * Trees. Rows of a session have a trunk in common and each a tail of its own. As long as a block of keys lies on the
 * trunk of all rows it is one step; then come a step for the rows that still find it there and one for each row that
 * has its tail in it. The steps are found by struct steps, of attend.cuh.
 *
 * Numbers. K and V are f16 here; Q, in f32, goes in as two f16 terms, and so does P, scaled by 2^15 (in that top is 15
 * less than the largest score), which keeps weights down to 2^-29 from being subnormal.
 *
 * Two shapes of a block, in template shape below: with one item four warps share the work - each has 16 of the 64
 * keys' scores, then a quarter of the columns of O; weights go through shared memory. With four items each warp has an
 * item for itself. The sums of an element are formed in the same order. */
#include "gpu/attend.cuh"

static constexpr int WEIGHT_BITS = 15; /* the largest weight is 2^15 */

/* HD: head_dim rounded up to what there are kernels for; behind the true one everything is zero. */
template <int HD, int ITEMS> struct shape {
    static constexpr int WARPS = 4 / ITEMS;      /* of an item */
    static constexpr int QUERIES = 16 * ITEMS;   /* and at most as many rows */
    static constexpr int STRIDE = HD + 8;        /* of rows in shared memory: eight of them meet all banks */
    static constexpr int PAIRS = 4 / WARPS;      /* pairs of tiles, of 8 keys, whose scores a warp forms */
    static constexpr int TILES = HD / 8 / WARPS; /* tiles, of 8 columns, that it has of O */
    typedef typename pick<(TILES > 8), volatile float, float>::type whole_sum;
};

/* A query of an item. */
struct query {
    int row_of_item;
    int row, head; /* row -1: there is none */
};

/* There is nothing in item n_items and those behind it. */
DEVICE struct gpu_item item_at(const struct attend_args &a, int i) {
    struct gpu_item none = {};
    return i < a.pass->n_items ? a.pass->items[i] : none;
}

DEVICE query query_of(const struct attend_args &a, const struct gpu_item &item, int i) {
    int head = a.group > GPU_QUERIES ? item.part * GPU_QUERIES + i : i % a.group;
    int row = a.group > GPU_QUERIES ? 0 : i / a.group;
    bool is = row < item.n && head < a.group;
    return {row, is ? (int)item.row + row : -1, block_y() * a.group + head};
}

/* Online softmax over some keys: of lane 4 g + t the queries g (index 0) and g + 8 (index 1); elements of tiles as mma
 * has them. Sum: float, or volatile float for what lies in the thread's own memory instead of registers, of which there
 * are not enough for two of them when a warp has all columns. */
template <int TILES, class Sum = float> struct partial {
    float top[2];
    float sum[4];
    Sum o[TILES][4];
};

template <int TILES, class Sum> DEVICE void partial_begin(partial<TILES, Sum> &p) {
    p.top[0] = p.top[1] = -infinity();
    UNROLL
    for (int i = 0; i < 4; i++)
        p.sum[i] = 0;
    UNROLL
    for (int i = 0; i < 4 * TILES; i++)
        p.o[i / 4][i % 4] = 0;
}

template <int TILES, class Sum> DEVICE void partial_fold(partial<TILES, Sum> &p, const partial<TILES> &in) {
    const fold f[2] = {fold_top(&p.top[0], in.top[0]), fold_top(&p.top[1], in.top[1])};
    UNROLL
    for (int i = 0; i < 4; i++)
        p.sum[i] = fold_sum(f[i / 2], p.sum[i], in.sum[i]);
    UNROLL
    for (int i = 0; i < 4 * TILES; i++)
        p.o[i / 4][i % 4] = fold_sum(f[i % 4 / 2], p.o[i / 4][i % 4], in.o[i / 4][i % 4]);
}

/* f32 to two f16 terms. */
DEVICE void split_f16(float a, float b, uint32_t *hi, uint32_t *lo) {
    *hi = pack_f16(a, b);
    *lo = pack_f16(a - from_f16((uint16_t)(*hi & 0xffff)), b - from_f16((uint16_t)(*hi >> 16)));
}

/* Queries of the block, scaled, as two planes [QUERIES][STRIDE]. */
template <int HD, class Shape>
DEVICE void stage_queries(const struct attend_args &a, const int *at, uint16_t *hi, uint16_t *lo) {
    for (int i = thread_x(); i < Shape::QUERIES * HD / 2; i += ATTEND_THREADS) {
        int q = i / (HD / 2), col = i % (HD / 2) * 2;
        float x = 0, y = 0;
        if (at[q] >= 0 && col < a.head_dim) {
            x = a.q[at[q] + col] * a.scale;
            y = a.q[at[q] + col + 1] * a.scale;
        }
        uint32_t h, l;
        split_f16(x, y, &h, &l);
        *reinterpret_cast<uint32_t *>(hi + q * Shape::STRIDE + col) = h;
        *reinterpret_cast<uint32_t *>(lo + q * Shape::STRIDE + col) = l;
    }
}

/* s = Q K' of a warp's queries and keys: [tile of 8 keys]. q and k point to the first of each. */
template <int HD, int PAIRS>
DEVICE void form_scores(float s[2 * PAIRS][4], const uint16_t *q_hi, const uint16_t *q_lo, const uint16_t *k) {
    constexpr int STRIDE = HD + 8;
    int lane = thread_x() % 32, j = lane % 8, i = lane / 8;
    int of_q = (i % 2 * 8 + j) * STRIDE + i / 2 * 8, of_k = (i / 2 * 8 + j) * STRIDE + i % 2 * 8;
    UNROLL
    for (int e = 0; e < 8 * PAIRS; e++)
        s[e / 4][e % 4] = 0;
    UNROLL
    for (int col = 0; col < HD; col += 16) {
        uint32_t hi[4], lo[4];
        load_matrices(hi, q_hi + of_q + col);
        load_matrices(lo, q_lo + of_q + col);
        UNROLL
        for (int p = 0; p < PAIRS; p++) {
            uint32_t b[4];
            load_matrices(b, k + of_k + p * 16 * STRIDE + col);
            mma_f16(s[2 * p], lo, b);
            mma_f16(s[2 * p + 1], lo, b + 2);
            mma_f16(s[2 * p], hi, b);
            mma_f16(s[2 * p + 1], hi, b + 2);
        }
    }
}

/* Scores of keys that query i of the lane (0, 1) has no part in become -inf. key0: the warp's first key in the block.
 */
template <int PAIRS>
DEVICE void hide_keys(float s[2 * PAIRS][4], int i, const viewer &v, int viewer_index, const step &now, int key0) {
    bool part = source_of(v, viewer_index, now.at) == now.source;
    int lo = v.first > now.at ? (int)(v.first - now.at) : 0;
    int hi = !part ? 0 : v.end - now.at < GPU_KV_BLOCK ? (int)(v.end - now.at) : GPU_KV_BLOCK;
    if (lo == 0 && hi == GPU_KV_BLOCK)
        return;
    UNROLL
    for (int n = 0; n < 2 * PAIRS; n++) {
        UNROLL
        for (int e = 0; e < 2; e++) {
            int key = key0 + n * 8 + thread_x() % 4 * 2 + e;
            if (key < lo || key >= hi)
                s[n][2 * i + e] = -infinity();
        }
    }
}

/* The largest score of query i of the lane, among the warp's keys. */
template <int PAIRS> DEVICE float largest(const float s[2 * PAIRS][4], int i) {
    float m = -infinity();
    UNROLL
    for (int n = 0; n < 2 * PAIRS; n++)
        m = fmaxf(m, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    m = fmaxf(m, shuffle_xor(m, 1));
    return fmaxf(m, shuffle_xor(m, 2));
}

/* Scores of query i of the lane become weights under the top that these keys make it; what it has so far is brought
 * under that. */
template <int TILES, int PAIRS> DEVICE void weigh(partial<TILES> &p, float s[2 * PAIRS][4], int i, float largest) {
    float old = p.top[i], now = fmaxf(old, largest - WEIGHT_BITS);
    float base = now == -infinity() ? 0 : now, keep = exp2_of(old - base);
    p.top[i] = now;
    p.sum[2 * i] *= keep;
    p.sum[2 * i + 1] *= keep;
    UNROLL
    for (int n = 0; n < TILES; n++) {
        p.o[n][2 * i] *= keep;
        p.o[n][2 * i + 1] *= keep;
    }
    UNROLL
    for (int n = 0; n < 2 * PAIRS; n++) {
        s[n][2 * i] = exp2_of(s[n][2 * i] - base);
        s[n][2 * i + 1] = exp2_of(s[n][2 * i + 1] - base);
    }
}

/* Weights of a block's 64 keys, 16 by 16, as an operand of mma in two terms. */
struct operands {
    u32x4 hi[4], lo[4];
};

/* Two tiles of 8 keys as mma leaves them are what it takes for 16 keys. */
DEVICE void pack_weights(operands &w, int at, const float s[2][4]) {
    UNROLL
    for (int e = 0; e < 4; e++)
        split_f16(s[e / 2][e % 2 * 2], s[e / 2][e % 2 * 2 + 1], &w.hi[at].v[e], &w.lo[at].v[e]);
}

/* o = o + P V and sum = sum + P 1 of a warp's columns, which v points to. */
template <int HD, int TILES> DEVICE void add_values(partial<TILES> &p, const operands &w, const uint16_t *v) {
    constexpr int STRIDE = HD + 8;
    const uint32_t ones[2] = {0x3c003c00u, 0x3c003c00u};
    UNROLL
    for (int k = 0; k < 4; k++) {
        mma_f16(p.sum, w.lo[k].v, ones);
        mma_f16(p.sum, w.hi[k].v, ones);
    }
    UNROLL
    for (int k = 0; k < 4; k += 2) {
        UNROLL
        for (int n = 0; n < TILES; n++) {
            uint32_t b[4];
            load_matrices_transposed(b, v + (k * 16 + thread_x() % 32) * STRIDE + n * 8);
            mma_f16(p.o[n], w.lo[k].v, b);
            mma_f16(p.o[n], w.hi[k].v, b);
            mma_f16(p.o[n], w.lo[k + 1].v, b + 2);
            mma_f16(p.o[n], w.hi[k + 1].v, b + 2);
        }
    }
}

/* Query i of the lane, columns from col0: as a partial result in scratch, or as the output. */
template <int TILES, class Sum>
DEVICE void store_part(const struct attend_args &a, const query &q, int i, const partial<TILES, Sum> &p, int col0) {
    size_t at = ((size_t)q.row * (size_t)a.n_heads + (size_t)q.head) * (size_t)a.n_parts + (size_t)block_z();
    float *to = a.parts + at * (size_t)(a.head_dim + 2);
    int t = thread_x() % 4;
    UNROLL
    for (int n = 0; n < TILES; n++) {
        int col = col0 + n * 8 + t * 2;
        if (col < a.head_dim) {
            to[col] = p.o[n][2 * i];
            to[col + 1] = p.o[n][2 * i + 1];
        }
    }
    if (col0 == 0 && t == 0) {
        to[a.head_dim] = p.sum[2 * i];
        to[a.head_dim + 1] = p.top[i];
    }
}
template <int TILES, class Sum>
DEVICE void store_result(const struct attend_args &a, const query &q, int i, const partial<TILES, Sum> &p, int col0) {
    int t = thread_x() % 4;
    UNROLL
    for (int n = 0; n < TILES; n++) {
        int col = col0 + n * 8 + t * 2;
        if (col < a.head_dim)
            store_pair(a.out, q.row, q.head * a.head_dim + col, p.o[n][2 * i], p.o[n][2 * i + 1], p.sum[2 * i]);
    }
    if (col0 == 0 && q.head == a.n_heads - 1)
        store_zeros(a.out, q.row, a.n_heads * a.head_dim, t, 4);
}

/* Cells: f16_cells or fp8_cells. */
template <int HD, int ITEMS, class Cells> DEVICE void attend(const struct attend_args &a) {
    typedef shape<HD, ITEMS> sh;
    SHARED viewer rows[sh::QUERIES];
    SHARED int query_at[sh::QUERIES]; /* in a.q; -1: there is none */
    SHARED uint32_t slots[GPU_KV_BLOCK];
    SHARED uint32_t factors[2][Cells::SCALED ? GPU_KV_BLOCK : 1]; /* of fp8: of a step, and the one before */
    SHARED float tops[sh::WARPS][16];                             /* among the keys of each warp of the item */
    SHARED u32x4 shared_hi[4][32], shared_lo[4][32];
    DYNAMIC_SHARED(uint16_t, dynamic);
    Cells cells;
    uint16_t *q_hi = place(cells, dynamic), *q_lo = q_hi + sh::QUERIES * sh::STRIDE;

    const int warp = thread_x() / 32, lane = thread_x() % 32;
    const int mine = warp / sh::WARPS, share = warp % sh::WARPS; /* the warp's item, and its part of that */
    release_successor();
    await_predecessor();
    const int n_items = a.pass->n_items, n_blocks = (n_items + ITEMS - 1) / ITEMS;
    if (block_x() >= n_blocks)
        return;
    const int item0 = (n_blocks - 1 - block_x()) * ITEMS; /* the last rows see most: begin with them */
    if (thread_x() < sh::QUERIES) {
        int i = thread_x() / 16, j = thread_x() % 16;
        const struct gpu_item item = item_at(a, item0 + i);
        rows[thread_x()] = j < item.n ? viewer_of(a.pass->rows[item.row + (uint32_t)j], a.window) : viewer();
        const query q = query_of(a, item, j);
        query_at[thread_x()] = q.row < 0 ? -1 : q.row * a.ld + q.head * a.head_dim;
    }
    sync_block();

    const uint32_t from = a.spread ? (uint32_t)(a.split + block_z()) * GPU_KV_SPLIT : 0;
    const steps<sh::QUERIES> all = steps_over<sh::QUERIES>(rows, from, a.spread ? from + GPU_KV_SPLIT : ~0u);
    step now = step_first(all);
    if (now.source == NO_SOURCE)
        return;
    int parity = 0; /* of the step: which factors are its */
    if (thread_x() < GPU_KV_BLOCK) {
        slots[thread_x()] = slot_of(all, now, thread_x(), a.pass->slots);
        if (Cells::SCALED)
            factors[0][thread_x()] = factors_at(a, slots[thread_x()]);
    }
    sync_block();
    fetch_k(cells, a, block_y(), slots);
    copy_commit();
    fetch_v(cells, a, block_y(), slots);
    copy_commit();
    stage_queries<HD, sh>(a, query_at, q_hi, q_lo);

    const int viewers[2] = {mine * 16 + query_of(a, item_at(a, item0 + mine), lane / 4).row_of_item,
                            mine * 16 + query_of(a, item_at(a, item0 + mine), lane / 4 + 8).row_of_item};
    const int q0 = mine * 16 * sh::STRIDE, key0 = share * 16 * sh::PAIRS, col0 = share * 8 * sh::TILES;
    partial<sh::TILES> part;
    partial<sh::TILES, typename sh::whole_sum> whole;
    partial_begin(part);
    partial_begin(whole);
    for (;;) {
        const step next = step_after(all, now);
        const bool last = next.source == NO_SOURCE;
        uint32_t next_slot = NO_SLOT, next_factors = 0;
        if (!last && thread_x() < GPU_KV_BLOCK) {
            next_slot = slot_of(all, next, thread_x(), a.pass->slots);
            if (Cells::SCALED)
                next_factors = factors_at(a, next_slot);
        }

        copy_wait<1>();
        ready_k(cells, factors[parity]);
        sync_block(); /* K is there */
        float s[2 * sh::PAIRS][4], top[2];
        form_scores<HD, sh::PAIRS>(s, q_hi + q0, q_lo + q0, cells.k + key0 * sh::STRIDE);
        UNROLL
        for (int i = 0; i < 2; i++) {
            hide_keys<sh::PAIRS>(s, i, rows[viewers[i]], viewers[i], now, key0);
            top[i] = largest<sh::PAIRS>(s, i);
            if (sh::WARPS > 1 && lane % 4 == 0)
                tops[share][lane / 4 + 8 * i] = top[i];
        }
        if (thread_x() < GPU_KV_BLOCK) {
            slots[thread_x()] = next_slot;
            if (Cells::SCALED)
                factors[parity ^ 1][thread_x()] = next_factors;
        }
        sync_block(); /* K has been read; tops and slots are there */
        if (!last)
            fetch_k(cells, a, block_y(), slots);
        copy_commit();

        UNROLL
        for (int i = 0; i < 2; i++) {
            if (sh::WARPS > 1) {
                UNROLL
                for (int w = 0; w < sh::WARPS; w++)
                    top[i] = fmaxf(top[i], tops[w][lane / 4 + 8 * i]);
            }
            weigh<sh::TILES, sh::PAIRS>(part, s, i, top[i]);
        }
        operands w;
        UNROLL
        for (int p = 0; p < sh::PAIRS; p++)
            pack_weights(w, p, &s[2 * p]);
        if (sh::WARPS > 1) {
            shared_hi[warp][lane] = w.hi[0];
            shared_lo[warp][lane] = w.lo[0];
        }
        copy_wait<1>();
        ready_v(cells, factors[parity]);
        sync_block(); /* V is there, and the other warps' weights */
        if (sh::WARPS > 1) {
            UNROLL
            for (int p = 0; p < 4; p++) {
                w.hi[p] = shared_hi[p][lane];
                w.lo[p] = shared_lo[p][lane];
            }
        }
        add_values<HD, sh::TILES>(part, w, cells.v + col0);
        if (last)
            break;
        if (next.at / GPU_KV_SPLIT != now.at / GPU_KV_SPLIT) {
            partial_fold(whole, part);
            partial_begin(part);
        }
        now = next;
        parity ^= 1;
        sync_block(); /* V has been read */
        fetch_v(cells, a, block_y(), slots);
        copy_commit();
    }
    if (!a.spread)
        partial_fold(whole, part);

    UNROLL
    for (int i = 0; i < 2; i++) {
        const query q = query_of(a, item_at(a, item0 + mine), lane / 4 + 8 * i);
        if (q.row >= 0 && a.spread)
            store_part(a, q, i, part, col0);
        else if (q.row >= 0)
            store_result(a, q, i, whole, col0);
    }
}

KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 4, attend_32, struct attend_args, attend<32, 1, f16_cells<32>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 4, attend_64, struct attend_args, attend<64, 1, f16_cells<64>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 3, attend_96, struct attend_args, attend<96, 1, f16_cells<96>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 3, attend_128, struct attend_args, attend<128, 1, f16_cells<128>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_256, struct attend_args, attend<256, 1, f16_cells<256>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_32_4, struct attend_args, attend<32, ATTEND_ITEMS, f16_cells<32>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_64_4, struct attend_args, attend<64, ATTEND_ITEMS, f16_cells<64>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_96_4, struct attend_args, attend<96, ATTEND_ITEMS, f16_cells<96>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_128_4, struct attend_args, attend<128, ATTEND_ITEMS, f16_cells<128>>)

/* Fewer of fp8, each for the smaller heads as well: what is read is the same, and memory is what this is about. */
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 4, attend_fp8_64, struct attend_args, attend<64, 1, fp8_cells<64>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 3, attend_fp8_128, struct attend_args, attend<128, 1, fp8_cells<128>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_fp8_256, struct attend_args, attend<256, 1, fp8_cells<256>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_fp8_64_4, struct attend_args, attend<64, ATTEND_ITEMS, fp8_cells<64>>)
KERNEL_INSTANCE_BLOCKS(ATTEND_THREADS, 2, attend_fp8_128_4, struct attend_args,
                       attend<128, ATTEND_ITEMS, fp8_cells<128>>)

/* Folds the partial results of a query over the splits that it sees, behind what was folded of those before: a warp
 * each. */
KERNEL(COMBINE_THREADS, attend_combine, struct attend_args a) {
    release_successor();
    await_predecessor();
    constexpr int PAIRS = GPU_HEAD_DIM_MAX / 64, AHEAD = 4; /* parts that are fetched at a time */
    int i = block_x() * COMBINE_QUERIES + thread_x() / 32, lane = thread_x() % 32;
    int row = i / a.n_heads, head = i % a.n_heads;
    if (row >= a.pass->n_rows)
        return;
    uint32_t pos = a.pass->rows[row].pos;
    int first = (int)(first_key(pos, a.window) / GPU_KV_SPLIT) - a.split, last = (int)(pos / GPU_KV_SPLIT) - a.split;
    int n = a.n_parts - (a.begin && a.end ? 0 : 1); /* of a launch */
    last = last < n ? last : n - 1;
    size_t stride = (size_t)(a.head_dim + 2);
    float *parts = a.parts + (size_t)i * (size_t)a.n_parts * stride, *so_far = parts + (size_t)n * stride;
    float top = -infinity(), sum = 0, o[PAIRS][2] = {};
    if (!a.begin) {
        sum = so_far[a.head_dim];
        top = so_far[a.head_dim + 1];
        UNROLL
        for (int j = 0; j < PAIRS; j++) {
            int col = 2 * lane + 64 * j;
            o[j][0] = col < a.head_dim ? so_far[col] : 0;
            o[j][1] = col < a.head_dim ? so_far[col + 1] : 0;
        }
    }
    for (int split = first > 0 ? first : 0; split <= last; split += AHEAD) {
        float top_in[AHEAD], sum_in[AHEAD], in[AHEAD][PAIRS][2];
        UNROLL
        for (int k = 0; k < AHEAD; k++) {
            const float *p = parts + (size_t)(split + k) * stride;
            bool is = split + k <= last;
            sum_in[k] = is ? p[a.head_dim] : 0;
            top_in[k] = is ? p[a.head_dim + 1] : -infinity();
            UNROLL
            for (int j = 0; j < PAIRS; j++) {
                int col = 2 * lane + 64 * j;
                in[k][j][0] = is && col < a.head_dim ? p[col] : 0;
                in[k][j][1] = is && col < a.head_dim ? p[col + 1] : 0;
            }
        }
        UNROLL
        for (int k = 0; k < AHEAD; k++) {
            fold f = fold_top(&top, top_in[k]);
            sum = fold_sum(f, sum, sum_in[k]);
            UNROLL
            for (int j = 0; j < PAIRS; j++) {
                o[j][0] = fold_sum(f, o[j][0], in[k][j][0]);
                o[j][1] = fold_sum(f, o[j][1], in[k][j][1]);
            }
        }
    }
    UNROLL
    for (int j = 0; j < PAIRS; j++) {
        int col = 2 * lane + 64 * j;
        if (col < a.head_dim && a.end)
            store_pair(a.out, row, head * a.head_dim + col, o[j][0], o[j][1], sum);
        if (col < a.head_dim && !a.end) {
            so_far[col] = o[j][0];
            so_far[col + 1] = o[j][1];
        }
    }
    if (a.end && head == a.n_heads - 1)
        store_zeros(a.out, row, a.n_heads * a.head_dim, lane, 32);
    sync_warp(); /* all lanes have read what lane 0 writes */
    if (!a.end && lane == 0) {
        so_far[a.head_dim] = sum;
        so_far[a.head_dim + 1] = top;
    }
}
