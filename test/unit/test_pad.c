/* core/decode/pad: what an observer of the network can and cannot tell, with real records of a real connection; and
 * that the text stays what it is. */
#include "core/base/clock.h"
#include "core/decode/speculate_impl.h"
#include "test/unit/observer.h"
#include "test/unit/oracle.h"
#include "test/unit/remote_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PROMPT = 21, ANSWER = 40, PAD = 12, PING_BYTES = 64, PAD_IDS = 16 };

struct watched {
    struct remote_rig r;
    struct observer net;
    struct oracle oracle;
    uint32_t truth[TOY_CTX];
    uint32_t prompt;
    int nodes;        /* of a tree; 0: as many as a session takes */
    int before, from; /* records before the prompt, and before the answer */
};

static void watch(struct watched *w, enum session_mode mode, double accuracy, int rows, double tick_ms) {
    struct remote_rig *r = &w->r;
    struct err e = {0};
    w->oracle = (struct oracle){
        .truth = w->truth, .n_truth = TOY_CTX, .vocab = TOY_VOCAB, .accuracy = accuracy, .width = 2, .seed = 5};
    r->speculation = (struct session_speculation){.mode = mode,
                                                  .drafter = oracle_drafter(&w->oracle),
                                                  .max_nodes = w->nodes,
                                                  .pad_rows = rows,
                                                  .pad_ms = tick_ms};
    r->o.pad_ids = rows ? session_pad_ids(rows, RIG_ROWS) : 0;
    remote_rig_connect(r);
    w->before = observer_count(&w->net);
    cr_assert_eq(session_feed(r->session, w->truth, w->prompt, NULL, NULL, &e), 0, "%s", e.msg);
    w->from = observer_count(&w->net);
}

static void tell(struct watched *w, int n) {
    struct err e = {0};
    for (int i = (int)w->prompt; i < (int)w->prompt + n; i++) {
        cr_assert_eq(session_advance(w->r.session, w->truth[i], &e), 0, "%s", e.msg);
        toy_check(w->r.session, w->truth, i + 1);
    }
}

static void up(struct watched *w, double rtt_ms, double jitter_ms) {
    w->prompt = PROMPT;
    toy_fill(w->truth, TOY_CTX, 91);
    remote_rig_init(&w->r);
    toy_cloud_stop(&w->r, 0);
    w->r.cloud[0].o.batch.max_rows = 8 * PAD; /* windows that come together are one pass, none of them cut */
    toy_cloud_start(&w->r, 0);
    link_set(w->r.link[0], rtt_ms, jitter_ms, 0);
    observer_start(&w->net, link_port(w->r.link[0]));
    snprintf(w->r.address[0], sizeof w->r.address[0], "127.0.0.1:%u", w->net.port);
}

static void down(struct watched *w) {
    remote_rig_disconnect(&w->r);
    observer_stop(&w->net);
    remote_rig_free(&w->r);
}

/* Windows in a record of so many bytes: one, or some that were written together because this machine was late, perhaps
 * with PINGs. A window for the clock alone that was cancelled before the cloud came to it has an empty RESULT. TLS pads
 * to 16 bytes. 0: something else is in it. */
static int windows_in(int bytes, bool up) {
    enum {
        PING = 5 + 8,
        SUBMIT = 5 + 12 + PAD_IDS * 4 + PAD * (12 + 8),
        EMPTY = 5 + 16,
        RESULT = EMPTY + PAD * (4 + 8)
    };
    for (int k = 1; k <= 4; k++)
        for (int pings = 0; pings < 3; pings++)
            for (int empty = 0; empty <= (up ? 0 : 4); empty++) {
                int all = k * (up ? SUBMIT : RESULT) + pings * PING + empty * EMPTY;
                if (bytes == (all + 1 + 15) / 16 * 16 + 16)
                    return k;
            }
    return 0;
}

/* Records that carry windows, of one direction, since the answer began. */
static int windows(struct watched *w, bool up, struct seen_record *out) {
    int n = 0;
    pthread_mutex_lock(&w->net.lock);
    for (int i = w->from; i < w->net.n; i++)
        if (w->net.record[i].up == up && w->net.record[i].bytes > PING_BYTES)
            out[n++] = w->net.record[i];
    pthread_mutex_unlock(&w->net.lock);
    return n;
}

