/* net/cloud/batch under pressure: admission and eviction with numbers, what is cancelled while it is computed,
 * draining, a peer that does not read, audits, a device that fails, thousands of damaged frames. */
#include "net/audit.h"
#include "net/cloud/batch.h"
#include "test/unit/batch_rig.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TINY "test/models/tiny"

#define WAIT_FOR(condition)                                                                                            \
    do {                                                                                                               \
        for (int tries = 0; !(condition); tries++) {                                                                   \
            cr_assert_lt(tries, 60000, "waits for " #condition);                                                       \
            usleep(1000);                                                                                              \
        }                                                                                                              \
    } while (0)

static void hello_refused(struct batch_rig *r, int who, uint32_t ctx, uint32_t live, int code, const char *says) {
    struct peer p;
    peer_open(r, &p, who, CODEC_F16);
    struct wire_hello h = peer_hello_of(&p, ctx, live);
    peer_say_hello(&p, &h);
    peer_expect_error(&p, code);
    cr_assert(strstr(p.text, says), "\"%s\" does not say \"%s\"", p.text, says);
    peer_close(&p);
}

static bool resumes(struct batch_rig *r, struct peer *p, int who, uint32_t ctx, uint32_t live) {
    uint8_t token[WIRE_TOKEN];
    memcpy(token, p->welcome.token, sizeof token);
    (void)r;
    peer_again(p, who);
    peer_hello(p, ctx, live, token);
    return p->welcome.resumed;
}

Test(batch_load, admission_has_the_numbers) {
    struct batch_rig r;
    struct peer p[3];
    /* 8 layers, 2 in front and behind: 6 hold K and V of 2 heads of 32 in f16, 1536 bytes a position: 1000 slots */
    batch_rig_open(&r, TINY, 1, 1,
                   &(struct batch_opts){.kv_bytes = 1000 * 1536 + 1535, .max_ctx = 950, .max_live = 50});
    cr_assert_eq(rig_stats(&r).kv_slots, 1000);
    hello_refused(&r, 1, 951, 10, WIRE_E_TOO_LARGE, "950");
    hello_refused(&r, 1, 10, 51, WIRE_E_TOO_LARGE, "50");
    for (int i = 0; i < 3; i++)
        peer_open(&r, &p[i], i + 1, CODEC_F16);
    peer_hello(&p[0], 380, 20, NULL);
    peer_hello(&p[1], 380, 20, NULL);
    hello_refused(&r, 3, 181, 20, WIRE_E_FULL, "needs 201 slots (0.3 MB) of the 1000 (1.5 MB)");
    hello_refused(&r, 3, 181, 20, WIRE_E_FULL, "2 sessions (of 64 at most) hold 800 (1.2 MB)");
    peer_hello(&p[2], 180, 20, NULL);
    peer_chain(&p[0], 20);
    cr_assert_eq(rig_stats(&r).kv_slots_reserved, 1000);
    cr_assert_eq(rig_stats(&r).refused, 4);
    for (int i = 0; i < 3; i++)
        peer_close(&p[i]);
    batch_rig_close(&r);

    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.kv_bytes = 100 * 1536});
    hello_refused(&r, 1, 100, 1, WIRE_E_TOO_LARGE, "needs 101 slots (0.2 MB) of KV cache and all there is are 100");
    batch_rig_close(&r);
}

