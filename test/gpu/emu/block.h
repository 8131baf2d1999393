/* test/gpu/emu/block.h - runs kernels: the grid, its blocks, their threads. One launch at a time in a process. */
#ifndef EMU_BLOCK_H
#define EMU_BLOCK_H

#include "gpu/simt.cuh"

#include <vector>

namespace emu {

/* A launch, when its time has come. */
struct work {
    kernel &k;
    dim grid;
    int threads;
    size_t shared;
    const void *arg; /* the kernel's struct */
    bool overlaps;   /* may begin before the launches before it have ended: it waits for that itself */
};
struct begun_block;

/* Begins a block of a launch that overlaps: it runs up to await_predecessor. room: the card's memory, which it must not
 * write so early. */
begun_block *begin_early(const work &w, int room);
/* Runs all blocks of a launch, in an order of its own, and the rest of the one that has begun (NULL: none). */
void run_kernel(const work &w, begun_block *begun);

/* Below n; for what a card may do one way or the other. */
int random_below(int n);

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
