#include "gpu/kernel_list.h"
#include "gpu/team.h"
#include "test/gpu/emu/test_kernels.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 4 };

static struct gpu *cards[MOST];
static cu_module modules[MOST];
static int n_cards;

/* Opens so many cards; on a real machine that has fewer, the test is skipped. */
static void open_cards(int n) {
    struct err e = {0};
    int have = 0;
    gpu_rig_prepare(n, 64 << 20);
    cr_assert_eq(gpu_count(&have, &e), 0, "%s", e.msg);
    if (have < n)
        cr_skip_test("this machine has %d cards, and %d are needed", have, n);
    for (int i = 0; i < n; i++)
        cr_assert_eq(gpu_open(&cards[i], i, &e), 0, "%s", e.msg);
    n_cards = n;
}

static void close_cards(void) {
    for (int i = 0; i < n_cards; i++) {
        gpu_enter(cards[i]);
        if (modules[i])
            (void)cards[i]->driver->module_unload(modules[i]);
        gpu_close(cards[i]);
    }
    if (!gpu_rig_real())
        cr_assert_eq(gpu_rig_leaks(), 0);
}

/* Kernel 0 becomes test_load_once: thread t of one block writes in_u[n t] + in_u[n t + 3] to out_u[t]. */
static void load_kernel(void) {
    for (int i = 0; i < n_cards; i++) {
        const struct driver *d = cards[i]->driver;
        gpu_enter(cards[i]);
        cr_assert_eq(d->module_load(&modules[i], NULL), 0);
        cr_assert_eq(d->module_function(&cards[i]->kernels->functions[0], modules[i], "test_load_once"), 0);
    }
}

static struct team *join(void) {
    struct err e = {0};
    struct team *t;
    cr_assert_eq(team_create(&t, cards, n_cards, &e), 0, "%s", e.msg);
    cr_assert_eq(team_size(t), n_cards);
    return t;
}

static void run(struct team *t, int (*fn)(void *, int, struct err *), void *ctx) {
    struct err e = {0};
    cr_assert_eq(team_run(t, fn, ctx, &e), 0, "%s", e.msg);
}

/* Up to so many microseconds, another time for each call: threads come in other orders. */
static void dawdle(unsigned *seed, unsigned most) {
    *seed = *seed * 1664525 + 1013904223;
    struct timespec t = {.tv_nsec = (long)((*seed >> 8) % most) * 1000};
    if (*seed >> 30 != 0) /* or not at all */
        nanosleep(&t, NULL);
}

static void wait_until(atomic_int *flag, int value) {
    struct timespec t = {.tv_nsec = 1000000};
    while (atomic_load(flag) < value)
        nanosleep(&t, NULL);
}

/* Gathers of bytes. */

struct exchange {
    struct team *t;
    struct part {
        cu_ptr buf;
        uint8_t *host;
        cu_graph_exec recording;
        unsigned seed;
        pthread_t thread;
    } parts[MOST];
    size_t bytes;
    int gathers, round; /* so many, one behind the other in the buffer */
    atomic_int arrived;
};
#define ROOM ((size_t)MOST * 60000)

static struct exchange *exchange(struct team *t) {
    static struct exchange x;
    struct err e = {0};
    x.t = t;
    for (int r = 0; r < n_cards; r++) {
        gpu_enter(cards[r]);
        x.parts[r].seed = (unsigned)r + 1;
        x.parts[r].buf = gpu_rig_alloc(cards[r], ROOM);
        cr_assert_eq(gpu_host_alloc(cards[r], (void **)&x.parts[r].host, ROOM, &e), 0, "%s", e.msg);
    }
    gpu_enter(cards[0]);
    return &x;
}

static void forget(struct exchange *x) {
    for (int r = 0; r < n_cards; r++) {
        gpu_enter(cards[r]);
        gpu_forget(cards[r], x->parts[r].recording);
        x->parts[r].recording = NULL;
    }
    gpu_enter(cards[0]);
}

static void end(struct exchange *x) {
    forget(x);
    for (int r = 0; r < n_cards; r++) {
        gpu_enter(cards[r]);
        gpu_free(cards[r], x->parts[r].buf);
        gpu_host_free(cards[r], x->parts[r].host, ROOM);
        cr_assert_eq(cards[r]->failed, 0);
    }
    gpu_enter(cards[0]);
}

