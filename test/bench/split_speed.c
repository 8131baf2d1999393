/* split_speed - what a serve-cloud process gives to several clients at once, over real TLS:
 *
 *   throughput  decode steps per second of 1 and of 8 sessions (weights are read once per pass)
 *   prefill     latency of sessions that decode, alone and beside one that prefills, from its first row to its last
 *   many        with SESSIONS, in place of both: the rate of so many together, and of the slowest and the fastest
 *
 *   test/bench/split_speed.sh [MODEL [PREFILL [SECONDS [SESSIONS [KV_MEM [CTX]]]]]]      starts the server and runs
 *   split_speed HOME ADDRESS PIN MODEL PREFILL SECONDS [SESSIONS [CTX]]
 *
 * Clients are remote middles that send noise and compute no layers of their own, so that the processor is the cloud's.
 * The server has all layers but the first and the last. Exit status 1 when 8 sessions give less than 3 times one, or a
 * prefill makes decoding take twice as long. test/bench/batch_load.c is the same without a network. */
#include "core/base/clock.h"
#include "core/decode/session.h"
#include "net/client/remote_middle.h"
#include "net/fingerprint.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CLIENTS = 256, CHUNK = 256, MOST = 1 << 16, ROUNDS = 3 };

static const double TIMES_8 = 3, TIMES_PREFILL = 2; /* what issue 3 asks for */

struct client {
    pthread_t thread;
    struct middle *m;
    int rows;     /* of a window */
    int windows;  /* in flight */
    uint32_t end; /* positions to reach; 0: goes on until told */
    uint32_t id, sent, head;
    _Atomic uint32_t len;
    float *x;        /* [CHUNK][hidden] of results */
    double *latency; /* [MOST] */
    int n_latency;
};

static struct remote_opts options;
static struct remote_cloud cloud;
static size_t hidden;
static uint32_t max_ctx = 6144;
static float *noise;
static atomic_bool stop, record;

static _Noreturn void die(const char *what, const struct err *e) {
    fprintf(stderr, "split_speed: %s: %s\n", what, e->msg);
    exit(2);
}

static void send_window(struct client *c, struct err *e) {
    struct node nodes[CHUNK];
    int n = c->end && c->end - c->sent < (uint32_t)c->rows ? (int)(c->end - c->sent) : c->rows;
    if (c->sent + (uint32_t)n > max_ctx) { /* from an empty context; nothing is in flight, for it decodes */
        if (c->m->ops->rewind(c->m, 0, NODE_NONE, e) != 0)
            die("rewind", e);
        c->sent = 0;
        c->len = 0;
        c->head = c->id;
    }
    for (int i = 0; i < n; i++, c->sent++, c->id++)
        nodes[i] = (struct node){c->id + 1, c->sent ? c->id : NODE_NONE, c->sent};
    const struct window w = {nodes, n};
    if (c->m->ops->submit(c->m, &w, noise, e) != 0)
        die("submit", e);
}

/* What came is committed. */
static void take_results(struct client *c, struct err *e) {
    uint32_t ids[CHUNK];
    struct middle_result r = {.ids = ids, .x = c->x, .cap = CHUNK};
    if (c->m->ops->collect(c->m, &r, -1, e) <= 0)
        die("collect", e);
    if (r.n && c->m->ops->commit(c->m, ids, r.n, e) != 0)
        die("commit", e);
    c->len += (uint32_t)r.n;
}

static void *run(void *arg) {
    struct client *c = arg;
    struct err e = {0};
    while (c->end ? c->len < c->end : !stop) {
        double t = clock_ms();
        while (c->sent - c->len < (uint32_t)(c->rows * c->windows) && !(c->end && c->sent == c->end))
            send_window(c, &e);
        take_results(c, &e);
        if (c->windows == 1)
            while (c->len < c->sent)
                take_results(c, &e);
        if (record && c->n_latency < MOST)
            c->latency[c->n_latency++] = clock_ms() - t;
    }
    return NULL;
}

