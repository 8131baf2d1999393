#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <math.h>
#include <string.h>

/* The work is cut into items: the queries of one kv head in a few consecutive rows of the batch. An item goes through
 * the blocks of 64 logical positions. For each block it gathers the keys and values that its rows share - keys
 * transposed, as panels of weights, so that scores, and then the weighted values, are matrix products like any other. A
 * query's scores, weights and sums are its own, whoever shares the gathered block. */
enum { QUERIES = 64 };

struct run {
    struct cpu *c;
    const struct attend *a;
    int group;      /* queries per kv head and row */
    int rows;       /* batch rows per item */
    size_t dpad;    /* head_dim rounded up to whole panels */
    size_t elem;    /* bytes of an element of K and V */
    size_t scratch; /* floats per worker */
};

/* One item and its worker's scratch. Query i is head i % group of row i / group. */
struct item {
    const struct run *run;
    const struct cpu_isa *isa;
    int kv_head, n_queries;
    float *keys;    /* [4][head_dim][16], in K's type */
    float *values;  /* [dpad / 16][64][16], in V's type */
    float *q;       /* the queries, in tiles */
    float *scores;  /* [query][64]: dot products, then their softmax */
    float *weights; /* one tile of softmax weights */
    float *sums;    /* [query][dpad]: weighted values */
    float *max, *total;
};

/* What a row sees of one block. */
struct view {
    int lo, hi;            /* positions of the block; hi == 0: nothing (any more) */
    const uint32_t *slots; /* in a table, or NULL: own */
    uint32_t own[KV_BLOCK];
};

static size_t round16(size_t n) {
    return (n + 15) / 16 * 16;
}

static int rows_per_item(int group, int n) {
    int rows = group < QUERIES ? QUERIES / group : 1;
    return rows < n ? rows : n;
}

static size_t scratch_floats(int n_queries, size_t dpad) {
    return round16((size_t)2 * KV_BLOCK * dpad + (size_t)KV_BLOCK * TILE_MAX +
                   (size_t)n_queries * (2 * dpad + KV_BLOCK + 2));
}

size_t cpu_attend_scratch(const struct cpu *c, int n_heads, int n_kv_heads, int head_dim, int max_rows) {
    int group = n_heads / n_kv_heads, n_queries = group * rows_per_item(group, max_rows);
    return sizeof(float) * (size_t)pool_threads(c->pool) * scratch_floats(n_queries, round16((size_t)head_dim));
}

/* The largest tile of at most n rows. */
static int tile_within(const struct cpu_isa *isa, int n) {
    int size = n < TILE_MAX ? n : TILE_MAX;
    while (!isa->float_tiles[size])
        size--;
    return size;
}

/* t over n_panels panels, in groups as large as the tile allows. */
static void multiply(const struct cpu_isa *isa, enum dtype type, struct tile t, int n_panels) {
    int most = isa->float_tiles[t.rows];
    for (int p = 0; p < n_panels; p += t.n_panels) {
        t.n_panels = n_panels - p < most ? 1 : most;
        isa->tile[type](&t);
        t.w += (size_t)t.n_panels * t.panel_bytes;
        t.acc += (size_t)t.n_panels * t.acc_panel;
    }
}

static void view_block(struct view *v, const struct row *r, uint32_t block, int window) {
    uint32_t n = r->pos + 1, first = window > 0 && n > (uint32_t)window ? n - (uint32_t)window : 0;
    v->hi = 0;
    if (n <= block || first >= block + KV_BLOCK)
        return;
    v->hi = n - block < KV_BLOCK ? (int)(n - block) : KV_BLOCK;
    v->lo = first > block ? (int)(first - block) : 0;
    v->slots = NULL;
    if (block >= r->n_trunk) {
        v->slots = r->tail + (block - r->n_trunk);
    } else if (r->n_trunk - block >= (uint32_t)v->hi) {
        v->slots = r->trunk + block;
    } else {
        uint32_t n_trunk = r->n_trunk - block;
        memcpy(v->own, r->trunk + block, n_trunk * sizeof *v->own);
        memcpy(v->own + n_trunk, r->tail, ((uint32_t)v->hi - n_trunk) * sizeof *v->own);
    }
}

static const uint32_t *view_slots(const struct view *v) {
    return v->slots ? v->slots : v->own;
}

/* All that v sees stands in the same slots of `of`. */
static bool view_within(const struct view *v, const struct view *of) {
    const uint32_t *a = view_slots(v), *b = view_slots(of);
    return v->lo >= of->lo && v->hi <= of->hi &&
           (a == b || memcmp(a + v->lo, b + v->lo, (size_t)(v->hi - v->lo) * sizeof *a) == 0);
}