Test(batch_load, eviction_takes_the_pin_with_most_sessions_and_its_oldest_first) {
    enum { N = 6 };
    static const int who[N] = {1, 2, 2, 2, 3, 4}; /* pin 2 holds three */
    struct batch_rig r;
    struct peer p[N], last[4];
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.kv_bytes = 600 * 1536});
    for (int i = 0; i < N; i++) {
        peer_open(&r, &p[i], who[i], CODEC_F16);
        peer_hello(&p[i], 90, 10, NULL);
        peer_chain(&p[i], 3);
    }
    /* 1 leaves first, then 2's third, 2's first, 3; the others stay */
    static const int leaves[] = {0, 3, 1, 4};
    for (unsigned i = 0; i < 4; i++) {
        peer_drop(&p[leaves[i]]);
        WAIT_FOR(rig_stats(&r).attached == N - 1 - i);
        usleep(2000);
    }
    static const int goes[] = {3, 1, 0, 4}; /* then all pins hold one each */
    for (int i = 0; i < 4; i++) {
        peer_open(&r, &last[i], 10 + i, CODEC_F16);
        peer_hello(&last[i], 90, 10, NULL);
        WAIT_FOR(rig_stats(&r).evicted == (uint64_t)i + 1);
        WAIT_FOR(rig_stats(&r).sessions == N);
        if (i == 1) { /* 1 and 3 are still there: they come back and leave again, in their order */
            cr_assert(resumes(&r, &p[0], who[0], 90, 10));
            cr_assert_eq(p[0].welcome.len, 3);
            peer_drop(&p[0]);
            WAIT_FOR(rig_stats(&r).attached == 4);
            usleep(2000);
            cr_assert(resumes(&r, &p[4], who[4], 90, 10));
            peer_drop(&p[4]);
            WAIT_FOR(rig_stats(&r).attached == 4);
        }
    }
    hello_refused(&r, 20, 90, 10, WIRE_E_FULL, "6 sessions");
    peer_drop(&last[3]);
    for (int i = 0; i < 4; i++) { /* each is gone: it gets a new session, in the place of the one that left before */
        struct peer *q = &p[goes[i]];
        cr_assert(!resumes(&r, q, who[goes[i]], 90, 10), "session %d was evicted", goes[i]);
        peer_drop(q);
        WAIT_FOR(rig_stats(&r).attached == 5);
    }
    struct node n = {p[2].next_id++, p[2].welcome.head, p[2].welcome.len}; /* who stayed is not disturbed */
    bool end;
    peer_submit(&p[2], &(struct wire_submit_parts){.nodes = &n, .n_nodes = 1});
    cr_assert_eq(peer_result(&p[2], NULL, &end), 1);
    for (int i = 0; i < N; i++)
        peer_close(&p[i]);
    for (int i = 0; i < 4; i++)
        peer_close(&last[i]);
    batch_rig_close(&r);
}

Test(batch_load, at_most_max_sessions) {
    struct batch_rig r;
    struct peer p[2];
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_sessions = 1});
    peer_open(&r, &p[0], 1, CODEC_F16);
    peer_hello(&p[0], 90, 10, NULL);
    hello_refused(&r, 2, 90, 10, WIRE_E_FULL, "1 sessions (of 1 at most)");
    peer_drop(&p[0]);
    peer_open(&r, &p[1], 2, CODEC_F16);
    WAIT_FOR(rig_stats(&r).attached == 0);
    peer_hello(&p[1], 90, 10, NULL);
    cr_assert_eq(rig_stats(&r).evicted, 1);
    peer_close(&p[0]);
    peer_close(&p[1]);
    batch_rig_close(&r);
}

Test(batch_load, at_most_so_many_sessions_of_one_pin) {
    struct batch_rig r;
    struct peer p[4];
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_per_pin = 2});
    for (int i = 0; i < 4; i++)
        peer_open(&r, &p[i], i == 2 ? 2 : 1, CODEC_F16);
    peer_hello(&p[0], 90, 10, NULL);
    peer_hello(&p[1], 90, 10, NULL);
    hello_refused(&r, 1, 90, 10, WIRE_E_FULL, "this client has 2 sessions here and may have 2");
    peer_hello(&p[2], 90, 10, NULL); /* somebody else */
    peer_drop(&p[2]);
    peer_drop(&p[0]);
    WAIT_FOR(rig_stats(&r).attached == 1);
    peer_hello(&p[3], 90, 10, NULL); /* in the place of its own, not of the other's */
    cr_assert_eq(rig_stats(&r).evicted, 1);
    peer_again(&p[2], 2);
    uint8_t token[WIRE_TOKEN];
    memcpy(token, p[2].welcome.token, sizeof token);
    peer_hello(&p[2], 90, 10, token);
    cr_assert(p[2].welcome.resumed);
    for (int i = 0; i < 4; i++)
        peer_close(&p[i]);
    batch_rig_close(&r);
}

/* ---- while a pass runs ---- */

static void chain(struct peer *p, struct node *nodes, int n) {
    for (int i = 0; i < n; i++)
        nodes[i] = (struct node){p->next_id++, i ? nodes[i - 1].id : p->welcome.head, p->welcome.len + (uint32_t)i};
}

