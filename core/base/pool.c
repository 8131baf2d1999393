#include "core/base/pool.h"

#include "core/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
static inline void relax(void) {
    _mm_pause();
}
#elif defined(__aarch64__)
static inline void relax(void) {
    __asm__ volatile("yield");
}
#else
static inline void relax(void) {
}
#endif

/* Between two kernels of one pass a worker spins this long (25 to 50 us) before it sleeps: a pass is a few hundred short
 * runs, and a wake-up through the kernel costs more than most of them. Not for longer: behind a pass other threads wait
 * for this processor, to send what it computed. */
enum { SPINS = 1000 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

/* A run is a number of items left. Whoever counts it down owns an item, and the run is over when every item was
 * computed: nobody waits for a worker that came too late to get one (it may not even have a core). What an owner reads
 * of the run (fn, ctx, n_items) cannot change under it, since its own item keeps the run alive. */
struct pool {
    int n_threads;
    struct worker *workers; /* n_threads - 1 */
    int n_started;

    pool_fn fn;
    void *ctx;
    int n_items;
    atomic_int left; /* items that nobody has taken yet */
    atomic_int done; /* items that are computed */

    atomic_int n_asleep;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

/* Computes items until none is left to take. */
static void work(struct pool *p, int worker) {
    int left = atomic_load_explicit(&p->left, memory_order_acquire);
    while (left > 0) {
        if (!atomic_compare_exchange_weak_explicit(&p->left, &left, left - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        p->fn(p->ctx, p->n_items - left, worker);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        left = atomic_load_explicit(&p->left, memory_order_acquire);
    }
}

static bool idle(struct pool *p) {
    return atomic_load(&p->left) <= 0 && !atomic_load(&p->stop);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (;;) {
        for (int spins = 0; idle(p);) {
            if (++spins < SPINS) {
                relax();
                continue;
            }
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->n_asleep, 1);
            while (idle(p))
                pthread_cond_wait(&p->wake, &p->lock);
            atomic_fetch_sub(&p->n_asleep, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
    }
}

/* After left or stop was set (sequentially consistent against n_asleep: no wake-up is lost). */
static void wake(struct pool *p) {
    if (atomic_load(&p->n_asleep) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_run(struct pool *p, pool_fn fn, void *ctx, int n_items) {
    if (n_items <= 0)
        return;
    if (p->n_started == 0 || n_items == 1) {
        for (int i = 0; i < n_items; i++)
            fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n_items = n_items;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->left, n_items);
    wake(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) < n_items;) {
        if (++spins < SPINS)
            relax();
        else
            sched_yield(); /* more threads than cores: let the one that has the last item run */
    }
}

int pool_create(struct pool **out, int n_threads, struct err *e) {
    *out = NULL;
    if (n_threads <= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        n_threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    }
    struct pool *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory for the thread pool");
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    if (n_threads > 1) {
        p->workers = calloc((size_t)n_threads - 1, sizeof *p->workers);
        if (!p->workers) {
            pool_free(p);
            return err_set(e, ERR_MEMORY, "out of memory for %d threads", n_threads);
        }
    }
    for (int i = 0; i < n_threads - 1; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        w->index = i + 1;
        if (thread_start(&w->thread, worker_main, w, "a thread that computes", e) != 0) {
            pool_free(p);
            return -1;
        }
        p->n_started++;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    atomic_store(&p->stop, true);
    wake(p);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int pool_threads(const struct pool *p) {
    return p->n_threads;
}
