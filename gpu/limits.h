/* gpu/limits.h - what a card can do at best, measured: the figures that kernels are held against. */
#ifndef GPU_LIMITS_H
#define GPU_LIMITS_H

#include "core/base/err.h"
#include "gpu/gpu.h"

struct gpu_limits {
    double copy_bytes_s;  /* device to device, bytes read and bytes written both counted */
    double matrix_flop_s; /* a large product in bf16; 0: not measured */
    char matrix_by[500];  /* "cuBLASLt 13.1.0, bf16, 8192 x 8192 x 8192", or why it was not measured */
};

enum { LIMITS_MATRIX = 8192 };
#define LIMITS_COPY ((size_t)1 << 30)

/* copy: bytes of each of the two buffers (LIMITS_COPY, or what a card has room for); matrix: rows and columns of the
 * product (LIMITS_MATRIX), 0 for none. The best of several runs. Takes a second. */
int gpu_limits_measure(struct gpu *g, size_t copy, int matrix, struct gpu_limits *out, struct err *e);

/* The time that the card took for what was enqueued between begin and end, in milliseconds: end waits for it. */
struct gpu_clock {
    cu_event from, to;
};
int gpu_clock_create(struct gpu_clock *c, struct gpu *g, struct err *e);
void gpu_clock_begin(struct gpu_clock *c, struct gpu *g);
int gpu_clock_end(struct gpu_clock *c, struct gpu *g, double *ms, struct err *e);
void gpu_clock_free(struct gpu_clock *c, struct gpu *g);

#endif
