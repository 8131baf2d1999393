/* test/gpu/emu/libcuda.cpp - the functions of gpu/driver.h over emulated cards.
 *
 * Stricter than a card: every handle, range and context is checked, and what a card would let pass or answer with a
 * crash (a copy from memory that is not pinned, a range that is no allocation) fails here with a line on stderr.
 *
 *   EMU_DEVICES=2        how many cards
 *   EMU_MEMORY=BYTES     memory of each (1 GiB)
 *   EMU_FAIL=N           the Nth launch or allocation from cuInit on fails (emu_fail does the same at any time)
 *   EMU_SEED=N           another order of blocks and threads */
#include "test/gpu/emu/block.h"
#include "test/gpu/emu/memory.h"

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "gpu/driver.h"
}

#define API extern "C" __attribute__((visibility("default")))

enum {
    INVALID_VALUE = 1,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

enum { MAX_DEVICES = 8, SHARED_DEFAULT = 48 * 1024, SHARED_OPTIN = 99 * 1024 };

struct CUctx_st {
    int ordinal;
    int n_retained;
};
struct CUmod_st {
    CUctx_st *context;
    std::vector<struct CUfunc_st *> functions;
};
struct CUfunc_st {
    CUctx_st *context;
    const emu::kernel *kernel;
    int shared_max;
};
struct launch {
    const emu::kernel *kernel;
    emu::dim grid;
    int threads;
    size_t shared;
    std::shared_ptr<void> arg;
};
struct CUgraph_st {
    CUctx_st *context;
    std::vector<launch> launches;
};
struct CUgraphExec_st {
    CUctx_st *context;
    std::vector<launch> launches;
};
struct CUstream_st {
    CUctx_st *context;
    bool capturing, spoiled;
    std::vector<launch> captured;
};
struct CUevent_st {
    CUctx_st *context;
    bool timed, recorded;
    std::chrono::steady_clock::time_point at;
};

static std::mutex mutex;
static bool started;
static int n_devices = 2;
static size_t memory_bytes = (size_t)1 << 30;
static int fail_in; /* so many launches and allocations from now; 0: never */
static int n_leaked;
static CUctx_st contexts[MAX_DEVICES];
static pthread_key_t current_key;
static std::set<const void *> alive; /* handles */

/* What was wrong with a call, for whoever reads the test's output. */
static cu_result wrong(cu_result r, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    fputs("emulated card: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    return r;
}

static CUctx_st *current() {
    return started ? (CUctx_st *)pthread_getspecific(current_key) : nullptr;
}

/* 0 when h is alive and belongs to the calling thread's context. */
template <class H> static cu_result check(const H *h, const char *call) {
    if (!current())
        return wrong(INVALID_CONTEXT, "%s without a current context", call);
    if (!alive.count(h))
        return wrong(INVALID_HANDLE, "%s with a handle that does not exist (any more)", call);
    if (h->context != current())
        return wrong(INVALID_HANDLE, "%s with a handle of card %d while card %d is current", call, h->context->ordinal,
                     current()->ordinal);
    return 0;
}

/* The same for a stream that shall do what cannot be recorded. */
static cu_result check_running(cu_stream s, const char *call) {
    cu_result r = check(s, call);
    if (r == 0 && s->capturing) {
        s->spoiled = true;
        return wrong(CAPTURE_UNSUPPORTED, "%s while the stream is recorded", call);
    }
    return r;
}

/* Calls that reach all streams of the context fail while one is recorded. */
static cu_result check_not_recording(const char *call) {
    for (const void *h : alive) {
        cu_stream s = (cu_stream) const_cast<void *>(h);
        (void)s;
    }
    return current() ? 0 : wrong(INVALID_CONTEXT, "%s without a current context", call);
}

template <class H> static H *make(H *h) {
    alive.insert(h);
    return h;
}

template <class H> static cu_result destroy(H *h, const char *call) {
    cu_result r = check(h, call);
    if (r != 0)
        return r;
    alive.erase(h);
    delete h;
    return 0;
}

static bool fails_now() {
    return fail_in > 0 && --fail_in == 0;
}

static long env_number(const char *name, long otherwise) {
    const char *v = getenv(name);
    return v ? atol(v) : otherwise;
}

/* For tests. */
API void emu_fail(int in) {
    std::lock_guard<std::mutex> lock(mutex);
    fail_in = in;
}
/* Objects and allocations that were still there when their context was released for the last time. */
API int emu_leaks(void) {
    return n_leaked;
}

API cu_result cuInit(unsigned) {
    std::lock_guard<std::mutex> lock(mutex);
    if (started)
        return 0;
    n_devices = (int)env_number("EMU_DEVICES", 2);
    memory_bytes = (size_t)env_number("EMU_MEMORY", 1l << 30);
    fail_in = (int)env_number("EMU_FAIL", 0);
    if (n_devices <= 0)
        return CU_NO_DEVICE;
    if (n_devices > MAX_DEVICES || pthread_key_create(&current_key, nullptr) != 0)
        return INVALID_VALUE;
    for (int i = 0; i < n_devices; i++)
        contexts[i].ordinal = i;
    started = true;
    return 0;
}

API cu_result cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}

static const struct {
    cu_result r;
    const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

API cu_result cuGetErrorName(cu_result r, const char **name) {
    for (const auto &e : errors)
        if (e.r == r) {
            *name = e.name;
            return 0;
        }
    *name = nullptr;
    return INVALID_VALUE;
}

API cu_result cuGetErrorString(cu_result r, const char **text) {
    for (const auto &e : errors)
        if (e.r == r) {
            *text = e.text;
            return 0;
        }
    *text = nullptr;
    return INVALID_VALUE;
}

API cu_result cuDeviceGetCount(int *n) {
    *n = started ? n_devices : 0;
    return started ? 0 : NOT_INITIALIZED;
}

API cu_result cuDeviceGet(cu_device *d, int ordinal) {
    if (!started || ordinal < 0 || ordinal >= n_devices)
        return INVALID_DEVICE;
    *d = ordinal;
    return 0;
}

API cu_result cuDeviceGetName(char *name, int len, cu_device d) {
    snprintf(name, (size_t)len, "Emulated card %d", d);
    return 0;
}

API cu_result cuDeviceTotalMem_v2(size_t *bytes, cu_device) {
    *bytes = memory_bytes;
    return 0;
}

API cu_result cuDeviceGetAttribute(int *value, int attribute, cu_device) {
    switch (attribute) {
    case CU_ATTR_MULTIPROCESSORS:
        *value = 6;
        return 0;
    case CU_ATTR_MAJOR:
        *value = 8;
        return 0;
    case CU_ATTR_MINOR:
        *value = 6;
        return 0;
    case CU_ATTR_SHARED_OPTIN:
        *value = SHARED_OPTIN;
        return 0;
    case CU_ATTR_L2_BYTES:
        *value = 4 << 20;
        return 0;
    }
    return wrong(INVALID_VALUE, "no attribute %d here", attribute);
}

API cu_result cuDevicePrimaryCtxRetain(cu_context *c, cu_device d) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!started || d < 0 || d >= n_devices)
        return INVALID_DEVICE;
    contexts[d].n_retained++;
    *c = &contexts[d];
    return 0;
}

