/* core/cpu/vec_neon.h - sixteen f32 lanes in four registers. */
#ifndef CORE_CPU_VEC_NEON_H
#define CORE_CPU_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float32x4_t a, b, c, d;
} vec;

static inline vec vec_set1(float x) {
    float32x4_t v = vdupq_n_f32(x);
    return (vec){v, v, v, v};
}
static inline vec vec_load(const float *p) {
    return (vec){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
static inline void vec_store(float *p, vec x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
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
    return (vec){vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
static inline vec vec_sub(vec x, vec y) {
    return (vec){vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
static inline vec vec_mul(vec x, vec y) {
    return (vec){vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
static inline vec vec_div(vec x, vec y) {
    return (vec){vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
/* x > y ? x : y, as x86 has it; FMAX treats NaN and zeros otherwise. */
static inline float32x4_t vec_max_part(float32x4_t x, float32x4_t y) {
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}
static inline float32x4_t vec_min_part(float32x4_t x, float32x4_t y) {
    return vbslq_f32(vcltq_f32(x, y), x, y);
}
static inline vec vec_max(vec x, vec y) {
    return (vec){vec_max_part(x.a, y.a), vec_max_part(x.b, y.b), vec_max_part(x.c, y.c), vec_max_part(x.d, y.d)};
}
static inline vec vec_min(vec x, vec y) {
    return (vec){vec_min_part(x.a, y.a), vec_min_part(x.b, y.b), vec_min_part(x.c, y.c), vec_min_part(x.d, y.d)};
}
static inline vec vec_fma(vec x, vec y, vec z) {
    return (vec){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                 vfmaq_f32(z.d, x.d, y.d)};
}
static inline float32x4_t vec_scale2_part(float32x4_t a, float32x4_t t) {
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
}
static inline vec vec_scale2(vec x, vec t) {
    return (vec){vec_scale2_part(x.a, t.a), vec_scale2_part(x.b, t.b), vec_scale2_part(x.c, t.c),
                 vec_scale2_part(x.d, t.d)};
}
static inline float vec_sum(vec x) {
    float32x4_t q = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t h = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
static inline float vec_top(vec x) {
    float32x4_t q = vec_max_part(vec_max_part(x.a, x.c), vec_max_part(x.b, x.d));
    float h[4];
    vst1q_f32(h, q);
    float a = h[0] > h[2] ? h[0] : h[2], b = h[1] > h[3] ? h[1] : h[3];
    return a > b ? a : b;
}

static inline vec vec_bf16_even(const void *p) {
    const uint32_t *h = p;
    return (vec){vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(h + 0), 16)),
                 vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(h + 4), 16)),
                 vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(h + 8), 16)),
                 vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(h + 12), 16))};
}
static inline vec vec_bf16_odd(const void *p) {
    const uint32_t *h = p;
    uint32x4_t m = vdupq_n_u32(0xffff0000);
    return (vec){
        vreinterpretq_f32_u32(vandq_u32(vld1q_u32(h + 0), m)), vreinterpretq_f32_u32(vandq_u32(vld1q_u32(h + 4), m)),
        vreinterpretq_f32_u32(vandq_u32(vld1q_u32(h + 8), m)), vreinterpretq_f32_u32(vandq_u32(vld1q_u32(h + 12), m))};
}
static inline vec vec_load_f16(const void *p) {
    const uint16_t *h = p;
    float16x8_t lo = vreinterpretq_f16_u16(vld1q_u16(h)), hi = vreinterpretq_f16_u16(vld1q_u16(h + 8));
    return (vec){vcvt_f32_f16(vget_low_f16(lo)), vcvt_f32_f16(vget_high_f16(lo)), vcvt_f32_f16(vget_low_f16(hi)),
                 vcvt_f32_f16(vget_high_f16(hi))};
}
static inline void vec_store_f16(void *p, vec x) {
    uint16_t *h = p;
    vst1_u16(h, vreinterpret_u16_f16(vcvt_f16_f32(x.a)));
    vst1_u16(h + 4, vreinterpret_u16_f16(vcvt_f16_f32(x.b)));
    vst1_u16(h + 8, vreinterpret_u16_f16(vcvt_f16_f32(x.c)));
    vst1_u16(h + 12, vreinterpret_u16_f16(vcvt_f16_f32(x.d)));
}
static inline vec vec_load_i8(const void *p) {
    int8x16_t b = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_s8(vget_high_s8(b));
    return (vec){vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
                 vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))};
}
static inline vec vec_load_u8(const void *p) {
    uint8x16_t b = vld1q_u8(p);
    uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_u8(vget_high_u8(b));
    return (vec){vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
                 vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)))};
}

typedef struct {
    int16x8_t a, b, c, d;
} ivec;

