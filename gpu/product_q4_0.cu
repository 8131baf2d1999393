#include "gpu/product.cuh"

PRODUCT_KERNELS(q4_0, DT_Q4_0)
PRODUCT_FAST_KERNELS(q4_0, DT_Q4_0)
