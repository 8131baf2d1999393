#include "core/model/dtype.h"

#include <math.h>
#include <string.h>

static const struct dtype_info infos[] = {
    [DT_F32] = {"f32", 1, 4},       [DT_F16] = {"f16", 1, 2},     [DT_BF16] = {"bf16", 1, 2},
    [DT_Q8_0] = {"q8_0", 32, 34},   [DT_Q4_0] = {"q4_0", 32, 18}, [DT_Q4_K] = {"q4_K", 256, 144},
    [DT_Q6_K] = {"q6_K", 256, 210}, [DT_E4M3] = {"fp8", 1, 1},
};

const struct dtype_info *dtype_info(enum dtype t) {
    return &infos[t];
}

size_t dtype_row_bytes(enum dtype t, size_t n) {
    return n / (size_t)infos[t].block * (size_t)infos[t].block_bytes;
}

static uint32_t f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float f32_from(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, mant = h & 0x3ff;
    if (exp == 31)
        return f32_from(sign | 0x7f800000 | mant << 13 |
                        (mant ? 0x400000 : 0)); /* NaNs come out quiet, as in hardware */
    if (exp)
        return f32_from(sign | (exp + 112) << 23 | mant << 13);
    return f32_from(sign | f32_bits((float)mant * 0x1p-24f)); /* zero and subnormals */
}

uint16_t f32_to_f16(float f) {
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 rounds up to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* below the smallest normal: let the addition round to a multiple of 2^-24 */
        float r = f32_from(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - f32_bits(0.5f)));
    }
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

float bf16_to_f32(uint16_t h) {
    return f32_from((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f) {
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void decode_q8_0(const uint8_t *b, float *dst) {
    float d = f16_to_f32(load_u16(b));
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)(int8_t)b[2 + i];
}

static void decode_q4_0(const uint8_t *b, float *dst) {
    float d = f16_to_f32(load_u16(b));
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)((b[2 + i] & 15) - 8);
        dst[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

/* d, dmin, 8 + 8 six-bit scales and minima in 12 bytes, then 4 groups of 32 bytes: low nibbles are one sub-block of 32,
 * high nibbles the next. */
static void decode_q4_k(const uint8_t *b, float *dst) {
    float d = f16_to_f32(load_u16(b)), dmin = f16_to_f32(load_u16(b + 2));
    const uint8_t *s = b + 4, *q = b + 16;
    for (int sub = 0; sub < 8; sub++) {
        int sc = sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | (s[sub - 4] >> 6) << 4;
        int m = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | (s[sub] >> 6) << 4;
        float ds = d * (float)sc, dm = dmin * (float)m;
        for (int i = 0; i < 32; i++) {
            float v = (float)(q[sub / 2 * 32 + i] >> (sub & 1) * 4 & 15);
            dst[sub * 32 + i] = ds * v - dm;
        }
    }
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales (one per 16 elements), d. */
static void decode_q6_k(const uint8_t *b, float *dst) {
    const int8_t *sc = (const int8_t *)b + 192;
    float d = f16_to_f32(load_u16(b + 208));
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i / 32 % 4, j = i % 32;
        int lo = b[half * 64 + quarter % 2 * 32 + j] >> quarter / 2 * 4 & 15;
        int hi = b[128 + half * 32 + j] >> quarter * 2 & 3;
        dst[i] = d * (float)sc[i / 16] * (float)((lo | hi << 4) - 32);
    }
}

void dtype_decode(enum dtype t, const void *src, size_t n, float *dst) {
    const uint8_t *p = src;
    switch (t) {
    case DT_F32:
        memcpy(dst, src, n * 4);
        return;
    case DT_F16:
        for (size_t i = 0; i < n; i++)
            dst[i] = f16_to_f32(load_u16(p + 2 * i));
        return;
    case DT_BF16:
        for (size_t i = 0; i < n; i++)
            dst[i] = bf16_to_f32(load_u16(p + 2 * i));
        return;
    default:
        break;
    }
    size_t block = (size_t)infos[t].block, bytes = (size_t)infos[t].block_bytes;
    for (size_t i = 0; i < n / block; i++, p += bytes, dst += block) {
        if (t == DT_Q8_0)
            decode_q8_0(p, dst);
        else if (t == DT_Q4_0)
            decode_q4_0(p, dst);
        else if (t == DT_Q4_K)
            decode_q4_k(p, dst);
        else
            decode_q6_k(p, dst);
    }
}

/* v as an integer in [lo, hi]; NaN, which a hostile file may hold, becomes lo: converting it would be undefined. */
static int to_int(float v, int lo, int hi) {
    if (!(v > (float)lo))
        return lo;
    return v < (float)hi ? (int)v : hi;
}

static void encode_q8_0(const float *x, uint8_t *b) {
    float amax = 0;
    for (int i = 0; i < 32; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    float d = amax / 127, id = d != 0 ? 1 / d : 0;
    store_u16(b, f32_to_f16(d));
    for (int i = 0; i < 32; i++)
        b[2 + i] = (uint8_t)(int8_t)to_int(roundf(x[i] * id), -127, 127);
}

static void encode_q4_0(const float *x, uint8_t *b) {
    float max = 0;
    for (int i = 0; i < 32; i++)
        max = fabsf(x[i]) > fabsf(max) ? x[i] : max;
    float d = max / -8, id = d != 0 ? 1 / d : 0;
    store_u16(b, f32_to_f16(d));
    for (int i = 0; i < 16; i++) {
        int lo = to_int(x[i] * id + 8.5f, 0, 15), hi = to_int(x[i + 16] * id + 8.5f, 0, 15);
        b[2 + i] = (uint8_t)(lo | hi << 4);
    }
}

void dtype_encode(enum dtype t, const float *src, size_t n, void *dst) {
    uint8_t *p = dst;
    switch (t) {
    case DT_F32:
        memcpy(dst, src, n * 4);
        return;
    case DT_F16:
        for (size_t i = 0; i < n; i++)
            store_u16(p + 2 * i, f32_to_f16(src[i]));
        return;
    case DT_BF16:
        for (size_t i = 0; i < n; i++)
            store_u16(p + 2 * i, f32_to_bf16(src[i]));
        return;
    case DT_Q8_0:
        for (size_t i = 0; i < n / 32; i++)
            encode_q8_0(src + i * 32, p + i * 34);
        return;
    case DT_Q4_0:
        for (size_t i = 0; i < n / 32; i++)
            encode_q4_0(src + i * 32, p + i * 18);
        return;
    default: /* the K types are only read */
        return;
    }
}
