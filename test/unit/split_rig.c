#include "test/unit/split_rig.h"

#include "core/model/local_middle.h"
#include "net/fingerprint.h"
#include "test/unit/cloud_rig.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLOUD_THREADS = 3, MAX_PROMPT = 90, MAX_ROWS = TALK_TURNS * TALK_TOKENS + TALK_TREES * TALK_MAX_TREE };

static void *serve(void *arg) {
    struct split_rig *r = arg;
    struct err e = {0};
    cloud_run(r->cloud, &e);
    return NULL;
}

static struct stage *load(const struct split_rig *r, struct backend *b, const struct part *part, int max_rows) {
    struct err e = {0};
    struct stage *s;
    const struct load_opts o = {.max_rows = max_rows};
    cr_assert_eq(b->ops->stage_load(b, r->weights, part, &o, &s, &e), 0, "%s", e.msg);
    return s;
}

static struct part middle_part(const struct split_rig *r) {
    return (struct part){.lo = r->front, .hi = r->config->n_layers - r->back};
}

void split_rig_open(struct split_rig *r, const char *model, int front, int back, enum dtype kv_type) {
    split_rig_open_for(r, model, front, back, kv_type, NULL, session_live(SPLIT_CHUNK, SESSION_WINDOWS));
}

void split_rig_open_for(struct split_rig *r, const char *model, int front, int back, enum dtype kv_type,
                        const struct pin *also, uint32_t max_live) {
    struct err e = {0};
    *r = (struct split_rig){.front = front, .back = back, .kv_type = kv_type};
    cr_assert_eq(weights_open(&r->weights, model, &e), 0, "%s", e.msg);
    r->config = weights_config(r->weights);
    rig_backend(&r->backend, CLOUD_THREADS, NULL);
    const struct part part = middle_part(r);
    cr_assert_lt(part.lo, part.hi, "%s has too few layers for a split", model);
    r->stage = load(r, r->backend, &part, SPLIT_CLOUD_ROWS);
    cr_assert_eq(fingerprint_hello(r->weights, part.lo, part.hi, &r->hello, &e), 0, "%s", e.msg);
    r->hello.kv = kv_type == DT_F32 ? 1 : kv_type == DT_E4M3 ? 2 : 0;
    r->hello.ctx = SPLIT_CTX;
    r->hello.live = session_live(SPLIT_CHUNK, SESSION_WINDOWS);
    cr_assert_eq(identity_ephemeral(&r->server, &e), 0, "%s", e.msg);
    cr_assert_eq(identity_ephemeral(&r->client, &e), 0, "%s", e.msg);
    const struct pin allowed[2] = {*identity_pin(r->client), also ? *also : (struct pin){{0}}};
    cr_assert_eq(allow_list_create(&r->allow, allowed, also ? 2 : 1, NULL, &e), 0, "%s", e.msg);
    uint64_t slot = (uint64_t)config_kv_bytes(r->config, kv_type) * (uint64_t)(part.hi - part.lo);
    const struct cloud_opts o = {.listen = "127.0.0.1:0",
                                 .metrics = "127.0.0.1:0",
                                 .id = r->server,
                                 .allow = r->allow,
                                 .batch = {.stage = r->stage,
                                           .mine = r->hello,
                                           .kv_bytes = SPLIT_SESSIONS * (SPLIT_CTX + max_live) * slot,
                                           .max_sessions = SPLIT_SESSIONS,
                                           .max_ctx = SPLIT_CTX,
                                           .max_live = max_live,
                                           .max_rows = SPLIT_CLOUD_ROWS,
                                           .session_ttl_ms = 60000,
                                           .backend_name = "cpu"}};
    cr_assert_eq(cloud_create(&r->cloud, &o, &e), 0, "%s", e.msg);
    cr_assert_eq(pthread_create(&r->thread, NULL, serve, r), 0);
    snprintf(r->address, sizeof r->address, "127.0.0.1:%u", cloud_port(r->cloud));
    r->where = (struct remote_cloud){.address = r->address, .pin = *identity_pin(r->server), .has_pin = true};
}

