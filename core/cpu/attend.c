#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <math.h>

static int pad16(int n) {
    return (n + 15) & ~15;
}

/* Floats of one worker: a gathered block and the states of one row's heads. */
static size_t worker_floats(int n_heads, int n_kv_heads, int head_dim) {
    size_t dpad = (size_t)pad16(head_dim), group = (size_t)(n_heads / n_kv_heads);
    return 2 * KV_BLOCK * dpad + group * (dpad + 16);
}

size_t cpu_attend_scratch(const struct cpu *c, int n_heads, int n_kv_heads, int head_dim, int max_rows) {
    (void)max_rows;
    return (size_t)pool_threads(c->pool) * worker_floats(n_heads, n_kv_heads, head_dim) * sizeof(float);
}

struct run {
    struct cpu *c;
    const struct attend *a;
};

static uint32_t slot_at(const struct row *r, uint32_t pos) {
    return pos < r->n_trunk ? r->trunk[pos] : r->tail[pos - r->n_trunk];
}

static void attend_item(void *ctx, int item, int worker) {
    const struct run *run = ctx;
    const struct attend *a = run->a;
    const struct cpu_isa *isa = run->c->isa;
    int kvh = item % a->n_kv_heads, i = item / a->n_kv_heads, group = a->n_heads / a->n_kv_heads, hd = a->head_dim;
    const struct row *row = &a->batch->rows[i];
    size_t elem = a->kv_type == DT_F32 ? 4 : 2, dpad = (size_t)pad16(hd);
    float *kt = (float *)run->c->scratch + (size_t)worker * worker_floats(a->n_heads, a->n_kv_heads, hd);
    float *v = kt + KV_BLOCK * dpad, *states = v + KV_BLOCK * dpad;
    const char *k = (const char *)a->k + (size_t)kvh * a->head_stride * elem;
    const char *vals = (const char *)a->v + (size_t)kvh * a->head_stride * elem;
    size_t at = ((size_t)i * (size_t)a->n_heads + (size_t)kvh * (size_t)group) * (size_t)hd;
    for (int h = 0; h < group; h++) {
        float *st = states + (size_t)h * (dpad + 16);
        for (size_t d = 0; d < dpad + 16; d++)
            st[d] = 0;
        st[0] = -INFINITY;
    }
    uint32_t n = row->pos + 1, first = a->window > 0 && n > (uint32_t)a->window ? n - (uint32_t)a->window : 0;
    for (uint32_t b = first / KV_BLOCK * KV_BLOCK; b < n; b += KV_BLOCK) {
        uint32_t slots[KV_BLOCK];
        int count = n - b < KV_BLOCK ? (int)(n - b) : KV_BLOCK, lo = first > b ? (int)(first - b) : 0;
        for (int j = 0; j < count; j++)
            slots[j] = slot_at(row, b + (uint32_t)j);
        isa->attend_gather(kt, v, k, vals, a->kv_type, slots, count, hd);
        for (int h = 0; h < group; h++) {
            float *st = states + (size_t)h * (dpad + 16);
            const float *q = a->q + at + (size_t)h * (size_t)hd;
            isa->attend_block(&st, &q, 1, kt, v, lo, count, hd, a->scale);
        }
    }
    for (int h = 0; h < group; h++)
        isa->attend_finish(a->out + at + (size_t)h * (size_t)hd, states + (size_t)h * (dpad + 16), hd);
}

void cpu_attend(struct cpu *c, const struct attend *a) {
    struct run run = {c, a};
    pool_run(c->pool, attend_item, &run, a->batch->n * a->n_kv_heads);
}
