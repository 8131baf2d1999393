/* net/batch: what peers get equals, bit for bit, what each would compute alone; sessions that are resumed, taken over,
 * refused, evicted; peers that break the rules disturb nobody else. */
#include "test/unit/batch_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TINY "test/models/tiny"

/* ---- equal bits ---- */

enum { MAX_LIVE = 96 };

/* A peer that speculates at random: chains and trees, several windows in flight, commits, cancels, rewinds. */
struct gambler {
    struct peer p;
    uint32_t seed;
    struct node live[MAX_LIVE]; /* nodes in flight, parents first */
    bool done[MAX_LIVE];        /* its result came */
    int n_live;
    uint32_t *chain; /* committed ids */
    uint32_t len;
    int due; /* windows without a last RESULT */
    uint64_t computed;
};

static uint32_t draw(struct gambler *g, uint32_t n) {
    g->seed = g->seed * 1664525u + 1013904223u;
    return (g->seed >> 8) % n;
}

static uint32_t head_of(const struct gambler *g) {
    return g->len ? g->chain[g->len - 1] : NODE_NONE;
}

/* Keeps the live nodes below top (all of them if it is NODE_NONE), without top itself. cut: keeps the others. */
static void keep_below(struct gambler *g, uint32_t top, bool cut) {
    int n = 0;
    uint32_t in[MAX_LIVE];
    int n_in = 0;
    in[n_in++] = top;
    for (int i = 0; i < g->n_live; i++) {
        bool below = false;
        for (int k = 0; k < n_in; k++)
            below = below || g->live[i].parent == in[k] || (cut && g->live[i].id == top);
        if (below)
            in[n_in++] = g->live[i].id;
        if (below == cut)
            continue;
        g->live[n] = g->live[i];
        g->done[n++] = g->done[i];
    }
    g->n_live = n;
}

static void gamble(struct gambler *g, int max_window) {
    struct node nodes[64];
    uint32_t commit[MAX_LIVE], cancel[4], path[MAX_LIVE];
    struct wire_submit_parts s = {.nodes = nodes, .commit = commit, .cancel = cancel};
    if (g->len && draw(g, 12) == 0) {
        g->len = draw(g, g->len + 1);
        s.rewind = true;
        s.rewind_len = g->len;
        s.rewind_head = head_of(g);
        g->n_live = 0;
    }
    if (g->n_live && draw(g, 2)) { /* commit up to a node that may not even be computed yet */
        int n = 0;
        uint32_t to = g->live[draw(g, (uint32_t)g->n_live)].id;
        for (uint32_t id = to; id != head_of(g);) {
            path[n++] = id;
            int i = 0;
            while (g->live[i].id != id)
                i++;
            id = g->live[i].parent;
        }
        for (int i = 0; i < n; i++)
            g->chain[g->len++] = commit[i] = path[n - 1 - i];
        s.n_commit = n;
        keep_below(g, to, false);
    }
    while (g->n_live && s.n_cancel < 3 && draw(g, 3) == 0) {
        cancel[s.n_cancel++] = g->live[draw(g, (uint32_t)g->n_live)].id;
        keep_below(g, cancel[s.n_cancel - 1], true);
    }
    int n = 1 + (int)draw(g, (uint32_t)max_window);
    bool tree = draw(g, 2);
    for (int i = 0; i < n && g->n_live < MAX_LIVE; i++) {
        int under = g->n_live ? (tree || i == 0 ? (int)draw(g, (uint32_t)g->n_live + 1) - 1 : g->n_live - 1) : -1;
        struct node *a = &nodes[s.n_nodes++];
        a->id = g->p.next_id++;
        a->parent = under < 0 ? head_of(g) : g->live[under].id;
        a->pos = under < 0 ? g->len : g->live[under].pos + 1;
        g->live[g->n_live] = *a;
        g->done[g->n_live++] = false;
    }
    g->due += s.n_nodes > 0;
    peer_submit(&g->p, &s);
}