void split_rig_close(struct split_rig *r) {
    cloud_stop(r->cloud, 0);
    cloud_stop(r->cloud, 0);
    pthread_join(r->thread, NULL);
    cloud_free(r->cloud);
    r->stage->ops->stage_free(r->stage);
    r->backend->ops->free(r->backend);
    allow_list_free(r->allow);
    identity_free(r->client);
    identity_free(r->server);
    weights_close(r->weights);
}

double split_rig_metric(const struct split_rig *r, const char *name) {
    static const char ask[] = "GET /metrics HTTP/1.0\r\n\r\n";
    char text[32768], line[80];
    int fd = tcp_connect(cloud_metrics_port(r->cloud));
    cr_assert_eq(send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL), (ssize_t)sizeof ask - 1);
    size_t n = tcp_drain(fd, text, sizeof text - 1);
    close(fd);
    text[n] = '\0';
    snprintf(line, sizeof line, "\nsplitinf_%s ", name);
    const char *at = strstr(text, line);
    cr_assert(at, "/metrics has no %s", name);
    return strtod(at + strlen(line), NULL);
}

/* ---- sides ---- */

static void side_parts(struct side *s, const struct split_rig *r, enum codec codec, int chunk) {
    int n = r->config->n_layers;
    const struct part front = {.lo = 0, .hi = r->front, .embed = true},
                      back = {.lo = n - r->back, .hi = n, .head = true};
    *s = (struct side){.rig = r, .codec = codec};
    rig_backend(&s->backend, 1, NULL);
    s->front = load(r, s->backend, &front, chunk);
    s->back = load(r, s->backend, &back, chunk);
}

static void side_session(struct side *s, int chunk, int windows) {
    struct err e = {0};
    const struct session_opts o = {.front = s->front,
                                   .back = s->back,
                                   .middle = s->middle,
                                   .kv_type = s->rig->kv_type,
                                   .max_ctx = SPLIT_CTX,
                                   .max_rows = chunk,
                                   .prefill_windows = windows};
    cr_assert_eq(session_create(&s->session, &o, &e), 0, "%s", e.msg);
}

void side_open_local(struct side *s, const struct split_rig *r, enum codec codec) {
    struct err e = {0};
    side_parts(s, r, codec, SPLIT_CHUNK);
    const struct part part = middle_part(r);
    s->middle_stage = load(r, s->backend, &part, SPLIT_CHUNK);
    cr_assert_eq(local_middle_create(&s->middle, s->middle_stage, r->kv_type, SPLIT_CTX, session_live(SPLIT_CHUNK, 1),
                                     SPLIT_CHUNK, codec_boundary, &s->codec, &e),
                 0, "%s", e.msg);
    side_session(s, SPLIT_CHUNK, 1);
}

void side_open_remote(struct side *s, const struct split_rig *r, enum codec codec, int chunk) {
    struct err e = {0};
    side_parts(s, r, codec, chunk);
    struct remote_opts o = {.id = r->client,
                            .clouds = &r->where,
                            .n_clouds = 1,
                            .hello = r->hello,
                            .max_rows = (uint32_t)chunk,
                            .connect_ms = 60000,
                            .stall_ms = 60000};
    o.hello.codec = (uint8_t)codec;
    cr_assert_eq(remote_middle_create(&s->middle, &o, &e), 0, "%s", e.msg);
    side_session(s, chunk, SESSION_WINDOWS);
}

void side_close(struct side *s) {
    session_free(s->session);
    s->middle->ops->free(s->middle);
    struct stage *stages[] = {s->front, s->middle_stage, s->back};
    for (int i = 0; i < 3; i++)
        if (stages[i])
            stages[i]->ops->stage_free(stages[i]);
    s->backend->ops->free(s->backend);
}

/* ---- talks ---- */

