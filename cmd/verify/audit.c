/* The client's side of an audit (docs/protocol.md, Commitments). */
#include "net/audit.h"
#include "cmd/engine/device.h"
#include "cmd/verify/verify.h"
#include "core/base/wipe.h"
#include "core/model/kv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { OPEN_MS = 60000, COLLECT_MS = 600000, LEAST_ROWS = 4 };

struct auditor {
    struct engine *en;
    struct middle *m;
    const struct part *middle;
    int n;
    size_t hidden;
    struct node *nodes;
    struct row *rows;
    uint32_t *ids;
    float *sent, *got;
    struct slot_pool *pool;
    struct kv_table *table;
    struct kv *kv;
    struct backend *backend; /* of opened layers */
    struct backend *beside;  /* the same, where it is not the engine's */
    char ours[WIRE_MAX_BACKEND + 1];
    double tolerance;
};

/* What opened layers are computed with: what this machine computes with, or where the cloud rounds activations and this
 * machine does not, or the other way around, a CPU backend that does as the cloud. */
static int choose_backend(struct auditor *a, const char *theirs, struct err *e) {
    struct engine_opts o = a->en->o;
    bool fast = audit_math_fast(theirs);
    a->backend = a->en->backend;
    snprintf(a->ours, sizeof a->ours, "%s", engine_backend_name(a->en));
    if (fast != audit_math_fast(a->ours)) {
        o.backend = DEVICE_CPU;
        o.math = fast ? MATH_FAST : MATH_FULL;
        if (device_open(&a->beside, &o, e) != 0)
            return -1;
        a->backend = a->beside;
        snprintf(a->ours, sizeof a->ours, "%s", device_name(a->beside, &o));
    }
    a->tolerance = audit_tolerance(theirs, a->ours);
    return 0;
}

/* The front layers over a chain of tokens from position 0, in a KV of their own: sent is what goes up. */
static int run_front(struct auditor *a, const uint32_t *tokens, struct err *e) {
    struct stage *front = a->en->stages[0];
    uint32_t n = (uint32_t)a->n;
    if (slot_pool_create(&a->pool, n, e) != 0 || kv_table_create(&a->table, a->pool, n, n, e) != 0 ||
        front->ops->kv_create(front, n, engine_kv_type(a->en), &a->kv, e) != 0)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        a->nodes[i] = (struct node){.id = i + 1, .parent = i ? i : NODE_NONE, .pos = i};
        a->ids[i] = i + 1;
    }
    if (kv_table_add(a->table, a->nodes, a->n, NULL, e) < 0 || kv_table_rows(a->table, a->ids, a->n, a->rows, e) != 0)
        return -1;
    const struct batch b = {.rows = a->rows, .n = a->n};
    return front->ops->embed(front, tokens, a->n, a->sent, e) != 0 ||
                   front->ops->layers(front, a->kv, &b, front->part.lo, front->part.hi, a->sent, e) != 0
               ? -1
               : 0;
}

/* The window through the cloud, as a commitment. On return sent went through the codec and got is what came back. */
static int commit(struct auditor *a, uint8_t root[WIRE_DIGEST], struct err *e) {
    const struct window w = {.nodes = a->nodes, .n = a->n};
    struct middle_result r = {.cap = a->n};
    int missing = a->n, rc = -1;
    bool *came = calloc((size_t)a->n, sizeof *came);
    r.ids = malloc((size_t)a->n * sizeof *r.ids);
    r.x = malloc((size_t)a->n * a->hidden * sizeof *r.x);
    if (!came || !r.ids || !r.x) {
        err_set(e, ERR_MEMORY, "out of memory for an audit");
        goto out;
    }
    if (remote_middle_audit_next(a->m, e) != 0 || a->m->ops->submit(a->m, &w, a->sent, e) != 0)
        goto out;
    while (missing > 0) {
        int got = a->m->ops->collect(a->m, &r, COLLECT_MS, e);
        if (got < 0) /* the link, or Ctrl-C: nothing that the cloud could be blamed for */
            goto out;
        if (got == 0 || r.n == 0) {
            err_set(e, ERR_PEER, "the cloud returned %d of %d positions of an audit", a->n - missing, a->n);
            goto out;
        }
        for (int i = 0; i < r.n; i++) {
            uint32_t at = r.ids[i] - 1;
            if (at >= (uint32_t)a->n || came[at]) {
                err_set(e, ERR_PEER, "the cloud returned a node that was not asked for, or one twice");
                goto out;
            }
            came[at] = true;
            memcpy(a->got + at * a->hidden, r.x + (size_t)i * a->hidden, a->hidden * sizeof *r.x);
        }
        missing -= r.n;
    }
    enum codec codec = a->en->codec;
    codec_boundary(&codec, a->sent, a->n, (int)a->hidden);
    rc = remote_middle_root(a->m, root, e);
out:
    free(came);
    free(r.ids);
    wipe_free(r.x, (size_t)a->n * a->hidden * sizeof *r.x);
    return rc;
}

