#include "test/gpu/emu/test_kernels.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <string.h>

/* Kernels of tests are no part of the program: they come from the emulated card alone. */
static struct gpu *g;
static cu_module module;

static void start(void) {
    gpu_rig_needs_emulated_card();
    g = gpu_rig_open();
    cr_assert_eq(g->driver->module_load(&module, NULL), 0);
}

static void finish(void) {
    if (!g)
        return;
    cr_assert_eq(g->driver->module_unload(module), 0);
    gpu_rig_close(g);
}
TestSuite(gpu_simt, .init = start, .fini = finish);

static void launch(const char *name, unsigned gx, unsigned gy, unsigned gz, unsigned threads, unsigned shared,
                   struct test_args a) {
    cu_function f;
    void *params[] = {&a};
    cr_assert_eq(g->driver->module_function(&f, module, name), 0, "%s", name);
    cr_assert_eq(g->driver->launch(f, gx, gy, gz, threads, 1, 1, shared, g->stream, params, NULL), 0, "%s", name);
    gpu_rig_wait(g);
}

Test(gpu_simt, every_thread_of_every_block_runs_once) {
    enum { GX = 3, GY = 2, GZ = 2, T = 96, N = GX * GY * GZ * T };
    static uint32_t out[N];
    cu_ptr p = gpu_rig_alloc(g, sizeof out);
    launch("test_where", GX, GY, GZ, T, 0, (struct test_args){.out_u = GPU_AT(uint32_t, p)});
    gpu_rig_read(g, out, p, sizeof out);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t t = i % T, b = i / T, x = b % GX, y = b / GX % GY, z = b / GX / GY;
        cr_assert_eq(out[i], x | y << 4 | z << 8 | t << 12 | (uint32_t)GX << 24 | (uint32_t)GZ << 28);
    }
    gpu_free(g, p);
}
