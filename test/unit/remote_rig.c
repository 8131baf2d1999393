#include "test/unit/remote_rig.h"

#include "core/base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void *run(void *arg) {
    struct err e = {0};
    struct toy_cloud *c = arg;
    cloud_run(c->cloud, &e);
    return NULL;
}

void toy_cloud_start(struct remote_rig *r, int i) {
    struct toy_cloud *c = &r->cloud[i];
    struct err e = {0};
    cr_assert_eq(cloud_create(&c->cloud, &c->o, &e), 0, "%s", e.msg);
    cr_assert_eq(pthread_create(&c->thread, NULL, run, c), 0);
    if (r->link[i])
        link_target(r->link[i], cloud_port(c->cloud));
}

void toy_cloud_stop(struct remote_rig *r, int i) {
    struct toy_cloud *c = &r->cloud[i];
    if (!c->cloud)
        return;
    cloud_stop(c->cloud, 0);
    cloud_stop(c->cloud, 0);
    pthread_join(c->thread, NULL);
    cloud_free(c->cloud);
    c->cloud = NULL;
}

static void on_event(void *ctx, enum remote_event what, const char *text) {
    struct remote_rig *r = ctx;
    r->events[what]++;
    snprintf(r->last[what], sizeof r->last[what], "%s", text);
}

static void cloud_init(struct remote_rig *r, int i) {
    struct toy_cloud *c = &r->cloud[i];
    struct err e = {0};
    c->stage = (struct stage){&toy_ops, &toy_config, {.lo = RIG_FRONT, .hi = TOY_LAYERS - RIG_BACK}};
    cr_assert_eq(identity_ephemeral(&c->id, &e), 0, "%s", e.msg);
    cr_assert_eq(allow_list_create(&c->allow, identity_pin(r->client), 1, NULL, &e), 0, "%s", e.msg);
    c->o = (struct cloud_opts){
        .listen = "127.0.0.1:0",
        .id = c->id,
        .allow = c->allow,
        .batch = {.stage = &c->stage,
                  .mine = r->o.hello,
                  .kv_bytes = 1 << 20,
                  .max_sessions = 8,
                  .max_ctx = TOY_CTX,
                  .max_live = session_live(RIG_ROWS, 0),
                  .max_rows = RIG_ROWS,
                  .session_ttl_ms = 60000,
                  .idle_ms = 60000,
                  .backend_name = "toy"},
    };
    toy_cloud_start(r, i);
    const struct link_opts o = {.port = cloud_port(c->cloud)};
    cr_assert_eq(link_start(&r->link[i], &o, &e), 0, "%s", e.msg);
    snprintf(r->address[i], sizeof r->address[i], "127.0.0.1:%u", link_port(r->link[i]));
    r->clouds[i] = (struct remote_cloud){.address = r->address[i], .pin = *identity_pin(c->id), .has_pin = true};
}

void remote_rig_init(struct remote_rig *r) {
    struct err e = {0};
    *r = (struct remote_rig){
        .front = {&toy_ops, &toy_config, {.lo = 0, .hi = RIG_FRONT, .embed = true}},
        .back = {&toy_ops, &toy_config, {.lo = TOY_LAYERS - RIG_BACK, .hi = TOY_LAYERS, .head = true}},
        .windows = 3};
    cr_assert_eq(identity_ephemeral(&r->client, &e), 0, "%s", e.msg);
    r->o = (struct remote_opts){.id = r->client,
                                .clouds = r->clouds,
                                .n_clouds = 1,
                                .hello = {.version = WIRE_VERSION,
                                          .codec = CODEC_F32,
                                          .n_layers = TOY_LAYERS,
                                          .lo = RIG_FRONT,
                                          .hi = TOY_LAYERS - RIG_BACK,
                                          .hidden = 2,
                                          .ctx = TOY_CTX,
                                          .live = session_live(RIG_ROWS, 0)},
                                .max_rows = RIG_ROWS,
                                .event = on_event,
                                .event_ctx = r};
    memset(r->o.hello.config, 1, WIRE_DIGEST);
    memset(r->o.hello.weights, 2, WIRE_DIGEST);
    for (int i = 0; i < RIG_CLOUDS; i++)
        cloud_init(r, i);
}

void remote_rig_connect(struct remote_rig *r) {
    struct err e = {0};
    const struct session_opts o = {.front = &r->front,
                                   .back = &r->back,
                                   .kv_type = DT_F16,
                                   .max_ctx = TOY_CTX,
                                   .max_rows = RIG_ROWS,
                                   .prefill_windows = r->windows,
                                   .speculation = r->speculation};
    struct session_opts so = o;
    cr_assert_eq(remote_middle_create(&r->middle, &r->o, &e), 0, "%s", e.msg);
    so.middle = r->middle;
    cr_assert_eq(session_create(&r->session, &so, &e), 0, "%s", e.msg);
}

void remote_rig_disconnect(struct remote_rig *r) {
    session_free(r->session);
    if (r->middle)
        r->middle->ops->free(r->middle);
    r->session = NULL;
    r->middle = NULL;
}

uint32_t remote_rig_patience(struct remote_rig *r) {
    uint32_t said[TOY_SAID];
    double t0 = clock_ms();
    remote_rig_connect(r);
    toy_converse(r->session, 0, said);
    double ms = 30 * (clock_ms() - t0);
    remote_rig_disconnect(r);
    return ms < 400 ? 400 : ms < 3000 ? (uint32_t)ms : 3000;
}

void remote_rig_free(struct remote_rig *r) {
    remote_rig_disconnect(r);
    for (int i = 0; i < RIG_CLOUDS; i++) {
        link_stop(r->link[i]);
        toy_cloud_stop(r, i);
        allow_list_free(r->cloud[i].allow);
        identity_free(r->cloud[i].id);
    }
    identity_free(r->client);
}
