#include "net/codec.h"

#include <stdint.h>
#include <string.h>

/* Every codec works on groups of 64 numbers with constant trip counts, without branches and without aliasing, so that
 * compilers vectorise each loop even at -O2 on the base line of a processor. Only integer operations and correctly
 * rounded f32 ones are used: the bits are the same everywhere. */
enum { GROUP = 64 };

/* Encoding is compiled twice on x86-64, the second time for processors with AVX2: the same operations in half the time.
 * Decoding gains nothing from that. */
#define EVERYWHERE static inline __attribute__((always_inline))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied to the wire as they stand in memory");

static const float Q8_MAX = 127 * 65504.0f; /* the largest number of the codec; exact in f32 */

const char *const codec_choices[] = {"f32", "f16", "bf16", "q8", NULL};

const char *codec_name(enum codec c) {
    return codec_choices[c];
}

size_t codec_row_bytes(enum codec c, int hidden) {
    size_t n = (size_t)hidden;
    switch (c) {
    case CODEC_F32:
        return 4 * n;
    case CODEC_F16:
    case CODEC_BF16:
        return 2 * n;
    default:
        return n + 2 * ((n + GROUP - 1) / GROUP);
    }
}

EVERYWHERE uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

EVERYWHERE float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* a ? b : c. With the operator a compiler may compute b only where it is needed, and then not vectorise. */
EVERYWHERE uint32_t choose(int a, uint32_t b, uint32_t c) {
    uint32_t mask = -(uint32_t)a;
    return (b & mask) | (c & ~mask);
}

/* x without its NaNs, and no larger than what has the bits max. */
EVERYWHERE uint32_t tame(float x, int32_t max) {
    uint32_t u = bits_of(x);
    int32_t a = (int32_t)(u & 0x7fffffff);
    uint32_t number = a > 0x7f800000 ? 0 : ~0u;
    a = a < max ? a : max;
    return ((u & 0x80000000) | (uint32_t)a) & number;
}

EVERYWHERE uint32_t f16_of(float x) {
    uint32_t u = tame(x, 0x477fe000), a = u & 0x7fffffff;
    uint32_t normal = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
    /* Below the smallest normal the addition rounds to a multiple of 2^-24. */
    uint32_t small = bits_of(float_of(a) + 0.5f) - 0x3f000000;
    return (u >> 16 & 0x8000) | choose((int32_t)a < 0x38800000, small, normal);
}

EVERYWHERE float of_f16(uint32_t h) {
    uint32_t a = h & 0x7fff;
    uint32_t normal = (a << 13) + (112u << 23);
    uint32_t small = bits_of((float)(int32_t)a * 0x1p-24f);
    return float_of((h & 0x8000) << 16 | choose((int32_t)a < 0x400, small, normal));
}