Test(batch_load, rows_are_dropped_between_layers) {
    struct batch_rig r;
    struct peer a, b;
    struct node an[20], bn[3];
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    gate_slow(&r, 5000); /* a pass that is over in a moment is not looked into */
    peer_open(&r, &a, 1, CODEC_F32);
    peer_open(&r, &b, 2, CODEC_F16);
    peer_hello(&a, 300, 64, NULL);
    peer_hello(&b, 300, 64, NULL);
    peer_chain(&a, 5);
    peer_chain(&b, 5);
    static const struct {
        const char *how;
        bool rewind, close, bye;
        int cancel, commit; /* index of a node, -1: none */
        int left;           /* rows of a that are still computed */
    } cases[] = {
        {"cancel", .cancel = 8, .commit = -1, .left = 8},
        {"rewind", .rewind = true, .cancel = -1, .commit = -1, .left = 0},
        {"commit of another branch", .cancel = -1, .commit = 0, .left = 19},
        {"closed", .close = true, .cancel = -1, .commit = -1, .left = 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        bool last;
        if (cases[k].commit >= 0) { /* a node that is computed before, with 19 below it, and one beside it */
            chain(&a, an, 1);
            peer_submit(&a, &(struct wire_submit_parts){.nodes = an, .n_nodes = 1});
            cr_assert_eq(peer_result(&a, NULL, &last), 1);
        }
        gate_allow(&r, 0);
        int n_a = 20, from = 0;
        if (cases[k].commit >= 0) {
            for (int i = 1; i < 20; i++)
                an[i] = (struct node){a.next_id++, an[i - 1].id, an[i - 1].pos + 1};
            /* the last one stands beside the first */
            an[19].parent = a.welcome.head;
            an[19].pos = a.welcome.len;
            from = 1;
            n_a = 19;
        } else {
            chain(&a, an, 20);
        }
        /* A first pass of b's alone holds the thread until all is queued. */
        chain(&b, bn, 1);
        peer_submit(&b, &(struct wire_submit_parts){.nodes = bn, .n_nodes = 1});
        cr_assert_eq(gate_wait(&r), 1);
        peer_submit(&a, &(struct wire_submit_parts){.nodes = an + from, .n_nodes = n_a});
        bn[1] = (struct node){b.next_id++, bn[0].id, bn[0].pos + 1};
        peer_submit(&b, &(struct wire_submit_parts){.nodes = bn + 1, .n_nodes = 1});
        for (int calls = 0; gate_wait(&r) == 1; calls++)
            gate_allow(&r, 1), usleep(2000);
        int rows = gate_wait(&r);
        cr_assert_eq(rows, n_a + 1, "%s: %d rows", cases[k].how, rows);
        uint64_t before = rig_stats(&r).rows;
        uint32_t id = cases[k].cancel >= 0 ? an[cases[k].cancel].id : 0;
        if (cases[k].close)
            peer_drop(&a);
        else if (cases[k].commit >= 0)
            peer_submit(&a, &(struct wire_submit_parts){.commit = &an[0].id, .n_commit = 1});
        else
            peer_submit(&a, &(struct wire_submit_parts){.cancel = &id,
                                                        .n_cancel = cases[k].cancel >= 0,
                                                        .rewind = cases[k].rewind,
                                                        .rewind_len = cases[k].rewind ? 2 : 0,
                                                        .rewind_head = cases[k].rewind ? 2 : 0});
        gate_allow(&r, -1);
        int left = cases[k].commit >= 0 ? 18 : cases[k].left;
        cr_assert_eq(peer_result(&b, NULL, &last), 1);
        cr_assert_eq(peer_result(&b, NULL, &last), 1);
        uint64_t computed = rig_stats(&r).rows - before;
        cr_assert_eq(computed, left + 1 + 0u, "%s: %d rows", cases[k].how, (int)computed);
        int got = 0;
        for (last = cases[k].close; !last;)
            got += peer_result(&a, NULL, &last);
        if (!cases[k].close)
            cr_assert_eq(got, left, "%s: %d results", cases[k].how, got);
        /* Both go on from what is committed. */
        peer_submit(&b, &(struct wire_submit_parts){.rewind = true, .rewind_len = 5, .rewind_head = b.welcome.head});
        if (cases[k].close)
            cr_assert(resumes(&r, &a, 1, 300, 64));
        uint32_t keep = cases[k].rewind ? 2 : 5;
        peer_submit(&a, &(struct wire_submit_parts){.rewind = true, .rewind_len = keep, .rewind_head = keep});
        a.welcome.len = a.welcome.head = keep;
        if (cases[k].rewind)
            peer_chain(&a, 3);
        cr_assert_eq(a.welcome.len, 5);
        if (cases[k].rewind) {
            peer_submit(&a, &(struct wire_submit_parts){.rewind = true, .rewind_len = 5, .rewind_head = 5});
            a.welcome.head = 5;
        }
    }
    peer_close(&a);
    peer_close(&b);
    batch_rig_close(&r);
}

/* ---- large windows ---- */

/* n nodes under the head, the last of them beside the first if they are to be a tree. */
static void submit_many(struct peer *p, int n, bool tree) {
    struct node nodes[200];
    chain(p, nodes, n);
    if (tree) {
        nodes[n - 1].parent = p->welcome.head;
        nodes[n - 1].pos = p->welcome.len;
    }
    peer_submit(p, &(struct wire_submit_parts){.nodes = nodes, .n_nodes = n});
}

Test(batch_load, a_tree_is_computed_at_once_and_a_prompt_in_parts_beside_those_who_decode) {
    struct batch_rig r;
    struct peer other, p;
    bool last;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &other, 1, CODEC_F32);
    peer_open(&r, &p, 2, CODEC_F32);
    peer_hello(&other, 300, 64, NULL);
    peer_hello(&p, 300, 64, NULL);
    for (int i = 0; i < 2; i++) {
        peer_chain(&other, 1);
        gate_allow(&r, 0);
        submit_many(&p, 40, i == 0);
        int rows = gate_wait(&r);
        cr_assert(i == 0 ? rows == 40 : rows < 40, "%d rows", rows);
        gate_allow(&r, -1);
        for (last = false; !last;)
            peer_result(&p, NULL, &last);
        peer_submit(&p, &(struct wire_submit_parts){.rewind = true});
    }
    peer_close(&p);
    peer_close(&other);
    batch_rig_close(&r);
}

