/* core/decode/price: what it learns from made-up machines, and what it makes of that. */
#include "core/decode/price.h"

#include <criterion/criterion.h>
#include <stdint.h>

static uint32_t seed;

static double noise(void) {
    seed = seed * 1664525u + 1013904223u;
    return (double)(seed >> 8) / (1 << 24);
}

Test(price, a_line_is_found_under_noise) {
    struct price_fit f = {0};
    seed = 1;
    for (int i = 0; i < 200; i++) {
        double rows = 1 + (int)(noise() * 30);
        price_fit_add(&f, rows, 80 + 0.5 * rows + 2 * noise());
    }
    cr_assert(f.slope > 0.4 && f.slope < 0.6, "%f", f.slope);
    cr_assert(f.fixed > 78 && f.fixed < 84, "%f", f.fixed);
    for (int i = 0; i < 300; i++) /* another path; equal windows say nothing of the slope */
        price_fit_add(&f, 4, 22);
    cr_assert(f.fixed + 4 * f.slope > 21.9 && f.fixed + 4 * f.slope < 22.1);
    cr_assert_lt(f.slope, 0.5, "%f", f.slope);
    for (int i = 0; i < 100; i++) {
        double rows = 1 + (int)(noise() * 30);
        price_fit_add(&f, rows, 20 + 1.5 * rows + 2 * noise());
    }
    cr_assert(f.slope > 1.4 && f.slope < 1.6, "%f", f.slope);
}

struct machine {
    double rtt, wire, pass, row, front, front_row, local; /* ms */
};

static void watch(struct price *p, const struct machine *m, int windows) {
    for (int i = 0; i < windows; i++) {
        int rows = 1 + (int)(noise() * 24);
        double compute = m->pass + m->row * rows;
        price_window(p, rows, m->rtt + m->wire * rows + compute, compute);
        price_fit_add(&p->front, rows, m->front + m->front_row * rows);
        price_plain(p, m->rtt + m->wire + m->pass + m->row + m->front + m->front_row + m->local);
    }
}

static const struct machine wan = {80, 0.7, 15, 0.05, 3, 0.1, 8}, lan = {1, 0.7, 15, 0.05, 3, 0.1, 8},
                            here = {0, 0, 0.2, 0.15, 0.04, 0.02, 0.1}, thin = {80, 20, 15, 0.05, 3, 0.1, 8};

Test(price, a_node_is_sent_while_it_pays) {
    const struct machine *all[] = {&wan, &lan, &thin};
    for (int k = 0; k < 3; k++) {
        const struct machine *m = all[k];
        struct price p = {0};
        seed = 3;
        cr_assert_gt(price_least(&p), 1, "nothing is known yet");
        watch(&p, m, 60);
        double want = (m->wire + m->row + m->front_row) / (m->rtt + m->wire + m->pass + m->row + m->front);
        cr_assert(price_least(&p) > 0.9 * want && price_least(&p) < 1.1 * want, "%f, not %f", price_least(&p), want);
    }
}

Test(price, a_window_of_its_own_has_to_be_worth_a_pass) {
    struct price p = {0}, q = {0};
    seed = 5;
    watch(&p, &wan, 60);
    watch(&q, &here, 60);
    cr_assert(price_pays(&p, 0.5, 1));
    cr_assert_not(price_pays(&p, 0.02, 1));
    cr_assert_not(price_pays(&q, 0.9, 1), "here the pass costs as much as it saves");
}

Test(price, a_drafter_that_brags_is_not_believed) {
    struct price p = {0};
    seed = 7;
    watch(&p, &wan, 60);
    double fair = price_least(&p);
    for (int i = 0; i < 100; i++)
        price_offer(&p, 0.9, false);
    cr_assert_gt(price_least(&p), 10 * fair);
    for (int i = 0; i < 400; i++)
        price_offer(&p, 0.9, true);
    cr_assert_lt(price_least(&p), 1.1 * fair, "and believed again when it is right");
}

/* Tokens without and with speculation; returns for how many of n it was on. */
static int live(struct price *p, double plain_ms, double spec_ms, int n) {
    int on = 0;
    for (int i = 0; i < n; i++) {
        bool is_on = price_on(p);
        on += is_on;
        price_token(p, is_on ? spec_ms : plain_ms);
        if (!is_on)
            price_plain(p, plain_ms);
    }
    return on;
}

Test(price, what_loses_is_switched_off_and_tried_again) {
    struct price p = {0};
    seed = 9;
    watch(&p, &here, 30);
    double plain = p.plain_ms;
    int on = live(&p, plain, 1.1 * plain, 10000);
    cr_assert(on > 20 && on < 400, "%d of 10000 tokens", on);
    on = live(&p, plain, 0.5 * plain, 10000);
    cr_assert_gt(on, 7000, "%d: it gains now", on);
    watch(&p, &wan, 60);
    plain = p.plain_ms;
    on = live(&p, plain, plain, 5000);
    cr_assert_gt(on, 2000, "%d: far away it does not hurt to be ready", on);
}

Test(price, trees_grow_as_far_as_was_measured) {
    struct price p = {0};
    cr_assert_leq(price_cap(&p, 64), 8);
    price_window(&p, 10, 90, 2);
    cr_assert_eq(price_cap(&p, 64), 40);
    price_window(&p, 41, 95, 3);
    cr_assert_eq(price_cap(&p, 64), 64);
}

/* Off, it is on again when what came had been guessed for some tokens; a guess now and then is not enough. */
Test(price, is_on_again_when_guesses_come_true) {
    struct price p = {0};
    for (int i = 0; i < 4; i++) {
        price_window(&p, 1, 20, 1);
        price_plain(&p, 21);
    }
    for (int i = 0; i < 200 && price_on(&p); i++)
        price_token(&p, 40);
    cr_assert_not(price_on(&p));
    for (int i = 0; i < 100; i++)
        price_missed(&p, i % 5 == 0 ? 0.9 : 0);
    cr_assert_not(price_on(&p));
    for (int i = 0; i < 6; i++)
        price_missed(&p, 0.9);
    cr_assert(price_on(&p));
}

/* However well guesses come true: what loses all the same is not tried again and again. */
Test(price, luck_that_loses_is_not_trusted) {
    struct price p = {0};
    seed = 9;
    watch(&p, &wan, 30);
    int on = 0;
    for (int i = 0; i < 10000; i++) {
        on += price_on(&p);
        price_token(&p, price_on(&p) ? 1.1 * p.plain_ms : p.plain_ms);
        price_missed(&p, 0.9);
    }
    cr_assert(on > 20 && on < 800, "%d of 10000 tokens", on);
    for (int i = 0; i < 10000 && !price_on(&p); i++)
        price_token(&p, p.plain_ms);
    for (int i = 0; i < 100; i++)
        price_token(&p, 0.5 * p.plain_ms); /* now it gains, */
    cr_assert(price_on(&p));
    for (int i = 0; i < 30 && price_on(&p); i++)
        price_token(&p, 2 * p.plain_ms);
    cr_assert_not(price_on(&p));
    for (int i = 0; i < 6; i++)
        price_missed(&p, 0.9); /* and luck is believed again */
    cr_assert(price_on(&p));
}
