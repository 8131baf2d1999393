/* test/gpu/ptx/forms_floats.cpp - arithmetic in f32, and in pairs of bf16. Without .ftz, numbers below 2^-126 count. */
#include "test/gpu/ptx/float16.h"
#include "test/gpu/ptx/lanes.h"

namespace ptx {

namespace {

float add(float a, float b) {
    return a + b;
}
float sub(float a, float b) {
    return a - b;
}
float mul(float a, float b) {
    return a * b;
}
float divide(float a, float b) {
    return a / b;
}
float root(float a) {
    return sqrtf(a);
}
float negate(float a) {
    return -a;
}
float absolute(float a) {
    return fabsf(a);
}
/* Of a number and what is none, the number; -0 is less than +0. */
float smaller(float a, float b) {
    return a < b || b != b ? a : a == b ? float_of(bits_of(a) | bits_of(b)) : b;
}
float larger(float a, float b) {
    return a > b || b != b ? a : a == b ? float_of(bits_of(a) & bits_of(b)) : b;
}
/* An f32's exp2f is within an ulp as the manual wants it; below 2^-126 there is nothing with .ftz. */
float power_of_two(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

/* The rounded sum tells with the error of the addition (Knuth) on which side of a tie the true one lies: then its last
 * bit, far below bf16's, says so. */
uint16_t fma_bf16(uint16_t a, uint16_t b, uint16_t c) {
    double product = (double)widen_bf16(a) * (double)widen_bf16(b), addend = (double)widen_bf16(c);
    double sum = product + addend, part = sum - product, error = (product - (sum - part)) + (addend - part);
    uint64_t u;
    memcpy(&u, &sum, sizeof u);
    if (std::isfinite(sum) && error != 0 && (u & 1) == 0) {
        sum = std::nextafter(sum, error > 0 ? HUGE_VAL : -HUGE_VAL);
        memcpy(&u, &sum, sizeof u);
    }
    /* Quickly, where the result is a normal number: a bit below the last says whether there was more. */
    double size = std::fabs(sum);
    if (!(size >= 0x1p-126 && size < 0x1p127))
        return narrow_bf16(sum);
    uint32_t sign = (uint32_t)(u >> 32) & 0x80000000;
    uint32_t cut = sign | (uint32_t)(((u & 0x7fffffffffffffff) - (896ull << 52)) >> 29) | ((u & 0x1fffffff) != 0);
    return (uint16_t)((cut + 0x7fff + (cut >> 16 & 1)) >> 16);
}
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    return fma_bf16((uint16_t)a, (uint16_t)b, (uint16_t)c) |
           (uint32_t)fma_bf16((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16;
}

/* f32 has the product of two f16 exactly. */
uint32_t mul_f16x2(uint32_t a, uint32_t b) {
    return f16_of(widen_f16((uint16_t)a) * widen_f16((uint16_t)b)) |
           (uint32_t)f16_of(widen_f16((uint16_t)(a >> 16)) * widen_f16((uint16_t)(b >> 16))) << 16;
}

/* fmaf, with the machine's instruction where it has one: a call for each lane would take most of the time. */
__attribute__((always_inline)) inline void fma_rows(float *d, const float *a, const float *b, const float *c) {
    for (int l = 0; l < LANES; l++)
        d[l] = __builtin_fmaf(a[l], b[l], c[l]);
}
#ifdef __x86_64__
__attribute__((target("avx2,fma"))) void fma_rows_avx2(float *d, const float *a, const float *b, const float *c) {
    fma_rows(d, a, b, c);
}
#endif
void fma_rows_any(float *d, const float *a, const float *b, const float *c) {
    fma_rows(d, a, b, c);
}

void fma_f32(warp &w, const instruction &i) {
#ifdef __x86_64__
    static void (*const rows)(float *, const float *, const float *, const float *) =
        __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2") ? fma_rows_avx2 : fma_rows_any;
#else
    static void (*const rows)(float *, const float *, const float *, const float *) = fma_rows_any;
#endif
    float v[4][LANES];
    for (int k = 0; k < 3; k++)
        memcpy(v[k], &w.narrow[i.at[k + 1]], sizeof v[k]);
    rows(v[3], v[0], v[1], v[2]);
    if (w.mask == ~0u)
        memcpy(&w.narrow[i.at[0]], v[3], sizeof v[3]);
    else
        each_lane(w.mask, [&](int l) { w.narrow[i.at[0] + (uint32_t)l] = bits_of(v[3][l]); });
}

bool equal(float a, float b) {
    return a == b;
}
bool unequal(float a, float b) {
    return a < b || a > b;
}
bool less(float a, float b) {
    return a < b;
}
bool less_equal(float a, float b) {
    return a <= b;
}
bool greater(float a, float b) {
    return a > b;
}
bool greater_equal(float a, float b) {
    return a >= b;
}
/* The same, and true where one is no number. */
bool equal_u(float a, float b) {
    return !(a < b || a > b);
}
bool unequal_u(float a, float b) {
    return !(a == b);
}
bool less_u(float a, float b) {
    return !(a >= b);
}
bool less_equal_u(float a, float b) {
    return !(a > b);
}
bool greater_u(float a, float b) {
    return !(a <= b);
}
bool greater_equal_u(float a, float b) {
    return !(a < b);
}
bool numbers(float a, float b) {
    return a == a && b == b;
}
bool no_number(float a, float b) {
    return a != a || b != b;
}

} // namespace

void add_floats(forms &f) {
    for (const char *rounding : {"", ".rn"}) {
        f.add(std::string("add") + rounding + ".f32", "r=rr", map<add>::run);
        f.add(std::string("sub") + rounding + ".f32", "r=rr", map<sub>::run);
        f.add(std::string("mul") + rounding + ".f32", "r=rr", map<mul>::run);
    }
    f.add("div.rn.f32", "r=rr", map<divide>::run);
    f.add("sqrt.rn.f32", "r=r", map<root>::run);
    f.add("neg.f32", "r=r", map<negate>::run);
    f.add("abs.f32", "r=r", map<absolute>::run);
    f.add("min.f32", "r=rr", map<smaller>::run);
    f.add("max.f32", "r=rr", map<larger>::run);
    f.add("ex2.approx.ftz.f32", "r=r", map<power_of_two>::run);
    f.add("fma.rn.f32", "r=rrr", fma_f32);
    f.add("fma.rn.bf16x2", "r=rrr", map<fma_bf16x2>::run);
    f.add("mul.rn.f16x2", "r=rr", map<mul_f16x2>::run);
    add_compare<equal>(f, "eq", "f32", "p=rr");
    add_compare<unequal>(f, "ne", "f32", "p=rr");
    add_compare<less>(f, "lt", "f32", "p=rr");
    add_compare<less_equal>(f, "le", "f32", "p=rr");
    add_compare<greater>(f, "gt", "f32", "p=rr");
    add_compare<greater_equal>(f, "ge", "f32", "p=rr");
    add_compare<equal_u>(f, "equ", "f32", "p=rr");
    add_compare<unequal_u>(f, "neu", "f32", "p=rr");
    add_compare<less_u>(f, "ltu", "f32", "p=rr");
    add_compare<less_equal_u>(f, "leu", "f32", "p=rr");
    add_compare<greater_u>(f, "gtu", "f32", "p=rr");
    add_compare<greater_equal_u>(f, "geu", "f32", "p=rr");
    add_compare<numbers>(f, "num", "f32", "p=rr");
    add_compare<no_number>(f, "nan", "f32", "p=rr");
}

} // namespace ptx
