#include "net/cloud/pass.h"

#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "net/cloud/audit_store.h"

#include <stdlib.h>
#include <string.h>

/* Up to so many waiting nodes are somebody who decodes; of more, a tree is a draft, and what is one chain a prompt. */
enum { SMALL_WINDOW = 32, LARGEST_TREE = 256 };
/* Who decoded within this time is going to decode again. */
static const double ACTIVE_MS = 2000;
/* How long a pass may go on with rows that nobody wants any more. */
static const double LOOK_MS = 4;

int pass_init(struct pass *p, struct stage *stage, struct kv *kv, int max_rows, struct err *e) {
    *p = (struct pass){.stage = stage, .kv = kv, .max_rows = max_rows, .hidden = stage->config->hidden};
    size_t n = (size_t)max_rows;
    p->rows = malloc(n * sizeof *p->rows);
    p->at = malloc(n * sizeof *p->at);
    p->keys = malloc(n * sizeof *p->keys);
    p->ids = malloc(n * sizeof *p->ids);
    p->x = malloc(n * (size_t)p->hidden * sizeof *p->x);
    if (p->rows && p->at && p->keys && p->ids && p->x)
        return 0;
    pass_free(p);
    return err_set(e, ERR_MEMORY, "out of memory for passes of %d rows", max_rows);
}

void pass_free(struct pass *p) {
    free(p->rows);
    free(p->at);
    free(p->keys);
    free(p->ids);
    wipe_free(p->x, (size_t)p->max_rows * (size_t)p->hidden * sizeof *p->x);
    *p = (struct pass){0};
}

static float *row_at(struct pass *p, int i) {
    return p->x + (size_t)i * (size_t)p->hidden;
}

/* ---- choosing ---- */

static bool is_chain(const struct cloud_session *c) {
    for (uint32_t i = 1; i < c->n_pending; i++) {
        const struct pending *q = &c->pending[i];
        if (wire_node(q->window->submit.nodes, (int)q->row).parent != q[-1].id)
            return false;
    }
    return true;
}

static bool decodes(const struct cloud_session *c) {
    return !audit_store_open(c->audit) &&
           (c->n_pending <= SMALL_WINDOW || (c->n_pending <= LARGEST_TREE && !is_chain(c)));
}

static bool waits(const struct cloud_session *c) {
    return c->n_pending > 0 && c->port && !c->broken && !c->port->gone && !c->port->over && !port_clogged(c->port);
}

/* Puts up to room of the session's nodes behind the chosen ones. Returns how many. */
static int take(struct pass *p, struct cloud_session *c, int room) {
    int n = c->n_pending < (uint32_t)room ? (int)c->n_pending : room;
    struct err e = {0};
    for (int i = 0; i < n; i++) {
        const struct pending *q = &c->pending[i];
        p->rows[p->n + i] = (struct pass_row){.session = c, .node = *q};
        p->at[p->n + i] = p->n + i;
        p->ids[i] = q->id;
        if (codec_decode(c->codec, q->window->submit.x + (size_t)q->row * c->row_bytes, 1, p->hidden,
                         row_at(p, p->n + i)) != 0) {
            c->broken = "a node has an activation that is not finite";
            return 0;
        }
    }
    /* Many long branches at once can be too much for the table's memory: then they are taken in several passes. */
    while (kv_table_rows(c->table, p->ids, n, p->keys + p->n, &e) != 0) {
        if (n == 1) {
            c->broken = "a node's branch is too long";
            return 0;
        }
        n /= 2;
    }
    p->n += n;
    return n;
}

/* Those with rows in this pass go behind the others, whose turn comes next. */
static void rotate(struct pass *p, struct sessions *s) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        struct cloud_session *c = s->all[i];
        if (!c->chosen)
            s->all[kept++] = c;
    }
    for (int i = 0; i < p->n; i++) {
        struct cloud_session *c = p->rows[i].session;
        if (!c->chosen)
            continue;
        c->chosen = false;
        s->all[kept++] = c;
    }
}

