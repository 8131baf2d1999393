/* net/cloud/batch: what peers get equals, bit for bit, what each would compute alone; sessions that are resumed, taken
 * over, refused, evicted; peers that break the rules disturb nobody else. */
#include "net/cloud/batch.h"
#include "test/unit/batch_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
        gate_allow(&r, round % 2 ? 0 : -1); /* every other time they all have something to compute at once */
        for (int i = 0; i < n; i++)
            if (g[i].len < 700)
                gamble(&g[i], max_window);
        gate_allow(&r, -1);
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
    cr_assert_eq(s.attached, (uint32_t)n);
    cr_assert_gt(s.passes, 0);
    if (n > 3)
        cr_assert_gt(s.pass_rows_le[4] + s.pass_rows_le[5] + s.pass_rows_le[6], 0, "windows shared passes");
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
    gamblers(16, 14, 12, &(struct batch_opts){.max_rows = 24, .mine = {.kv = 1}}, N_CODECS);
}

Test(batch, equal_bits_while_others_prefill) {
    gamblers(4, 12, 60, &(struct batch_opts){.max_rows = 64}, 2);
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

Test(batch, tokens_belong_to_their_pin_and_go_to_the_newest_connection) {
    struct batch_rig r;
    struct peer a, thief, later;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &a, 1, CODEC_Q8);
    peer_hello(&a, 200, 64, NULL);
    peer_chain(&a, 10);
    peer_open(&r, &thief, 2,
              CODEC_Q8); /* the right token, another pin: a session of its own, and nobody is disturbed */
    peer_hello(&thief, 200, 64, a.welcome.token);
    cr_assert(!thief.welcome.resumed && thief.welcome.len == 0);
    cr_assert(memcmp(thief.welcome.token, a.welcome.token, WIRE_TOKEN) != 0);
    peer_chain(&a, 1);
    uint8_t zeros[WIRE_TOKEN] = {0};
    peer_open(&r, &later, 1, CODEC_Q8); /* the same pin with other sizes */
    struct wire_hello h = peer_hello_of(&later, 201, 64);
    memcpy(h.token, a.welcome.token, WIRE_TOKEN);
    peer_say_hello(&later, &h);
    peer_expect_error(&later, WIRE_E_PROTOCOL);
    peer_drop(&later);
    peer_chain(&a, 1);
    peer_again(&later, 1);
    struct middle *twin = a.twin;
    peer_hello(&later, 200, 64, zeros); /* no token: a new one */
    cr_assert(!later.welcome.resumed);
    peer_drop(&later);
    peer_again(&later, 1);
    peer_hello(&later, 200, 64, a.welcome.token);
    cr_assert(later.welcome.resumed);
    cr_assert_eq(later.welcome.len, 12);
    cr_assert_eq(later.welcome.head, a.welcome.head);
    peer_expect_error(&a, WIRE_E_TAKEN_OVER);
    later.twin->ops->free(later.twin); /* it goes on where a was */
    later.twin = twin;
    a.twin = NULL;
    later.next_id = a.next_id;
    peer_chain(&later, 3);
    peer_close(&a);
    peer_close(&thief);
    peer_close(&later);
    batch_rig_close(&r);
}

static void bye(struct peer *p) {
    struct wbuf w = {0};
    wire_put_bye(&w);
    peer_post(p, &w);
    wbuf_free(&w);
    cr_assert_eq(peer_frame(p), 0, "a BYE has no answer");
}

/* Waits until a number in the statistics has its value. */
#define WAIT_STAT(rig, field, value)                                                                                   \
    do {                                                                                                               \
        int tries = 0;                                                                                                 \
        while (rig_stats(rig).field != (value)) {                                                                      \
            cr_assert_lt(++tries, 60000, #field " is %g", (double)rig_stats(rig).field);                               \
            usleep(1000);                                                                                              \
        }                                                                                                              \
    } while (0)

Test(batch, bye_ends_a_session_and_the_last_one_takes_the_kv_with_it) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &p, 1, CODEC_F32);
    peer_hello(&p, 100, 10, NULL);
    peer_chain(&p, 9);
    cr_assert_eq(rig_stats(&r).kv_slots_reserved, 110);
    WAIT_STAT(&r, kv_slots_used, 9);
    uint8_t token[WIRE_TOKEN];
    memcpy(token, p.welcome.token, sizeof token);
    bye(&p);
    WAIT_STAT(&r, kv_slots_used, 0);
    WAIT_STAT(&r, sessions, 0);
    peer_drop(&p);
    peer_again(&p, 1);
    peer_hello(&p, 100, 10, token);
    cr_assert(!p.welcome.resumed, "its memory is gone");
    cr_assert_eq(r.gate.kv_clears, 1, "%d", r.gate.kv_clears);
    peer_close(&p);
    batch_rig_close(&r);
}

