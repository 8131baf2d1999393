/* Attention on a card: against float64 of the same f16 keys and values, and bit for bit against itself: whatever shares
 * a pass, however the work is cut. */
#include "core/model/dtype.h"
#include "core/model/e4m3.h"
#include "gpu/ops.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAN_F16 = 0x7e00, MAX_ROWS = 160, MAX_KEYS = 2048 };

/* Keys and values: f16 of what seeds make; f16 of what fp8 leaves of that; fp8. */
enum kind { PLAIN, ROUNDED, FP8 };

/* What a row is told to see: keys 0..pos, the first n_trunk of them in the trunk of its session. */
struct told {
    uint32_t keys[MAX_KEYS]; /* slots, in logical order */
    uint32_t pos, n_trunk;
    int session;
    uint32_t seed; /* its queries */
};

struct scene {
    int n_heads, n_kv_heads, head_dim, window;
    uint32_t n_slots, n_used;
    uint32_t *order;     /* slots in the order in which they are handed out: any */
    uint32_t *slot_seed; /* [n_slots]: keys and values of a slot; 0: never written */
    struct told *rows;
    int n;
    enum kind kind;
    uint32_t spoilt; /* a slot that holds NaN as rope_kv writes it; UINT32_MAX: none */
};

static float rnd(uint32_t *seed) {
    return (float)((int)(toy_rnd(seed) % 4001) - 2000) / 1000;
}

static struct scene *scene_new(int n_heads, int n_kv_heads, int head_dim, int window, uint32_t n_slots, uint32_t seed) {
    struct scene *s = calloc(1, sizeof *s);
    cr_assert_not_null(s);
    *s = (struct scene){.n_heads = n_heads,
                        .n_kv_heads = n_kv_heads,
                        .head_dim = head_dim,
                        .window = window,
                        .n_slots = n_slots,
                        .order = malloc(n_slots * sizeof *s->order),
                        .slot_seed = calloc(n_slots, sizeof *s->slot_seed),
                        .rows = calloc(MAX_ROWS, sizeof *s->rows),
                        .spoilt = UINT32_MAX};
    cr_assert(s->order && s->slot_seed && s->rows);
    for (uint32_t i = 0; i < n_slots; i++) {
        uint32_t j = toy_rnd(&seed) % (i + 1);
        s->order[i] = s->order[j];
        s->order[j] = i;
    }
    return s;
}

static void scene_free(struct scene *s) {
    free(s->order), free(s->slot_seed), free(s->rows), free(s);
}

static uint32_t scene_slot(struct scene *s) {
    cr_assert_lt(s->n_used, s->n_slots);
    return s->order[s->n_used++];
}

/* Adds a row behind parent (-1: behind the first n_before keys of a session, which get slots here), on the trunk. */
static struct told *scene_row(struct scene *s, int session, const uint32_t *before, uint32_t n_before) {
    cr_assert(s->n < MAX_ROWS && n_before < MAX_KEYS);
    struct told *r = &s->rows[s->n++];
    memcpy(r->keys, before, n_before * sizeof *before);
    r->keys[n_before] = scene_slot(s);
    r->pos = n_before;
    r->n_trunk = n_before + 1;
    r->session = session;
    r->seed = r->keys[n_before] * 7919u + 17;
    return r;
}

static uint32_t first_of(const struct scene *s, const struct told *r) {
    return s->window > 0 && r->pos + 1 > (uint32_t)s->window ? r->pos + 1 - (uint32_t)s->window : 0;
}

/* A head of K or V before it is stored. What becomes fp8 has all sizes of heads, and of numbers in them. */
static void make_head(const struct scene *s, float *x, uint32_t seed) {
    float scale = s->kind == PLAIN ? 1 : ldexpf(1, (int)(seed >> 8 & 7) - 6);
    for (int i = 0; i < s->head_dim; i++) {
        x[i] = rnd(&seed) * scale;
        if (s->kind != PLAIN && i % 5 == 0)
            x[i] *= 0x1p-7f;
    }
}

static void fill(const struct scene *s, uint16_t *to, uint32_t seed) {
    float x[GPU_HEAD_DIM_MAX];
    make_head(s, x, seed);
    if (s->kind != PLAIN)
        e4m3_round(x, (size_t)s->head_dim, to);
    for (int i = 0; i < s->head_dim && s->kind == PLAIN; i++)
        to[i] = f32_to_f16(x[i]);
}