/* A row of values to its panels, in pieces of a constant size; the end of the last is zeros. */
static inline void split_row(uint8_t *dst, const uint8_t *src, size_t left, const size_t piece) {
    for (; left >= piece; left -= piece, src += piece, dst += KV_BLOCK * piece)
        memcpy(dst, src, piece);
    if (left > 0) {
        memcpy(dst, src, left);
        memset(dst + left, 0, piece - left);
    }
}

static void gather(const struct item *it, const struct view *v) {
    const struct attend *a = it->run->a;
    size_t elem = it->run->elem, row = (size_t)a->head_dim * elem, head = (size_t)it->kv_head * a->head_stride * elem;
    const uint8_t *k = (const uint8_t *)a->k + head, *values = (const uint8_t *)a->v + head;
    const uint32_t *slots = view_slots(v);
    for (int j = v->lo / PANEL * PANEL; j < v->hi; j += PANEL) {
        const uint8_t *rows[PANEL];
        for (int l = 0; l < PANEL; l++) { /* lanes that nobody sees repeat one that somebody does */
            int at = j + l < v->lo ? v->lo : j + l < v->hi ? j + l : v->hi - 1;
            rows[l] = k + slots[at] * row;
        }
        uint8_t *dst = (uint8_t *)it->keys + (size_t)(j / PANEL) * PANEL * row;
        if (a->kv_type == DT_F32)
            it->isa->transpose(dst, rows, 0, (size_t)a->head_dim);
        else
            it->isa->transpose_half(dst, rows, 0, (size_t)a->head_dim);
    }
    for (int j = v->lo; j < v->hi; j++) {
        uint8_t *dst = (uint8_t *)it->values + (size_t)j * PANEL * elem;
        if (elem == 2)
            split_row(dst, values + slots[j] * row, row, (size_t)PANEL * 2);
        else
            split_row(dst, values + slots[j] * row, row, (size_t)PANEL * 4);
    }
}

/* Scores of the tiles that hold queries [q0, q1), against the gathered block. */
static void score(const struct item *it, int q0, int q1, const struct view *v) {
    const struct run *run = it->run;
    int hd = run->a->head_dim, first = v->lo / PANEL, last = (v->hi + PANEL - 1) / PANEL;
    struct tile t = {.panel_bytes = (size_t)hd * PANEL * run->elem, .cols = hd, .k1 = hd};
    t.acc_panel = PANEL;
    t.acc_row = KV_BLOCK;
    for (int q = 0; q < q1; q += t.rows) {
        t.rows = tile_within(it->isa, it->n_queries - q);
        if (q + t.rows <= q0)
            continue;
        t.w = (const uint8_t *)it->keys + (size_t)first * t.panel_bytes;
        t.x = (const uint8_t *)(it->q + (size_t)q * (size_t)hd);
        t.acc = it->scores + (size_t)q * KV_BLOCK + (size_t)first * PANEL;
        multiply(it->isa, run->a->kv_type, t, last - first);
    }
}

/* Softmax of queries [q0, q1), which see the same part of the block, and their weighted values. */
static void weigh(const struct item *it, int q0, int q1, const struct view *v) {
    const struct run *run = it->run;
    struct tile t = {
        .panel_bytes = (size_t)KV_BLOCK * PANEL * run->elem, .cols = KV_BLOCK, .k0 = v->lo, .k1 = v->hi, .more = true};
    t.acc_panel = PANEL;
    t.acc_row = run->dpad;
    for (int q = q0; q < q1; q += t.rows) {
        t.rows = tile_within(it->isa, q1 - q);
        for (int i = q; i < q + t.rows; i++) {
            float *sums = it->sums + (size_t)i * run->dpad;
            float old = it->isa->softmax_block(it->scores + (size_t)i * KV_BLOCK, v->lo, v->hi, run->a->scale,
                                               &it->max[i], &it->total[i]);
            if (old != 1)
                it->isa->scale(sums, sums, old, (int)run->dpad);
        }
        it->isa->pack_f32((uint8_t *)it->weights, it->scores + (size_t)q * KV_BLOCK, KV_BLOCK, t.rows, t.rows,
                          KV_BLOCK);
        t.w = (const uint8_t *)it->values;
        t.x = (const uint8_t *)it->weights;
        t.acc = it->sums + (size_t)q * run->dpad;
        multiply(it->isa, run->a->kv_type, t, (int)run->dpad / PANEL);
    }
}

/* One block for the rows of an item. Rows whose slots are not the leader's (another branch of a tree, another session)
 * wait for a leader of their own. */
