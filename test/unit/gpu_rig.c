#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>

static bool prepared;

bool gpu_rig_real(void) {
    const char *v = getenv("SPLITINF_TEST_GPU");
    return v && strcmp(v, "1") == 0;
}

void gpu_rig_needs_real_card(const char *why) {
    if (!gpu_rig_real())
        cr_skip_test("no real card (SPLITINF_TEST_GPU=1 takes the machine's): %s", why);
}

void gpu_rig_needs_emulated_card(void) {
    if (gpu_rig_real())
        cr_skip_test("only an emulated card shows this");
}

void gpu_rig_prepare(int n_devices, size_t memory) {
    char number[32];
    prepared = true;
    if (gpu_rig_real())
        return;
    setenv("SPLITINF_LIBCUDA", EMU_LIBRARY, 1);
    setenv("SPLITINF_LIBNCCL", EMU_LIBRARY, 1);
    if (n_devices > 0) {
        snprintf(number, sizeof number, "%d", n_devices);
        setenv("EMU_DEVICES", number, 1);
    }
    if (memory > 0) {
        snprintf(number, sizeof number, "%zu", memory);
        setenv("EMU_MEMORY", number, 1);
    }
}

struct gpu *gpu_rig_open(void) {
    struct err e = {0};
    struct gpu *g;
    if (!prepared)
        gpu_rig_prepare(0, 0);
    cr_assert_eq(gpu_open(&g, 0, &e), 0, "%s", e.msg);
    return g;
}

/* A function that only the emulated driver has. */
static void *emu_function(const char *name) {
    struct err e = {0};
    const struct driver *d = driver_open(&e);
    cr_assert(d, "%s", e.msg);
    void *f = dlsym(d->library, name);
    cr_assert(f, "%s is not an emulated card's", name);
    return f;
}

int gpu_rig_leaks(void) {
    int (*leaks)(void);
    void *f = emu_function("emu_leaks");
    memcpy(&leaks, &f, sizeof f);
    return leaks();
}

static void emu_set(const char *name, int n) {
    void (*set)(int n);
    void *f = emu_function(name);
    memcpy(&set, &f, sizeof f);
    set(n);
}

void gpu_rig_fail_in(int n) {
    emu_set("emu_fail", n);
}

void gpu_rig_break_in(int n) {
    emu_set("emu_break", n);
}

void gpu_rig_gathers(enum gpu_rig_gathers what, int n) {
    static const char *const functions[] = {[GATHERS_FAIL] = "emu_nccl_fail",
                                            [GATHERS_HANG] = "emu_nccl_silence",
                                            [GATHERS_GARBLE] = "emu_nccl_garble",
                                            [GATHERS_LATE_ERROR] = "emu_nccl_late_error"};
    emu_set(functions[what], n);
}

void gpu_rig_close(struct gpu *g) {
    gpu_close(g);
    if (!gpu_rig_real())
        cr_assert_eq(gpu_rig_leaks(), 0, "%d objects of the card were never freed", gpu_rig_leaks());
}

cu_ptr gpu_rig_alloc(struct gpu *g, size_t bytes) {
    struct err e = {0};
    cu_ptr p;
    cr_assert_eq(gpu_alloc(g, &p, bytes, "a test", &e), 0, "%s", e.msg);
    return p;
}

void gpu_rig_wait(struct gpu *g) {
    struct err e = {0};
    cr_assert_eq(gpu_wait(g, &e), 0, "%s", e.msg);
}

static void *pinned(struct gpu *g, size_t bytes) {
    struct err e = {0};
    void *p;
    cr_assert_eq(gpu_host_alloc(g, &p, bytes, &e), 0, "%s", e.msg);
    return p;
}

void gpu_rig_write(struct gpu *g, cu_ptr dst, const void *p, size_t bytes) {
    void *host = pinned(g, bytes);
    memcpy(host, p, bytes);
    gpu_copy_to(g, dst, host, bytes);
    gpu_rig_wait(g);
    gpu_host_free(g, host, bytes);
}

void gpu_rig_read(struct gpu *g, void *p, cu_ptr src, size_t bytes) {
    void *host = pinned(g, bytes);
    gpu_copy_from(g, host, src, bytes);
    gpu_rig_wait(g);
    memcpy(p, host, bytes);
    gpu_host_free(g, host, bytes);
}

cu_ptr gpu_rig_put(struct gpu *g, const void *p, size_t bytes) {
    cu_ptr at = gpu_rig_alloc(g, bytes);
    gpu_rig_write(g, at, p, bytes);
    return at;
}