EVERYWHERE uint32_t bf16_of(float x) {
    uint32_t u = tame(x, 0x7f7f0000);
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

EVERYWHERE float f32_of(float x) {
    return float_of(tame(x, 0x7f7fffff));
}

/* The scale of a group: the smallest f16 s with 127 s >= the largest magnitude. The product is exact, the quotient is
 * not. */
EVERYWHERE uint32_t q8_scale(const uint32_t u[GROUP]) {
    int32_t max = 0;
    for (int i = 0; i < GROUP; i++) {
        int32_t a = (int32_t)(u[i] & 0x7fffffff);
        max = a > max ? a : max;
    }
    float largest = float_of((uint32_t)max);
    uint32_t h = f16_of(largest / 127);
    return h + (of_f16(h) * 127 < largest);
}

/* Scale and numbers of a group. The numbers need no clipping: no |x| is above 127 s. */
EVERYWHERE uint32_t q8_group(const float *restrict x, int8_t *restrict q) {
    uint32_t u[GROUP];
    for (int i = 0; i < GROUP; i++)
        u[i] = tame(x[i], (int32_t)bits_of(Q8_MAX));
    uint32_t h = q8_scale(u);
    float s = h ? of_f16(h) : 1;
    for (int i = 0; i < GROUP; i++)
        /* The addition rounds to the nearest even integer, which then stands in the low bits. */
        q[i] = (int8_t)(bits_of(float_of(u[i]) / s + 0x1.8p23f) - bits_of(0x1.8p23f));
    return h;
}

EVERYWHERE void q8_values(uint32_t h, const int8_t *restrict q, float *restrict x) {
    float s = of_f16(h);
    for (int i = 0; i < GROUP; i++)
        x[i] = s * (float)q[i];
}

/* A group of x as bytes: 4, 2, 2 or 1 of each number. scale is for q8. */
EVERYWHERE void encode_group(enum codec c, const float *restrict x, uint8_t *restrict out, uint8_t *restrict scale) {
    uint32_t w[GROUP];
    uint16_t h[GROUP];
    int8_t q[GROUP];
    switch (c) {
    case CODEC_F32:
        for (int i = 0; i < GROUP; i++)
            w[i] = tame(x[i], 0x7f7fffff);
        memcpy(out, w, sizeof w);
        return;
    case CODEC_F16:
        for (int i = 0; i < GROUP; i++)
            h[i] = (uint16_t)f16_of(x[i]);
        memcpy(out, h, sizeof h);
        return;
    case CODEC_BF16:
        for (int i = 0; i < GROUP; i++)
            h[i] = (uint16_t)bf16_of(x[i]);
        memcpy(out, h, sizeof h);
        return;
    default:
        h[0] = (uint16_t)q8_group(x, q);
        memcpy(out, q, sizeof q);
        memcpy(scale, h, 2);
    }
}

/* Returns non-zero when a number is not finite. */
static uint32_t decode_group(enum codec c, const uint8_t *restrict in, const uint8_t *restrict scale,
                             float *restrict x) {
    uint32_t w[GROUP], bad = 0;
    uint16_t h[GROUP];
    int8_t q[GROUP];
    switch (c) {
    case CODEC_F32:
        memcpy(w, in, sizeof w);
        for (int i = 0; i < GROUP; i++)
            bad |= ((w[i] & 0x7f800000) + 0x00800000) & 0x80000000;
        memcpy(x, w, sizeof w);
        return bad;
    case CODEC_F16:
        memcpy(h, in, sizeof h);
        for (int i = 0; i < GROUP; i++)
            x[i] = of_f16(h[i]);
        for (int i = 0; i < GROUP; i++)
            bad |= ((h[i] & 0x7c00u) + 0x0400) & 0x8000;
        return bad;
    case CODEC_BF16:
        memcpy(h, in, sizeof h);
        for (int i = 0; i < GROUP; i++)
            w[i] = (uint32_t)h[i] << 16;
        for (int i = 0; i < GROUP; i++)
            bad |= ((w[i] & 0x7f800000) + 0x00800000) & 0x80000000;
        memcpy(x, w, sizeof w);
        return bad;
    default:
        memcpy(q, in, sizeof q);
        memcpy(h, scale, 2);
        q8_values(h[0], q, x);
        return ((h[0] & 0x7c00u) + 0x0400) & 0x8000;
    }
}

static void boundary_group(enum codec c, float *x) {
    int8_t q[GROUP];
    switch (c) {
    case CODEC_F32:
        for (int i = 0; i < GROUP; i++)
            x[i] = f32_of(x[i]);
        return;
    case CODEC_F16:
        for (int i = 0; i < GROUP; i++)
            x[i] = of_f16(f16_of(x[i]));
        return;
    case CODEC_BF16:
        for (int i = 0; i < GROUP; i++)
            x[i] = float_of(bf16_of(x[i]) << 16);
        return;
    default:
        q8_values(q8_group(x, q), q, x);
    }
}

/* Bytes of one number behind the scales. */
EVERYWHERE size_t number_bytes(enum codec c) {
    return c == CODEC_F32 ? 4 : c == CODEC_Q8 ? 1 : 2;
}

EVERYWHERE void encode_rows(enum codec c, const float *x, int n, int hidden, uint8_t *out) {
    size_t width = number_bytes(c), n_scale = codec_row_bytes(c, hidden) - width * (size_t)hidden;
    for (int row = 0; row < n; row++, x += hidden) {
        uint8_t *scale = out;
        out += n_scale;
        int i = 0;
        for (; i + GROUP <= hidden; i += GROUP, out += width * GROUP, scale += 2)
            encode_group(c, x + i, out, scale);
        if (i < hidden) {
            size_t rest = (size_t)(hidden - i);
            float part[GROUP] = {0};
            uint8_t bytes[4 * GROUP];
            memcpy(part, x + i, rest * sizeof *x);
            encode_group(c, part, bytes, scale);
            memcpy(out, bytes, rest * width);
            out += rest * width;
        }
    }
}

int codec_decode(enum codec c, const uint8_t *in, int n, int hidden, float *x) {
    size_t width = number_bytes(c), n_scale = codec_row_bytes(c, hidden) - width * (size_t)hidden;
    uint32_t bad = 0;
    for (int row = 0; row < n; row++, x += hidden) {
        const uint8_t *scale = in;
        in += n_scale;
        int i = 0;
        for (; i + GROUP <= hidden; i += GROUP, in += width * GROUP, scale += 2)
            bad |= decode_group(c, in, scale, x + i);
        if (i < hidden) {
            size_t rest = (size_t)(hidden - i);
            float part[GROUP];
            uint8_t bytes[4 * GROUP] = {0};
            memcpy(bytes, in, rest * width);
            bad |= decode_group(c, bytes, scale, part);
            memcpy(x + i, part, rest * sizeof *x);
            in += rest * width;
        }
    }
    return bad ? -1 : 0;
}

void codec_boundary(void *ctx, float *x, int n, int hidden) {
    enum codec c = *(const enum codec *)ctx;
    for (int row = 0; row < n; row++, x += hidden) {
        int i = 0;
        for (; i + GROUP <= hidden; i += GROUP)
            boundary_group(c, x + i);
        if (i < hidden) {
            size_t rest = (size_t)(hidden - i);
            float part[GROUP] = {0};
            memcpy(part, x + i, rest * sizeof *x);
            boundary_group(c, part);
            memcpy(x + i, part, rest * sizeof *x);
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void encode_avx2(enum codec c, const float *x, int n, int hidden, uint8_t *out) {
    encode_rows(c, x, n, hidden, out);
}
#endif

void codec_encode(enum codec c, const float *x, int n, int hidden, uint8_t *out) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        encode_avx2(c, x, n, hidden, out);
        return;
    }
#endif
    encode_rows(c, x, n, hidden, out);
}