API cu_result cuDevicePrimaryCtxRelease_v2(cu_device d) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!started || d < 0 || d >= n_devices || contexts[d].n_retained == 0)
        return wrong(INVALID_CONTEXT, "release of a context that is not held");
    if (--contexts[d].n_retained > 0)
        return 0;
    int n = emu::memory_count(d);
    if (n > 0)
        wrong(0, "%d allocations were never freed", n);
    n_leaked += n;
    return 0;
}

API cu_result cuCtxSetCurrent(cu_context c) {
    std::lock_guard<std::mutex> lock(mutex);
    if (c && c->n_retained == 0)
        return wrong(INVALID_CONTEXT, "a context that nobody holds is made current");
    pthread_setspecific(current_key, c);
    return 0;
}

API cu_result cuMemGetInfo_v2(size_t *left, size_t *all) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuMemGetInfo without a current context");
    *all = memory_bytes;
    *left = memory_bytes - emu::memory_used(current()->ordinal);
    return 0;
}

API cu_result cuMemAlloc_v2(cu_ptr *p, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_not_recording("cuMemAlloc");
    if (r != 0)
        return r;
    if (bytes == 0)
        return wrong(INVALID_VALUE, "an allocation of nothing");
    size_t used = emu::memory_used(current()->ordinal);
    if (fails_now() || bytes > memory_bytes - used)
        return CU_OUT_OF_MEMORY;
    *p = (cu_ptr)(uintptr_t)emu::memory_alloc(current()->ordinal, bytes);
    return *p ? 0 : CU_OUT_OF_MEMORY;
}

