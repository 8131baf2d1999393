#include "gpu/product.cuh"

PRODUCT_KERNELS(q6_K, DT_Q6_K)
PRODUCT_KERNEL_128(q6_K, DT_Q6_K)
