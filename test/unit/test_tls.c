/* net/tls: real handshakes, good and bad, with both ends in one thread. */
#include "net/tls.h"
#include "test/unit/tls_rig.h"

#include <criterion/criterion.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool says(const struct err *e, const char *text) {
    if (strstr(e->msg, text))
        return true;
    fprintf(stderr, "'%s' does not say '%s'\n", e->msg, text);
    return false;
}

static const char *pin_text(const struct identity *id) {
    static char text[PIN_TEXT];
    pin_format(identity_pin(id), text);
    return text;
}

static void must_shake(struct tls_rig *r) {
    tls_rig_handshake(r);
    cr_assert_eq(r->client.status, TLS_DONE, "%s", r->client.e.msg);
    cr_assert_eq(r->server.status, TLS_DONE, "%s", r->server.e.msg);
}

/* Writes all of it at one end and reads it at the other. */
static void say(struct tls_rig *r, struct tls_rig_end *from, struct tls_rig_end *to, const char *text) {
    char got[64] = "";
    size_t n = 0, len = strlen(text);
    struct err e = {0};
    cr_assert_eq(tls_write(from->t, text, len, &n, &e), TLS_DONE, "%s", e.msg);
    cr_assert_eq(n, len);
    while (tls_rig_carry(r))
        continue;
    cr_assert_eq(tls_read(to->t, got, sizeof got, &n, &e), TLS_DONE, "%s", e.msg);
    cr_assert(n == len && memcmp(got, text, n) == 0);
    cr_assert_eq(tls_read(to->t, got, sizeof got, &n, &e), TLS_WANT_READ);
}

Test(tls, two_machines_that_know_each_other) {
    struct tls_rig r;
    tls_rig_open(&r);
    cr_assert_null(tls_peer_pin(r.client.t));
    must_shake(&r);
    cr_assert(r.client.asked == 1 && r.server.asked == 1);
    cr_assert(pin_equal(tls_peer_pin(r.client.t), identity_pin(r.server.id)));
    cr_assert(pin_equal(tls_peer_pin(r.server.t), identity_pin(r.client.id)));
    cr_assert_str_eq(tls_suite(r.client.t), tls_suite(r.server.t));
    cr_assert_eq(tls_handshake(r.client.t, &r.client.e), TLS_DONE, "asked again, it is still done");
    cr_assert_eq(r.client.asked, 1);
    say(&r, &r.client, &r.server, "up");
    say(&r, &r.server, &r.client, "down");
    uint64_t sent, received;
    tls_traffic(r.client.t, &sent, &received);
    cr_assert(sent == r.up.passed && received == r.down.passed);
    tls_rig_close(&r);
}

Test(tls, the_suite_is_the_one_that_this_cpu_is_good_at) {
    struct tls_rig r;
    char line[8192];
    bool aes = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        cr_skip_test("there is no /proc/cpuinfo");
    while (fgets(line, sizeof line, f))
        if ((strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0) && strstr(line, " aes"))
            aes = true;
    fclose(f);
    tls_rig_open(&r);
    must_shake(&r);
    cr_assert_str_eq(tls_suite(r.client.t), aes ? "TLS1-3-AES-128-GCM-SHA256" : "TLS1-3-CHACHA20-POLY1305-SHA256");
    tls_rig_close(&r);
}

Test(tls, the_client_expects_another_cloud) {
    struct tls_rig r;
    tls_rig_open(&r);
    r.client.expected.sha256[31] ^= 1;
    tls_rig_handshake(&r);
    cr_assert(r.client.status == TLS_FAILED && r.client.e.kind == ERR_CRYPTO);
    cr_assert(says(&r.client.e, pin_text(r.server.id)));
    cr_assert(r.server.status == TLS_FAILED && r.server.e.kind == ERR_CRYPTO);
    cr_assert(says(&r.server.e, "does not take this cloud's pin") && says(&r.server.e, pin_text(r.server.id)));
    cr_assert_null(tls_peer_pin(r.server.t), "the client has not shown its key to a cloud that it does not know");
    cr_assert_eq(r.server.asked, 0);
    struct err e = {0};
    size_t n;
    char c;
    cr_assert_eq(tls_handshake(r.client.t, &e), TLS_FAILED);
    cr_assert_eq(tls_write(r.client.t, "x", 1, &n, &e), TLS_FAILED);
    cr_assert_eq(tls_read(r.client.t, &c, 1, &n, &e), TLS_FAILED);
    cr_assert_not(tls_pending(r.client.t));
    tls_close_notify(r.client.t);
    tls_rig_close(&r);
}