/* One layer, chosen after the cloud has committed itself. */
static int open_layer(struct auditor *a, const uint8_t root[WIRE_DIGEST], int layer, double *worst, struct err *e) {
    struct wbuf payload = {0};
    struct wire_opening o;
    const struct audit_check c = {.weights = a->en->weights,
                                  .backend = a->backend,
                                  .quant = engine_quant(a->en, 1),
                                  .kv_type = engine_kv_type(a->en),
                                  .codec = a->en->codec,
                                  .lo = a->middle->lo,
                                  .hi = a->middle->hi,
                                  .layer = layer,
                                  .n_rows = a->n,
                                  .sent = a->sent,
                                  .got = a->got,
                                  .root = root,
                                  .tolerance = a->tolerance};
    int rc = remote_middle_challenge(a->m, (uint16_t)layer, &payload, OPEN_MS, e);
    if (rc == 0)
        rc = wire_get_opening(payload.p, payload.n, (uint32_t)a->hidden, &o, e);
    if (rc == 0)
        rc = audit_opening(&c, &o, worst, e);
    wbuf_free(&payload);
    return rc;
}

static int random_layer(const struct part *p, int *layer, struct err *e) {
    uint32_t n = (uint32_t)(p->hi - p->lo), r, limit = UINT32_MAX - UINT32_MAX % n;
    do
        if (getrandom(&r, sizeof r, 0) != sizeof r)
            return err_set(e, ERR_IO, "the system gave no random number");
    while (r >= limit);
    *layer = p->lo + (int)(r % n);
    return 0;
}

int verify_audit(struct engine *en, struct middle *m, const struct part *middle, const uint32_t *tokens, int n,
                 int rounds, bool quiet, struct audit_report *report, struct err *e) {
    struct remote_info info;
    remote_middle_info(m, &info);
    const int wanted = n;
    n = (uint32_t)n < info.max_rows ? n : (int)info.max_rows; /* a commitment is to one window */
    struct auditor a = {.en = en, .m = m, .middle = middle, .n = n, .hidden = (size_t)en->config->hidden};
    uint8_t root[WIRE_DIGEST];
    size_t bytes = (size_t)n * a.hidden * sizeof(float);
    int rc = -1, layer = 0;
    if (n < wanted && n < LEAST_ROWS)
        return err_set(
            e, ERR_PEER,
            "the cloud takes windows of %d positions, and an audit of fewer than %d says nothing of attention: "
            "it has to be started with more --max-rows",
            n, LEAST_ROWS);
    if (choose_backend(&a, info.backend, e) != 0)
        return -1;
    if (a.tolerance > 0 && audit_math_fast(info.backend) && engine_kv_type(en) == DT_E4M3) {
        err_set(
            e, ERR_USAGE,
            "a cloud with --math fast and --kv fp8 (it says that it computes with %s) rounds too much for an audit to "
            "tell honest from false: start it with --math full, or agree on --kv f16",
            info.backend);
        goto out;
    }
    *report = (struct audit_report){.tolerance = a.tolerance};
    snprintf(report->backend, sizeof report->backend, "%s", info.backend);
    report->n_rows = n;
    if (!quiet && a.tolerance > 0)
        printf("audit   %d positions; the cloud says that it computes with %s, this machine with %s: a row may differ "
               "by %.0e%s\n",
               n, info.backend, a.ours, a.tolerance,
               engine_kv_type(en) == DT_E4M3 ? ", with fp8 three in four by 10 and one by 100 times as much" : "");
    else if (!quiet)
        printf("audit   %d positions; the cloud says that it computes with %s: every bit has to be equal\n", n,
               info.backend);
    if (!quiet && audit_math_fast(info.backend))
        printf("audit   that cloud rounds activations (--math fast)%s\n",
               a.tolerance > 0 ? ": of weights of fewer bits than agreed, q4 is told from full ones, q8 is not" : "");
    a.nodes = malloc((size_t)n * sizeof *a.nodes);
    a.rows = malloc((size_t)n * sizeof *a.rows);
    a.ids = malloc((size_t)n * sizeof *a.ids);
    a.sent = malloc(bytes);
    a.got = malloc(bytes);
    if (!a.nodes || !a.rows || !a.ids || !a.sent || !a.got) {
        err_set(e, ERR_MEMORY, "out of memory for an audit of %d positions", n);
        goto out;
    }
    if (run_front(&a, tokens, e) != 0 || commit(&a, root, e) != 0)
        goto out;
    for (int i = 0; i < rounds; i++) {
        double w = 0;
        if (random_layer(middle, &layer, e) != 0 || open_layer(&a, root, layer, &w, e) != 0)
            goto out;
        if (!quiet)
            printf("audit   layer %d of %d-%d is this machine's own; largest difference of a row %.1e\n", layer,
                   middle->lo, middle->hi - 1, w);
        report->worst = w > report->worst ? w : report->worst;
        report->n_layers++;
    }
    rc = 0;
out:
    kv_table_free(a.table);
    slot_pool_free(a.pool);
    if (a.kv)
        en->stages[0]->ops->kv_free(a.kv);
    if (a.beside)
        a.beside->ops->free(a.beside);
    free(a.nodes);
    free(a.rows);
    free(a.ids);
    wipe_free(a.sent, bytes);
    wipe_free(a.got, bytes);
    return rc;
}
