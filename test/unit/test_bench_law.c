/* cmd/bench: the law, the fit and its cross-validation against numpy (weighted lstsq, constants below); the tally of a
 * session's counters. */
#include "cmd/bench/law.h"
#include "cmd/bench/lists.h"
#include "cmd/bench/tally.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static bool near(double a, double b) {
    return fabs(a - b) < 1e-8 * (1 + fabs(b));
}
#define NEAR(a, b) cr_assert(near(a, b), "%.12g, not %.12g", (double)(a), (double)(b))

Test(bench_law, the_law) {
    NEAR(law_tok_s(0.4, 90, 2.5), 26.6666666667);
    NEAR(law_tok_s(1, 80, 3), 12.5); /* every token a miss: what a foreseen one takes is nothing to it */
    NEAR(law_tok_s(0.1, 200, 0), 50);
    cr_assert(isnan(law_tok_s(0, 80, 0)));
}

static const struct law_point points[] = {{5, 31.7, 1.21, 0.8, 3, 1},
                                          {20, 47.9, 1.25, 0.6, 5, 2},
                                          {40, 66.2, 1.19, 0.5, 6, 2},
                                          {80, 107.1, 1.3, 0.4, 7, 4},
                                          {150, 175.4, 1.22, 0.2, 9, 6}};

Test(bench_law, fit_and_cross_validation_are_those_of_numpy) {
    static const double errors[] = {0.0161625125, -0.0269405071, 0.0125758433, -0.0017110456, 0.0088604693};
    double error[5];
    struct law_fit f = law_fit(points, 5, -1, false);
    cr_assert_eq(f.n, 5);
    NEAR(f.fixed_ms, 26.9257282126);
    NEAR(law_fit_step_ms(&f, 60), 86.9257282126);
    NEAR(law_cross_validate(points, 5, false, error), 0.0132500755);
    for (int i = 0; i < 5; i++)
        NEAR(error[i], errors[i]);
}

Test(bench_law, so_is_what_grows_with_the_logarithm_of_the_round_trip) {
    static const double errors[] = {0.0815182776, -0.0291523936, 0.0187227679, -0.0004884764, 0.0113696665};
    double error[5];
    struct law_fit f = law_fit(points, 5, -1, true);
    NEAR(f.at_ms, 11.1771956715);
    NEAR(f.fixed_ms, 26.9257282126); /* there */
    NEAR(f.growth_ms, 0.0474725339);
    NEAR(law_fit_step_ms(&f, 60), 87.0408208249);
    NEAR(law_cross_validate(points, 5, true, error), 0.0282503164);
    for (int i = 0; i < 5; i++)
        NEAR(error[i], errors[i]);
    /* What was made by the model is found again, whatever is left out; a fixed time alone does not fit it. */
    struct law_point made[4];
    for (int i = 0; i < 4; i++)
        made[i] = (struct law_point){.rtt_ms = 5 << i, .step_ms = (5 << i) + 1.5 + 1.6 * i};
    cr_assert_lt(law_cross_validate(made, 4, true, NULL), 1e-9);
    cr_assert_gt(law_cross_validate(made, 4, false, NULL), 0.05);
}

Test(bench_law, between_the_round_trips_that_were_measured) {
    struct law_point p = law_point_at(points, 5, false, 1000);
    NEAR(p.tokens_per_step, 1.234);
    NEAR(p.miss_rate, 0.5);
    NEAR(p.miss_ms, 6);
    NEAR(p.hit_ms, 3);
    p = law_point_at(points, 5, true, 10); /* half the way from 5 to 20 */
    NEAR(p.tokens_per_step, 1.23);
    NEAR(p.miss_rate, 0.7);
    NEAR(p.miss_ms, 4);
    NEAR(p.hit_ms, 1.5);
    NEAR(law_point_at(points, 5, true, 80).miss_ms, 7);
    NEAR(law_point_at(points, 5, true, 1).miss_ms, 3);
    NEAR(law_point_at(points, 5, true, 1000).miss_ms, 9);
    cr_assert(isnan(law_point_at(points, 0, true, 10).miss_ms));
}

