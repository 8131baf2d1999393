#include "core/decode/small_model.h"

#include "core/base/wipe.h"
#include "core/model/kv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT = -1, NOBODY = -2 };
/* Less likely ones are not worth a row. What lies so far below the largest logit adds next to nothing. */
static const float WORTH_A_ROW = 0.04f, NEAR = 16.0f;

struct small_node {
    int parent;      /* index; ROOT: a child of the context */
    int first, next; /* child; child of the same parent. NOBODY: none */
    uint32_t token, id, pos;
    float path; /* by the model's own account */
    struct small_answer answer;
};

struct small_model {
    struct small_model_opts o;
    const struct model_config *config;
    struct slot_pool *pool;
    struct kv_table *table;
    struct kv *kv;
    uint32_t *tokens, *ids; /* [max_ctx]: the context; ids of the first `done`, which are computed */
    uint32_t from;          /* tokens of the whole context that stand before it, and do not count */
    uint32_t n, done, next_id;
    bool answered; /* root is what follows the context */
    struct small_answer root;
    struct small_node node[SMALL_NODES]; /* below the context, all computed; parents first */
    int n_nodes, first;                  /* first: child of the context */
    uint64_t passes;
    struct node *window; /* [max_rows] */
    uint32_t *wanted;    /* [max_rows]: ids of a window */
    uint32_t *input;     /* [max_rows]: its tokens */
    struct row *rows;    /* [max_rows] */
    float *x;            /* [max_rows][hidden] */
    float *logits;       /* [SMALL_ROWS + 1][vocab] */
};

uint32_t small_model_slots(uint32_t max_ctx, int max_rows) {
    return max_ctx + SMALL_NODES + SMALL_ROWS + (uint32_t)max_rows;
}

uint64_t small_model_bytes(const struct model_config *c, uint32_t max_ctx, int max_rows) {
    return sizeof(struct small_model) + 2 * (uint64_t)max_ctx * sizeof(uint32_t) +
           (uint64_t)max_rows * (uint64_t)c->hidden * sizeof(float) +
           (SMALL_ROWS + 1) * (uint64_t)c->vocab * sizeof(float);
}

int small_model_create(struct small_model **out, const struct small_model_opts *o, struct err *e) {
    const struct model_config *c = o->stage->config;
    const struct part *part = &o->stage->part;
    if (!part->embed || !part->head || part->lo != 0 || part->hi != c->n_layers || o->max_rows < SMALL_ROWS ||
        o->max_ctx < 1)
        return err_set(e, ERR_USAGE, "a small model needs all its layers and passes of %d rows", SMALL_ROWS);
    struct small_model *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_MEMORY, "out of memory for a small model");
    m->o = *o;
    m->config = c;
    m->next_id = 1;
    m->first = NOBODY;
    size_t rows = (size_t)o->max_rows;
    m->tokens = calloc(o->max_ctx, sizeof *m->tokens);
    m->ids = calloc(o->max_ctx, sizeof *m->ids);
    m->window = calloc(rows, sizeof *m->window);
    m->wanted = calloc(rows, sizeof *m->wanted);
    m->input = calloc(rows, sizeof *m->input);
    m->rows = calloc(rows, sizeof *m->rows);
    m->x = calloc(rows * (size_t)c->hidden, sizeof *m->x);
    m->logits = calloc((SMALL_ROWS + 1) * (size_t)c->vocab, sizeof *m->logits);
    if (!m->tokens || !m->ids || !m->window || !m->wanted || !m->input || !m->rows || !m->x || !m->logits) {
        err_set(e, ERR_MEMORY, "out of memory for a small model of %u positions", o->max_ctx);
        goto fail;
    }
    uint32_t slots = small_model_slots(o->max_ctx, o->max_rows);
    if (slot_pool_create(&m->pool, slots, e) != 0 ||
        kv_table_create(&m->table, m->pool, o->max_ctx, slots - o->max_ctx, e) != 0 ||
        o->stage->ops->kv_create(o->stage, slots, o->kv_type, &m->kv, e) != 0)
        goto fail;
    *out = m;
    return 0;
fail:
    small_model_free(m);
    return -1;
}