static uint32_t seed_of(uint32_t slot, int head, int what) {
    return slot * 2654435761u + (uint32_t)head * 40503u + (uint32_t)what * 97u + 1;
}

/* ---- a pass ---- */

struct result {
    int n, width, ld;
    uint16_t *hi, *lo; /* [n][ld] */
};

struct how {
    int bucket;        /* rows that the launch is made for; 0: as many as there are */
    uint32_t max_keys; /* 0: what there are */
    int n_processors;  /* 0: the card's. 1: blocks take several items; many: one each */
};

static size_t put_rows(const struct scene *s, const int *which, int n, struct gpu_row *rows, uint32_t *slots) {
    size_t n_slots = 3; /* offsets are not 0 */
    for (int i = 0; i < n; i++) {
        const struct told *r = &s->rows[which[i]];
        int before = 0;
        while (s->rows[which[before]].session != r->session)
            before++;
        if (before == i) { /* the session's trunk is the longest that a row of it has */
            const struct told *longest = r;
            for (int j = i; j < n; j++)
                if (s->rows[which[j]].session == r->session && s->rows[which[j]].n_trunk > longest->n_trunk)
                    longest = &s->rows[which[j]];
            rows[i].trunk = (uint32_t)n_slots;
            memcpy(slots + n_slots, longest->keys, longest->n_trunk * sizeof *slots);
            n_slots += longest->n_trunk;
        } else {
            rows[i].trunk = rows[before].trunk;
        }
        rows[i].pos = r->pos;
        rows[i].slot = r->keys[r->pos];
        rows[i].n_trunk = r->n_trunk;
        rows[i].n_tail = r->pos + 1 - r->n_trunk;
        rows[i].tail = rows[i].n_tail ? (uint32_t)n_slots : 0;
        memcpy(slots + n_slots, r->keys + r->n_trunk, rows[i].n_tail * sizeof *slots);
        n_slots += rows[i].n_tail;
    }
    return n_slots;
}

/* Keys and values that some row of the pass sees; NaN elsewhere. */
static void put_kv(const struct scene *s, const int *which, int n, uint16_t *k, uint16_t *v) {
    size_t hd = (size_t)s->head_dim, all = (size_t)s->n_kv_heads * s->n_slots * hd;
    for (size_t i = 0; i < all; i++)
        k[i] = v[i] = NAN_F16;
    for (int i = 0; i < n; i++) {
        const struct told *r = &s->rows[which[i]];
        for (uint32_t p = first_of(s, r); p <= r->pos; p++)
            for (int h = 0; h < s->n_kv_heads; h++) {
                size_t at = ((size_t)h * s->n_slots + r->keys[p]) * hd;
                if (k[at] != NAN_F16)
                    continue;
                if (r->keys[p] == s->spoilt) {
                    memset(v + at, 0, hd * sizeof *v);
                    continue;
                }
                fill(s, k + at, seed_of(r->keys[p], h, 1));
                fill(s, v + at, seed_of(r->keys[p], h, 2));
            }
    }
}

static uint16_t put_codes(const struct scene *s, uint8_t *codes, uint32_t seed) {
    float x[GPU_HEAD_DIM_MAX], scale;
    make_head(s, x, seed);
    scale = e4m3_scale(x, (size_t)s->head_dim);
    for (int i = 0; i < s->head_dim; i++)
        codes[i] = e4m3_from_f32(x[i] / scale);
    memset(codes + s->head_dim, 0, op_kv_row(s->head_dim) - (size_t)s->head_dim);
    return f32_to_f16(scale * 256);
}

