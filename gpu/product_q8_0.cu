#include "gpu/product.cuh"

PRODUCT_KERNELS(q8_0, DT_Q8_0)
PRODUCT_KERNEL_128(q8_0, DT_Q8_0)