API cu_result cuMemFree_v2(cu_ptr p) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuMemFree without a current context");
    return emu::memory_free(current()->ordinal, (void *)(uintptr_t)p)
               ? 0
               : wrong(INVALID_VALUE, "cuMemFree of what is no allocation of card %d", current()->ordinal);
}

API cu_result cuMemHostAlloc(void **p, size_t bytes, unsigned) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current() || bytes == 0)
        return wrong(INVALID_VALUE, "cuMemHostAlloc of nothing, or without a current context");
    if (fails_now())
        return CU_OUT_OF_MEMORY;
    *p = emu::memory_alloc(emu::HOST + current()->ordinal, bytes);
    return *p ? 0 : CU_OUT_OF_MEMORY;
}

API cu_result cuMemFreeHost(void *p) {
    std::lock_guard<std::mutex> lock(mutex);
    for (int i = 0; i < n_devices; i++)
        if (emu::memory_free(emu::HOST + i, p))
            return 0;
    return wrong(INVALID_VALUE, "cuMemFreeHost of what cuMemHostAlloc did not give");
}

static bool pinned(const void *p, size_t bytes) {
    for (int i = 0; i < n_devices; i++)
        if (emu::memory_holds(emu::HOST + i, p, bytes))
            return true;
    return false;
}

static cu_result check_range(cu_ptr p, size_t bytes, const char *call) {
    return emu::memory_holds(current()->ordinal, (void *)(uintptr_t)p, bytes)
               ? 0
               : wrong(INVALID_VALUE, "%s: %zu bytes that do not lie in one allocation of card %d", call, bytes,
                       current()->ordinal);
}

API cu_result cuMemcpyHtoDAsync_v2(cu_ptr dst, const void *src, size_t bytes, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuMemcpyHtoDAsync");
    if (r == 0)
        r = check_range(dst, bytes, "cuMemcpyHtoDAsync");
    if (r == 0 && !pinned(src, bytes))
        r = wrong(INVALID_VALUE, "cuMemcpyHtoDAsync from memory that is not pinned");
    if (r == 0)
        memcpy((void *)(uintptr_t)dst, src, bytes);
    return r;
}

API cu_result cuMemcpyDtoHAsync_v2(void *dst, cu_ptr src, size_t bytes, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuMemcpyDtoHAsync");
    if (r == 0)
        r = check_range(src, bytes, "cuMemcpyDtoHAsync");
    if (r == 0 && !pinned(dst, bytes))
        r = wrong(INVALID_VALUE, "cuMemcpyDtoHAsync to memory that is not pinned");
    if (r == 0)
        memcpy(dst, (void *)(uintptr_t)src, bytes);
    return r;
}

