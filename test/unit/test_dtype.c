/* core/model/dtype: conversions over every half-precision value, and block types against ggml's own results
 * (test/golden/dtype_blocks.h, written by test/oracle/make_dtype.py with the gguf package). */
#include "core/model/dtype.h"
#include "test/golden/dtype_blocks.h"

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

static void check_decode(enum dtype t, const uint8_t *blocks, const uint32_t *bits, size_t n) {
    float got[512];
    cr_assert(n <= 512);
    dtype_decode(t, blocks, n, got);
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &got[i], sizeof u);
        cr_assert_eq(u, bits[i], "%s element %zu: %08x, not %08x", dtype_info(t)->name, i, u, bits[i]);
    }
}

Test(dtype, blocks_decode_as_in_ggml) {
    check_decode(DT_Q8_0, q8_0_blocks, q8_0_bits, sizeof q8_0_bits / 4);
    check_decode(DT_Q4_0, q4_0_blocks, q4_0_bits, sizeof q4_0_bits / 4);
    check_decode(DT_Q4_K, q4_K_blocks, q4_K_bits, sizeof q4_K_bits / 4);
    check_decode(DT_Q6_K, q6_K_blocks, q6_K_bits, sizeof q6_K_bits / 4);
}

static void check_encode(enum dtype t, const uint8_t *want, size_t bytes) {
    float x[512];
    uint8_t got[512 / 32 * 34];
    memcpy(x, encode_bits, sizeof x);
    cr_assert_eq(dtype_row_bytes(t, 512), bytes);
    dtype_encode(t, x, 512, got);
    for (size_t i = 0; i < bytes; i++)
        cr_assert_eq(got[i], want[i], "%s byte %zu: %d, not %d", dtype_info(t)->name, i, got[i], want[i]);
}

Test(dtype, blocks_encode_as_in_ggml) {
    check_encode(DT_Q8_0, q8_0_encoded, sizeof q8_0_encoded);
    check_encode(DT_Q4_0, q4_0_encoded, sizeof q4_0_encoded);
}

/* A hostile file may hold anything: whatever comes out, nothing undefined may happen on the way (UBSan watches). */
Test(dtype, blocks_of_bad_values_are_encoded_somehow) {
    float x[32];
    uint8_t b[34];
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        for (int i = 0; i < 32; i++)
            x[i] = i % 3 == 0 ? bad[k] : (float)i;
        dtype_encode(DT_Q8_0, x, 32, b);
        dtype_encode(DT_Q4_0, x, 32, b);
    }
    cr_assert_eq(dtype_row_bytes(DT_Q6_K, 512), 420);
}
