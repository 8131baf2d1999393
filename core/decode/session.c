#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/wipe.h"
#include "core/decode/session_impl.h"
#include "core/decode/speculate.h"
#include "core/model/kv.h"

#include <stdlib.h>
#include <string.h>

/* Nodes in flight beside prefill windows: room for the draft trees of decoding. */
enum { SPARE_LIVE = 256 };
/* How often the middle may come back without one more position committed, before its error is the caller's. */
enum { MAX_VAIN = 8 };

uint32_t session_live(int max_rows, int prefill_windows) {
    return (uint32_t)max_rows * (uint32_t)(prefill_windows > 0 ? prefill_windows : SESSION_WINDOWS) + SPARE_LIVE;
}

uint64_t session_window_bytes(int hidden, int max_rows, int prefill_windows) {
    uint64_t windows = (uint64_t)(prefill_windows > 0 ? prefill_windows : SESSION_WINDOWS);
    /* Each window lies here, and in the middle's queue or on its way; and one result is being taken. */
    return (2 * windows + 1) * (uint64_t)max_rows * (uint64_t)hidden * sizeof(float);
}

static int flights_create(struct session *s) {
    size_t rows = (size_t)s->o.max_rows, hidden = (size_t)s->config->hidden;
    s->flights = calloc((size_t)s->depth, sizeof *s->flights);
    for (int i = 0; s->flights && i < s->depth; i++) {
        struct flight *f = &s->flights[i];
        f->got = malloc(rows * sizeof *f->got);
        f->x = malloc(rows * hidden * sizeof *f->x);
        if (!f->got || !f->x)
            return -1;
    }
    return s->flights ? 0 : -1;
}

int session_create(struct session **out, const struct session_opts *o, struct err *e) {
    *out = NULL;
    const struct model_config *c = o->front->config;
    const struct part *f = &o->front->part, *b = &o->back->part;
    if (o->max_rows < 1 || o->max_ctx < 1 || o->prefill_windows < 0)
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
    s->depth = !s->split ? 1 : o->prefill_windows ? o->prefill_windows : SESSION_WINDOWS;
    s->next_id = 1;
    size_t rows = (size_t)o->max_rows, hidden = (size_t)c->hidden;
    s->tokens = malloc(o->max_ctx * sizeof *s->tokens);
    s->ids = malloc(o->max_ctx * sizeof *s->ids);
    s->logits = malloc((size_t)c->vocab * sizeof *s->logits);
    s->nodes = malloc(rows * sizeof *s->nodes);
    s->new_ids = malloc(rows * sizeof *s->new_ids);
    s->got_ids = malloc(rows * sizeof *s->got_ids);
    s->got_x = s->split ? malloc(rows * hidden * sizeof *s->got_x) : NULL;
    s->rows = malloc(rows * sizeof *s->rows);
    if (!s->tokens || !s->ids || !s->logits || !s->nodes || !s->new_ids || !s->got_ids || !s->rows ||
        (s->split && !s->got_x) || flights_create(s) != 0) {
        err_set(e, ERR_MEMORY, "out of memory for a session of %u positions", o->max_ctx);
        goto fail;
    }
    uint32_t max_live = session_live(o->max_rows, s->depth), n_slots = o->max_ctx + max_live;
    if (slot_pool_create(&s->pool, n_slots, e) != 0 ||
        kv_table_create(&s->table, s->pool, o->max_ctx, max_live, e) != 0 ||
        o->front->ops->kv_create(o->front, n_slots, o->kv_type, &s->front_kv, e) != 0 ||
        (s->split && o->back->ops->kv_create(o->back, n_slots, o->kv_type, &s->back_kv, e) != 0) ||
        sampler_create(&s->sampler, c->vocab, e) != 0 || speculation_create(s, e) != 0)
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
    size_t window = (size_t)s->o.max_rows * (size_t)s->config->hidden * sizeof(float);
    speculation_free(s);
    kv_table_free(s->table);
    slot_pool_free(s->pool);
    if (s->front_kv)
        s->o.front->ops->kv_free(s->front_kv);
    if (s->back_kv)
        s->o.back->ops->kv_free(s->back_kv);
    wipe_free(s->tokens, s->o.max_ctx * sizeof *s->tokens);
    free(s->ids);
    wipe_free(s->logits, (size_t)s->config->vocab * sizeof *s->logits);
    for (int i = 0; s->flights && i < s->depth; i++) {
        free(s->flights[i].got);
        wipe_free(s->flights[i].x, window);
    }
    free(s->flights);
    wipe_free(s->got_x, window);
    free(s->nodes);
    free(s->new_ids);
    free(s->got_ids);
    free(s->rows);
    sampler_free(s->sampler);
    free(s);
}

