#include "test/unit/batch_rig.h"

#include "core/base/clock.h"
#include "core/model/local_middle.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 60, TWIN_ROWS = 256 };

static void woke(void *ctx) {
    struct batch_rig *r = ctx;
    pthread_mutex_lock(&r->lock);
    r->wakes++;
    pthread_cond_broadcast(&r->woken);
    pthread_mutex_unlock(&r->lock);
}

/* ---- the gate ---- */

static int gate_layers(struct stage *s, struct kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e) {
    struct gate *g = (struct gate *)(void *)s;
    pthread_mutex_lock(&g->lock);
    g->last_rows = b->n;
    g->waiting = true;
    pthread_cond_broadcast(&g->moved);
    while (g->allowed == 0)
        pthread_cond_wait(&g->moved, &g->lock);
    g->waiting = false;
    g->allowed -= g->allowed > 0;
    g->calls++;
    bool fail = g->fail;
    g->fail = false;
    int slow_us = g->slow_us;
    pthread_mutex_unlock(&g->lock);
    if (slow_us)
        usleep((useconds_t)slow_us);
    if (fail)
        return err_set(e, ERR_MEMORY, "a test lets this pass have no memory");
    return g->real->ops->layers(g->real, kv, b, lo, hi, x, e);
}

static int gate_kv_create(struct stage *s, uint32_t n, enum dtype type, struct kv **out, struct err *e) {
    struct gate *g = (struct gate *)(void *)s;
    return g->real->ops->kv_create(g->real, n, type, out, e);
}

static struct gate *only_gate; /* the ops of a KV know no stage */
static void gate_kv_clear(struct kv *kv) {
    pthread_mutex_lock(&only_gate->lock);
    only_gate->kv_clears++;
    pthread_mutex_unlock(&only_gate->lock);
    only_gate->real->ops->kv_clear(kv);
}
static void gate_kv_free(struct kv *kv) {
    only_gate->real->ops->kv_free(kv);
}

static const struct backend_ops gate_ops = {.name = "gate",
                                            .kv_create = gate_kv_create,
                                            .kv_clear = gate_kv_clear,
                                            .kv_free = gate_kv_free,
                                            .layers = gate_layers};

void gate_allow(struct batch_rig *r, int calls) {
    pthread_mutex_lock(&r->gate.lock);
    r->gate.allowed = calls;
    pthread_cond_broadcast(&r->gate.moved);
    pthread_mutex_unlock(&r->gate.lock);
}

void gate_slow(struct batch_rig *r, int us) {
    pthread_mutex_lock(&r->gate.lock);
    r->gate.slow_us = us;
    pthread_mutex_unlock(&r->gate.lock);
}

static struct timespec patience(void) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_S;
    return end;
}

int gate_wait(struct batch_rig *r) {
    struct timespec end = patience();
    pthread_mutex_lock(&r->gate.lock);
    while (!(r->gate.waiting && r->gate.allowed == 0))
        cr_assert_neq(pthread_cond_timedwait(&r->gate.moved, &r->gate.lock, &end), ETIMEDOUT, "no pass begins");
    int rows = r->gate.last_rows;
    pthread_mutex_unlock(&r->gate.lock);
    return rows;
}

static struct stage *load(struct batch_rig *r, struct backend **backend, int lo, int hi, int rows) {
    struct err e = {0};
    struct stage *s;
    const struct part part = {.lo = lo, .hi = hi};
    const struct load_opts opts = {.max_rows = rows};
    rig_backend(backend, 1, NULL);
    cr_assert_eq((*backend)->ops->stage_load(*backend, r->weights, &part, &opts, &s, &e), 0, "%s", e.msg);
    return s;
}

