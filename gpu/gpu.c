#include "gpu/gpu.h"

#include "core/base/wipe.h"
#include "gpu/kernel_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shared memory that a launch may have without asking for more: a block gets 48 KB, of which its kernel's own variables
 * take some. */
enum { SHARED_DEFAULT = 32 * 1024 };

/* The first driver that can record launches that overlap: graphs whose edges say so. */
enum { CUDA_OVERLAPS = 12030 };

int gpu_count(int *n, struct err *e) {
    char why[DRIVER_WHY];
    const struct driver *d = driver_open(e);
    if (!d)
        return -1;
    cu_result r = d->device_count(n);
    return r == 0 ? 0 : err_set(e, ERR_DEVICE, "cards cannot be counted: %s", driver_error(d, r, why, sizeof why));
}

static int tell(const struct gpu *g, cu_result r, const char *what, struct err *e) {
    char why[DRIVER_WHY];
    return err_set(e, r == CU_OUT_OF_MEMORY ? ERR_MEMORY : ERR_DEVICE, "GPU %d (%s): %s: %s", g->ordinal, g->name, what,
                   driver_error(g->driver, r, why, sizeof why));
}

static int find_card(struct gpu *g, cu_device *device, struct err *e) {
    const struct driver *d = g->driver;
    int n = 0;
    if (gpu_count(&n, e) != 0)
        return -1;
    if (g->ordinal < 0 || g->ordinal >= n)
        return err_set(e, ERR_DEVICE, "there is no GPU %d: this machine has %d (numbered from 0)", g->ordinal, n);
    cu_result r = d->device_get(device, g->ordinal);
    if (r == 0)
        r = d->device_name(g->name, sizeof g->name, *device);
    if (r == 0)
        r = d->device_memory(&g->memory, *device);
    struct {
        int attribute, *to;
    } wanted[] = {
        {CU_ATTR_MAJOR, &g->major},
        {CU_ATTR_MINOR, &g->minor},
        {CU_ATTR_MULTIPROCESSORS, &g->n_processors},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && r == 0; i++)
        r = d->device_attribute(wanted[i].to, wanted[i].attribute, *device);
    int shared = 0;
    if (r == 0)
        r = d->device_attribute(&shared, CU_ATTR_SHARED_OPTIN, *device);
    g->shared_max = (size_t)shared;
    return r == 0 ? 0 : tell(g, r, "the card does not say what it is", e);
}

static bool may_overlap(const struct gpu *g) {
    const char *v = getenv("SPLITINF_PDL");
    int version = 0;
    return g->major >= 9 && g->driver->driver_version(&version) == 0 && version >= CUDA_OVERLAPS &&
           !(v && strcmp(v, "0") == 0);
}

int gpu_open(struct gpu **out, int ordinal, struct err *e) {
    cu_device device = 0;
    *out = NULL;
    struct gpu *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_MEMORY, "out of memory");
    g->ordinal = ordinal;
    g->driver = driver_open(e);
    if (!g->driver || find_card(g, &device, e) != 0)
        goto fail;
    const struct driver *d = g->driver;
    cu_result r = d->context_retain(&g->context, device);
    if (r != 0) {
        g->context = NULL;
        (void)tell(g, r,
                   r == CU_OUT_OF_MEMORY
                       ? "its memory is full, and so it cannot be taken into use (nvidia-smi shows by "
                         "which processes)"
                       : "the card cannot be taken into use",
                   e);
        goto fail;
    }
    r = d->context_set(g->context);
    if (r == 0)
        r = d->stream_create(&g->stream, CU_STREAM_NON_BLOCKING);
    if (r == 0)
        r = d->stream_create(&g->loads, CU_STREAM_NON_BLOCKING);
    if (r != 0) {
        (void)tell(g, r, "no streams", e);
        goto fail;
    }
    g->overlaps = may_overlap(g);
    if (gpu_kernels_load(g, e) != 0)
        goto fail;
    *out = g;
    return 0;
fail:
    gpu_close(g);
    return -1;
}