int pass_choose(struct pass *p, struct sessions *s, double now_ms) {
    p->n = p->n_decode = 0;
    uint64_t number = p->number + 1;
    bool active = false, prefills = false; /* is there anybody whom a prefill would hold up? */
    for (uint32_t i = 0; i < s->n && p->n < p->max_rows; i++) {
        struct cloud_session *c = s->all[i];
        if (!waits(c) || !decodes(c)) {
            prefills = prefills || waits(c);
            active = active || (decodes(c) && c->port && c->decoded_ms > 0 && now_ms - c->decoded_ms < ACTIVE_MS);
            continue;
        }
        active = true;
        if (take(p, c, p->max_rows - p->n) == 0)
            continue;
        c->chosen = true;
        c->pass = number;
        c->decoded_ms = now_ms;
    }
    p->n_decode = p->n;
    int room = p->max_rows - p->n;
    if (prefills && room > 0)
        room = active ? pace_prefill(&p->pace, p->n_decode, room) : pace_alone(&p->pace, room);
    for (uint32_t i = 0; i < s->n && prefills && room > 0; i++) {
        struct cloud_session *c = s->all[i];
        if (!waits(c) || decodes(c))
            continue;
        int n = take(p, c, room);
        room -= n;
        c->chosen = n > 0;
    }
    if (p->n == 0)
        return 0;
    p->number = number;
    p->n_left = p->n;
    rotate(p, s);
    return p->n;
}

/* ---- computing ---- */

/* Keeps what audits commit to: the input of layer part.lo + leaf. */
static void keep_boundary(struct pass *p, int leaf) {
    for (int i = 0; i < p->n_left; i++) {
        const struct pass_row *r = &p->rows[p->at[i]];
        if (audit_store_open(r->session->audit))
            memcpy(audit_store_row(r->session->audit, leaf, r->node.row), row_at(p, i),
                   (size_t)p->hidden * sizeof(float));
    }
}

static void compact(struct pass *p) {
    int n = 0;
    for (int i = 0; i < p->n_left; i++) {
        if (p->rows[p->at[i]].dropped)
            continue;
        if (n != i) {
            p->at[n] = p->at[i];
            p->keys[n] = p->keys[i];
            memcpy(row_at(p, n), row_at(p, i), (size_t)p->hidden * sizeof(float));
        }
        n++;
    }
    p->n_left = n;
}

int pass_run(struct pass *p, bool (*look)(void *ctx), void *ctx, struct err *e) {
    const struct part *part = &p->stage->part;
    bool audit = false;
    for (int i = 0; i < p->n; i++)
        audit = audit || audit_store_open(p->rows[i].session->audit);
    int n_layers = part->hi - part->lo, group = n_layers;
    double guess = pace_ms(&p->pace, p->n);
    if (guess == 0 || guess > LOOK_MS)
        group = guess == 0 ? 1 : (int)(n_layers * LOOK_MS / guess);
    if (group < 1 || audit)
        group = 1;

    p->started_ms = clock_ms();
    int n = p->n, lo = part->lo;
    if (audit)
        keep_boundary(p, 0);
    while (lo < part->hi && p->n_left > 0) {
        int hi = lo + group < part->hi ? lo + group : part->hi;
        const struct batch b = {.rows = p->keys, .n = p->n_left};
        if (p->stage->ops->layers(p->stage, p->kv, &b, lo, hi, p->x, e) != 0)
            return -1;
        lo = hi;
        if (audit)
            keep_boundary(p, lo - part->lo);
        if (lo < part->hi && look && look(ctx))
            compact(p);
    }
    p->ms = clock_ms() - p->started_ms;
    if (p->n_left == n)
        pace_learn(&p->pace, n, p->n_decode, p->ms);
    return 0;
}
