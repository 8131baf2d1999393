/* gpu/backend.h - the CUDA backend behind core/model/backend.h.
 *
 * Rows of x come and go through pinned host memory. Identity holds between passes of one card and one build. KV is f16
 * or fp8 (f32 is refused). With several devices the layers are dealt out to them in the order given and in proportion
 * to what memory each has left; x goes from one to the next through the host. Devices that are joined (0+1) are a team:
 * they compute the same layers together, with the bits of one card (team.h). */
#ifndef GPU_BACKEND_H
#define GPU_BACKEND_H

#include "core/model/backend.h"

struct cuda_opts {
    const char *devices; /* "0", "1,0", "0+1,2+3"; NULL: card 0 */
    bool fast;           /* products take activations as bf16 and multiply once (kernels.h) */
};

/* o: NULL for the defaults. ERR_DEVICE with a reason that can be shown when there is no such card. */
int backend_cuda_create(struct backend **out, const struct cuda_opts *o, struct err *e);

/* "cuda-sm90", as WELCOME names it, with "-fast" behind it where products are; "2 x NVIDIA H200, 141 GB, joined, driver
 * 13.0" for people. Valid as long as the backend. */
const char *backend_cuda_name(const struct backend *b);
const char *backend_cuda_describe(const struct backend *b);
/* Free memory of its cards; of a team as many times the least of them as it has cards. */
uint64_t backend_cuda_memory_left(const struct backend *b);

#endif