void gpu_close(struct gpu *g) {
    if (!g)
        return;
    const struct driver *d = g->driver;
    if (g->context) {
        cu_device device = 0;
        gpu_enter(g);
        if (g->recording)
            gpu_forget(g, gpu_record_end(g));
        if (g->stream)
            (void)d->stream_sync(g->stream);
        if (g->loads)
            (void)d->stream_sync(g->loads);
        gpu_kernels_free(g);
        if (g->loads)
            (void)d->stream_destroy(g->loads);
        if (g->stream)
            (void)d->stream_destroy(g->stream);
        (void)d->context_set(NULL);
        if (d->device_get(&device, g->ordinal) == 0)
            (void)d->context_release(device);
    }
    free(g);
}

void gpu_enter(struct gpu *g) {
    cu_result r = g->driver->context_set(g->context);
    if (r != 0 && g->failed == 0) {
        g->failed = r;
        g->failed_at = "taking the card into use on this thread";
    }
}

/* Keeps the first failure. */
static void note(struct gpu *g, cu_result r, const char *what) {
    if (r == 0 || g->failed != 0)
        return;
    g->failed = r;
    g->failed_at = what;
}

int gpu_alloc_unset(struct gpu *g, cu_ptr *p, size_t bytes, const char *what, struct err *e) {
    *p = 0;
    cu_result r = g->driver->memory_alloc(p, bytes > 0 ? bytes : 1);
    if (r == 0)
        return 0;
    *p = 0;
    if (r == CU_OUT_OF_MEMORY)
        return err_set(e, ERR_MEMORY,
                       "GPU %d (%s) has no memory for %s: %.1f MB more are needed, %.1f of its %.1f MB are left; fewer "
                       "layers, --quant q8 or q4 and a smaller --ctx need less",
                       g->ordinal, g->name, what, (double)bytes / 1e6, (double)gpu_memory_left(g) / 1e6,
                       (double)g->memory / 1e6);
    (void)tell(g, r, "memory cannot be allocated", e);
    return err_wrap(e, "%s", what);
}

int gpu_alloc(struct gpu *g, cu_ptr *p, size_t bytes, const char *what, struct err *e) {
    if (gpu_alloc_unset(g, p, bytes, what, e) != 0)
        return -1;
    /* Complete on return: other streams and threads may use the memory at once. */
    cu_result r = g->driver->memory_set(*p, 0, bytes, g->stream);
    if (r == 0)
        r = g->driver->stream_sync(g->stream);
    if (r == 0)
        return 0;
    (void)g->driver->memory_free(*p);
    *p = 0;
    (void)tell(g, r, "memory cannot be allocated", e);
    return err_wrap(e, "%s", what);
}

void gpu_free(struct gpu *g, cu_ptr p) {
    if (!p)
        return;
    note(g, g->driver->stream_sync(g->stream), "the steps before memory was freed");
    note(g, g->driver->memory_free(p), "freeing memory");
}

void gpu_wipe(struct gpu *g, cu_ptr p, size_t bytes) {
    if (p && bytes > 0 && g->failed == 0)
        note(g, g->driver->memory_set(p, 0, bytes, g->stream), "wiping memory");
}

size_t gpu_memory_left(struct gpu *g) {
    size_t left = 0, all = 0;
    return g->driver->memory_info(&left, &all) == 0 ? left : 0;
}

int gpu_host_alloc(struct gpu *g, void **p, size_t bytes, struct err *e) {
    *p = NULL;
    cu_result r = g->driver->host_alloc(p, bytes > 0 ? bytes : 1, 0);
    if (r == 0)
        return 0;
    *p = NULL;
    char what[100];
    snprintf(what, sizeof what, "%.1f MB of this machine's memory cannot be pinned", (double)bytes / 1e6);
    return tell(g, r, what, e);
}

void gpu_host_free(struct gpu *g, void *p, size_t bytes) {
    if (!p)
        return;
    /* A copy that is under way would fill it again. */
    note(g, g->driver->stream_sync(g->stream), "the steps before memory was freed");
    wipe(p, bytes);
    note(g, g->driver->host_free(p), "freeing pinned memory");
}

void gpu_copy_to(struct gpu *g, cu_ptr dst, const void *src, size_t bytes) {
    if (bytes > 0 && g->failed == 0)
        note(g, g->driver->copy_to(dst, src, bytes, g->stream), "a copy to the card");
}

