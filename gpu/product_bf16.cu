#include "gpu/product.cuh"

PRODUCT_KERNELS(bf16, DT_BF16)
PRODUCT_WIDE(bf16, DT_BF16, whole, 128)