/* The same in fp8, as rope_kv stores it; elsewhere NaN by factors, and other codes than zero. */
static void put_fp8(const struct scene *s, const int *which, int n, uint8_t *k, uint8_t *v, uint32_t *factors) {
    size_t row = op_kv_row(s->head_dim), all = (size_t)s->n_kv_heads * s->n_slots;
    memset(k, 0x55, all * row);
    memset(v, 0x55, all * row);
    for (size_t i = 0; i < all; i++)
        factors[i] = NAN_F16 * 0x10001u;
    for (int i = 0; i < n; i++) {
        const struct told *r = &s->rows[which[i]];
        for (uint32_t p = first_of(s, r); p <= r->pos; p++)
            for (int h = 0; h < s->n_kv_heads; h++) {
                size_t at = (size_t)h * s->n_slots + r->keys[p];
                factors[at] = put_codes(s, k + at * row, seed_of(r->keys[p], h, 1));
                factors[at] |= (uint32_t)put_codes(s, v + at * row, seed_of(r->keys[p], h, 2)) << 16;
                if (r->keys[p] == s->spoilt) {
                    memset(k + at * row, 0, row);
                    memset(v + at * row, 0, row);
                    factors[at] = NAN_F16;
                }
            }
    }
}

static void result_free(struct result *r) {
    free(r->hi), free(r->lo);
}

/* Attention of rows which[0..n), in one pass. */
static struct result run(struct gpu *g, const struct scene *s, const int *which, int n, struct how how) {
    size_t width = (size_t)s->n_heads * (size_t)s->head_dim, ld = width + 5, kv;
    int bucket = how.bucket ? how.bucket : n, processors = g->n_processors;
    struct gpu_row rows[MAX_ROWS];
    struct gpu_item items[MAX_ROWS * 4];
    static uint32_t slots[MAX_ROWS * 2 * MAX_KEYS];
    struct result out = {.n = n, .width = (int)width, .ld = (int)(width + 63) / 64 * 64};
    size_t n_slots = put_rows(s, which, n, rows, slots), plane = (size_t)(n + 1) * (size_t)out.ld;
    uint32_t max_keys = how.max_keys;
    float *qkv = malloc(sizeof *qkv * (size_t)n * ld);
    for (int i = 0; i < n; i++) {
        uint32_t seed = s->rows[which[i]].seed;
        for (size_t j = 0; j < ld; j++)
            qkv[(size_t)i * ld + j] = rnd(&seed) * 2;
        if (!how.max_keys && rows[i].pos >= max_keys)
            max_keys = rows[i].pos + 1;
    }
    kv = (size_t)s->n_kv_heads * s->n_slots * (size_t)s->head_dim;
    bool fp8 = s->kind == FP8;
    size_t heads = (size_t)s->n_kv_heads * s->n_slots, kv_bytes = fp8 ? heads * op_kv_row(s->head_dim) : kv * 2;
    void *k = malloc(kv_bytes), *v = malloc(kv_bytes);
    uint32_t *factors = malloc(heads * sizeof *factors);
    if (fp8)
        put_fp8(s, which, n, k, v, factors);
    else
        put_kv(s, which, n, k, v);
    out.hi = malloc(plane * 2);
    out.lo = malloc(plane * 2);
    memset(out.hi, 0x7e, plane * 2);
    memset(out.lo, 0x7e, plane * 2);

