/* gpu/gpu.h - one card in use: its context, streams, kernels and memory. Below the backend, above the driver.
 *
 * Work is enqueued in order on one stream. Launches and copies report nothing; the first failure is kept and gpu_wait
 * tells it, so that a pass reads as a list of steps. Host memory that copies use must be pinned (gpu_host_alloc) and
 * stay untouched until gpu_wait. One thread at a time. */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include "core/base/err.h"
#include "gpu/driver.h"

#include <stdbool.h>

struct gpu_kernels; /* cu_function of each kernel, by enum kernel of kernels.h */

struct gpu {
    const struct driver *driver;
    int ordinal;
    char name[96]; /* "NVIDIA H200" */
    int major, minor;
    int n_processors;
    size_t memory;     /* bytes on the card */
    size_t shared_max; /* bytes of shared memory a block may use */
    cu_context context;
    cu_stream stream; /* passes */
    cu_stream loads;  /* weights on their way in */
    cu_module module;
    struct gpu_kernels *kernels;
    bool recording;
    bool overlaps;         /* launches may begin before the one before them has ended: gpu_launch */
    cu_result failed;      /* first failure since gpu_wait */
    const char *failed_at; /* what it was */
};

/* Cards of this machine, by ordinal; ERR_DEVICE as driver_open. */
int gpu_count(int *n, struct err *e);

/* Opens card `ordinal` and loads the kernels. ERR_DEVICE: no such card, built without kernels, or none for this card's
 * architecture; ERR_MEMORY. */
int gpu_open(struct gpu **out, int ordinal, struct err *e);
void gpu_close(struct gpu *g);
/* Whether the program was built with kernels (by nvcc). */
bool gpu_built(void);

/* Device memory, zeroed. Out of memory is an ERR_MEMORY that says what for, how much was asked and how much was left,
 * and what helps (fewer layers, --quant, --ctx). */
int gpu_alloc(struct gpu *g, cu_ptr *p, size_t bytes, const char *what, struct err *e);
/* The same with any content, and without waiting for what is under way. */
int gpu_alloc_unset(struct gpu *g, cu_ptr *p, size_t bytes, const char *what, struct err *e);
void gpu_free(struct gpu *g, cu_ptr p);               /* 0 is fine; waits for the stream */
void gpu_wipe(struct gpu *g, cu_ptr p, size_t bytes); /* zeroes, in stream order */
size_t gpu_memory_left(struct gpu *g);
int gpu_host_alloc(struct gpu *g, void **p, size_t bytes, struct err *e);
void gpu_host_free(struct gpu *g, void *p, size_t bytes); /* wipes */

void gpu_copy_to(struct gpu *g, cu_ptr dst, const void *src, size_t bytes);
void gpu_copy_from(struct gpu *g, void *dst, cu_ptr src, size_t bytes);

/* Launches kernel (enum kernel) with one struct as its argument. Where the card and the driver can (compute capability
 * 9.0, CUDA 12.3) and SPLITINF_PDL=0 does not forbid it, what the kernel does before await_predecessor (simt.cuh) may
 * happen while the launches before it still run; copies, events and recordings it begins behind. */
void gpu_launch(struct gpu *g, int kernel, unsigned gx, unsigned gy, unsigned gz, unsigned threads, size_t shared,
                const void *args);

/* Makes the calling thread use this card (each entry of the backend calls it first). */
void gpu_enter(struct gpu *g);
/* Waits for all that was enqueued. -1: something failed since the last call (what is in e). */
int gpu_wait(struct gpu *g, struct err *e);

/* A place in the stream, to wait for what was enqueued before it and not for what comes behind. */
int gpu_event_create(struct gpu *g, cu_event *ev, struct err *e);
void gpu_event_free(struct gpu *g, cu_event ev); /* NULL is fine */
void gpu_event_record(struct gpu *g, cu_event ev);
bool gpu_event_wait(struct gpu *g, cu_event ev); /* false: something failed, gpu_wait tells */

/* A recorded sequence of launches: begin, enqueue, end; then it can be enqueued as one. Nothing runs while it is
 * recorded; no copies and no allocations in it. */
void gpu_record_begin(struct gpu *g);
/* NULL: failed, and gpu_wait tells; or there was no memory for a recording, and the steps are to be enqueued again. */
cu_graph_exec gpu_record_end(struct gpu *g);
void gpu_replay(struct gpu *g, cu_graph_exec x);
void gpu_forget(struct gpu *g, cu_graph_exec x);

#endif
