/* test/gpu/emu/test_kernels.cu - kernels that use one thing of simt.cuh each, for test_gpu_simt. */
#include "test/gpu/emu/test_kernels.h"

#include "gpu/simt.cuh"

KERNEL(1024, test_where, struct test_args a) {
    int i = (block_z() * 2 + block_y()) * grid_x() + block_x();
    a.out_u[i * block_threads() + thread_x()] =
        (uint32_t)(block_x() | block_y() << 4 | block_z() << 8 | thread_x() << 12 | grid_x() << 24 | grid_z() << 28);
}
