#include "cmd/engine/loopback.h"

#include "cmd/engine/device.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/thread.h"
#include "net/cloud/cloud.h"
#include "net/fingerprint.h"

#include <stdio.h>
#include <stdlib.h>

enum { STOP_MS = 2000 };

struct loopback {
    struct identity *server, *client;
    struct allow_list *allow;
    struct backend *backend;
    struct stage *stage;
    struct cloud *cloud;
    pthread_t thread;
    bool running;
    char address[32];
};

static uint32_t live(const struct engine *en) {
    return session_live(en->chunk, engine_cloud_windows(en));
}

uint64_t loopback_kv_bytes(const struct engine *en, const struct part *middle, int sessions) {
    return (uint64_t)sessions * (en->ctx + live(en)) * config_kv_bytes(en->config, engine_kv_type(en)) *
           (uint64_t)(middle->hi - middle->lo);
}

static int on_load(void *ctx, uint64_t done, uint64_t total) {
    progress_show(ctx, done, total);
    return interrupt_asked();
}

static void *serve(void *arg) {
    struct loopback *l = arg;
    struct err e = {0};
    if (cloud_run(l->cloud, &e) != 0)
        term_error("the cloud of this process: %s", e.msg);
    return NULL;
}

int loopback_start(struct loopback **out, const struct engine *en, const struct part *middle, int sessions,
                   struct err *e) {
    *out = NULL;
    struct progress p;
    const struct load_opts lo = {
        .quant = engine_quant(en, 1), .max_rows = en->chunk, .progress = on_load, .progress_ctx = &p};
    struct loopback *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (identity_ephemeral(&l->server, e) != 0 || identity_ephemeral(&l->client, e) != 0 ||
        allow_list_create(&l->allow, identity_pin(l->client), 1, NULL, e) != 0 ||
        device_open(&l->backend, &en->o, e) != 0)
        goto fail;
    progress_start(&p, "loading the middle layers for a cloud in this process", NULL);
    int rc = l->backend->ops->stage_load(l->backend, en->weights, middle, &lo, &l->stage, e);
    progress_end(&p, 0);
    if (rc != 0)
        goto fail;
    struct cloud_opts co = {
        .listen = "127.0.0.1:0",
        .id = l->server,
        .allow = l->allow,
        .batch = {.stage = l->stage,
                  .kv_bytes = loopback_kv_bytes(en, middle, sessions),
                  .max_sessions = (uint32_t)sessions,
                  .max_ctx = en->ctx,
                  .max_live = live(en),
                  .max_rows = en->chunk,
                  .session_ttl_ms = 60000,
                  .backend_name = device_name(l->backend, &en->o)},
    };
    if (fingerprint_hello(en->weights, middle->lo, middle->hi, &co.batch.mine, e) != 0)
        goto fail;
    co.batch.mine.kv = (uint8_t)en->o.kv;
    co.batch.mine.quant = (uint8_t)engine_quant(en, 1);
    if (cloud_create(&l->cloud, &co, e) != 0 || thread_start(&l->thread, serve, l, "a cloud in this process", e) != 0)
        goto fail;
    l->running = true;
    snprintf(l->address, sizeof l->address, "127.0.0.1:%u", cloud_port(l->cloud));
    *out = l;
    return 0;
fail:
    loopback_stop(l);
    return -1;
}

void loopback_stop(struct loopback *l) {
    if (!l)
        return;
    if (l->running) {
        cloud_stop(l->cloud, STOP_MS);
        pthread_join(l->thread, NULL);
    }
    cloud_free(l->cloud);
    if (l->stage)
        l->stage->ops->stage_free(l->stage);
    if (l->backend)
        l->backend->ops->free(l->backend);
    allow_list_free(l->allow);
    identity_free(l->client);
    identity_free(l->server);
    free(l);
}

const char *loopback_address(const struct loopback *l) {
    return l->address;
}

const struct pin *loopback_pin(const struct loopback *l) {
    return identity_pin(l->server);
}

const struct identity *loopback_client(const struct loopback *l) {
    return l->client;
}
