/* core/cpu/vec_avx512.h - sixteen f32 lanes in one register. */
#ifndef CORE_CPU_VEC_AVX512_H
#define CORE_CPU_VEC_AVX512_H

#include "core/cpu/vec_x86.h"

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vec;

static inline vec vec_set1(float x) {
    return _mm512_set1_ps(x);
}
static inline vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline vec vec_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vec_store(float *p, vec a) {
    _mm512_storeu_ps(p, a);
}
static inline void vec_store_n(float *p, vec a, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
static inline vec vec_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec vec_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}
static inline vec vec_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b) {
    return _mm512_min_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec vec_scale2(vec a, vec t) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
static inline float vec_sum(vec a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float vec_top(vec a) {
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static inline vec vec_bf16_even(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
static inline vec vec_bf16_odd(const void *p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
static inline vec vec_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline void vec_store_f16(void *p, vec a) {
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vec vec_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
static inline vec vec_load_u8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
}

typedef __m512i ivec;

static inline ivec ivec_load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline ivec ivec_set1(uint32_t x) {
    return _mm512_set1_epi32((int)x);
}
static inline ivec ivec_and(ivec a, ivec b) {
    return _mm512_and_si512(a, b);
}
static inline ivec ivec_or(ivec a, ivec b) {
    return _mm512_or_si512(a, b);
}
/* a | (b & m) */
static inline ivec ivec_or_and(ivec a, ivec b, ivec m) {
    return _mm512_ternarylogic_epi32(a, b, m, 0xf8);
}
static inline ivec ivec_sll16(ivec a, int n) {
    return _mm512_sll_epi16(a, _mm_cvtsi32_si128(n));
}
static inline ivec ivec_srl16(ivec a, int n) {
    return _mm512_srl_epi16(a, _mm_cvtsi32_si128(n));
}
static inline ivec ivec_sra16(ivec a, int n) {
    return _mm512_sra_epi16(a, _mm_cvtsi32_si128(n));
}
static inline ivec ivec_dot(ivec acc, ivec a, ivec b) {
    return _mm512_dpwssd_epi32(acc, a, b);
}
/* acc + the products of the four bytes of each dword: x from 0 to 127, w signed. */
static inline ivec ivec_dot_bytes(ivec acc, ivec x, ivec w) {
    return _mm512_dpbusd_epi32(acc, x, w);
}
static inline vec vec_from_int(ivec a) {
    return _mm512_cvtepi32_ps(a);
}
#endif
