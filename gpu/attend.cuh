/* gpu/attend.cuh - the parts of attention that are not products: which keys a block of threads takes in which step, and
 * how partial results are folded. Device code only; attend.cu says how it all fits together. */
#ifndef GPU_ATTEND_CUH
#define GPU_ATTEND_CUH

#include "gpu/attend.h"
#include "gpu/attend_cells.cuh"
#include "gpu/simt.cuh"

/* ---- partial results of an online softmax (Milakov & Gimelshein 2018) ---- */

/* A query's partial result over some keys: top, the largest score so far; the sum of its weights 2^(score - top); the
 * sum of its weighted values. Nothing seen yet: -inf, 0, 0. */
struct fold {
    float keep, take; /* what the sums so far, and those that come in, are multiplied by */
};

/* Raises *top to what comes in. A part that has seen nothing changes no bit, nor does one that comes to nothing: 2^0 is
 * 1, and 2^-inf is 0. */
DEVICE fold fold_top(float *top, float top_in) {
    float now = fmaxf(*top, top_in), base = now == -infinity() ? 0 : now;
    fold f = {exp2_of(*top - base), exp2_of(top_in - base)};
    *top = now;
    return f;
}
DEVICE float fold_sum(fold f, float sum, float in) {
    return fmaf(in, f.take, sum * f.keep);
}

/* v / sum as planes; adding 0 makes -0 of +0 and -0, which are not told apart before. */
DEVICE void store_pair(const struct planes &out, int row, int col, float a, float b, float sum) {
    uint32_t hi, lo;
    split_bf16(divide(a, sum) + 0.0f, divide(b, sum) + 0.0f, &hi, &lo);
    size_t at = (size_t)row * (size_t)out.ld + (size_t)col;
    *reinterpret_cast<uint32_t *>(out.hi + at) = hi;
    if (!out.rounded)
        *reinterpret_cast<uint32_t *>(out.lo + at) = lo;
}
/* Columns behind the last head, for one of n lanes. */
DEVICE void store_zeros(const struct planes &out, int row, int width, int lane, int n) {
    for (int col = width + 2 * lane; col < out.ld; col += 2 * n) {
        size_t at = (size_t)row * (size_t)out.ld + (size_t)col;
        *reinterpret_cast<uint32_t *>(out.hi + at) = 0;
        if (!out.rounded)
            *reinterpret_cast<uint32_t *>(out.lo + at) = 0;
    }
}

/* ---- steps ---- */

/* What a row of the pass sees: keys [first, end), key i in slots[trunk + i] below trunk_end, then in slots[tail + i]. A
 * place without a row has end 0. */
struct viewer {
    uint32_t first, end;
    uint32_t trunk, trunk_end; /* UINT32_MAX without a tail */
    uint32_t tail;             /* its offset - trunk_end, modulo 2^32 */
};

DEVICE uint32_t first_key(uint32_t pos, int window) {
    uint32_t n = pos + 1;
    return window > 0 && n > (uint32_t)window ? n - (uint32_t)window : 0;
}

DEVICE viewer viewer_of(const struct gpu_row &r, int window) {
    viewer v;
    v.end = r.pos + 1;
    v.first = first_key(r.pos, window);
    v.trunk = r.trunk;
    v.trunk_end = r.n_tail ? r.n_trunk : ~0u;
    v.tail = r.tail - r.n_trunk;
    return v;
}

/* One block of keys, in the slots of one source: the trunk at an offset (source: that offset), or row i of the block of
 * threads alone (OWN | i). */
enum : uint32_t { OWN = 1u << 31, NO_SOURCE = ~0u };

struct step {
    uint32_t at; /* first key of the block */
    uint32_t source;
    uint32_t lo, hi; /* keys that somebody sees; of the rest nothing is read */
};

/* Where row i finds the keys of the block at `at`. */
DEVICE uint32_t source_of(const viewer &v, int i, uint32_t at) {
    if (v.end <= at || v.first >= at + GPU_KV_BLOCK)
        return NO_SOURCE;
    return at + GPU_KV_BLOCK <= v.trunk_end ? v.trunk : OWN | (uint32_t)i;
}