static uint8_t byte_of(int rank, int gather, int round, size_t i) {
    return (uint8_t)(i * 7 + i / 251 + (size_t)(rank * 61 + gather * 17 + round * 5));
}

static void enqueue_gathers(struct exchange *x, int rank) {
    size_t all = (size_t)n_cards * x->bytes;
    for (int k = 0; k < x->gathers; k++) {
        dawdle(&x->parts[rank].seed, 50);
        team_gather(x->t, rank, x->parts[rank].buf + (size_t)k * all, x->bytes);
    }
}

static int record(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    gpu_record_begin(cards[rank]);
    enqueue_gathers(x, rank);
    x->parts[rank].recording = gpu_record_end(cards[rank]);
    return gpu_wait(cards[rank], e);
}

static int exchanged(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    struct part *p = &x->parts[rank];
    size_t all = (size_t)n_cards * x->bytes, own = (size_t)rank * x->bytes;
    memset(p->host, 0xee, (size_t)x->gathers * all);
    for (int k = 0; k < x->gathers; k++)
        for (size_t i = 0; i < x->bytes; i++)
            p->host[(size_t)k * all + own + i] = byte_of(rank, k, x->round, i);
    dawdle(&p->seed, 200);
    gpu_copy_to(cards[rank], p->buf, p->host, (size_t)x->gathers * all);
    if (p->recording)
        team_replay(x->t, rank, p->recording);
    else
        enqueue_gathers(x, rank);
    dawdle(&p->seed, 200);
    gpu_copy_from(cards[rank], p->host, p->buf, (size_t)x->gathers * all);
    if (gpu_wait(cards[rank], e) != 0)
        return -1;
    for (int k = 0; k < x->gathers; k++)
        for (int r = 0; r < n_cards; r++)
            for (size_t i = 0; i < x->bytes; i++)
                if (p->host[(size_t)k * all + (size_t)r * x->bytes + i] != byte_of(r, k, x->round, i))
                    return err_set(e, ERR_IO, "rank %d: gather %d of %zu bytes, byte %zu of rank %d is wrong", rank, k,
                                   x->bytes, i, r);
    return 0;
}

static void gather_all(int n) {
    static const size_t sizes[] = {1, 7, 512, 4097, 20000};
    open_cards(n);
    struct team *t = join();
    struct exchange *x = exchange(t);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        x->bytes = sizes[s];
        x->gathers = s == 4 ? 3 : 1 + (int)s;
        for (int i = 0; i < 3; i++, x->round++)
            run(t, exchanged, x);
        run(t, record, x);
        cr_assert(x->parts[n - 1].recording);
        for (int i = 0; i < 8; i++, x->round++)
            run(t, exchanged, x);
        forget(x);
    }
    end(x);
    team_free(t);
    close_cards();
}

Test(gpu_team, one_card_has_what_it_gathers) {
    gather_all(1);
}
Test(gpu_team, two_cards_gather) {
    gather_all(2);
}
Test(gpu_team, three_cards_gather) {
    gather_all(3);
}
Test(gpu_team, four_cards_gather) {
    gather_all(4);
}

static int note_thread(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    x->parts[rank].thread = pthread_self();
    cu_ptr p; /* which only a thread that has entered its card gets */
    if (gpu_alloc(cards[rank], &p, 100, "a test", e) != 0)
        return -1;
    gpu_free(cards[rank], p);
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, each_card_keeps_its_thread_and_the_caller_is_the_first) {
    open_cards(3);
    struct team *t = join();
    struct exchange *x = exchange(t);
    pthread_t before[MOST];
    for (int i = 0; i < 5; i++) {
        run(t, note_thread, x);
        cr_assert(pthread_equal(x->parts[0].thread, pthread_self()));
        for (int r = 1; r < 3; r++) {
            cr_assert(i == 0 || pthread_equal(x->parts[r].thread, before[r]));
            cr_assert(!pthread_equal(x->parts[r].thread, x->parts[r - 1].thread));
            before[r] = x->parts[r].thread;
        }
    }
    end(x);
    team_free(t);
    close_cards();
}

/* Kernels between gathers: each reads what all cards wrote before and writes its own block of the other buffer. */