void batch_rig_open(struct batch_rig *r, const char *model, int front, int back, const struct batch_opts *o) {
    struct err e = {0};
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->woken, NULL);
    cr_assert_eq(weights_open(&r->weights, model, &e), 0, "%s", e.msg);
    r->config = weights_config(r->weights);
    struct batch_opts *b = &r->opts;
    *b = *o;
    b->kv_bytes = b->kv_bytes ? b->kv_bytes : 64 << 20;
    b->max_sessions = b->max_sessions ? b->max_sessions : 64;
    b->max_ctx = b->max_ctx ? b->max_ctx : 1024;
    b->max_live = b->max_live ? b->max_live : 256;
    b->max_rows = b->max_rows ? b->max_rows : 64;
    b->session_ttl_ms = b->session_ttl_ms ? b->session_ttl_ms : 60000;
    b->idle_ms = b->idle_ms ? b->idle_ms : 60000;
    b->backend_name = b->backend_name ? b->backend_name : "cpu-test";
    b->wake = woke;
    b->wake_ctx = r;
    int lo = front, hi = r->config->n_layers - back;
    r->gate.real = load(r, &r->backend, lo, hi, b->max_rows);
    r->gate.base = (struct stage){.ops = &gate_ops, .config = r->config, .part = r->gate.real->part};
    r->gate.allowed = -1;
    pthread_mutex_init(&r->gate.lock, NULL);
    pthread_cond_init(&r->gate.moved, NULL);
    only_gate = &r->gate;
    r->twin_stage = load(r, &r->twin_backend, lo, hi, TWIN_ROWS);
    b->stage = &r->gate.base;
    b->mine = (struct wire_hello){.version = WIRE_VERSION,
                                  .kv = rig_on_card() ? 0 : o->mine.kv,
                                  .n_layers = (uint16_t)r->config->n_layers,
                                  .lo = (uint16_t)lo,
                                  .hi = (uint16_t)hi,
                                  .hidden = (uint32_t)r->config->hidden};
    memset(b->mine.config, 7, sizeof b->mine.config);
    memset(b->mine.weights, 9, sizeof b->mine.weights);
    cr_assert_eq(batch_start(&r->batch, b, &e), 0, "%s", e.msg);
}

void batch_rig_close(struct batch_rig *r) {
    gate_allow(r, -1);
    batch_stop(r->batch);
    r->gate.real->ops->stage_free(r->gate.real);
    pthread_cond_destroy(&r->gate.moved);
    pthread_mutex_destroy(&r->gate.lock);
    r->twin_stage->ops->stage_free(r->twin_stage);
    r->backend->ops->free(r->backend);
    r->twin_backend->ops->free(r->twin_backend);
    weights_close(r->weights);
    pthread_cond_destroy(&r->woken);
    pthread_mutex_destroy(&r->lock);
}

struct batch_stats rig_stats(struct batch_rig *r) {
    struct batch_stats s;
    batch_stats(r->batch, &s);
    return s;
}

/* ---- peers ---- */

void peer_again(struct peer *p, int who) {
    struct err e = {0};
    struct pin pin;
    memset(&pin, who, sizeof pin);
    char name[32];
    snprintf(name, sizeof name, "peer-%d", who);
    p->port = port_open(p->r->batch, &pin, name, &e);
    cr_assert(p->port, "%s", e.msg);
    p->seq = 0;
}

void peer_open(struct batch_rig *r, struct peer *p, int who, enum codec codec) {
    *p = (struct peer){.r = r, .codec = codec, .next_id = 1, .noise = (uint64_t)who * 7919 + 1};
    p->row_bytes = codec_row_bytes(codec, r->config->hidden);
    p->want = calloc(PEER_MAX_IDS, sizeof *p->want);
    cr_assert(p->want);
    peer_again(p, who);
}

static void forget(struct peer *p) {
    for (int i = 0; i < PEER_MAX_IDS; i++) {
        free(p->want[i]);
        p->want[i] = NULL;
    }
    if (p->twin)
        p->twin->ops->free(p->twin);
    p->twin = NULL;
    p->next_id = 1;
}

void peer_drop(struct peer *p) {
    if (p->port)
        port_close(p->port);
    p->port = NULL;
}

void peer_close(struct peer *p) {
    peer_drop(p);
    forget(p);
    free(p->want);
    wbuf_free(&p->payload);
}

struct wire_hello peer_hello_of(const struct peer *p, uint32_t ctx, uint32_t live) {
    struct wire_hello h = p->r->opts.mine;
    h.codec = (uint8_t)p->codec;
    h.ctx = ctx;
    h.live = live;
    return h;
}

