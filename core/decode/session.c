#include "core/decode/session.h"

#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "core/model/kv.h"

#include <stdlib.h>
#include <string.h>

/* Nodes in flight beside a prefill window: room for the draft trees of decoding. */
enum { SPARE_LIVE = 256 };

struct session {
    struct session_opts o;
    const struct model_config *config;
    bool split; /* front, middle and back are three parts; else front holds everything */
    struct slot_pool *pool;
    struct kv_table *table; /* of the trusted layers; front and back share slots */
    struct kv *front_kv, *back_kv;
    uint32_t *tokens, *ids; /* [max_ctx]: committed tokens and the node ids they have */
    uint32_t n;
    uint32_t next_id;
    bool have_logits;   /* logits belong to position n - 1 */
    bool broken;        /* a pass failed: rewind before the next one, whatever it needs */
    float *logits;      /* [vocab] */
    float *x;           /* [max_rows][hidden] */
    struct node *nodes; /* [max_rows] */
    uint32_t *new_ids;  /* [max_rows] */
    uint32_t *got_ids;  /* [max_rows]: order in which results came */
    float *got_x;       /* [max_rows][hidden] */
    bool *got;          /* [max_rows]: which rows of a window came */
    struct row *rows;   /* [max_rows] */
    struct sampler *sampler;
    struct session_stats stats;
};

int session_create(struct session **out, const struct session_opts *o, struct err *e) {
    *out = NULL;
    const struct model_config *c = o->front->config;
    const struct part *f = &o->front->part, *b = &o->back->part;
    if (o->max_rows < 1 || o->max_ctx < 1)
        return err_set(e, ERR_USAGE, "a session needs a context and windows of at least one row");
    if (!f->embed || f->lo != 0 || !b->head || b->hi != c->n_layers)
        return err_set(e, ERR_USAGE, "front must start with the embedding and back end with the head");
    if (o->front != o->back && !o->middle)
        return err_set(e, ERR_USAGE, "front and back without a middle between them");
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory for a session");
    s->o = *o;
    s->config = c;
    s->split = o->front != o->back;
    s->next_id = 1;
    size_t rows = (size_t)o->max_rows, hidden = (size_t)c->hidden;
    s->tokens = malloc(o->max_ctx * sizeof *s->tokens);
    s->ids = malloc(o->max_ctx * sizeof *s->ids);
    s->logits = malloc((size_t)c->vocab * sizeof *s->logits);
    s->x = malloc(rows * hidden * sizeof *s->x);
    s->nodes = malloc(rows * sizeof *s->nodes);
    s->new_ids = malloc(rows * sizeof *s->new_ids);
    s->got_ids = malloc(rows * sizeof *s->got_ids);
    s->got_x = s->split ? malloc(rows * hidden * sizeof *s->got_x) : NULL;
    s->got = malloc(rows * sizeof *s->got);
    s->rows = malloc(rows * sizeof *s->rows);
    if (!s->tokens || !s->ids || !s->logits || !s->x || !s->nodes || !s->new_ids || !s->got_ids || !s->got ||
        !s->rows || (s->split && !s->got_x)) {
        err_set(e, ERR_MEMORY, "out of memory for a session of %u positions", o->max_ctx);
        goto fail;
    }
    uint32_t max_live = (uint32_t)o->max_rows + SPARE_LIVE, n_slots = o->max_ctx + max_live;
    if (slot_pool_create(&s->pool, n_slots, e) != 0 ||
        kv_table_create(&s->table, s->pool, o->max_ctx, max_live, e) != 0 ||
        o->front->ops->kv_create(o->front, n_slots, o->kv_type, &s->front_kv, e) != 0 ||
        (s->split && o->back->ops->kv_create(o->back, n_slots, o->kv_type, &s->back_kv, e) != 0) ||
        sampler_create(&s->sampler, c->vocab, e) != 0)
        goto fail;
    *out = s;
    return 0;
fail:
    session_free(s);
    return -1;
}

void session_free(struct session *s) {
    if (!s)
        return;
    size_t row = (size_t)s->config->hidden * sizeof(float), rows = (size_t)s->o.max_rows;
    kv_table_free(s->table);
    slot_pool_free(s->pool);
    if (s->front_kv)
        s->o.front->ops->kv_free(s->front_kv);
    if (s->back_kv)
        s->o.back->ops->kv_free(s->back_kv);
    wipe_free(s->tokens, s->o.max_ctx * sizeof *s->tokens);
    free(s->ids);
    wipe_free(s->logits, (size_t)s->config->vocab * sizeof *s->logits);
    wipe_free(s->x, rows * row);
    wipe_free(s->got_x, rows * row);
    free(s->nodes);
    free(s->new_ids);
    free(s->got_ids);
    free(s->got);
    free(s->rows);
    sampler_free(s->sampler);
    free(s);
}

/* Back to the first len tokens, on both sides of the middle. When the middle cannot be told, this side is rewound all
 * the same and the session stays broken: the middle is told again before the next pass. */