    if (how.n_processors)
        g->n_processors = how.n_processors;
    int n_items = op_attend_items(rows, n, s->n_heads, s->n_kv_heads, items);
    cr_assert_leq(n_items, op_attend_max_items(n, s->n_heads, s->n_kv_heads));
    size_t n_scratch = op_attend_scratch(g, bucket, s->n_heads, s->n_kv_heads, s->head_dim, max_keys);
    float *nans = malloc((n_scratch + 1) * sizeof *nans);
    for (size_t i = 0; i < n_scratch; i++)
        nans[i] = NAN;
    cu_ptr dq = gpu_rig_put(g, qkv, sizeof *qkv * (size_t)n * ld), dk = gpu_rig_put(g, k, kv_bytes),
           dv = gpu_rig_put(g, v, kv_bytes), df = gpu_rig_put(g, factors, heads * sizeof *factors),
           hi = gpu_rig_put(g, out.hi, plane * 2), lo = gpu_rig_put(g, out.lo, plane * 2),
           d_rows = gpu_rig_put(g, rows, sizeof *rows * (size_t)n),
           d_items = gpu_rig_put(g, items, sizeof *items * (size_t)n_items),
           d_slots = gpu_rig_put(g, slots, sizeof *slots * n_slots),
           scratch = gpu_rig_put(g, nans, sizeof *nans * (n_scratch + 1));
    const struct gpu_pass pass = {.n_rows = n,
                                  .n_items = n_items,
                                  .rows = GPU_AT(const struct gpu_row, d_rows),
                                  .items = GPU_AT(const struct gpu_item, d_items),
                                  .slots = GPU_AT(const uint32_t, d_slots)};
    cu_ptr d_pass = gpu_rig_put(g, &pass, sizeof pass);
    const struct attention a = {.qkv = GPU_AT(float, dq),
                                .ld = (int)ld,
                                .q_at = 3,
                                .n_heads = s->n_heads,
                                .n_kv_heads = s->n_kv_heads,
                                .head_dim = s->head_dim,
                                .k = GPU_AT(void, dk),
                                .v = GPU_AT(void, dv),
                                .factors = fp8 ? GPU_AT(uint32_t, df) : NULL,
                                .n_slots = s->n_slots,
                                .window = s->window,
                                .out = {.hi = GPU_AT(uint16_t, hi), .lo = GPU_AT(uint16_t, lo), .ld = out.ld}};
    op_attend(g, GPU_AT(const struct gpu_pass, d_pass), bucket, max_keys, &a, GPU_AT(float, scratch));
    gpu_rig_wait(g);
    gpu_rig_read(g, out.hi, hi, plane * 2);
    gpu_rig_read(g, out.lo, lo, plane * 2);
    const cu_ptr all[] = {dq, dk, dv, df, hi, lo, d_rows, d_items, d_slots, scratch, d_pass};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        gpu_free(g, all[i]);
    free(qkv), free(k), free(v), free(factors), free(nans);
    g->n_processors = processors;
    for (int i = 0; i <= n; i++)
        for (int j = i < n ? out.width : 0; j < out.ld; j++) {
            uint16_t want = i < n ? 0 : 0x7e7e; /* zeros behind the last head; the row behind stays as it was */
            cr_assert(out.hi[i * out.ld + j] == want && out.lo[i * out.ld + j] == want, "row %d of %d, column %d", i, n,
                      j);
        }
    return out;
}

/* ---- against float64 ---- */

/* Roundings of a chain of n additions and of products, as they add up when they are independent (Higham & Mary 2019),
 * with 6 standard deviations; relative to the sum of magnitudes. Root mean squares must be within one. */
static double chain(double n) {
    return 6 * sqrt(n) * 0x1p-24;
}

/* out = sum p v / sum p. A score is off by the two-term query (2^-22), its scaling (two roundings) and a chain of
 * 2 head_dim; an error d of scores, in powers of two, is one of d ln 2 in a weight, which then has the errors of exp2
 * (2 ulp), of its two terms (2^-22), and of chains over keys, blocks and splits; the output 2^-16 by its own terms. */
static void check_row(const struct scene *s, const struct told *r, const uint16_t *hi, const uint16_t *lo) {
    int hd = s->head_dim, group = s->n_heads / s->n_kv_heads;
    static double p[MAX_KEYS];
    uint16_t k[GPU_HEAD_DIM_MAX], v[GPU_HEAD_DIM_MAX];
    uint32_t seed = r->seed, first = first_of(s, r);
    for (int skip = 0; skip < 3; skip++)
        rnd(&seed);
    for (int h = 0; h < s->n_heads; h++) {
        double q[GPU_HEAD_DIM_MAX], out[GPU_HEAD_DIM_MAX] = {0}, mass[GPU_HEAD_DIM_MAX] = {0};
        double top = -INFINITY, sum = 0, worst = 0;
        for (int i = 0; i < hd; i++)
            q[i] = (double)(rnd(&seed) * 2) / sqrt(hd);
        for (uint32_t j = first; j <= r->pos; j++) {
            double dot = 0, size = 0;
            fill(s, k, seed_of(r->keys[j], h / group, 1));
            for (int i = 0; i < hd; i++) {
                dot += q[i] * (double)f16_to_f32(k[i]);
                size += fabs(q[i] * (double)f16_to_f32(k[i]));
            }
            p[j] = dot;
            top = dot > top ? dot : top;
            worst = size > worst ? size : worst;
        }
        for (uint32_t j = first; j <= r->pos; j++) {
            p[j] = exp(p[j] - top);
            sum += p[j];
            fill(s, v, seed_of(r->keys[j], h / group, 2));
            for (int i = 0; i < hd; i++) {
                out[i] += p[j] * (double)f16_to_f32(v[i]);
                mass[i] += p[j] * fabs((double)f16_to_f32(v[i]));
            }
        }
        double keys = r->pos + 1 - first;
        double weight = worst * (chain(2 * hd) + 2 * 0x1p-24 + 0x1p-22) + 4 * 0x1p-23 + 0x1p-22;
        double bound = 2 * weight + 2 * chain(2 * (keys < 256 ? keys : 256)) + 2 * chain(keys / 32 + 1);
        double squares = 0; /* of errors, in units of their bounds */
        for (int i = 0; i < hd; i++) {
            double want = out[i] / sum, size = mass[i] / sum;
            double got = (double)bf16_to_f32(hi[h * hd + i]) + (double)bf16_to_f32(lo[h * hd + i]);
            double off = fabs(got - want), most = bound * size + fabs(want) * 0x1.2p-16;
            cr_assert(off <= most, "head_dim %d, head %d, position %u, %d: %.9g, not %.9g: off by %.2g of %.2g", hd, h,
                      r->pos, i, got, want, off, most);
            squares += off > 0 ? off * off / (most * most) : 0;
        }
        cr_assert(sqrt(squares / hd) <= 1 / 6.0, "head_dim %d, head %d, position %u: errors of %.2g of their bounds",
                  hd, h, r->pos, sqrt(squares / hd));
    }
}