/* ---- what failed, and the way back ---- */

int session_middle_failed(struct session *s, const struct err *e) {
    if (e->kind == ERR_PEER || e->kind == ERR_IO || e->kind == ERR_CRYPTO)
        s->debt = RECOVER;
    else if (s->debt == SOUND)
        s->debt = REWIND;
    return -1;
}

/* This side alone: the first len committed positions stay, and nothing is in flight. */
static void rewind_here(struct session *s, uint32_t len) {
    s->done = len < s->done ? len : s->done;
    s->sent = s->done;
    s->last_sent = s->done ? s->ids[s->done - 1] : NODE_NONE;
    s->n_flights = 0;
    speculation_forget(s);
    kv_table_rewind(s->table, s->done, s->last_sent);
}

/* The middle follows this side. Nobody has to wait for that; whatever goes wrong is the next recovery's to put right.
 */
static int rewind_there(struct session *s, struct err *e) {
    s->debt = s->split && s->o.middle->ops->rewind(s->o.middle, s->done, s->last_sent, e) != 0 ? RECOVER : SOUND;
    return s->debt == SOUND ? 0 : -1;
}

/* The context becomes its first len tokens. What cannot be told to the middle now stays its debt. */
static void cut(struct session *s, uint32_t len) {
    struct err ignored = {0};
    rewind_here(s, len);
    wipe(s->tokens + len, (s->n - len) * sizeof *s->tokens);
    s->n = len;
    s->have_logits = false;
    if (s->debt != RECOVER)
        (void)rewind_there(s, &ignored);
}

static int recover(struct session *s, struct err *e) {
    uint32_t kept = 0;
    if (s->o.middle->ops->recover(s->o.middle, s->ids, s->done, &kept, e) != 0)
        return -1;
    if (kept > s->done)
        return err_set(e, ERR_PEER, "the middle layers came back with %u positions of %u", kept, s->done);
    if (kept > s->most_kept) {
        s->most_kept = kept;
        s->vain = 0;
    }
    s->stats.recoveries++;
    s->stats.replayed_tokens += s->done - kept;
    rewind_here(s, kept);
    s->debt = SOUND;
    return 0;
}

/* Pays the debt. When that fails it stays, and this side is sound. */
static int settle(struct session *s, struct err *e) {
    struct err ignored = {0};
    if (s->debt == REWIND)
        (void)rewind_there(s, &ignored);
    return s->debt == RECOVER ? recover(s, e) : 0;
}

static void begin(struct session *s) {
    s->vain = 0;
    s->most_done = s->done;
    s->most_kept = 0;
}

/* After a failure: is it one that recovery may cure? If not, nothing stays in flight and why becomes e. */
static bool try_again(struct session *s, const struct err *why, struct err *e) {
    if (s->debt == RECOVER && s->vain++ < MAX_VAIN) {
        log_line(LOG_INFO, "the middle layers failed: %s", why->msg);
        return true;
    }
    struct err ignored = {0};
    rewind_here(s, s->done);
    if (s->debt != RECOVER)
        (void)rewind_there(s, &ignored);
    if (why->kind != ERR_NONE)
        err_set(e, why->kind, "%s", why->msg);
    return false;
}

/* ---- windows ---- */

static struct flight *flight_at(struct session *s, int i) {
    return &s->flights[(s->first_flight + i) % s->depth];
}

/* Describes the rows of nodes [first, first + n), which are live. */
static int rows_of(struct session *s, uint32_t first, int n, struct err *e) {
    for (int i = 0; i < n; i++)
        s->new_ids[i] = first + (uint32_t)i;
    return kv_table_rows(s->table, s->new_ids, n, s->rows, e);
}