Test(bench_law, a_point_alone_validates_nothing) {
    for (int adapts = 0; adapts < 2; adapts++) {
        struct law_fit f = law_fit(points, 1, -1, adapts);
        NEAR(f.fixed_ms, 26.7);
        NEAR(f.growth_ms, 0);
        cr_assert(isnan(law_cross_validate(points, 1, adapts, NULL)));
        f = law_fit(points, 1, 0, adapts);
        cr_assert(f.n == 0 && isnan(f.fixed_ms) && isnan(law_fit_step_ms(&f, 10)));
    }
}

/* ---- the tally ---- */

static struct bench_tally t;
static struct session_stats now;
static struct err e;
static double transport_ms;

/* One token in which the counters moved so far. */
static void token(const struct bench_path *p, double ms, struct session_stats moved) {
    struct session_stats after = now;
    after.front_ms += moved.front_ms;
    after.middle_ms += moved.middle_ms;
    after.back_ms += moved.back_ms;
    after.head_ms += moved.head_ms;
    after.sample_ms += moved.sample_ms;
    after.cloud_ms += moved.cloud_ms;
    after.awaited_ms += moved.cloud_ms;
    after.draft_ms += moved.draft_ms;
    after.steps += moved.steps;
    after.hits += moved.hits;
    after.late += moved.late;
    after.nodes_sent += moved.nodes_sent;
    const struct bench_token k = {ms, transport_ms, &now, &after};
    cr_assert_eq(bench_tally_token(&t, &k, p, &e), 0);
    now = after;
}

Test(bench_tally, sequential_steps_leave_their_own_overhead) {
    /* 1000 bytes at 8 Mbit/s: 1 ms each way. */
    transport_ms = 1.5;
    const struct bench_path p = {.rtt_ms = 80, .mbit = 8, .row_bytes = 1000, .row_ms = 0.01, .whole = true};
    for (int i = 0; i < 3; i++)
        token(&p, 96.0 + i,
              (struct session_stats){.steps = 1,
                                     .front_ms = 2,
                                     .middle_ms = 88.0 + i,
                                     .back_ms = 3,
                                     .head_ms = 1,
                                     .sample_ms = 0.5,
                                     .cloud_ms = 5});
    struct bench_row r = bench_row_of("sequential", NULL, 0);
    bench_tally_row(&t, &p, &r);
    cr_assert_eq(r.tokens, 3);
    cr_assert_eq(r.steps, 3);
    /* 97 - (80 + 2 + 5 + 2 + 3 + 1): of the three, the one in the middle. */
    NEAR(r.overhead_ms, 4);
    NEAR(r.overhead_here_ms, 3.5); /* what is neither model nor wait, and sending and reading */
    NEAR(r.tok_s, 3e3 / (96 + 97 + 98));
    NEAR(r.predicted_tok_s, 1e3 / 97);
    NEAR(r.step.all, 97);
    NEAR(r.step.rtt, 82);
    NEAR(r.step.cloud, 5);
    NEAR(r.step.front, 2);
    NEAR(r.step.back, 4);
    NEAR(r.step.serialise, 0.02);
    NEAR(r.step.wait, 97 - 82 - 5 - 2 - 4 - 0.02);
    bench_tally_free(&t);
}

