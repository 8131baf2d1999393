/* test/gpu/emu/fiber.h - threads of a block as fibers: a stack each, and a switch that costs a few nanoseconds and no
 * system call. Known to the sanitizers. One operating system thread at a time may use them. */
#ifndef EMU_FIBER_H
#define EMU_FIBER_H

#include <cstddef>

namespace emu {

struct fiber {
    void *sp;         /* while it does not run */
    char *stack;      /* its lowest byte; a guard page lies below */
    size_t bytes;     /* of the stack */
    void *fake_stack; /* AddressSanitizer's */
};

/* A fiber that begins with entry(), which must not return. Stacks are never given back. index: neighbours' stacks start
 * at different lines of the cache. */
void fiber_create(fiber *f, int index, void (*entry)());

/* Leaves from, which is running, for to. from may be the thread's own stack, in a fiber of zeros. */
void fiber_switch(fiber *from, fiber *to);

/* The first thing of entry(): who came before. */
void fiber_entered();

} // namespace emu

#endif