void peer_post(struct peer *p, struct wbuf *frame) {
    struct err e = {0};
    int type;
    size_t len;
    cr_assert(!frame->bad);
    cr_assert_eq(wire_head(frame->p, frame->n, WIRE_MAX_FRAME, &type, &len, &e), 1, "%s", e.msg);
    memmove(frame->p, frame->p + WIRE_HEAD, len);
    frame->n = len;
    port_post(p->port, type, frame);
    cr_assert_eq(frame->n, 0);
}

void peer_say_hello(struct peer *p, const struct wire_hello *h) {
    struct wbuf w = {0};
    wire_put_hello(&w, h);
    peer_post(p, &w);
    wbuf_free(&w);
}

void peer_hello(struct peer *p, uint32_t ctx, uint32_t live, const uint8_t *token) {
    struct err e = {0};
    struct wire_hello h = peer_hello_of(p, ctx, live);
    if (token)
        memcpy(h.token, token, sizeof h.token);
    peer_say_hello(p, &h);
    int type = peer_frame(p);
    if (type == WIRE_ERROR)
        wire_get_error(p->payload.p, p->payload.n, &p->code, p->text, &e);
    cr_assert_eq(type, WIRE_WELCOME, "%s", type == WIRE_ERROR ? p->text : "no WELCOME");
    cr_assert_eq(wire_get_welcome(p->payload.p, p->payload.n, &p->welcome, &e), 0, "%s", e.msg);
    cr_assert_eq(port_max_frame(p->port), p->welcome.max_frame);
    if (p->welcome.resumed)
        return;
    forget(p);
    cr_assert_eq(local_middle_create(&p->twin, p->r->twin_stage, h.kv ? DT_F32 : DT_F16, ctx, live, TWIN_ROWS,
                                     codec_boundary, &p->codec, &e),
                 0, "%s", e.msg);
}

bool peer_frame_now(struct peer *p, int *type) {
    struct err e = {0};
    struct wbuf out = {0};
    if (!port_take(p->port, &out))
        return false;
    size_t len;
    cr_assert_eq(wire_head(out.p, out.n, WIRE_MAX_FRAME, type, &len, &e), 1, "%s", e.msg);
    cr_assert_eq(out.n, WIRE_HEAD + len, "one whole frame");
    port_sent(p->port, out.n);
    wbuf_clear(&p->payload);
    wbuf_put(&p->payload, out.p + WIRE_HEAD, len);
    wbuf_free(&out);
    return true;
}

int peer_frame(struct peer *p) {
    struct batch_rig *r = p->r;
    struct timespec end = patience();
    for (;;) {
        int type;
        pthread_mutex_lock(&r->lock);
        unsigned before = r->wakes;
        pthread_mutex_unlock(&r->lock);
        if (peer_frame_now(p, &type))
            return type;
        if (port_finished(p->port))
            return 0;
        pthread_mutex_lock(&r->lock);
        while (r->wakes == before)
            cr_assert_neq(pthread_cond_timedwait(&r->woken, &r->lock, &end), ETIMEDOUT, "nothing comes");
        pthread_mutex_unlock(&r->lock);
    }
}

void peer_expect_error(struct peer *p, int code) {
    struct err e = {0};
    int type;
    while ((type = peer_frame(p)) == WIRE_RESULT)
        ;
    cr_assert_eq(type, WIRE_ERROR, "expected ERROR %d, got %s", code, wire_type_name(type));
    cr_assert_eq(wire_get_error(p->payload.p, p->payload.n, &p->code, p->text, &e), 0, "%s", e.msg);
    cr_assert_eq(p->code, code, "%s", p->text);
    cr_assert_eq(peer_frame(p), 0);
}

static float noise(uint64_t *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*s >> 40) / (1 << 24) * 4 - 2);
}

void peer_submit_raw(struct peer *p, const struct wire_submit_parts *s, const float *x) {
    struct wbuf w = {0};
    wire_put_submit(&w, s, p->codec, p->r->config->hidden, x);
    peer_post(p, &w);
    wbuf_free(&w);
}