static uint32_t below(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

static int try_tree(struct side *s, const struct talk *t, uint64_t *state, struct record *rec, struct err *e) {
    uint32_t tokens[TALK_MAX_TREE], bushiness = 1 + below(state, 4);
    int parents[TALK_MAX_TREE], most = t->chunk < TALK_MAX_TREE ? t->chunk : TALK_MAX_TREE;
    int n = 1 + (int)below(state, (uint32_t)most);
    size_t vocab = (size_t)s->rig->config->vocab;
    for (int i = 0; i < n; i++) {
        int back = (int)below(state, bushiness * 2);
        tokens[i] = below(state, (uint32_t)vocab);
        parents[i] = back < i ? i - 1 - back : -1;
    }
    if (session_try_tree(s->session, tokens, parents, n, rec->rows + (size_t)rec->n_rows * vocab, e) != 0)
        return -1;
    rec->n_rows += n;
    return 0;
}

/* TALK_TOKENS tokens behind tokens[0..*n), and a tree now and then. */
static int turn(struct side *s, const struct talk *t, uint64_t *state, uint32_t *tokens, uint32_t *n, uint32_t *out,
                struct record *rec, struct err *e) {
    size_t vocab = (size_t)s->rig->config->vocab;
    struct sample_params p;
    sample_params_default(&p);
    p.temperature = t->temperature;
    p.top_p = 0.95f;
    p.seed = t->seed;
    if (session_feed(s->session, tokens, *n, NULL, NULL, e) != 0)
        return -1;
    for (uint32_t i = 0; i < TALK_TOKENS; i++) {
        if (i % (TALK_TOKENS * TALK_TURNS / TALK_TREES) == 3 && try_tree(s, t, state, rec, e) != 0)
            return -1;
        memcpy(rec->rows + (size_t)rec->n_rows++ * vocab, session_logits(s->session), vocab * sizeof(float));
        if (session_sample(s->session, &p, i, &out[i], e) != 0 || session_advance(s->session, out[i], e) != 0)
            return -1;
        tokens[(*n)++] = out[i];
    }
    return 0;
}

int talk_run(struct side *s, const struct talk *t, struct record *rec, struct err *e) {
    uint32_t tokens[SPLIT_CTX], n = 0, vocab = (uint32_t)s->rig->config->vocab;
    uint64_t state = t->script * 2654435761u + 99;
    if (!rec->rows && !(rec->rows = malloc(MAX_ROWS * (size_t)vocab * sizeof *rec->rows)))
        return err_set(e, ERR_MEMORY, "out of memory");
    rec->n_rows = 0;
    session_reset(s->session);
    for (int k = 0; k < TALK_TURNS; k++) {
        n -= below(&state, n / 2 + 1); /* the second turn goes back to somewhere in the first */
        for (uint32_t more = 1 + below(&state, MAX_PROMPT); more > 0; more--)
            tokens[n++] = below(&state, vocab);
        if (turn(s, t, &state, tokens, &n, rec->tokens + k * TALK_TOKENS, rec, e) != 0)
            return -1;
    }
    return 0;
}

void record_free(struct record *rec) {
    free(rec->rows);
    *rec = (struct record){0};
}

void record_check(const struct record *got, const struct record *want, int vocab, const char *what) {
    cr_assert_geq(want->n_rows, TALK_TURNS * TALK_TOKENS + TALK_TREES, "%s", what);
    cr_assert_eq(got->n_rows, want->n_rows, "%s", what);
    cr_assert_arr_eq(got->tokens, want->tokens, sizeof want->tokens, "%s: other tokens", what);
    for (int i = 0; i < want->n_rows; i++) {
        const float *row = want->rows + (size_t)i * (size_t)vocab;
        cr_assert(isfinite(row[0]), "%s, row %d", what, i);
        cr_assert_eq(memcmp(got->rows + (size_t)i * (size_t)vocab, row, (size_t)vocab * sizeof *row), 0,
                     "%s: logits %d of %d differ", what, i, want->n_rows);
    }
}
