/* batch_load - what the thread that computes for all sessions (net/cloud/batch.h) costs and gives, without a network:
 *
 *   overhead    one row from port_post to port_take, with no layers between
 *   passes      time by number of rows
 *   throughput  decode steps per second of 1 and of 8 sessions
 *   prefill     latency of sessions that decode, alone and beside one that prefills
 *
 *   make build/test/bench/batch_load
 *   build/test/bench/batch_load [MODEL [THREADS [PREFILL [RTT_MS]]]]
 *
 * MODEL is random:llama-3.2-1b/8 unless named; its first and last layer are left out. RTT_MS: how long a client takes
 * from a result to its next window (0). Activations are noise. */
#include "core/base/clock.h"
#include "net/cloud/batch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_PEERS = 16, MAX_ROWS = 256, CHUNK = 256, CTX = 8192 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken;
static unsigned wakes;
static double rtt_ms;

static void wake(void *ctx) {
    (void)ctx;
    pthread_mutex_lock(&lock);
    wakes++;
    pthread_cond_signal(&woken);
    pthread_mutex_unlock(&lock);
}

static void die(const char *what) {
    fprintf(stderr, "batch_load: %s\n", what);
    exit(1);
}

struct client {
    struct port *port;
    uint32_t seq, id, len;
    uint32_t head, in_flight; /* rows without a result */
    int rows;                 /* of a window */
    uint32_t end;             /* positions to reach; 0: goes on */
    bool started, done;
    double sent_ms, due_ms, done_ms; /* due: the next window goes out */
    double *latency;
    int n_latency;
};

static struct batch_thread *batch;
static size_t hidden;
static float *noise;
static struct wire_hello mine;

static void post(struct port *p, struct wbuf *w) {
    memmove(w->p, w->p + WIRE_HEAD, w->n - WIRE_HEAD);
    w->n -= WIRE_HEAD;
    port_post(p, WIRE_SUBMIT, w);
}

static void connect_client(struct client *c, int who, int rows, uint32_t end) {
    struct err e = {0};
    struct pin pin;
    memset(&pin, who, sizeof pin);
    *c = (struct client){.rows = rows, .end = end};
    c->latency = calloc(1 << 16, sizeof *c->latency);
    c->port = port_open(batch, &pin, "load", &e);
    struct wbuf w = {0};
    struct wire_hello h = mine;
    h.ctx = CTX;
    h.live = 1024;
    wire_put_hello(&w, &h);
    memmove(w.p, w.p + WIRE_HEAD, w.n - WIRE_HEAD);
    w.n -= WIRE_HEAD;
    port_post(c->port, WIRE_HELLO, &w);
    wbuf_free(&w);
}

static void send_window(struct client *c) {
    static struct wbuf w;
    struct node nodes[CHUNK];
    uint32_t commit[CHUNK];
    int n = c->end && c->end - c->len < (uint32_t)c->rows ? (int)(c->end - c->len) : c->rows;
    int n_commit = 0;
    bool again = c->len + (uint32_t)n > CTX; /* from an empty context */
    for (uint32_t id = c->head + 1; id <= c->id && !again; id++)
        commit[n_commit++] = id;
    c->head = c->id;
    c->len = again ? 0 : c->len;
    for (int i = 0; i < n; i++) {
        nodes[i] = (struct node){c->id + 1, c->len ? c->id : NODE_NONE, c->len};
        c->len++;
        c->id++;
    }
    const struct wire_submit_parts s = {
        .seq = ++c->seq, .rewind = again, .commit = commit, .n_commit = n_commit, .nodes = nodes, .n_nodes = n};
    wbuf_clear(&w);
    wire_put_submit(&w, &s, CODEC_F16, (int)hidden, noise);
    c->in_flight = (uint32_t)n;
    c->sent_ms = clock_ms();
    post(c->port, &w);
}