Test(batch_load, a_large_window_comes_back_in_pieces_and_its_time_once) {
    struct batch_rig r;
    struct peer p;
    struct wire_result v;
    struct err e = {0};
    int n, sum = 0, pieces = 0;
    bool last = false;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_rows = 256});
    gate_slow(&r, 1000);
    peer_open(&r, &p, 1, CODEC_F32);
    peer_hello(&p, 300, 256, NULL);
    submit_many(&p, 200, true);
    for (; !last; pieces++, sum += n) {
        cr_assert_eq(peer_frame(&p), WIRE_RESULT);
        cr_assert_eq(wire_get_result(p.payload.p, p.payload.n, p.row_bytes, &v, &e), 0, "%s", e.msg);
        cr_assert_eq(v.compute_us > 0, pieces == 0, "piece %d of a pass says %u us", pieces, v.compute_us);
        cr_assert(pieces > 0 || (size_t)v.n * p.row_bytes <= 32 << 10, "the first has %d rows", v.n);
        peer_check_result(&p, NULL, &n, &last);
    }
    cr_assert_eq(sum, 200);
    cr_assert_eq(pieces, 3, "%d pieces", pieces); /* of 42, 84 and 74 rows */
    cr_assert_eq(rig_stats(&r).windows, 1);
    peer_close(&p);
    batch_rig_close(&r);
}

/* Of want of memory; a device that fails is test_gpu_batch's. */
Test(batch_load, a_pass_that_fails_costs_the_sessions_in_it) {
    struct batch_rig r;
    struct peer a, b;
    struct node n;
    bool last;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &a, 1, CODEC_F32);
    peer_open(&r, &b, 2, CODEC_F16);
    peer_hello(&a, 300, 64, NULL);
    peer_hello(&b, 300, 64, NULL);
    chain(&a, &n, 1);
    r.gate.fail = true;
    peer_submit(&a, &(struct wire_submit_parts){.nodes = &n, .n_nodes = 1});
    peer_expect_error(&a, WIRE_E_FAILED);
    chain(&b, &n, 1);
    peer_submit(&b, &(struct wire_submit_parts){.nodes = &n, .n_nodes = 1});
    cr_assert_eq(peer_result(&b, NULL, &last), 1);
    peer_close(&a);
    peer_close(&b);
    batch_rig_close(&r);
}

