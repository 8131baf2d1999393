/* test/gpu/ptx/float16.h - f16 and bf16, to nearest even. */
#ifndef PTX_FLOAT16_H
#define PTX_FLOAT16_H

#include <cmath>
#include <cstdint>
#include <cstring>

namespace ptx {

inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
inline float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

inline float widen_bf16(uint16_t h) {
    return float_of((uint32_t)h << 16);
}
/* Of the 10 bits of an f16's fraction, 2^-24 is the last when its exponent field is 0. */
inline float widen_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023u;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0)
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

/* A double as the nearest number with so many bits of fraction whose normal ones begin at 2^lowest. */
inline double nearest(double x, int fraction_bits, int lowest) {
    int exponent;
    if (x == 0 || !std::isfinite(x))
        return x;
    std::frexp(x, &exponent); /* x = [1/2, 1) 2^exponent */
    int last = (exponent - 1 < lowest ? lowest : exponent - 1) - fraction_bits;
    return std::ldexp(std::nearbyint(std::ldexp(x, -last)), last);
}

inline uint16_t narrow_bf16(double x) {
    if (std::isnan(x))
        return 0x7fff;
    /* Above the largest, f32 says whether it is infinity: both have 8 bits of exponent. */
    return (uint16_t)(bits_of((float)nearest(x, 7, -126)) >> 16);
}
inline uint16_t narrow_f16(double x) {
    if (std::isnan(x))
        return 0x7fff;
    uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    double r = std::fabs(nearest(x, 10, -14));
    if (r >= 65536)
        return sign | 0x7c00;
    if (r < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)(r * 0x1p24));
    uint32_t u = bits_of((float)r); /* exact */
    return (uint16_t)(sign | ((u >> 13) - (112u << 10)));
}

/* The same of f32, quickly: where the result is a normal number, rounding is an addition below its last bit. */
inline uint16_t bf16_of(float x) {
    uint32_t u = bits_of(x), exponent = u & 0x7f800000;
    if (exponent == 0 || exponent >= 0x7f000000)
        return narrow_bf16((double)x);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
inline uint16_t f16_of(float x) {
    uint32_t u = bits_of(x), size = u & 0x7fffffff;
    if (size < 0x38800000 || size >= 0x47000000) /* 2^-14, 2^15 */
        return narrow_f16((double)x);
    size += 0xfff + (size >> 13 & 1);
    return (uint16_t)((u >> 16 & 0x8000) | ((size >> 13) - (112u << 10)));
}

} // namespace ptx

#endif