DEVICE uint32_t warp_least(uint32_t v) {
    int lane = thread_x() % 32;
    UNROLL
    for (int m = 16; m > 0; m /= 2) {
        uint32_t other = shuffle(v, lane ^ m);
        v = other < v ? other : v;
    }
    return v;
}

/* The steps of a block of threads with N rows, which each of its warps finds for itself. */
template <int N> struct steps {
    const viewer *rows;
    uint32_t first, end; /* keys that any row sees, within the range that was asked for */
    uint32_t common;     /* below it all rows find all keys in one trunk */
    uint32_t trunk;      /* that one */
};

template <int N> DEVICE steps<N> steps_over(const viewer *rows, uint32_t from, uint32_t to) {
    steps<N> s;
    uint32_t first = ~0u, not_end = ~0u, common = ~0u, trunk = ~0u, not_trunk = ~0u;
    UNROLL
    for (int i = thread_x() % 32; i < N; i += 32) {
        viewer v = rows[i];
        if (v.end == 0)
            continue;
        first = v.first < first ? v.first : first;
        not_end = ~v.end < not_end ? ~v.end : not_end;
        common = v.trunk_end < common ? v.trunk_end : common;
        trunk = v.trunk < trunk ? v.trunk : trunk;
        not_trunk = ~v.trunk < not_trunk ? ~v.trunk : not_trunk;
    }
    s.rows = rows;
    first = warp_least(first);
    s.first = first > from ? first : from;
    uint32_t end = ~warp_least(not_end);
    s.end = end < to ? end : to;
    s.trunk = warp_least(trunk);
    common = warp_least(common);
    s.common = s.trunk == ~warp_least(not_trunk) ? common : 0;
    return s;
}

/* The first step at the block `at` or behind it whose source is above `behind`, or, in later blocks, any; at >= s.end:
 * there is none. */
template <int N> DEVICE step step_find(const steps<N> &s, uint32_t at, bool any, uint32_t behind) {
    for (; at < s.end; at += GPU_KV_BLOCK, any = true) {
        step r = {at, NO_SOURCE, s.first, s.end};
        if (at + GPU_KV_BLOCK <= s.common) {
            if (!any)
                continue;
            r.source = s.trunk;
            return r;
        }
        UNROLL
        for (int i = thread_x() % 32; i < N; i += 32) {
            uint32_t source = source_of(s.rows[i], i, at);
            if ((any || source > behind) && source < r.source)
                r.source = source;
        }
        r.source = warp_least(r.source);
        if (r.source == NO_SOURCE)
            continue;
        uint32_t lo = ~0u, not_hi = ~0u;
        UNROLL
        for (int i = thread_x() % 32; i < N; i += 32)
            if (source_of(s.rows[i], i, at) == r.source) {
                viewer v = s.rows[i];
                lo = v.first < lo ? v.first : lo;
                not_hi = ~v.end < not_hi ? ~v.end : not_hi;
            }
        r.lo = warp_least(lo);
        r.hi = ~warp_least(not_hi);
        return r;
    }
    return {at, NO_SOURCE, 0, 0};
}
template <int N> DEVICE step step_first(const steps<N> &s) {
    return step_find(s, s.first / GPU_KV_BLOCK * GPU_KV_BLOCK, true, 0);
}
template <int N> DEVICE step step_after(const steps<N> &s, const step &r) {
    return step_find(s, r.at, false, r.source);
}

/* The slot of key `at + i` of a step; NO_SLOT: nobody sees it. */
template <int N> DEVICE uint32_t slot_of(const steps<N> &s, const step &r, int i, const uint32_t *slots) {
    uint32_t key = r.at + (uint32_t)i;
    if (key < r.lo || key >= r.hi)
        return NO_SLOT;
    if (!(r.source & OWN))
        return slots[r.source + key];
    const viewer &v = s.rows[r.source & ~OWN];
    return slots[(key < v.trunk_end ? v.trunk : v.tail) + key];
}

#endif