Test(batch_load, draining_finishes_what_is_in_flight) {
    struct batch_rig r;
    struct peer busy, idle, fresh;
    struct node n[2];
    bool last;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){0});
    peer_open(&r, &busy, 1, CODEC_F32);
    peer_open(&r, &idle, 2, CODEC_F16);
    peer_hello(&busy, 300, 64, NULL);
    peer_hello(&idle, 300, 64, NULL);
    gate_allow(&r, 0);
    chain(&busy, n, 2);
    peer_submit(&busy, &(struct wire_submit_parts){.nodes = n, .n_nodes = 2});
    gate_wait(&r);
    batch_drain(r.batch, 600000);
    cr_assert(!batch_drained(r.batch));
    gate_allow(&r, -1);
    cr_assert_eq(peer_result(&busy, NULL, &last), 2);
    peer_expect_error(&busy, WIRE_E_DRAINING);
    peer_expect_error(&idle, WIRE_E_DRAINING);
    WAIT_FOR(batch_drained(r.batch));
    peer_open(&r, &fresh, 3, CODEC_F16);
    peer_expect_error(&fresh, WIRE_E_DRAINING);
    peer_close(&fresh);
    peer_close(&busy);
    peer_close(&idle);
    WAIT_FOR(rig_stats(&r).sessions == 0);
    batch_rig_close(&r);
}

/* ---- a peer that does not read ---- */

Test(batch_load, who_does_not_read_gets_no_pass) {
    struct batch_rig r;
    struct peer slow, quick;
    bool last;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_rows = 32});
    peer_open(&r, &slow, 1, CODEC_F32);
    peer_open(&r, &quick, 2, CODEC_F16);
    peer_hello(&slow, 900, 64, NULL);
    peer_hello(&quick, 900, 64, NULL);
    struct node n[32];
    int windows = 0;
    while (!port_full(slow.port)) { /* each from an empty context; nothing is taken */
        cr_assert_lt(windows, 400, "never full");
        slow.welcome.len = slow.welcome.head = 0;
        chain(&slow, n, 32);
        peer_submit(&slow, &(struct wire_submit_parts){.rewind = true, .nodes = n, .n_nodes = 32});
        windows++;
    }
    uint64_t rows = rig_stats(&r).rows;
    cr_assert_lt(rows, (uint64_t)windows * 32, "some were not computed");
    peer_chain(&quick, 3); /* nobody else waits for it */
    peer_chain(&quick, 1);
    for (int due = windows; due > 0; due -= last)
        peer_result(&slow, NULL, &last);
    WAIT_FOR(!port_full(slow.port));
    peer_close(&slow);
    peer_close(&quick);
    batch_rig_close(&r);
}

/* ---- audits ---- */

static void challenge(struct peer *p, uint16_t layer) {
    struct wbuf w = {0};
    wire_put_challenge(&w, p->seq, layer);
    peer_post(p, &w);
    wbuf_free(&w);
}

