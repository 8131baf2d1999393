/* net/cloud/serve: audits take turns, and the thread that computes for all never hashes more than one leaf at a time.
 */
#include "net/cloud/audit_store.h"
#include "net/cloud/serve.h"

#include <criterion/criterion.h>
#include <string.h>

enum { N = 3, LEAVES = 5, ROWS = 4, HIDDEN = 8 };

static int hashed(const struct cloud_session *c) {
    return c->audit ? c->audit->n_hashed : 0;
}

Test(serve, one_leaf_of_one_audit_at_a_time) {
    const struct batch_opts o = {
        .kv_bytes = 1 << 20, .max_sessions = N, .max_ctx = 10, .max_live = 10, .session_ttl_ms = 1000};
    struct server v = {.o = o, .hidden = HIDDEN, .n_leaves = LEAVES};
    struct ports ports;
    struct port *port[N];
    struct cloud_session *c[N];
    struct err e = {0};
    char text[WIRE_MAX_TEXT + 1];
    int before[N] = {0}, answers = 0;
    cr_assert_eq(ports_init(&ports, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(sessions_init(&v.sessions, &o, 100, &e), 0, "%s", e.msg);
    cr_assert_eq(submit_scratch_init(&v.scratch, ROWS, LEAVES, HIDDEN, &e), 0, "%s", e.msg);
    for (int i = 0; i < N; i++) {
        const struct pin pin = {{(uint8_t)i}};
        port[i] = ports_open(&ports, &pin, "somebody", &e);
        ports_collect(&ports);
        cr_assert_eq(sessions_admit(&v.sessions, port[i], 10, 10, &c[i], text), 0, "%s", text);
        c[i]->row_bytes = codec_row_bytes(c[i]->codec = CODEC_F32, HIDDEN);
        cr_assert_eq(audit_store_create(&c[i]->audit, 1, ROWS, LEAVES, HIDDEN, CODEC_F32, &e), 0, "%s", e.msg);
        memset(c[i]->audit->x, 0, audit_store_bytes(ROWS, LEAVES, HIDDEN));
        memset(c[i]->audit->ids, 0, ROWS * sizeof *c[i]->audit->ids);
        c[i]->audit->window = port_frame(port[i]);
        c[i]->audit->n_computed = i == 0 ? ROWS - 1 : ROWS;
    }
    for (int turn = 0; turn < (N - 1) * LEAVES; turn++) {
        int more = 0, least = LEAVES, most = 0;
        cr_assert(serve_audits(&v));
        for (int i = 0; i < N; i++) {
            more += hashed(c[i]) - before[i];
            before[i] = hashed(c[i]);
        }
        for (int i = 1; i < N; i++) {
            least = before[i] < least ? before[i] : least;
            most = before[i] > most ? before[i] : most;
        }
        cr_assert_eq(more, 1);
        cr_assert_leq(most - least, 1, "in turns");
    }
    cr_assert_not(serve_audits(&v), "the rows of the first are not all there");
    c[0]->audit->n_computed = ROWS;
    while (serve_audits(&v))
        ;
    for (int i = 0; i < N; i++) {
        struct wbuf b = {0};
        answers += port_take(port[i], &b) && b.p[4] == WIRE_RESULT;
        wbuf_free(&b);
        cr_assert_eq(hashed(c[i]), LEAVES);
        submit_forget(c[i], &v.scratch);
    }
    cr_assert_eq(answers, N);
    sessions_free(&v.sessions);
    submit_scratch_free(&v.scratch);
    ports_free(&ports);
}
