/* gpu/driver.h - NVIDIA's driver, opened at run time: the functions of libcuda that this program calls, by name.
 *
 * No header of the CUDA toolkit is needed, and no NVIDIA file for the program to start. Types and constants are those
 * of the driver API's ABI (version 2 entry points, CUDA 12 and later); test_gpu_driver compares them with cuda.h where
 * the toolkit is installed. SPLITINF_LIBCUDA names another library than libcuda.so.1 (tests: an emulated device). */
#ifndef GPU_DRIVER_H
#define GPU_DRIVER_H

#include "core/base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef int cu_result; /* 0: done */
typedef int cu_device;
typedef uint64_t cu_ptr; /* device memory */
typedef struct CUctx_st *cu_context;
typedef struct CUmod_st *cu_module;
typedef struct CUfunc_st *cu_function;
typedef struct CUstream_st *cu_stream;
typedef struct CUevent_st *cu_event;
typedef struct CUgraph_st *cu_graph;
typedef struct CUgraphExec_st *cu_graph_exec;

enum {
    CU_OUT_OF_MEMORY = 2,
    CU_NO_DEVICE = 100,
    CU_NO_BINARY_FOR_GPU = 209,
    CU_NOT_FOUND = 500,
    CU_UNKNOWN = 999,
    CU_ATTR_MULTIPROCESSORS = 16,
    CU_ATTR_MAJOR = 75,
    CU_ATTR_MINOR = 76,
    CU_ATTR_SHARED_OPTIN = 97, /* bytes of shared memory that a block may ask for */
    CU_ATTR_L2_BYTES = 38,
    CU_FUNC_PTX_VERSION = 5, /* 90: compiled for compute_90 */
    CU_FUNC_DYNAMIC_SHARED = 8,
    CU_LAUNCH_PROGRAMMATIC = 6, /* launch attribute: programmatic stream serialization */
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_DEFAULT = 0,
    CU_EVENT_NO_TIMING = 2,
    CU_CAPTURE_THREAD = 1,
};

/* One attribute of a launch; those here are switches. */
struct cu_launch_attribute {
    int id;
    int pad;
    union {
        int on;
        char pad[64];
    } value;
};
struct cu_launch_config {
    unsigned gx, gy, gz, bx, by, bz, shared;
    cu_stream stream;
    struct cu_launch_attribute *attributes;
    unsigned n_attributes;
};

/* X(name in libcuda, field, parameters) */
#define DRIVER_FUNCTIONS(X)                                                                                            \
    X(cuInit, init, (unsigned flags))                                                                                  \
    X(cuDriverGetVersion, driver_version, (int *version))                                                              \
    X(cuGetErrorName, error_name, (cu_result r, const char **name))                                                    \
    X(cuGetErrorString, error_string, (cu_result r, const char **text))                                                \
    X(cuDeviceGetCount, device_count, (int *n))                                                                        \
    X(cuDeviceGet, device_get, (cu_device * d, int ordinal))                                                           \
    X(cuDeviceGetName, device_name, (char *name, int len, cu_device d))                                                \
    X(cuDeviceTotalMem_v2, device_memory, (size_t * bytes, cu_device d))                                               \
    X(cuDeviceGetAttribute, device_attribute, (int *value, int attribute, cu_device d))                                \
    X(cuDevicePrimaryCtxRetain, context_retain, (cu_context * c, cu_device d))                                         \
    X(cuDevicePrimaryCtxRelease_v2, context_release, (cu_device d))                                                    \
    X(cuCtxSetCurrent, context_set, (cu_context c))                                                                    \
    X(cuMemGetInfo_v2, memory_info, (size_t * left, size_t * all))                                                     \
    X(cuMemAlloc_v2, memory_alloc, (cu_ptr * p, size_t bytes))                                                         \
    X(cuMemFree_v2, memory_free, (cu_ptr p))                                                                           \
    X(cuMemHostAlloc, host_alloc, (void **p, size_t bytes, unsigned flags))                                            \
    X(cuMemFreeHost, host_free, (void *p))                                                                             \
    X(cuMemcpyHtoDAsync_v2, copy_to, (cu_ptr dst, const void *src, size_t bytes, cu_stream s))                         \
    X(cuMemcpyDtoHAsync_v2, copy_from, (void *dst, cu_ptr src, size_t bytes, cu_stream s))                             \
    X(cuMemcpyDtoDAsync_v2, copy_within, (cu_ptr dst, cu_ptr src, size_t bytes, cu_stream s))                          \
    X(cuMemsetD8Async, memory_set, (cu_ptr dst, unsigned char value, size_t bytes, cu_stream s))                       \
    X(cuStreamCreate, stream_create, (cu_stream * s, unsigned flags))                                                  \
    X(cuStreamDestroy_v2, stream_destroy, (cu_stream s))                                                               \
    X(cuStreamSynchronize, stream_sync, (cu_stream s))                                                                 \
    X(cuStreamWaitEvent, stream_wait, (cu_stream s, cu_event ev, unsigned flags))                                      \
    X(cuEventCreate, event_create, (cu_event * ev, unsigned flags))                                                    \
    X(cuEventDestroy_v2, event_destroy, (cu_event ev))                                                                 \
    X(cuEventRecord, event_record, (cu_event ev, cu_stream s))                                                         \
    X(cuEventSynchronize, event_sync, (cu_event ev))                                                                   \
    X(cuEventElapsedTime, event_elapsed, (float *ms, cu_event from, cu_event to))                                      \
    X(cuModuleLoadData, module_load, (cu_module * m, const void *image))                                               \
    X(cuModuleUnload, module_unload, (cu_module m))                                                                    \
    X(cuModuleGetFunction, module_function, (cu_function * f, cu_module m, const char *name))                          \
    X(cuFuncSetAttribute, function_set, (cu_function f, int attribute, int value))                                     \
    X(cuFuncGetAttribute, function_get, (int *value, int attribute, cu_function f))                                    \
    X(cuLaunchKernelEx, launch_with, (const struct cu_launch_config *c, cu_function f, void **params, void **extra))   \
    X(cuLaunchKernel, launch,                                                                                          \
      (cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,   \
       cu_stream s, void **params, void **extra))                                                                      \
    X(cuStreamBeginCapture_v2, capture_begin, (cu_stream s, int mode))                                                 \
    X(cuStreamEndCapture, capture_end, (cu_stream s, cu_graph * g))                                                    \
    X(cuGraphInstantiateWithFlags, graph_instantiate, (cu_graph_exec * x, cu_graph g, unsigned long long flags))       \
    X(cuGraphLaunch, graph_launch, (cu_graph_exec x, cu_stream s))                                                     \
    X(cuGraphExecDestroy, graph_exec_destroy, (cu_graph_exec x))                                                       \
    X(cuGraphDestroy, graph_destroy, (cu_graph g))

struct driver {
    void *library;
#define DRIVER_FIELD(name, field, params) cu_result(*field) params; // NOLINT(bugprone-macro-parentheses)
    DRIVER_FUNCTIONS(DRIVER_FIELD)
#undef DRIVER_FIELD
};

/* Opens the library and initialises it, once per process; later calls return the same. NULL with ERR_DEVICE: no driver
 * here, one that is too old (the function that it lacks is named), or one without a card. Thread-safe. */
const struct driver *driver_open(struct err *e);

/* Room for what driver_error says. */
enum { DRIVER_WHY = 340 };
/* "CUDA_ERROR_OUT_OF_MEMORY: out of memory", for messages, and what to do about it where the result alone tells. Into
 * buf. */
const char *driver_error(const struct driver *d, cu_result r, char *buf, size_t n);

#endif
