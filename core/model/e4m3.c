#include "core/model/e4m3.h"

#include "core/model/dtype.h"

#include <math.h>
#include <string.h>

enum { LEAST_SCALE = -15 };

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

uint8_t e4m3_from_f32(float f) {
    uint32_t u = bits_of(f), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    if (a >= bits_of(448))
        return (uint8_t)(sign | 0x7e);
    if (a < bits_of(0x1p-6f)) /* subnormal: let the addition round to a multiple of 2^-9 */
        return (uint8_t)(sign | (bits_of(fabsf(f) + 0x1p14f) - bits_of(0x1p14f)));
    return (uint8_t)(sign | (((a + 0x7ffff + (a >> 20 & 1)) >> 20) - ((127 - 7) << 3)));
}

/* The bits of an f16 but for its exponent's bias, which is 8 more. */
float e4m3_to_f32(uint8_t code) {
    return (code & 0x7f) == 0x7f ? NAN : f16_to_f32((uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7)) * 0x1p8f;
}

float e4m3_scale(const float *x, size_t n) {
    float most = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(x[i]));
        bad += x[i] * 0;
    }
    if (bad != 0 || most > E4M3_MOST)
        return NAN;
    uint32_t u = bits_of(most);
    int above = (u & 0x7fffff) > (bits_of(448) & 0x7fffff);
    int scale = (int)(u >> 23) - 127 - 8 + above; /* 448 is 1.75 * 2^8 */
    return ldexpf(1, scale < LEAST_SCALE ? LEAST_SCALE : scale);
}

void e4m3_round(const float *x, size_t n, uint16_t *f16) {
    float scale = e4m3_scale(x, n), down = 1 / scale;
    for (size_t i = 0; i < n; i++)
        f16[i] = f32_to_f16(e4m3_to_f32(e4m3_from_f32(x[i] * down)) * scale);
}
