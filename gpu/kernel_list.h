/* gpu/kernel_list.h - all kernels by name, and where their code is found on the way to a card.
 *
 * A kernel that a .cu file defines with KERNEL or KERNEL_INSTANCE becomes known to the C side by its line here. Every
 * .cu file is one image: code for each architecture that the program was built for, and PTX for later ones. */
#ifndef GPU_KERNEL_LIST_H
#define GPU_KERNEL_LIST_H

#include "gpu/gpu.h"

/* gpu/pack.cu, gpu/product_*.cu: of each type, in the order of enum form of product.c. */
#define PRODUCT_FORMS(X, type)                                                                                         \
    X(product_##type##_narrow_1x8)                                                                                     \
    X(product_##type##_narrow_2x8)                                                                                     \
    X(product_##type##_narrow_1x16)                                                                                    \
    X(product_##type##_narrow_2x16)                                                                                    \
    X(product_##type##_split_32)                                                                                       \
    X(product_##type##_split_64)                                                                                       \
    X(product_##type##_whole_32)                                                                                       \
    X(product_##type##_whole_64)
#define PRODUCT_FAST_FORMS(X, type)                                                                                    \
    X(product_##type##_fast_32)                                                                                        \
    X(product_##type##_fast_64)                                                                                        \
    X(product_##type##_fast_128)
#define KERNELS_OF_PRODUCTS(X)                                                                                         \
    X(pack_f32)                                                                                                        \
    X(pack_f16)                                                                                                        \
    X(pack_bf16)                                                                                                       \
    X(pack_q8_0)                                                                                                       \
    X(pack_q4_0)                                                                                                       \
    X(pack_q4_K)                                                                                                       \
    X(pack_q6_K)                                                                                                       \
    PRODUCT_FORMS(X, f32)                                                                                              \
    PRODUCT_FORMS(X, f16)                                                                                              \
    X(product_f16_whole_128)                                                                                           \
    PRODUCT_FORMS(X, bf16)                                                                                             \
    X(product_bf16_whole_128)                                                                                          \
    PRODUCT_FORMS(X, q8_0)                                                                                             \
    PRODUCT_FORMS(X, q4_0)                                                                                             \
    PRODUCT_FORMS(X, q4_K)                                                                                             \
    PRODUCT_FORMS(X, q6_K)                                                                                             \
    PRODUCT_FAST_FORMS(X, f16)                                                                                         \
    PRODUCT_FAST_FORMS(X, bf16)                                                                                        \
    PRODUCT_FAST_FORMS(X, q8_0)                                                                                        \
    PRODUCT_FAST_FORMS(X, q4_0)                                                                                        \
    PRODUCT_FAST_FORMS(X, q4_K)                                                                                        \
    PRODUCT_FAST_FORMS(X, q6_K)                                                                                        \
    X(product_combine)

/* gpu/norm.cu, gpu/join.cu, gpu/rope.cu, gpu/attend.cu */
#define KERNELS_OF_ATTENTION(X)                                                                                        \
    X(rmsnorm)                                                                                                         \
    X(join)                                                                                                            \
    X(rope_kv)                                                                                                         \
    X(attend_32)                                                                                                       \
    X(attend_64)                                                                                                       \
    X(attend_96)                                                                                                       \
    X(attend_128)                                                                                                      \
    X(attend_256)                                                                                                      \
    X(attend_32_4)                                                                                                     \
    X(attend_64_4)                                                                                                     \
    X(attend_96_4)                                                                                                     \
    X(attend_128_4)                                                                                                    \
    X(attend_fp8_64)                                                                                                   \
    X(attend_fp8_128)                                                                                                  \
    X(attend_fp8_256)                                                                                                  \
    X(attend_fp8_64_4)                                                                                                 \
    X(attend_fp8_128_4)                                                                                                \
    X(attend_combine)

#define GPU_KERNELS(X)                                                                                                 \
    KERNELS_OF_PRODUCTS(X)                                                                                             \
    KERNELS_OF_ATTENTION(X)

enum kernel {
#define KERNEL_ID(name) KERNEL_##name,
    GPU_KERNELS(KERNEL_ID)
#undef KERNEL_ID
        N_KERNELS
};

const char *kernel_name(int kernel);

enum { GPU_MAX_IMAGES = 16 };

/* The functions of one card. */
struct gpu_kernels {
    cu_function functions[N_KERNELS + 1]; /* one more: C has no arrays of none */
    size_t shared[N_KERNELS +
                  1]; /* bytes of dynamic shared memory that a launch of it may ask for: CU_FUNC_DYNAMIC_SHARED */
    bool awaits[N_KERNELS + 1]; /* its code waits for its predecessor: it may be launched before that has ended */
    cu_module modules[GPU_MAX_IMAGES];
    int n_modules;
};

/* Loads all images into g's context, which is current, and finds every kernel: into g->kernels. ERR_DEVICE: the program
 * was built without kernels, none of their code runs on this card, or one is missing. On error nothing stays.
 *
 * A program without images may still work with a library that brings kernels of its own, which is asked for by a load
 * of no image (NULL); NVIDIA's refuses that. */
int gpu_kernels_load(struct gpu *g, struct err *e);
void gpu_kernels_free(struct gpu *g);
/* What is wrong when the driver answers r to code named `name` of images that were built as built_for says, and what to
 * do. Returns -1. */
int gpu_tell_unloadable(const struct gpu *g, cu_result r, const char *name, const char *built_for, struct err *e);

/* "sm_80 sm_90 and PTX of compute_80 compute_90, by nvcc 13.0" as the kernels were built; "" without kernels. */
const char *gpu_built_for(void);

#endif