Test(batch_load, audits_open_what_they_committed_to) {
    struct batch_rig r;
    struct peer p, other;
    struct node n[40], m;
    struct err e = {0};
    bool last;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_rows = 48, .mine = {.kv = 1}});
    peer_open(&r, &p, 1, CODEC_Q8);
    peer_open(&r, &other, 2, CODEC_F16);
    peer_hello(&p, 300, 64, NULL);
    peer_hello(&other, 300, 64, NULL);
    for (int round = 0; round < 3; round++) {
        p.welcome.len = p.welcome.head = 0;
        chain(&p, n, 40);
        gate_allow(&r, 0);
        peer_submit(&p, &(struct wire_submit_parts){.rewind = true, .audit = true, .nodes = n, .n_nodes = 40});
        chain(&other, &m, 1);
        peer_submit(&other, &(struct wire_submit_parts){.nodes = &m, .n_nodes = 1});
        gate_allow(&r, -1);
        float *want = malloc(40 * 192 * sizeof *want);
        for (int i = 0; i < 40; i++)
            memcpy(want + i * 192, p.want[n[i].id], 192 * sizeof *want);
        cr_assert_eq(peer_result(&p, NULL, &last), 40);
        cr_assert(last);
        struct wire_result res;
        cr_assert_eq(wire_get_result(p.payload.p, p.payload.n, p.row_bytes, &res, &e), 0, "%s", e.msg);
        cr_assert(res.has_root);
        uint8_t root[WIRE_DIGEST];
        memcpy(root, res.root, sizeof root);
        cr_assert_eq(peer_result(&other, NULL, &last), 1);
        peer_submit(&other, &(struct wire_submit_parts){.rewind = true});
        other.welcome.len = other.welcome.head = 0;
        float *before = NULL;
        for (uint16_t layer = 1; layer < 7; layer++) { /* each output is the next one's input */
            challenge(&p, layer);
            cr_assert_eq(peer_frame(&p), WIRE_OPENING);
            struct wire_opening o;
            cr_assert_eq(wire_get_opening(p.payload.p, p.payload.n, 192, &o, &e), 0, "%s", e.msg);
            cr_assert(o.layer == layer && o.seq == p.seq && o.n_leaves == 7 && o.n_rows == 40);
            uint8_t leaves[7][WIRE_DIGEST], leaf[WIRE_DIGEST], again[WIRE_DIGEST];
            memcpy(leaves, o.leaves, sizeof leaves);
            float *in = malloc(40 * 192 * sizeof *in), *out = malloc(40 * 192 * sizeof *out);
            memcpy(in, o.in, 40 * 192 * sizeof *in);
            memcpy(out, o.out, 40 * 192 * sizeof *out);
            audit_leaf(layer - 1u, in, 40 * 192, leaf, &e);
            cr_assert_arr_eq(leaf, leaves[layer - 1], WIRE_DIGEST);
            audit_leaf(layer, out, 40 * 192, leaf, &e);
            cr_assert_arr_eq(leaf, leaves[layer], WIRE_DIGEST);
            audit_root(leaves, 7, again, &e);
            cr_assert_arr_eq(again, root, WIRE_DIGEST);
            if (before)
                cr_assert_arr_eq(in, before, 40 * 192 * sizeof *in);
            if (layer == 6)
                cr_assert_arr_eq(out, want, 40 * 192 * sizeof *out, "the last one is what came in the RESULT");
            free(before);
            before = out;
            free(in);
        }
        free(before);
        free(want);
    }
    /* The next SUBMIT ends it. */
    uint32_t seq = p.seq;
    peer_submit(&p, &(struct wire_submit_parts){.rewind = true});
    struct wbuf w = {0};
    wire_put_challenge(&w, seq, 2);
    peer_post(&p, &w);
    wbuf_free(&w);
    peer_expect_error(&p, WIRE_E_PROTOCOL);
    peer_close(&p);
    peer_close(&other);
    batch_rig_close(&r);
}

Test(batch_load, audits_share_what_memory_they_have) {
    enum { ROWS = 8000, N = 13 }; /* 43 MB each, of 512 */
    struct batch_rig r;
    struct peer first, p[N];
    struct node one = {1, NODE_NONE, 0}, *n = calloc(ROWS, sizeof *n);
    batch_rig_open(&r, TINY, 1, 1,
                   &(struct batch_opts){.kv_bytes = 400u << 20, .max_rows = ROWS, .max_ctx = ROWS, .max_live = ROWS});
    float *x = calloc((size_t)ROWS * (size_t)r.config->hidden, sizeof *x);
    for (uint32_t i = 0; i < ROWS; i++)
        n[i] = (struct node){i + 1, i, i};
    peer_open(&r, &first, 1, CODEC_F32);
    peer_hello(&first, 10, 10, NULL);
    for (int i = 0; i < N; i++) {
        peer_open(&r, &p[i], 2, CODEC_Q8);
        peer_hello(&p[i], ROWS, ROWS, NULL);
    }
    gate_allow(&r, 0); /* so that all are there before the first of them is computed */
    peer_submit_raw(&first, &(struct wire_submit_parts){.seq = 1, .nodes = &one, .n_nodes = 1}, x);
    gate_wait(&r);
    for (int i = 0; i < N; i++)
        peer_submit_raw(&p[i], &(struct wire_submit_parts){.seq = 1, .audit = true, .nodes = n, .n_nodes = ROWS}, x);
    gate_allow(&r, 6); /* the layers of that one */
    gate_wait(&r);
    int refused = 0, type;
    for (int i = 0; i < N; i++) {
        if (peer_frame_now(&p[i], &type)) {
            struct err e = {0};
            cr_assert_eq(type, WIRE_ERROR);
            cr_assert_eq(wire_get_error(p[i].payload.p, p[i].payload.n, &p[i].code, p[i].text, &e), 0);
            cr_assert_eq(p[i].code, WIRE_E_FULL, "%d %s", p[i].code, p[i].text);
            refused++;
        }
        peer_drop(&p[i]);
    }
    cr_assert_eq(refused, 1);
    gate_allow(&r, -1);
    for (int i = 0; i < N; i++)
        peer_close(&p[i]);
    peer_close(&first);
    batch_rig_close(&r);
    free(n);
    free(x);
}

