/* test/gpu/emu/libcuda.cpp - the functions of gpu/driver.h over emulated cards: the machine, contexts, memory, kernels.
 *
 * Stricter than a card: every handle, range and context is checked, and what a card would let pass or answer with a
 * crash (a copy from memory that is not pinned, a range that is no allocation) fails here with a line on stderr.
 *
 *   EMU_DEVICES=2        how many cards
 *   EMU_MEMORY=BYTES     memory of each (1 GiB)
 *   EMU_FAIL=N           the Nth launch or allocation from cuInit on fails (emu_fail does the same at any time)
 *   EMU_BREAK=N          the Nth launch that runs breaks its card: the next wait and every later call fail (emu_break),
 *   EMU_BREAK_AS=RESULT  with this (700, an illegal address)
 *   EMU_INIT=RESULT, EMU_CONTEXT=RESULT
 *                        what cuInit and cuDevicePrimaryCtxRetain answer, as on machines where something is wrong
 *   EMU_DRIVER=13000     the CUDA that the driver is for
 *   EMU_SEED=N           another order of blocks and threads
 * and those of nvcc.h. */
#include "test/gpu/emu/libcuda.h"
#include "test/gpu/emu/nvcc.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <set>
#include <string>

using namespace emu;
typedef std::lock_guard<std::mutex> guard;

static bool started;
static int n_devices;
static size_t memory_bytes;
static int fail_in, break_in; /* 0: never */
static int n_leaked;
static CUctx_st contexts[MAX_DEVICES];
static pthread_key_t current_key; /* not thread_local, which is the shared memory of blocks (block.cpp) */
static std::set<const object *> alive;

std::mutex emu::driver_lock;
cu_result emu::break_as = ILLEGAL_ADDRESS;

CUctx_st *emu::current() {
    return started ? (CUctx_st *)pthread_getspecific(current_key) : nullptr;
}

