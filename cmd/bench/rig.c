#include "cmd/bench/rig.h"

#include "cmd/engine/device.h"
#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/decode/sample.h"
#include "net/client/remote_middle.h"
#include "net/fingerprint.h"
#include "net/wire.h"

#include <stdlib.h>
#include <string.h>

static int check_cloud(const struct tunnel_opts *t, struct err *e) {
    if (tunnel_wanted(t))
        return tunnel_check(t, e);
    return t->pin.n || t->trust_first
               ? err_set(e, ERR_USAGE, "%s goes with --cloud HOST:PORT; without that, bench starts a cloud of its own",
                         t->pin.n ? "--pin" : "--trust-on-first-use")
               : 0;
}

int bench_rig_open(struct bench_rig *r, const struct engine_opts *o, struct err *e) {
    *r = (struct bench_rig){0};
    if (check_cloud(&o->tunnel, e) != 0 || engine_open(&r->en, o, e) != 0)
        return -1;
    r->middle = r->en.parts[1];
    if (r->middle.lo >= r->middle.hi)
        return err_set(e, ERR_USAGE, "%s has %d layers: with --front %d --back %d none is left to be split off",
                       o->model, r->en.config->n_layers, o->front, o->back);
    if (!o->tokenizer && strncmp(o->model, "random:", 7) == 0)
        return 0;
    return engine_open_tokenizer(&r->en, e);
}

bool bench_iterates(enum session_mode m) {
    return m == SESSION_JACOBI || m == SESSION_LOOKAHEAD;
}

/* ---- loading ---- */

struct load_progress {
    struct progress shown;
    uint64_t before, all;
};

static int on_load(void *ctx, uint64_t done, uint64_t total) {
    struct load_progress *p = ctx;
    (void)total;
    progress_show(&p->shown, p->before + done, p->all);
    return interrupt_asked();
}

static uint32_t live(const struct engine *en) {
    return session_live(en->chunk, engine_cloud_windows(en));
}

/* One for all lanes, which take turns. *bytes: what it will take. */
static int open_guesser(struct engine *en, struct guesser_bytes *bytes, struct err *e) {
    *bytes = (struct guesser_bytes){0};
    if (!en->o.draft)
        return 0;
    if (!en->tok)
        return err_set(e, ERR_USAGE, "--draft: %s has no tokenizer; name one with --tokenizer DIR|FILE", en->o.model);
    const struct guesser_opts o = {.path = en->o.draft,
                                   .tok = en->tok,
                                   .vocab = (uint32_t)en->config->vocab,
                                   .ctx = en->ctx,
                                   .kv = engine_kv_type(en)};
    return guesser_open(&en->guesser, &o, e) == 0 ? guesser_bytes(en->guesser, device_is_card(en->backend), bytes, e)
                                                  : -1;
}

static int check_memory(const struct bench_rig *r, int n_lanes, const struct guesser_bytes *guesser,
                        struct memory_plan *edges, struct err *e) {
    const struct engine *en = &r->en;
    const struct part here[3] = {en->parts[0], {0}, en->parts[2]}, there[3] = {{0}, r->middle, {0}};
    const enum quant quant[3] = {engine_quant(en, 0), engine_quant(en, 1), engine_quant(en, 2)};
    enum dtype kv = engine_kv_type(en);
    struct memory_plan cloud = {0};
    bool card = device_is_card(en->backend);
    uint64_t lanes = (uint64_t)n_lanes, slots = en->ctx + live(en);
    if (memory_plan(edges, en->weights, here, quant, kv, slots, en->chunk, card, e) != 0 ||
        (!tunnel_wanted(&en->o.tunnel) &&
         memory_plan(&cloud, en->weights, there, quant, kv, slots, en->chunk, card, e) != 0))
        return -1;
    const struct drafter_opts dr = {.vocab = (uint32_t)en->config->vocab, .max_ctx = en->ctx};
    const struct session_speculation most = {.max_nodes = SESSION_MAX_NODES, .iterate = &en->o.iterate};
    uint64_t windows = session_window_bytes(en->config->hidden, en->chunk, engine_cloud_windows(en)) +
                       drafter_bytes(&dr) + session_speculation_bytes(en->config->hidden, en->config->vocab, &most);
    const char *is;
    uint64_t host = guesser->beside + lanes * windows;
    uint64_t need = guesser->stage + edges->weights + edges->scratch + cloud.weights + cloud.scratch +
                    lanes * (edges->kv + cloud.kv) + (card ? 0 : host);
    uint64_t limit = device_memory(en->backend, en->o.memory, &is);
    char total[16], have[16];
    term_size((double)need, total);
    term_size((double)limit, have);
    if (need > limit)
        return err_set(e, ERR_MEMORY,
                       "%s needs %s %s with %d sessions of %u positions, but %s %s; try --quant q8, fewer modes "
                       "or fewer --tokens",
                       en->o.model, total, device_memory_name(en->backend), n_lanes, en->ctx, have, is);
    return 0;
}

