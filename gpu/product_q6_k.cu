#include "gpu/product.cuh"

PRODUCT_KERNELS(q6_K, DT_Q6_K)
PRODUCT_FAST_KERNELS(q6_K, DT_Q6_K)
