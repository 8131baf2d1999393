/* core/base/pool.h - persistent worker threads for compute kernels. The calling thread works too, so a pool of one
 * thread has no workers at all. Items are handed out dynamically (one atomic counter), so which thread computes an item
 * is not determined: an item's result must not depend on it. */
#ifndef CORE_BASE_POOL_H
#define CORE_BASE_POOL_H

#include "core/base/err.h"

struct pool;

/* Computes item number `item`; `worker` is 0 .. pool_threads-1 and indexes per-thread scratch. */
typedef void (*pool_fn)(void *ctx, int item, int worker);

/* n_threads 0: as many as this process may run on. */
int pool_create(struct pool **out, int n_threads, struct err *e);
void pool_free(struct pool *p);
int pool_threads(const struct pool *p);

/* Runs fn for items 0 .. n_items-1 and returns when all are done. Not reentrant; one caller at a time. */
void pool_run(struct pool *p, pool_fn fn, void *ctx, int n_items);

#endif
