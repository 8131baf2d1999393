#include "gpu/product.cuh"

PRODUCT_KERNELS(q4_K, DT_Q4_K)
PRODUCT_KERNEL_128(q4_K, DT_Q4_K)
