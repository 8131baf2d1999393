#include "gpu/product.cuh"

PRODUCT_KERNELS(f32, DT_F32)