Test(bench_tally, what_was_foreseen_too_late_is_a_step) {
    const struct bench_path p = {.rtt_ms = 80, .row_bytes = 1000};
    token(&p, 83, (struct session_stats){.steps = 1, .middle_ms = 82, .cloud_ms = 2, .nodes_sent = 10});
    token(&p, 1, (struct session_stats){.hits = 1, .nodes_sent = 5});
    token(&p, 79, (struct session_stats){.hits = 1, .late = 1, .middle_ms = 78, .cloud_ms = 1});
    token(&p, 6, (struct session_stats){.hits = 1, .late = 1, .middle_ms = 5}); /* nearly here: no round trip */
    struct bench_row r = bench_row_of("auto", "all", 64);
    bench_tally_row(&t, &p, &r);
    cr_assert_eq(r.tokens, 4);
    cr_assert_eq(r.steps, 2);
    NEAR(bench_row_tokens_per_round_trip(&r), 2);
    NEAR(bench_row_miss_rate(&r), 0.5);
    NEAR(r.overhead_ms, 1); /* of the miss alone */
    /* L: 80 + passes of 1.5 + 1 of our own; tau: 1 ms here, which is more than 3/4 ms of passes. */
    NEAR(r.predicted_tok_s, 1e3 / (0.5 * 82.5 + 0.5 * 1));
    bench_tally_free(&t);
}

Test(bench_tally, windows_behind_the_first_are_computed_beside_its_way) {
    const struct bench_path p = {.rtt_ms = 20, .row_bytes = 1000};
    /* 30 ms of front layers, of which 18 went by while the first window was away. */
    token(&p, 36, (struct session_stats){.steps = 1, .front_ms = 30, .middle_ms = 4, .cloud_ms = 2, .back_ms = 2});
    struct bench_row r = bench_row_of("auto", "all", 64);
    bench_tally_row(&t, &p, &r);
    NEAR(r.overhead_ms, 0);
    NEAR(r.predicted_tok_s, 1e3 / 36);
    bench_tally_free(&t);
}

Test(bench_tally, sums_are_those_of_both) {
    const struct bench_path p = {.rtt_ms = 10};
    struct bench_tally a;
    token(&p, 12, (struct session_stats){.steps = 1, .middle_ms = 11, .cloud_ms = 1});
    a = t;
    t = (struct bench_tally){0};
    token(&p, 14, (struct session_stats){.steps = 1, .middle_ms = 13, .cloud_ms = 1});
    a.bytes_up = 3;
    t.bytes_up = 4;
    cr_assert_eq(bench_tally_add(&a, &t, &e), 0);
    struct bench_row r = bench_row_of("sequential", NULL, 0);
    bench_tally_row(&a, &p, &r);
    NEAR(r.tok_s, 2e3 / 26);
    NEAR(r.bytes_up, 7);
    NEAR(r.overhead_ms, 2); /* 1 and 3 */
    bench_tally_free(&a);
    bench_tally_free(&t);
}

/* ---- lists ---- */

Test(bench_lists, numbers) {
    double v[BENCH_LIST];
    cr_assert_eq(bench_list_numbers("rtt", "0,20,80,20", 0, 100, 0, v, &e), 3);
    cr_assert(v[0] == 0 && v[1] == 20 && v[2] == 80);
    cr_assert_eq(bench_list_numbers("rtt", "2.5", 0, 100, 0, v, &e), 1);
    static const char *const wrong[] = {"",    ",",  "1,",  "1,,2",
                                        "1;2", "-1", "101", "nan",
                                        "inf", "1x", "two", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        e = (struct err){0};
        cr_assert_eq(bench_list_numbers("rtt", wrong[i], 0, 100, 0, v, &e), -1, "%s", wrong[i]);
        cr_assert(e.kind == ERR_USAGE && strstr(e.msg, "--rtt"), "%s", e.msg);
    }
    e = (struct err){0};
    cr_assert_eq(bench_list_numbers("nodes", "1.5", 1, 10, 1, v, &e), -1);
}

Test(bench_lists, names) {
    static const char *const names[] = {"one", "two", "three"};
    int v[BENCH_LIST];
    cr_assert_eq(bench_list_names("mode", "three,one,three", names, 3, v, &e), 2);
    cr_assert(v[0] == 2 && v[1] == 0);
    static const char *const wrong[] = {"", "one,", ",one", "on", "ones", "one two"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        e = (struct err){0};
        cr_assert_eq(bench_list_names("mode", wrong[i], names, 3, v, &e), -1, "%s", wrong[i]);
        cr_assert(e.kind == ERR_USAGE && strstr(e.msg, "one, two, three"), "%s", e.msg);
    }
}
