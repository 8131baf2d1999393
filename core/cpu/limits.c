#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { FMA_ROUNDS = 200000, ITEMS_PER_THREAD = 4, REPEATS = 6 };
#define READ_BYTES ((size_t)256 << 20)
#define READ_ITEM  ((size_t)1 << 20)

struct probe {
    const struct cpu_isa *isa;
    const uint8_t *mem;
    int rounds;
    atomic_uint sink;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fma_item(void *ctx, int item, int worker) {
    struct probe *p = ctx;
    (void)item, (void)worker;
    atomic_fetch_add(&p->sink, (unsigned)p->isa->fma_rounds(p->rounds));
}

static void read_item(void *ctx, int item, int worker) {
    struct probe *p = ctx;
    (void)worker;
    atomic_fetch_add(&p->sink, p->isa->read_bytes(p->mem + (size_t)item * READ_ITEM, READ_ITEM));
}

static double best_time(struct cpu *c, pool_fn fn, struct probe *p, int n_items) {
    double best = 1e30;
    for (int i = 0; i < REPEATS; i++) {
        double t = now();
        pool_run(c->pool, fn, p, n_items);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

void cpu_measure_limits(struct cpu *c, struct cpu_limits *out) {
    struct probe p = {.isa = c->isa, .rounds = strcmp(c->isa->name, "portable") == 0 ? FMA_ROUNDS / 100 : FMA_ROUNDS};
    int n = pool_threads(c->pool) * ITEMS_PER_THREAD;
    double flop = 2.0 * PANEL * c->isa->fma_chains * p.rounds * n;
    *out = (struct cpu_limits){.fma_flop_s = flop / best_time(c, fma_item, &p, n)};
    void *mem = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return; /* read_bytes_s stays 0: not measured */
    madvise(mem, READ_BYTES, MADV_HUGEPAGE);
    memset(mem, 1, READ_BYTES);
    p.mem = mem;
    out->read_bytes_s = (double)READ_BYTES / best_time(c, read_item, &p, (int)(READ_BYTES / READ_ITEM));
    munmap(mem, READ_BYTES);
}
