/* net/cloud/pace: on machines of different kinds, made up here, decoding is held up as little as promised, and prefill
 * goes on as fast as that allows. */
#include "net/cloud/pace.h"

#include <criterion/criterion.h>
#include <math.h>

/* Milliseconds of a pass of n rows. */
static double reads_weights(int n) { /* rows are nearly free until there are 64 */
    return 10 + 0.01 * n + (n > 64 ? (n - 64) * 0.15 : 0);
}
static double in_fours(int n) { /* every four rows cost the same */
    return 10.0 * ((n + 3) / 4);
}
static double per_row(int n) {
    return 1 + 5.0 * n;
}

static double noise(unsigned *seed) { /* 0.9 to 1.1 */
    *seed = *seed * 1664525u + 1013904223u;
    return 0.9 + 0.2 * (*seed >> 8) / (double)(1 << 24);
}

struct outcome {
    double slowdown, worst, rows_per_ms;
};

static struct outcome run(double (*cost)(int), int n_decode, int passes) {
    struct pace p = {0};
    struct outcome o = {0};
    unsigned seed = 3;
    for (int i = 0; i < 50; i++)
        pace_learn(&p, n_decode, n_decode, cost(n_decode) * noise(&seed));
    double sum = 0, rows = 0;
    for (int i = 0; i < passes; i++) {
        int n = pace_prefill(&p, n_decode, 256 - n_decode);
        cr_assert(n >= 0 && n <= 256 - n_decode);
        double ms = cost(n_decode + n);
        pace_learn(&p, n_decode + n, n_decode, ms * noise(&seed));
        if (i < passes / 4)
            continue; /* it had to learn */
        sum += ms;
        rows += n;
        o.worst = fmax(o.worst, ms / cost(n_decode));
    }
    o.slowdown = sum / (passes - passes / 4) / cost(n_decode);
    o.rows_per_ms = rows / sum;
    return o;
}

Test(pace, decoding_is_held_up_no_more_than_promised) {
    double (*costs[])(int) = {reads_weights, in_fours, per_row};
    for (int k = 0; k < 3; k++)
        for (int n = 1; n <= 16; n *= 2) {
            struct outcome o = run(costs[k], n, 2000);
            cr_assert_lt(o.slowdown, 1 + PACE_SHARE + 0.15, "machine %d, %d decoding: %.2f times", k, n, o.slowdown);
            /* Four rows are the least that a chunk has. */
            double least = costs[k](n + 4) / costs[k](n);
            cr_assert_lt(o.worst, fmax(2, least) * 1.5, "machine %d, %d decoding: %.2f times", k, n, o.worst);
            cr_assert_gt(o.rows_per_ms, 0);
        }
}

Test(pace, prefill_takes_what_is_free) {
    struct outcome o = run(reads_weights, 4, 2000);
    cr_assert_gt(o.rows_per_ms, 0.8 * 64 / reads_weights(64), "%.2f rows per ms", o.rows_per_ms);
    o = run(in_fours, 4, 2000); /* a share of 0.4 of the time, at 0.4 rows per ms */
    cr_assert_gt(o.rows_per_ms, 0.06, "%.3f rows per ms", o.rows_per_ms);
}

Test(pace, follows_a_machine_that_changes) {
    struct pace p = {0};
    for (int i = 0; i < 200; i++)
        for (int n = 1; n <= 64; n++)
            pace_learn(&p, n, n, 10 + n);
    for (int n = 1; n <= 64; n++)
        cr_assert_float_eq(pace_ms(&p, n), 10 + n, 1.5, "%d rows: %.2f ms", n, pace_ms(&p, n));
    for (int i = 0; i < 200; i++)
        for (int n = 1; n <= 64; n++)
            pace_learn(&p, n, n, 5 + 3.0 * n);
    for (int n = 1; n <= 64; n++)
        cr_assert_float_eq(pace_ms(&p, n), 5 + 3.0 * n, 3, "%d rows: %.2f ms", n, pace_ms(&p, n));
    cr_assert_float_eq(p.decode_rows, 64, 10);
}

Test(pace, knows_nothing_at_first) {
    struct pace p = {0};
    cr_assert_eq(pace_ms(&p, 7), 0);
    cr_assert_gt(pace_prefill(&p, 1, 100), 0, "prefill goes on");
    cr_assert_eq(pace_prefill(&p, 1, 1), 1);
    cr_assert_gt(pace_prefill(&p, 0, 100), 0);
    pace_learn(&p, 300, 0, 30);
    cr_assert_gt(pace_ms(&p, 300), 0);
    cr_assert_leq(pace_ms(&p, 256), pace_ms(&p, 512));
    cr_assert_float_eq(pace_ms(&p, 1024), 2 * pace_ms(&p, 512), 1e-6, "beyond what is known in proportion");
    pace_learn(&p, 65536, 0, 100);
    pace_learn(&p, 1 << 20, 0, 100);
    cr_assert(isfinite(pace_ms(&p, 1 << 20)));
}
