#include "net/cloud/submit.h"

#include "net/cloud/audit_store.h"

#include <stdlib.h>
#include <string.h>

/* All audits together may keep this much. */
#define AUDIT_BYTES ((size_t)512 << 20)
/* Frames that are looked at while a pass runs: a peer must not make that long for the others. */
enum { FORESEE = 32 };

int submit_scratch_init(struct submit_scratch *s, int max_rows, int n_leaves, int hidden, struct err *e) {
    *s = (struct submit_scratch){.n_leaves = n_leaves, .hidden = hidden, .audit_bytes = AUDIT_BYTES};
    s->nodes = malloc((size_t)max_rows * sizeof *s->nodes);
    s->keep = malloc((size_t)max_rows * sizeof *s->keep);
    s->ids = malloc(WIRE_MAX_LIST * sizeof *s->ids);
    if (s->nodes && s->keep && s->ids)
        return 0;
    submit_scratch_free(s);
    return err_set(e, ERR_MEMORY, "out of memory");
}

void submit_scratch_free(struct submit_scratch *s) {
    free(s->nodes);
    free(s->keep);
    free(s->ids);
    *s = (struct submit_scratch){0};
}

static int parse(struct cloud_session *c, struct frame *f, struct err *e) {
    const struct wire_submit *v = &f->submit;
    if (f->parsed)
        return 0;
    if (wire_get_submit(f->buf.p, f->buf.n, c->row_bytes, &f->submit, e) != 0)
        return -1;
    /* Nobody has more in flight to speak of; and lists are looked at between the layers of a pass, where others wait.
     */
    if ((uint32_t)v->n_commit > c->live || (uint32_t)v->n_cancel > c->live)
        return err_set(e, ERR_PEER, "SUBMIT %u commits %d nodes and cancels %d, and at most %u may be in flight",
                       v->seq, v->n_commit, v->n_cancel, c->live);
    f->parsed = true;
    return 0;
}

static const uint32_t *list(struct submit_scratch *s, const uint8_t *view, int n) {
    for (int i = 0; i < n; i++)
        s->ids[i] = wire_id(view, i);
    return s->ids;
}

static bool is_pending(const struct cloud_session *c, uint32_t id) {
    uint32_t lo = 0, hi = c->n_pending;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->pending[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n_pending && c->pending[lo].id == id;
}

static bool commits_pending(const struct cloud_session *c, const struct wire_submit *s) {
    for (int i = 0; i < s->n_commit && !s->rewind; i++) /* after a rewind nothing is in flight */
        if (is_pending(c, wire_id(s->commit, i)))
            return true;
    return false;
}

int submit_ready(struct cloud_session *c, struct frame *f, bool *ready, struct err *e) {
    if (parse(c, f, e) != 0)
        return -1;
    *ready = !audit_store_open(c->audit) && !commits_pending(c, &f->submit);
    return 0;
}

/* Forgets nodes that wait and are not in flight any more. */
static void prune(struct cloud_session *c, struct submit_scratch *s, struct frame_list *finished) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_pending; i++) {
        struct pending *p = &c->pending[i];
        if (kv_table_knows(c->table, p->id)) {
            c->pending[n++] = *p;
            continue;
        }
        s->dropped_rows++;
        if (--p->window->n_waiting > 0)
            continue;
        c->n_windows--;
        frame_push(finished, p->window);
    }
    c->n_pending = n;
}

static void audit_drop(struct cloud_session *c, struct submit_scratch *s) {
    if (!c->audit)
        return;
    s->audit_bytes += audit_store_bytes(c->audit->n_rows, c->audit->n_leaves, c->audit->hidden);
    audit_store_free(c->audit);
    c->audit = NULL;
}

static int audit_begin(struct cloud_session *c, struct submit_scratch *s, struct frame *f, struct err *e) {
    const struct wire_submit *v = &f->submit;
    if (v->n_nodes == 0 || kv_table_len(c->table) != 0 || kv_table_live(c->table) != 0)
        return err_set(e, ERR_PEER, "SUBMIT %u: an audit is a chain of nodes on an empty context", v->seq);
    for (int i = 0; i < v->n_nodes; i++)
        if (wire_node(v->nodes, i).parent != (i ? wire_node(v->nodes, i - 1).id : NODE_NONE))
            return err_set(e, ERR_PEER, "SUBMIT %u: the nodes of an audit are not a chain", v->seq);
    size_t bytes = audit_store_bytes(v->n_nodes, s->n_leaves, s->hidden);
    if (bytes > AUDIT_BYTES)
        return err_set(e, ERR_USAGE, "an audit of %d nodes needs %.0f MB and all audits have %.0f MB: try fewer",
                       v->n_nodes, (double)bytes / 1e6, (double)AUDIT_BYTES / 1e6);
    if (bytes > s->audit_bytes)
        return err_set(e, ERR_MEMORY, "an audit of %d nodes needs %.0f MB and %.0f MB are left: try fewer, or later",
                       v->n_nodes, (double)bytes / 1e6, (double)s->audit_bytes / 1e6);
    if (audit_store_create(&c->audit, v->seq, v->n_nodes, s->n_leaves, s->hidden, c->codec, e) != 0)
        return -1;
    s->audit_bytes -= bytes;
    return 0;
}

