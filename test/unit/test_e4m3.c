/* Eight-bit numbers: against a table written out from the specification, and a search of it. */
#include "core/model/dtype.h"
#include "core/model/e4m3.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* OCP 8-bit floating point, table 1: S.EEEE.MMM, bias 7, S.1111.111 is the only NaN. */
static double value_of(int code) {
    int exp = code >> 3 & 15, mant = code & 7;
    double a = exp ? (1 + mant / 8.0) * pow(2, exp - 7) : mant / 8.0 * pow(2, -6);
    return code & 0x80 ? -a : a;
}

/* The nearest of the magnitudes; of two as near the one with an even code. */
static int nearest(double a) {
    int best = 0;
    for (int code = 1; code < 0x7f; code++) {
        double was = fabs(value_of(best) - a), is = fabs(value_of(code) - a);
        if (is < was || (is == was && code % 2 == 0))
            best = code;
    }
    return best;
}

static void check_code(float f) {
    int want = isnan(f) ? 0x7f : isinf(f) ? 0x7e : nearest(fabs((double)f));
    cr_assert_eq(e4m3_from_f32(f), want | (signbit(f) ? 0x80 : 0), "%a: code %02x, not %02x", (double)f,
                 e4m3_from_f32(f), want);
}

Test(e4m3, every_code_has_its_value) {
    for (int code = 0; code < 256; code++) {
        float f = e4m3_to_f32((uint8_t)code);
        if ((code & 0x7f) == 0x7f) {
            cr_assert(isnan(f));
            continue;
        }
        cr_assert_eq((double)f, value_of(code), "%02x", code);
        cr_assert_eq(e4m3_from_f32(f), code, "%02x comes back", code);
        cr_assert_eq((double)f16_to_f32((uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7)) * 256, value_of(code));
    }
}

Test(e4m3, numbers_become_the_nearest) {
    uint32_t seed = 1;
    for (uint32_t h = 0; h < 0x10000; h += h < 0x400 ? 1 : 3) /* f16, all kinds of them */
        check_code(f16_to_f32((uint16_t)h));
    for (int code = 0; code < 0x7f; code++) { /* both sides of each boundary, and the tie */
        float tie = (float)((value_of(code) + (code < 0x7e ? value_of(code + 1) : 480)) / 2);
        check_code(tie), check_code(-tie);
        check_code(nextafterf(tie, 0)), check_code(nextafterf(tie, INFINITY));
    }
    for (int i = 0; i < 20000; i++) {
        uint32_t u = toy_rnd(&seed) << 16 ^ toy_rnd(&seed);
        float f;
        memcpy(&f, &u, sizeof f);
        check_code(f);
    }
    const float edges[] = {448, 449, 464, 1e30f, INFINITY, -INFINITY, 0x1p-9f, 0x1p-10f, 0x1.8p-10f, 0x1p-149f, -0.0f};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        check_code(edges[i]);
    cr_assert_eq(e4m3_from_f32(NAN) & 0x7f, 0x7f);
}

Test(e4m3, a_scale_is_the_least_that_clips_nothing) {
    for (int exp = -40; exp <= 15; exp++)
        for (int i = 0; i < 16; i++) {
            float x[3] = {0, -ldexpf(1 + (float)i / 16, exp), ldexpf(0.3f, exp)}, scale = e4m3_scale(x, 3);
            if (-x[1] > 57344) {
                cr_assert(isnan(scale));
                continue;
            }
            cr_assert_leq(-x[1], 448 * scale);
            cr_assert(scale == 0x1p-15f || -x[1] > 448 * scale / 2, "%a: %a", (double)-x[1], (double)scale);
            cr_assert(scale >= 0x1p-15f && scale <= 0x1p7f);
        }
    const float over[] = {57344.01f, 65504, INFINITY, -INFINITY, NAN};
    float x[4] = {1, 57344, 0, 2};
    cr_assert_eq(e4m3_scale(x, 4), 0x1p7f);
    cr_assert_eq(e4m3_scale(x, 0), 0x1p-15f);
    for (size_t i = 0; i < sizeof over / sizeof *over; i++) {
        uint16_t h[4];
        x[2] = over[i];
        cr_assert(isnan(e4m3_scale(x, 4)));
        e4m3_round(x, 4, h);
        for (int j = 0; j < 4; j++)
            cr_assert(isnan(f16_to_f32(h[j])));
    }
}

/* Each code under each scale is a number that f16 has, so readers of f16 lose nothing. */
Test(e4m3, heads_are_exact_in_f16) {
    for (int s = -15; s <= 7; s++)
        for (int code = 0; code < 256; code++) {
            double v = value_of(code) * pow(2, s);
            if ((code & 0x7f) != 0x7f)
                cr_assert_eq((double)f16_to_f32(f32_to_f16((float)v)), v, "%02x, 2^%d", code, s);
        }
    uint32_t seed = 5;
    for (int round = 0; round < 200; round++) {
        float x[20], most = 0;
        uint16_t h[20];
        for (int i = 0; i < 20; i++) {
            x[i] = ldexpf((float)((int)(toy_rnd(&seed) % 2001) - 1000), (int)(toy_rnd(&seed) % 30) - 25);
            most = fmaxf(most, fabsf(x[i]));
        }
        e4m3_round(x, 20, h);
        float scale = e4m3_scale(x, 20);
        for (int i = 0; i < 20; i++) {
            double want = value_of(nearest(fabs((double)x[i]) / (double)scale)) * (double)scale;
            cr_assert_eq((double)f16_to_f32(h[i]), x[i] < 0 ? -want : want);
            cr_assert_leq(fabs(want - fabs((double)x[i])), fmax(fabs((double)x[i]) / 16, (double)scale * 0x1p-10));
        }
    }
}
