/* core/cpu/kernel_macros.h - what the kernel bodies ask of the compiler. */
#ifndef CORE_CPU_KERNEL_MACROS_H
#define CORE_CPU_KERNEL_MACROS_H

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Before a loop with a constant count, whose arrays of vec are to live in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#endif