static void take(struct gambler *g) {
    uint32_t ids[256];
    bool last;
    int n = peer_result(&g->p, ids, &last);
    g->due -= last;
    g->computed += (uint64_t)n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < g->n_live; k++)
            if (g->live[k].id == ids[i])
                g->done[k] = true;
}

static void gamblers(int n, int rounds, int max_window, const struct batch_opts *o, int n_codecs) {
    struct batch_rig r;
    batch_rig_open(&r, TINY, 1, 1, o);
    struct gambler *g = calloc((size_t)n, sizeof *g);
    for (int i = 0; i < n; i++) {
        peer_open(&r, &g[i].p, i + 1, (enum codec)(i % n_codecs));
        peer_hello(&g[i].p, 900, 128, NULL);
        g[i].seed = (uint32_t)i * 77 + 5;
        g[i].chain = calloc(60000, sizeof *g[i].chain);
    }
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < n; i++)
            if (g[i].len < 700)
                gamble(&g[i], max_window);
        for (int i = 0; i < n; i++)
            while (g[i].due > (int)draw(&g[i], 3))
                take(&g[i]);
    }
    for (int i = 0; i < n; i++) {
        while (g[i].due > 0)
            take(&g[i]);
        for (int k = 0; k < g[i].n_live; k++)
            cr_assert(g[i].done[k], "peer %d: node %u never came", i, g[i].live[k].id);
        cr_assert_gt(g[i].computed, 0);
    }
    struct batch_stats s = rig_stats(&r);
    cr_assert_eq(s.attached, n);
    cr_assert_gt(s.passes, 0);
    if (n > 1)
        cr_assert_lt(s.passes, s.windows, "windows shared passes");
    for (int i = 0; i < n; i++) {
        free(g[i].chain);
        peer_close(&g[i].p);
    }
    free(g);
    batch_rig_close(&r);
}

Test(batch, equal_bits_alone) {
    gamblers(1, 60, 20, &(struct batch_opts){.max_rows = 64}, N_CODECS);
}

Test(batch, equal_bits_in_passes_of_few_rows) {
    gamblers(3, 25, 7, &(struct batch_opts){.max_rows = 7}, N_CODECS);
}

Test(batch, equal_bits_with_16_sessions_and_all_codecs) {
    gamblers(16, 25, 12, &(struct batch_opts){.max_rows = 24, .mine = {.kv = 1}}, N_CODECS);
}

Test(batch, equal_bits_while_others_prefill) {
    gamblers(4, 20, 60, &(struct batch_opts){.max_rows = 64}, 2);
}

/* ---- sessions ---- */

Test(batch, a_dropped_session_is_resumed) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &p, 1, CODEC_F16);
    peer_hello(&p, 200, 64, NULL);
    cr_assert(!p.welcome.resumed && p.welcome.len == 0 && p.welcome.head == 0);
    cr_assert_eq(p.welcome.max_rows, 64);
    cr_assert_str_eq(p.welcome.backend, "cpu-test");
    peer_chain(&p, 30);
    peer_chain(&p, 1);
    uint32_t len = p.welcome.len, head = p.welcome.head;
    uint8_t token[WIRE_TOKEN];
    memcpy(token, p.welcome.token, sizeof token);
    /* something in flight, which is dropped */
    struct node n = {p.next_id++, head, len};
    peer_submit(&p, &(struct wire_submit_parts){.nodes = &n, .n_nodes = 1});
    peer_drop(&p);
    peer_again(&p, 1);
    peer_hello(&p, 200, 64, token);
    cr_assert(p.welcome.resumed);
    cr_assert_eq(p.welcome.len, len);
    cr_assert_eq(p.welcome.head, head);
    cr_assert_arr_eq(p.welcome.token, token, sizeof token);
    struct err e = {0};
    p.twin->ops->rewind(p.twin, len, head, &e);
    peer_chain(&p, 5); /* its context is what it was */
    struct batch_stats s = rig_stats(&r);
    cr_assert_eq(s.resumed, 1);
    cr_assert_eq(s.sessions_all, 1);
    peer_close(&p);
    batch_rig_close(&r);
}