int session_launch(struct session *s, const uint32_t *tokens, int n, float *x, struct err *e) {
    struct stage *front = s->o.front;
    uint32_t first = s->next_id;
    bool paced = s->paced;
    s->paced = false;
    if (kv_table_add(s->table, s->nodes, n, NULL, e) < 0)
        return -1;
    s->next_id += (uint32_t)n;
    if (rows_of(s, first, n, e) != 0)
        return -1;
    const struct batch b = {.rows = s->rows, .n = n};
    double t0 = clock_ms();
    if (front->ops->embed(front, tokens, n, x, e) != 0 ||
        front->ops->layers(front, s->front_kv, &b, front->part.lo, front->part.hi, x, e) != 0)
        return -1;
    double t1 = clock_ms();
    s->stats.front_ms += t1 - t0;
    if (paced)
        speculation_hold(s, t1 - t0);
    if (s->split) {
        const struct window w = {.nodes = s->nodes, .n = n};
        if (s->o.middle->ops->submit(s->o.middle, &w, x, e) != 0)
            return session_middle_failed(s, e);
        s->stats.middle_ms += clock_ms() - t1;
    }
    return 0;
}

/* A window of the context, or a tree. Nobody asks for the last `fill` of its nodes. */
static int launch(struct session *s, const uint32_t *tokens, int n, int fill, struct err *e) {
    struct flight *f = flight_at(s, s->n_flights);
    f->first = s->next_id;
    f->n = n;
    f->missing = s->split ? n : 0;
    f->alone = s->n_flights == 0;
    f->compute_ms = 0;
    memset(f->got, 0, (size_t)n * sizeof *f->got);
    if (session_launch(s, tokens, n + fill, f->x, e) != 0)
        return -1;
    f->sent_ms = clock_ms();
    s->n_flights++;
    return 0;
}

static struct flight *flight_of(struct session *s, uint32_t id) {
    for (int i = 0; i < s->n_flights; i++) {
        struct flight *f = flight_at(s, i);
        if (id - f->first < (uint32_t)f->n)
            return f;
    }
    return NULL;
}

/* Takes what one result brought to where it belongs. */
static int sort_in(struct session *s, const struct middle_result *r, struct err *e) {
    size_t hidden = (size_t)s->config->hidden;
    s->stats.cloud_ms += r->compute_ms;
    for (int i = 0; i < r->n; i++) {
        const float *x = r->x + (size_t)i * hidden;
        struct flight *f = flight_of(s, r->ids[i]);
        int guess = f ? 0 : speculation_take(s, r->ids[i], x);
        if (guess > 0 || (!f && guess == 0 && r->ids[i] < s->next_id))
            continue; /* if no guess: was on its way when it was cancelled, or when the link was lost */
        uint32_t at = f ? r->ids[i] - f->first : 0;
        if (!f || f->got[at]) {
            err_set(e, ERR_PEER, "the middle layers returned a node that was not asked for, or one twice");
            return session_middle_failed(s, e);
        }
        f->got[at] = true;
        if (i == 0)
            f->compute_ms += r->compute_ms;
        f->missing--;
        memcpy(f->x + at * hidden, x, hidden * sizeof *f->x);
    }
    return 0;
}

int session_gather(struct session *s, int timeout_ms, struct err *e) {
    struct middle_result r = {.ids = s->got_ids, .x = s->got_x, .cap = s->o.max_rows};
    int rc = s->o.middle->ops->collect(s->o.middle, &r, timeout_ms, e);
    if (rc == 0 && timeout_ms >= 0)
        return 0;
    if (rc == 0 && s->n_flights > 0)
        err_set(e, ERR_PEER, "the middle layers returned %d of %d positions",
                flight_at(s, 0)->n - flight_at(s, 0)->missing, flight_at(s, 0)->n);
    else if (rc == 0)
        err_set(e, ERR_PEER, "the middle layers did not return a position that they were sent");
    if (rc <= 0)
        return session_middle_failed(s, e);
    return sort_in(s, &r, e) == 0 ? 1 : -1;
}

/* Waits for the oldest window and runs the back layers over it: f->x is what the head takes. It is no flight any more,
 * but its nodes are live. */