static void check(const struct scene *s, const int *which, const struct result *r) {
    for (int i = 0; i < r->n; i++)
        check_row(s, &s->rows[which[i]], r->hi + i * r->ld, r->lo + i * r->ld);
}

static void check_equal(const struct result *a, int i, const struct result *b, int j, const char *what) {
    cr_assert_arr_eq(a->hi + i * a->ld, b->hi + j * b->ld, (size_t)a->ld * 2, "%s: row %d", what, i);
    cr_assert_arr_eq(a->lo + i * a->ld, b->lo + j * b->ld, (size_t)a->ld * 2, "%s: row %d", what, i);
}

/* Every way of cutting the work gives the bits of `want`; and so does each row alone. */
static void check_ways(struct gpu *g, const struct scene *s, const int *which, int n, const struct result *want,
                       int every) {
    uint32_t keys = 0;
    for (int i = 0; i < n; i++)
        keys = s->rows[which[i]].pos >= keys ? s->rows[which[i]].pos + 1 : keys;
    const struct how ways[] = {
        {n, keys, 1},      {n, keys, 1 << 30},      {n, 2 * keys + 300, 1}, {n, 2 * keys + 300, 1 << 30},
        {n + 64, keys, 1}, {n + 64, keys, 1 << 30},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct result r = run(g, s, which, n, ways[w]);
        for (int i = 0; i < n; i++)
            check_equal(&r, i, want, i, "cut another way");
        result_free(&r);
    }
    for (int i = 0; i < n; i += every) {
        struct result r = run(g, s, which + i, 1, (struct how){0});
        check_equal(&r, 0, want, i, "alone");
        result_free(&r);
    }
}

static void count_up(int *which, int n) {
    for (int i = 0; i < n; i++)
        which[i] = i;
}

/* A session of n_before keys and a chunk of n rows behind them. */
static void add_chunk(struct scene *s, int session, uint32_t n_before, int n) {
    uint32_t keys[MAX_KEYS];
    for (uint32_t i = 0; i < n_before; i++)
        keys[i] = scene_slot(s);
    for (int i = 0; i < n; i++) {
        const struct told *r = scene_row(s, session, keys, n_before + (uint32_t)i);
        keys[r->pos] = r->keys[r->pos];
    }
}

static const struct {
    int n_heads, n_kv_heads, head_dim;
} shapes[] = {
    {2, 2, 8},  {4, 2, 16},  {3, 1, 20},  {4, 1, 32},  {7, 1, 48},  {8, 1, 64},  {5, 5, 80},
    {2, 1, 96}, {3, 3, 100}, {4, 2, 112}, {4, 1, 128}, {32, 1, 64}, {2, 2, 192}, {4, 2, 256},
};

