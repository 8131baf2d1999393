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

static inline vec vec_load_bf16(const void *p) {
    const uint16_t *h = p;
    VEC_EACH(bf16_to_f32(h[i]));
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
#undef VEC_EACH
#endif