void small_model_free(struct small_model *m) {
    if (!m)
        return;
    kv_table_free(m->table);
    slot_pool_free(m->pool);
    if (m->kv)
        m->o.stage->ops->kv_free(m->kv);
    wipe_free(m->tokens, m->o.max_ctx * sizeof *m->tokens);
    free(m->ids);
    free(m->window);
    free(m->wanted);
    wipe_free(m->input, (size_t)m->o.max_rows * sizeof *m->input);
    free(m->rows);
    wipe_free(m->x, (size_t)m->o.max_rows * (size_t)m->config->hidden * sizeof *m->x);
    wipe_free(m->logits, (SMALL_ROWS + 1) * (size_t)m->config->vocab * sizeof *m->logits);
    wipe_free(m, sizeof *m);
}

/* ---- the context ---- */

static void drop_nodes(struct small_model *m) {
    for (int i = 0; i < m->n_nodes; i++)
        if (m->node[i].parent == ROOT)
            kv_table_cancel(m->table, &m->node[i].id, 1);
    m->n_nodes = 0;
    m->first = NOBODY;
}

static int child_of(const struct small_model *m, int parent, uint32_t token) {
    int i = parent == ROOT ? m->first : m->node[parent].first;
    while (i != NOBODY && m->node[i].token != token)
        i = m->node[i].next;
    return i;
}

/* Node at is the newest of its parent's children. */
static void link_child(struct small_model *m, int at) {
    int *first = m->node[at].parent == ROOT ? &m->first : &m->node[m->node[at].parent].first;
    m->node[at].first = NOBODY;
    m->node[at].next = *first;
    *first = at;
}

/* The context goes on with node `at`, and what hangs below it stays. */
static void descend(struct small_model *m, int at) {
    int map[SMALL_NODES], n = 0;
    float path = m->node[at].path;
    struct err ignored = {0};
    m->root = m->node[at].answer;
    m->first = NOBODY;
    m->ids[m->done++] = m->node[at].id;
    if (kv_table_commit(m->table, &m->node[at].id, 1, &ignored) != 0)
        m->done--; /* cannot be: it is a child of the head */
    for (int i = 0; i < m->n_nodes; i++) {
        int parent = m->node[i].parent;
        map[i] = NOBODY;
        if (i == at || parent == ROOT || (parent != at && map[parent] == NOBODY))
            continue;
        map[i] = n;
        m->node[n] = m->node[i];
        m->node[n].parent = parent == at ? ROOT : map[parent];
        m->node[n].path /= path;
        link_child(m, n++);
    }
    m->n_nodes = n;
}

/* All that was computed. */
static void forget(struct small_model *m) {
    kv_table_rewind(m->table, 0, NODE_NONE);
    m->done = 0;
    m->n_nodes = 0;
    m->first = NOBODY;
    m->answered = false;
}

/* Where the context begins that is worth reading. */
static uint32_t settle_from(const struct small_model *m, uint32_t n) {
    uint32_t room = m->o.max_ctx > 2 * SMALL_DEPTH ? m->o.max_ctx - SMALL_DEPTH : m->o.max_ctx,
             end = m->o.max_ctx / 2 < SMALL_READ ? m->o.max_ctx / 2 : SMALL_READ, known = m->from + m->done;
    if (n <= (room < SMALL_READ ? room : SMALL_READ))
        return 0;
    if (n >= known && n - m->from <= room && n - known <= SMALL_READ)
        return m->from;
    if (n < known && n > m->from + end)
        return m->from;
    return n - end;
}

void small_model_context(struct small_model *m, const uint32_t *tokens, uint32_t n) {
    uint32_t same = 0, from = settle_from(m, n);
    tokens += from;
    n -= from;
    if (from != m->from)
        forget(m);
    m->from = from;
    while (same < n && same < m->n && tokens[same] == m->tokens[same])
        same++;
    if (same < m->n) {
        /* The answer behind a shorter context is not there any more: its last token is computed again. */
        uint32_t keep = same > 0 ? same - 1 : 0;
        drop_nodes(m);
        m->answered = false;
        if (m->done > keep) {
            kv_table_rewind(m->table, keep, keep ? m->ids[keep - 1] : NODE_NONE);
            m->done = keep;
        }
        m->n = same;
    }
    for (; m->n < n; m->n++) {
        int at = m->answered ? child_of(m, ROOT, tokens[m->n]) : NOBODY;
        m->tokens[m->n] = tokens[m->n];
        if (at != NOBODY) {
            descend(m, at);
            continue;
        }
        drop_nodes(m);
        m->answered = false;
    }
}

/* ---- looking ---- */

