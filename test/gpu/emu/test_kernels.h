/* test/gpu/emu/test_kernels.h - what the kernels of test_kernels.cu are given. */
#ifndef EMU_TEST_KERNELS_H
#define EMU_TEST_KERNELS_H

#include "gpu/kernels.h"

struct test_args {
    float *out;
    const float *in;
    uint32_t *out_u;
    const uint32_t *in_u;
    int n;
};

/* What is wrong with test_next. */
enum { NEXT_RIGHT, NEXT_READS_EARLY, NEXT_WRITES_EARLY, NEXT_ENDS, NEXT_THREAD_ENDS, NEXT_WAITS_TWICE, NEXT_KEEPS };

#endif
