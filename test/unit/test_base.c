/* core/base: errors, cursors and buffers, the pool. */
#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/pool.h"
#include "core/base/thread.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

Test(err, first_error_wins) {
    struct err e = {0};
    cr_assert_eq(err_set(&e, ERR_IO, "first %d", 1), -1);
    cr_assert_eq(err_set(&e, ERR_PEER, "second"), -1);
    cr_assert_eq(e.kind, ERR_IO);
    cr_assert_str_eq(e.msg, "first 1");
    err_wrap(&e, "reading %s", "x");
    cr_assert_str_eq(e.msg, "reading x: first 1");
}

Test(err, long_messages_are_cut_not_overrun) {
    struct err e = {0};
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    err_set(&e, ERR_IO, "%s", big);
    err_wrap(&e, "%s", big);
    cr_assert_eq(strlen(e.msg), sizeof e.msg - 1);
}

Test(err, hostile_names_cannot_drive_the_terminal) {
    struct err e = {0};
    err_set(&e, ERR_MODEL, "tensor %s",
            "a\033[2Jb\rc\xc2\x9b"
            "d\x7f \xc3\xa9\n");
    cr_assert_str_eq(e.msg, "tensor a?[2Jb?c??d? \xc3\xa9\n");
}

Test(rbuf, failure_is_sticky) {
    uint8_t b[5] = {1, 2, 3, 4, 5};
    struct rbuf r = rbuf_of(b, sizeof b);
    cr_assert_eq(rbuf_u32(&r), 0x04030201u);
    cr_assert_eq(rbuf_u16(&r), 0);
    cr_assert(r.bad);
    cr_assert_eq(rbuf_u8(&r), 0, "the byte that is left is not given out after a failure");
    cr_assert_null(rbuf_bytes(&r, SIZE_MAX));
    cr_assert_eq(r.off, 4);
}

Test(wbuf, bound_is_kept) {
    struct wbuf w = {.max = 10};
    wbuf_str(&w, "12345");
    wbuf_fmt(&w, "%d", 67890);
    cr_assert_str_eq(wbuf_cstr(&w), "1234567890");
    wbuf_u8(&w, 'x');
    cr_assert(w.bad);
    cr_assert_eq(w.n, 10);
    wbuf_free(&w);
}

static void add(void *ctx, int item, int worker) {
    atomic_int *v = ctx;
    (void)worker;
    atomic_fetch_add(&v[item], 1);
}

Test(pool, every_item_once) {
    struct err e = {0};
    for (int threads = 1; threads <= 5; threads += 2) {
        struct pool *p;
        cr_assert_eq(pool_create(&p, threads, &e), 0, "%s", e.msg);
        for (int round = 0; round < 300; round++) {
            atomic_int v[97] = {0};
            int n = round % 98;
            pool_run(p, add, v, n);
            for (int i = 0; i < 97; i++)
                cr_assert_eq(v[i], i < n);
        }
        pool_free(p);
    }
}

static void *signals_open_here(void *arg) {
    sigset_t *blocked = arg;
    pthread_sigmask(SIG_SETMASK, NULL, blocked);
    return NULL;
}

Test(thread, takes_no_signal_away_from_the_main_thread) {
    static const int used[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};
    struct err e = {0};
    pthread_t t;
    sigset_t there, here;
    cr_assert_eq(thread_start(&t, signals_open_here, &there, "a test", &e), 0, "%s", e.msg);
    pthread_join(t, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &here);
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
        cr_assert(sigismember(&there, used[i]) == 1);
        cr_assert(sigismember(&here, used[i]) == 0);
    }
}
