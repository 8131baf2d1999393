/* Launches that begin before the launches before them have ended (gpu_launch): the emulated card begins some blocks of
 * each as early as it may, so that a kernel that does not wait for what it needs computes something else. */
#include "gpu/kernel_list.h"
#include "test/gpu/emu/test_kernels.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 8, N = BLOCKS * 64, LAUNCHES = 9 };

/* A card whose first kernel is test_next. */
struct rig {
    struct gpu *g;
    cu_module module;
    cu_ptr weights, a, b;
    float first[N], wanted[N];
};

static void rig_open(struct rig *r, int ordinal) {
    struct err e = {0};
    uint32_t weights[64];
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    cr_assert_eq(gpu_open(&r->g, ordinal, &e), 0, "%s", e.msg);
    cr_assert_eq(r->g->driver->module_load(&r->module, NULL), 0);
    cr_assert_eq(r->g->driver->module_function(&r->g->kernels->functions[0], r->module, "test_next"), 0);
    for (uint32_t i = 0; i < 64; i++)
        weights[i] = 1000 + i;
    for (int i = 0; i < N; i++)
        r->first[i] = (float)i;
    r->weights = gpu_rig_put(r->g, weights, sizeof weights);
    r->a = gpu_rig_put(r->g, r->first, sizeof r->first);
    r->b = gpu_rig_alloc(r->g, sizeof r->first);
    float x[N];
    memcpy(x, r->first, sizeof x);
    for (int k = 0; k < LAUNCHES; k++) {
        for (int i = 0; i < N; i++)
            r->wanted[i] = x[(i + 64 * 3 + 1) % N] + (float)weights[i % 64];
        memcpy(x, r->wanted, sizeof x);
    }
}

static void rig_close(struct rig *r) {
    gpu_free(r->g, r->weights);
    gpu_free(r->g, r->a);
    gpu_free(r->g, r->b);
    cr_assert_eq(r->g->driver->module_unload(r->module), 0);
    gpu_rig_close(r->g);
}

/* From a to b, from b to a ...: each writes what the one before has read. */
static void launch_all(const struct rig *r, int n) {
    for (int k = 0; k < LAUNCHES; k++) {
        struct test_args a = {.in = GPU_AT(float, k % 2 ? r->b : r->a),
                              .out = GPU_AT(float, k % 2 ? r->a : r->b),
                              .in_u = GPU_AT(uint32_t, r->weights),
                              .n = n};
        gpu_launch(r->g, 0, BLOCKS, 1, 1, 64, 0, &a);
    }
}

/* Whether the result is what it has to be, and puts the first values back. */
static bool is_right(const struct rig *r) {
    float out[N];
    gpu_rig_read(r->g, out, LAUNCHES % 2 ? r->b : r->a, sizeof out);
    gpu_rig_write(r->g, r->a, r->first, sizeof r->first);
    return memcmp(out, r->wanted, sizeof out) == 0;
}

Test(gpu_overlap, launches_that_wait_for_what_they_need_compute_the_same) {
    struct rig r;
    rig_open(&r, 0);
    cr_assert(r.g->overlaps);
    for (int round = 0; round < 5; round++) {
        launch_all(&r, NEXT_RIGHT);
        cr_assert(is_right(&r));
    }
    rig_close(&r);
}

Test(gpu_overlap, recorded_ones_as_well) {
    struct rig r;
    rig_open(&r, 0);
    gpu_record_begin(r.g);
    launch_all(&r, NEXT_RIGHT);
    cu_graph_exec right = gpu_record_end(r.g);
    gpu_record_begin(r.g);
    launch_all(&r, NEXT_READS_EARLY);
    cu_graph_exec wrong = gpu_record_end(r.g);
    for (int round = 0; round < 3; round++) {
        gpu_replay(r.g, right);
        cr_assert(is_right(&r));
        gpu_replay(r.g, wrong);
        cr_assert_not(is_right(&r));
    }
    gpu_forget(r.g, right);
    gpu_forget(r.g, wrong);
    rig_close(&r);
}