static inline ivec ivec_load(const void *p) {
    const int16_t *h = p;
    return (ivec){vld1q_s16(h), vld1q_s16(h + 8), vld1q_s16(h + 16), vld1q_s16(h + 24)};
}
static inline ivec ivec_set1(uint32_t x) {
    int16x8_t v = vreinterpretq_s16_u32(vdupq_n_u32(x));
    return (ivec){v, v, v, v};
}
static inline ivec ivec_and(ivec x, ivec y) {
    return (ivec){vandq_s16(x.a, y.a), vandq_s16(x.b, y.b), vandq_s16(x.c, y.c), vandq_s16(x.d, y.d)};
}
static inline ivec ivec_or(ivec x, ivec y) {
    return (ivec){vorrq_s16(x.a, y.a), vorrq_s16(x.b, y.b), vorrq_s16(x.c, y.c), vorrq_s16(x.d, y.d)};
}
/* x | (y & m) */
static inline ivec ivec_or_and(ivec x, ivec y, ivec m) {
    return ivec_or(x, ivec_and(y, m));
}
static inline ivec ivec_sll16(ivec x, int n) {
    return (ivec){vshlq_s16(x.a, vdupq_n_s16((int16_t)n)), vshlq_s16(x.b, vdupq_n_s16((int16_t)n)),
                  vshlq_s16(x.c, vdupq_n_s16((int16_t)n)), vshlq_s16(x.d, vdupq_n_s16((int16_t)n))};
}
static inline ivec ivec_sra16(ivec x, int n) {
    return (ivec){vshlq_s16(x.a, vdupq_n_s16((int16_t)-n)), vshlq_s16(x.b, vdupq_n_s16((int16_t)-n)),
                  vshlq_s16(x.c, vdupq_n_s16((int16_t)-n)), vshlq_s16(x.d, vdupq_n_s16((int16_t)-n))};
}
static inline ivec ivec_srl16(ivec x, int n) {
    return (ivec){vreinterpretq_s16_u16(vshlq_u16(vreinterpretq_u16_s16(x.a), vdupq_n_s16((int16_t)-n))),
                  vreinterpretq_s16_u16(vshlq_u16(vreinterpretq_u16_s16(x.b), vdupq_n_s16((int16_t)-n))),
                  vreinterpretq_s16_u16(vshlq_u16(vreinterpretq_u16_s16(x.c), vdupq_n_s16((int16_t)-n))),
                  vreinterpretq_s16_u16(vshlq_u16(vreinterpretq_u16_s16(x.d), vdupq_n_s16((int16_t)-n)))};
}
static inline int16x8_t ivec_dot_part(int16x8_t acc, int16x8_t x, int16x8_t y) {
    int32x4_t p = vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
    return vreinterpretq_s16_s32(vaddq_s32(vreinterpretq_s32_s16(acc), p));
}
static inline ivec ivec_dot(ivec acc, ivec x, ivec y) {
    return (ivec){ivec_dot_part(acc.a, x.a, y.a), ivec_dot_part(acc.b, x.b, y.b), ivec_dot_part(acc.c, x.c, y.c),
                  ivec_dot_part(acc.d, x.d, y.d)};
}
/* acc + the products of the four bytes of each dword: x from 0 to 127, w signed. */
static inline int16x8_t ivec_dot_bytes_part(int16x8_t acc, int16x8_t x, int16x8_t w) {
    int8x16_t a = vreinterpretq_s8_s16(x), b = vreinterpretq_s8_s16(w);
    int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), hi = vpaddlq_s16(vmull_high_s8(a, b));
    return vreinterpretq_s16_s32(vaddq_s32(vreinterpretq_s32_s16(acc), vpaddq_s32(lo, hi)));
}
static inline ivec ivec_dot_bytes(ivec acc, ivec x, ivec w) {
    return (ivec){ivec_dot_bytes_part(acc.a, x.a, w.a), ivec_dot_bytes_part(acc.b, x.b, w.b),
                  ivec_dot_bytes_part(acc.c, x.c, w.c), ivec_dot_bytes_part(acc.d, x.d, w.d)};
}
static inline vec vec_from_int(ivec x) {
    return (vec){vcvtq_f32_s32(vreinterpretq_s32_s16(x.a)), vcvtq_f32_s32(vreinterpretq_s32_s16(x.b)),
                 vcvtq_f32_s32(vreinterpretq_s32_s16(x.c)), vcvtq_f32_s32(vreinterpretq_s32_s16(x.d))};
}

static inline void dwords_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    for (size_t i = 0; i < 8; i += 4)
        for (size_t r = 0; r < 16; r += 4) {
            uint8_t *to = dst + i * 64 + r * 4;
            const size_t at = off + i * 4;
            uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(rows[r] + at)),
                       b = vreinterpretq_u32_u8(vld1q_u8(rows[r + 1] + at));
            uint32x4_t c = vreinterpretq_u32_u8(vld1q_u8(rows[r + 2] + at)),
                       d = vreinterpretq_u32_u8(vld1q_u8(rows[r + 3] + at));
            uint64x2_t ab0 = vreinterpretq_u64_u32(vtrn1q_u32(a, b)), ab1 = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
            uint64x2_t cd0 = vreinterpretq_u64_u32(vtrn1q_u32(c, d)), cd1 = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
            vst1q_u8(to, vreinterpretq_u8_u64(vtrn1q_u64(ab0, cd0)));
            vst1q_u8(to + 64, vreinterpretq_u8_u64(vtrn1q_u64(ab1, cd1)));
            vst1q_u8(to + 128, vreinterpretq_u8_u64(vtrn2q_u64(ab0, cd0)));
            vst1q_u8(to + 192, vreinterpretq_u8_u64(vtrn2q_u64(ab1, cd1)));
        }
}
static inline void halves_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    uint8_t t[8 * 64];
    dwords_transpose(t, rows, off);
    for (size_t i = 0; i < 8; i++) {
        uint16x8x2_t lo = vld2q_u16((const uint16_t *)(const void *)(t + i * 64));
        uint16x8x2_t hi = vld2q_u16((const uint16_t *)(const void *)(t + i * 64 + 32));
        uint16_t *to = (uint16_t *)(void *)(dst + i * 64);
        vst1q_u16(to, lo.val[0]);
        vst1q_u16(to + 8, hi.val[0]);
        vst1q_u16(to + 16, lo.val[1]);
        vst1q_u16(to + 24, hi.val[1]);
    }
}
/* See vec_x86.h; here the caller does it all. */
static inline int columns_interleave(float *y, const float *x, size_t ldx, int size, int cols) {
    (void)y, (void)x, (void)ldx, (void)size, (void)cols;
    return 0;
}
#define PREFETCH(p) __builtin_prefetch(p)
#endif
