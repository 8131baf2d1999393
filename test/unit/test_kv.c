/* core/model/kv: slot tables against a plain model of a tree, and refusals of what a peer must not say. */
#include "core/model/kv.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 200, LIVE = 64, SLOTS = 230 };

/* The plain model: every node ever added with its parent, and whether it is committed, live or gone. */
struct plain {
    uint32_t id, parent, pos;
    enum { P_LIVE, P_DONE, P_GONE } state;
    uint32_t slot;
};

static struct plain all[100000];
static uint32_t n_all;

static struct plain *get(uint32_t id) {
    for (uint32_t i = n_all; i-- > 0;)
        if (all[i].id == id)
            return &all[i];
    return NULL;
}

static int below(uint32_t id, uint32_t top) { /* id is top or descends from it */
    for (; id != NODE_NONE; id = get(id)->parent)
        if (id == top)
            return 1;
    return top == NODE_NONE;
}

static uint32_t rnd(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Every live node's row must list the slots of exactly its ancestors, in order, itself last. */
static void check_rows(struct kv_table *t, struct slot_pool *pool) {
    uint32_t ids[LIVE], n = 0, done = 0;
    for (uint32_t i = 0; i < n_all; i++) {
        if (all[i].state == P_LIVE)
            ids[n++] = all[i].id;
        done += all[i].state == P_DONE;
    }
    cr_assert_eq(n, kv_table_live(t));
    cr_assert_eq(done, kv_table_len(t));
    cr_assert_eq(slot_pool_left(pool), SLOTS - n - done);
    struct row rows[LIVE];
    struct err e = {0};
    cr_assert_eq(kv_table_rows(t, ids, (int)n, rows, &e), 0, "%s", e.msg);
    for (uint32_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        struct plain *p = get(ids[i]);
        cr_assert_eq(r->pos, p->pos);
        cr_assert_eq(r->n_trunk + r->n_tail, p->pos + 1);
        p->slot = r->slot;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        uint32_t id = ids[i];
        for (uint32_t k = r->pos + 1; k-- > 0; id = get(id)->parent) {
            uint32_t slot = k < r->n_trunk ? r->trunk[k] : r->tail[k - r->n_trunk];
            cr_assert_eq(slot, get(id)->slot, "node %u, position %u", ids[i], k);
        }
        cr_assert_eq(id, NODE_NONE);
    }
    for (uint32_t i = 0; i < n; i++) /* no slot serves two nodes */
        for (uint32_t j = 0; j < n_all; j++)
            if (all[j].state != P_GONE && all[j].id != ids[i])
                cr_assert_neq(all[j].slot, rows[i].slot);
}

Test(kv, random_trees_against_a_plain_model) {
    struct err e = {0};
    struct slot_pool *pool;
    struct kv_table *t;
    uint32_t seed = 1;
    cr_assert_eq(slot_pool_create(&pool, SLOTS, &e), 0);
    cr_assert_eq(kv_table_create(&t, pool, CTX, LIVE, &e), 0);
    uint32_t next = 1;
    n_all = 0;
    for (int step = 0; step < 3000; step++) {
        uint32_t live[LIVE], n_live = 0;
        for (uint32_t i = 0; i < n_all; i++)
            if (all[i].state == P_LIVE)
                live[n_live++] = all[i].id;
        switch (rnd(&seed) % 8) {
        case 0:
        case 1:
        case 2: { /* a window of up to 12 nodes, some under unknown parents */
            struct node w[12];
            bool keep[12], want[12];
            int n = 1 + (int)(rnd(&seed) % 12), fits = 0;
            uint32_t base = n_all;
            for (int i = 0; i < n; i++) {
                uint32_t pick = rnd(&seed) % 10, parent = kv_table_head(t);
                if (pick < 4 && n_live)
                    parent = live[rnd(&seed) % n_live];
                else if (pick < 8 && i > 0)
                    parent = w[rnd(&seed) % (uint32_t)i].id;
                else if (pick == 8)
                    parent = next + 500;
                w[i].id = next++;
                w[i].parent = parent;
                struct plain *p = parent == NODE_NONE ? NULL : get(parent);
                bool known = parent == kv_table_head(t) || (p && p->state == P_LIVE);
                w[i].pos = parent == kv_table_head(t) ? kv_table_len(t) : p ? p->pos + 1 : 7;
                want[i] = known;
                if (known) {
                    all[n_all++] = (struct plain){.id = w[i].id, .parent = parent, .pos = w[i].pos, .state = P_LIVE};
                    fits++;
                }
            }
            bool room = n_live + (uint32_t)fits <= LIVE;
            for (int i = 0; i < n; i++)
                room = room && (!want[i] || w[i].pos < CTX);
            int got = kv_table_add(t, w, n, keep, &e);
            if (!room || slot_pool_left(pool) + (uint32_t)(got > 0 ? got : 0) < (uint32_t)fits) {
                cr_assert_eq(got, -1);
                cr_assert_eq(e.kind, ERR_MEMORY);
                e = (struct err){0};
                n_all = base;
            } else {
                cr_assert_eq(got, fits, "%s", e.msg);
                cr_assert_arr_eq(keep, want, (size_t)n);
            }
            break;
        }
        case 3:
        case 4:
        case 5: { /* commit the path to some live node */
            if (!n_live)
                break;
            uint32_t path[LIVE], n = 0, id = live[rnd(&seed) % n_live];
            for (uint32_t a = id; a != kv_table_head(t); a = get(a)->parent)
                path[n++] = a;
            for (uint32_t i = 0; i < n / 2; i++) {
                uint32_t x = path[i];
                path[i] = path[n - 1 - i];
                path[n - 1 - i] = x;
            }
            cr_assert_eq(kv_table_commit(t, path, (int)n, &e), 0, "%s", e.msg);
            for (uint32_t i = 0; i < n; i++)
                get(path[i])->state = P_DONE;
            for (uint32_t i = 0; i < n_all; i++)
                if (all[i].state == P_LIVE && !below(all[i].id, id))
                    all[i].state = P_GONE;
            cr_assert_eq(kv_table_head(t), id);
            break;
        }
        case 6: {
            if (!n_live)
                break;
            uint32_t id = live[rnd(&seed) % n_live];
            kv_table_cancel(t, &id, 1);
            for (uint32_t i = 0; i < n_all; i++)
                if (all[i].state == P_LIVE && below(all[i].id, id))
                    all[i].state = P_GONE;
            break;
        }
        default: { /* now and then, or when the context fills up */
            if (rnd(&seed) % 4 && kv_table_len(t) < CTX - 20)
                break;
            uint32_t len = rnd(&seed) % (kv_table_len(t) + 1), head = NODE_NONE;
            for (uint32_t i = 0; i < n_all; i++) {
                if (all[i].state == P_DONE && all[i].pos + 1 == len)
                    head = all[i].id;
                if (all[i].state == P_LIVE || (all[i].state == P_DONE && all[i].pos >= len))
                    all[i].state = P_GONE;
            }
            kv_table_rewind(t, len, head);
        }
        }
        check_rows(t, pool);
    }
    kv_table_free(t);
    cr_assert_eq(slot_pool_left(pool), SLOTS);
    slot_pool_free(pool);
}

/* What foresee says about two commits and cancels in a row is what they then do. */
Test(kv, foresees_what_commits_and_cancels_drop) {
    uint32_t seed = 7;
    for (int round = 0; round < 300; round++) {
        struct slot_pool *pool;
        struct kv_table *t;
        struct err e = {0};
        cr_assert_eq(slot_pool_create(&pool, 64, &e), 0);
        cr_assert_eq(kv_table_create(&t, pool, 40, 24, &e), 0);
        struct node w[24];
        int n = 4 + (int)(rnd(&seed) % 20);
        for (int i = 0; i < n; i++) {
            int parent = (int)(rnd(&seed) % ((uint32_t)i + 1)) - 1; /* -1: the root */
            w[i] = (struct node){(uint32_t)i + 1, parent < 0 ? 0 : w[parent].id, parent < 0 ? 0 : w[parent].pos + 1};
        }
        cr_assert_eq(kv_table_add(t, w, n, NULL, &e), n, "%s", e.msg);
        uint32_t chain[24], cancel[3];
        int n_chain = 0;
        for (uint32_t id = 1 + rnd(&seed) % (uint32_t)n; id; id = w[id - 1].parent)
            chain[n_chain++] = id;
        for (int i = 0; i < n_chain / 2; i++) {
            uint32_t x = chain[i];
            chain[i] = chain[n_chain - 1 - i];
            chain[n_chain - 1 - i] = x;
        }
        for (int i = 0; i < 3; i++)
            cancel[i] = 1 + rnd(&seed) % 30; /* some unknown, some committed */
        int first = (int)(rnd(&seed) % (uint32_t)(n_chain + 1));
        kv_table_foresee(t);
        kv_table_foresee_commit(t, chain, first);
        kv_table_foresee_cancel(t, cancel, 1);
        bool cut = false; /* then the second commit is no chain any more */
        for (int i = first; i < n_chain; i++)
            cut = cut || kv_table_foreseen(t, chain[i]);
        if (!cut)
            kv_table_foresee_commit(t, chain + first, n_chain - first);
        kv_table_foresee_cancel(t, cancel + 1, 2);
        bool gone[24];
        for (int i = 0; i < n; i++)
            gone[i] = kv_table_foreseen(t, w[i].id);
        cr_assert_eq(kv_table_commit(t, chain, first, &e), 0, "%s", e.msg);
        kv_table_cancel(t, cancel, 1);
        if (!cut)
            cr_assert_eq(kv_table_commit(t, chain + first, n_chain - first, &e), 0, "%s", e.msg);
        kv_table_cancel(t, cancel + 1, 2);
        for (int i = 0; i < n; i++) {
            bool committed = false;
            for (int k = 0; k < (cut ? first : n_chain); k++)
                committed = committed || chain[k] == w[i].id;
            cr_assert_eq(gone[i], !committed && !kv_table_knows(t, w[i].id), "round %d, node %u", round, w[i].id);
        }
        cr_assert(kv_table_foreseen(t, 999));
        kv_table_free(t);
        slot_pool_free(pool);
    }
}

static struct kv_table *small(struct slot_pool **pool, uint32_t slots, uint32_t ctx, uint32_t live) {
    struct err e = {0};
    struct kv_table *t;
    cr_assert_eq(slot_pool_create(pool, slots, &e), 0);
    cr_assert_eq(kv_table_create(&t, *pool, ctx, live, &e), 0);
    return t;
}

Test(kv, refuses_what_a_peer_must_not_say) {
    struct slot_pool *pool;
    struct kv_table *t = small(&pool, 8, 4, 6);
    struct err e = {0};
    cr_assert_eq(kv_table_add(t, (struct node[]){{5, 0, 0}, {6, 5, 1}}, 2, NULL, &e), 2);
    static const struct {
        struct node n[2];
        enum err_kind kind;
    } bad[] = {
        {{{6, 5, 1}, {9, 5, 1}}, ERR_PEER},          /* an id again */
        {{{7, 5, 1}, {7, 5, 1}}, ERR_PEER},          /* twice in one window */
        {{{7, 5, 2}, {8, 5, 1}}, ERR_PEER},          /* a position that is not the parent's + 1 */
        {{{7, 5, 1}, {8, 0, 1}}, ERR_PEER},          /* the root at position 1 */
        {{{0, 5, 1}, {8, 5, 1}}, ERR_PEER},          /* the id that means nobody */
        {{{7, 5, 1}, {8, 7, 0xffffffffu}}, ERR_PEER} /* absurd */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        e = (struct err){0};
        cr_assert_eq(kv_table_add(t, bad[i].n, 2, NULL, &e), -1, "case %zu", i);
        cr_assert_eq(e.kind, bad[i].kind, "case %zu: %s", i, e.msg);
        cr_assert_eq(kv_table_live(t), 2, "nothing changed");
        cr_assert_eq(slot_pool_left(pool), 6);
    }
    /* commits that are no chain from the head */
    static const uint32_t chains[][2] = {{6, 5}, {5, 5}, {5, 99}, {99, 5}};
    for (size_t i = 0; i < 4; i++) {
        e = (struct err){0};
        cr_assert_eq(kv_table_commit(t, chains[i], 2, &e), -1, "case %zu", i);
        cr_assert_eq(e.kind, ERR_PEER);
        cr_assert_eq(kv_table_len(t), 0);
    }
    kv_table_cancel(t, &(uint32_t){12345}, 1);
    cr_assert_eq(kv_table_live(t), 2);
    struct row rows[1];
    cr_assert_eq(kv_table_rows(t, (uint32_t[]){77}, 1, rows, &e), -1);
    kv_table_free(t);
    slot_pool_free(pool);
}

Test(kv, bounds_are_errors_and_lose_nothing) {
    struct err e = {0};
    struct slot_pool *pool;
    struct kv_table *t = small(&pool, 3, 10, 8);
    struct node chain[5] = {{1, 0, 0}, {2, 1, 1}, {3, 2, 2}, {4, 3, 3}, {5, 4, 4}};
    cr_assert_eq(kv_table_add(t, chain, 5, NULL, &e), -1);
    cr_assert_eq(e.kind, ERR_MEMORY);
    cr_assert_eq(slot_pool_left(pool), 3);
    e = (struct err){0};
    cr_assert_eq(kv_table_add(t, chain, 3, NULL, &e), 3, "the ids of a refused window may come again: %s", e.msg);
    kv_table_free(t);
    slot_pool_free(pool);

    t = small(&pool, 50, 3, 8);
    cr_assert_eq(kv_table_add(t, chain, 4, NULL, &e), -1);
    cr_assert(strstr(e.msg, "3 positions"));
    kv_table_free(t);
    slot_pool_free(pool);
}
