/* core/cpu/vec_avx2.h - sixteen f32 lanes in two registers: lanes 0-7 and 8-15. */
#ifndef CORE_CPU_VEC_AVX2_H
#define CORE_CPU_VEC_AVX2_H

#include "core/cpu/vec_x86.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    __m256 a, b;
} vec;

static inline vec vec_set1(float x) {
    return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
static inline vec vec_load(const float *p) {
    return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void vec_store(float *p, vec x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
static inline vec vec_load_n(const float *p, int n) {
    float t[16] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return vec_load(t);
}
static inline void vec_store_n(float *p, vec x, int n) {
    float t[16];
    vec_store(t, x);
    memcpy(p, t, (size_t)n * sizeof *p);
}
static inline vec vec_add(vec x, vec y) {
    return (vec){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
static inline vec vec_sub(vec x, vec y) {
    return (vec){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
static inline vec vec_mul(vec x, vec y) {
    return (vec){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
static inline vec vec_div(vec x, vec y) {
    return (vec){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
static inline vec vec_max(vec x, vec y) {
    return (vec){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
static inline vec vec_min(vec x, vec y) {
    return (vec){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
static inline vec vec_fma(vec x, vec y, vec z) {
    return (vec){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline __m256 vec_scale2_half(__m256 a, __m256 t) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
static inline vec vec_scale2(vec x, vec t) {
    return (vec){vec_scale2_half(x.a, t.a), vec_scale2_half(x.b, t.b)};
}
static inline float vec_sum(vec x) {
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float vec_top(vec x) {
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static inline vec vec_bf16_even(const void *p) {
    const __m256i *h = p;
    return (vec){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(h), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(h + 1), 16))};
}
static inline vec vec_bf16_odd(const void *p) {
    const __m256i *h = p;
    __m256i m = _mm256_set1_epi32((int)0xffff0000);
    return (vec){_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(h), m)),
                 _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(h + 1), m))};
}
static inline vec vec_load_f16(const void *p) {
    const __m128i *h = p;
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
static inline void vec_store_f16(void *p, vec x) {
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vec vec_load_i8(const void *p) {
    __m128i b = _mm_loadu_si128(p);
    return (vec){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b)))};
}
static inline vec vec_load_u8(const void *p) {
    __m128i b = _mm_loadu_si128(p);
    return (vec){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)),
                 _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b)))};
}

typedef struct {
    __m256i a, b;
} ivec;

static inline ivec ivec_load(const void *p) {
    const __m256i *h = p;
    return (ivec){_mm256_loadu_si256(h), _mm256_loadu_si256(h + 1)};
}
static inline ivec ivec_set1(uint32_t x) {
    return (ivec){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}
static inline ivec ivec_and(ivec x, ivec y) {
    return (ivec){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
static inline ivec ivec_or(ivec x, ivec y) {
    return (ivec){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
/* x | (y & m) */
static inline ivec ivec_or_and(ivec x, ivec y, ivec m) {
    return ivec_or(x, ivec_and(y, m));
}
static inline ivec ivec_sll16(ivec x, int n) {
    return (ivec){_mm256_sll_epi16(x.a, _mm_cvtsi32_si128(n)), _mm256_sll_epi16(x.b, _mm_cvtsi32_si128(n))};
}
static inline ivec ivec_srl16(ivec x, int n) {
    return (ivec){_mm256_srl_epi16(x.a, _mm_cvtsi32_si128(n)), _mm256_srl_epi16(x.b, _mm_cvtsi32_si128(n))};
}
static inline ivec ivec_sra16(ivec x, int n) {
    return (ivec){_mm256_sra_epi16(x.a, _mm_cvtsi32_si128(n)), _mm256_sra_epi16(x.b, _mm_cvtsi32_si128(n))};
}
static inline ivec ivec_dot(ivec acc, ivec x, ivec y) {
    return (ivec){_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
                  _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
}
/* acc + the products of the four bytes of each dword: x from 0 to 127, so that no pair sum saturates, w signed. */
static inline ivec ivec_dot_bytes(ivec acc, ivec x, ivec w) {
    __m256i ones = _mm256_set1_epi16(1);
    return (ivec){_mm256_add_epi32(acc.a, _mm256_madd_epi16(_mm256_maddubs_epi16(x.a, w.a), ones)),
                  _mm256_add_epi32(acc.b, _mm256_madd_epi16(_mm256_maddubs_epi16(x.b, w.b), ones))};
}
static inline vec vec_from_int(ivec x) {
    return (vec){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
#endif
