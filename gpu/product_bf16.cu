#include "gpu/product.cuh"

PRODUCT_KERNELS(bf16, DT_BF16)
PRODUCT_KERNEL_128(bf16, DT_BF16)
