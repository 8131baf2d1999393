#include "core/model/kv.h"

#include <stdlib.h>
#include <string.h>

/* ---- slots: a stack of free numbers, so that a fresh context gets them in rising order ---- */

struct slot_pool {
    uint32_t *free;
    uint32_t n_free, n_slots;
};

int slot_pool_create(struct slot_pool **out, uint32_t n_slots, struct err *e) {
    *out = NULL;
    struct slot_pool *p = calloc(1, sizeof *p);
    if (p)
        p->free = malloc((size_t)n_slots * sizeof *p->free);
    if (!p || !p->free) {
        slot_pool_free(p);
        return err_set(e, ERR_MEMORY, "out of memory for %u KV slots", n_slots);
    }
    for (uint32_t i = 0; i < n_slots; i++)
        p->free[i] = n_slots - 1 - i;
    p->n_free = p->n_slots = n_slots;
    *out = p;
    return 0;
}

void slot_pool_free(struct slot_pool *p) {
    if (!p)
        return;
    free(p->free);
    free(p);
}

uint32_t slot_pool_size(const struct slot_pool *p) {
    return p->n_slots;
}

uint32_t slot_pool_left(const struct slot_pool *p) {
    return p->n_free;
}

static uint32_t slot_take(struct slot_pool *p) {
    return p->free[--p->n_free];
}

static void slot_give(struct slot_pool *p, uint32_t slot) {
    p->free[p->n_free++] = slot;
}

/* ---- tables ---- */

enum { PARENT_HEAD = -1 };

struct live {
    uint32_t id, pos, slot;
    int32_t parent; /* index of the parent in live[], always smaller than the node's own; PARENT_HEAD */
    bool on_trunk;  /* of the last kv_table_rows */
};

/* The rows of one pass may hold this many tail slots for each node in flight on average. Paths share the trunk, so real
 * trees stay far below; a peer that sends many long parallel branches is refused. */
enum { TAIL_PER_NODE = 64 };

struct kv_table {
    struct slot_pool *pool;
    uint32_t max_ctx, max_live;
    uint32_t *trunk; /* [max_ctx]: slots of committed positions, then of the trunk that kv_table_rows chose */
    uint32_t len;    /* committed positions */
    uint32_t head, last_id;
    struct live *live; /* sorted by id, which puts parents before children */
    uint32_t n_live;
    int32_t *remap; /* [max_live] scratch of prune and foresee */
    uint32_t *tail;
    size_t n_tail, max_tail;
};

int kv_table_create(struct kv_table **out, struct slot_pool *pool, uint32_t max_ctx, uint32_t max_live, struct err *e) {
    *out = NULL;
    if (max_ctx == 0 || max_live == 0)
        return err_set(e, ERR_USAGE, "a context needs at least one position and one node in flight");
    struct kv_table *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory for a KV table");
    t->pool = pool;
    t->max_ctx = max_ctx;
    t->max_live = max_live;
    t->max_tail = (size_t)max_live * TAIL_PER_NODE;
    t->trunk = malloc((size_t)max_ctx * sizeof *t->trunk);
    t->live = malloc((size_t)max_live * sizeof *t->live);
    t->remap = malloc((size_t)max_live * sizeof *t->remap);
    t->tail = malloc(t->max_tail * sizeof *t->tail);
    if (!t->trunk || !t->live || !t->remap || !t->tail) {
        kv_table_free(t);
        return err_set(e, ERR_MEMORY, "out of memory for a KV table of %u positions", max_ctx);
    }
    *out = t;
    return 0;
}

void kv_table_free(struct kv_table *t) {
    if (!t)
        return;
    for (uint32_t i = 0; i < t->len; i++)
        slot_give(t->pool, t->trunk[i]);
    for (uint32_t i = 0; i < t->n_live; i++)
        slot_give(t->pool, t->live[i].slot);
    free(t->trunk);
    free(t->live);
    free(t->remap);
    free(t->tail);
    free(t);
}

uint32_t kv_table_len(const struct kv_table *t) {
    return t->len;
}

uint32_t kv_table_head(const struct kv_table *t) {
    return t->head;
}

uint32_t kv_table_live(const struct kv_table *t) {
    return t->n_live;
}