/* The same, where each has to have the size of padded ones. The first that goes up brings the prompt's commits. What
 * was sent last may not have passed the observer yet. */
static int padded_windows(struct watched *w, bool up, struct seen_record *out) {
    const struct session_stats *st = session_stats(w->r.session);
    int n, seen, all = (int)(st->steps + st->ticks_idle), least = up ? all : (int)st->steps;
    double until = clock_ms() + 10000;
    do {
        usleep(1000);
        n = windows(w, up, out);
        seen = up && n > 0;
        for (int i = up; i < n; i++) {
            int k = windows_in(out[i].bytes, up);
            cr_assert_gt(k, 0, "%s %d of %d: %d bytes", up ? "window" : "result", i, n, out[i].bytes);
            seen += k;
        }
    } while (seen < least && clock_ms() < until);
    cr_assert(seen >= least && seen <= all, "%s: %d of %d", up ? "windows" : "results", seen, all);
    return n;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How far windows are from a clock that ticks every tick_ms: the median, for any single one may be late on a machine
 * that has other things to do. */
static double off_the_beat(const struct seen_record *x, int n, double tick_ms) {
    double off[OBSERVER_RECORDS];
    cr_assert_gt(n, 3);
    for (int i = 1; i < n; i++) {
        double gap = (x[i].ms - x[i - 1].ms) / tick_ms;
        off[i - 1] = fabs(gap - (round(gap) < 1 ? 1 : round(gap))) * tick_ms;
    }
    qsort(off, (size_t)n - 1, sizeof *off, by_size);
    return off[(n - 1) / 2];
}

Test(pad, sizes_tell_nothing) {
    static struct seen_record x[OBSERVER_RECORDS];
    static struct watched w;
    up(&w, 4, 1);
    for (int m = 0; m < N_SESSION_MODES; m++)
        for (int a = 0; a < (m == SESSION_STOP_AND_WAIT ? 3 : 1); a++) {
            watch(&w, (enum session_mode)m, a == 0 ? 0.9 : a == 1 ? 0.4 : 0, PAD, 12);
            tell(&w, ANSWER);
            padded_windows(&w, false, x);
            padded_windows(&w, true, x);
            remote_rig_disconnect(&w.r);
        }
    down(&w);
}

/* The measurement is one that fails: without padding the same conversation shows what was accepted. */
Test(pad, without_it_sizes_tell) {
    static struct seen_record x[OBSERVER_RECORDS];
    static struct watched w;
    int different = 0;
    up(&w, 2, 0);
    w.nodes = PAD - 1;
    watch(&w, SESSION_STOP_AND_WAIT, 0.5, 0, 0);
    tell(&w, ANSWER);
    int n = windows(&w, true, x);
    cr_assert_gt(n, 8);
    for (int i = 2; i < n; i++)
        different += x[i].bytes != x[1].bytes;
    cr_assert_gt(different, 0);
    down(&w);
}

/* Prompts that end in the same window look alike, and so do the first windows of their answers. */
Test(pad, the_length_of_a_prompt_shows_in_windows_only) {
    static struct seen_record x[OBSERVER_RECORDS];
    static struct watched w;
    int want[3] = {0}, total = 0; /* two windows of the prompt, and one of the answer */
    up(&w, 2, 0);
    for (w.prompt = RIG_ROWS + 1; w.prompt <= 2 * RIG_ROWS; w.prompt += 3) {
        watch(&w, SESSION_STOP_AND_WAIT, 0, PAD, 5000);
        tell(&w, 1);
        w.from = w.before;
        int n = windows(&w, true, x);
        cr_assert_eq(n, 3, "%d", n);
        for (int i = 0; i < 3; i++) {
            want[i] = want[i] ? want[i] : x[i].bytes;
            cr_assert_eq(x[i].bytes, want[i], "prompt of %u, window %d: %d bytes, and %d of another", w.prompt, i,
                         x[i].bytes, want[i]);
            total += x[i].bytes;
        }
        cr_assert_eq(slot_pool_left(w.r.session->pool) + kv_table_live(w.r.session->table) + w.prompt + 1,
                     slot_pool_size(w.r.session->pool));
        remote_rig_disconnect(&w.r);
    }
    cr_assert_gt(total, 0);
    down(&w);
}

/* Watches an answer of which guesses are right now and then: are its windows on the beat of a clock? On a machine that
 * has other things to do it may take some attempts, and one that sends whenever it likes never gets there. tick_ms 0:
 * the one that it chooses, which it is asked for. */
static void keeps_time(struct watched *w, double rtt_ms, double tick_ms, int tokens) {
    static struct seen_record x[OBSERVER_RECORDS];
    double off = 0, tick = tick_ms;
    up(w, rtt_ms, 1);
    for (int attempt = 0; attempt < 12; attempt++) {
        if (attempt > 0)
            remote_rig_disconnect(&w->r);
        watch(w, SESSION_STOP_AND_WAIT, 0.4, PAD, tick_ms);
        tell(w, tokens);
        int n = padded_windows(w, true, x), from = tick_ms > 0 ? 1 : 5;
        tick = w->r.session->spec->pad.tick_ms;
        cr_assert_gt(n, from + 5);
        off = off_the_beat(x + from, n - from, tick);
        cr_log_info("a window every %.0f ms; %.1f ms off the beat", tick, off);
        if (off < tick / 6)
            return;
    }
    cr_assert(false, "%.1f ms off a beat of %.0f", off, tick);
}

Test(pad, times_tell_nothing) {
    static struct watched w;
    keeps_time(&w, 6, 40, ANSWER / 2);
    down(&w);
}

/* When results stay away, the clock goes on; and what it sent for its own sake does not stay in anyone's KV. */
Test(pad, a_tick_without_a_result_has_a_window_too) {
    static struct watched w;
    struct err e = {0};
    keeps_time(&w, 90, 40, ANSWER / 2);
    const struct session_stats *st = session_stats(w.r.session);
    cr_assert_gt(st->ticks_idle, st->steps / 2, "%lu idle, %lu steps", (unsigned long)st->ticks_idle,
                 (unsigned long)st->steps);
    cr_assert_eq(session_feed(w.r.session, w.truth, PROMPT + 5, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(session_feed(w.r.session, w.truth, PROMPT + 5, NULL, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(kv_table_live(w.r.session->table), 0); /* what filled the prompt's window up is gone as well */
    cr_assert_eq(slot_pool_left(w.r.session->pool), slot_pool_size(w.r.session->pool) - (PROMPT + 5));
    cr_assert_eq(w.r.events[REMOTE_LOST], 0, "%s", w.r.last[REMOTE_LOST]);
    down(&w);
}

/* Left to itself it finds a tick that it can keep. */
Test(pad, the_tick_is_measured) {
    static struct watched w;
    keeps_time(&w, 30, 0, ANSWER);
    double tick = w.r.session->spec->pad.tick_ms;
    cr_assert(tick >= 30 && tick < 500, "%.1f", tick);
    down(&w);
}

/* Cut off in the middle of it, and to the end of the context. */
Test(pad, through_losses_and_to_the_end) {
    static struct watched w;
    up(&w, 2, 0);
    for (uint64_t at = 300; at < 30000; at = at * 2 + 1) {
        watch(&w, at % 2 ? SESSION_STOP_AND_WAIT : SESSION_LOOKAHEAD, 0.8, PAD, 3);
        link_cut_after(w.r.link[0], at % 4 < 2, at);
        tell(&w, TOY_CTX - PROMPT);
        link_cut_after(w.r.link[0], true, 0);
        link_cut_after(w.r.link[0], false, 0);
        remote_rig_disconnect(&w.r);
    }
    cr_assert_geq(w.r.events[REMOTE_LOST], 2);
    down(&w);
}

Test(pad, too_many_rows_are_refused) {
    struct remote_rig r;
    struct err e = {0};
    struct session *s;
    remote_rig_init(&r);
    cr_assert_eq(remote_middle_create(&r.middle, &r.o, &e), 0, "%s", e.msg);
    struct session_opts so = {.front = &r.front,
                              .back = &r.back,
                              .middle = r.middle,
                              .kv_type = DT_F16,
                              .max_ctx = TOY_CTX,
                              .max_rows = RIG_ROWS,
                              .speculation = {.pad_rows = RIG_ROWS + 1}};
    cr_assert_eq(session_create(&s, &so, &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
    remote_rig_free(&r);
}
