#include "core/cpu/settle.h"

#include "core/base/thread.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Against threads of a pass, which have 0: a third of a processor that both want, all of one that is idle. Less would
 * keep products slow for longer than it keeps passes undisturbed. */
enum { NICE = 3 };

struct settle {
    struct settle_gate *gate;
    const struct cpu_isa *isa;
    void *scratch;
    pthread_t thread;
    bool started, served; /* served: under the gate's lock */
    atomic_bool stop;     /* set under the gate's lock, read anywhere */
    int n;
    struct packed *p[];
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

/* Waits for the turn of s; false: it was stopped instead. */
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
    /* A product that began before may still read pages that are let go: it finds the same bytes again, only slower. */
    for (int i = 0; i < s->n && packed_settle(s->p[i], s->isa, s->scratch, &s->stop); i++)
        tensor_done(&s->p[i]->source);
    end(s->gate);
    return NULL;
}

int settle_start(struct settle **out, struct settle_gate *g, const struct cpu *c, struct packed *const *p, int n,
                 struct err *e) {
    *out = NULL;
    size_t scratch = 64;
    struct settle *s = calloc(1, sizeof *s + (size_t)n * sizeof *p);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory loading the model");
    for (int i = 0; i < n; i++)
        scratch = packed_settle_scratch(p[i]) > scratch ? packed_settle_scratch(p[i]) : scratch;
    s->gate = g;
    s->isa = c->isa;
    s->scratch = aligned_alloc(64, scratch);
    s->n = n;
    memcpy(s->p, p, (size_t)n * sizeof *p);
    atomic_init(&s->stop, false);
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

void settle_served(struct settle *s) {
    struct settle_gate *g = s->gate;
    pthread_mutex_lock(&g->lock);
    if (!s->served) {
        s->served = true;
        if (--g->n_unserved == 0)
            pthread_cond_broadcast(&g->changed);
    }
    pthread_mutex_unlock(&g->lock);
}

void settle_stop(struct settle *s) {
    if (!s)
        return;
    settle_served(s); /* the others need not wait for it */
    pthread_mutex_lock(&s->gate->lock);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->gate->changed);
    pthread_mutex_unlock(&s->gate->lock);
    if (s->started)
        pthread_join(s->thread, NULL);
    free(s->scratch);
    free(s);
}