/* The node at the end of path, or how far the tree knows it: *known tokens. */
static int follow(const struct small_model *m, const uint32_t *path, int n, int *known) {
    int at = ROOT;
    for (*known = 0; *known < n; ++*known) {
        int next = child_of(m, at, path[*known]);
        if (next == NOBODY)
            break;
        at = next;
    }
    return at;
}

const struct small_answer *small_model_known(const struct small_model *m, const uint32_t *path, int n) {
    int known;
    if (!m->answered)
        return NULL;
    int at = follow(m, path, n, &known);
    return known < n ? NULL : at == ROOT ? &m->root : &m->node[at].answer;
}

static void find_top(const float *logits, uint32_t vocab, struct small_answer *a) {
    float max = -INFINITY, sum = 0;
    a->n = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        float v = logits[i];
        if (!(v > -INFINITY) || (a->n == SMALL_TOP && v <= a->p[SMALL_TOP - 1]))
            continue;
        int at = a->n < SMALL_TOP ? a->n++ : SMALL_TOP - 1;
        for (; at > 0 && a->p[at - 1] < v; at--) {
            a->p[at] = a->p[at - 1];
            a->token[at] = a->token[at - 1];
        }
        a->p[at] = v;
        a->token[at] = i;
    }
    max = a->n ? a->p[0] : 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > max - NEAR)
            sum += expf(logits[i] - max);
    for (int i = 0; i < a->n; i++)
        a->p[i] = expf(a->p[i] - max) / sum;
}

/* A window in the making. */
struct pass {
    int n;     /* rows */
    int n_ctx; /* of them tokens of the context */
};

static uint32_t add_row(struct small_model *m, struct pass *w, uint32_t token, uint32_t parent, uint32_t pos) {
    uint32_t id = m->next_id++;
    m->window[w->n] = (struct node){.id = id, .parent = parent, .pos = pos};
    m->wanted[w->n] = id;
    m->input[w->n++] = token;
    return id;
}

static int run(struct small_model *m, const struct pass *w, int n_heads, struct err *e) {
    const struct backend_ops *ops = m->o.stage->ops;
    size_t hidden = (size_t)m->config->hidden;
    m->passes++;
    if (kv_table_add(m->table, m->window, w->n, NULL, e) != w->n)
        return e->kind ? -1 : err_set(e, ERR_USAGE, "a window that does not fit a small model's context");
    if (kv_table_rows(m->table, m->wanted, w->n, m->rows, e) != 0 ||
        ops->embed(m->o.stage, m->input, w->n, m->x, e) != 0)
        return -1;
    const struct batch b = {.rows = m->rows, .n = w->n};
    if (ops->layers(m->o.stage, m->kv, &b, 0, m->config->n_layers, m->x, e) != 0)
        return -1;
    if (n_heads > 0 && ops->head(m->o.stage, m->x + (size_t)(w->n - n_heads) * hidden, n_heads, m->logits, e) != 0)
        return -1;
    if (w->n_ctx == 0)
        return 0;
    memcpy(m->ids + m->done, m->wanted, (size_t)w->n_ctx * sizeof *m->ids);
    m->done += (uint32_t)w->n_ctx;
    return kv_table_commit(m->table, m->wanted, w->n_ctx, e);
}

static void add_context(struct small_model *m, struct pass *w, int most) {
    for (uint32_t at = m->done; at < m->n && w->n < most; at++, w->n_ctx++) {
        uint32_t parent = w->n ? m->wanted[w->n - 1] : m->done ? m->ids[m->done - 1] : NODE_NONE;
        add_row(m, w, m->tokens[at], parent, at);
    }
}

/* A node of the tree and a row for it; NOBODY: there is no room. */
static int add_node(struct small_model *m, struct pass *w, int parent, uint32_t token, float path) {
    const struct small_node *up = parent == ROOT ? NULL : &m->node[parent];
    uint32_t pos = up ? up->pos + 1 : m->n, above = up ? up->id : w->n_ctx ? m->wanted[w->n_ctx - 1] : m->ids[m->n - 1];
    if (m->n_nodes == SMALL_NODES || w->n - w->n_ctx >= SMALL_ROWS || w->n >= m->o.max_rows || pos >= m->o.max_ctx)
        return NOBODY;
    m->node[m->n_nodes] = (struct small_node){
        .parent = parent, .token = token, .pos = pos, .path = path, .id = add_row(m, w, token, above, pos)};
    link_child(m, m->n_nodes);
    return m->n_nodes++;
}

