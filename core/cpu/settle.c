#include "core/cpu/settle.h"

#include "core/base/clock.h"
#include "core/base/thread.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* NICE: against threads of a pass, which have 0. UNIT: panels that one thread packs at a time. The pool helps for HELP
 * times what the pass took: products of raw matrices take two or three times as long, so hurry is cheaper than
 * patience; up to HELP_MS, since somebody waits for the next token. */
enum { NICE = 10, UNIT = 4, HELP = 2, HELP_MS = 1000 };

/* A matrix in units of panels. Whoever packs the last one says that it is whole. */
struct job {
    struct packed *p;
    int first;       /* unit, counted over all jobs */
    atomic_int left; /* units */
};

struct settle {
    struct settle_gate *gate;
    const struct cpu *cpu;
    uint8_t *scratch; /* per thread of the pool, and one for the thread */
    size_t per_worker;
    pthread_t thread;
    bool started, served; /* served: under the gate's lock */
    atomic_bool stop;     /* set under the gate's lock, read anywhere */
    atomic_int next;      /* unit that nobody has taken yet */
    int n_units, n;
    struct job jobs[];
};

void settle_gate_init(struct settle_gate *g) {
    memset(g, 0, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

void settle_gate_free(struct settle_gate *g) {
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
}

/* Packs the next unit; false: all are taken. */
static bool pack_unit(struct settle *s, int worker) {
    if (atomic_load_explicit(&s->next, memory_order_relaxed) >= s->n_units)
        return false;
    int unit = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed), i = s->n - 1;
    if (unit >= s->n_units)
        return false;
    while (s->jobs[i].first > unit)
        i--;
    struct job *j = &s->jobs[i];
    int from = (unit - j->first) * UNIT, all = packed_n_panels(j->p), to = all - from < UNIT ? all : from + UNIT;
    packed_fill(j->p, s->cpu->isa, s->scratch + (size_t)worker * s->per_worker, from, to);
    if (atomic_fetch_sub_explicit(&j->left, 1, memory_order_acq_rel) == 1) {
        packed_settled(j->p);
        /* A product that began before may still read pages that are let go: it finds the same bytes, only slower. */
        tensor_done(&j->p->source);
    }
    return true;
}

/* Waits for the turn of the thread of s; false: it was stopped instead. */
static bool begin(struct settle *s) {
    struct settle_gate *g = s->gate;
    pthread_mutex_lock(&g->lock);
    while (!atomic_load(&s->stop) && (g->n_unserved > 0 || g->busy))
        pthread_cond_wait(&g->changed, &g->lock);
    bool go = !atomic_load(&s->stop);
    g->busy = g->busy || go;
    pthread_mutex_unlock(&g->lock);
    return go;
}

static void end(struct settle_gate *g) {
    pthread_mutex_lock(&g->lock);
    g->busy = false;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void *settle_main(void *arg) {
    struct settle *s = arg;
    const struct sched_param batch = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &batch); /* both are for this thread alone, and only wishes */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    if (!begin(s))
        return NULL;
    while (!atomic_load(&s->stop) && pack_unit(s, pool_threads(s->cpu->pool)))
        ;
    end(s->gate);
    return NULL;
}

struct help {
    struct settle *s;
    double until;
};

static void help(void *ctx, int item, int worker) {
    const struct help *h = ctx;
    (void)item;
    while (clock_ms() < h->until && pack_unit(h->s, worker))
        ;
}

int settle_start(struct settle **out, struct settle_gate *g, const struct cpu *c, struct packed *const *p, int n,
                 struct err *e) {
    *out = NULL;
    struct settle *s = calloc(1, sizeof *s + (size_t)n * sizeof *s->jobs);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    s->per_worker = 64;
    for (int i = 0; i < n; i++) {
        int units = (packed_n_panels(p[i]) + UNIT - 1) / UNIT;
        size_t need = packed_fill_scratch(p[i]);
        s->per_worker = need > s->per_worker ? need : s->per_worker;
        s->jobs[i].p = p[i];
        s->jobs[i].first = s->n_units;
        atomic_init(&s->jobs[i].left, units);
        s->n_units += units;
    }
    s->n = n;
    s->gate = g;
    s->cpu = c;
    s->scratch = aligned_alloc(64, s->per_worker * ((size_t)pool_threads(c->pool) + 1));
    pthread_mutex_lock(&g->lock);
    g->n_unserved++;
    pthread_mutex_unlock(&g->lock);
    if (!s->scratch) {
        err_set(e, ERR_MEMORY, "out of memory loading the model");
        goto fail;
    }
    if (thread_start(&s->thread, settle_main, s, "a thread that packs weights", e) != 0)
        goto fail;
    s->started = true;
    *out = s;
    return 0;
fail:
    settle_stop(s);
    return -1;
}

/* Returns whether all stages of the backend had served a pass before. */
static bool count_served(struct settle *s) {
    struct settle_gate *g = s->gate;
    pthread_mutex_lock(&g->lock);
    bool all = g->n_unserved == 0;
    if (!s->served) {
        s->served = true;
        if (--g->n_unserved == 0)
            pthread_cond_broadcast(&g->changed);
    }
    pthread_mutex_unlock(&g->lock);
    return all;
}

void settle_served(struct settle *s, double pass_ms) {
    if (!count_served(s) || atomic_load_explicit(&s->next, memory_order_relaxed) >= s->n_units)
        return;
    double ms = HELP * pass_ms;
    struct help h = {s, clock_ms() + (ms < HELP_MS ? ms : HELP_MS)};
    pool_run(s->cpu->pool, help, &h, pool_threads(s->cpu->pool));
}

void settle_stop(struct settle *s) {
    if (!s)
        return;
    (void)count_served(s); /* the others need not wait for it */
    pthread_mutex_lock(&s->gate->lock);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->gate->changed);
    pthread_mutex_unlock(&s->gate->lock);
    if (s->started)
        pthread_join(s->thread, NULL);
    free(s->scratch);
    free(s);
}
