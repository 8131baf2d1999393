#include "cmd/engine/device.h"
#include "cmd/engine/engine.h"
#include "cmd/engine/memory.h"
#include "core/model/random.h"
#include "gpu/backend.h"
#include "gpu/blas.h"
#include "gpu/kernel_list.h"
#include "gpu/limits.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* What blas.h says of the library's ABI is what the toolkit's header says, where there is one. */
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours " is not " #theirs)
SAME(BLAS_R_32F, CUDA_R_32F);
SAME(BLAS_R_16BF, CUDA_R_16BF);
SAME(BLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(BLAS_OP_T, CUBLAS_OP_T);
SAME(BLAS_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(BLAS_PREFERENCE_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(offsetof(struct blas_heuristic, algo), offsetof(cublasLtMatmulHeuristicResult_t, algo));
SAME(offsetof(struct blas_heuristic, workspace), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(struct blas_heuristic, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
SAME(sizeof(struct blas_heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
#endif

Test(gpu_limits, copies_are_measured_and_products_where_there_is_a_library) {
    struct gpu_limits l;
    struct err e = {0};
    struct gpu *g = gpu_rig_open();
    cr_assert_eq(gpu_limits_measure(g, (size_t)8 << 20, 256, &l, &e), 0, "%s", e.msg);
    cr_assert_gt(l.copy_bytes_s, 1e6);
    cr_assert(l.matrix_flop_s > 0 || strstr(l.matrix_by, "SPLITINF_LIBCUDA") || gpu_rig_real(), "%s", l.matrix_by);
    cr_assert_neq(l.matrix_by[0], '\0');
    cr_log_info("copies %.1f GB/s; matrices %.1f GFLOP/s: %s", l.copy_bytes_s * 1e-9, l.matrix_flop_s * 1e-9,
                l.matrix_by);
    gpu_rig_close(g);
}

Test(gpu_limits, no_room_is_an_error_and_nothing_stays) {
    struct gpu_limits l;
    struct err e = {0};
    gpu_rig_needs_emulated_card();
    struct gpu *g = gpu_rig_open();
    gpu_rig_fail_in(2);
    cr_assert_eq(gpu_limits_measure(g, (size_t)8 << 20, 0, &l, &e), -1);
    cr_assert_neq(e.kind, ERR_NONE);
    gpu_rig_fail_in(0);
    gpu_rig_close(g);
}

Test(gpu_kernels, each_has_a_name_of_its_own) {
    for (int i = 0; i < N_KERNELS; i++)
        for (int k = 0; k < i; k++)
            cr_assert_str_neq(kernel_name(i), kernel_name(k));
}

/* --backend, --device and what does not go with them; no card is asked for but the emulated one. */
static int open_with(struct backend **b, int backend, const char *device, int isa, int kv, struct err *e) {
    const struct engine_opts o = {.backend = backend, .device = device, .isa = isa, .kv = kv, .threads = 1};
    memset(e, 0, sizeof *e);
    return device_open(b, &o, e);
}

Test(gpu_device, options_choose_the_backend) {
    struct backend *b;
    struct err e;
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(2, 0);
    const struct {
        int backend, isa, kv;
        const char *device;
        int rc; /* 1: a card */
    } cases[] = {
        {DEVICE_AUTO, 0, 0, NULL, 1},  {DEVICE_CUDA, 0, 0, NULL, 1},  {DEVICE_CPU, 0, 0, NULL, 0},
        {DEVICE_AUTO, 1, 0, NULL, 0},  {DEVICE_AUTO, 0, 1, NULL, 0},  {DEVICE_AUTO, 0, 0, "1", 1},
        {DEVICE_CPU, 0, 0, "1", 0},    {DEVICE_CUDA, 0, 0, "1,0", 1}, {DEVICE_CUDA, 1, 0, NULL, -1},
        {DEVICE_CUDA, 0, 1, NULL, -1}, {DEVICE_CUDA, 0, 0, "7", -1},  {DEVICE_AUTO, 0, 0, "7", -1},
        {DEVICE_AUTO, 0, 0, "x", -1},  {DEVICE_CUDA, 0, 0, "0,", -1}, {DEVICE_AUTO, 1, 0, "0", -1},
        {DEVICE_AUTO, 0, 1, "0", -1},  {DEVICE_AUTO, 0, 2, NULL, 1},  {DEVICE_CPU, 0, 2, NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = open_with(&b, cases[i].backend, cases[i].device, cases[i].isa, cases[i].kv, &e);
        cr_assert_eq(rc, cases[i].rc < 0 ? -1 : 0, "case %zu: %s", i, e.msg);
        cr_assert_eq(rc < 0, b == NULL);
        if (rc < 0) {
            cr_assert_neq(e.msg[0], '\0');
            continue;
        }
        const struct engine_opts o = {.isa = cases[i].isa};
        cr_assert_eq(device_is_card(b), cases[i].rc == 1, "case %zu", i);
        const struct engine_opts with = {.kv = cases[i].kv};
        bool in_vain = cases[i].kv == 2 && cases[i].rc == 0;
        cr_assert_eq(device_check_kv(b, &with, &e), in_vain ? -1 : 0);
        cr_assert(!in_vain || strstr(e.msg, "--backend cuda"));
        cr_assert_eq(strncmp(device_name(b, &o), cases[i].rc ? "cuda-sm" : "cpu-", cases[i].rc ? 7 : 4), 0);
        const char *is;
        cr_assert_gt(device_memory(b, 0, &is), 1 << 20);
        cr_assert_eq(device_memory(b, 4096, &is), 4096);
        cr_assert_str_eq(is, "is what --memory allows");
        b->ops->free(b);
    }
    cr_assert_eq(gpu_rig_leaks(), 0);
}

/* --math fast stands at the end of the name, whatever computes. */
Test(gpu_device, math_is_in_the_name) {
    const struct {
        int backend;
        const char *device, *name;
    } cases[] = {{DEVICE_CUDA, "1,0", "cuda-sm86+sm90-fast"}, {DEVICE_CPU, NULL, "cpu-portable-fast"}};
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(2, 0);
    for (int i = 0; i < 2; i++) {
        struct backend *b;
        struct err e = {0};
        const struct engine_opts o = {
            .backend = cases[i].backend, .device = cases[i].device, .math = MATH_FAST, .isa = i ? 1 : 0, .threads = 1};
        cr_assert_eq(device_open(&b, &o, &e), 0, "%s", e.msg);
        cr_expect_str_eq(device_name(b, &o), cases[i].name);
        b->ops->free(b);
    }
}

/* The plan of weights is what the backend then takes; that of work space is near it. */
Test(gpu_device, memory_is_planned_as_it_is_taken) {
    struct backend *b;
    struct weights *w;
    struct stage *s;
    struct kv *kv;
    struct err e = {0};
    struct memory_plan plan;
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(1, 0);
    cr_assert_eq(weights_open(&w, "test/models/tiny", &e), 0, "%s", e.msg);
    cr_assert_eq(backend_cuda_create(&b, NULL, &e), 0, "%s", e.msg);
    for (int q = QUANT_NONE; q <= QUANT_Q4; q++) {
        const enum dtype type = q == QUANT_Q8 ? DT_E4M3 : DT_F16;
        const struct part parts[3] = {{0}, {.lo = 1, .hi = 5}, {.lo = 5, .hi = 8, .head = true}};
        const enum quant quant[3] = {(enum quant)q, (enum quant)q, (enum quant)q};
        const uint64_t slots = 300;
        cr_assert_eq(memory_plan(&plan, w, parts, quant, type, slots, 64, true, &e), 0, "%s", e.msg);
        uint64_t before = backend_cuda_memory_left(b), taken = 0;
        for (int i = 1; i < 3; i++) {
            const struct load_opts lo = {.quant = (enum quant)q, .max_rows = 64};
            cr_assert_eq(b->ops->stage_load(b, w, &parts[i], &lo, &s, &e), 0, "%s", e.msg);
            cr_assert_eq(b->ops->kv_create(s, (uint32_t)slots, type, &kv, &e), 0, "%s", e.msg);
            taken += before - backend_cuda_memory_left(b);
            b->ops->kv_free(kv);
            b->ops->stage_free(s);
            cr_assert_eq(backend_cuda_memory_left(b), before);
        }
        uint64_t planned = plan.weights + plan.kv + plan.scratch;
        cr_assert(taken <= planned + ((uint64_t)2 << 20) && planned <= taken + ((uint64_t)16 << 20),
                  "quant %d: planned %zu + %zu + %zu, taken %zu", q, (size_t)plan.weights, (size_t)plan.kv,
                  (size_t)plan.scratch, (size_t)taken);
    }
    b->ops->free(b);
    weights_close(w);
}