enum { WORDS = 64, BACK = MOST * WORDS * 4 }; /* a card's block; where the second buffer lies */

static void one_step(struct exchange *x, int rank, size_t from, size_t to) {
    cu_ptr buf = x->parts[rank].buf;
    struct test_args a = {.in_u = GPU_AT(uint32_t, buf + from + (size_t)rank * 16),
                          .out_u = GPU_AT(uint32_t, buf + to + (size_t)rank * WORDS * 4),
                          .n = 4};
    gpu_launch(cards[rank], 0, 1, 1, 1, (unsigned)(16 * n_cards - 4), 0, &a);
    team_gather(x->t, rank, buf + to, (size_t)WORDS * 4);
}

static int two_steps(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    one_step(x, rank, 0, BACK);
    one_step(x, rank, BACK, 0);
    return cards[rank]->recording ? 0 : gpu_wait(cards[rank], e);
}

static int record_two_steps(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    gpu_record_begin(cards[rank]);
    (void)two_steps(ctx, rank, e);
    x->parts[rank].recording = gpu_record_end(cards[rank]);
    return gpu_wait(cards[rank], e);
}

/* Several passes are under way at once, as far as cards are concerned. */
static int replay_two_steps(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    for (int i = 0; i < 10; i++) {
        dawdle(&x->parts[rank].seed, 100);
        team_replay(x->t, rank, x->parts[rank].recording);
    }
    return gpu_wait(cards[rank], e);
}

static void expected_steps(uint32_t words[2][MOST * WORDS], int n) {
    for (int s = 0; s < 2 * n; s++)
        for (int r = 0; r < n_cards; r++)
            for (int t = 0; t < 16 * n_cards - 4; t++) {
                const uint32_t *from = words[s % 2] + 4 * r + 4 * t;
                words[1 - s % 2][r * WORDS + t] = from[0] + from[3];
            }
}

Test(gpu_team, steps_and_gathers_keep_their_order) {
    gpu_rig_needs_emulated_card();
    uint32_t words[2][MOST * WORDS] = {{0}}, got[2][MOST * WORDS];
    open_cards(4);
    load_kernel();
    struct team *t = join();
    struct exchange *x = exchange(t);
    for (uint32_t i = 0; i < MOST * WORDS; i++)
        words[0][i] = i * 2654435761u;
    for (int r = 0; r < n_cards; r++) {
        gpu_enter(cards[r]);
        gpu_rig_write(cards[r], x->parts[r].buf, words, sizeof words);
    }
    for (int i = 0; i < 3; i++)
        run(t, two_steps, x);
    run(t, record_two_steps, x);
    for (int i = 0; i < 10; i++)
        run(t, replay_two_steps, x);
    expected_steps(words, 103);
    for (int r = 0; r < n_cards; r++) {
        gpu_enter(cards[r]);
        gpu_rig_read(cards[r], got, x->parts[r].buf, sizeof got);
        cr_assert_eq(memcmp(got, words, sizeof got), 0, "card %d", r);
    }
    end(x);
    team_free(t);
    close_cards();
}

/* Failures. */

static void fails(struct team *t, int (*fn)(void *, int, struct err *), void *ctx, const char *text) {
    struct err e = {0};
    cr_assert_eq(team_run(t, fn, ctx, &e), -1);
    cr_assert_neq(e.kind, ERR_NONE);
    cr_assert(strstr(e.msg, text), "%s", e.msg);
}

static int rank_1_fails(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    return rank == 1 ? err_set(e, ERR_MEMORY, "rank 1 of %d has failed", team_size(x->t)) : 0;
}

Test(gpu_team, a_failure_before_any_gather_leaves_the_team_as_it_was) {
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    x->bytes = 1000;
    x->gathers = 2;
    run(t, record, x);
    for (int i = 0; i < 3; i++) {
        fails(t, rank_1_fails, x, "rank 1 of 2 has failed");
        run(t, exchanged, x);
    }
    end(x);
    team_free(t);
    close_cards();
}

/* Rank 1 fails once the others have enqueued theirs, before its own. */
static int rank_1_fails_late(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    if (rank == 1) {
        wait_until(&x->arrived, n_cards - 1);
        dawdle(&x->parts[1].seed, 3000);
        return rank_1_fails(ctx, rank, e);
    }
    if (x->parts[rank].recording)
        team_replay(x->t, rank, x->parts[rank].recording);
    else
        enqueue_gathers(x, rank);
    atomic_fetch_add(&x->arrived, 1);
    dawdle(&x->parts[rank].seed, 3000);
    return gpu_wait(cards[rank], e);
}