/* The likeliest token that an answer names and the tree does not have. Nodes from `fresh` on have no answer yet. */
static bool add_likeliest(struct small_model *m, struct pass *w, int fresh) {
    float best = WORTH_A_ROW;
    int parent = NOBODY, k_best = 0;
    for (int i = ROOT; i < fresh; i++) {
        const struct small_answer *a = i == ROOT ? &m->root : &m->node[i].answer;
        float path = i == ROOT ? 1 : m->node[i].path;
        for (int k = 0; k < a->n && path * a->p[k] > best; k++) {
            if (child_of(m, i, a->token[k]) != NOBODY)
                continue;
            best = path * a->p[k];
            parent = i;
            k_best = k;
            break;
        }
    }
    if (parent == NOBODY)
        return false;
    const struct small_answer *a = parent == ROOT ? &m->root : &m->node[parent].answer;
    return add_node(m, w, parent, a->token[k_best], best) != NOBODY;
}

static float p_of(const struct small_answer *a, uint32_t token) {
    for (int k = 0; k < a->n; k++)
        if (a->token[k] == token)
            return a->p[k];
    return 0.01f;
}

static int check(const struct small_model *m, const uint32_t *path, int n, struct err *e) {
    if (m->n == 0 || n < 0 || n > SMALL_DEPTH || m->n + (uint32_t)n > m->o.max_ctx)
        return err_set(e, ERR_USAGE, "a context of %u positions and a path of %d: a small model has %u", m->n, n,
                       m->o.max_ctx);
    for (int i = 0; i < n; i++)
        if (path[i] >= (uint32_t)m->config->vocab)
            return err_set(e, ERR_USAGE, "token %u is not in a small model's vocabulary", path[i]);
    for (uint32_t i = m->done; i < m->n; i++)
        if (m->tokens[i] >= (uint32_t)m->config->vocab)
            return err_set(e, ERR_USAGE, "token %u is not in a small model's vocabulary", m->tokens[i]);
    return 0;
}

/* All of the context but what goes into the last pass. */
static int read_context(struct small_model *m, int rest, int (*progress)(void *ctx), void *ctx, struct err *e) {
    while (m->n - m->done > (uint32_t)rest) {
        struct pass w = {0};
        if (progress && progress(ctx))
            return -1;
        add_context(m, &w, (int)(m->n - m->done) - rest < m->o.max_rows ? (int)(m->n - m->done) - rest : m->o.max_rows);
        if (run(m, &w, 0, e) != 0)
            return -1;
    }
    return 0;
}

int small_model_look(struct small_model *m, const uint32_t *path, int n, int (*progress)(void *ctx), void *ctx,
                     struct err *e) {
    int known, fresh, at, rc = -1;
    struct pass w = {0};
    if (check(m, path, n, e) != 0)
        return -1;
    if (read_context(m, m->o.max_rows - SMALL_ROWS > 1 ? m->o.max_rows - SMALL_ROWS : 1, progress, ctx, e) != 0) {
        if (e->kind != ERR_NONE)
            forget(m);
        return -1;
    }
    if (m->n_nodes + SMALL_ROWS > SMALL_NODES)
        drop_nodes(m);
    bool context = m->done < m->n;
    fresh = m->n_nodes;
    add_context(m, &w, m->o.max_rows);
    at = follow(m, path, n, &known);
    for (int i = known; i < n; i++) {
        const struct small_answer *a = at == ROOT ? &m->root : &m->node[at].answer;
        float p = context || at >= fresh ? 0.5f : p_of(a, path[i]);
        int next = add_node(m, &w, at, path[i], (at == ROOT ? 1 : m->node[at].path) * p);
        if (next == NOBODY)
            break; /* as far as there is room: the next look goes on from there */
        at = next;
    }
    while (m->answered && add_likeliest(m, &w, fresh))
        ;
    if (w.n == 0) {
        rc = 0;
        goto out;
    }
    if (run(m, &w, w.n - w.n_ctx + context, e) != 0)
        goto out;
    for (int i = 0; i < w.n - w.n_ctx + context; i++) {
        struct small_answer *a = context && i == 0 ? &m->root : &m->node[fresh + i - context].answer;
        find_top(m->logits + (size_t)i * (size_t)m->config->vocab, (uint32_t)m->config->vocab, a);
    }
    m->answered = true;
    rc = 0;
out:
    if (rc != 0)
        forget(m);
    return rc;
}

uint32_t small_model_missing(const struct small_model *m) {
    return m->n - m->done;
}

uint64_t small_model_passes(const struct small_model *m) {
    return m->passes;
}