/* What the client hears of its refusal: at a read, and at a write into a connection that the cloud has closed. */
static void refused_client(bool gone, bool write_first) {
    struct tls_rig r;
    struct err e = {0};
    size_t n;
    char c;
    enum tls_status st = TLS_DONE;
    tls_rig_open(&r);
    r.server.expected.sha256[0] ^= 1;
    tls_rig_handshake(&r);
    cr_assert(r.server.status == TLS_FAILED && r.server.e.kind == ERR_CRYPTO);
    cr_assert(says(&r.server.e, "--allow ") && says(&r.server.e, pin_text(r.client.id)));
    cr_assert(pin_equal(tls_peer_pin(r.server.t), identity_pin(r.client.id)), "for the log");
    cr_assert_eq(r.client.status, TLS_DONE, "it may not know yet");
    if (gone) {
        while (tls_rig_carry(&r))
            continue;
        close(r.client.wire);
        r.client.wire = -1;
    }
    if (write_first)
        st = tls_write(r.client.t, "HELLO", 5, &n, &e);
    if (st == TLS_DONE)
        st = tls_read(r.client.t, &c, 1, &n, &e);
    cr_assert(st == TLS_FAILED && e.kind == ERR_CRYPTO, "%s", e.msg);
    cr_assert(says(&e, "does not allow this machine") && says(&e, pin_text(r.client.id)));
    tls_rig_close(&r);
}

Test(tls, the_cloud_does_not_allow_the_client) {
    refused_client(false, false);
    refused_client(false, true);
    refused_client(true, false);
    refused_client(true, true);
}

/* Anybody on the way can send an alert in the clear: it must not pass for a refusal, after which nobody would try
 * again. */
Test(tls, a_refusal_that_is_not_the_clouds) {
    struct tls_rig r;
    tls_rig_open(&r);
    tls_rig_step(&r.client);
    cr_assert_eq(send(r.client.wire, "\x15\x03\x03\x00\x02\x02\x31", 7, MSG_NOSIGNAL), 7);
    tls_rig_step(&r.client);
    cr_assert_eq(r.client.status, TLS_FAILED);
    cr_assert(r.client.e.kind == ERR_PEER && says(&r.client.e, "alert 49"));
    tls_rig_close(&r);
}

Test(tls, the_cloud_is_gone_after_the_handshake) {
    struct tls_rig r;
    struct err e = {0};
    size_t n;
    char c;
    tls_rig_open(&r);
    must_shake(&r);
    close(r.client.wire);
    r.client.wire = -1;
    cr_assert_eq(tls_read(r.client.t, &c, 1, &n, &e), TLS_FAILED);
    cr_assert(e.kind == ERR_IO && says(&e, "perhaps the cloud does not allow this machine"));
    tls_rig_renew(&r);
    must_shake(&r);
    say(&r, &r.server, &r.client, "hello");
    close(r.client.wire);
    r.client.wire = -1;
    e = (struct err){0};
    cr_assert_eq(tls_read(r.client.t, &c, 1, &n, &e), TLS_FAILED);
    cr_assert(e.kind == ERR_IO && !strstr(e.msg, "perhaps"), "%s", e.msg);
    e = (struct err){0};
    cr_assert_eq(tls_write(r.server.t, "x", 1, &n, &e), TLS_DONE);
    close(r.server.wire);
    r.server.wire = -1;
    cr_assert_eq(tls_write(r.server.t, "x", 1, &n, &e), TLS_FAILED);
    cr_assert_eq(e.kind, ERR_IO, "and no SIGPIPE: %s", e.msg);
    tls_rig_close(&r);
}

Test(tls, what_was_sent_can_be_read_after_a_write_failed) {
    struct tls_rig r;
    struct err e = {0};
    size_t n;
    char got[16];
    tls_rig_open(&r);
    must_shake(&r);
    cr_assert_eq(tls_write(r.server.t, "draining", 8, &n, &e), TLS_DONE);
    while (tls_rig_carry(&r))
        continue;
    close(r.client.wire);
    r.client.wire = -1;
    cr_assert_eq(tls_write(r.client.t, "x", 1, &n, &e), TLS_FAILED);
    cr_assert_eq(e.kind, ERR_IO);
    cr_assert_eq(tls_write(r.client.t, "x", 1, &n, &e), TLS_FAILED);
    e = (struct err){0};
    cr_assert_eq(tls_read(r.client.t, got, sizeof got, &n, &e), TLS_DONE, "%s", e.msg);
    cr_assert(n == 8 && memcmp(got, "draining", 8) == 0);
    cr_assert_eq(tls_read(r.client.t, got, sizeof got, &n, &e), TLS_FAILED);
    tls_rig_close(&r);
}