static void breaks(int n, bool replayed) {
    open_cards(n);
    for (int i = 0; i < 3; i++) {
        struct team *t = join();
        struct exchange *x = exchange(t);
        x->bytes = 1000;
        x->gathers = 2;
        x->arrived = 0;
        if (replayed)
            run(t, record, x);
        fails(t, rank_1_fails_late, x, "rank 1 of");
        fails(t, exchanged, x, "no longer work together");
        fails(t, exchanged, x, "rank 1 of");
        end(x);
        team_free(t);
    }
    team_free(join()); /* others can do it */
    close_cards();
}

Test(gpu_team, a_failure_after_a_gather_frees_the_others) {
    breaks(2, false);
}
Test(gpu_team, a_failure_after_a_gather_frees_three_others) {
    breaks(4, false);
}
Test(gpu_team, a_failure_frees_those_who_replay) {
    breaks(3, true);
}

static int rank_1_fails_meanwhile(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    if (rank == 1) {
        wait_until(&x->arrived, 1);
        dawdle(&x->parts[1].seed, 3000);
        return rank_1_fails(ctx, rank, e);
    }
    atomic_fetch_add(&x->arrived, 1);
    team_gather(x->t, 0, x->parts[0].buf, 1000);
    return gpu_wait(cards[0], e);
}

Test(gpu_team, a_call_that_waits_inside_nccl_returns_before_its_clique_is_freed) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    for (int i = 0; i < 4; i++) {
        struct team *t = join();
        struct exchange *x = exchange(t);
        x->arrived = 0;
        gpu_rig_gathers(GATHERS_STICK, 1);
        fails(t, rank_1_fails_meanwhile, x, "rank 1 of 2 has failed");
        gpu_rig_gathers(GATHERS_STICK, 0);
        end(x);
        team_free(t);
    }
    close_cards();
}

/* Rank 0 has been freed and does not know why: what it then enqueues must not reach NCCL, which has no clique any more
 * (the emulated one ends the process). */
static int goes_on(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    if (rank == 1)
        return rank_1_fails_late(ctx, rank, e);
    team_gather(x->t, 0, x->parts[0].buf, 1000);
    atomic_fetch_add(&x->arrived, 1);
    (void)gpu_wait(cards[0], NULL);
    for (int i = 0; i < 3; i++) {
        dawdle(&x->parts[0].seed, 3000);
        team_gather(x->t, 0, x->parts[0].buf, 1000);
        x->round = gpu_wait(cards[0], e);
    }
    return 0; /* as if all were well */
}

Test(gpu_team, a_card_that_goes_on_after_another_has_failed_gathers_nothing) {
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    x->arrived = 0;
    fails(t, goes_on, x, "rank 1 of 2 has failed");
    cr_assert_eq(x->round, -1, "the last gather was refused");
    x->round = 0;
    end(x);
    team_free(t);
    close_cards();
}

/* A rank fails anywhere: nobody hangs, the failure is told, and what was not broken goes on. */
struct mishap {
    struct exchange *x;
    int rank, after; /* gathers */
};
static int fails_somewhere(void *ctx, int rank, struct err *e) {
    struct mishap *m = ctx;
    struct exchange *x = m->x;
    for (int k = 0; k < 4; k++) {
        dawdle(&x->parts[rank].seed, 300);
        if (rank == m->rank && k == m->after)
            return err_set(e, ERR_MEMORY, "rank %d has failed after %d gathers", rank, k);
        team_gather(x->t, rank, x->parts[rank].buf, x->bytes);
    }
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, a_failure_at_any_time_is_told_and_hangs_nobody) {
    gpu_rig_needs_emulated_card();
    open_cards(3);
    struct team *t = NULL;
    for (int i = 0; i < 12; i++) {
        struct err e = {0};
        char text[64];
        if (!t)
            t = join();
        struct mishap m = {exchange(t), i % 3, i / 3 % 4};
        for (int r = 0; r < 3; r++)
            m.x->parts[r].seed += (unsigned)i * 77;
        m.x->bytes = 100;
        m.x->gathers = 1;
        snprintf(text, sizeof text, "rank %d has failed after %d gathers", m.rank, m.after);
        fails(t, fails_somewhere, &m, text);
        bool usable = team_run(t, exchanged, m.x, &e) == 0;
        cr_assert(usable ? m.after == 0 : strstr(e.msg, "no longer work together") && strstr(e.msg, text), "%s", e.msg);
        end(m.x);
        if (!usable) {
            team_free(t);
            t = NULL;
        }
    }
    team_free(t);
    close_cards();
}