Test(gpu_attend, every_shape_of_heads) {
    struct gpu *g = gpu_rig_open();
    int which[MAX_ROWS];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct scene *s = scene_new(shapes[i].n_heads, shapes[i].n_kv_heads, shapes[i].head_dim, 0, 600, 1);
        add_chunk(s, 0, 61, 5); /* over the edge of a block */
        add_chunk(s, 1, 290, 1);
        count_up(which, s->n);
        struct result r = run(g, s, which, s->n, (struct how){0});
        check(s, which, &r);
        check_ways(g, s, which, s->n, &r, 1);
        result_free(&r);
        scene_free(s);
    }
    gpu_rig_close(g);
}

/* fp8 has the bits of f16 over the same numbers, in every shape and however the work is cut. */
Test(gpu_attend, fp8_is_f16_over_what_it_holds) {
    struct gpu *g = gpu_rig_open();
    int which[MAX_ROWS];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct scene *s =
            scene_new(shapes[i].n_heads, shapes[i].n_kv_heads, shapes[i].head_dim, i % 3 == 2 ? 150 : 0, 900, 1);
        add_chunk(s, 0, 61, 5);
        add_chunk(s, 1, 290, 1);
        add_chunk(s, 2, 254, 3); /* over the edge of a split */
        count_up(which, s->n);
        s->kind = ROUNDED;
        struct result r = run(g, s, which, s->n, (struct how){0});
        check(s, which, &r);
        s->kind = FP8;
        check_ways(g, s, which, s->n, &r, 4);
        result_free(&r);
        scene_free(s);
    }
    gpu_rig_close(g);
}

Test(gpu_attend, long_contexts) {
    struct gpu *g = gpu_rig_open();
    struct scene *s = scene_new(8, 2, 32, 0, 3000, 2);
    int which[MAX_ROWS];
    add_chunk(s, 0, 1490, 6);
    add_chunk(s, 1, 511, 2); /* a split's last key, and the next one's first */
    add_chunk(s, 2, 767, 1);
    count_up(which, s->n);
    struct result r = run(g, s, which, s->n, (struct how){0});
    check(s, which, &r);
    check_ways(g, s, which, s->n, &r, 4);
    result_free(&r);
    scene_free(s);
    gpu_rig_close(g);
}

Test(gpu_attend, sliding_windows) {
    static const int windows[] = {1, 5, 64, 100, 257, 300, 10000};
    struct gpu *g = gpu_rig_open();
    int which[MAX_ROWS];
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        struct scene *s = scene_new(4, 2, 32, windows[i], 1400, 3);
        add_chunk(s, 0, 0, 20);
        add_chunk(s, 1, 310, 12);
        add_chunk(s, 2, 574, 3);
        count_up(which, s->n);
        struct result r = run(g, s, which, s->n, (struct how){0});
        check(s, which, &r);
        check_ways(g, s, which, s->n, &r, 6);
        result_free(&r);
        scene_free(s);
    }
    gpu_rig_close(g);
}

/* ---- trees ---- */

/* n rows behind n_before keys, each behind the last of them or behind an earlier row; the path to a random one is the
 * session's trunk. A twin of each, with its whole path on a trunk of its own, is what decoding token by token has. */
static void add_tree(struct scene *s, int session, uint32_t n_before, int n, uint32_t *seed) {
    uint32_t keys[MAX_KEYS];
    int first = s->n;
    for (uint32_t i = 0; i < n_before; i++)
        keys[i] = scene_slot(s);
    for (int i = 0; i < n; i++) {
        int near = i < 3 ? i : 3, parent = i == 0              ? -1
                                           : toy_rnd(seed) % 3 ? i - 1 - (int)(toy_rnd(seed) % (uint32_t)near)
                                                               : -1;
        const struct told *p = parent < 0 ? NULL : &s->rows[first + parent];
        scene_row(s, session, p ? p->keys : keys, p ? p->pos + 1 : n_before);
    }
    const struct told *trunk = &s->rows[first + (int)(toy_rnd(seed) % (uint32_t)n)];
    for (int i = 0; i < n; i++) {
        struct told *r = &s->rows[first + i];
        uint32_t same = n_before;
        while (same <= r->pos && same <= trunk->pos && r->keys[same] == trunk->keys[same])
            same++;
        r->n_trunk = same;
    }
}