static void start(struct client *c, int rows, int windows, uint32_t end) {
    struct err e = {0};
    memset(c, 0, sizeof *c);
    c->rows = rows;
    c->windows = windows;
    c->end = end;
    c->x = malloc(CHUNK * hidden * sizeof *c->x);
    c->latency = malloc(MOST * sizeof *c->latency);
    if (!c->x || !c->latency)
        die("out of memory", &e);
    if (remote_middle_create(&c->m, &options, &e) != 0)
        die("connecting", &e);
    pthread_create(&c->thread, NULL, run, c);
}

static void finish(struct client *c, int n) {
    stop = true;
    for (int i = 0; i < n; i++) {
        pthread_join(c[i].thread, NULL);
        c[i].m->ops->free(c[i].m);
        free(c[i].x);
        free(c[i].latency);
    }
    stop = false;
}

static void wait_s(double s) {
    usleep((useconds_t)(s * 1e6));
}

struct latency {
    double mean, median, p95, steps; /* ms; steps per second */
};

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Of what was recorded since from_ms, and forgets it. Nothing is being recorded. */
static struct latency latency_of(struct client *c, int n, double from_ms, double to_ms) {
    struct latency l = {0};
    size_t k = 0;
    double *all = malloc((size_t)n * MOST * sizeof *all);
    if (!all)
        die("out of memory", &(struct err){0});
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < c[i].n_latency; j++)
            l.mean += all[k++] = c[i].latency[j];
        c[i].n_latency = 0;
    }
    if (k > 0) {
        qsort(all, k, sizeof *all, by_size);
        l.mean /= (double)k;
        l.median = all[k / 2];
        l.p95 = all[k * 95 / 100];
        l.steps = (double)k / (to_ms - from_ms) * 1e3;
    }
    free(all);
    return l;
}

static double recording(bool on) {
    record = on;
    if (!on)
        wait_s(0.5); /* those who are writing their last one */
    return clock_ms();
}

static struct client clients[MAX_CLIENTS];

static struct latency decode(int n, double seconds, bool stay) {
    for (int i = 0; i < n; i++)
        start(&clients[i], 1, 1, 0);
    wait_s(seconds / 3);
    double from = recording(true);
    wait_s(seconds);
    double to = clock_ms();
    recording(false);
    struct latency l = latency_of(clients, n, from, to);
    if (!stay)
        finish(clients, n);
    return l;
}

/* Prefills n positions to the end: how many a second. */
static double prefill(uint32_t n) {
    struct client *c = calloc(1, sizeof *c);
    start(c, CHUNK, SESSION_WINDOWS, n);
    double from = clock_ms();
    pthread_join(c->thread, NULL);
    double speed = c->len / (clock_ms() - from) * 1e3;
    c->m->ops->free(c->m);
    free(c->x);
    free(c->latency);
    free(c);
    return speed;
}

/* What else runs on the machine only ever takes away: of several rounds, each of the two is taken at its best. */
static bool throughput(double seconds) {
    struct latency one = {0}, eight = {0};
    for (int i = 0; i < ROUNDS; i++) {
        struct latency l = decode(1, seconds, false);
        one = l.steps > one.steps ? l : one;
        l = decode(8, seconds, false);
        eight = l.steps > eight.steps ? l : eight;
    }
    printf("1 session:  %.2f steps/s, latency median %.1f ms, 95%% %.1f ms\n", one.steps, one.median, one.p95);
    printf("8 sessions: %.2f steps/s, %.2f times one, latency median %.1f ms, 95%% %.1f ms\n", eight.steps,
           eight.steps / one.steps, eight.median, eight.p95);
    return eight.steps >= TIMES_8 * one.steps;
}

static void print_latency(const char *when, const struct latency *l) {
    printf("  %-16s mean %7.1f  median %7.1f  95%% %7.1f ms\n", when, l->mean, l->median, l->p95);
}