cu_result emu::wrong(cu_result r, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    fputs("emulated card: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    return r;
}

cu_result emu::check_context(const char *call) {
    return current() ? current()->broken : wrong(INVALID_CONTEXT, "%s without a current context", call);
}

static cu_result check_object(const object *o, const char *call) {
    if (!current())
        return wrong(INVALID_CONTEXT, "%s without a current context", call);
    if (!alive.count(o))
        return wrong(INVALID_HANDLE, "%s with a handle that does not exist (any more)", call);
    if (o->context != current())
        return wrong(INVALID_HANDLE, "%s with a handle of card %d while card %d is current", call, o->context->ordinal,
                     current()->ordinal);
    return 0;
}

cu_result emu::check(const object *o, const char *call) {
    cu_result r = check_object(o, call);
    return r == 0 ? o->context->broken : r;
}

cu_result emu::check_running(cu_stream s, const char *call) {
    cu_result r = check(s, call);
    if (r == 0 && s->capturing) {
        s->spoiled = true;
        return wrong(CAPTURE_UNSUPPORTED, "%s while the stream is recorded", call);
    }
    return r;
}

cu_result emu::check_not_recording(const char *call) {
    cu_result r = check_context(call);
    for (const object *o : alive) {
        CUstream_st *s = dynamic_cast<CUstream_st *>(const_cast<object *>(o));
        if (r == 0 && s && s->context == current() && s->capturing) {
            s->spoiled = true;
            r = wrong(CAPTURE_UNSUPPORTED, "%s while a stream is recorded", call);
        }
    }
    return r;
}

void emu::enlist(object *o) {
    o->context = current();
    alive.insert(o);
}

bool emu::is_alive(const object *o) {
    return alive.count(o) != 0;
}

cu_result emu::destroy(object *o, const char *call) {
    cu_result r = check_object(o, call);
    if (r != 0)
        return r;
    r = o->context->broken;
    alive.erase(o);
    delete o;
    changed();
    return r;
}

bool emu::fails_now() {
    return fail_in > 0 && --fail_in == 0;
}

bool emu::breaks_now() {
    return break_in > 0 && --break_in == 0;
}

void emu::make_current(CUctx_st *c) {
    pthread_setspecific(current_key, c);
}

CUctx_st *emu::context_of(int device) {
    return started && device >= 0 && device < n_devices ? &contexts[device] : nullptr;
}

void emu::drain_context(const CUctx_st *c) {
    std::vector<const object *> objects(alive.begin(), alive.end());
    for (const object *o : objects) {
        if (!alive.count(o)) /* another thread's, while this one waited */
            continue;
        CUstream_st *s = dynamic_cast<CUstream_st *>(const_cast<object *>(o));
        if (s && s->context == c)
            drain(s);
    }
}

/* For tests. */
API void emu_fail(int in) {
    guard lock(driver_lock);
    fail_in = in;
}
API void emu_break(int in) {
    guard lock(driver_lock);
    break_in = in;
}
/* Objects and allocations that were still there when their context was released for the last time. */
API int emu_leaks(void) {
    guard lock(driver_lock);
    return n_leaked;
}

static long env_number(const char *name, long otherwise) {
    const char *v = getenv(name);
    return v ? atol(v) : otherwise;
}

API cu_result cuInit(unsigned) {
    guard lock(driver_lock);
    if (started)
        return 0;
    n_devices = (int)env_number("EMU_DEVICES", 2);
    memory_bytes = (size_t)env_number("EMU_MEMORY", 1l << 30);
    fail_in = (int)env_number("EMU_FAIL", 0);
    break_in = (int)env_number("EMU_BREAK", 0);
    break_as = (cu_result)env_number("EMU_BREAK_AS", ILLEGAL_ADDRESS);
    cu_result wrong_here = (cu_result)env_number("EMU_INIT", 0);
    if (wrong_here != 0)
        return wrong_here;
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
    *version = (int)env_number("EMU_DRIVER", 13000);
    return 0;
}

static const struct {
    cu_result r;
    const char *name, *text;
} results[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CU_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

API cu_result cuGetErrorName(cu_result r, const char **name) {
    for (const auto &k : results)
        if (k.r == r) {
            *name = k.name;
            return 0;
        }
    *name = nullptr;
    return INVALID_VALUE;
}

API cu_result cuGetErrorString(cu_result r, const char **text) {
    for (const auto &k : results)
        if (k.r == r) {
            *text = k.text;
            return 0;
        }
    *text = nullptr;
    return INVALID_VALUE;
}

API cu_result cuDeviceGetCount(int *n) {
    *n = started ? n_devices : 0;
    return started ? 0 : NOT_INITIALIZED;
}

static cu_result check_device(cu_device d) {
    return started && d >= 0 && d < n_devices ? 0 : wrong(INVALID_DEVICE, "there is no card %d", d);
}

API cu_result cuDeviceGet(cu_device *d, int ordinal) {
    cu_result r = check_device(ordinal);
    if (r == 0)
        *d = ordinal;
    return r;
}

API cu_result cuDeviceGetName(char *name, int len, cu_device d) {
    snprintf(name, (size_t)len, "Emulated card %d", d);
    return check_device(d);
}

API cu_result cuDeviceTotalMem_v2(size_t *bytes, cu_device d) {
    *bytes = memory_bytes;
    return check_device(d);
}

/* The cards are of two kinds in turn: 0, 2 ... of 9.0, whose launches may overlap, 1, 3 ... of 8.6. */
static int capability(int ordinal) {
    return ordinal % 2 == 0 ? 90 : 86;
}

bool emu::overlaps_on(int ordinal) {
    return capability(ordinal) >= 90;
}

API cu_result cuDeviceGetAttribute(int *value, int attribute, cu_device d) {
    const struct {
        int attribute, value;
    } known[] = {
        {CU_ATTR_MULTIPROCESSORS, 6},        {CU_ATTR_SHARED_OPTIN, SHARED_OPTIN}, {CU_ATTR_L2_BYTES, 4 << 20},
        {CU_ATTR_MAJOR, capability(d) / 10}, {CU_ATTR_MINOR, capability(d) % 10},
    };
    for (const auto &k : known)
        if (k.attribute == attribute) {
            *value = k.value;
            return check_device(d);
        }
    return wrong(INVALID_VALUE, "no attribute %d here", attribute);
}

API cu_result cuDevicePrimaryCtxRetain(cu_context *c, cu_device d) {
    guard lock(driver_lock);
    cu_result r = check_device(d);
    if (r != 0)
        return r;
    cu_result wrong_here = (cu_result)env_number("EMU_CONTEXT", 0);
    if (wrong_here != 0)
        return wrong_here;
    contexts[d].n_retained++;
    *c = &contexts[d];
    return 0;
}

API cu_result cuDevicePrimaryCtxRelease_v2(cu_device d) {
    guard lock(driver_lock);
    cu_result r = check_device(d);
    if (r != 0)
        return r;
    CUctx_st *c = &contexts[d];
    if (c->n_retained == 0)
        return wrong(INVALID_CONTEXT, "release of a context that is not held");
    if (--c->n_retained > 0)
        return 0;
    int n = memory_count(d) + memory_count(HOST + d) + gathers_left(c);
    memory_clear(d);
    memory_clear(HOST + d);
    std::vector<const object *> objects(alive.begin(), alive.end());
    for (const object *o : objects)
        if (o->context == c) {
            n++;
            alive.erase(o);
            delete o;
        }
    if (n > 0)
        wrong(0, "%d objects and allocations of card %d were never freed", n, d);
    n_leaked += n;
    c->broken = 0;
    return 0;
}

API cu_result cuCtxSetCurrent(cu_context c) {
    guard lock(driver_lock);
    if (c && c->n_retained == 0)
        return wrong(INVALID_CONTEXT, "a context that nobody holds is made current");
    make_current(c);
    return 0;
}

API cu_result cuMemGetInfo_v2(size_t *left, size_t *all) {
    guard lock(driver_lock);
    cu_result r = check_context("cuMemGetInfo");
    if (r != 0)
        return r;
    *all = memory_bytes;
    *left = memory_bytes - memory_used(current()->ordinal);
    return 0;
}

API cu_result cuMemAlloc_v2(cu_ptr *p, size_t bytes) {
    guard lock(driver_lock);
    cu_result r = check_not_recording("cuMemAlloc");
    if (r != 0)
        return r;
    if (bytes == 0)
        return wrong(INVALID_VALUE, "an allocation of nothing");
    if (fails_now() || bytes > memory_bytes - memory_used(current()->ordinal))
        return CU_OUT_OF_MEMORY;
    *p = (cu_ptr)(uintptr_t)memory_alloc(current()->ordinal, bytes);
    return *p ? 0 : CU_OUT_OF_MEMORY;
}

/* Waits for the card, as NVIDIA's does. */
API cu_result cuMemFree_v2(cu_ptr p) {
    guard lock(driver_lock);
    if (!current())
        return wrong(INVALID_CONTEXT, "cuMemFree without a current context");
    drain_context(current());
    if (!memory_free(current()->ordinal, (void *)(uintptr_t)p))
        return wrong(INVALID_VALUE, "cuMemFree of what is no allocation of card %d", current()->ordinal);
    return current()->broken;
}

API cu_result cuMemHostAlloc(void **p, size_t bytes, unsigned) {
    guard lock(driver_lock);
    cu_result r = check_not_recording("cuMemHostAlloc");
    if (r != 0)
        return r;
    if (bytes == 0)
        return wrong(INVALID_VALUE, "cuMemHostAlloc of nothing");
    if (fails_now())
        return CU_OUT_OF_MEMORY;
    *p = memory_alloc(HOST + current()->ordinal, bytes);
    return *p ? 0 : CU_OUT_OF_MEMORY;
}

API cu_result cuMemFreeHost(void *p) {
    guard lock(driver_lock);
    for (int i = 0; i < n_devices; i++)
        if (memory_free(HOST + i, p))
            return current() ? current()->broken : 0;
    return wrong(INVALID_VALUE, "cuMemFreeHost of what cuMemHostAlloc did not give");
}

/* An image that is the text of PTX brings its kernels; every other one, and no image as well, all of this library. */
API cu_result cuModuleLoadData(cu_module *m, const void *image) {
    guard lock(driver_lock);
    std::shared_ptr<ptx::module> program;
    cu_result r = check_not_recording("cuModuleLoadData");
    if (r == 0 && nvcc_is_text(image) && !(program = nvcc_load((const char *)image)))
        r = INVALID_PTX;
    if (r == 0) {
        *m = make<CUmod_st>();
        (*m)->program = program;
    }
    return r;
}

API cu_result cuModuleUnload(cu_module m) {
    guard lock(driver_lock);
    cu_result r = check_object(m, "cuModuleUnload");
    if (r != 0)
        return r;
    drain_context(m->context);
    for (CUfunc_st *f : m->functions)
        (void)destroy(f, "cuModuleUnload");
    return destroy(m, "cuModuleUnload");
}

API cu_result cuModuleGetFunction(cu_function *f, cu_module m, const char *name) {
    guard lock(driver_lock);
    cu_result r = check(m, "cuModuleGetFunction");
    if (r != 0)
        return r;
    kernel *k = m->program ? nullptr : kernel::all;
    while (k && std::string(k->name) != name)
        k = k->next;
    const ptx::kernel *ptx = m->program ? m->program->find(name) : nullptr;
    if (k && (r = nvcc_find(*k, &ptx)) != 0)
        return r;
    if (!k && !ptx)
        return NOT_FOUND;
    *f = make<CUfunc_st>();
    (*f)->kernel = k;
    (*f)->ptx = ptx;
    (*f)->holds = m->program;
    (*f)->shared_max -= (*f)->static_shared();
    m->functions.push_back(*f);
    return 0;
}

API cu_result cuFuncGetAttribute(int *value, int attribute, cu_function f) {
    guard lock(driver_lock);
    cu_result r = check(f, "cuFuncGetAttribute");
    if (r == 0 && attribute != CU_FUNC_PTX_VERSION)
        r = wrong(INVALID_VALUE, "cuFuncGetAttribute(%s, %d)", f->name(), attribute);
    if (r == 0)
        *value = overlaps_on(f->context->ordinal) ? 90 : 80;
    return r;
}

API cu_result cuFuncSetAttribute(cu_function f, int attribute, int value) {
    guard lock(driver_lock);
    cu_result r = check(f, "cuFuncSetAttribute");
    if (r == 0 && (attribute != CU_FUNC_DYNAMIC_SHARED || value < 0 || value > SHARED_OPTIN - f->static_shared()))
        r = wrong(INVALID_VALUE, "cuFuncSetAttribute(%s, %d, %d); it has %d bytes of shared variables", f->name(),
                  attribute, value, f->static_shared());
    if (r == 0)
        f->shared_max = value;
    return r;
}