int submit_apply(struct cloud_session *c, struct submit_scratch *s, struct frame *f, struct frame_list *finished,
                 struct err *e) {
    const struct wire_submit *v = &f->submit;
    if (v->seq != c->seq + 1)
        return err_set(e, ERR_PEER, "SUBMIT %u came after SUBMIT %u", v->seq, c->seq);
    c->seq = v->seq;
    if ((uint32_t)v->n_nodes > c->max_rows)
        return err_set(e, ERR_PEER, "SUBMIT %u has %d nodes, at most %u were agreed", v->seq, v->n_nodes, c->max_rows);
    audit_drop(c, s);
    uint32_t len = kv_table_len(c->table);
    if (v->rewind && v->rewind_len > len)
        return err_set(e, ERR_PEER, "SUBMIT %u: cannot rewind to %u of %u positions", v->seq, v->rewind_len, len);
    if (v->rewind)
        kv_table_rewind(c->table, v->rewind_len, v->rewind_head);
    if (kv_table_commit(c->table, list(s, v->commit, v->n_commit), v->n_commit, e) != 0)
        return err_wrap(e, "SUBMIT %u", v->seq);
    kv_table_cancel(c->table, list(s, v->cancel, v->n_cancel), v->n_cancel);
    prune(c, s, finished);
    if (v->audit && audit_begin(c, s, f, e) != 0)
        return -1;
    for (int i = 0; i < v->n_nodes; i++)
        s->nodes[i] = wire_node(v->nodes, i);
    int kept = kv_table_add(c->table, s->nodes, v->n_nodes, s->keep, e);
    if (kept < 0) {
        if (e->kind == ERR_MEMORY)
            e->kind = ERR_PEER; /* slots are reserved: it went over what it asked for itself */
        return err_wrap(e, "SUBMIT %u", v->seq);
    }
    s->dropped_rows += (uint32_t)(v->n_nodes - kept);
    f->n_waiting = (uint32_t)kept;
    c->n_windows += kept > 0;
    if (c->audit)
        c->audit->window = f;
    for (int i = 0; i < v->n_nodes; i++)
        if (s->keep[i])
            c->pending[c->n_pending++] = (struct pending){s->nodes[i].id, (uint32_t)i, f};
    return 0;
}

void submit_forget(struct cloud_session *c, struct submit_scratch *s) {
    struct frame *window = audit_store_open(c->audit) && c->n_pending == 0 ? c->audit->window : NULL;
    for (uint32_t i = 0; i < c->n_pending; i++)
        if (--c->pending[i].window->n_waiting == 0)
            port_done(c->port, c->pending[i].window);
    s->dropped_rows += c->n_pending;
    c->n_pending = c->n_windows = 0;
    port_done(c->port, window);
    audit_drop(c, s);
}

void submit_foresee(struct cloud_session *c, struct submit_scratch *s, bool *all) {
    *all = c->port->gone;
    kv_table_foresee(c->table);
    int left = FORESEE;
    for (struct frame *f = c->port->inbox.first; f && !*all && left > 0; f = f->next, left--) {
        if (f->type == WIRE_PING)
            continue;
        if (f->type == WIRE_BYE) {
            *all = true;
            return;
        }
        /* Nothing else changes what is in flight; an error will be found when its turn comes. */
        struct err e = {0};
        if (f->type != WIRE_SUBMIT || audit_store_open(c->audit) || parse(c, f, &e) != 0)
            return;
        const struct wire_submit *v = &f->submit;
        if (v->rewind) {
            *all = true;
            return;
        }
        kv_table_foresee_commit(c->table, list(s, v->commit, v->n_commit), v->n_commit);
        if (commits_pending(c, v))
            return; /* waits for the very rows that are computed now: nothing behind it may touch them */
        kv_table_foresee_cancel(c->table, list(s, v->cancel, v->n_cancel), v->n_cancel);
    }
}
