/* The cloud's batch thread over a card: sessions that share passes get the bits of their twins, which compute alone;
 * and a card that fails ends the session whose pass it was, sends the others away, and holds up nobody. (All tests of
 * batch, batch_load and split run over a card with TEST_BACKEND=cuda; they take minutes on an emulated one.) */
#include "test/unit/batch_rig.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { PEERS = 3 };

static void on_a_card(void) {
    setenv("TEST_BACKEND", "cuda", 1);
}
TestSuite(gpu_batch, .init = on_a_card, .timeout = 120);

/* A chain of n nodes and a sibling of the last, under the head. */
static void submit(struct peer *p, int n) {
    struct node nodes[16];
    for (int i = 0; i <= n; i++) {
        uint32_t parent = i == 0 ? p->welcome.head : nodes[i < n ? i - 1 : n - 2].id;
        uint32_t depth = (uint32_t)(i < n ? i : n - 1);
        nodes[i] = (struct node){p->next_id++, parent, p->welcome.len + depth};
    }
    peer_submit(p, &(struct wire_submit_parts){.nodes = nodes, .n_nodes = (uint32_t)n + 1});
}

Test(gpu_batch, sessions_share_passes_and_get_the_bits_of_their_twins) {
    struct batch_rig r;
    struct peer p[PEERS];
    batch_rig_open(&r, "test/models/families/qwen2-swa", 1, 1, &(struct batch_opts){.max_rows = 24});
    for (int i = 0; i < PEERS; i++) {
        peer_open(&r, &p[i], i + 1, (enum codec)i);
        peer_hello(&p[i], 120, 40, NULL);
        peer_chain(&p[i], 4 + 9 * i);
    }
    for (int round = 0; round < 3; round++) {
        gate_allow(&r, 0);
        for (int i = 0; i < PEERS; i++)
            submit(&p[i], 2 + i + round);
        gate_wait(&r);
        gate_allow(&r, -1);
        for (int i = 0; i < PEERS; i++)
            for (bool last = false; !last;)
                peer_result(&p[i], NULL, &last);
    }
    struct batch_stats s = rig_stats(&r);
    cr_assert_gt(s.pass_rows_le[4], 0, "no pass had 9 to 16 rows");
    for (int i = 0; i < PEERS; i++)
        peer_close(&p[i]);
    batch_rig_close(&r);
}

Test(gpu_batch, a_card_that_fails_ends_the_session_that_needs_it_and_sends_the_others_away) {
    gpu_rig_needs_emulated_card();
    struct batch_rig r;
    struct peer p[PEERS];
    batch_rig_open(&r, "test/models/families/qwen2-swa", 1, 1, &(struct batch_opts){.max_rows = 24});
    for (int i = 0; i < PEERS; i++) {
        peer_open(&r, &p[i], i + 1, CODEC_F32);
        peer_hello(&p[i], 120, 40, NULL);
        peer_chain(&p[i], 4);
    }
    for (int i = 0; i < PEERS; i++) { /* the first one's pass fails, and the others need not try */
        struct node n = {p[i].next_id++, p[i].welcome.head, p[i].welcome.len};
        struct wire_submit_parts s = {.nodes = &n, .n_nodes = 1, .seq = ++p[i].seq};
        float *x = calloc((size_t)r.config->hidden, sizeof *x);
        cr_assert_not_null(x);
        if (i == 0)
            gpu_rig_fail_in(1);
        peer_submit_raw(&p[i], &s, x);
        peer_expect_error(&p[i], i == 0 ? WIRE_E_FAILED : WIRE_E_DRAINING);
        free(x);
    }
    struct err why = {0};
    cr_assert(batch_broken(r.batch, &why) && why.kind == ERR_DEVICE && strstr(why.msg, "CUDA_ERROR_LAUNCH_FAILED"),
              "%s", why.msg);
    for (int i = 0; i < PEERS; i++)
        peer_close(&p[i]);
    batch_rig_close(&r);
}