/* One frame of c, if there is one. */
static bool receive(struct client *c, double now) {
    static struct wbuf out;
    struct err e = {0};
    struct wire_result r;
    wbuf_clear(&out);
    if (!port_take(c->port, &out))
        return false;
    port_sent(c->port, out.n);
    if (out.p[4] == WIRE_WELCOME) {
        c->started = true;
        c->due_ms = now;
        return true;
    }
    if (out.p[4] != WIRE_RESULT ||
        wire_get_result(out.p + WIRE_HEAD, out.n - WIRE_HEAD, codec_row_bytes(CODEC_F16, (int)hidden), &r, &e) != 0)
        die("not a RESULT");
    c->in_flight -= (uint32_t)r.n;
    if (!r.last)
        return true;
    if (c->n_latency < 1 << 16)
        c->latency[c->n_latency++] = now - c->sent_ms;
    c->due_ms = now + rtt_ms;
    if (c->end && c->len >= c->end) {
        c->done = true;
        c->done_ms = now;
    }
    return true;
}

/* Drives n clients for ms, or until the last one is done if it has an end. */
static void drive(struct client *c, int n, double ms) {
    double end = clock_ms() + ms;
    for (double now; (now = clock_ms()) < end && !(c[n - 1].end && c[n - 1].done);) {
        pthread_mutex_lock(&lock);
        unsigned before = wakes;
        pthread_mutex_unlock(&lock);
        bool any = false;
        double due = now + 50;
        for (int i = 0; i < n; i++) {
            while (receive(&c[i], now))
                any = true;
            if (c[i].started && c[i].in_flight == 0 && !c[i].done) {
                if (c[i].due_ms <= now)
                    send_window(&c[i]);
                else if (c[i].due_ms < due)
                    due = c[i].due_ms;
            }
        }
        if (any)
            continue;
        struct timespec t = {.tv_sec = (time_t)(due / 1e3), .tv_nsec = (long)((due - (time_t)(due / 1e3) * 1e3) * 1e6)};
        pthread_mutex_lock(&lock);
        if (wakes == before)
            pthread_cond_timedwait(&woken, &lock, &t);
        pthread_mutex_unlock(&lock);
    }
}