static int land(struct session *s, struct flight **out, struct err *e) {
    struct stage *back = s->o.back;
    struct flight *f = *out = flight_at(s, 0);
    double t0 = clock_ms();
    bool waited = f->missing > 0;
    while (f->missing > 0)
        if (session_gather(s, -1, e) < 0)
            return -1;
    double t1 = clock_ms();
    s->stats.middle_ms += t1 - t0;
    s->stats.awaited_ms += f->compute_ms;
    if (s->split && f->alone && waited)
        speculation_window(s, f->n, t1 - f->sent_ms, f->compute_ms);
    if (rows_of(s, f->first, f->n, e) != 0)
        return -1;
    const struct batch b = {.rows = s->rows, .n = f->n};
    if (s->split && back->ops->layers(back, s->back_kv, &b, back->part.lo, back->part.hi, f->x, e) != 0)
        return -1;
    s->stats.back_ms += clock_ms() - t1;
    s->first_flight = (s->first_flight + 1) % s->depth;
    s->n_flights--;
    return 0;
}

int session_head(struct session *s, const float *x, int n, float *logits, struct err *e) {
    double t0 = clock_ms();
    int rc = s->o.back->ops->head(s->o.back, x, n, logits, e);
    s->stats.head_ms += clock_ms() - t0;
    return rc;
}

/* ---- the context ---- */

/* Sends the next window of s->tokens, behind all that was sent. */
static int send_next(struct session *s, uint32_t upto, struct err *e) {
    uint32_t left = upto - s->sent, first = s->next_id;
    int n = left < (uint32_t)s->o.max_rows ? (int)left : s->o.max_rows;
    for (int i = 0; i < n; i++)
        s->nodes[i] = (struct node){.id = first + (uint32_t)i,
                                    .parent = i ? first + (uint32_t)i - 1 : s->last_sent,
                                    .pos = s->sent + (uint32_t)i};
    int fill = speculation_fill(s, n, upto), rc = launch(s, s->tokens + s->sent, n, fill, e);
    wipe(s->tokens + upto, (size_t)fill * sizeof *s->tokens);
    if (rc != 0)
        return -1;
    s->sent += (uint32_t)n;
    s->last_sent = first + (uint32_t)n - 1;
    return 0;
}

int session_commit(struct session *s, const uint32_t *ids, int n, bool logits, struct err *e) {
    if (kv_table_commit(s->table, ids, n, e) != 0)
        return -1;
    memcpy(s->ids + s->done, ids, (size_t)n * sizeof *s->ids);
    s->done += (uint32_t)n;
    if (s->done > s->n) {
        s->n = s->done;
        s->have_logits = logits;
    }
    if (s->done > s->most_done) {
        s->most_done = s->done;
        s->vain = 0;
    }
    if (s->split && s->o.middle->ops->commit(s->o.middle, ids, n, e) != 0)
        return session_middle_failed(s, e);
    return 0;
}

/* Commits the oldest window. */
static int commit_next(struct session *s, uint32_t upto, struct err *e) {
    struct flight *f;
    if (land(s, &f, e) != 0 || session_commit(s, s->new_ids, f->n, false, e) != 0)
        return -1;
    if (s->done == upto && !s->have_logits) {
        if (session_head(s, f->x + (size_t)(f->n - 1) * (size_t)s->config->hidden, 1, s->logits, e) != 0)
            return -1;
        s->have_logits = true;
    }
    return 0;
}

/* Computes and commits s->tokens[done .. upto): windows go out as far ahead as they may, and come back one by one. */
static int pump(struct session *s, uint32_t upto, int (*progress)(void *ctx, uint32_t done, uint32_t all), void *ctx,
                struct err *e) {
    if (s->done == upto && upto > 0 && !s->have_logits) {
        /* What they were made from is gone with a failure behind the commit. */
        rewind_here(s, upto - 1);
        if (rewind_there(s, e) != 0)
            return -1;
    }
    while (s->done < upto) {
        while (s->n_flights < s->depth && s->sent < upto)
            if (send_next(s, upto, e) != 0)
                return -1;
        if (commit_next(s, upto, e) != 0 || (progress && progress(ctx, s->n, upto) != 0))
            return -1;
    }
    return 0;
}

