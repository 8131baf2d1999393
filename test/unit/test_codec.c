/* net/codec: against numpy's results (test/golden/codec_rows.h, made by test/oracle/make_codec.py), over every half,
 * and the properties that the rest relies on. */
#include "core/model/dtype.h"
#include "net/codec.h"
#include "test/golden/codec_rows.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { ALL = 0x10000 };

static uint64_t state;

static uint64_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 16;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static bool same_bits(const float *a, const float *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* Rows whose magnitudes differ widely; every 16th is made of any bits. */
static void fill(float *x, int n) {
    float scale = ldexpf(1, (int)(next() % 60) - 40);
    bool any = next() % 16 == 0;
    for (int i = 0; i < n; i++)
        x[i] = any ? float_of((uint32_t)next()) : scale * ((float)(next() % 20001) - 10000) / 7000;
}

static void check_golden(enum codec c, const void *rows, size_t row_bytes) {
    uint8_t got[CODEC_ROWS * 4 * CODEC_HIDDEN];
    float x[CODEC_ROWS * CODEC_HIDDEN];
    const uint8_t *want = rows;
    memcpy(x, codec_bits, sizeof x);
    cr_assert_eq(codec_row_bytes(c, CODEC_HIDDEN), row_bytes);
    codec_encode(c, x, CODEC_ROWS, CODEC_HIDDEN, got);
    for (size_t i = 0; i < CODEC_ROWS * row_bytes; i++)
        cr_assert_eq(got[i], want[i], "%s row %zu byte %zu: %02x, not %02x", codec_name(c), i / row_bytes,
                     i % row_bytes, got[i], want[i]);
}

Test(codec, numpy_makes_the_same_bytes) {
    check_golden(CODEC_F16, codec_f16, sizeof codec_f16[0]);
    check_golden(CODEC_BF16, codec_bf16, sizeof codec_bf16[0]);
    check_golden(CODEC_Q8, codec_q8, sizeof codec_q8[0]);
}

Test(codec, names_and_sizes) {
    cr_assert_str_eq(codec_name(CODEC_Q8), "q8");
    for (int c = 0; c < N_CODECS; c++)
        cr_assert_str_eq(codec_choices[c], codec_name((enum codec)c));
    cr_assert_null(codec_choices[N_CODECS]);
    cr_assert_eq(codec_row_bytes(CODEC_F32, 4096), 16384);
    cr_assert_eq(codec_row_bytes(CODEC_F16, 4096), 8192);
    cr_assert_eq(codec_row_bytes(CODEC_BF16, 4096), 8192);
    cr_assert_eq(codec_row_bytes(CODEC_Q8, 4096), 4096 + 128);
    cr_assert_eq(codec_row_bytes(CODEC_Q8, 65), 65 + 4);
    cr_assert_eq(codec_row_bytes(CODEC_Q8, 1), 1 + 2);
}

/* All 65536 patterns: decoded as core/model/dtype.c does, refused exactly when not finite, and the same bytes again. */
Test(codec, every_half_and_bf16) {
    for (int c = CODEC_F16; c <= CODEC_BF16; c++)
        for (uint32_t h = 0; h < ALL; h++) {
            uint8_t in[2] = {(uint8_t)h, (uint8_t)(h >> 8)}, back[2];
            float want = c == CODEC_F16 ? f16_to_f32((uint16_t)h) : bf16_to_f32((uint16_t)h), x;
            int rc = codec_decode((enum codec)c, in, 1, 1, &x);
            cr_assert_eq(rc, isfinite(want) ? 0 : -1, "%04x", h);
            if (rc != 0)
                continue;
            cr_assert(same_bits(&x, &want, 1), "%04x", h);
            codec_encode((enum codec)c, &x, 1, 1, back);
            cr_assert_eq(memcmp(in, back, 2), 0, "%04x", h);
        }
}

/* The halfway points between all neighbours, and the numbers beside them. */
Test(codec, f16_rounds_as_dtype_does) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = f16_to_f32((uint16_t)h), b = f16_to_f32((uint16_t)(h + 1)), mid = (a + b) / 2;
        float x[4] = {mid, nextafterf(mid, 0), nextafterf(mid, INFINITY), -mid};
        uint8_t out[8];
        codec_encode(CODEC_F16, x, 1, 4, out);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(out[2 * i] | out[2 * i + 1] << 8, f32_to_f16(x[i]), "%a", (double)x[i]);
    }
}

Test(codec, what_is_not_finite_is_tamed) {
    static const float largest[] = {FLT_MAX, 65504, 0x1.fep127f, 127 * 65504.0f};
    const float odd[] = {NAN, -NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX};
    for (int c = 0; c < N_CODECS; c++) {
        float x[6], m = largest[c];
        uint8_t out[24];
        codec_encode((enum codec)c, odd, 1, 6, out);
        cr_assert_eq(codec_decode((enum codec)c, out, 1, 6, x), 0);
        const float want[] = {0, 0, m, -m, m, -m};
        for (int i = 0; i < 6; i++)
            cr_assert(x[i] == want[i] && (x[i] != 0 || !signbit(x[i])), "%s %d: %a", codec_name((enum codec)c), i,
                      (double)x[i]);
    }
}

