/* core/draft/effort: what it settles on with made-up machines. */
#include "core/draft/effort.h"

#include <criterion/criterion.h>
#include <math.h>

/* A token costs a round trip unless it was guessed; passes make that likelier, less and less so. */
struct machine {
    double rtt, pass, plain_hits, model_hits;
};

static unsigned seed;

static double noise(void) {
    seed = seed * 1664525u + 1013904223u;
    return (double)(seed >> 8) / (1 << 24);
}

static double token_ms(const struct machine *m, int passes, double luck) {
    double hits = m->plain_hits + (m->model_hits - m->plain_hits) * (1 - pow(0.6, passes));
    return 5 + passes * m->pass + (luck < hits ? 0 : m->rtt);
}

static double mean_ms(const struct machine *m, int passes) {
    double hits = m->plain_hits + (m->model_hits - m->plain_hits) * (1 - pow(0.6, passes));
    return 5 + passes * m->pass + (1 - hits) * m->rtt;
}

/* Time for n tokens. */
static double talk(struct effort *e, const struct machine *m, int n) {
    double ms = 0;
    for (int i = 0; i < n; i++) {
        int passes = effort_passes(e);
        double t = token_ms(m, passes, noise());
        if (passes > 0)
            effort_pass(e, m->pass);
        effort_token(e, t);
        ms += t;
    }
    return ms;
}

static double best_ms(const struct machine *m) {
    double best = mean_ms(m, 0);
    for (int passes = 1; passes <= 16; passes *= 2)
        best = mean_ms(m, passes) < best ? mean_ms(m, passes) : best;
    return best;
}

Test(effort, settles_on_what_is_fastest) {
    static const struct machine good = {80, 2, 0.4, 0.9}, slow = {5, 60, 0.4, 0.9}, useless = {80, 10, 0.5, 0.5},
                                dear = {80, 40, 0.4, 0.95}, free_of_charge = {80, 0.1, 0.3, 0.95};
    static const struct machine *const all[] = {&good, &slow, &useless, &dear, &free_of_charge};
    for (int i = 0; i < 5; i++) {
        struct effort e = {0};
        seed = 7;
        cr_assert_eq(effort_passes(&e), 0, "first without");
        talk(&e, all[i], 300);
        double ms = talk(&e, all[i], 2000) / 2000;
        cr_assert_lt(ms, 1.12 * best_ms(all[i]), "machine %d: %.1f ms, not %.1f", i, ms, best_ms(all[i]));
    }
}

Test(effort, a_slow_model_costs_little) {
    static const struct machine slow = {5, 200, 0.4, 0.9};
    struct effort e = {0};
    seed = 3;
    double ms = talk(&e, &slow, 200), plain = 200 * mean_ms(&slow, 0);
    cr_assert_lt(ms, plain + 6 * 200, "%.0f ms, not %.0f", ms, plain);
}

Test(effort, follows_a_change) {
    static const struct machine near = {2, 10, 0.4, 0.9}, far = {150, 10, 0.4, 0.9};
    struct effort e = {0};
    seed = 11;
    talk(&e, &near, 500);
    cr_assert_lt(talk(&e, &near, 500) / 500, 1.25 * best_ms(&near));
    talk(&e, &far, 800);
    cr_assert_lt(talk(&e, &far, 1000) / 1000, 1.15 * best_ms(&far));
    talk(&e, &near, 2000);
    cr_assert_lt(talk(&e, &near, 1000) / 1000, 1.25 * best_ms(&near));
}