static int add_twin(struct scene *s, int of) {
    cr_assert_lt(s->n, MAX_ROWS);
    struct told *twin = &s->rows[s->n];
    *twin = s->rows[of];
    twin->session = 1000 + s->n;
    twin->n_trunk = twin->pos + 1;
    return s->n++;
}

static void check_trees(struct gpu *g, uint32_t seed, enum kind kind) {
    static const int heads[][2] = {{1, 1}, {2, 2}, {2, 1}, {4, 1}, {7, 1}, {8, 1}, {17, 1}};
    const int *h = heads[toy_rnd(&seed) % 7];
    int window = toy_rnd(&seed) % 3 ? 0 : 1 + (int)(toy_rnd(&seed) % 90), sessions = 1 + (int)(toy_rnd(&seed) % 3);
    struct scene *s = scene_new(h[0], h[1], 16, window, 1200, seed + 1);
    s->kind = kind;
    int which[MAX_ROWS], n;
    for (int i = 0; i < sessions; i++)
        add_tree(s, i, toy_rnd(&seed) % (i == 0 ? 330 : 140), 1 + (int)(toy_rnd(&seed) % 20), &seed);
    n = s->n;
    count_up(which, n);
    for (int i = 0; i < n && seed % 2; i++) { /* in any order, too */
        int j = (int)(toy_rnd(&seed) % (uint32_t)(i + 1)), t = which[i];
        which[i] = which[j];
        which[j] = t;
    }
    const struct how ways[] = {{0, 0, 1}, {0, 0, 1 << 30}, {65 + n, 0, 1}, {n, 1024, 1}};
    struct result r = run(g, s, which, n, ways[seed % 4]);
    check(s, which, &r);
    for (int i = 0; i < n; i++) {
        int twin = add_twin(s, which[i]);
        struct result alone = run(g, s, &twin, 1, (struct how){0});
        check_equal(&alone, 0, &r, i, "token by token");
        result_free(&alone);
    }
    result_free(&r);
    scene_free(s);
}

Test(gpu_attend, trees_equal_token_by_token) {
    struct gpu *g = gpu_rig_open();
    for (uint32_t i = 0; i < 60; i++)
        check_trees(g, i * 11 + 1, i % 4 ? PLAIN : FP8);
    gpu_rig_close(g);
}

static void check_chunks(struct gpu *g, const int *sizes, int n_sizes, enum kind kind) {
    enum { N = 150, BEFORE = 140 };
    struct scene *s = scene_new(4, 2, 16, 0, 400, 5);
    int which[MAX_ROWS];
    s->kind = kind;
    add_chunk(s, 0, BEFORE, N);
    count_up(which, N);
    struct result whole = run(g, s, which, N, (struct how){.n_processors = 1});
    check(s, which, &whole);
    for (int i = 0; i < n_sizes; i++)
        for (int at = 0, n; at < N; at += n) {
            n = N - at < sizes[i] ? N - at : sizes[i];
            struct result r = run(g, s, which + at, n, (struct how){0});
            for (int j = 0; j < n; j++)
                check_equal(&r, j, &whole, at + j, "in chunks");
            result_free(&r);
        }
    result_free(&whole);
    scene_free(s);
}

Test(gpu_attend, chunks_equal_token_by_token) {
    struct gpu *g = gpu_rig_open();
    check_chunks(g, (const int[]){1, 7, 64, 100}, 4, PLAIN);
    check_chunks(g, (const int[]){7, 64}, 2, FP8);
    gpu_rig_close(g);
}

/* Rows that share tiles with one whose key is NaN. */
Test(gpu_attend, a_key_that_is_nan_reaches_those_who_see_it) {
    enum { N = 12, BAD = 5 };
    struct gpu *g = gpu_rig_open();
    struct scene *s = scene_new(2, 1, 32, 0, 400, 8);
    int which[MAX_ROWS];
    add_chunk(s, 0, 250, N);
    count_up(which, N);
    for (int i = 0; i < 4; i++) {
        int form = i % 2;
        s->kind = i / 2 ? FP8 : PLAIN;
        struct how how = {.bucket = form ? N : 65, .n_processors = form ? 1 : 1 << 30};
        s->spoilt = UINT32_MAX;
        struct result good = run(g, s, which, N, how);
        s->spoilt = s->rows[BAD].keys[s->rows[BAD].pos];
        struct result bad = run(g, s, which, N, how);
        for (int r = 0; r < BAD; r++)
            check_equal(&bad, r, &good, r, "beside a NaN");
        for (int r = BAD; r < N; r++)
            for (int j = 0; j < bad.width; j++)
                cr_assert(isnan(bf16_to_f32(bad.hi[r * bad.ld + j])), "row %d, column %d", r, j);
        result_free(&good);
        result_free(&bad);
    }
    scene_free(s);
    gpu_rig_close(g);
}

