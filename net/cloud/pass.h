/* net/cloud/pass.h - one forward pass over what waits in all sessions: which rows, the layers, and what is dropped
 * between them. It owns the rows and their activations. Activations come from peers.
 *
 * First the small windows of all sessions (decoding), then rows of long ones (prefill), as many as let the others go on
 * (net/cloud/pace.h). A window may be spread over passes; a node is never computed before its parent. */
#ifndef NET_CLOUD_PASS_H
#define NET_CLOUD_PASS_H

#include "net/cloud/pace.h"
#include "net/cloud/sessions.h"

struct pass_row {
    struct cloud_session *session;
    struct pending node;
    bool dropped;
};

struct pass {
    struct stage *stage;
    struct kv *kv;
    int max_rows, hidden;
    struct pace pace;
    uint64_t number; /* of the last one chosen */
    /* The rows that were chosen, those of a session together, in the order in which they came. */
    struct pass_row *rows; /* [max_rows] */
    int n, n_decode;
    /* Those that are still computed: at[i] is the index in rows of activation i. */
    int n_left;
    int *at;          /* [max_rows] */
    struct row *keys; /* [max_rows] */
    float *x;         /* [max_rows][hidden] */
    uint32_t *ids;    /* [max_rows], scratch */
    double started_ms, ms;
};

/* stage and kv are borrowed. */
int pass_init(struct pass *p, struct stage *stage, struct kv *kv, int max_rows, struct err *e);
void pass_free(struct pass *p); /* wipes */

/* Chooses and decodes the next rows; 0: there are none. A session whose activations are not finite gets broken set and
 * no rows. Sessions that get rows move behind the others in s. */
int pass_choose(struct pass *p, struct sessions *s, double now_ms);

/* Computes the rows. Between groups of layers, look (may be NULL) may mark rows as dropped; true: it did. -1: the
 * device failed; no row has a result. */
int pass_run(struct pass *p, bool (*look)(void *ctx), void *ctx, struct err *e);

#endif
