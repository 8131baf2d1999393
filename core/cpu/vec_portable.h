/* core/cpu/vec_portable.h - sixteen f32 lanes in plain C: the reference that the other vec_*.h equal bit for bit. */
#ifndef CORE_CPU_VEC_PORTABLE_H
#define CORE_CPU_VEC_PORTABLE_H

#include "core/model/dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float l[16];
} vec;

#define VEC_EACH(expr)                                                                                                 \
    vec r;                                                                                                             \
    for (int i = 0; i < 16; i++)                                                                                       \
        r.l[i] = (expr);                                                                                               \
    return r

static inline vec vec_set1(float x) {
    VEC_EACH(x);
}
static inline vec vec_load(const float *p) {
    VEC_EACH(p[i]);
}
static inline vec vec_load_n(const float *p, int n) {
    VEC_EACH(i < n ? p[i] : 0.0f);
}
static inline void vec_store(float *p, vec a) {
    memcpy(p, a.l, sizeof a.l);
}
static inline void vec_store_n(float *p, vec a, int n) {
    memcpy(p, a.l, (size_t)n * sizeof *p);
}
static inline vec vec_add(vec a, vec b) {
    VEC_EACH(a.l[i] + b.l[i]);
}
static inline vec vec_sub(vec a, vec b) {
    VEC_EACH(a.l[i] - b.l[i]);
}
static inline vec vec_mul(vec a, vec b) {
    VEC_EACH(a.l[i] * b.l[i]);
}
static inline vec vec_div(vec a, vec b) {
    VEC_EACH(a.l[i] / b.l[i]);
}
/* a > b ? a : b, as x86 has it */
static inline vec vec_max(vec a, vec b) {
    VEC_EACH(a.l[i] > b.l[i] ? a.l[i] : b.l[i]);
}
static inline vec vec_min(vec a, vec b) {
    VEC_EACH(a.l[i] < b.l[i] ? a.l[i] : b.l[i]);
}
/* a * b + c, rounded once */
static inline vec vec_fma(vec a, vec b, vec c) {
    VEC_EACH(fmaf(a.l[i], b.l[i], c.l[i]));
}
/* a * 2^n, where t = n + 1.5 * 2^23 and the result is a normal number: n is added to the exponent. */
static inline vec vec_scale2(vec a, vec t) {
    uint32_t ua[16], ut[16];
    memcpy(ua, a.l, sizeof ua);
    memcpy(ut, t.l, sizeof ut);
    for (int i = 0; i < 16; i++)
        ua[i] += ut[i] << 23;
    memcpy(a.l, ua, sizeof ua);
    return a;
}
/* Folds 8, 4, 2, 1. */
static inline float vec_sum(vec a) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            a.l[i] += a.l[i + w];
    return a.l[0];
}
static inline float vec_top(vec a) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            a.l[i] = a.l[i] > a.l[i + w] ? a.l[i] : a.l[i + w];
    return a.l[0];
}

/* BF16 in pairs: the low or the high half of each dword. */
static inline vec vec_bf16_even(const void *p) {
    const uint16_t *h = p;
    VEC_EACH(bf16_to_f32(h[2 * (size_t)i]));
}
static inline vec vec_bf16_odd(const void *p) {
    const uint16_t *h = p;
    VEC_EACH(bf16_to_f32(h[2 * (size_t)i + 1]));
}
static inline vec vec_load_f16(const void *p) {
    const uint16_t *h = p;
    VEC_EACH(f16_to_f32(h[i]));
}
static inline void vec_store_f16(void *p, vec a) {
    uint16_t *h = p;
    for (int i = 0; i < 16; i++)
        h[i] = f32_to_f16(a.l[i]);
}
static inline vec vec_load_i8(const void *p) {
    const int8_t *b = p;
    VEC_EACH((float)b[i]);
}
static inline vec vec_load_u8(const void *p) {
    const uint8_t *b = p;
    VEC_EACH((float)b[i]);
}

/* Sixteen dwords, or 32 int16 in the order of memory. */
typedef struct {
    uint32_t l[16];
} ivec;

#define IVEC_EACH(expr)                                                                                                \
    ivec r;                                                                                                            \
    for (int i = 0; i < 16; i++)                                                                                       \
        r.l[i] = (expr);                                                                                               \
    return r

static inline ivec ivec_load(const void *p) {
    ivec r;
    memcpy(r.l, p, sizeof r.l);
    return r;
}
static inline ivec ivec_set1(uint32_t x) {
    IVEC_EACH(x);
}
static inline ivec ivec_and(ivec a, ivec b) {
    IVEC_EACH(a.l[i] & b.l[i]);
}
static inline ivec ivec_or(ivec a, ivec b) {
    IVEC_EACH(a.l[i] | b.l[i]);
}
/* a | (b & m) */
static inline ivec ivec_or_and(ivec a, ivec b, ivec m) {
    IVEC_EACH(a.l[i] | (b.l[i] & m.l[i]));
}
static inline int32_t half_lo(uint32_t x) {
    return (int16_t)x;
}
static inline int32_t half_hi(uint32_t x) {
    return (int16_t)(x >> 16);
}
static inline ivec ivec_sll16(ivec a, int n) {
    IVEC_EACH((a.l[i] << n & 0xffff) | (a.l[i] >> 16) << n << 16);
}
static inline ivec ivec_srl16(ivec a, int n) {
    IVEC_EACH((a.l[i] & 0xffff) >> n | a.l[i] >> 16 >> n << 16);
}
static inline ivec ivec_sra16(ivec a, int n) {
    IVEC_EACH(((uint32_t)(half_lo(a.l[i]) >> n) & 0xffff) | (uint32_t)(half_hi(a.l[i]) >> n) << 16);
}
/* acc + the products of both halves of each dword */
static inline ivec ivec_dot(ivec acc, ivec a, ivec b) {
    IVEC_EACH(acc.l[i] + (uint32_t)(half_lo(a.l[i]) * half_lo(b.l[i]) + half_hi(a.l[i]) * half_hi(b.l[i])));
}
static inline int32_t dot_bytes(uint32_t x, uint32_t w) {
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8)
        sum += (int32_t)(x >> i & 255) * (int8_t)(w >> i);
    return sum;
}
/* acc + the products of the four bytes of each dword: x from 0 to 127, w signed. */
static inline ivec ivec_dot_bytes(ivec acc, ivec a, ivec b) {
    IVEC_EACH(acc.l[i] + (uint32_t)dot_bytes(a.l[i], b.l[i]));
}
static inline vec vec_from_int(ivec a) {
    VEC_EACH((float)(int32_t)a.l[i]);
}

/* dst [8][16] = 8 dwords of each of 16 rows, off bytes behind their starts. */
static inline void dwords_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    for (size_t i = 0; i < 8; i++)
        for (size_t r = 0; r < 16; r++)
            memcpy(dst + (i * 16 + r) * 4, rows[r] + off + i * 4, 4);
}
/* dst [16][16] = 16 halves of each of 16 rows. */
static inline void halves_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    for (size_t i = 0; i < 16; i++)
        for (size_t r = 0; r < 16; r++)
            memcpy(dst + (i * 16 + r) * 2, rows[r] + off + i * 2, 2);
}
/* See vec_x86.h; here the caller does it all. */
static inline int columns_interleave(float *y, const float *x, size_t ldx, int size, int cols) {
    (void)y, (void)x, (void)ldx, (void)size, (void)cols;
    return 0;
}
#define PREFETCH(p) ((void)(p))
#undef VEC_EACH
#undef IVEC_EACH
#endif
