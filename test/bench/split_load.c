/* split_load - many clients of one serve-cloud process at once, over real TLS, coming and going:
 *
 *   test/bench/split_load.sh [SESSIONS [SECONDS]]      starts the server and runs
 *   split_load HOME ADDRESS PIN MODEL SERVER_PID SESSIONS SECONDS GROWTH_MB
 *
 * Each session is a thread that connects, has a few of a list of talks, and goes again. One in four goes through a
 * relay whose connections are cut now and then; and there are processes besides that are killed in mid-talk, without a
 * goodbye. Every talk is held against what the model alone gave for it behind the same codec before: tokens, and a sum
 * over the bits of all logits. The server's resident memory is looked at every second. Exit status 1 when a talk came
 * out otherwise or not at all, or when memory grew by more than GROWTH_MB after the warm-up (0: does not matter). */
#include "core/base/clock.h"
#include "core/decode/session.h"
#include "core/model/local_middle.h"
#include "gpu/backend.h"
#include "net/client/remote_middle.h"
#include "net/codec.h"
#include "net/fingerprint.h"
#include "net/link.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHUNK = 32,
    CTX = 192,
    MAX_PROMPT = 120,
    TOKENS = 24,
    N_TALKS = 48,
    MAX_SESSIONS = 256,
    LINKS = 4,
    KILLERS = 3,
    PARTS = 5
};

struct talk {
    enum codec codec;
    struct sample_params sampling;
    uint32_t prompt[MAX_PROMPT], n_prompt;
    uint32_t tokens[TOKENS]; /* what has to come */
    uint64_t sum;
};

/* What all processes count; in shared memory. */
struct counts {
    atomic_ulong talks, tokens, wrong, failed, connections, refused, cuts, recoveries, kills;
    atomic_bool stop;
};

static struct counts *counts;
static struct weights *weights;
static const struct model_config *config;
static struct talk talks[N_TALKS];
static struct wire_hello hello;
static struct identity *id;
static struct remote_cloud straight, through[LINKS];
static char through_address[LINKS][32];
static struct link *links[LINKS];
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static _Noreturn void die(const char *what, const struct err *e) {
    fprintf(stderr, "split_load: %s: %s\n", what, e ? e->msg : strerror(errno));
    exit(2);
}