Test(gpu_overlap, one_that_reads_too_early_shows) {
    struct rig r;
    rig_open(&r, 0);
    launch_all(&r, NEXT_READS_EARLY);
    cr_assert_not(is_right(&r));
    rig_close(&r);
}

/* A launch begins behind what is no launch, and so does all that follows it. */
Test(gpu_overlap, a_copy_is_not_overtaken) {
    struct rig r;
    float *host, zero[N] = {0};
    struct err e = {0};
    rig_open(&r, 0);
    cr_assert_eq(gpu_host_alloc(r.g, (void **)&host, sizeof r.first, &e), 0);
    memcpy(host, r.first, sizeof r.first);
    gpu_rig_write(r.g, r.a, zero, sizeof zero);
    struct test_args a = {.in = GPU_AT(float, r.a),
                          .out = GPU_AT(float, r.b),
                          .in_u = GPU_AT(uint32_t, r.weights),
                          .n = NEXT_READS_EARLY};
    gpu_launch(r.g, 0, BLOCKS, 1, 1, 64, 0, &a);
    gpu_copy_to(r.g, r.a, host, sizeof r.first);
    for (int k = 0; k < LAUNCHES; k++) /* what these read too early was copied before the first of them */
        gpu_launch(r.g, 0, BLOCKS, 1, 1, 64, 0, &a);
    float out[N];
    gpu_rig_read(r.g, out, r.b, sizeof out);
    for (int i = 0; i < N; i++)
        cr_assert_eq(out[i], r.first[(i + 64 * 3 + 1) % N] + 1000 + (float)(i % 64));
    gpu_host_free(r.g, host, sizeof r.first);
    rig_close(&r);
}

/* There launches come one after the other, and whoever reads too early is right by chance. */
static void one_after_the_other(int ordinal) {
    struct rig r;
    rig_open(&r, ordinal);
    cr_assert_not(r.g->overlaps);
    launch_all(&r, NEXT_READS_EARLY);
    cr_assert(is_right(&r));
    launch_all(&r, NEXT_ENDS);
    gpu_rig_wait(r.g);
    rig_close(&r);
}
Test(gpu_overlap, older_cards_have_none) {
    one_after_the_other(1);
}
Test(gpu_overlap, it_can_be_switched_off) {
    setenv("SPLITINF_PDL", "0", 1);
    one_after_the_other(0);
}

/* What the driver may say, in the place of one of its functions. */
static cu_result compute_80(int *value, int attribute, cu_function f) {
    (void)attribute, (void)f;
    *value = 80;
    return 0;
}
static cu_result cuda_12_2(int *version) {
    *version = 12020;
    return 0;
}
static struct driver *driver(void) {
    struct err e = {0};
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(0, 0);
    const struct driver *d = driver_open(&e);
    cr_assert(d, "%s", e.msg);
    return (struct driver *)(uintptr_t)d;
}

Test(gpu_overlap, nor_has_an_older_driver_which_could_not_record_it) {
    driver()->driver_version = cuda_12_2;
    one_after_the_other(0);
}

/* Such code does not wait, on whatever card. */
Test(gpu_overlap, nor_code_that_was_made_of_older_ptx) {
    driver()->function_get = compute_80;
    struct gpu *g = gpu_rig_open();
    cr_assert(g->overlaps);
    for (int i = 0; i < N_KERNELS; i++)
        cr_assert_not(g->kernels->awaits[i]);
    gpu_rig_close(g);
}

static void run_broken(int n) {
    struct rig r;
    rig_open(&r, 0);
    launch_all(&r, n);
    gpu_rig_wait(r.g);
}
#define BREAKS(n, what)                                                                                                \
    Test(gpu_overlap, what, .signal = SIGABRT) {                                                                       \
        run_broken(n);                                                                                                 \
    }
BREAKS(NEXT_WRITES_EARLY, a_write_before_the_wait)
BREAKS(NEXT_ENDS, a_kernel_that_does_not_wait)
BREAKS(NEXT_THREAD_ENDS, a_thread_that_does_not_wait)
BREAKS(NEXT_WAITS_TWICE, a_second_wait)
BREAKS(NEXT_KEEPS, a_kernel_that_does_not_release)
