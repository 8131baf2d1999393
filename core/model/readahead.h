/* core/model/readahead.h - a thread that asks the system for the bytes of tensors a little before somebody reads them,
 * so that the disk and the processor work at the same time. Only hints: without it everything is the same but slower.
 */
#ifndef CORE_MODEL_READAHEAD_H
#define CORE_MODEL_READAHEAD_H

#include "core/base/err.h"
#include "core/model/weights.h"

struct readahead;

/* t[0..n) in the order in which they will be read; copied. More may come behind them. */
int readahead_start(struct readahead **out, const struct tensor *t, int n, struct err *e);
int readahead_add(struct readahead *r, const struct tensor *t, int n, struct err *e);
void readahead_done(struct readahead *r, uint64_t bytes); /* so many more were used; NULL is fine */
void readahead_stop(struct readahead *r);                 /* NULL is fine */

#endif
