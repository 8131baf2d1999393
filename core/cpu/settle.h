/* core/cpu/settle.h - packs raw matrices (cpu.h) behind the first pass: the first token waits for nothing but the bytes
 * of the file, and a little later products are as fast as packing at load makes them. Two do the work: a thread of low
 * priority, which has all the time in which nothing else runs, and after each pass the pool, for a time that follows
 * from that of the pass.
 *
 * Each stage has a settle; the stages of one backend share a gate. No settle begins before all of them have served
 * their first pass, and their threads work one after the other, so at most one competes with passes. */
#ifndef CORE_CPU_SETTLE_H
#define CORE_CPU_SETTLE_H

#include "core/cpu/cpu.h"

#include <pthread.h>

struct settle_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_unserved; /* settles that wait for their stage's first pass */
    bool busy;      /* a thread is working */
};
void settle_gate_init(struct settle_gate *g);
void settle_gate_free(struct settle_gate *g);

struct settle;

/* All that it will need is taken now. p[0..n), copied, in the order in which they become packed; they and what their
 * sources point at stay until settle_stop. c is borrowed. */
int settle_start(struct settle **out, struct settle_gate *g, const struct cpu *c, struct packed *const *p, int n,
                 struct err *e);
/* The stage has served a pass, which took so many milliseconds. From the second one on the threads of c, which must be
 * idle, pack for twice as long, up to a second. */
void settle_served(struct settle *s, double pass_ms);
/* Returns when the thread is gone: within some milliseconds. What is raw then stays raw. NULL is fine. */
void settle_stop(struct settle *s);

#endif
