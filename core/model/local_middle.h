/* core/model/local_middle.h - the middle layers computed in this process. With lo == hi it passes activations through.
 * A boundary function stands for the codec that a wire would put between the parts, so that a local twin of a split run
 * sees the same numbers. */
#ifndef CORE_MODEL_LOCAL_MIDDLE_H
#define CORE_MODEL_LOCAL_MIDDLE_H

#include "core/model/backend.h"
#include "core/model/middle.h"

/* Rewrites x [n][hidden] as encoding and decoding would; applied on the way in and on the way out. */
typedef void (*boundary_fn)(void *ctx, float *x, int n, int hidden);

/* stage is borrowed and must hold the middle layers only. The middle has its own KV for max_ctx positions and max_live
 * nodes in flight. boundary may be NULL. */
int local_middle_create(struct middle **out, struct stage *stage, enum dtype kv_type, uint32_t max_ctx,
                        uint32_t max_live, int max_rows, boundary_fn boundary, void *boundary_ctx, struct err *e);

#endif
