/* gpu/attend.cu - attention of the rows of a pass over slots of K and V, on tensor cores.
 *
 * What a block of threads does. It takes one kv head and one item: up to 16 queries, which are the heads that share
 * that kv head, of a few rows that share a trunk - one tile of the tensor cores. (Of larger passes four items, a warp
 * each, so that keys and values are fetched once for all of them.) It goes through the keys in steps of 64 logical
 * positions, as FlashAttention-2 does (Dao 2023):
 *
 *   stage    64 rows of K and of V come from their slots into shared memory, asynchronously: K of the next step while
 *            V of this one is multiplied, V of the next while its scores are.
 *   scores   S = Q K', 16 x 64 in f32; Q holds log2(e) / sqrt(head_dim), so that weights are powers of two.
 *   weights  keys that a query does not see get -inf; its top rises to the largest score; P = 2^(S - top).
 *   values   O = O * 2^(old top - new top) + P V, and the sum of P, as P times ones.
 *
 * Every 256 keys (a split) begin a new top, sum and O, and these partial results are folded in their order, by the
 * functions of attend.cuh. That makes splits independent: for few rows over many keys each is a block of its own that
 * writes its partial result to scratch, and a second kernel folds them (Flash-Decoding: Dao, Haziza, Massa & Sizov
 * 2023). Otherwise the block goes through all splits and folds in registers. Both give the same bits.
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
 * Numbers. K and V are f16; Q, in f32, goes in as two f16 terms, and so does P, scaled by 2^15 (in that top is 15 less
 * than the largest score), which keeps weights down to 2^-29 from being subnormal.
 *
 * Two shapes of a block, in template shape below: with one item four warps share the work - each has 16 of the 64
 * keys' scores, then a quarter of the columns of O; weights go through shared memory. With four items each warp has an
 * item for itself. The sums of an element are formed in the same order. */
#include "gpu/attend.cuh"

/* HD: head_dim rounded up to what there are kernels for; behind the true one everything is zero. */
template <int HD, int ITEMS_> struct shape {
    static constexpr int ITEMS = ITEMS_;
    static constexpr int WARPS = 4 / ITEMS;      /* of an item */
    static constexpr int QUERIES = 16 * ITEMS;   /* at most as many rows */
    static constexpr int STRIDE = HD + 8;        /* of rows in shared memory: eight of them meet all banks */
    static constexpr int PAIRS = 4 / WARPS;      /* pairs of 8 keys whose scores a warp forms */
    static constexpr int TILES = HD / 8 / WARPS; /* of 8 columns of O that a warp has */
};

/* A query as a lane meets it; it has two: g and g + 8 of the item, of lane 4 g + t. */
struct query {
    int viewer;    /* its row among those of the block */
    int row, head; /* row -1: there is none */
};

DEVICE query query_of(const struct attend_args &a, const struct gpu_item &item, int first_viewer, int i) {
    int head = a.group > GPU_QUERIES ? item.part * GPU_QUERIES + i : i % a.group;
    int row = a.group > GPU_QUERIES ? 0 : i / a.group;
    bool is = row < item.n && head < a.group;
    return {first_viewer + row, is ? (int)item.row + row : -1, block_y() * a.group + head};
}

/* Online softmax over some keys: of lane 4 g + t the queries g (index 0) and g + 8 (index 1); elements of tiles as mma
 * has them. */
template <int TILES> struct partial {
    float top[2];
    float sum[4];
    float o[TILES][4];
};

template <int TILES> DEVICE void partial_begin(partial<TILES> &p) {
    p.top[0] = p.top[1] = -infinity();
    UNROLL
    for (int i = 0; i < 4; i++)
        p.sum[i] = 0;
    UNROLL
    for (int n = 0; n < TILES; n++)
        UNROLL
    for (int i = 0; i < 4; i++)
        p.o[n][i] = 0;
}