/* Index of a live id, or -1. */
static int32_t find(const struct kv_table *t, uint32_t id) {
    uint32_t lo = 0, hi = t->n_live;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->live[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_live && t->live[lo].id == id ? (int32_t)lo : -1;
}

bool kv_table_knows(const struct kv_table *t, uint32_t id) {
    return find(t, id) >= 0;
}

int kv_table_add(struct kv_table *t, const struct node *nodes, int n, bool *keep, struct err *e) {
    uint32_t before = t->n_live, last_before = t->last_id;
    int kept = 0;
    for (int i = 0; i < n; i++) {
        const struct node *a = &nodes[i];
        if (keep)
            keep[i] = false;
        if (a->id <= t->last_id) {
            err_set(e, ERR_PEER, "node id %u does not increase (last was %u)", a->id, t->last_id);
            goto undo;
        }
        t->last_id = a->id;
        int32_t parent = a->parent == t->head ? PARENT_HEAD : find(t, a->parent);
        if (parent < 0 && a->parent != t->head)
            continue; /* its branch was cancelled while it was on its way */
        uint32_t pos = parent == PARENT_HEAD ? t->len : t->live[parent].pos + 1;
        if (a->pos != pos) {
            err_set(e, ERR_PEER, "node %u says position %u, its parent makes it %u", a->id, a->pos, pos);
            goto undo;
        }
        if (pos >= t->max_ctx) {
            err_set(e, ERR_MEMORY, "the context of %u positions is full", t->max_ctx);
            goto undo;
        }
        if (t->n_live == t->max_live) {
            err_set(e, ERR_MEMORY, "more than %u nodes in flight", t->max_live);
            goto undo;
        }
        if (t->pool->n_free == 0) {
            err_set(e, ERR_MEMORY, "all %u KV slots are in use", t->pool->n_slots);
            goto undo;
        }
        t->live[t->n_live++] = (struct live){.id = a->id, .pos = pos, .slot = slot_take(t->pool), .parent = parent};
        if (keep)
            keep[i] = true;
        kept++;
    }
    return kept;
undo:
    while (t->n_live > before)
        slot_give(t->pool, t->live[--t->n_live].slot);
    t->last_id = last_before;
    return -1;
}

/* Compacts live[] after a commit or a cancel. On entry remap[i] says what happens to node i: PRUNE_MOVED (committed:
 * its slot has a place on the trunk now), PRUNE_DROP or PRUNE_KEEP; a node also goes when its parent goes, and after a
 * commit (new_head is the index of the last committed node) when it does not descend from the new head. */
enum { PRUNE_DROP = -3, PRUNE_MOVED = -2, PRUNE_KEEP = 0 };

static void prune(struct kv_table *t, int32_t new_head) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_live; i++) {
        struct live *a = &t->live[i];
        if (t->remap[i] == PRUNE_MOVED)
            continue;
        bool keep = t->remap[i] == PRUNE_KEEP;
        int32_t parent = a->parent;
        if (keep && parent != PARENT_HEAD) {
            if (parent == new_head)
                parent = PARENT_HEAD;
            else if (t->remap[parent] < 0)
                keep = false;
            else
                parent = t->remap[parent];
        } else if (keep && new_head != PARENT_HEAD) {
            keep = false; /* a sibling of what was committed */
        }
        if (!keep) {
            slot_give(t->pool, a->slot);
            t->remap[i] = PRUNE_DROP;
            continue;
        }
        t->remap[i] = (int32_t)n;
        t->live[n] = *a;
        t->live[n++].parent = parent;
    }
    t->n_live = n;
}

int kv_table_commit(struct kv_table *t, const uint32_t *ids, int n, struct err *e) {
    if (n <= 0)
        return 0;
    int32_t parent = PARENT_HEAD;
    for (int i = 0; i < n; i++) {
        int32_t at = find(t, ids[i]);
        if (at < 0 || t->live[at].parent != parent)
            return err_set(e, ERR_PEER, "cannot commit node %u: it is not %s", ids[i],
                           at < 0 ? "in flight" : "the child of the node before it");
        parent = at;
    }
    for (uint32_t i = 0; i < t->n_live; i++)
        t->remap[i] = PRUNE_KEEP;
    for (int i = 0; i < n; i++) {
        int32_t at = find(t, ids[i]);
        t->trunk[t->len++] = t->live[at].slot;
        t->remap[at] = PRUNE_MOVED;
    }
    t->head = ids[n - 1];
    prune(t, parent);
    return 0;
}

void kv_table_cancel(struct kv_table *t, const uint32_t *ids, int n) {
    bool any = false;
    for (uint32_t i = 0; i < t->n_live; i++)
        t->remap[i] = PRUNE_KEEP;
    for (int i = 0; i < n; i++) {
        int32_t at = find(t, ids[i]);
        if (at < 0)
            continue;
        t->remap[at] = PRUNE_DROP;
        any = true;
    }
    if (any)
        prune(t, PARENT_HEAD);
}