static int rewind_to(struct session *s, uint32_t len, struct err *e) {
    uint32_t head = len ? s->ids[len - 1] : NODE_NONE;
    kv_table_rewind(s->table, len, head);
    wipe(s->tokens + len, (s->n - len) * sizeof *s->tokens);
    s->n = len;
    s->have_logits = false;
    s->broken = s->split && s->o.middle->ops->rewind(s->o.middle, len, head, e) != 0;
    return s->broken ? -1 : 0;
}

/* Sends x [n][hidden] of nodes[0..n) through the middle; on return x holds what came back, in the order of nodes. */
static int through_middle(struct session *s, int n, struct err *e) {
    size_t hidden = (size_t)s->config->hidden;
    struct middle *m = s->o.middle;
    const struct window w = {.nodes = s->nodes, .n = n};
    if (m->ops->submit(m, &w, s->x, e) != 0)
        return -1;
    memset(s->got, 0, (size_t)n * sizeof *s->got);
    for (int missing = n; missing > 0;) {
        struct middle_result r = {.ids = s->got_ids, .x = s->got_x, .cap = s->o.max_rows};
        int rc = m->ops->collect(m, &r, -1, e);
        if (rc < 0)
            return -1;
        if (rc == 0 || r.n == 0)
            return err_set(e, ERR_PEER, "the middle layers returned %d of %d positions", n - missing, n);
        s->stats.cloud_ms += r.compute_ms;
        for (int i = 0; i < r.n; i++) {
            uint32_t at = r.ids[i] - s->nodes[0].id; /* ids of one window are consecutive */
            if (at >= (uint32_t)n || s->got[at])
                return err_set(e, ERR_PEER, "the middle layers returned a node that was not asked for, or one twice");
            s->got[at] = true;
            memcpy(s->x + at * hidden, r.x + (size_t)i * hidden, hidden * sizeof *s->x);
        }
        missing -= r.n;
    }
    return 0;
}

/* Computes nodes[0..n) with their tokens: embedding to the last layer. x [n][hidden] is the result. The nodes are live
 * afterwards on both sides. */
static int run_window(struct session *s, const uint32_t *tokens, int n, struct err *e) {
    struct stage *front = s->o.front, *back = s->o.back;
    s->broken = true; /* until we are through */
    if (kv_table_add(s->table, s->nodes, n, NULL, e) < 0)
        return -1;
    for (int i = 0; i < n; i++)
        s->new_ids[i] = s->nodes[i].id;
    s->next_id += (uint32_t)n;
    if (kv_table_rows(s->table, s->new_ids, n, s->rows, e) != 0)
        return -1;
    const struct batch b = {.rows = s->rows, .n = n};
    double t0 = clock_ms();
    if (front->ops->embed(front, tokens, n, s->x, e) != 0 ||
        front->ops->layers(front, s->front_kv, &b, front->part.lo, front->part.hi, s->x, e) != 0)
        return -1;
    double t1 = clock_ms();
    s->stats.front_ms += t1 - t0;
    if (s->split) {
        if (through_middle(s, n, e) != 0)
            return -1;
        double t2 = clock_ms();
        s->stats.middle_ms += t2 - t1;
        if (back->ops->layers(back, s->back_kv, &b, back->part.lo, back->part.hi, s->x, e) != 0)
            return -1;
        s->stats.back_ms += clock_ms() - t2;
    }
    s->broken = false;
    return 0;
}

/* A chain of tokens under the head: nodes in s->nodes. */
static void chain(struct session *s, int n) {
    uint32_t parent = kv_table_head(s->table);
    for (int i = 0; i < n; i++) {
        s->nodes[i] = (struct node){.id = s->next_id + (uint32_t)i, .parent = parent, .pos = s->n + (uint32_t)i};
        parent = s->nodes[i].id;
    }
}

/* Computes tokens[0..n) behind the context and commits them. */
static int append(struct session *s, const uint32_t *tokens, int n, struct err *e) {
    chain(s, n);
    if (run_window(s, tokens, n, e) != 0)
        return -1;
    s->broken = true;
    if (kv_table_commit(s->table, s->new_ids, n, e) != 0 ||
        (s->split && s->o.middle->ops->commit(s->o.middle, s->new_ids, n, e) != 0))
        return -1;
    s->broken = false;
    memcpy(s->tokens + s->n, tokens, (size_t)n * sizeof *tokens);
    memcpy(s->ids + s->n, s->new_ids, (size_t)n * sizeof *s->ids);
    s->n += (uint32_t)n;
    s->have_logits = false;
    return 0;
}

static int head(struct session *s, const float *x, int n, float *logits, struct err *e) {
    double t0 = clock_ms();
    int rc = s->o.back->ops->head(s->o.back, x, n, logits, e);
    s->stats.head_ms += clock_ms() - t0;
    return rc;
}