void peer_submit(struct peer *p, struct wire_submit_parts *s) {
    struct err e = {0};
    size_t hidden = (size_t)p->r->config->hidden;
    float *x = malloc(((size_t)s->n_nodes + 1) * hidden * sizeof *x);
    float *y = malloc(((size_t)s->n_nodes + 1) * hidden * sizeof *y);
    cr_assert(x && y);
    for (size_t i = 0; i < (size_t)s->n_nodes * hidden; i++)
        x[i] = noise(&p->noise);
    s->seq = ++p->seq;
    peer_submit_raw(p, s, x);
    if (s->rewind)
        cr_assert_eq(p->twin->ops->rewind(p->twin, s->rewind_len, s->rewind_head, &e), 0, "%s", e.msg);
    cr_assert_eq(p->twin->ops->commit(p->twin, s->commit, s->n_commit, &e), 0, "%s", e.msg);
    for (int i = 0; i < s->n_cancel; i++)
        p->twin->ops->cancel(p->twin, s->cancel[i], &e);
    if (s->n_nodes) {
        const struct window window = {s->nodes, s->n_nodes};
        uint32_t ids[TWIN_ROWS];
        struct middle_result r = {.ids = ids, .x = y, .cap = s->n_nodes};
        cr_assert_eq(p->twin->ops->submit(p->twin, &window, x, &e), 0, "%s", e.msg);
        cr_assert_eq(p->twin->ops->collect(p->twin, &r, -1, &e), 1, "%s", e.msg);
        for (int i = 0; i < r.n; i++) {
            cr_assert(ids[i] < PEER_MAX_IDS && !p->want[ids[i]]);
            p->want[ids[i]] = malloc(hidden * sizeof *y);
            memcpy(p->want[ids[i]], y + (size_t)i * hidden, hidden * sizeof *y);
        }
    }
    free(x);
    free(y);
}

void peer_check_result(struct peer *p, uint32_t *ids, int *n, bool *last) {
    struct err e = {0};
    struct wire_result r;
    int hidden = p->r->config->hidden;
    cr_assert_eq(wire_get_result(p->payload.p, p->payload.n, p->row_bytes, &r, &e), 0, "%s", e.msg);
    float *x = malloc((size_t)hidden * sizeof *x);
    for (int i = 0; i < r.n; i++) {
        uint32_t id = wire_id(r.ids, i);
        cr_assert(id < PEER_MAX_IDS && p->want[id], "a result for node %u", id);
        cr_assert_eq(codec_decode(p->codec, r.x + (size_t)i * p->row_bytes, 1, hidden, x), 0);
        cr_assert(memcmp(x, p->want[id], (size_t)hidden * sizeof *x) == 0, "node %u has other bits than alone", id);
        free(p->want[id]);
        p->want[id] = NULL; /* each comes once */
        if (ids)
            ids[i] = id;
    }
    free(x);
    *n = r.n;
    *last = r.last;
}

int peer_result(struct peer *p, uint32_t *ids, bool *last) {
    struct err e = {0};
    int n, type = peer_frame(p);
    if (type == WIRE_ERROR)
        wire_get_error(p->payload.p, p->payload.n, &p->code, p->text, &e);
    cr_assert_eq(type, WIRE_RESULT, "got %s %s", wire_type_name(type), type == WIRE_ERROR ? p->text : "");
    peer_check_result(p, ids, &n, last);
    return n;
}

void peer_chain(struct peer *p, int n) {
    struct node nodes[TWIN_ROWS];
    uint32_t ids[TWIN_ROWS];
    struct err e = {0};
    (void)e;
    uint32_t head = p->welcome.head, pos = p->welcome.len;
    for (int i = 0; i < n; i++) {
        nodes[i] = (struct node){p->next_id, i ? nodes[i - 1].id : head, pos + (uint32_t)i};
        ids[i] = p->next_id++;
    }
    struct wire_submit_parts s = {.nodes = nodes, .n_nodes = n};
    peer_submit(p, &s);
    int got = 0;
    for (bool last = false; !last;)
        got += peer_result(p, NULL, &last);
    cr_assert_eq(got, n);
    struct wire_submit_parts c = {.commit = ids, .n_commit = n};
    peer_submit(p, &c);
    p->welcome.head = ids[n - 1]; /* what a WELCOME would say now */
    p->welcome.len = pos + (uint32_t)n;
}