int bench_rig_load(struct bench_rig *r, int n_lanes, struct err *e) {
    struct engine *en = &r->en;
    struct memory_plan plan;
    struct guesser_bytes guesser;
    if (device_open(&en->backend, &en->o, e) != 0 || open_guesser(en, &guesser, e) != 0 ||
        check_memory(r, n_lanes, &guesser, &plan, e) != 0)
        return -1;
    struct load_progress p = {.all = plan.file[0] + plan.file[2]};
    struct load_opts lo = {.max_rows = en->chunk, .progress = on_load, .progress_ctx = &p};
    int rc = 0;
    progress_start(&p.shown, "loading the edge layers", NULL);
    for (int i = 0; i < 3 && rc == 0; i += 2) {
        lo.quant = engine_quant(en, i);
        rc = en->backend->ops->stage_load(en->backend, en->weights, &en->parts[i], &lo, &en->stages[i], e);
        p.before += plan.file[i];
    }
    progress_end(&p.shown, 0);
    if (rc == 0 && en->guesser)
        rc = guesser_load(en->guesser, en->backend, e);
    if (rc != 0 || tunnel_wanted(&en->o.tunnel))
        return rc;
    return loopback_start(&r->loop, en, &r->middle, 2 * n_lanes, e);
}

void bench_rig_close(struct bench_rig *r) {
    loopback_stop(r->loop);
    draft_store_close(r->store);
    engine_close(&r->en);
    *r = (struct bench_rig){0};
}

/* ---- lanes ---- */

static int connect_lane(struct bench_lane *l, struct bench_rig *r, struct err *e) {
    const struct engine *en = &r->en;
    struct wire_hello hello;
    struct tunnel_opts t = en->o.tunnel;
    if (fingerprint_hello(en->weights, r->middle.lo, r->middle.hi, &hello, e) != 0)
        return -1;
    hello.codec = (uint8_t)l->o.codec;
    hello.kv = (uint8_t)en->o.kv;
    hello.quant = (uint8_t)engine_quant(en, 1);
    hello.ctx = en->ctx;
    hello.live = live(en);
    t.codec = 1 + (int)l->o.codec;
    t.link_rtt = l->o.rtt_ms > 0 ? l->o.rtt_ms : 0;
    t.link_mbit = l->o.rtt_ms < 0 ? 0 : l->o.mbit;
    if (!r->loop)
        return tunnel_open(&l->tunnel, &t, en->o.home, &hello, (uint32_t)en->chunk, e);
    return tunnel_open_to(&l->tunnel, &t, loopback_address(r->loop), loopback_pin(r->loop), loopback_client(r->loop),
                          &hello, (uint32_t)en->chunk, e);
}

/* What encoding and decoding one position takes. */
static double codec_ms(enum codec c, int hidden) {
    enum { ROWS = 64 };
    size_t n = (size_t)hidden;
    float *x = malloc(ROWS * n * sizeof *x);
    uint8_t *bytes = malloc(ROWS * codec_row_bytes(c, hidden));
    double best = 0;
    for (size_t i = 0; x && i < ROWS * n; i++)
        x[i] = (float)((double)(philox_u64(1, i, 0) >> 40) / (1 << 23) - 1);
    for (int k = 0; x && bytes && k < 5; k++) {
        double t0 = clock_ms();
        codec_encode(c, x, ROWS, hidden, bytes);
        (void)codec_decode(c, bytes, ROWS, hidden, x);
        double ms = (clock_ms() - t0) / ROWS;
        best = k == 0 || ms < best ? ms : best;
    }
    free(x);
    free(bytes);
    return best;
}

int bench_lane_open(struct bench_lane *l, struct bench_rig *r, const struct bench_lane_opts *o, struct err *e) {
    const struct engine *en = &r->en;
    *l = (struct bench_lane){.o = *o};
    bool asks = en->guesser && o->mode != SESSION_SEQUENTIAL;
    const struct draft_model source = asks ? guesser_source(en->guesser) : (struct draft_model){0};
    const struct drafter_opts dr = {
        .vocab = (uint32_t)en->config->vocab, .max_ctx = en->ctx, .store = r->store, .model = asks ? &source : NULL};
    if (connect_lane(l, r, e) != 0 || drafter_create(&l->drafter, &dr, e) != 0)
        goto fail;
    const struct session_drafter drafter = session_drafter_of(l->drafter);
    const struct session_opts so = {.front = en->stages[0],
                                    .back = en->stages[2],
                                    .middle = tunnel_middle(l->tunnel),
                                    .kv_type = engine_kv_type(en),
                                    .max_ctx = en->ctx,
                                    .max_rows = en->chunk,
                                    .prefill_windows = engine_cloud_windows(en),
                                    .speculation = {.mode = o->mode,
                                                    .drafter = &drafter,
                                                    .max_nodes = o->nodes,
                                                    .iterate = bench_iterates(o->mode) ? &en->o.iterate : NULL}};
    if (session_create(&l->session, &so, e) != 0)
        goto fail;
    l->path =
        (struct bench_path){.rtt_ms = o->rtt_ms > 0 ? o->rtt_ms : 0,
                            .mbit = o->rtt_ms < 0 ? 0 : o->mbit,
                            .row_bytes = (double)codec_row_bytes(o->codec, en->config->hidden),
                            .first_rows = (double)(WIRE_FIRST_PIECE / codec_row_bytes(o->codec, en->config->hidden)),
                            .row_ms = codec_ms(o->codec, en->config->hidden),
                            .whole = o->mode != SESSION_AUTO};
    return 0;
fail:
    bench_lane_close(l);
    return -1;
}

void bench_lane_close(struct bench_lane *l) {
    session_free(l->session);
    drafter_free(l->drafter);
    tunnel_close(l->tunnel);
    *l = (struct bench_lane){0};
}
