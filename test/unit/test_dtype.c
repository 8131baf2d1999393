/* core/model/dtype: conversions over every half-precision value, and block types against ggml's own results
 * (test/golden/dtype_blocks.h, written by test/golden/make_dtype.py with the gguf package). */
#include "core/model/dtype.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(dtype, f16_round_trips_and_is_monotonic) {
    float last = -INFINITY;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            cr_assert(isnan(f));
            cr_assert((f32_to_f16(f) & 0x7fff) > 0x7c00);
            continue;
        }
        int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        double want = e == 31 ? INFINITY : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        cr_assert_eq(f, (float)(h >> 15 ? -want : want));
        cr_assert_eq(f32_to_f16(f), h);
        if (h < 0x8000) {
            cr_assert(f > last);
            last = f;
        }
    }
}

/* Halfway between neighbours goes to the even one; a hair beside it goes to the nearer. */
Test(dtype, f16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = f16_to_f32((uint16_t)h), b = f16_to_f32((uint16_t)(h + 1)), mid = (float)(((double)a + b) / 2);
        cr_assert_eq(f32_to_f16(mid), h & 1 ? h + 1 : h);
        cr_assert_eq(f32_to_f16(nextafterf(mid, 0)), h);
        cr_assert_eq(f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
        cr_assert_eq(f32_to_f16(-mid), 0x8000 | (h & 1 ? h + 1 : h));
    }
    cr_assert_eq(f32_to_f16(65519.996f), 0x7bff);
    cr_assert_eq(f32_to_f16(65520.0f), 0x7c00);
    cr_assert_eq(f32_to_f16(INFINITY), 0x7c00);
    cr_assert_eq(f32_to_f16(1e-30f), 0);
}

Test(dtype, bf16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 0x7f7f; h++) {
        float a = bf16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)(h + 1));
        float mid = (float)(((double)a + b) / 2);
        cr_assert_eq(f32_to_bf16(a), h);
        cr_assert_eq(f32_to_bf16(mid), h & 1 ? h + 1 : h);
        cr_assert_eq(f32_to_bf16(nextafterf(mid, 0)), h);
        cr_assert_eq(f32_to_bf16(nextafterf(mid, INFINITY)), h + 1);
    }
    cr_assert_eq(f32_to_bf16(INFINITY), 0x7f80);
    cr_assert((f32_to_bf16(NAN) & 0x7fff) > 0x7f80);
}