Test(tls, goodbye) {
    struct tls_rig r;
    struct err e = {0};
    size_t n;
    char c[8];
    tls_rig_open(&r);
    must_shake(&r);
    cr_assert_eq(tls_write(r.client.t, "last", 4, &n, &e), TLS_DONE);
    tls_close_notify(r.client.t);
    while (tls_rig_carry(&r))
        continue;
    cr_assert_eq(tls_read(r.server.t, c, 2, &n, &e), TLS_DONE);
    cr_assert_eq(n, 2);
    cr_assert(tls_pending(r.server.t));
    cr_assert_eq(tls_read(r.server.t, c, sizeof c, &n, &e), TLS_DONE);
    cr_assert_eq(n, 2);
    cr_assert_not(tls_pending(r.server.t));
    cr_assert_eq(tls_read(r.server.t, c, sizeof c, &n, &e), TLS_CLOSED);
    cr_assert_eq(tls_read(r.server.t, c, sizeof c, &n, &e), TLS_CLOSED);
    cr_assert_eq(e.kind, ERR_NONE);
    tls_rig_close(&r);
    tls_free(NULL);
    tls_config_free(NULL);
}

/* ---- much data ---- */

struct stream {
    struct tls_rig_end *from, *to;
    size_t sent, got, all, least; /* least: bytes of the write that ended with a WANT */
    unsigned seed;
    unsigned char out[40000]; /* what is to be sent next: n_out bytes from place `sent` */
};

static unsigned char byte_at(const struct stream *s, size_t i) {
    return (unsigned char)((i * 2654435761U + s->seed) >> 11);
}

static unsigned random_below(unsigned *state, unsigned n) {
    *state = *state * 1103515245U + 12345U;
    return (*state >> 8) % n;
}

static void pump_out(struct stream *s, unsigned *rnd, bool *wanted) {
    struct err e = {0};
    size_t n = 0, left = s->all - s->sent, len = 1 + random_below(rnd, sizeof s->out);
    if (left == 0)
        return;
    if (len < s->least)
        len = s->least;
    if (len > left)
        len = left;
    /* After a WANT the same bytes with others behind them: a queue that has grown meanwhile. */
    for (size_t i = 0; i < len; i++)
        s->out[i] = byte_at(s, s->sent + i);
    enum tls_status st = tls_write(s->from->t, s->out, len, &n, &e);
    cr_assert(st == TLS_DONE || st == TLS_WANT_WRITE, "%s", e.msg);
    if (st == TLS_DONE) {
        cr_assert(n >= 1 && n <= len);
        s->sent += n;
        s->least = 0;
    } else {
        s->least = len;
        *wanted = true;
    }
}

static void pump_in(struct stream *s, unsigned *rnd) {
    unsigned char buf[20000];
    struct err e = {0};
    size_t n;
    enum tls_status st;
    while ((st = tls_read(s->to->t, buf, 1 + random_below(rnd, sizeof buf), &n, &e)) == TLS_DONE) {
        for (size_t i = 0; i < n; i++)
            if (buf[i] != byte_at(s, s->got + i))
                cr_assert_fail("byte %zu is another one", s->got + i);
        s->got += n;
    }
    cr_assert_eq(st, TLS_WANT_READ, "%s", e.msg);
    cr_assert_not(tls_pending(s->to->t));
}