static int kernel_and_gather(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    if (rank == 1)
        wait_until(&x->arrived, 1);
    one_step(x, rank, 0, BACK);
    atomic_fetch_add(&x->arrived, 1);
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, a_card_that_breaks_frees_the_others) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    load_kernel();
    struct team *t = join();
    struct exchange *x = exchange(t);
    x->arrived = 0;
    gpu_rig_break_in(2); /* rank 1's launch is the second */
    fails(t, kernel_and_gather, x, "GPU 1 (Emulated card 1): the steps of a pass: CUDA_ERROR_ILLEGAL_ADDRESS");
    fails(t, kernel_and_gather, x, "no longer work together");
    for (int r = 0; r < 2; r++) {
        gpu_enter(cards[r]);
        gpu_free(cards[r], x->parts[r].buf);
        gpu_host_free(cards[r], x->parts[r].host, ROOM);
    }
    team_free(t);
    close_cards();
}

static int gathers_of_their_own(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    for (int k = 0; k <= rank; k++)
        team_gather(x->t, rank, x->parts[rank].buf, 10);
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, one_that_gathers_more_often_than_another_is_told) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    fails(t, gathers_of_their_own, x, "do not gather alike");
    fails(t, gathers_of_their_own, x, "no longer work together");
    end(x);
    team_free(t);
    close_cards();
}

static int gather_and_wait(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    team_gather(x->t, rank, x->parts[rank].buf, x->bytes);
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, what_nccl_says_of_a_gather_is_told) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    x->bytes = 10;
    gpu_rig_gathers(GATHERS_FAIL, 1);
    fails(t, gather_and_wait, x, "NCCL cannot gather: unhandled cuda error: this call was to fail");
    fails(t, gather_and_wait, x, "no longer work together");
    end(x);
    team_free(t);
    close_cards();
}

Test(gpu_team, what_nccl_finds_on_its_own_is_told) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    x->bytes = 10;
    gpu_rig_gathers(GATHERS_HANG, 1);
    gpu_rig_gathers(GATHERS_LATE_ERROR, 6);
    fails(t, gather_and_wait, x, "has lost the other cards: NCCL: remote process exited");
    end(x);
    team_free(t);
    close_cards();
}

/* Beginnings that fail. */

static void no_team(int patience_ms, const char *text) {
    struct err e = {0};
    struct team *t;
    cr_assert_eq(team_create_within(&t, cards, n_cards, patience_ms, &e), -1);
    cr_assert_null(t);
    cr_assert(strstr(e.msg, text), "%s", e.msg);
    cr_assert(strstr(e.msg, "GPU 0 (Emulated card 0), GPU 1 (Emulated card 1) cannot work together"), "%s", e.msg);
    cr_assert_eq(cards[0]->failed, 0);
}

Test(gpu_team, cards_that_cannot_be_connected) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    gpu_rig_gathers(GATHERS_FAIL, 1);
    no_team(60000, "NCCL: unhandled cuda error: this call was to fail");
    for (int n = 2; n < 10; n++) { /* gathers of the check */
        gpu_rig_gathers(GATHERS_FAIL, n);
        no_team(60000, "NCCL cannot gather: unhandled cuda error");
    }
    struct gpu *same[] = {cards[0], cards[0]};
    struct err e = {0};
    struct team *t;
    cr_assert_eq(team_create(&t, same, 2, &e), -1);
    cr_assert(strstr(e.msg, "Duplicate GPU detected"), "%s", e.msg);
    gpu_rig_gathers(GATHERS_FAIL, 0);
    team_free(join());
    close_cards();
}

