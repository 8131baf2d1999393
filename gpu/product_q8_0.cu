#include "gpu/product.cuh"

PRODUCT_KERNELS(q8_0, DT_Q8_0)
PRODUCT_FAST_KERNELS(q8_0, DT_Q8_0)
