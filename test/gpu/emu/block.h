/* test/gpu/emu/block.h - runs kernels: the grid, its blocks, their threads. One launch at a time in a process. */
#ifndef EMU_BLOCK_H
#define EMU_BLOCK_H

#include "gpu/simt.cuh"

namespace emu {

/* Runs all blocks of a launch, in an order of its own. arg: the kernel's struct. */
void run_kernel(kernel &k, dim grid, int threads, size_t shared, const void *arg);

/* The operands of one lane, as warp_op got them. */
struct operands {
    void *out;
    const void *a, *b;
};
/* Does one operation for a whole warp (warp.cpp). */
void warp_execute(op kind, operands *const lanes[32], where at);
const char *op_name(op kind);

/* Says what the kernel that runs did wrong, and where, and aborts. */
[[noreturn]] void broken(where at, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool in_shared(const void *p, size_t bytes);

} // namespace emu

#endif
