#include "core/model/local_middle.h"

#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "core/model/kv.h"

#include <stdlib.h>
#include <string.h>

/* Windows that were submitted and not yet collected. They are computed when somebody collects, one pass each, oldest
 * first; commits and cancels apply at once, so a cancelled node that still waits is never computed. */
enum { MAX_WINDOWS = 64 };

struct queued {
    uint32_t *ids; /* [max_rows] */
    float *x;      /* [max_rows][hidden] */
    int n;
};

struct local_middle {
    struct middle base;
    struct stage *stage;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *table;
    int max_rows, hidden;
    boundary_fn boundary;
    void *boundary_ctx;
    struct queued queue[MAX_WINDOWS];
    int first, n_queued;
    struct row *rows; /* [max_rows] */
    bool *keep;       /* [max_rows] */
};

static void queued_free(struct local_middle *m, struct queued *q) {
    free(q->ids);
    wipe_free(q->x, (size_t)m->max_rows * (size_t)m->hidden * sizeof(float));
}

static void lm_free(struct middle *base) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    if (!m)
        return;
    for (int i = 0; i < MAX_WINDOWS; i++)
        queued_free(m, &m->queue[i]);
    kv_table_free(m->table);
    slot_pool_free(m->pool);
    if (m->kv)
        m->stage->ops->kv_free(m->kv);
    free(m->rows);
    free(m->keep);
    free(m);
}

static int lm_submit(struct middle *base, const struct window *w, const float *x, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    if (w->n > m->max_rows)
        return err_set(e, ERR_USAGE, "a window of %d rows; at most %d", w->n, m->max_rows);
    if (m->n_queued == MAX_WINDOWS)
        return err_set(e, ERR_USAGE, "more than %d windows in flight", MAX_WINDOWS);
    struct queued *q = &m->queue[(m->first + m->n_queued) % MAX_WINDOWS];
    if (!q->ids) { /* a place in the queue keeps its memory once it was used */
        q->ids = malloc((size_t)m->max_rows * sizeof *q->ids);
        q->x = malloc((size_t)m->max_rows * (size_t)m->hidden * sizeof *q->x);
        if (!q->ids || !q->x) {
            queued_free(m, q);
            *q = (struct queued){0};
            return err_set(e, ERR_MEMORY, "out of memory for a window");
        }
    }
    if (kv_table_add(m->table, w->nodes, w->n, m->keep, e) < 0)
        return -1;
    q->n = 0;
    for (int i = 0; i < w->n; i++)
        if (m->keep[i]) {
            memcpy(q->x + (size_t)q->n * (size_t)m->hidden, x + (size_t)i * (size_t)m->hidden,
                   (size_t)m->hidden * sizeof *x);
            q->ids[q->n++] = w->nodes[i].id;
        }
    m->n_queued++;
    return 0;
}

static int lm_commit(struct middle *base, const uint32_t *ids, int n, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    return kv_table_commit(m->table, ids, n, e);
}

static int lm_cancel(struct middle *base, uint32_t id, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    (void)e;
    kv_table_cancel(m->table, &id, 1);
    return 0;
}

static int lm_rewind(struct middle *base, uint32_t len, uint32_t head, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    if (len > kv_table_len(m->table))
        return err_set(e, ERR_USAGE, "cannot rewind to %u of %u positions", len, kv_table_len(m->table));
    kv_table_rewind(m->table, len, head);
    if (len == 0)
        m->stage->ops->kv_clear(m->kv);
    m->n_queued = 0;
    return 0;
}

static int lm_collect(struct middle *base, struct middle_result *r, int timeout_ms, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    (void)timeout_ms; /* computing is all there is to wait for */
    r->n = 0;
    if (m->n_queued == 0)
        return 0;
    struct queued *q = &m->queue[m->first];
    m->first = (m->first + 1) % MAX_WINDOWS;
    m->n_queued--;
    if (q->n > r->cap)
        return err_set(e, ERR_USAGE, "a result of %d rows for a place of %d", q->n, r->cap);
    for (int i = 0; i < q->n; i++)
        if (kv_table_knows(m->table, q->ids[i])) { /* not cancelled while it waited */
            memcpy(r->x + (size_t)r->n * (size_t)m->hidden, q->x + (size_t)i * (size_t)m->hidden,
                   (size_t)m->hidden * sizeof *r->x);
            r->ids[r->n++] = q->ids[i];
        }
    double start = clock_ms();
    if (kv_table_rows(m->table, r->ids, r->n, m->rows, e) != 0)
        return -1;
    const struct part *p = &m->stage->part;
    const struct batch b = {.rows = m->rows, .n = r->n};
    if (m->boundary)
        m->boundary(m->boundary_ctx, r->x, r->n, m->hidden);
    if (m->stage->ops->layers(m->stage, m->kv, &b, p->lo, p->hi, r->x, e) != 0)
        return -1;
    if (m->boundary)
        m->boundary(m->boundary_ctx, r->x, r->n, m->hidden);
    r->compute_ms = clock_ms() - start;
    return 1;
}

/* Nothing is ever lost in this process; what a failed pass left half done goes. */
static int lm_recover(struct middle *base, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e) {
    struct local_middle *m = (struct local_middle *)(void *)base;
    uint32_t len = kv_table_len(m->table);
    *kept = len <= n && (len == 0 || ids[len - 1] == kv_table_head(m->table)) ? len : 0;
    return lm_rewind(base, *kept, *kept ? ids[*kept - 1] : NODE_NONE, e);
}

static const struct middle_ops lm_ops = {
    .name = "local",
    .free = lm_free,
    .submit = lm_submit,
    .commit = lm_commit,
    .cancel = lm_cancel,
    .rewind = lm_rewind,
    .collect = lm_collect,
    .recover = lm_recover,
};

int local_middle_create(struct middle **out, struct stage *stage, enum dtype kv_type, uint32_t max_ctx,
                        uint32_t max_live, int max_rows, boundary_fn boundary, void *boundary_ctx, struct err *e) {
    *out = NULL;
    struct local_middle *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_MEMORY, "out of memory");
    m->base.ops = &lm_ops;
    m->stage = stage;
    m->max_rows = max_rows;
    m->hidden = stage->config->hidden;
    m->boundary = boundary;
    m->boundary_ctx = boundary_ctx;
    m->rows = malloc((size_t)max_rows * sizeof *m->rows);
    m->keep = malloc((size_t)max_rows * sizeof *m->keep);
    if (!m->rows || !m->keep) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto fail;
    }
    if (slot_pool_create(&m->pool, max_ctx + max_live, e) != 0 ||
        kv_table_create(&m->table, m->pool, max_ctx, max_live, e) != 0 ||
        stage->ops->kv_create(stage, max_ctx + max_live, kv_type, &m->kv, e) != 0)
        goto fail;
    *out = &m->base;
    return 0;
fail:
    lm_free(&m->base);
    return -1;
}