void gpu_copy_from(struct gpu *g, void *dst, cu_ptr src, size_t bytes) {
    if (bytes > 0 && g->failed == 0)
        note(g, g->driver->copy_from(dst, src, bytes, g->stream), "a copy from the card");
}

void gpu_launch(struct gpu *g, int kernel, unsigned gx, unsigned gy, unsigned gz, unsigned threads, size_t shared,
                const void *args) {
    struct gpu_kernels *k = g->kernels;
    void *params[] = {(void *)(uintptr_t)args}; /* the driver copies, and has no const */
    if (g->failed != 0)
        return;
    cu_result r = 0;
    if (shared > SHARED_DEFAULT && shared > k->shared[kernel]) {
        r = g->driver->function_set(k->functions[kernel], CU_FUNC_DYNAMIC_SHARED, (int)shared);
        k->shared[kernel] = r == 0 ? shared : 0;
    }
    if (r == 0 && k->awaits[kernel]) {
        struct cu_launch_attribute overlap = {.id = CU_LAUNCH_PROGRAMMATIC, .value.on = 1};
        const struct cu_launch_config c = {gx, gy, gz, threads, 1, 1, (unsigned)shared, g->stream, &overlap, 1};
        r = g->driver->launch_with(&c, k->functions[kernel], params, NULL);
    } else if (r == 0) {
        r = g->driver->launch(k->functions[kernel], gx, gy, gz, threads, 1, 1, (unsigned)shared, g->stream, params,
                              NULL);
    }
    note(g, r, kernel_name(kernel));
}

int gpu_wait(struct gpu *g, struct err *e) {
    note(g, g->driver->stream_sync(g->stream), "the steps of a pass");
    if (g->failed == 0)
        return 0;
    cu_result r = g->failed;
    g->failed = 0;
    return tell(g, r, g->failed_at, e);
}

int gpu_event_create(struct gpu *g, cu_event *ev, struct err *e) {
    *ev = NULL;
    cu_result r = g->driver->event_create(ev, CU_EVENT_NO_TIMING);
    if (r == 0)
        return 0;
    *ev = NULL;
    return tell(g, r, "no event", e);
}

void gpu_event_free(struct gpu *g, cu_event ev) {
    if (ev)
        note(g, g->driver->event_destroy(ev), "giving an event back");
}

void gpu_event_record(struct gpu *g, cu_event ev) {
    if (g->failed == 0)
        note(g, g->driver->event_record(ev, g->stream), "recording an event");
}

bool gpu_event_wait(struct gpu *g, cu_event ev) {
    if (g->failed == 0)
        note(g, g->driver->event_sync(ev), "the steps of a pass");
    return g->failed == 0;
}

void gpu_record_begin(struct gpu *g) {
    if (g->failed != 0)
        return;
    note(g, g->driver->capture_begin(g->stream, CU_CAPTURE_THREAD), "beginning to record");
    g->recording = g->failed == 0;
}

cu_graph_exec gpu_record_end(struct gpu *g) {
    cu_graph graph = NULL;
    cu_graph_exec x = NULL;
    if (!g->recording)
        return NULL;
    g->recording = false;
    /* Ended in any case: a stream that goes on recording would run nothing. */
    note(g, g->driver->capture_end(g->stream, &graph), "recording the steps of a pass");
    if (g->failed == 0) {
        cu_result r = g->driver->graph_instantiate(&x, graph, 0);
        if (r != 0)
            x = NULL;
        if (r != CU_OUT_OF_MEMORY)
            note(g, r, "making a graph of the steps of a pass");
    }
    if (graph)
        (void)g->driver->graph_destroy(graph);
    return x;
}

void gpu_replay(struct gpu *g, cu_graph_exec x) {
    if (x && g->failed == 0)
        note(g, g->driver->graph_launch(x, g->stream), "the recorded steps of a pass");
}

void gpu_forget(struct gpu *g, cu_graph_exec x) {
    if (x)
        note(g, g->driver->graph_exec_destroy(x), "forgetting recorded steps");
}
