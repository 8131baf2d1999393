/* core/model/dtype.h - element types of tensors in files: sizes, names, and the reference decoders to f32.
 * Pure functions over memory whose length the caller has checked. Block types are those of ggml (blocks along a row).
 */
#ifndef CORE_MODEL_DTYPE_H
#define CORE_MODEL_DTYPE_H

#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_Q8_0,
    DT_Q4_0,
    DT_Q4_K,
    DT_Q6_K,
    DT_COUNT, /* of those in files */
    DT_E4M3,  /* in a KV cache alone (e4m3.h); neither decoded nor encoded here */
};

struct dtype_info {
    const char *name; /* "f32", "q4_K" */
    int block;        /* elements per block; a row's length must be a multiple of it */
    int block_bytes;
};

const struct dtype_info *dtype_info(enum dtype t);

/* Bytes of a row of n elements (n a multiple of the block). */
size_t dtype_row_bytes(enum dtype t, size_t n);

/* Decodes n elements (a multiple of the block) at src to dst. The values are exactly those of ggml's reference
 * dequantisation in f32: q8_0 d*q; q4_0 d*(q-8); q4_K (d*sc)*q - (dmin*m); q6_K (d*sc)*q, evaluated left to right. */
void dtype_decode(enum dtype t, const void *src, size_t n, float *dst);

/* Encodes n f32 values as t: F32, F16 and BF16 (round to nearest even), Q8_0 and Q4_0 (ggml's reference rounding).
 * n a multiple of the block. */
void dtype_encode(enum dtype t, const float *src, size_t n, void *dst);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* nearest even; overflow to infinity; NaN stays NaN */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

#endif