Test(gpu_team, cards_that_do_not_hear_each_other) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    for (int n = 1; n <= 6; n++) { /* launched and replayed, twice, of two sizes */
        gpu_rig_gathers(GATHERS_GARBLE, n);
        no_team(60000, "does not get what GPU");
    }
    gpu_rig_gathers(GATHERS_GARBLE, 0);
    for (int n = 1; n <= 3; n += 2) {
        gpu_rig_gathers(GATHERS_HANG, n);
        no_team(300, "they do not answer each other");
    }
    gpu_rig_gathers(GATHERS_HANG, 0);
    team_free(join());
    close_cards();
}

Test(gpu_team, a_gather_that_does_not_come_ends_its_pass) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    struct err e = {0};
    struct team *t;
    cr_assert_eq(team_create_within(&t, cards, 2, 300, &e), 0, "%s", e.msg);
    struct exchange *x = exchange(t);
    x->bytes = 10;
    run(t, gather_and_wait, x);
    gpu_rig_gathers(GATHERS_HANG, 1);
    cr_assert_eq(team_run(t, gather_and_wait, x, &e), -1);
    cr_assert(strstr(e.msg, "they do not answer each other"), "%s", e.msg);
    gpu_rig_gathers(GATHERS_HANG, 0);
    end(x);
    team_free(t);
    close_cards();
}

/* One rank begins when the other would long be done: nobody is further ahead than the team lets him. */
static atomic_int n_ahead, most_ahead;
static int far_apart(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    for (int i = 0; i < 100; i++) {
        if (rank == 1 && i % 10 == 0) {
            struct timespec pause = {.tv_nsec = 2000000};
            nanosleep(&pause, NULL);
        }
        team_gather(x->t, rank, x->parts[rank].buf, 64);
        int d = rank == 0 ? ++n_ahead : --n_ahead;
        if (d > most_ahead)
            most_ahead = d;
    }
    return gpu_wait(cards[rank], e);
}

Test(gpu_team, nobody_gets_far_ahead) {
    open_cards(2);
    struct team *t = join();
    struct exchange *x = exchange(t);
    n_ahead = most_ahead = 0;
    run(t, far_apart, x);
    cr_assert(most_ahead > 0 && most_ahead <= 10, "%d gathers", (int)most_ahead);
    end(x);
    team_free(t);
    close_cards();
}

/* Memory, copies and recordings of the check. */
Test(gpu_team, any_step_of_the_beginning_may_fail) {
    gpu_rig_needs_emulated_card();
    open_cards(2);
    struct err e = {0};
    struct team *t = NULL;
    int n = 1;
    for (; n < 50 && !t; n++) {
        e = (struct err){0};
        gpu_rig_fail_in(n);
        if (team_create(&t, cards, 2, &e) != 0)
            cr_assert(strstr(e.msg, "cannot work together"), "%s", e.msg);
    }
    gpu_rig_fail_in(0);
    cr_assert(n > 8 && t, "%d", n);
    team_free(t);
    close_cards();
}

Test(gpu_team, no_nccl) {
    struct err e = {0};
    struct team *t;
    open_cards(2);
    setenv("SPLITINF_LIBNCCL", "/nowhere/libnccl.so.2", 1);
    cr_assert_eq(team_create(&t, cards, 2, &e), -1);
    cr_assert_null(t);
    cr_assert_eq(e.kind, ERR_DEVICE);
    cr_assert(strstr(e.msg, "/nowhere/libnccl.so.2 cannot be opened"), "%s", e.msg);
    close_cards();
}

static int alone(void *ctx, int rank, struct err *e) {
    struct exchange *x = ctx;
    x->parts[0].thread = pthread_self();
    team_gather(x->t, rank, x->parts[0].buf, 1000);
    return gpu_wait(cards[0], e) == 0 && x->round < 0 ? err_set(e, ERR_IO, "alone") : 0;
}

Test(gpu_team, one_card_needs_no_nccl) {
    open_cards(1);
    setenv("SPLITINF_LIBNCCL", "/nowhere/libnccl.so.2", 1);
    struct team *t = join();
    struct exchange *x = exchange(t);
    run(t, alone, x);
    cr_assert(pthread_equal(x->parts[0].thread, pthread_self()));
    x->round = -1;
    fails(t, alone, x, "alone");
    x->round = 0;
    run(t, alone, x);
    end(x);
    team_free(t);
    team_free(NULL);
    close_cards();
}