Test(batch, an_error_of_the_client_ends_the_connection_and_not_the_session) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &p, 1, CODEC_F16);
    peer_hello(&p, 100, 10, NULL);
    peer_chain(&p, 3);
    peer_chain(&p, 1);
    uint32_t len = p.welcome.len;
    uint8_t token[WIRE_TOKEN];
    memcpy(token, p.welcome.token, sizeof token);
    struct wbuf w = {0};
    wire_put_error(&w, WIRE_E_PROTOCOL, "a RESULT for nothing");
    peer_post(&p, &w);
    wbuf_free(&w);
    cr_assert_eq(peer_frame(&p), 0, "the last message has no answer");
    peer_drop(&p);
    peer_again(&p, 1);
    peer_hello(&p, 100, 10, token);
    cr_assert(p.welcome.resumed);
    cr_assert_eq(p.welcome.len, len);
    peer_close(&p);
    batch_rig_close(&r);
}

Test(batch, bye_counts_although_what_came_before_it_waits) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &p, 1, CODEC_F16);
    peer_hello(&p, 100, 10, NULL);
    gate_allow(&r, 0);
    struct node n = {p.next_id++, NODE_NONE, 0};
    peer_submit(&p, &(struct wire_submit_parts){.nodes = &n, .n_nodes = 1});
    gate_wait(&r);
    peer_submit(&p, &(struct wire_submit_parts){.commit = &n.id, .n_commit = 1}); /* waits for that very node */
    struct wbuf w = {0};
    wire_put_bye(&w);
    peer_post(&p, &w);
    wbuf_free(&w);
    peer_drop(&p);
    gate_allow(&r, -1);
    WAIT_STAT(&r, attached, 0);
    cr_assert_eq(rig_stats(&r).sessions, 0, "it waits for a client that said it does not come again");
    peer_close(&p);
    batch_rig_close(&r);
}

Test(batch, a_detached_session_lives_for_its_ttl) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.session_ttl_ms = 50});
    peer_open(&r, &p, 1, CODEC_F16);
    peer_hello(&p, 100, 10, NULL);
    peer_chain(&p, 3);
    usleep(120000); /* attached: the ttl does not count */
    cr_assert_eq(rig_stats(&r).sessions, 1);
    peer_chain(&p, 3);
    peer_drop(&p);
    WAIT_STAT(&r, expired, 1);
    WAIT_STAT(&r, sessions, 0);
    WAIT_STAT(&r, kv_slots_reserved, 0);
    peer_close(&p);
    batch_rig_close(&r);
}

/* ---- what breaks the rules ---- */

enum { MAX_X = 32 };

/* One deed of a peer that has 8 committed positions (ids 1 to 8) and two nodes in flight (9 below 8, 10 below 9). */
struct deed {
    const char *name;
    struct wire_submit_parts s;
    int nan;  /* the activation of node nan - 1 holds a NaN */
    int cut;  /* bytes missing at the end of the frame */
    int type; /* another type of frame, empty */
};

static void misbehave(struct peer *p, const struct deed *d) {
    size_t hidden = (size_t)p->r->config->hidden;
    float *x = calloc(MAX_X * hidden, sizeof *x);
    struct wbuf w = {0};
    struct wire_submit_parts s = d->s;
    s.seq = s.seq ? s.seq : p->seq + 1;
    wire_put_submit(&w, &s, p->codec, (int)hidden, x);
    if (d->nan) /* the writer would not let it through */
        memset(w.p + w.n - (size_t)(s.n_nodes - d->nan + 1) * p->row_bytes, 0xff, 4);
    memmove(w.p, w.p + WIRE_HEAD, w.n - WIRE_HEAD);
    w.n -= WIRE_HEAD + (size_t)d->cut;
    if (d->type)
        w.n = 0;
    port_post(p->port, d->type ? d->type : WIRE_SUBMIT, &w);
    wbuf_free(&w);
    free(x);
}