static void part_clients(struct client *c, int n) {
    for (int i = 0; i < n; i++) {
        struct wbuf none = {0};
        port_post(c[i].port, WIRE_BYE, &none);
        port_close(c[i].port);
        free(c[i].latency);
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double mean_of(const struct client *c, int n, double *median, double *p95) {
    static double all[MAX_PEERS << 16];
    size_t k = 0;
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < c[i].n_latency; j++)
            sum += all[k++] = c[i].latency[j];
    qsort(all, k, sizeof *all, by_size);
    *median = k ? all[k / 2] : 0;
    *p95 = k ? all[k * 95 / 100] : 0;
    return k ? sum / (double)k : 0;
}

static void start(struct stage *stage) {
    struct err e = {0};
    const struct batch_opts o = {.stage = stage,
                                 .mine = mine,
                                 .kv_bytes = (uint64_t)8 << 30,
                                 .max_sessions = 32,
                                 .max_ctx = CTX,
                                 .max_live = 1024,
                                 .max_rows = MAX_ROWS,
                                 .session_ttl_ms = 1000,
                                 .idle_ms = 1000,
                                 .backend_name = "cpu",
                                 .wake = wake};
    if (batch_start(&batch, &o, &e) != 0)
        die(e.msg);
}

static double decode(int n, double ms, double *median, double *p95) {
    struct client c[MAX_PEERS];
    struct batch_stats before, after;
    for (int i = 0; i < n; i++)
        connect_client(&c[i], i + 1, 1, 0);
    drive(c, n, ms / 3); /* warm */
    for (int i = 0; i < n; i++)
        c[i].n_latency = 0;
    batch_stats(batch, &before);
    double from = clock_ms();
    drive(c, n, ms);
    double took = clock_ms() - from;
    batch_stats(batch, &after);
    int steps = 0;
    for (int i = 0; i < n; i++)
        steps += c[i].n_latency;
    mean_of(c, n, median, p95);
    if (n > 1)
        printf("  %d sessions: %.2f rows per pass\n", n,
               (double)(after.rows - before.rows) / (double)(after.passes - before.passes));
    part_clients(c, n);
    return steps / took * 1e3;
}

int main(int argc, char **argv) {
    struct err e = {0};
    const char *model = argc > 1 ? argv[1] : "random:llama-3.2-1b/8";
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    uint32_t prefill = argc > 3 ? (uint32_t)atoi(argv[3]) : 4000;
    double rtt = argc > 4 ? atof(argv[4]) : 0;
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&woken, &a);

    struct weights *w;
    struct backend *b;
    struct stage *none = NULL, *middle = NULL;
    if (weights_open(&w, model, &e) != 0 || backend_cpu_create(&b, threads, NULL, &e) != 0)
        die(e.msg);
    const struct model_config *config = weights_config(w);
    hidden = (size_t)config->hidden;
    noise = malloc(CHUNK * hidden * sizeof *noise);
    for (size_t i = 0; i < CHUNK * hidden; i++)
        noise[i] = (float)(rand() % 2001 - 1000) / 1000;
    const struct part nothing = {.lo = 1, .hi = 1}, part = {.lo = 1, .hi = config->n_layers - 1};
    const struct load_opts lo = {.max_rows = MAX_ROWS};
    if (b->ops->stage_load(b, w, &nothing, &lo, &none, &e) != 0 ||
        b->ops->stage_load(b, w, &part, &lo, &middle, &e) != 0)
        die(e.msg);
    mine = (struct wire_hello){.version = WIRE_VERSION,
                               .codec = CODEC_F16,
                               .n_layers = (uint16_t)config->n_layers,
                               .lo = 1,
                               .hi = 1,
                               .hidden = (uint32_t)hidden};
    double median, p95;
    printf("%s, hidden %zu, %d middle layers\n", model, hidden, part.hi - part.lo);
    start(none);
    decode(1, 1000, &median, &p95);
    printf("overhead of a round trip, one row f16: median %.3f ms, 95%% %.3f ms\n", median, p95);
    batch_stop(batch);

    mine.hi = (uint16_t)part.hi;
    start(middle);
    for (int rows = 1; rows <= CHUNK; rows *= 2) {
        struct client c;
        struct batch_stats before, after;
        connect_client(&c, 1, rows, 0);
        drive(&c, 1, 300);
        batch_stats(batch, &before);
        drive(&c, 1, 1000);
        batch_stats(batch, &after);
        printf("pass of %3d rows: %.2f ms\n", rows,
               (after.busy_ms - before.busy_ms) / (double)(after.passes - before.passes));
        part_clients(&c, 1);
    }
    rtt_ms = rtt;
    double one = decode(1, 5000, &median, &p95);
    printf("1 session:  %.2f steps/s, latency median %.1f ms, 95%% %.1f ms\n", one, median, p95);
    double eight = decode(8, 5000, &median, &p95);
    printf("8 sessions: %.2f steps/s (%.2f times one), latency median %.1f ms, 95%% %.1f ms\n", eight, eight / one,
           median, p95);

    static const int counts[] = {1, 4};
    for (int k = 0; k < 2; k++) {
        int n = counts[k];
        struct client c[MAX_PEERS];
        for (int i = 0; i < n; i++)
            connect_client(&c[i], i + 1, 1, 0);
        drive(c, n, 2000);
        for (int i = 0; i < n; i++)
            c[i].n_latency = 0;
        drive(c, n, 4000);
        double alone = mean_of(c, n, &median, &p95), alone_median = median, alone_p95 = p95;
        for (int i = 0; i < n; i++)
            c[i].n_latency = 0;
        connect_client(&c[n], 99, CHUNK, prefill);
        double from = clock_ms();
        struct batch_stats before, after;
        batch_stats(batch, &before);
        drive(c, n + 1, 600e3);
        batch_stats(batch, &after);
        double took = clock_ms() - from, beside = mean_of(c, n, &median, &p95);
        printf(
            "%d decoding beside a prefill of %u: latency mean %.1f -> %.1f ms (%.2f times), median %.1f -> %.1f (%.2f "
            "times), 95%% %.1f -> %.1f; prefill %.1f s, %.1f rows per pass\n",
            n, prefill, alone, beside, beside / alone, alone_median, median, median / alone_median, alone_p95, p95,
            took / 1e3, (double)(after.rows - before.rows) / (double)(after.passes - before.passes));
        part_clients(c, n + 1);
    }
    struct client c;
    connect_client(&c, 99, CHUNK, prefill);
    double from = clock_ms();
    drive(&c, 1, 600e3);
    printf("the prefill alone: %.1f s\n", (clock_ms() - from) / 1e3);
    part_clients(&c, 1);
    batch_stop(batch);
    middle->ops->stage_free(middle);
    none->ops->stage_free(none);
    b->ops->free(b);
    weights_close(w);
    free(noise);
    return 0;
}