Test(codec, what_is_not_finite_is_refused) {
    enum { H = 130 };
    static const uint16_t bad16[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01};
    static const uint32_t bad32[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001};
    float x[2 * H] = {0}, y[2 * H];
    uint8_t in[2 * 4 * H];
    for (int c = 0; c < N_CODECS; c++) {
        size_t width = c == CODEC_F32 ? 4 : 2, n = 2 * codec_row_bytes((enum codec)c, H);
        size_t row = n / 2;
        for (size_t at = 0; at + width <= n; at += width) {
            if (c == CODEC_Q8 && at % row >= 6) /* only scales can be wrong */
                continue;
            for (int k = 0; k < 4; k++) {
                uint32_t u = c == CODEC_F32 ? bad32[k] : c == CODEC_BF16 ? bad32[k] >> 16 | (k == 3) : bad16[k];
                codec_encode((enum codec)c, x, 2, H, in);
                cr_assert_eq(codec_decode((enum codec)c, in, 2, H, y), 0);
                memcpy(in + at, &u, width);
                cr_assert_eq(codec_decode((enum codec)c, in, 2, H, y), -1, "%s at %zu: %x", codec_name((enum codec)c),
                             at, u);
            }
        }
    }
}

/* codec_boundary is the trip; a second trip changes nothing (q8: where the scale is normal). */
Test(codec, boundary_is_the_trip_and_settles) {
    enum { N = 3, MOST = 200 };
    static float x[N * MOST], got[N * MOST], twin[N * MOST];
    static uint8_t bytes[N * 4 * MOST];
    int small = 0, changed = 0;
    for (int trial = 0; trial < 4000; trial++) {
        int hidden = 1 + (int)(next() % MOST), n = N * hidden;
        for (int c = 0; c < N_CODECS; c++) {
            enum codec codec = (enum codec)c;
            for (int row = 0; row < N; row++)
                fill(x + (size_t)row * (size_t)hidden, hidden);
            memcpy(twin, x, sizeof x);
            codec_encode(codec, x, N, hidden, bytes);
            cr_assert_eq(codec_decode(codec, bytes, N, hidden, got), 0);
            codec_boundary(&codec, twin, N, hidden);
            cr_assert(same_bits(got, twin, (size_t)n), "%s hidden %d", codec_name(codec), hidden);
            codec_boundary(&codec, twin, N, hidden);
            for (int i = 0; i < n; i++) {
                float max = 0;
                for (int row = i / hidden, k = i % hidden / 64 * 64, j = k; j < k + 64 && j < hidden; j++)
                    max = fmaxf(max, fabsf(got[row * hidden + j]));
                if (c == CODEC_Q8 && max < 127 * 0x1p-14f) {
                    small++;
                    changed += got[i] != twin[i];
                    cr_assert(fabsf(got[i] - twin[i]) <= max / 127 + 0x1p-24f);
                } else
                    cr_assert(same_bits(&got[i], &twin[i], 1), "%s: %a, then %a", codec_name(codec), (double)got[i],
                              (double)twin[i]);
            }
        }
    }
    cr_assert(small > 0 && changed > 0); /* both sides of what docs/protocol.md says were seen */
}

/* The scale is the smallest that clips nothing, and every number is the nearest multiple of it. */
Test(codec, q8_is_as_near_as_its_scale_allows) {
    enum { H = 64 };
    for (int trial = 0; trial < 20000; trial++) {
        float x[H], y[H], max = 0;
        uint8_t out[H + 2];
        float scale = ldexpf(1, (int)(next() % 44) - 24);
        for (int i = 0; i < H; i++) {
            x[i] = scale * ((float)(next() % 200001) - 100000) / 100000;
            max = fmaxf(max, fabsf(x[i]));
        }
        codec_encode(CODEC_Q8, x, 1, H, out);
        cr_assert_eq(codec_decode(CODEC_Q8, out, 1, H, y), 0);
        uint16_t h = (uint16_t)(out[0] | out[1] << 8);
        double s = f16_to_f32(h);
        cr_assert(127 * s >= max);
        cr_assert(h == 0 || 127 * (double)f16_to_f32((uint16_t)(h - 1)) < max);
        for (int i = 0; i < H; i++) {
            cr_assert_neq((int8_t)out[2 + i], -128);
            cr_assert(fabs((double)x[i] - y[i]) <= s * (0.5 + 1e-5), "%a became %a, scale %a", (double)x[i],
                      (double)y[i], s);
        }
    }
}

/* A row's bytes depend on nothing but the row, and nothing is written or read beyond. */
Test(codec, rows_are_independent) {
    for (int c = 0; c < N_CODECS; c++)
        for (int hidden = 1; hidden < 140; hidden += 3) {
            enum codec codec = (enum codec)c;
            size_t row = codec_row_bytes(codec, hidden), n = (size_t)hidden;
            /* Exact sizes from the heap: a sanitizer sees one byte too many. */
            float *x = malloc(5 * n * sizeof *x), *y = malloc(5 * n * sizeof *y);
            uint8_t *all = malloc(5 * row), *one = malloc(row);
            for (int i = 0; i < 5; i++)
                fill(x + (size_t)i * n, hidden);
            codec_encode(codec, x, 5, hidden, all);
            cr_assert_eq(codec_decode(codec, all, 5, hidden, y), 0);
            for (size_t i = 0; i < 5; i++) {
                codec_encode(codec, x + i * n, 1, hidden, one);
                cr_assert_eq(memcmp(one, all + i * row, row), 0);
                cr_assert_eq(codec_decode(codec, one, 1, hidden, x), 0); /* row 0 was looked at first */
                cr_assert(same_bits(x, y + i * n, n));
            }
            codec_encode(codec, x, 0, hidden, NULL);
            cr_assert_eq(codec_decode(codec, NULL, 0, hidden, NULL), 0);
            free(x);
            free(y);
            free(all);
            free(one);
        }
}