Test(batch, who_breaks_the_protocol_loses_its_session_and_nobody_else) {
    static const struct node ok[2] = {{11, 10, 10}, {12, 11, 11}}, old_id = {10, 8, 8}, pos = {11, 10, 11},
                             beyond[3] = {{11, 10, 10}, {12, 11, 11}, {13, 12, 12}};
    static const uint32_t skip = 10, unknown = 77, twice[2] = {9, 9}, five[5] = {9, 10, 11, 12, 13};
    const struct deed deeds[] = {
        {.name = "seq again", .s = {.seq = 1}},
        {.name = "seq ahead", .s = {.seq = 9}},
        {.name = "rewind beyond", .s = {.rewind = true, .rewind_len = 9, .rewind_head = 9}},
        {.name = "commit of no child", .s = {.commit = &skip, .n_commit = 1}},
        {.name = "commit of nobody", .s = {.commit = &unknown, .n_commit = 1}},
        {.name = "commit twice", .s = {.commit = twice, .n_commit = 2}},
        {.name = "more commits than live", .s = {.commit = five, .n_commit = 5}},
        {.name = "more cancels than live", .s = {.cancel = five, .n_cancel = 5}},
        {.name = "an id again", .s = {.nodes = &old_id, .n_nodes = 1}},
        {.name = "a wrong position", .s = {.nodes = &pos, .n_nodes = 1}},
        {.name = "more than live", .s = {.nodes = beyond, .n_nodes = 3}},
        {.name = "not finite", .s = {.nodes = ok, .n_nodes = 2}, .nan = 2},
        {.name = "audit on a context", .s = {.audit = true, .nodes = ok, .n_nodes = 1}},
        {.name = "audit of nothing", .s = {.audit = true, .rewind = true}},
        {.name = "audit of no chain", .s = {.audit = true, .rewind = true, .nodes = beyond, .n_nodes = 2}},
        {.name = "cut short", .s = {.nodes = ok, .n_nodes = 1}, .cut = 1},
        {.name = "empty", .type = WIRE_SUBMIT},
        {.name = "HELLO again", .type = WIRE_HELLO},
        {.name = "CHALLENGE for nothing", .type = WIRE_CHALLENGE},
        {.name = "a RESULT", .type = WIRE_RESULT},
        {.name = "a WELCOME", .type = WIRE_WELCOME},
        {.name = "an unknown type", .type = 200},
    };
    enum { N = sizeof deeds / sizeof deeds[0] };
    struct batch_rig r;
    struct peer good, bad;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &good, 1, CODEC_F32);
    peer_hello(&good, 800, 64, NULL);
    for (int i = 0; i < N; i++) {
        peer_open(&r, &bad, 2, CODEC_F32);
        peer_hello(&bad, 12, 4, NULL);
        peer_chain(&bad, 4);
        peer_chain(&bad, 4);
        struct node two[2] = {{9, 8, 8}, {10, 9, 9}};
        peer_submit(&bad, &(struct wire_submit_parts){.nodes = two, .n_nodes = 2});
        bool last;
        cr_assert_eq(peer_result(&bad, NULL, &last), 2);
        struct node mine = {good.next_id++, good.welcome.head, good.welcome.len};
        uint32_t id = mine.id;
        peer_submit(&good, &(struct wire_submit_parts){.nodes = &mine, .n_nodes = 1});
        misbehave(&bad, &deeds[i]);
        struct err e = {0};
        int type = peer_frame(&bad);
        cr_assert_eq(type, WIRE_ERROR, "%s: %s", deeds[i].name, wire_type_name(type));
        wire_get_error(bad.payload.p, bad.payload.n, &bad.code, bad.text, &e);
        cr_assert_eq(bad.code, WIRE_E_PROTOCOL, "%s: %d %s", deeds[i].name, bad.code, bad.text);
        cr_assert_gt(strlen(bad.text), 5);
        cr_assert_eq(peer_frame(&bad), 0);
        cr_assert_eq(peer_result(&good, NULL, &last), 1);
        peer_submit(&good, &(struct wire_submit_parts){.commit = &id, .n_commit = 1});
        good.welcome.head = id;
        good.welcome.len++;
        WAIT_STAT(&r, sessions, 1);
        misbehave(&bad, &deeds[i]); /* whatever it says now is not heard */
        peer_close(&bad);
    }
    peer_close(&good);
    batch_rig_close(&r);
}

Test(batch, what_comes_before_hello) {
    struct batch_rig r;
    struct peer p;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    static const int types[] = {WIRE_SUBMIT, WIRE_BYE, WIRE_CHALLENGE, WIRE_HELLO, WIRE_ERROR, 99};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        peer_open(&r, &p, 1, CODEC_F16);
        cr_assert_eq(port_max_frame(p.port), WIRE_FIRST_MAX);
        struct wbuf w = {0};
        port_post(p.port, types[i], &w);
        peer_expect_error(&p, WIRE_E_PROTOCOL);
        peer_close(&p);
    }
    peer_open(&r, &p, 1, CODEC_F16);
    struct wire_hello h = peer_hello_of(&p, 10, 10);
    h.hi--;
    peer_say_hello(&p, &h);
    peer_expect_error(&p, WIRE_E_SPLIT);
    cr_assert_eq(rig_stats(&r).sessions, 0);
    peer_close(&p);
    batch_rig_close(&r);
}

/* An order that comes while the thread looks for work is not lost: it would wait for ever. */
Test(batch, stops_whenever_it_is_told, .timeout = 120) {
    struct batch_rig r;
    const struct batch_opts o = {0};
    batch_rig_open(&r, TINY, 2, 2, &o);
    for (int i = 0; i < 8000; i++) {
        struct batch_thread *b;
        struct err e = {0};
        cr_assert_eq(batch_start(&b, &r.opts, &e), 0, "%s", e.msg);
        for (volatile int spin = 0; spin < i % 256 * 400;)
            spin = spin + 1;
        batch_stop(b);
    }
    batch_rig_close(&r);
}
