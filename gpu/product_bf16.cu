#include "gpu/product.cuh"

PRODUCT_KERNELS(bf16, DT_BF16)
