#include "gpu/product.cuh"

PRODUCT_KERNELS(f16, DT_F16)
PRODUCT_WIDE(f16, DT_F16, whole, 128)