static uint32_t below(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* ---- a client's side ---- */

struct side {
    struct backend *backend;
    struct stage *front, *back;
};

static struct stage *load(struct backend *b, const struct part *part) {
    struct err e = {0};
    struct stage *s;
    const struct load_opts o = {.max_rows = CHUNK};
    pthread_mutex_lock(&loading);
    if (b->ops->stage_load(b, weights, part, &o, &s, &e) != 0)
        die("loading", &e);
    pthread_mutex_unlock(&loading);
    return s;
}

static void side_open(struct side *s) {
    struct err e = {0};
    const struct part front = {.lo = 0, .hi = hello.lo, .embed = true},
                      back = {.lo = hello.hi, .hi = config->n_layers, .head = true};
    if (backend_cpu_create(&s->backend, 1, NULL, &e) != 0)
        die("backend", &e);
    s->front = load(s->backend, &front);
    s->back = load(s->backend, &back);
}

static void side_close(struct side *s) {
    s->front->ops->stage_free(s->front);
    s->back->ops->stage_free(s->back);
    s->backend->ops->free(s->backend);
}

static struct session *session_over(const struct side *s, struct middle *m) {
    struct err e = {0};
    struct session *out;
    const struct session_opts o = {.front = s->front,
                                   .back = s->back,
                                   .middle = m,
                                   .kv_type = DT_F16,
                                   .max_ctx = CTX,
                                   .max_rows = CHUNK,
                                   .prefill_windows = SESSION_WINDOWS};
    if (session_create(&out, &o, &e) != 0)
        die("session", &e);
    return out;
}

static int talk_run(struct session *s, const struct talk *t, uint32_t tokens[TOKENS], uint64_t *sum, struct err *e) {
    if (session_feed(s, t->prompt, t->n_prompt, NULL, NULL, e) != 0)
        return -1;
    *sum = 14695981039346656037u;
    for (uint32_t i = 0; i < TOKENS; i++) {
        const float *logits = session_logits(s);
        for (int k = 0; k < config->vocab; k++) {
            uint32_t bits;
            memcpy(&bits, &logits[k], sizeof bits);
            *sum = (*sum ^ bits) * 1099511628211u;
        }
        if (session_sample(s, &t->sampling, i, &tokens[i], e) != 0 || session_advance(s, tokens[i], e) != 0)
            return -1;
    }
    return 0;
}

/* ---- what has to come ---- */

static void talks_make(void) {
    struct side side;
    uint64_t state = 5;
    struct err e = {0};
    const struct part part = {.lo = hello.lo, .hi = hello.hi};
    side_open(&side);
    struct backend *middle = side.backend;
    const char *there = getenv("SPLITINF_BACKEND"); /* what the cloud was told to compute with */
    if (there && strcmp(there, "cuda") == 0 && backend_cuda_create(&middle, NULL, &e) != 0)
        die("the cloud's backend", &e);
    struct stage *stage = load(middle, &part);
    for (int i = 0; i < N_TALKS; i++) {
        struct talk *t = &talks[i];
        struct middle *m;
        t->codec = (enum codec)(i % N_CODECS);
        sample_params_default(&t->sampling);
        t->sampling.temperature = i % 3 ? 0.8f : 0;
        t->sampling.top_p = 0.95f;
        t->sampling.seed = (uint64_t)i;
        t->n_prompt = 1 + below(&state, MAX_PROMPT);
        for (uint32_t k = 0; k < t->n_prompt; k++)
            t->prompt[k] = below(&state, (uint32_t)config->vocab);
        if (local_middle_create(&m, stage, DT_F16, CTX, hello.live, CHUNK, codec_boundary, &t->codec, &e) != 0)
            die("middle", &e);
        struct session *s = session_over(&side, m);
        if (talk_run(s, t, t->tokens, &t->sum, &e) != 0)
            die("a talk alone", &e);
        session_free(s);
        m->ops->free(m);
    }
    stage->ops->stage_free(stage);
    if (middle != side.backend)
        middle->ops->free(middle);
    side_close(&side);
}

/* ---- clients ---- */

static void on_event(void *ctx, enum remote_event what, const char *text) {
    (void)ctx;
    (void)text;
    counts->recoveries += what == REMOTE_RESUMED || what == REMOTE_REPLAY;
}

/* A cloud may be full of strangers for a moment. NULL: the load is over, or there is no way in. */
static struct middle *dial(const struct remote_cloud *where, enum codec codec) {
    struct err e = {0};
    struct middle *m;
    struct remote_opts o = {.id = id,
                            .clouds = where,
                            .n_clouds = 1,
                            .hello = hello,
                            .max_rows = CHUNK,
                            .connect_ms = 30000,
                            .stall_ms = 30000,
                            .event = on_event};
    o.hello.codec = (uint8_t)codec;
    for (int i = 0; i < 200 && !counts->stop; i++) {
        e = (struct err){0};
        if (remote_middle_create(&m, &o, &e) == 0) {
            counts->connections++;
            return m;
        }
        counts->refused++;
        usleep(50000);
    }
    if (!counts->stop) {
        counts->failed++;
        fprintf(stderr, "split_load: cannot connect: %s\n", e.msg);
    }
    return NULL;
}

/* One visit: a connection and a few talks over it. */
static void visit(const struct side *side, const struct remote_cloud *where, uint64_t *state) {
    enum codec codec = (enum codec)below(state, N_CODECS);
    struct middle *m = dial(where, codec);
    if (!m)
        return;
    struct session *s = session_over(side, m);
    for (uint32_t k = 1 + below(state, 6); k > 0 && !counts->stop; k--) {
        struct err e = {0};
        const struct talk *t = &talks[below(state, N_TALKS / N_CODECS) * N_CODECS + (uint32_t)codec];
        uint32_t tokens[TOKENS];
        uint64_t sum;
        if (talk_run(s, t, tokens, &sum, &e) != 0) {
            counts->failed++;
            fprintf(stderr, "split_load: a talk failed: %s\n", e.msg);
            break;
        }
        counts->talks++;
        counts->tokens += TOKENS;
        if (sum != t->sum || memcmp(tokens, t->tokens, sizeof tokens) != 0) {
            counts->wrong++;
            fprintf(stderr, "split_load: talk %d came out otherwise\n", (int)(t - talks));
        }
    }
    session_free(s);
    m->ops->free(m);
}

static void *client(void *arg) {
    int i = (int)(intptr_t)arg;
    uint64_t state = (uint64_t)i + 100;
    struct side side;
    side_open(&side);
    while (!counts->stop)
        visit(&side, i % 4 == 3 ? &through[i / 4 % LINKS] : &straight, &state);
    side_close(&side);
    return NULL;
}

static void *cutter(void *arg) {
    uint64_t state = 7;
    (void)arg;
    while (!counts->stop) {
        usleep(200000 + below(&state, 500000));
        link_cut(links[below(&state, LINKS)]);
        counts->cuts++;
    }
    return NULL;
}

/* A process whose children have talks and are killed. Forked while there are no threads. */
static pid_t killer(int which) {
    uint64_t state = (uint64_t)which + 9000;
    pid_t me = fork();
    if (me != 0)
        return me;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* of this process when the one above ends, however it does */
    while (!counts->stop) {
        pid_t child = fork();
        if (child < 0)
            _exit(2);
        if (child == 0) {
            struct side side;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            side_open(&side);
            for (state += (uint64_t)counts->kills * 77;;)
                visit(&side, &straight, &state);
        }
        usleep(150000 + below(&state, 900000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        counts->kills++;
    }
    _exit(0);
}

/* ---- */

static double resident_mb(pid_t pid) {
    char path[40];
    unsigned long all, pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%lu %lu", &all, &pages) != 2)
        die("the server is gone", NULL);
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static void links_start(const char *address) {
    struct err e = {0};
    for (int i = 0; i < LINKS; i++) {
        const struct link_opts o = {.port = (uint16_t)atoi(strrchr(address, ':') + 1)};
        if (link_start(&links[i], &o, &e) != 0)
            die("relay", &e);
        snprintf(through_address[i], sizeof through_address[i], "127.0.0.1:%u", link_port(links[i]));
        through[i] = straight;
        through[i].address = through_address[i];
    }
}

int main(int argc, char **argv) {
    struct err e = {0};
    pthread_t clients[MAX_SESSIONS], cut;
    pid_t killers[KILLERS];
    if (argc != 9) {
        fprintf(stderr, "usage: split_load HOME ADDRESS PIN MODEL SERVER_PID SESSIONS SECONDS GROWTH_MB\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    pid_t server = (pid_t)atoi(argv[5]);
    int n = atoi(argv[6]), seconds = atoi(argv[7]);
    double growth = atof(argv[8]);
    n = n < 1 ? 1 : n < MAX_SESSIONS ? n : MAX_SESSIONS;
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        die("memory", NULL);
    if (identity_open(&id, argv[1], &e) != 0 || pin_parse(&straight.pin, argv[3], &e) != 0 ||
        weights_open(&weights, argv[4], &e) != 0)
        die("starting", &e);
    straight.address = argv[2];
    straight.has_pin = true;
    config = weights_config(weights);
    if (fingerprint_hello(weights, 1, config->n_layers - 1, &hello, &e) != 0)
        die("the model", &e);
    hello.ctx = CTX;
    hello.live = session_live(CHUNK, SESSION_WINDOWS);
    talks_make();

    for (int i = 0; i < KILLERS; i++)
        if ((killers[i] = killer(i)) < 0)
            die("fork", NULL);
    links_start(argv[2]);
    double from = clock_ms();
    for (int i = 0; i < n; i++)
        if (pthread_create(&clients[i], NULL, client, (void *)(intptr_t)i) != 0)
            die("thread", NULL);
    if (pthread_create(&cut, NULL, cutter, NULL) != 0)
        die("thread", NULL);

    int warm = seconds > 20 ? 10 : seconds / 2;
    double first = 0, last = 0, most = 0, part[PARTS] = {0};
    /* On a slow machine longer, until there is something to judge by. */
    for (int s = 1; s <= seconds || (counts->talks < (unsigned long)n && s < seconds + 300); s++) {
        usleep((useconds_t)1e6);
        last = resident_mb(server);
        first = s == warm ? last : first;
        most = s >= warm && last > most ? last : most;
        int k = s <= warm || s > seconds ? -1 : (s - warm - 1) * PARTS / (seconds - warm);
        if (k >= 0 && last > part[k])
            part[k] = last;
        if (s % 10 == 0)
            printf("%3d s: %lu talks, %lu tokens, resident %.1f MB\n", s, (unsigned long)counts->talks,
                   (unsigned long)counts->tokens, last);
    }
    double took = (clock_ms() - from) / 1e3;
    unsigned long tokens = counts->tokens;
    counts->stop = true;
    for (int i = 0; i < n; i++)
        pthread_join(clients[i], NULL);
    pthread_join(cut, NULL);
    for (int i = 0; i < KILLERS; i++)
        waitpid(killers[i], NULL, 0);
    for (int i = 0; i < LINKS; i++)
        link_stop(links[i]);
    printf("%d sessions, %.0f s: %.1f tokens/s, %lu texts compared, %lu wrong, %lu failed; %lu connections (%lu tries "
           "refused), %lu cuts, %lu recoveries, %lu clients killed; resident %.1f MB at %d s, %.1f MB at the end, at "
           "most %.1f MB\n",
           n, took, (double)tokens / took, (unsigned long)counts->talks, (unsigned long)counts->wrong,
           (unsigned long)counts->failed, (unsigned long)counts->connections, (unsigned long)counts->refused,
           (unsigned long)counts->cuts, (unsigned long)counts->recoveries, (unsigned long)counts->kills, first, warm,
           last, most);
    printf("resident at most, in each fifth of the time after that:");
    for (int k = 0; k < PARTS; k++)
        printf(" %.1f", part[k]);
    printf(" MB\n");
    bool good = counts->wrong == 0 && counts->failed == 0 && counts->talks >= (unsigned long)n;
    if (growth > 0 && most > first + growth) {
        fprintf(stderr, "split_load: the server grew by %.1f MB\n", most - first);
        good = false;
    }
    weights_close(weights);
    identity_free(id);
    return good ? 0 : 1;
}
