#include "gpu/product.cuh"

PRODUCT_KERNELS(q4_K, DT_Q4_K)
PRODUCT_FAST_KERNELS(q4_K, DT_Q4_K)