/* pump, until it is through or nothing helps. */
static int catch_up(struct session *s, uint32_t upto, int (*progress)(void *ctx, uint32_t done, uint32_t all),
                    void *ctx, struct err *e) {
    speculation_drop(s);
    for (;;) {
        struct err why = {0};
        if (settle(s, e) != 0)
            return -1;
        if (pump(s, upto, progress, ctx, &why) == 0)
            return 0;
        if (!try_again(s, &why, e))
            return -1;
    }
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
    begin(s);
    speculation_drop(s);
    if (same < s->n) {
        if (s->debt == RECOVER && settle(s, e) != 0) /* first: while what is there can still be compared */
            return -1;
        cut(s, same);
    }
    s->stats.prompt_tokens = n;
    s->stats.reused_tokens = same;
    s->stats.decode_ms = 0;
    memcpy(s->tokens + same, tokens + same, (n - same) * sizeof *tokens);
    if (s->n < n || !s->have_logits) {
        s->feeding = true;
        int rc = catch_up(s, n, progress, ctx, e);
        s->feeding = false;
        if (rc != 0) {
            wipe(s->tokens + s->n, (n - s->n) * sizeof *s->tokens);
            return -1;
        }
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
    speculation_sampled(s, p, n_generated);
    s->stats.sample_ms += clock_ms() - t0;
    return 0;
}

/* With guesses where they are wanted, and plainly where not, or when the middle failed on the way. */
static int advance(struct session *s, uint32_t token, struct err *e) {
    double t0 = clock_ms();
    uint32_t n = s->n, recoveries = s->stats.recoveries;
    struct err why = {0};
    s->tokens[n] = token;
    if (speculation_wanted(s)) {
        if (speculation_advance(s, token, &why) == 0)
            return 0;
        if (!try_again(s, &why, e))
            return -1;
    }
    s->stats.steps++;
    if (catch_up(s, n + 1, NULL, NULL, e) != 0)
        return -1;
    if (s->stats.recoveries == recoveries)
        speculation_plain(s, clock_ms() - t0);
    return 0;
}

int session_advance(struct session *s, uint32_t token, struct err *e) {
    if (s->n == s->o.max_ctx)
        return err_set(e, ERR_USAGE, "the context of %u tokens is full", s->o.max_ctx);
    if (token >= (uint32_t)s->config->vocab)
        return err_set(e, ERR_USAGE, "token %u is outside the model's vocabulary of %d", token, s->config->vocab);
    double t0 = clock_ms();
    begin(s);
    if (advance(s, token, e) != 0)
        return -1;
    s->stats.generated++;
    s->stats.decode_ms += clock_ms() - t0;
    return 0;
}

/* The window of session_try_tree, on a context that is whole. *x: its rows. */
static int run_tree(struct session *s, const uint32_t *tokens, const int *parents, int n, const float **x,
                    struct err *e) {
    struct flight *f;
    for (int i = 0; i < n; i++) {
        int p = parents[i];
        s->nodes[i] = (struct node){.id = s->next_id + (uint32_t)i,
                                    .parent = p < 0 ? s->last_sent : s->nodes[p].id,
                                    .pos = p < 0 ? s->n : s->nodes[p].pos + 1};
    }
    if (launch(s, tokens, n, 0, e) != 0 || land(s, &f, e) != 0)
        return -1;
    *x = f->x;
    for (int i = 0; i < n; i++) {
        if (parents[i] >= 0)
            continue;
        kv_table_cancel(s->table, &s->nodes[i].id, 1);
        if (s->split && s->o.middle->ops->cancel(s->o.middle, s->nodes[i].id, e) != 0)
            return session_middle_failed(s, e);
    }
    return 0;
}

int session_try_tree(struct session *s, const uint32_t *tokens, const int *parents, int n, float *logits,
                     struct err *e) {
    if (n < 1 || n > s->o.max_rows)
        return err_set(e, ERR_USAGE, "a window of %d nodes; at most %d", n, s->o.max_rows);
    for (int i = 0; i < n; i++)
        if (parents[i] < -1 || parents[i] >= i)
            return err_set(e, ERR_USAGE, "node %d has parent %d: a parent comes before its children", i, parents[i]);
    begin(s);
    for (;;) {
        struct err why = {0};
        const float *x;
        if (catch_up(s, s->n, NULL, NULL, e) != 0)
            return -1;
        if (run_tree(s, tokens, parents, n, &x, &why) == 0)
            return session_head(s, x, n, logits, e);
        if (!try_again(s, &why, e))
            return -1;
    }
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
    cut(s, 0);
    wipe(s->logits, (size_t)s->config->vocab * sizeof *s->logits);
}

const struct session_stats *session_stats(const struct session *s) {
    return &s->stats;
}