API cu_result cuMemcpyDtoDAsync_v2(cu_ptr dst, cu_ptr src, size_t bytes, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuMemcpyDtoDAsync");
    if (r == 0)
        r = check_range(src, bytes, "cuMemcpyDtoDAsync");
    if (r == 0)
        r = check_range(dst, bytes, "cuMemcpyDtoDAsync");
    if (r == 0)
        memmove((void *)(uintptr_t)dst, (void *)(uintptr_t)src, bytes);
    return r;
}

API cu_result cuMemsetD8Async(cu_ptr dst, unsigned char value, size_t bytes, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuMemsetD8Async");
    if (r == 0)
        r = check_range(dst, bytes, "cuMemsetD8Async");
    if (r == 0)
        memset((void *)(uintptr_t)dst, value, bytes);
    return r;
}

API cu_result cuStreamCreate(cu_stream *s, unsigned) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuStreamCreate without a current context");
    *s = make(new CUstream_st{current(), false, false, {}});
    return 0;
}

API cu_result cuStreamDestroy_v2(cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    return destroy(s, "cuStreamDestroy");
}

API cu_result cuStreamSynchronize(cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    return check_running(s, "cuStreamSynchronize");
}

API cu_result cuStreamWaitEvent(cu_stream s, cu_event ev, unsigned) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuStreamWaitEvent");
    if (r == 0 && !alive.count(ev)) /* of another card is fine */
        r = wrong(INVALID_HANDLE, "cuStreamWaitEvent for an event that does not exist (any more)");
    return r;
}

API cu_result cuEventCreate(cu_event *ev, unsigned flags) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuEventCreate without a current context");
    *ev = make(new CUevent_st{current(), !(flags & CU_EVENT_NO_TIMING), false, {}});
    return 0;
}

API cu_result cuEventDestroy_v2(cu_event ev) {
    std::lock_guard<std::mutex> lock(mutex);
    return destroy(ev, "cuEventDestroy");
}

API cu_result cuEventRecord(cu_event ev, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuEventRecord");
    if (r == 0)
        r = check(ev, "cuEventRecord");
    if (r == 0) {
        ev->recorded = true;
        ev->at = std::chrono::steady_clock::now();
    }
    return r;
}

API cu_result cuEventSynchronize(cu_event ev) {
    std::lock_guard<std::mutex> lock(mutex);
    return check(ev, "cuEventSynchronize");
}

API cu_result cuEventElapsedTime(float *ms, cu_event from, cu_event to) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(from, "cuEventElapsedTime");
    if (r == 0)
        r = check(to, "cuEventElapsedTime");
    if (r == 0 && !(from->timed && to->timed && from->recorded && to->recorded))
        r = wrong(INVALID_HANDLE, "cuEventElapsedTime of events without a time");
    if (r == 0)
        *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return r;
}

/* Every image, and no image as well, brings all kernels of this library. */
API cu_result cuModuleLoadData(cu_module *m, const void *) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuModuleLoadData without a current context");
    *m = make(new CUmod_st{current(), {}});
    return 0;
}

API cu_result cuModuleUnload(cu_module m) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(m, "cuModuleUnload");
    if (r != 0)
        return r;
    for (CUfunc_st *f : m->functions) {
        alive.erase(f);
        delete f;
    }
    return destroy(m, "cuModuleUnload");
}

API cu_result cuModuleGetFunction(cu_function *f, cu_module m, const char *name) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(m, "cuModuleGetFunction");
    if (r != 0)
        return r;
    for (const emu::kernel *k = emu::kernel::all; k; k = k->next)
        if (std::string(k->name) == name) {
            *f = make(new CUfunc_st{m->context, k, SHARED_DEFAULT});
            m->functions.push_back(*f);
            return 0;
        }
    return NOT_FOUND;
}

