/* gpu/matrix_layout.h against brute force: no card is needed. */
#include "gpu/product_args.h"

#include <criterion/criterion.h>
#include <string.h>

static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K};
enum { N_TYPES = sizeof types / sizeof *types };

static int bits_of(enum dtype t) {
    const int bits[DT_COUNT] = {
        [DT_F32] = 32, [DT_F16] = 16, [DT_BF16] = 16, [DT_Q8_0] = 8, [DT_Q4_0] = 4, [DT_Q4_K] = 4, [DT_Q6_K] = 6};
    return bits[t];
}

Test(gpu_layout, every_bit_of_a_step_is_one_of_one_weight) {
    for (int i = 0; i < N_TYPES; i++) {
        enum dtype t = types[i];
        int n[GPU_TILE][MATRIX_STEP] = {0};
        for (int word = 0; word < matrix_step_words(t); word++) {
            int bits = matrix_field_bits(t, word);
            uint32_t seen = 0;
            for (int e = 0; e < 32 / bits; e++) {
                struct matrix_field f = matrix_field(t, word, e);
                uint32_t mask = (bits == 32 ? ~0u : (1u << bits) - 1) << f.shift;
                cr_assert(f.row >= 0 && f.row < GPU_TILE && f.column >= 0 && f.column < MATRIX_STEP);
                cr_assert_eq(seen & mask, 0);
                seen |= mask;
                n[f.row][f.column] += bits;
            }
            cr_assert_eq(seen, ~0u);
        }
        for (int r = 0; r < GPU_TILE; r++)
            for (int c = 0; c < MATRIX_STEP; c++)
                cr_assert_eq(n[r][c], bits_of(t), "%s: row %d, column %d", dtype_info(t)->name, r, c);
    }
}

/* Which words and bits the kernels take for operand a, written down once more: register r of a half of a chunk. */
static void register_at(enum dtype t, int chunk, int half, int r, int second, int *word, int *shift) {
    switch (t) {
    case DT_F32:
        *word = (chunk * 2 + half) * 8 + r * 2 + second, *shift = 0;
        break;
    case DT_F16:
    case DT_BF16:
        *word = (chunk * 2 + half) * 4 + r, *shift = second * 16;
        break;
    case DT_Q8_0:
        *word = chunk * 4 + half * 2 + r / 2, *shift = r % 2 * 8 + second * 16;
        break;
    default:
        *word = chunk * 2 + half, *shift = r * 4 + second * 16;
    }
}

/* mma.m16n8k16: lane 4 g + t has of a in register r row g + 8 (r % 2), k 2 t + 8 (r / 2) and the next; of b in register
 * r k 2 t + 8 r and the next. So for the sum the weight in a and the activation in b of one k must be of one column. */
Test(gpu_layout, lanes_find_their_rows_and_columns) {
    for (int i = 0; i < N_TYPES; i++)
        for (int at = 0; at < MATRIX_LANES * 2 * 2 * 4 * 2; at++) {
            enum dtype t = types[i];
            int lane = at / 32, chunk = at / 16 % 2, half = at / 8 % 2, r = at / 2 % 4, second = at % 2;
            int word, shift;
            register_at(t, chunk, half, r, second, &word, &shift);
            /* A lane's words come in pieces of four; [piece][lane]. */
            int in_step = (word / 4 * MATRIX_LANES + lane) * 4 + word % 4;
            struct matrix_field f = matrix_field(t, in_step, shift / matrix_field_bits(t, in_step));
            cr_assert_eq(f.shift, shift);
            cr_assert_eq(f.row, lane / 4 + r % 2 * 8);
            /* b: two words for each half, from 8 columns in a row, or from 4 for q6_K. */
            int b = (t == DT_Q6_K ? half * 16 + lane % 4 * 4 : lane % 4 * 8 + half * 4) + r / 2 * 2 + second;
            cr_assert_eq(f.column, chunk * GPU_CHUNK + b, "%s", dtype_info(t)->name);
            if (t != DT_Q6_K)
                continue;
            int high = 4 * MATRIX_LANES + lane * 2 + chunk, e = half * 4 + r + second * 8;
            struct matrix_field h = matrix_field(t, high, e);
            cr_assert(h.row == f.row && h.column == f.column && h.shift == 2 * e);
        }
}