void kv_table_rewind(struct kv_table *t, uint32_t len, uint32_t head) {
    if (len > t->len)
        len = t->len;
    while (t->n_live > 0)
        slot_give(t->pool, t->live[--t->n_live].slot);
    while (t->len > len)
        slot_give(t->pool, t->trunk[--t->len]);
    t->head = len ? head : NODE_NONE;
    if (t->head > t->last_id)
        t->last_id = t->head;
}

void kv_table_foresee(struct kv_table *t) {
    for (uint32_t i = 0; i < t->n_live; i++)
        t->remap[i] = PRUNE_KEEP;
}

void kv_table_foresee_commit(struct kv_table *t, const uint32_t *ids, int n) {
    int32_t head = PARENT_HEAD;
    for (int i = 0; i < n; i++) {
        head = find(t, ids[i]);
        if (head >= 0)
            t->remap[head] = PRUNE_MOVED;
    }
    if (n <= 0)
        return;
    for (uint32_t i = 0; i < t->n_live; i++) {
        int32_t parent = t->live[i].parent;
        bool below = parent != PARENT_HEAD && (parent == head || t->remap[parent] == PRUNE_KEEP);
        if (t->remap[i] == PRUNE_KEEP && !below)
            t->remap[i] = PRUNE_DROP;
    }
}

void kv_table_foresee_cancel(struct kv_table *t, const uint32_t *ids, int n) {
    for (int i = 0; i < n; i++) {
        int32_t at = find(t, ids[i]);
        if (at >= 0 && t->remap[at] == PRUNE_KEEP) /* what is committed cannot be cancelled */
            t->remap[at] = PRUNE_DROP;
    }
    for (uint32_t i = 0; i < t->n_live && n > 0; i++) {
        int32_t parent = t->live[i].parent;
        if (t->remap[i] == PRUNE_KEEP && parent != PARENT_HEAD && t->remap[parent] == PRUNE_DROP)
            t->remap[i] = PRUNE_DROP;
    }
}

bool kv_table_foreseen(const struct kv_table *t, uint32_t id) {
    int32_t at = find(t, id);
    return at < 0 || t->remap[at] == PRUNE_DROP;
}

/* Chooses the path to the deepest live node as the trunk and writes its slots behind the committed ones. */
static void lay_trunk(struct kv_table *t) {
    int32_t deepest = PARENT_HEAD;
    for (uint32_t i = 0; i < t->n_live; i++) {
        t->live[i].on_trunk = false;
        if (deepest < 0 || t->live[i].pos > t->live[deepest].pos)
            deepest = (int32_t)i;
    }
    for (int32_t i = deepest; i >= 0; i = t->live[i].parent) {
        t->live[i].on_trunk = true;
        t->trunk[t->live[i].pos] = t->live[i].slot;
    }
}

int kv_table_rows(struct kv_table *t, const uint32_t *ids, int n, struct row *rows, struct err *e) {
    lay_trunk(t);
    t->n_tail = 0;
    for (int i = 0; i < n; i++) {
        int32_t at = find(t, ids[i]);
        if (at < 0)
            return err_set(e, ERR_PEER, "node %u is not in flight", ids[i]);
        const struct live *a = &t->live[at];
        int32_t top = at; /* the first ancestor on the trunk, or PARENT_HEAD */
        while (top >= 0 && !t->live[top].on_trunk)
            top = t->live[top].parent;
        uint32_t n_trunk = top >= 0 ? t->live[top].pos + 1 : t->len;
        uint32_t n_tail = a->pos + 1 - n_trunk;
        if (n_tail > t->max_tail - t->n_tail)
            return err_set(e, ERR_MEMORY, "the branches of this window are too long in sum (%zu slots)", t->max_tail);
        uint32_t *tail = t->tail + t->n_tail;
        uint32_t k = n_tail;
        for (int32_t j = at; j != top; j = t->live[j].parent)
            tail[--k] = t->live[j].slot;
        t->n_tail += n_tail;
        rows[i] = (struct row){.pos = a->pos,
                               .slot = a->slot,
                               .n_trunk = n_trunk,
                               .n_tail = n_tail,
                               .trunk = t->trunk,
                               .tail = n_tail ? tail : NULL};
    }
    return 0;
}