static void attend_block(const struct item *it, struct view *views, int n) {
    int group = it->run->group;
    for (;;) {
        int lead = -1;
        for (int i = 0; i < n; i++)
            if (views[i].hi > 0 && (lead < 0 || views[i].hi - views[i].lo > views[lead].hi - views[lead].lo))
                lead = i;
        if (lead < 0)
            return;
        struct view of = views[lead];
        gather(it, &of);
        for (int i = 0, end, same; i < n; i = end) {
            for (end = i; end < n && views[end].hi > 0 && view_within(&views[end], &of);)
                end++;
            if (end == i) {
                end++;
                continue;
            }
            score(it, i * group, end * group, &of);
            for (; i < end; i = same) {
                for (same = i; same < end && views[same].lo == views[i].lo && views[same].hi == views[i].hi;)
                    same++;
                weigh(it, i * group, same * group, &views[i]);
            }
        }
        for (int i = 0; i < n; i++)
            if (views[i].hi > 0 && view_within(&views[i], &of))
                views[i].hi = 0;
    }
}

static void item_begin(struct item *it, const struct run *run, int item, int worker) {
    size_t n = (size_t)run->group * (size_t)run->rows;
    it->run = run;
    it->isa = run->c->isa;
    it->keys = (float *)run->c->scratch + (size_t)worker * run->scratch;
    it->values = it->keys + KV_BLOCK * run->dpad;
    it->weights = it->values + KV_BLOCK * run->dpad;
    it->scores = it->weights + (size_t)KV_BLOCK * TILE_MAX;
    it->sums = it->scores + n * KV_BLOCK;
    it->q = it->sums + n * run->dpad;
    it->max = it->q + n * run->dpad;
    it->total = it->max + n;
    it->kv_head = item % run->a->n_kv_heads;
}

static void attend_item(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    const struct attend *a = run->a;
    struct item it;
    struct view views[QUERIES];
    item_begin(&it, run, item, worker);
    int row0 = item / a->n_kv_heads * run->rows, n = a->batch->n - row0 < run->rows ? a->batch->n - row0 : run->rows;
    const struct row *rows = a->batch->rows + row0;
    size_t hd = (size_t)a->head_dim, group = (size_t)run->group, stride = (size_t)a->n_heads * hd;
    size_t at = (size_t)row0 * stride + (size_t)it.kv_head * group * hd; /* of the first query, in q and out */
    it.n_queries = n * run->group;

    for (size_t i = 0; i < (size_t)n; i++) /* sums are free until the first block */
        memcpy(it.sums + i * group * hd, a->q + at + i * stride, group * hd * sizeof *it.q);
    for (int q = 0, size; q < it.n_queries; q += size) {
        size = tile_within(it.isa, it.n_queries - q);
        it.isa->pack_f32((uint8_t *)(it.q + (size_t)q * hd), it.sums + (size_t)q * hd, hd, size, size, a->head_dim);
    }
    memset(it.sums, 0, (size_t)it.n_queries * run->dpad * sizeof *it.sums);
    uint32_t end = 0, begin = UINT32_MAX;
    for (int i = 0; i < n; i++) {
        uint32_t len = rows[i].pos + 1,
                 first = a->window > 0 && len > (uint32_t)a->window ? len - (uint32_t)a->window : 0;
        end = len > end ? len : end;
        begin = first < begin ? first : begin;
    }
    for (int i = 0; i < it.n_queries; i++) {
        it.max[i] = -INFINITY;
        it.total[i] = 0;
    }
    for (uint32_t b = begin / KV_BLOCK * KV_BLOCK; b < end; b += KV_BLOCK) {
        for (int i = 0; i < n; i++)
            view_block(&views[i], &rows[i], b, a->window);
        attend_block(&it, views, n);
    }
    for (size_t i = 0; i < (size_t)it.n_queries; i++)
        it.isa->divide(a->out + at + i / group * stride + i % group * hd, it.sums + i * run->dpad, it.total[i],
                       a->head_dim);
}

void cpu_attend(struct cpu *c, const struct attend *a) {
    struct run run = {.c = c, .a = a, .group = a->n_heads / a->n_kv_heads, .dpad = round16((size_t)a->head_dim)};
    if (a->batch->n <= 0)
        return;
    run.elem = a->kv_type == DT_F32 ? 4 : 2;
    run.rows = rows_per_item(run.group, a->batch->n);
    run.scratch = scratch_floats(run.group * run.rows, run.dpad);
    pool_run(c->pool, attend_item, &run, (a->batch->n + run.rows - 1) / run.rows * a->n_kv_heads);
}