/* ---- items ---- */

/* Items in order, each row and head in one, none above its size or over the edge of a trunk. */
static void check_items(const uint32_t *trunks, int n, int n_heads, int n_kv_heads) {
    struct gpu_row rows[MAX_ROWS] = {0};
    struct gpu_item items[MAX_ROWS * 3];
    int group = n_heads / n_kv_heads, parts = (group + GPU_QUERIES - 1) / GPU_QUERIES, next = 0;
    for (int i = 0; i < n; i++)
        rows[i].trunk = trunks[i];
    int n_items = op_attend_items(rows, n, n_heads, n_kv_heads, items);
    cr_assert_leq(n_items, op_attend_max_items(n, n_heads, n_kv_heads));
    cr_assert_eq(n_items % parts, 0);
    for (int i = 0; i < n_items; i++) {
        cr_assert_eq((int)items[i].row, next);
        cr_assert_eq(items[i].part, i % parts);
        cr_assert(items[i].n >= 1 && (items[i].n == 1 || items[i].n * group <= GPU_QUERIES));
        for (int j = 1; j < items[i].n; j++)
            cr_assert_eq(trunks[next + j], trunks[next]);
        if (items[i].part == parts - 1)
            next += items[i].n;
        bool full = (items[i].n + 1) * group > GPU_QUERIES;
        cr_assert(full || next == n || items[i].part < parts - 1 || trunks[next] != trunks[next - 1],
                  "item %d could hold another row", i);
    }
    cr_assert_eq(next, n);
}

Test(gpu_attend, items_hold_rows_of_one_trunk) {
    static const int heads[][2] = {{1, 1}, {8, 4}, {4, 1}, {7, 1}, {16, 2}, {9, 1}, {16, 1}, {17, 1}, {32, 1}, {48, 1}};
    uint32_t trunks[MAX_ROWS], seed = 1;
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int n = 0; n <= MAX_ROWS; n += n < 20 ? 1 : 35)
            for (uint32_t of = 1; of < 40; of += 13) {
                for (int i = 0; i < n; i++)
                    trunks[i] = i > 0 && toy_rnd(&seed) % of ? trunks[i - 1] : toy_rnd(&seed) % 4;
                check_items(trunks, n, heads[h][0], heads[h][1]);
            }
}

Test(gpu_attend, scratch_is_bounded) {
    struct gpu g = {.n_processors = 100};
    cr_assert_eq(op_attend_scratch(&g, 1, 32, 8, 128, 257), 2 * 32 * 130);
    cr_assert_eq(op_attend_scratch(&g, 64, 32, 8, 128, 1024), 64 * 4 * 32 * 130);
    cr_assert_eq(op_attend_scratch(&g, 64, 128, 8, 256, 1 << 20), 1 << 24, "64 MB and no more");
}

/* Made for so many rows, the scratch has room for two splits at a time. Row 0 sees something in each turn, row 1 not.
 */
Test(gpu_attend, splits_may_take_turns) {
    struct gpu *g = gpu_rig_open();
    struct scene *s = scene_new(8, 1, 128, 1000, 2500, 6);
    const int which[2] = {0, 1};
    add_chunk(s, 0, 1280, 1);
    add_chunk(s, 1, 500, 1);
    struct result r = run(g, s, which, s->n, (struct how){0});
    struct result turns = run(g, s, which, s->n, (struct how){4096, 1500, 1 << 30});
    check(s, which, &r);
    check_equal(&turns, 0, &r, 0, "in turns");
    check_equal(&turns, 1, &r, 1, "in turns");
    result_free(&r);
    result_free(&turns);
    scene_free(s);
    gpu_rig_close(g);
}
