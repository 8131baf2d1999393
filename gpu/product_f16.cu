#include "gpu/product.cuh"

PRODUCT_KERNELS(f16, DT_F16)
PRODUCT_KERNEL_128(f16, DT_F16)