template <int TILES> DEVICE void partial_fold(partial<TILES> &p, const partial<TILES> &in) {
    fold f[2];
    UNROLL
    for (int i = 0; i < 2; i++)
        f[i] = fold_top(&p.top[i], in.top[i]);
    UNROLL
    for (int i = 0; i < 4; i++)
        p.sum[i] = fold_sum(f[i / 2], p.sum[i], in.sum[i]);
    UNROLL
    for (int n = 0; n < TILES; n++)
        UNROLL
    for (int i = 0; i < 4; i++)
        p.o[n][i] = fold_sum(f[i / 2], p.o[n][i], in.o[n][i]);
}

/* f32 to two f16 terms. */
DEVICE void split_f16(float a, float b, uint32_t *hi, uint32_t *lo) {
    *hi = pack_f16(a, b);
    *lo = pack_f16(a - from_f16((uint16_t)(*hi & 0xffff)), b - from_f16((uint16_t)(*hi >> 16)));
}

/* 64 rows of K or V of one kv head from their slots; zeros where there is none, and behind head_dim. */
template <int HD> DEVICE void stage_rows(uint16_t *to, const uint16_t *from, const uint32_t *slots, int head_dim) {
    constexpr int STRIDE = HD + 8, CHUNKS = HD / 8;
    if (head_dim % 8 == 0) {
        UNROLL
        for (int i = thread_x(); i < GPU_KV_BLOCK * CHUNKS; i += ATTEND_THREADS) {
            int row = i / CHUNKS, col = i % CHUNKS * 8;
            uint32_t slot = slots[row];
            if (slot != NO_SLOT && col < head_dim)
                copy_async(to + row * STRIDE + col, from + (size_t)slot * (size_t)head_dim + col);
            else
                *reinterpret_cast<u32x4 *>(to + row * STRIDE + col) = {};
        }
        return;
    }
    for (int i = thread_x(); i < GPU_KV_BLOCK * HD / 2; i += ATTEND_THREADS) { /* rows begin at multiples of 4 bytes */
        int row = i / (HD / 2), col = i % (HD / 2) * 2;
        uint32_t slot = slots[row], pair = 0;
        if (slot != NO_SLOT && col < head_dim)
            pair = *reinterpret_cast<const uint32_t *>(from + (size_t)slot * (size_t)head_dim + col);
        *reinterpret_cast<uint32_t *>(to + row * STRIDE + col) = pair;
    }
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
    for (int n = 0; n < 2 * PAIRS; n++)
        UNROLL
    for (int e = 0; e < 4; e++)
        s[n][e] = 0;
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

/* o = o + P V and sum = sum + P 1 of a warp's columns. */
template <int HD, int TILES>
DEVICE void add_values(partial<TILES> &p, const uint32_t hi[4][4], const uint32_t lo[4][4], const uint16_t *v) {
    constexpr int STRIDE = HD + 8;
    const uint32_t ones[2] = {0x3c003c00u, 0x3c003c00u};
    UNROLL
    for (int k = 0; k < 4; k++) {
        mma_f16(p.sum, lo[k], ones);
        mma_f16(p.sum, hi[k], ones);
    }
    UNROLL
    for (int k = 0; k < 4; k += 2)
        UNROLL
    for (int n = 0; n < TILES; n++) {
        uint32_t b[4];
        load_matrices_transposed(b, v + (k * 16 + thread_x() % 32) * STRIDE + n * 8);
        mma_f16(p.o[n], lo[k], b);
        mma_f16(p.o[n], hi[k], b);
        mma_f16(p.o[n], lo[k + 1], b + 2);
        mma_f16(p.o[n], hi[k + 1], b + 2);
    }
}

/* Keys of the block that a query has no part in become -inf. i: 0 or 1, the lane's query; key0: the first key of the
 * warp's scores, in the block. */
template <int PAIRS>
DEVICE void hide_keys(float s[2 * PAIRS][4], int i, const viewer &v, int viewer_index, const step &r, int key0) {
    bool part = source_of(v, viewer_index, r.at) == r.source;
    int lo = v.first > r.at ? (int)(v.first - r.at) : 0;
    int hi = !part ? 0 : v.end - r.at < GPU_KV_BLOCK ? (int)(v.end - r.at) : GPU_KV_BLOCK;
    if (lo == 0 && hi == GPU_KV_BLOCK)
        return;
    UNROLL
    for (int n = 0; n < 2 * PAIRS; n++)
        UNROLL
    for (int e = 0; e < 2; e++) {
        int key = key0 + n * 8 + thread_x() % 4 * 2 + e;
        if (key < lo || key >= hi)
            s[n][2 * i + e] = -infinity();
    }
}

template <int PAIRS> DEVICE float largest(const float s[2 * PAIRS][4], int i) {
    float m = -infinity();
    UNROLL
    for (int n = 0; n < 2 * PAIRS; n++)
        m = fmaxf(m, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    m = fmaxf(m, shuffle_xor(m, 1));
    return fmaxf(m, shuffle_xor(m, 2));
}

template <int HD, int ITEMS> DEVICE void attend(const struct attend_args &a) {
    typedef shape<HD, ITEMS> sh;
    SHARED viewer rows[sh::QUERIES];
    SHARED int query_at[sh::QUERIES];
    SHARED uint32_t slots[GPU_KV_BLOCK];
    SHARED float tops[4][16];       /* with one item: of each warp's scores */
    SHARED u32x4 weights[4][2][32]; /* with one item: [16 keys][hi, lo][lane] */
    DYNAMIC_SHARED(uint16_t, k);    /* [64][STRIDE] */
    uint16_t *v = k + GPU_KV_BLOCK * sh::STRIDE;
    uint16_t *q_hi = v + GPU_KV_BLOCK * sh::STRIDE, *q_lo = q_hi + sh::QUERIES * sh::STRIDE;

    int warp = thread_x() / 32, lane = thread_x() % 32;
    int n_items = a.pass->n_items, n_blocks = (n_items + ITEMS - 1) / ITEMS;
    if (block_x() >= n_blocks)
        return;
    int item0 = (n_blocks - 1 - block_x()) * ITEMS; /* the last rows see most: begin with them */
    const struct gpu_item *items = a.pass->items;
    if (thread_x() < sh::QUERIES) {
        int i = thread_x() / 16, j = thread_x() % 16;
        struct gpu_item item = {};
        if (item0 + i < n_items)
            item = items[item0 + i];
        viewer row = {};
        if (j < item.n)
            row = viewer_of(a.pass->rows[item.row + (uint32_t)j], a.window);
        rows[thread_x()] = row;
        query q = query_of(a, item, 16 * i, j);
        query_at[thread_x()] = q.row < 0 ? -1 : q.row * a.ld + q.head * a.head_dim;
    }
    sync_block();

    bool is_split = a.n_splits > 1;
    uint32_t from = is_split ? (uint32_t)block_z() * GPU_KV_SPLIT : 0;
    const steps<sh::QUERIES> all = steps_over<sh::QUERIES>(rows, from, is_split ? from + GPU_KV_SPLIT : ~0u);
    step now = step_first(all);
    if (now.at >= all.end)
        return;
    size_t head = (size_t)block_y() * a.n_slots * (size_t)a.head_dim;
    if (thread_x() < GPU_KV_BLOCK)
        slots[thread_x()] = slot_of(all, now, thread_x(), a.pass->slots);
    sync_block();
    stage_rows<HD>(k, a.k + head, slots, a.head_dim);
    copy_commit();
    stage_rows<HD>(v, a.v + head, slots, a.head_dim);
    copy_commit();
    stage_queries<HD, sh>(a, query_at, q_hi, q_lo);

    int mine = ITEMS == 1 ? 0 : warp, share = ITEMS == 1 ? warp : 0; /* the warp's item, and its part of that */
    struct gpu_item item = {};
    if (item0 + mine < n_items)
        item = items[item0 + mine];
    const query q[2] = {query_of(a, item, 16 * mine, lane / 4), query_of(a, item, 16 * mine, lane / 4 + 8)};
    const int q_first = mine * 16 * sh::STRIDE, key0 = share * 16, col0 = share * sh::TILES * 8;
    partial<sh::TILES> part, whole;
    partial_begin(part);
    partial_begin(whole);

    for (;;) {
        const step next = step_after(all, now);
        const bool last = next.at >= all.end;
        uint32_t next_slot = NO_SLOT;
        if (!last && thread_x() < GPU_KV_BLOCK)
            next_slot = slot_of(all, next, thread_x(), a.pass->slots);
        copy_wait<1>();
        sync_block(); /* K is there */
        float s[2 * sh::PAIRS][4];
        form_scores<HD, sh::PAIRS>(s, q_hi + q_first, q_lo + q_first, k + key0 * sh::STRIDE);
        float top[2];
        UNROLL
        for (int i = 0; i < 2; i++) {
            hide_keys<sh::PAIRS>(s, i, rows[q[i].viewer], q[i].viewer, now, key0);
            top[i] = largest<sh::PAIRS>(s, i);
            if (ITEMS == 1 && lane % 4 == 0)
                tops[warp][lane / 4 + 8 * i] = top[i];
        }
        if (thread_x() < GPU_KV_BLOCK)
            slots[thread_x()] = next_slot;
        sync_block(); /* K has been read */
        if (!last)
            stage_rows<HD>(k, a.k + head, slots, a.head_dim);
        copy_commit();

        UNROLL
        for (int i = 0; i < 2; i++) {
            if (ITEMS == 1)
                UNROLL
            for (int w = 0; w < 4; w++)
                top[i] = fmaxf(top[i], tops[w][lane / 4 + 8 * i]);
            float old = part.top[i];
            part.top[i] = fmaxf(old, top[i] - 15);
            float base = part.top[i] == -infinity() ? 0 : part.top[i], keep = exp2_of(old - base);
            part.sum[2 * i] *= keep;
            part.sum[2 * i + 1] *= keep;
            UNROLL
            for (int n = 0; n < sh::TILES; n++) {
                part.o[n][2 * i] *= keep;
                part.o[n][2 * i + 1] *= keep;
            }
            UNROLL
            for (int n = 0; n < 2 * sh::PAIRS; n++) {
                s[n][2 * i] = exp2_of(s[n][2 * i] - base);
                s[n][2 * i + 1] = exp2_of(s[n][2 * i + 1] - base);
            }
        }
        /* Scores of two tiles as mma left them are the operand that it takes for these 16 keys. */
        uint32_t hi[4][4], lo[4][4];
        UNROLL
        for (int p = 0; p < sh::PAIRS; p++)
            UNROLL
        for (int e = 0; e < 4; e++) {
            const float *pair = &s[2 * p + e / 2][e % 2 * 2];
            split_f16(pair[0], pair[1], &hi[p][e], &lo[p][e]);
        }
        if (ITEMS == 1) {
            u32x4 own[2];
            UNROLL
            for (int e = 0; e < 4; e++) {
                own[0].v[e] = hi[0][e];
                own[1].v[e] = lo[0][e];
            }
            weights[warp][0][lane] = own[0];
            weights[warp][1][lane] = own[1];
        }
        copy_wait<1>();
        sync_block(); /* V is there, and the weights */
        if (ITEMS == 1)
            UNROLL
        for (int p = 0; p < 4; p++) {
            u32x4 h = weights[p][0][lane], l = weights[p][1][lane];
            UNROLL
            for (int e = 0; e < 4; e++) {
                hi[p][e] = h.v[e];
                lo[p][e] = l.v[e];
            }
        }
        add_values<HD, sh::TILES>(part, hi, lo, v + col0);

        if (last)
            break;
        if (next.at / GPU_KV_SPLIT != now.at / GPU_KV_SPLIT) {
            partial_fold(whole, part);
            partial_begin(part);
        }
        sync_block(); /* V has been read */
        stage_rows<HD>(v, a.v + head, slots, a.head_dim);
        copy_commit();
        now = next;
    }

    if (!is_split)
        partial_fold(whole, part);
    UNROLL
    for (int i = 0; i < 2; i++) {
        if (q[i].row < 0)
            continue;
        float *to = a.parts + (((size_t)q[i].row * (size_t)a.n_heads + (size_t)q[i].head) * (size_t)a.n_splits +
                               (size_t)block_z()) *
                                  (size_t)(a.head_dim + 2);
        UNROLL
        for (int n = 0; n < sh::TILES; n++) {
            int col = col0 + n * 8 + lane % 4 * 2;
            if (col >= a.head_dim)
                continue;
            if (is_split) {
                to[col] = part.o[n][2 * i];
                to[col + 1] = part.o[n][2 * i + 1];
            } else {
                store_pair(a.out, q[i].row, q[i].head * a.head_dim + col, whole.o[n][2 * i], whole.o[n][2 * i + 1],
                           whole.sum[2 * i]);
            }
        }
        if (share == 0 && is_split && lane % 4 == 0) {
            to[a.head_dim] = part.sum[2 * i];
            to[a.head_dim + 1] = part.top[i];
        }
        if (share == 0 && !is_split && q[i].head == a.n_heads - 1)
            store_zeros(a.out, q[i].row, a.n_heads * a.head_dim, lane % 4, 4);
    }
}

KERNEL_INSTANCE(ATTEND_THREADS, attend_32, struct attend_args, attend<32, 1>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_64, struct attend_args, attend<64, 1>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_96, struct attend_args, attend<96, 1>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_128, struct attend_args, attend<128, 1>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_256, struct attend_args, attend<256, 1>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_32_4, struct attend_args, attend<32, ATTEND_ITEMS>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_64_4, struct attend_args, attend<64, ATTEND_ITEMS>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_96_4, struct attend_args, attend<96, ATTEND_ITEMS>)
KERNEL_INSTANCE(ATTEND_THREADS, attend_128_4, struct attend_args, attend<128, ATTEND_ITEMS>)

/* Folds the partial results of a query over the splits that it sees: a warp each. */
KERNEL(COMBINE_THREADS, attend_combine, struct attend_args a) {
    constexpr int PAIRS = GPU_HEAD_DIM_MAX / 64, AHEAD = 4; /* parts that are fetched at a time */
    int i = block_x() * COMBINE_QUERIES + thread_x() / 32, lane = thread_x() % 32;
    int row = i / a.n_heads, head = i % a.n_heads;
    if (row >= a.pass->n_rows)
        return;
    uint32_t pos = a.pass->rows[row].pos;
    int split = (int)(first_key(pos, a.window) / GPU_KV_SPLIT), last = (int)(pos / GPU_KV_SPLIT);
    size_t stride = (size_t)(a.head_dim + 2);
    const float *from = a.parts + (size_t)i * (size_t)a.n_splits * stride;
    float top = -infinity(), sum = 0, o[PAIRS][2] = {};
    for (; split <= last; split += AHEAD) {
        float top_in[AHEAD], sum_in[AHEAD], in[AHEAD][PAIRS][2];
        UNROLL
        for (int k = 0; k < AHEAD; k++) {
            const float *p = from + (size_t)(split + k) * stride;
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
            for (int j = 0; j < PAIRS; j++)
                UNROLL
            for (int e = 0; e < 2; e++)
                o[j][e] = fold_sum(f, o[j][e], in[k][j][e]);
        }
    }
    UNROLL
    for (int j = 0; j < PAIRS; j++)
        if (2 * lane + 64 * j < a.head_dim)
            store_pair(a.out, row, head * a.head_dim + 2 * lane + 64 * j, o[j][0], o[j][1], sum);
    if (head == a.n_heads - 1)
        store_zeros(a.out, row, a.n_heads * a.head_dim, lane, 32);
}