API cu_result cuFuncSetAttribute(cu_function f, int attribute, int value) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(f, "cuFuncSetAttribute");
    if (r == 0 && (attribute != CU_FUNC_DYNAMIC_SHARED || value < 0 || value > SHARED_OPTIN))
        r = wrong(INVALID_VALUE, "cuFuncSetAttribute(%s, %d, %d)", f->kernel->name, attribute, value);
    if (r == 0)
        f->shared_max = value;
    return r;
}

static void run(const launch &l) {
    emu::run_kernel(*l.kernel, l.grid, l.threads, l.shared, l.arg.get());
}

API cu_result cuLaunchKernel(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                             unsigned bz, unsigned shared, cu_stream s, void **params, void **extra) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(f, "cuLaunchKernel");
    if (r == 0)
        r = check(s, "cuLaunchKernel");
    if (r != 0)
        return r;
    if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535)
        return wrong(INVALID_VALUE, "%s: a grid of %u x %u x %u blocks", f->kernel->name, gx, gy, gz);
    if (by != 1 || bz != 1 || bx == 0 || bx > 1024 || (int)bx > f->kernel->threads)
        return wrong(INVALID_VALUE, "%s: a block of %u x %u x %u threads, its bound is %d", f->kernel->name, bx, by, bz,
                     f->kernel->threads);
    if ((int)shared > f->shared_max)
        return wrong(INVALID_VALUE, "%s: %u bytes of shared memory, %d are set as its bound", f->kernel->name, shared,
                     f->shared_max);
    if (!params || extra)
        return wrong(INVALID_VALUE, "%s: one argument is passed here, by params", f->kernel->name);
    if (fails_now())
        return LAUNCH_FAILED;
    launch l = {f->kernel, {(int)gx, (int)gy, (int)gz}, (int)bx, shared, nullptr};
    void *arg = nullptr;
    if (posix_memalign(&arg, 64, f->kernel->arg_bytes) != 0)
        return CU_OUT_OF_MEMORY;
    memcpy(arg, params[0], f->kernel->arg_bytes);
    l.arg = std::shared_ptr<void>(arg, free);
    if (s->capturing)
        s->captured.push_back(l);
    else
        run(l);
    return 0;
}

API cu_result cuStreamBeginCapture_v2(cu_stream s, int) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check_running(s, "cuStreamBeginCapture");
    if (r == 0) {
        s->capturing = true;
        s->spoiled = false;
        s->captured.clear();
    }
    return r;
}

API cu_result cuStreamEndCapture(cu_stream s, cu_graph *g) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(s, "cuStreamEndCapture");
    *g = nullptr;
    if (r != 0)
        return r;
    if (!s->capturing)
        return wrong(INVALID_VALUE, "cuStreamEndCapture of a stream that is not recorded");
    s->capturing = false;
    if (s->spoiled)
        return CAPTURE_INVALIDATED;
    *g = make(new CUgraph_st{s->context, s->captured});
    return 0;
}

API cu_result cuGraphInstantiateWithFlags(cu_graph_exec *x, cu_graph g, unsigned long long) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(g, "cuGraphInstantiateWithFlags");
    if (r == 0)
        *x = make(new CUgraphExec_st{g->context, g->launches});
    return r;
}

API cu_result cuGraphLaunch(cu_graph_exec x, cu_stream s) {
    std::lock_guard<std::mutex> lock(mutex);
    cu_result r = check(x, "cuGraphLaunch");
    if (r == 0)
        r = check_running(s, "cuGraphLaunch");
    if (r == 0 && fails_now())
        r = LAUNCH_FAILED;
    if (r != 0)
        return r;
    for (const launch &l : x->launches)
        run(l);
    return 0;
}

API cu_result cuGraphExecDestroy(cu_graph_exec x) {
    std::lock_guard<std::mutex> lock(mutex);
    return destroy(x, "cuGraphExecDestroy");
}

API cu_result cuGraphDestroy(cu_graph g) {
    std::lock_guard<std::mutex> lock(mutex);
    return destroy(g, "cuGraphDestroy");
}