/* ---- damage ---- */

static uint32_t draw(uint32_t *seed, uint32_t n) {
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static size_t heap_bytes(void) {
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

Test(batch_load, ten_thousand_damaged_frames) {
    enum { FRAMES = 10000 };
    struct batch_rig r;
    struct peer good, bad;
    uint32_t seed = 12345;
    batch_rig_open(&r, TINY, 1, 1, &(struct batch_opts){.max_rows = 16});
    peer_open(&r, &good, 1, CODEC_F16);
    peer_hello(&good, 1000, 64, NULL);
    peer_open(&r, &bad, 2, CODEC_Q8);
    peer_hello(&bad, 100, 32, NULL);
    size_t hidden = 192, heap = 0;
    float *x = calloc(16 * hidden, sizeof *x);
    int sessions = 1, refused = 0;
    uint32_t seq = 1, id = 1, head = 0, len = 0;
    for (int i = 0; i < FRAMES; i++) {
        struct wbuf w = {0};
        struct node n[16];
        int rows = 1 + (int)(draw(&seed, 6)), type = WIRE_SUBMIT;
        for (int k = 0; k < rows; k++)
            n[k] = (struct node){id + (uint32_t)k, k ? id + (uint32_t)k - 1 : head, len + (uint32_t)k};
        uint32_t none = draw(&seed, 100);
        struct wire_submit_parts s = {
            .seq = seq++, .nodes = n, .n_nodes = rows, .cancel = &none, .n_cancel = (int)(draw(&seed, 2))};
        wire_put_submit(&w, &s, bad.codec, (int)hidden, x);
        id += (uint32_t)rows;
        switch (draw(&seed, 4)) {
        case 0: /* random bytes of a random type */
            w.n = WIRE_HEAD + draw(&seed, 200);
            for (size_t k = WIRE_HEAD; k < w.n; k++)
                w.p[k] = (uint8_t)(draw(&seed, 256));
            type = (int)(draw(&seed, 12));
            break;
        case 1: /* some bits flipped, mostly in what is no activation */
            for (uint32_t k = 0; k <= draw(&seed, 3); k++) {
                size_t at = WIRE_HEAD + draw(&seed, draw(&seed, 4) ? 40 : (uint32_t)w.n - WIRE_HEAD);
                if (at < w.n)
                    w.p[at] ^= (uint8_t)(1 << draw(&seed, 8));
            }
            break;
        case 2: /* cut */
            w.n = WIRE_HEAD + draw(&seed, (uint32_t)w.n - WIRE_HEAD);
            break;
        default: /* good */
            break;
        }
        memmove(w.p, w.p + WIRE_HEAD, w.n - WIRE_HEAD);
        w.n -= WIRE_HEAD;
        port_post(bad.port, type, &w);
        wbuf_free(&w);
        for (int t; peer_frame_now(&bad, &t);) /* whatever it says */
            ;
        if (i % 50 == 0)
            peer_chain(&good, 1); /* with the twin's bits; and when it is back, the others' frames were looked at */
        if (i == FRAMES / 2)      /* by now the twin has used, and keeps, all the places of its queue */
            heap = heap_bytes();
        if (port_finished(bad.port)) {
            refused++;
            peer_drop(&bad);
            peer_again(&bad, 2);
            peer_hello(&bad, 100, 32, NULL);
            sessions++;
            seq = id = 1;
            head = len = 0;
        }
    }
    cr_assert_gt(refused, 100);
    peer_drop(&bad);
    peer_chain(&good, 3);
    WAIT_FOR(rig_stats(&r).attached == 1);
    WAIT_FOR(rig_stats(&r).kv_slots_reserved <= 1064 + 132);
    size_t grown = heap_bytes() - heap;
    cr_assert(heap_bytes() < heap || grown < (2 << 20), "the heap grew by %zu bytes", grown);
    cr_assert_eq(rig_stats(&r).sessions_all, (uint64_t)sessions + 1);
    free(x);
    peer_close(&good);
    peer_close(&bad);
    batch_rig_close(&r);
}