Test(tls, much_both_ways_in_pieces) {
    struct tls_rig r;
    unsigned rnd = 1;
    int small = 4096, idle = 0;
    bool wanted = false;
    struct stream *s = calloc(2, sizeof *s);
    cr_assert_not_null(s);
    tls_rig_open(&r);
    must_shake(&r);
    cr_assert_eq(setsockopt(r.client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    cr_assert_eq(setsockopt(r.server.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    s[0] = (struct stream){.from = &r.client, .to = &r.server, .all = 3 << 20, .seed = 17};
    s[1] = (struct stream){.from = &r.server, .to = &r.client, .all = 2 << 20, .seed = 99};
    r.up.chunk = 1500;
    while (s[0].got < s[0].all || s[1].got < s[1].all) {
        size_t before = s[0].got + s[1].got + r.up.passed + r.down.passed;
        for (int i = 0; i < 2; i++)
            pump_out(&s[i], &rnd, &wanted);
        tls_rig_carry(&r);
        for (int i = 0; i < 2; i++)
            pump_in(&s[i], &rnd);
        idle = s[0].got + s[1].got + r.up.passed + r.down.passed == before ? idle + 1 : 0;
        cr_assert_lt(idle, 1000, "stuck at %zu and %zu", s[0].got, s[1].got);
    }
    cr_assert(wanted, "the buffers were never full: this did not test partial writes");
    free(s);
    tls_rig_close(&r);
}

/* ---- a wire that breaks ---- */

Test(tls, a_byte_at_a_time) {
    struct tls_rig r;
    tls_rig_open(&r);
    r.up.chunk = r.down.chunk = 1;
    must_shake(&r);
    say(&r, &r.client, &r.server, "up");
    say(&r, &r.server, &r.client, "down");
    tls_rig_close(&r);
}

Test(tls, an_end_at_every_byte_of_the_first_flight_and_many_of_the_others) {
    struct tls_rig r;
    tls_rig_open(&r);
    /* How long everything is. */
    tls_rig_step(&r.client);
    while (tls_rig_carry(&r))
        continue;
    size_t hello = r.up.passed;
    must_shake(&r);
    size_t up = r.up.passed, down = r.down.passed;
    cr_assert(hello > 100 && up > hello && down > 300, "%zu, %zu, %zu", hello, up, down);
    for (size_t cut = 0; cut < hello; cut++) {
        tls_rig_renew(&r);
        r.up.cut_on = true;
        r.up.cut = cut;
        tls_rig_step(&r.client);
        while (tls_rig_carry(&r))
            continue;
        tls_rig_step(&r.server); /* takes what came, */
        tls_rig_step(&r.server); /* then sees the end */
        cr_assert_eq(r.server.status, TLS_FAILED, "after %zu bytes", cut);
        cr_assert_eq(r.server.e.kind, ERR_IO, "after %zu bytes: %s", cut, r.server.e.msg);
    }
    /* Signatures differ in length by a few bytes, and so do these flights: the last bytes are left out. */
    for (size_t cut = hello; cut + 16 < up; cut += 41) {
        tls_rig_renew(&r);
        r.up.cut_on = true;
        r.up.cut = cut;
        tls_rig_handshake(&r);
        cr_assert_eq(r.server.status, TLS_FAILED, "after %zu bytes", cut);
        cr_assert_eq(r.server.e.kind, ERR_IO, "after %zu bytes: %s", cut, r.server.e.msg);
        cr_assert_eq(r.server.asked, 0, "nobody is asked about a key that was not proved");
    }
    for (size_t cut = 0; cut + 16 < down; cut += 41) {
        tls_rig_renew(&r);
        r.down.cut_on = true;
        r.down.cut = cut;
        tls_rig_handshake(&r);
        cr_assert_eq(r.client.status, TLS_FAILED, "after %zu bytes", cut);
        cr_assert_eq(r.client.e.kind, ERR_IO, "after %zu bytes: %s", cut, r.client.e.msg);
    }
    tls_rig_close(&r);
}

Test(tls, a_changed_byte) {
    struct tls_rig r;
    int taken = 0, tried = 0;
    tls_rig_open(&r);
    must_shake(&r);
    size_t all[2] = {r.up.passed, r.down.passed};
    for (int way = 0; way < 2; way++) {
        for (size_t at = 0; at < all[way]; at += 23) {
            tls_rig_renew(&r);
            struct tls_rig_way *w = way == 0 ? &r.up : &r.down;
            w->flip_on = true;
            w->flip = at;
            tls_rig_handshake(&r);
            tried++;
            /* TLS ignores a few bytes: the version in a record's head. */
            taken += r.client.status == TLS_DONE && r.server.status == TLS_DONE;
            if (r.client.status == TLS_DONE)
                cr_assert(pin_equal(tls_peer_pin(r.client.t), identity_pin(r.server.id)));
            if (r.server.status == TLS_DONE)
                cr_assert(pin_equal(tls_peer_pin(r.server.t), identity_pin(r.client.id)));
        }
    }
    cr_assert_lt(20 * taken, tried, "%d of %d changed handshakes were taken", taken, tried);
    tls_rig_close(&r);
}

static void feed(struct tls_rig *r, const void *p, size_t n) {
    tls_rig_renew(r);
    cr_assert_eq(send(r->server.wire, p, n, MSG_NOSIGNAL), (ssize_t)n);
    shutdown(r->server.wire, SHUT_WR);
    for (int i = 0; i < 100 && r->server.status != TLS_FAILED; i++)
        tls_rig_step(&r->server);
    cr_assert_eq(r->server.status, TLS_FAILED);
    cr_assert_neq(r->server.e.kind, ERR_NONE);
}

Test(tls, garbage) {
    struct tls_rig r;
    unsigned rnd = 7;
    unsigned char junk[600];
    static const char http[] = "GET / HTTP/1.1\r\nHost: cloud\r\n\r\n";
    static const char ssh[] = "SSH-2.0-OpenSSH_9.2\r\n";
    static const unsigned char long_record[] = {0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xfb};
    static const unsigned char alert[] = {0x15, 3, 3, 0, 2, 2, 40};
    static const unsigned char data[] = {0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5};
    tls_rig_open(&r);
    feed(&r, http, sizeof http - 1);
    cr_assert_eq(r.server.e.kind, ERR_PEER, "%s", r.server.e.msg);
    feed(&r, ssh, sizeof ssh - 1);
    feed(&r, long_record, sizeof long_record);
    feed(&r, alert, sizeof alert);
    feed(&r, data, sizeof data);
    for (int i = 0; i < 200; i++) {
        size_t n = 1 + random_below(&rnd, sizeof junk - 1);
        for (size_t k = 0; k < n; k++)
            junk[k] = (unsigned char)random_below(&rnd, 256);
        if (i % 2 && n > 5) { /* one that begins as it should */
            junk[0] = 0x16;
            junk[1] = 3;
            junk[2] = 1;
            junk[3] = (unsigned char)((n - 5) >> 8);
            junk[4] = (unsigned char)(n - 5);
            if (i % 4 == 1 && n > 9) {
                junk[5] = 1;
                junk[6] = 0;
                junk[7] = (unsigned char)((n - 9) >> 8);
                junk[8] = (unsigned char)(n - 9);
            }
        }
        feed(&r, junk, n);
    }
    tls_rig_close(&r);
}

/* Records that mean nothing and that anybody on the way can send, again and again: they come to an end. */
Test(tls, a_flood_of_nothing) {
    static const unsigned char ccs[] = {0x14, 3, 3, 0, 1, 1};
    struct tls_rig r;
    tls_rig_open(&r);
    for (int k = 0; k < 4; k++) {
        struct tls_rig_end *end = k % 2 ? &r.server : &r.client;
        bool shaken = k >= 2;
        size_t sent = 0;
        tls_rig_renew(&r);
        if (shaken)
            tls_rig_handshake(&r);
        else
            tls_rig_step(end);
        while (sent < 1 << 20 && end->status != TLS_FAILED) {
            unsigned char buf[16];
            size_t n;
            for (ssize_t w = 1; w > 0; sent += w > 0 ? (size_t)w : 0)
                w = send(end->wire, ccs, sizeof ccs, MSG_DONTWAIT | MSG_NOSIGNAL);
            end->status = shaken ? tls_read(end->t, buf, sizeof buf, &n, &end->e) : tls_handshake(end->t, &end->e);
            cr_assert_neq(end->status, TLS_DONE);
        }
        cr_assert_eq(end->status, TLS_FAILED, "%d: it takes everything", k);
        cr_assert_eq(end->e.kind, ERR_PEER, "%s", end->e.msg);
        cr_assert(shaken || k % 2 || strstr(end->e.msg, "say nothing"), "%s", end->e.msg);
    }
    tls_rig_close(&r);
}

/* ---- many threads ---- */

static atomic_int n_shaken;

static void *shake_often(void *arg) {
    struct tls_rig r = *(struct tls_rig *)arg; /* the same configurations and keys; connections of its own */
    r.client.t = r.server.t = NULL;
    r.client.fd = r.client.wire = r.server.fd = r.server.wire = -1;
    for (int i = 0; i < 5; i++) {
        tls_rig_renew(&r);
        tls_rig_handshake(&r);
        if (r.client.status == TLS_DONE && r.server.status == TLS_DONE)
            atomic_fetch_add(&n_shaken, 1);
    }
    r.client.config = r.server.config = NULL;
    r.client.id = r.server.id = NULL;
    tls_rig_close(&r);
    return NULL;
}

Test(tls, threads_share_a_configuration) {
    struct tls_rig r;
    pthread_t thread[4];
    tls_rig_open(&r);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, shake_often, &r), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(atomic_load(&n_shaken), 20);
    tls_rig_close(&r);
}
