#include "gpu/driver.h"
#include "gpu/kernel_list.h"
#include "test/gpu/emu/test_kernels.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The constants of driver.h and the sizes of its types are those of the toolkit's header, where there is one, and its
 * names are those that a program compiled with the toolkit calls: the second versions. */
#if __has_include(<cuda.h>)
#define CU_STREAM_NON_BLOCKING toolkit_stream_non_blocking
#define CU_EVENT_DEFAULT       toolkit_event_default
#include <cuda.h>
#undef CU_STREAM_NON_BLOCKING
#undef CU_EVENT_DEFAULT

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours " is not " #theirs)
SAME(CU_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME(CU_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
SAME(CU_NO_BINARY_FOR_GPU, CUDA_ERROR_NO_BINARY_FOR_GPU);
SAME(CU_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
SAME(CU_UNKNOWN, CUDA_ERROR_UNKNOWN);
SAME(CU_ATTR_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(CU_ATTR_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(CU_ATTR_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(CU_ATTR_SHARED_OPTIN, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(CU_ATTR_L2_BYTES, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME(CU_FUNC_PTX_VERSION, CU_FUNC_ATTRIBUTE_PTX_VERSION);
SAME(CU_LAUNCH_PROGRAMMATIC, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
SAME(CU_FUNC_DYNAMIC_SHARED, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(CU_STREAM_NON_BLOCKING, toolkit_stream_non_blocking);
SAME(CU_EVENT_DEFAULT, toolkit_event_default);
SAME(CU_EVENT_NO_TIMING, CU_EVENT_DISABLE_TIMING);
SAME(CU_CAPTURE_THREAD, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
_Static_assert(sizeof(cu_result) == sizeof(CUresult), "cu_result");
_Static_assert(sizeof(cu_device) == sizeof(CUdevice), "cu_device");
_Static_assert(sizeof(cu_ptr) == sizeof(CUdeviceptr), "cu_ptr");
#define SAME_PLACE(type, field, theirs, their_field)                                                                   \
    _Static_assert(offsetof(type, field) == offsetof(theirs, their_field) &&                                           \
                       sizeof(((type *)NULL)->field) == sizeof(((theirs *)NULL)->their_field),                         \
                   #their_field)
_Static_assert(sizeof(struct cu_launch_attribute) == sizeof(CUlaunchAttribute), "CUlaunchAttribute");
SAME_PLACE(struct cu_launch_attribute, id, CUlaunchAttribute, id);
SAME_PLACE(struct cu_launch_attribute, value, CUlaunchAttribute, value);
SAME_PLACE(struct cu_launch_attribute, value.on, CUlaunchAttribute, value.programmaticStreamSerializationAllowed);
_Static_assert(sizeof(struct cu_launch_config) == sizeof(CUlaunchConfig), "CUlaunchConfig");
SAME_PLACE(struct cu_launch_config, gx, CUlaunchConfig, gridDimX);
SAME_PLACE(struct cu_launch_config, gy, CUlaunchConfig, gridDimY);
SAME_PLACE(struct cu_launch_config, gz, CUlaunchConfig, gridDimZ);
SAME_PLACE(struct cu_launch_config, bx, CUlaunchConfig, blockDimX);
SAME_PLACE(struct cu_launch_config, by, CUlaunchConfig, blockDimY);
SAME_PLACE(struct cu_launch_config, bz, CUlaunchConfig, blockDimZ);
SAME_PLACE(struct cu_launch_config, shared, CUlaunchConfig, sharedMemBytes);
SAME_PLACE(struct cu_launch_config, stream, CUlaunchConfig, hStream);
SAME_PLACE(struct cu_launch_config, attributes, CUlaunchConfig, attrs);
SAME_PLACE(struct cu_launch_config, n_attributes, CUlaunchConfig, numAttrs);

#define TEXT_OF(name) #name
#define TEXT(name)    TEXT_OF(name)
Test(gpu_driver, names_are_those_that_the_toolkit_compiles_to) {
    cr_assert_str_eq(TEXT(cuDeviceTotalMem), "cuDeviceTotalMem_v2");
    cr_assert_str_eq(TEXT(cuDevicePrimaryCtxRelease), "cuDevicePrimaryCtxRelease_v2");
    cr_assert_str_eq(TEXT(cuMemGetInfo), "cuMemGetInfo_v2");
    cr_assert_str_eq(TEXT(cuMemAlloc), "cuMemAlloc_v2");
    cr_assert_str_eq(TEXT(cuMemFree), "cuMemFree_v2");
    cr_assert_str_eq(TEXT(cuMemcpyHtoDAsync), "cuMemcpyHtoDAsync_v2");
    cr_assert_str_eq(TEXT(cuMemcpyDtoHAsync), "cuMemcpyDtoHAsync_v2");
    cr_assert_str_eq(TEXT(cuMemcpyDtoDAsync), "cuMemcpyDtoDAsync_v2");
    cr_assert_str_eq(TEXT(cuStreamDestroy), "cuStreamDestroy_v2");
    cr_assert_str_eq(TEXT(cuStreamBeginCapture), "cuStreamBeginCapture_v2");
}
#endif

/* gpu/driver.c: what it says where there is nothing to open. */

static void no_driver(const char *library, const char *text) {
    struct err e = {0}, again = {0};
    struct gpu *g;
    int n;
    setenv("SPLITINF_LIBCUDA", library, 1);
    cr_assert_null(driver_open(&e));
    cr_assert_eq(e.kind, ERR_DEVICE);
    cr_assert(strstr(e.msg, text), "%s", e.msg);
    cr_assert_null(driver_open(&again));
    cr_assert_str_eq(again.msg, e.msg);
    cr_assert_eq(gpu_count(&n, NULL), -1);
    cr_assert_eq(gpu_open(&g, 0, NULL), -1);
    cr_assert_null(g);
}

Test(gpu_driver, none_here) {
    no_driver("/nowhere/libcuda.so.1", "no NVIDIA driver here: /nowhere/libcuda.so.1 cannot be opened");
}

Test(gpu_driver, one_that_lacks_functions) {
    no_driver("libm.so.6", "too old: libm.so.6 has no cuInit");
}

Test(gpu_driver, no_card) {
    setenv("EMU_DEVICES", "0", 1);
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    no_driver(getenv("SPLITINF_LIBCUDA"), "(CUDA 13.0) but no card that this process may use");
}

Test(gpu_driver, a_list_of_cards_that_hides_them_is_named) {
    setenv("EMU_DEVICES", "0", 1);
    setenv("CUDA_VISIBLE_DEVICES", "7", 1);
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    no_driver(getenv("SPLITINF_LIBCUDA"), "CUDA_VISIBLE_DEVICES is \"7\", which may hide it: check nvidia-smi -L; a "
                                          "container is started with --gpus all");
}

/* What cuInit answers where the machine around a driver is not in order. */
static void not_started(const char *result, const char *text) {
    setenv("EMU_INIT", result, 1);
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    no_driver(getenv("SPLITINF_LIBCUDA"), text);
}
Test(gpu_driver, a_driver_of_another_version_than_the_kernels) {
    not_started("803", "the NVIDIA driver (CUDA 13.0) does not start: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has "
                       "unsupported display driver / cuda driver combination; libcuda and the kernel's driver are of "
                       "different versions: reboot after an update; a container must use the libcuda of its host");
}
Test(gpu_driver, a_compatibility_library_on_a_card_that_takes_none) {
    not_started("804", "CUDA error 804; only data centre cards take libcuda of the cuda-compat package");
}
Test(gpu_driver, no_kernel_module_or_device_node) {
    not_started("999", "CUDA_ERROR_UNKNOWN: unknown error; is the kernel module there? nvidia-modprobe -u");
}
Test(gpu_driver, switches_between_cards_that_nobody_manages) {
    not_started("802", "nvidia-fabricmanager");
}
Test(gpu_driver, the_stub_of_the_toolkit) {
    not_started("34", "is the toolkit's stub");
}

/* A card that is there and cannot be had. */
static void not_opened(const char *result, enum err_kind kind, const char *text) {
    struct err e = {0};
    struct gpu *g;
    setenv("EMU_CONTEXT", result, 1);
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    cr_assert_eq(gpu_open(&g, 0, &e), -1);
    cr_assert_null(g);
    cr_assert_eq(e.kind, kind);
    cr_assert(strstr(e.msg, "GPU 0 (Emulated card 0): ") && strstr(e.msg, text), "%s", e.msg);
}
Test(gpu_driver, a_card_that_another_process_has_alone) {
    not_opened("46", ERR_DEVICE,
               "another process has the card, whose compute mode is exclusive: end that one, or nvidia-smi -c 0");
}
Test(gpu_driver, a_card_whose_memory_is_full) {
    not_opened("2", ERR_MEMORY,
               "its memory is full, and so it cannot be taken into use (nvidia-smi shows by which processes)");
}
Test(gpu_driver, a_card_of_damaged_memory) {
    not_opened("214", ERR_DEVICE, "nvidia-smi -q -d ECC");
}

/* Code that a driver does not take. */
Test(gpu_driver, older_than_the_kernels) {
    static const char built_for[] = "sm_80 sm_90 and PTX of compute_80, by nvcc 13.0";
    struct err e = {0}, same = {0}, old_card = {0}, full = {0};
    setenv("EMU_DRIVER", "12020", 1);
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    cr_assert_eq(gpu_tell_unloadable(g, 222, "norm", built_for, &e), -1);
    cr_assert(strstr(e.msg,
                     "the NVIDIA driver here is for CUDA 12.2, and the kernels were built by nvcc 13.0: install a "
                     "driver for CUDA 13.0 or later (number 580 or higher), or build with the toolkit of CUDA 12.2 "
                     "or before (CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
              "%s", e.msg);
    (void)gpu_tell_unloadable(g, CU_OUT_OF_MEMORY, "norm", built_for, &full);
    cr_assert(full.kind == ERR_MEMORY && strstr(full.msg, "the kernels of norm (sm_80"), "%s", full.msg);
    setenv("EMU_DRIVER", "13000", 1);
    (void)gpu_tell_unloadable(g, CU_NO_BINARY_FOR_GPU, "norm", built_for, &same);
    cr_assert(
        strstr(same.msg, "Emulated card 0 has compute capability 9.0, and the kernels here were built for sm_80") &&
            strstr(same.msg, "GPU_ARCHS=90"),
        "%s", same.msg);
    setenv("EMU_DRIVER", "12020", 1);
    g->major = 7; /* whatever the driver, there is no code for it */
    (void)gpu_tell_unloadable(g, CU_NO_BINARY_FOR_GPU, "norm", built_for, &old_card);
    cr_assert(strstr(old_card.msg, "a card of 8.0 or later is needed"), "%s", old_card.msg);
    gpu_rig_close(g);
}

Test(gpu_driver, is_opened_once_and_names_results) {
    struct err e = {0};
    char buf[100];
    gpu_rig_prepare(0, 0);
    const struct driver *d = driver_open(&e);
    cr_assert(d, "%s", e.msg);
    cr_assert_eq(driver_open(&e), d);
    cr_assert_str_eq(driver_error(d, CU_OUT_OF_MEMORY, buf, sizeof buf), "CUDA_ERROR_OUT_OF_MEMORY: out of memory");
    cr_assert_str_eq(driver_error(d, 98765, buf, sizeof buf), "CUDA error 98765");
}

/* gpu/gpu.c */

Test(gpu, says_what_it_is) {
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(3, 50 << 20);
    struct gpu *g = gpu_rig_open(), *other;
    struct err e = {0};
    int n;
    cr_assert_eq(gpu_count(&n, &e), 0);
    cr_assert_eq(n, 3);
    cr_assert_str_eq(g->name, "Emulated card 0");
    cr_assert(g->major == 9 && g->minor == 0 && g->n_processors == 6);
    cr_assert_eq(g->memory, 50 << 20);
    cr_assert_eq(g->shared_max, 99 * 1024);
    cr_assert_eq(gpu_open(&other, 3, &e), -1);
    cr_assert_null(other);
    cr_assert_eq(e.kind, ERR_DEVICE);
    cr_assert(strstr(e.msg, "there is no GPU 3: this machine has 3 (numbered from 0)"), "%s", e.msg);
    cr_assert_eq(gpu_open(&other, -1, NULL), -1);
    gpu_rig_close(g);
}

Test(gpu, memory_is_zero_and_comes_back) {
    struct gpu *g = gpu_rig_open();
    unsigned char bytes[1000];
    size_t before = gpu_memory_left(g);
    for (int round = 0; round < 2; round++) {
        cu_ptr p = gpu_rig_alloc(g, sizeof bytes);
        gpu_rig_read(g, bytes, p, sizeof bytes);
        for (size_t i = 0; i < sizeof bytes; i++)
            cr_assert_eq(bytes[i], 0);
        memset(bytes, 5, sizeof bytes);
        gpu_rig_write(g, p, bytes, sizeof bytes);
        gpu_free(g, p);
    }
    gpu_free(g, 0);
    gpu_host_free(g, NULL, 0);
    if (!gpu_rig_real()) /* what is left of a real card is the whole machine's affair */
        cr_assert_eq(gpu_memory_left(g), before);
    gpu_rig_close(g);
}

Test(gpu, out_of_memory_says_what_for_and_what_helps) {
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(1, 8000000);
    struct gpu *g = gpu_rig_open();
    struct err e = {0};
    cu_ptr p = gpu_rig_alloc(g, 5000000), q = 1;
    cr_assert_eq(gpu_alloc(g, &q, 4000000, "the weights of layer 7", &e), -1);
    cr_assert_eq(q, 0);
    cr_assert_eq(e.kind, ERR_MEMORY);
    cr_assert(strstr(e.msg, "no memory for the weights of layer 7: 4.0 MB more are needed, 3.0 of its 8.0 MB are left"),
              "%s", e.msg);
    cr_assert(strstr(e.msg, "fewer layers") && strstr(e.msg, "--quant") && strstr(e.msg, "--ctx"), "%s", e.msg);
    gpu_free(g, p);
    q = gpu_rig_alloc(g, 8000000);
    gpu_free(g, q);
    gpu_rig_close(g);
}

Test(gpu, any_allocation_may_fail) {
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    struct err e = {0}, e2 = {0};
    cu_ptr p;
    void *host;
    gpu_rig_fail_in(1);
    cr_assert_eq(gpu_alloc(g, &p, 100, "a test", &e), -1);
    cr_assert_eq(e.kind, ERR_MEMORY);
    gpu_rig_fail_in(1);
    cr_assert_eq(gpu_host_alloc(g, &host, 3000000, &e2), -1);
    cr_assert_null(host);
    cr_assert_eq(e2.kind, ERR_MEMORY);
    cr_assert(strstr(e2.msg, "3.0 MB of this machine's memory cannot be pinned"), "%s", e2.msg);
    gpu_rig_close(g);
}

Test(gpu, wiping_zeroes) {
    struct gpu *g = gpu_rig_open();
    char text[64] = "secret", zero[64] = {0};
    cu_ptr p = gpu_rig_put(g, text, sizeof text);
    gpu_wipe(g, p + 2, 3);
    gpu_wipe(g, 0, 0);
    gpu_rig_read(g, text, p, sizeof text);
    cr_assert(memcmp(text, "se\0\0\0t", 7) == 0);
    gpu_wipe(g, p, sizeof text);
    gpu_rig_read(g, text, p, sizeof text);
    cr_assert(memcmp(text, zero, sizeof text) == 0);
    gpu_free(g, p);
    gpu_rig_close(g);
}

/* A kernel of the tests in the place of the program's first one: writes out_u[thread] of each block. */
static cu_module test_module;
static struct gpu *open_with_kernel(const char *name) {
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    cr_assert_eq(g->driver->module_load(&test_module, NULL), 0);
    cr_assert_eq(g->driver->module_function(&g->kernels->functions[0], test_module, name), 0);
    g->kernels->awaits[0] = false;
    return g;
}
static void close_with_kernel(struct gpu *g) {
    (void)g->driver->module_unload(test_module);
    gpu_rig_close(g);
}

enum { N = 32 };
static uint32_t where(uint32_t thread) { /* what test_where writes in a grid of one block */
    return thread << 12 | 1u << 24 | 1u << 28;
}

static void expect(struct gpu *g, cu_ptr p, bool written) {
    uint32_t out[N];
    gpu_rig_read(g, out, p, sizeof out);
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(out[i], written ? where(i) : 0);
}

Test(gpu, launches_and_copies_happen_in_order_by_the_time_of_the_wait) {
    struct gpu *g = open_with_kernel("test_where");
    struct err e = {0};
    uint32_t *host;
    cu_ptr p = gpu_rig_alloc(g, N * 4), q = gpu_rig_alloc(g, N * 4);
    cr_assert_eq(gpu_host_alloc(g, (void **)&host, N * 4, &e), 0, "%s", e.msg);
    memset(host, 0, N * 4);
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    memset(&a, 0, sizeof a); /* the argument was copied */
    gpu_copy_from(g, host, p, N * 4);
    gpu_copy_to(g, q, host, N * 4); /* what the copy before it brought */
    cr_assert_eq(host[1], 0, "a card that is not waited for need not have done anything");
    gpu_rig_wait(g);
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(host[i], where(i));
    expect(g, q, true);
    gpu_host_free(g, host, N * 4);
    gpu_free(g, p);
    gpu_free(g, q);
    close_with_kernel(g);
}

Test(gpu, the_first_failure_is_kept_until_the_wait) {
    struct gpu *g = open_with_kernel("test_where");
    struct err e = {0};
    uint32_t out[N] = {0};
    cu_ptr p = gpu_rig_alloc(g, N * 4);
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    gpu_launch(g, 0, 1, 1, 1, 2048, 0, &a); /* more threads than a block can have */
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);    /* not done any more */
    gpu_copy_to(g, p, out, sizeof out);     /* wrong as well */
    cr_assert_eq(gpu_wait(g, &e), -1);
    cr_assert_eq(e.kind, ERR_DEVICE);
    cr_assert(strstr(e.msg, kernel_name(0)) && strstr(e.msg, "GPU 0 (Emulated card 0)") &&
                  strstr(e.msg, "CUDA_ERROR_INVALID_VALUE"),
              "%s", e.msg);
    expect(g, p, false); /* and the next pass is as good as any */
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    expect(g, p, true);
    gpu_rig_fail_in(1);
    e = (struct err){0};
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    cr_assert_eq(gpu_wait(g, &e), -1);
    cr_assert(strstr(e.msg, "CUDA_ERROR_LAUNCH_FAILED"), "%s", e.msg);
    gpu_free(g, p);
    close_with_kernel(g);
}

static void refused(struct gpu *g, const char *what) {
    struct err e = {0};
    cr_assert_eq(gpu_wait(g, &e), -1, "%s", what);
    cr_assert(strstr(e.msg, what), "%s", e.msg);
}

Test(gpu, copies_beyond_memory_or_from_memory_that_moves_are_refused) {
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    struct err e = {0};
    char text[64] = {0}, *host;
    cu_ptr p = gpu_rig_alloc(g, 64);
    cr_assert_eq(gpu_host_alloc(g, (void **)&host, 64, &e), 0);
    gpu_copy_to(g, p, text, 64);
    refused(g, "a copy to the card");
    gpu_copy_to(g, p + 1, host, 64);
    refused(g, "a copy to the card");
    gpu_copy_from(g, host + 1, p, 64);
    refused(g, "a copy from the card");
    gpu_copy_from(g, host, p - 1, 64);
    refused(g, "a copy from the card");
    gpu_wipe(g, p, 65);
    refused(g, "wiping memory");
    gpu_host_free(g, host, 64);
    gpu_free(g, p);
    gpu_free(g, p);
    refused(g, "freeing memory");
    gpu_rig_close(g);
}

Test(gpu, shared_memory_is_asked_for_when_a_launch_needs_more) {
    struct gpu *g = open_with_kernel("test_blocks");
    float in[64], out[64];
    for (int i = 0; i < 64; i++)
        in[i] = 1;
    cu_ptr from = gpu_rig_put(g, in, sizeof in), to = gpu_rig_alloc(g, sizeof out);
    struct test_args a = {.in = GPU_AT(float, from), .out = GPU_AT(float, to), .n = 1};
    gpu_launch(g, 0, 1, 1, 1, 64, 64 * 1024, &a);
    gpu_launch(g, 0, 1, 1, 1, 64, 99 * 1024, &a);
    gpu_launch(g, 0, 1, 1, 1, 64, 99 * 1024, &a);
    gpu_rig_read(g, out, to, sizeof out);
    cr_assert_eq(out[63], 64.0f);
    gpu_launch(g, 0, 1, 1, 1, 64, 100 * 1024, &a);
    refused(g, kernel_name(0));
    gpu_free(g, from);
    gpu_free(g, to);
    close_with_kernel(g);
}

Test(gpu, recorded_launches_run_when_they_are_replayed) {
    struct gpu *g = open_with_kernel("test_where");
    cu_ptr p = gpu_rig_alloc(g, N * 4);
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    gpu_record_begin(g);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    memset(&a, 0, sizeof a); /* arguments are part of the recording */
    cu_graph_exec x = gpu_record_end(g);
    cr_assert_not_null(x);
    expect(g, p, false);
    for (int round = 0; round < 3; round++) {
        gpu_replay(g, x);
        expect(g, p, true);
        gpu_wipe(g, p, N * 4);
    }
    gpu_replay(g, x);
    gpu_forget(g, x); /* what was enqueued still runs */
    expect(g, p, true);
    gpu_forget(g, NULL);
    gpu_free(g, p);
    close_with_kernel(g);
}

Test(gpu, recording_fails_whole) {
    struct gpu *g = open_with_kernel("test_where");
    struct err e = {0};
    char *host;
    cu_ptr p = gpu_rig_alloc(g, N * 4), q;
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    cr_assert_eq(gpu_host_alloc(g, (void **)&host, 64, &e), 0);
    gpu_record_begin(g);
    gpu_copy_to(g, p, host, 64);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    cr_assert_null(gpu_record_end(g));
    gpu_replay(g, NULL);
    refused(g, "a copy to the card");
    gpu_record_begin(g);
    cr_assert_eq(gpu_alloc(g, &q, 100, "a test", &e), -1);
    cr_assert_null(gpu_record_end(g));
    refused(g, "recording the steps of a pass");
    gpu_record_begin(g);
    gpu_launch(g, 0, 0, 1, 1, N, 0, &a);
    cr_assert_null(gpu_record_end(g));
    refused(g, kernel_name(0));
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a); /* the stream runs again */
    expect(g, p, true);
    gpu_copy_to(g, p, "not pinned", 8); /* a failure before: nothing is recorded */
    gpu_record_begin(g);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    cr_assert_null(gpu_record_end(g));
    refused(g, "a copy to the card");
    gpu_host_free(g, host, 64);
    gpu_free(g, p);
    close_with_kernel(g);
}

Test(gpu, closes_in_any_state) {
    struct gpu *g = open_with_kernel("test_where");
    cu_ptr p = gpu_rig_alloc(g, N * 4);
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    gpu_close(NULL);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    gpu_free(g, p);
    cr_assert_eq(g->driver->module_unload(test_module), 0);
    gpu_copy_to(g, 0, NULL, 4);
    gpu_record_begin(g);
    gpu_rig_close(g); /* failed */
    g = gpu_rig_open();
    gpu_record_begin(g);
    gpu_rig_close(g); /* recording */
}

/* What an access that is not allowed does to a card: nothing works until it was closed. */
Test(gpu, a_broken_card_says_so_and_can_be_opened_again) {
    struct gpu *g = open_with_kernel("test_where");
    struct err e = {0};
    cu_ptr p = gpu_rig_alloc(g, N * 4), q;
    struct test_args a = {.out_u = GPU_AT(uint32_t, p)};
    gpu_rig_break_in(1);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    refused(g, "CUDA_ERROR_ILLEGAL_ADDRESS");
    refused(g, "CUDA_ERROR_ILLEGAL_ADDRESS");
    cr_assert_eq(gpu_alloc(g, &q, 10, "a test", &e), -1);
    cr_assert_eq(q, 0);
    gpu_free(g, p);
    close_with_kernel(g);
    g = open_with_kernel("test_where");
    p = gpu_rig_alloc(g, N * 4);
    a.out_u = GPU_AT(uint32_t, p);
    gpu_launch(g, 0, 1, 1, 1, N, 0, &a);
    expect(g, p, true);
    gpu_free(g, p);
    close_with_kernel(g);
}

Test(gpu, what_is_never_freed_is_counted) {
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    struct err e = {0};
    void *host;
    cu_stream s;
    (void)gpu_rig_alloc(g, 100);
    cr_assert_eq(gpu_host_alloc(g, &host, 100, &e), 0);
    cr_assert_eq(g->driver->stream_create(&s, CU_STREAM_NON_BLOCKING), 0);
    gpu_close(g);
    cr_assert_eq(gpu_rig_leaks(), 3);
}

Test(gpu, two_cards_are_two) {
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open(), *h;
    struct err e = {0};
    char text[8] = "card 0";
    cr_assert_eq(gpu_open(&h, 1, &e), 0, "%s", e.msg);
    cr_assert_str_eq(h->name, "Emulated card 1");
    gpu_enter(g);
    size_t left = gpu_memory_left(g);
    cu_ptr p = gpu_rig_put(g, text, sizeof text);
    cr_assert_eq(gpu_memory_left(g), left - sizeof text);
    gpu_enter(h);
    cr_assert_eq(gpu_memory_left(h), left);
    cu_ptr q = gpu_rig_put(h, "card 1", 7);
    gpu_wipe(h, p, 1); /* the other's memory */
    refused(h, "wiping memory");
    gpu_wipe(g, p, 1); /* the other's stream */
    refused(g, "CUDA_ERROR_INVALID_HANDLE");
    gpu_enter(g);
    gpu_rig_read(g, text, p, sizeof text);
    cr_assert_str_eq(text, "card 0");
    gpu_free(g, p);
    gpu_enter(h);
    gpu_free(h, q);
    gpu_close(h);
    gpu_rig_close(g);
}

static void *on_another_thread(void *arg) {
    struct gpu *g = arg;
    char text[8] = "";
    gpu_wipe(g, 1, 1);
    cr_assert_eq(gpu_wait(g, NULL), -1, "a thread that has not entered has no card");
    gpu_enter(g);
    cu_ptr p = gpu_rig_put(g, "thread", 7);
    gpu_rig_read(g, text, p, 7);
    cr_assert_str_eq(text, "thread");
    gpu_free(g, p);
    return NULL;
}

Test(gpu, another_thread_enters_first) {
    pthread_t t;
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    cr_assert_eq(pthread_create(&t, NULL, on_another_thread, g), 0);
    pthread_join(t, NULL);
    gpu_rig_close(g);
}

/* Loading on a second stream: without the event a pass would not see what was loaded. */
Test(gpu, streams_wait_for_each_other_by_events) {
    struct gpu *g = gpu_rig_open();
    const struct driver *d = g->driver;
    struct err e = {0};
    char *host;
    cu_event ev, start, end;
    float ms = -1;
    cu_ptr p = gpu_rig_alloc(g, 8);
    cr_assert_eq(gpu_host_alloc(g, (void **)&host, 16, &e), 0);
    memcpy(host, "loaded", 7);
    cr_assert_eq(d->event_create(&ev, CU_EVENT_NO_TIMING), 0);
    cr_assert_eq(d->event_create(&start, CU_EVENT_DEFAULT), 0);
    cr_assert_eq(d->event_create(&end, CU_EVENT_DEFAULT), 0);
    cr_assert_eq(d->event_record(start, g->loads), 0);
    cr_assert_eq(d->copy_to(p, host, 8, g->loads), 0);
    cr_assert_eq(d->event_record(ev, g->loads), 0);
    cr_assert_eq(d->event_record(end, g->loads), 0);
    cr_assert_eq(d->stream_wait(g->stream, ev, 0), 0);
    gpu_copy_from(g, host + 8, p, 8);
    gpu_rig_wait(g);
    cr_assert_str_eq(host + 8, "loaded");
    cr_assert_eq(d->event_sync(end), 0);
    cr_assert_eq(d->event_elapsed(&ms, start, end), 0);
    cr_assert_geq(ms, 0.0f);
    cr_assert_eq(d->event_destroy(ev), 0);
    cr_assert_eq(d->event_destroy(start), 0);
    cr_assert_eq(d->event_destroy(end), 0);
    gpu_host_free(g, host, 16);
    gpu_free(g, p);
    gpu_rig_close(g);
}
