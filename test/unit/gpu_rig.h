/* test/unit/gpu_rig.h - a card for tests: the emulated one of this build, or with SPLITINF_TEST_GPU=1 the machine's. */
#ifndef TEST_UNIT_GPU_RIG_H
#define TEST_UNIT_GPU_RIG_H

#include "gpu/gpu.h"

/* Says which libraries driver_open and nccl_open shall take; before anything else of gpu/. Emulated cards: n of them
 * with so many bytes each, 0: 2 and 1 GiB; with a real card both mean nothing. */
void gpu_rig_prepare(int n_devices, size_t memory);
/* Whether tests run on a real card; needs_real_card skips the test where they do not, saying why. */
bool gpu_rig_real(void);
void gpu_rig_needs_real_card(const char *why);
void gpu_rig_needs_emulated_card(void);

/* Opens card 0 (prepares as above with 0, 0 when nobody has); fails the test when it cannot. */
struct gpu *gpu_rig_open(void);
/* Closes it, and fails the test when a card's memory or an object on it was never freed (emulated cards only). */
void gpu_rig_close(struct gpu *g);

/* The nth launch or allocation from now on fails (1: the next; 0: none). Emulated cards only. */
void gpu_rig_fail_in(int n);
/* The nth launch from now on breaks its card: waits and all later calls fail, until the card is closed. */
void gpu_rig_break_in(int n);
/* The nth call of NCCL from now on fails that connects or gathers; the nth gather never takes place, or brings wrong
 * bytes; NCCL has found an error on its own, result n. Emulated cards only. */
enum gpu_rig_gathers { GATHERS_FAIL, GATHERS_HANG, GATHERS_GARBLE, GATHERS_LATE_ERROR };
void gpu_rig_gathers(enum gpu_rig_gathers what, int n);
/* What emulated cards have counted as never freed. */
int gpu_rig_leaks(void);

/* Device memory that the test fails without. */
cu_ptr gpu_rig_alloc(struct gpu *g, size_t bytes);
/* The same, filled with a copy of p. */
cu_ptr gpu_rig_put(struct gpu *g, const void *p, size_t bytes);
/* Copies from and to ordinary memory, complete on return. */
void gpu_rig_read(struct gpu *g, void *p, cu_ptr src, size_t bytes);
void gpu_rig_write(struct gpu *g, cu_ptr dst, const void *p, size_t bytes);
/* Fails the test when a step failed. */
void gpu_rig_wait(struct gpu *g);

/* A device address as the pointer that a kernel's struct holds. */
#define GPU_AT(type, p) ((type *)(uintptr_t)(p))

#endif