/* After a failed pass both sides may hold half a window: start again from what is committed. */
static int ensure_sound(struct session *s, struct err *e) {
    if (s->broken && rewind_to(s, s->n, e) != 0)
        return -1;
    return 0;
}

int session_feed(struct session *s, const uint32_t *tokens, uint32_t n,
                 int (*progress)(void *ctx, uint32_t done, uint32_t all), void *ctx, struct err *e) {
    if (n == 0)
        return err_set(e, ERR_USAGE, "an empty prompt: there is nothing to continue");
    if (n > s->o.max_ctx)
        return err_set(e, ERR_USAGE, "the prompt has %u tokens; the context holds %u (--ctx)", n, s->o.max_ctx);
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] >= (uint32_t)s->config->vocab)
            return err_set(e, ERR_USAGE, "token %u is outside the model's vocabulary of %d", tokens[i],
                           s->config->vocab);
    double t0 = clock_ms();
    uint32_t same = 0;
    while (same < n && same < s->n && s->tokens[same] == tokens[same])
        same++;
    if (same == n && !(s->n == n && s->have_logits))
        same--; /* the last token's logits have to be computed again */
    if ((same < s->n || s->broken) && rewind_to(s, same, e) != 0)
        return -1;
    s->stats.prompt_tokens = n;
    s->stats.reused_tokens = same;
    s->stats.decode_ms = 0;
    while (s->n < n) {
        int k = n - s->n < (uint32_t)s->o.max_rows ? (int)(n - s->n) : s->o.max_rows;
        if (append(s, tokens + s->n, k, e) != 0)
            return -1;
        if (s->n == n) {
            if (head(s, s->x + (size_t)(k - 1) * (size_t)s->config->hidden, 1, s->logits, e) != 0)
                return -1;
            s->have_logits = true;
        }
        if (progress && progress(ctx, s->n, n) != 0)
            return -1;
    }
    s->stats.prefill_ms = clock_ms() - t0;
    return 0;
}

int session_sample(struct session *s, const struct sample_params *p, uint32_t n_generated, uint32_t *token,
                   struct err *e) {
    if (!s->have_logits)
        return err_set(e, ERR_USAGE, "nothing was computed yet: feed a prompt first");
    double t0 = clock_ms();
    *token = sampler_pick(s->sampler, p, s->logits, s->tokens, (int)s->n, (int)n_generated, s->n);
    s->stats.sample_ms += clock_ms() - t0;
    return 0;
}

int session_advance(struct session *s, uint32_t token, struct err *e) {
    if (s->n == s->o.max_ctx)
        return err_set(e, ERR_USAGE, "the context of %u tokens is full", s->o.max_ctx);
    double t0 = clock_ms();
    if (ensure_sound(s, e) != 0 || append(s, &token, 1, e) != 0 || head(s, s->x, 1, s->logits, e) != 0)
        return -1;
    s->have_logits = true;
    s->stats.generated++;
    s->stats.steps++;
    s->stats.decode_ms += clock_ms() - t0;
    return 0;
}

int session_try_tree(struct session *s, const uint32_t *tokens, const int *parents, int n, float *logits,
                     struct err *e) {
    if (n < 1 || n > s->o.max_rows)
        return err_set(e, ERR_USAGE, "a window of %d nodes; at most %d", n, s->o.max_rows);
    if (ensure_sound(s, e) != 0)
        return -1;
    for (int i = 0; i < n; i++) {
        int p = parents[i];
        if (p < -1 || p >= i)
            return err_set(e, ERR_USAGE, "node %d has parent %d: a parent comes before its children", i, p);
        s->nodes[i] = (struct node){.id = s->next_id + (uint32_t)i,
                                    .parent = p < 0 ? kv_table_head(s->table) : s->nodes[p].id,
                                    .pos = p < 0 ? s->n : s->nodes[p].pos + 1};
    }
    if (run_window(s, tokens, n, e) != 0)
        return -1;
    for (int i = 0; i < n; i++) {
        if (parents[i] >= 0)
            continue;
        kv_table_cancel(s->table, s->nodes[i].id);
        if (s->split && s->o.middle->ops->cancel(s->o.middle, s->nodes[i].id, e) != 0)
            return -1;
    }
    return head(s, s->x, n, logits, e);
}

const float *session_logits(const struct session *s) {
    return s->have_logits ? s->logits : NULL;
}

const uint32_t *session_tokens(const struct session *s, uint32_t *n) {
    *n = s->n;
    return s->tokens;
}

uint32_t session_max_ctx(const struct session *s) {
    return s->o.max_ctx;
}

void session_reset(struct session *s) {
    struct err ignored = {
        0}; /* a middle that cannot be told now is told again before the next pass: broken stays set */
    (void)rewind_to(s, 0, &ignored);
    wipe(s->tokens, (size_t)s->n * sizeof *s->tokens);
    wipe(s->logits, (size_t)s->config->vocab * sizeof *s->logits);
}

const struct session_stats *session_stats(const struct session *s) {
    return &s->stats;
}