/* Both are measured on either side of the prefill too, so that a machine that was slower in the meantime shows. */
static bool beside_prefill(int n, uint32_t n_prefill, double seconds) {
    struct latency before = decode(n, seconds, true);
    double from = recording(true), speed = prefill(n_prefill), to = clock_ms();
    recording(false);
    struct latency beside = latency_of(clients, n, from, to);
    from = recording(true);
    wait_s(seconds);
    to = clock_ms();
    recording(false);
    struct latency after = latency_of(clients, n, from, to);
    finish(clients, n);
    double mean = (before.mean + after.mean) / 2, median = (before.median + after.median) / 2,
           p95 = (before.p95 + after.p95) / 2;
    printf("%d decoding beside a prefill of %u (%.1f rows a second):\n", n, n_prefill, speed);
    print_latency("alone, before", &before);
    print_latency("beside", &beside);
    print_latency("alone, after", &after);
    printf("  %-16s mean %7.2f  median %7.2f  95%% %7.2f times\n", "grows", beside.mean / mean, beside.median / median,
           beside.p95 / p95);
    return beside.mean < TIMES_PREFILL * mean && beside.median < TIMES_PREFILL * median;
}

/* n clients that decode: all together, and how much less than the fastest the slowest gets. */
static bool many(int n, double seconds) {
    int least = MOST, most = 0;
    for (int i = 0; i < n; i++)
        start(&clients[i], 1, 1, 0);
    wait_s(seconds / 3);
    double from = recording(true);
    wait_s(seconds);
    double to = clock_ms();
    recording(false);
    for (int i = 0; i < n; i++) {
        least = clients[i].n_latency < least ? clients[i].n_latency : least;
        most = clients[i].n_latency > most ? clients[i].n_latency : most;
    }
    struct latency l = latency_of(clients, n, from, to);
    finish(clients, n);
    double s = (to - from) / 1e3;
    printf("%d sessions: %.1f tokens/s together; the slowest %.2f/s, the fastest %.2f/s (%.2f of it); a step takes "
           "%.1f ms "
           "in the median, %.1f at 95%%\n",
           n, l.steps, least / s, most / s, most ? (double)least / most : 0, l.median, l.p95);
    return least > 0;
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct identity *id;
    struct weights *w;
    if (argc < 7 || argc > 9) {
        fprintf(stderr, "usage: split_speed HOME ADDRESS PIN MODEL PREFILL SECONDS [SESSIONS [CTX]]\n");
        return 2;
    }
    int n_many = argc > 7 ? atoi(argv[7]) : 0;
    n_many = n_many < MAX_CLIENTS ? n_many : MAX_CLIENTS;
    max_ctx = argc > 8 ? (uint32_t)atoi(argv[8]) : max_ctx;
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint32_t n_prefill = (uint32_t)atoi(argv[5]);
    double seconds = atof(argv[6]);
    if (identity_open(&id, argv[1], &e) != 0 || pin_parse(&cloud.pin, argv[3], &e) != 0 ||
        weights_open(&w, argv[4], &e) != 0)
        die("starting", &e);
    cloud.address = argv[2];
    cloud.has_pin = true;
    options = (struct remote_opts){.id = id, .clouds = &cloud, .n_clouds = 1, .max_rows = CHUNK};
    const struct model_config *config = weights_config(w);
    if (fingerprint_hello(w, 1, config->n_layers - 1, &options.hello, &e) != 0)
        die("the model", &e);
    options.hello.codec = CODEC_F16;
    options.hello.ctx = max_ctx;
    options.hello.live = n_many ? 8 : session_live(CHUNK, SESSION_WINDOWS);
    hidden = (size_t)config->hidden;
    noise = malloc(CHUNK * hidden * sizeof *noise);
    for (size_t i = 0; i < CHUNK * hidden; i++)
        noise[i] = (float)(rand() % 2001 - 1000) / 1000;

    printf("%s, hidden %zu, %d middle layers\n", argv[4], hidden, config->n_layers - 2);
    bool good = n_many ? many(n_many, seconds) : throughput(seconds);
    const int counts[] = {1, 8};
    for (int k = 0; k < 2 && n_prefill && !n_many; k++)
        good = beside_prefill(counts[k], n_prefill, seconds) && good;
    weights_close(w);
    identity_free(id);
    free(noise);
    return good ? 0 : 1;
}