static void take(uint8_t *used, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(used[at + i]++, 0, "two scales at byte %zu", at + i);
}

Test(gpu_layout, scales_do_not_overlap_and_fill_their_place) {
    enum { STEPS = 12, COLUMNS = STEPS * MATRIX_STEP };
    for (int i = 0; i < N_TYPES; i++) {
        enum dtype t = types[i];
        uint8_t used[STEPS * 80] = {0};
        size_t bytes = matrix_tile_scales(t, STEPS);
        bool k = t == DT_Q4_K || t == DT_Q6_K;
        if (bytes == 0)
            continue;
        for (int row = 0; row < GPU_TILE; row++)
            for (int c = 0; c < COLUMNS; c += 16) {
                size_t d = matrix_d_at(t, row, c), first = matrix_d_at(t, row, c / (k ? 256 : 32) * (k ? 256 : 32));
                cr_assert_eq(d, first, "a block has one d");
                if (c % (k ? 256 : 32) == 0)
                    take(used, d, 2);
                if (t == DT_Q4_K && c % 256 == 0)
                    take(used, matrix_dmin_at(row, c), 2);
                if (t == DT_Q4_K && c % 32 == 0) {
                    take(used, matrix_sc_at(t, row, c), 1);
                    take(used, matrix_m_at(row, c), 1);
                }
                if (t == DT_Q6_K)
                    take(used, matrix_sc_at(t, row, c), 1);
            }
        for (size_t b = 0; b < sizeof used; b++)
            cr_assert_eq(used[b], b < bytes, "%s: byte %zu", dtype_info(t)->name, b);
        /* Lanes load them in words of 8 bytes (4: d of q6_K). */
        cr_assert_eq(bytes % 8, 0);
        for (int row = 0; row < GPU_TILE; row++) {
            cr_assert_eq(matrix_d_at(t, row, 0) % 4, row < 8 ? 0 : 2);
            cr_assert_eq(matrix_d_at(t, row % 8, 0) + 2, matrix_d_at(t, row % 8 + 8, 0));
        }
    }
}

Test(gpu_layout, segments_cover_the_columns_and_are_few) {
    for (int steps = 1; steps < 3000; steps++) {
        int each = matrix_segment_steps(steps), n = matrix_segments(steps);
        cr_assert(n >= 1 && n <= GPU_SEGMENTS);
        cr_assert(each * (n - 1) < steps && steps <= each * n, "none is empty");
        cr_assert(steps < 8 || each * MATRIX_STEP >= GPU_SEGMENT / 2);
    }
    cr_assert_eq(matrix_segments(4096 / MATRIX_STEP), 8);
    cr_assert_eq(matrix_segment_steps(14336 / MATRIX_STEP) * MATRIX_STEP, 1792);
}

/* Blocks fit in the shared memory of the smallest cards, and all their threads have something to copy. */
Test(gpu_layout, blocks_fit) {
    for (int i = 0; i < N_TYPES; i++)
        for (int n = 32; n <= 128; n *= 2)
            for (int terms = 1; terms <= 2; terms++) {
                enum dtype t = types[i];
                if ((n == 128 && !product_has_128(t, terms)) || (terms == 1 && !product_has_fast(t)))
                    continue;
                cr_assert_leq(product_stages(t, n, terms) * product_stage_bytes(t, n, terms), 99 * 1024);
                cr_assert_leq(product_threads(t, n), 256);
                cr_assert_eq(n % (product_threads(t, n) / (8 * terms)), 0); /* 16 bytes a thread, 128 a term */
                cr_assert_eq(n / product_columns(t, n) % 32, 0);
            }
}
