/* net/wire: every message there and back, what readers must refuse, and frames that were damaged at random. */
#include "net/wire.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 3, ROW = 2 * HIDDEN, MOST_SAMPLES = 32 };

static uint64_t state = 7;

static uint32_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static const float xs[4 * HIDDEN] = {0, 1, -2, 0.5f, 65504, -0.25f, 3, 4, 5, 6, 7, 8};

static struct wire_hello a_hello(void) {
    struct wire_hello h = {.version = 1, .codec = CODEC_F16, .kv = 1, .quant = 2};
    h.n_layers = 32;
    h.lo = 2;
    h.hi = 30;
    h.hidden = 0x01020304;
    for (int i = 0; i < WIRE_DIGEST; i++) {
        h.config[i] = (uint8_t)(0xa0 + i);
        h.weights[i] = (uint8_t)(0x40 + i);
    }
    h.ctx = 8192;
    h.live = 300;
    memcpy(h.token, "0123456789abcdef", WIRE_TOKEN);
    return h;
}

static struct wire_welcome a_welcome(void) {
    struct wire_welcome w = {.version = 1, .resumed = true, .len = 7, .head = 19, .max_rows = 256};
    memcpy(w.token, "fedcba9876543210", WIRE_TOKEN);
    w.max_frame = 1 << 20;
    w.idle_ms = 60000;
    w.ttl_ms = 0xfffffffe;
    snprintf(w.backend, sizeof w.backend, "cpu-avx512");
    return w;
}

static const struct node a_tree[4] = {{20, 19, 7}, {21, 20, 8}, {22, 20, 8}, {25, 21, 9}};
static const uint32_t three_ids[3] = {5, 6, 0xffffffff};

/* The payload of the one frame in w, in memory of its exact size, so that a sanitizer sees one byte too many. */
struct payload {
    int type;
    size_t n;
    uint8_t *p;
};

static struct payload payload_of(struct wbuf *w) {
    struct payload v = {0};
    struct err e = {0};
    cr_assert(!w->bad);
    cr_assert_eq(wire_head(w->p, w->n, WIRE_MAX_FRAME, &v.type, &v.n, &e), 1);
    cr_assert_eq(w->n, WIRE_HEAD + v.n);
    v.p = malloc(v.n + 1); /* never of size 0 */
    memcpy(v.p, w->p + WIRE_HEAD, v.n);
    wbuf_free(w);
    return v;
}

static int accepts(int type, const uint8_t *p, size_t n, struct err *e) {
    union {
        struct wire_hello hello;
        struct wire_welcome welcome;
        struct wire_submit submit;
        struct wire_result result;
        struct wire_opening opening;
        char text[WIRE_MAX_TEXT + 1];
    } v;
    int code;
    uint16_t layer;
    uint32_t seq;
    uint64_t any;
    switch (type) {
    case WIRE_HELLO:
        return wire_get_hello(p, n, &v.hello, e);
    case WIRE_WELCOME:
        return wire_get_welcome(p, n, &v.welcome, e);
    case WIRE_ERROR:
        return wire_get_error(p, n, &code, v.text, e);
    case WIRE_SUBMIT:
        return wire_get_submit(p, n, ROW, &v.submit, e);
    case WIRE_RESULT:
        return wire_get_result(p, n, ROW, &v.result, e);
    case WIRE_PING:
    case WIRE_PONG:
        return wire_get_ping(p, n, &any, e);
    case WIRE_CHALLENGE:
        return wire_get_challenge(p, n, &seq, &layer, e);
    case WIRE_OPENING:
        return wire_get_opening(p, n, HIDDEN, &v.opening, e);
    default:
        return n == 0 ? 0 : err_set(e, ERR_PEER, "there is no reader for %s", wire_type_name(type));
    }
}

static bool refused(const struct payload *v, size_t n) {
    struct err e = {0};
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, v->p, n);
    int rc = accepts(v->type, exact, n, &e);
    free(exact);
    cr_assert_eq(rc == 0, e.kind == ERR_NONE);
    cr_assert(rc == 0 || e.kind == ERR_PEER);
    return rc != 0;
}

/* One of each kind and of each variant. */
static int samples(struct payload *out) {
    struct wbuf w = {0};
    int n = 0;
    struct wire_hello h = a_hello();
    wire_put_hello(&w, &h);
    out[n++] = payload_of(&w);
    struct wire_welcome m = a_welcome();
    wire_put_welcome(&w, &m);
    out[n++] = payload_of(&w);
    m = (struct wire_welcome){.version = 1, .max_rows = 1, .max_frame = WIRE_FIRST_MAX};
    wire_put_welcome(&w, &m);
    out[n++] = payload_of(&w);
    wire_put_error(&w, WIRE_E_FULL, "no room: 3 of 4 GiB are taken");
    out[n++] = payload_of(&w);
    wire_put_error(&w, WIRE_E_IDLE, "");
    out[n++] = payload_of(&w);
    wire_put_ping(&w, false, 0x1122334455667788);
    out[n++] = payload_of(&w);
    wire_put_ping(&w, true, 0);
    out[n++] = payload_of(&w);
    wire_put_bye(&w);
    out[n++] = payload_of(&w);
    wire_put_challenge(&w, 0x01020304, 0x0506);
    out[n++] = payload_of(&w);
    struct wire_submit_parts s = {.seq = 3};
    wire_put_submit(&w, &s, CODEC_F16, HIDDEN, NULL);
    out[n++] = payload_of(&w);
    s = (struct wire_submit_parts){.seq = 4, .rewind = true, .rewind_len = 9, .rewind_head = 40};
    s.commit = three_ids;
    s.n_commit = 3;
    s.cancel = three_ids;
    s.n_cancel = 2;
    s.nodes = a_tree;
    s.n_nodes = 4;
    wire_put_submit(&w, &s, CODEC_F16, HIDDEN, xs);
    out[n++] = payload_of(&w);
    static const struct node chain[3] = {{1, 0, 0}, {4, 1, 1}, {9, 4, 2}};
    s = (struct wire_submit_parts){.seq = 1, .rewind = true, .audit = true, .nodes = chain, .n_nodes = 3};
    wire_put_submit(&w, &s, CODEC_F16, HIDDEN, xs);
    out[n++] = payload_of(&w);
    struct wire_result r = {.seq = 9, .last = true, .compute_us = 1234, .wait_us = 77};
    wire_put_result(&w, &r, NULL, CODEC_F16, HIDDEN, NULL, NULL);
    out[n++] = payload_of(&w);
    r.n = 3;
    wire_put_result(&w, &r, three_ids, CODEC_F16, HIDDEN, xs, a_hello().config);
    out[n++] = payload_of(&w);
    struct wire_opening o = {.seq = 9, .layer = 7, .n_leaves = 2, .n_rows = 2};
    uint8_t leaves[2 * WIRE_DIGEST];
    memset(leaves, 0x5a, sizeof leaves);
    o.leaves = leaves;
    wire_put_opening(&w, &o, HIDDEN, xs, xs + 2 * HIDDEN);
    out[n++] = payload_of(&w);
    return n;
}

static void free_samples(struct payload *v, int n) {
    for (int i = 0; i < n; i++)
        free(v[i].p);
}

Test(wire, what_is_cut_or_has_more_is_refused) {
    struct payload v[MOST_SAMPLES];
    int n = samples(v);
    for (int i = 0; i < n; i++) {
        cr_assert(!refused(&v[i], v[i].n), "%s, sample %d", wire_type_name(v[i].type), i);
        for (size_t len = 0; len < v[i].n; len++)
            cr_assert(refused(&v[i], len), "%s of %zu bytes instead of %zu", wire_type_name(v[i].type), len, v[i].n);
        v[i].p[v[i].n] = 0;
        cr_assert(refused(&v[i], v[i].n + 1), "%s with a byte behind it", wire_type_name(v[i].type));
    }
    free_samples(v, n);
}

Test(wire, what_is_reserved_has_to_be_zero) {
    static const struct {
        int type;
        size_t at;
        uint8_t bits; /* none of which may be set */
    } zero[] = {{WIRE_HELLO, 13, 0xff}, {WIRE_WELCOME, 3, 0xff}, {WIRE_WELCOME, 2, 0xfe}, {WIRE_SUBMIT, 4, 0xfc},
                {WIRE_SUBMIT, 5, 0xff}, {WIRE_RESULT, 4, 0xfc},  {WIRE_RESULT, 5, 0xff}};
    struct payload v[MOST_SAMPLES];
    int n = samples(v), tried = 0;
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof zero / sizeof *zero; k++)
            for (int bit = 0; zero[k].type == v[i].type && bit < 8; bit++)
                if (zero[k].bits >> bit & 1) {
                    v[i].p[zero[k].at] ^= (uint8_t)(1 << bit);
                    cr_assert(refused(&v[i], v[i].n), "%s byte %zu bit %d", wire_type_name(v[i].type), zero[k].at, bit);
                    v[i].p[zero[k].at] ^= (uint8_t)(1 << bit);
                    tried++;
                }
    cr_assert(tried > 50);
    free_samples(v, n);
}

Test(wire, damage_is_harmless) {
    struct payload v[MOST_SAMPLES];
    int n = samples(v), ok = 0;
    for (int trial = 0; trial < 200000; trial++) {
        const struct payload *from = &v[next() % (uint32_t)n];
        struct payload to = {.type = next() % 16 ? from->type : (int)(next() % 12)};
        to.n = next() % 4 || !from->n ? from->n : next() % (uint32_t)from->n;
        to.p = malloc(from->n + 1);
        memcpy(to.p, from->p, from->n);
        for (uint32_t k = next() % 4; to.n && k < 4; k++)
            to.p[next() % (next() % 2 && to.n > 32 ? 32 : (uint32_t)to.n)] = (uint8_t)(next() % 3 ? next() : 0xff);
        ok += !refused(&to, to.n);
        free(to.p);
    }
    cr_assert(ok > 1000); /* some damage is only another value */
    free_samples(v, n);
}

Test(wire, head) {
    struct wbuf w = {0};
    struct err e = {0};
    int type = -1;
    size_t len = 99;
    wire_put_ping(&w, false, 1);
    for (size_t n = 0; n < WIRE_HEAD; n++)
        cr_assert_eq(wire_head(w.p, n, WIRE_FIRST_MAX, &type, &len, &e), 0);
    cr_assert_eq(wire_head(w.p, WIRE_HEAD, WIRE_FIRST_MAX, &type, &len, &e), 1);
    cr_assert(type == WIRE_PING && len == 8 && e.kind == ERR_NONE);
    cr_assert_eq(wire_head(w.p, WIRE_HEAD, 9, &type, &len, &e), 1);
    cr_assert_eq(wire_head(w.p, WIRE_HEAD, 8, &type, &len, &e), -1);
    cr_assert_eq(e.kind, ERR_PEER);
    e = (struct err){0};
    cr_assert_eq(wire_head((const uint8_t *)"\0\0\0\0", 4, WIRE_FIRST_MAX, &type, &len, &e), -1);
    e = (struct err){0};
    cr_assert_eq(wire_head((const uint8_t *)"\xff\xff\xff\xff", 4, WIRE_MAX_FRAME, &type, &len, &e), -1);
    wbuf_free(&w);
    cr_assert_str_eq(wire_type_name(WIRE_OPENING), "OPENING");
    cr_assert_str_eq(wire_type_name(0), "unknown");
    cr_assert_str_eq(wire_type_name(255), "unknown");
    cr_assert_str_eq(wire_type_name(-1), "unknown");
}

/* The bytes of docs/protocol.md, written out by hand once. */
Test(wire, bytes_are_those_of_the_specification) {
    struct wbuf w = {0};
    struct wire_submit_parts s = {.seq = 0x04030201, .rewind = true, .rewind_len = 0x0d0c0b0a};
    static const uint32_t commit[] = {0x11}, cancel[] = {0x44332212};
    static const struct node node = {0x55, 0x54, 9};
    s.rewind_head = 0x10;
    s.commit = commit;
    s.n_commit = 1;
    s.cancel = cancel;
    s.n_cancel = 1;
    s.nodes = &node;
    s.n_nodes = 1;
    wire_put_submit(&w, &s, CODEC_BF16, 1, (const float[]){1});
    static const uint8_t submit[] = {
        43,   0,    0,    0,    4,                      /* length, SUBMIT */
        1,    2,    3,    4,    1,    0,                /* seq, rewind, reserved */
        1,    0,    1,    0,    1,    0,                /* counts */
        0x0a, 0x0b, 0x0c, 0x0d, 0x10, 0,    0,    0,    /* where to */
        0x11, 0,    0,    0,    0x12, 0x22, 0x33, 0x44, /* commit, cancel */
        0x55, 0,    0,    0,    0x54, 0,    0,    0,    9, 0, 0, 0, 0x80, 0x3f,
    };
    cr_assert_eq(w.n, sizeof submit);
    cr_assert_eq(memcmp(w.p, submit, sizeof submit), 0);
    wbuf_free(&w);
    struct wire_hello h = a_hello();
    wire_put_hello(&w, &h);
    static const uint8_t hello[] = {113, 0, 0, 0, 1,  's', 'p', 'l', 'i', 't', 'i', 'n', 'f', 1, 0,
                                    1,   1, 2, 0, 32, 0,   2,   0,   30,  0,   4,   3,   2,   1, 0xa0};
    cr_assert_eq(w.n, 5 + 112);
    cr_assert_eq(memcmp(w.p, hello, sizeof hello), 0);
    wbuf_free(&w);
    wire_put_error(&w, WIRE_E_SPLIT, "no");
    cr_assert_eq(w.n, 11);
    cr_assert_eq(memcmp(w.p, "\7\0\0\0\3\4\0\2\0no", 11), 0);
    wbuf_free(&w);
}

Test(wire, hello_and_welcome_come_back) {
    struct wbuf w = {0};
    struct err e = {0};
    struct wire_hello h = a_hello(), h2;
    wire_put_hello(&w, &h);
    cr_assert_eq(wire_get_hello(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &h2, &e), 0);
    cr_assert_eq(h2.hidden, h.hidden);
    cr_assert(h2.codec == h.codec && h2.kv == h.kv && h2.quant == h.quant && h2.n_layers == h.n_layers);
    cr_assert(h2.lo == h.lo && h2.hi == h.hi && h2.ctx == h.ctx && h2.live == h.live);
    cr_assert_eq(memcmp(h2.config, h.config, WIRE_DIGEST), 0);
    cr_assert_eq(memcmp(h2.weights, h.weights, WIRE_DIGEST), 0);
    cr_assert_eq(memcmp(h2.token, h.token, WIRE_TOKEN), 0);
    wbuf_free(&w);

    struct wire_welcome m = a_welcome(), m2;
    memset(m.backend, 'b', WIRE_MAX_BACKEND); /* as long as it may be */
    wire_put_welcome(&w, &m);
    cr_assert_eq(wire_get_welcome(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &m2, &e), 0);
    cr_assert(m2.version == 1 && m2.resumed && m2.len == m.len && m2.head == m.head && m2.max_rows == m.max_rows);
    cr_assert(m2.max_frame == m.max_frame && m2.idle_ms == m.idle_ms && m2.ttl_ms == m.ttl_ms);
    cr_assert_eq(memcmp(m2.token, m.token, WIRE_TOKEN), 0);
    cr_assert_str_eq(m2.backend, m.backend);
    wbuf_free(&w);
}

/* A HELLO of another version may have any length behind its version, and is for wire_match to refuse. */
Test(wire, hello_of_another_version_is_read_as_far_as_it_may_be) {
    struct wire_hello h, mine = a_hello();
    struct err e = {0};
    char text[WIRE_MAX_TEXT + 1];
    cr_assert_eq(wire_get_hello((const uint8_t *)"splitinf\2\0what ever comes", 26, &h, &e), 0);
    cr_assert_eq(h.version, 2);
    cr_assert_eq(wire_match(&mine, &h, text), WIRE_E_VERSION);
    cr_assert(strstr(text, "version 1") && strstr(text, "version 2"));
    cr_assert_eq(wire_get_hello((const uint8_t *)"splitinf\2", 9, &h, &e), -1);
    e = (struct err){0};
    cr_assert_eq(wire_get_hello((const uint8_t *)"Splitinf\2\0", 10, &h, &e), -1);
}

static void put_welcome_with(struct wbuf *w, struct wire_welcome m) {
    wbuf_clear(w);
    wire_put_welcome(w, &m);
}

Test(wire, welcome_that_contradicts_itself_is_refused) {
    struct wbuf w = {0};
    for (int i = 0; i < 9; i++) {
        struct wire_welcome m = a_welcome(), got;
        struct err e = {0};
        if (i == 1)
            m.head = 0;
        else if (i == 2)
            m.len = 0;
        else if (i == 3)
            m.resumed = false;
        else if (i == 4)
            m.max_rows = 0;
        else if (i == 5)
            m.max_rows = 65536;
        else if (i == 6)
            m.max_frame = WIRE_FIRST_MAX - 1;
        else if (i == 7)
            m.max_frame = WIRE_MAX_FRAME + 1;
        else if (i == 8)
            m.version = 2;
        put_welcome_with(&w, m);
        cr_assert_eq(wire_get_welcome(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &got, &e), i == 0 ? 0 : -1, "case %d", i);
    }
    wbuf_free(&w);
}

Test(wire, submit_comes_back) {
    struct wbuf w = {0};
    struct err e = {0};
    struct wire_submit_parts s = {.seq = 4, .rewind = true, .rewind_len = 9, .rewind_head = 40};
    struct wire_submit v;
    s.commit = three_ids;
    s.n_commit = 3;
    s.cancel = three_ids;
    s.n_cancel = 2;
    s.nodes = a_tree;
    s.n_nodes = 4;
    for (int c = 0; c < N_CODECS; c++) {
        enum codec codec = (enum codec)c;
        float x[4 * HIDDEN], want[4 * HIDDEN];
        memcpy(want, xs, sizeof xs);
        codec_boundary(&codec, want, 4, HIDDEN);
        wbuf_clear(&w);
        wire_put_submit(&w, &s, codec, HIDDEN, xs);
        cr_assert_eq(wire_get_submit(w.p + WIRE_HEAD, w.n - WIRE_HEAD, codec_row_bytes(codec, HIDDEN), &v, &e), 0);
        cr_assert(v.seq == 4 && v.rewind && !v.audit && v.rewind_len == 9 && v.rewind_head == 40);
        cr_assert(v.n_commit == 3 && v.n_cancel == 2 && v.n_nodes == 4);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(wire_id(v.commit, i), three_ids[i]);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(wire_id(v.cancel, i), three_ids[i]);
        for (int i = 0; i < 4; i++) {
            struct node got = wire_node(v.nodes, i);
            cr_assert_eq(memcmp(&got, &a_tree[i], sizeof got), 0);
        }
        cr_assert_eq(codec_decode(codec, v.x, 4, HIDDEN, x), 0);
        cr_assert_eq(memcmp(x, want, sizeof x), 0);
    }
    wbuf_free(&w);
}

/* The longest lists that there are: 65535 of each. */
Test(wire, longest_lists_come_back) {
    enum { N = WIRE_MAX_LIST };
    uint32_t *ids = malloc(N * sizeof *ids);
    struct node *nodes = malloc(N * sizeof *nodes);
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (uint32_t i = 0; i < N; i++) {
        ids[i] = 3 * i + 1;
        nodes[i] = (struct node){3 * i + 1, i ? 3 * i - 2 : 0, i};
        x[i] = (float)i;
    }
    struct wbuf w = {0};
    struct err e = {0};
    struct wire_submit v;
    struct wire_submit_parts s = {.seq = 1, .commit = ids, .cancel = ids, .nodes = nodes};
    s.n_commit = s.n_cancel = s.n_nodes = N;
    wire_put_submit(&w, &s, CODEC_F32, 1, x);
    cr_assert_leq(w.n - 4, wire_max_frame(4, 1, N, N, 3));
    cr_assert_eq(wire_get_submit(w.p + WIRE_HEAD, w.n - WIRE_HEAD, 4, &v, &e), 0, "%s", e.msg);
    cr_assert(v.n_commit == N && v.n_cancel == N && v.n_nodes == N);
    cr_assert_eq(wire_id(v.commit, N - 1), ids[N - 1]);
    cr_assert_eq(wire_node(v.nodes, N - 1).parent, ids[N - 2]);
    cr_assert_eq(codec_decode(CODEC_F32, v.x, N, 1, y), 0);
    cr_assert_eq(memcmp(x, y, N * sizeof *x), 0);
    wbuf_clear(&w);

    struct wire_result r = {.seq = 1, .n = N}, got;
    wire_put_result(&w, &r, ids, CODEC_F32, 1, x, NULL);
    cr_assert_eq(wire_get_result(w.p + WIRE_HEAD, w.n - WIRE_HEAD, 4, &got, &e), 0);
    cr_assert(got.n == N && !got.last && !got.has_root && got.root == NULL);
    cr_assert_eq(wire_id(got.ids, N - 1), ids[N - 1]);
    wbuf_free(&w);
    free(ids);
    free(nodes);
    free(x);
    free(y);
}

static int submit_of(struct wire_submit_parts s, const struct node *nodes, int n) {
    static const float x[8 * HIDDEN];
    struct wbuf w = {0};
    struct wire_submit v;
    struct err e = {0};
    s.nodes = nodes;
    s.n_nodes = n;
    wire_put_submit(&w, &s, CODEC_F16, HIDDEN, x);
    int rc = wire_get_submit(w.p + WIRE_HEAD, w.n - WIRE_HEAD, ROW, &v, &e);
    cr_assert_eq(rc == 0, e.kind == ERR_NONE);
    wbuf_free(&w);
    return rc;
}

#define SUBMIT_OF(...)                                                                                                 \
    submit_of((struct wire_submit_parts){.seq = 1}, (const struct node[]){__VA_ARGS__},                                \
              (int)(sizeof(const struct node[]){__VA_ARGS__} / sizeof(struct node)))

Test(wire, nodes_that_cannot_be_are_refused) {
    cr_assert_eq(SUBMIT_OF({1, 0, 0}), 0);
    cr_assert_eq(SUBMIT_OF({5, 4, 9}, {6, 5, 10}, {7, 4, 9}), 0); /* 4 is not here: what its position is nobody knows */
    cr_assert_eq(SUBMIT_OF({5, 4, 9}, {6, 3, 17}), 0);
    cr_assert_eq(SUBMIT_OF({0, 0, 0}), -1);
    cr_assert_eq(SUBMIT_OF({5, 4, 9}, {5, 4, 9}), -1);
    cr_assert_eq(SUBMIT_OF({6, 4, 9}, {5, 4, 9}), -1);
    cr_assert_eq(SUBMIT_OF({5, 5, 9}), -1);
    cr_assert_eq(SUBMIT_OF({5, 7, 9}, {7, 5, 10}), -1);
    cr_assert_eq(SUBMIT_OF({5, 4, 0}), -1);                     /* a child at position 0 */
    cr_assert_eq(SUBMIT_OF({5, 0, 1}), -1);                     /* a root behind it */
    cr_assert_eq(SUBMIT_OF({5, 4, 9}, {6, 5, 11}), -1);         /* one position left out */
    cr_assert_eq(SUBMIT_OF({5, 4, 0xffffffff}, {6, 5, 0}), -1); /* one that wraps */
}

Test(wire, submits_that_cannot_be_are_refused) {
    static const struct node chain[] = {{1, 0, 0}, {4, 1, 1}, {9, 4, 2}}, fork[] = {{1, 0, 0}, {4, 1, 1}, {9, 1, 1}};
    static const struct node late[] = {{5, 4, 9}};
    static const uint32_t falling[] = {6, 5}, zero[] = {0}, one[] = {1};
    typedef struct wire_submit_parts parts;
    cr_assert_eq(submit_of((parts){.seq = 0}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .commit = falling, .n_commit = 1}, NULL, 0), 0);
    cr_assert_eq(submit_of((parts){.seq = 1, .commit = falling, .n_commit = 2}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .commit = zero, .n_commit = 1}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .cancel = falling, .n_cancel = 2}, NULL, 0), 0); /* any order */
    cr_assert_eq(submit_of((parts){.seq = 1, .rewind = true}, NULL, 0), 0);
    cr_assert_eq(submit_of((parts){.seq = 1, .rewind = true, .rewind_len = 1}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .rewind = true, .rewind_head = 1}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true}, chain, 3), 0);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true, .rewind = true}, chain, 3), 0);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true}, NULL, 0), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true}, fork, 3), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true}, late, 1), -1);
    cr_assert_eq(submit_of((parts){.seq = 1, .audit = true, .commit = one, .n_commit = 1}, chain, 3), -1);
    cr_assert_eq(
        submit_of((parts){.seq = 1, .audit = true, .rewind = true, .rewind_len = 1, .rewind_head = 1}, chain, 3), -1);
}

Test(wire, result_comes_back) {
    struct wbuf w = {0};
    struct err e = {0};
    uint8_t root[WIRE_DIGEST];
    memset(root, 0x77, sizeof root);
    struct wire_result r = {.seq = 9, .last = true, .n = 3, .compute_us = 1234, .wait_us = 77}, v;
    wire_put_result(&w, &r, three_ids, CODEC_Q8, HIDDEN, xs, root);
    cr_assert_eq(wire_get_result(w.p + WIRE_HEAD, w.n - WIRE_HEAD, codec_row_bytes(CODEC_Q8, HIDDEN), &v, &e), 0);
    cr_assert(v.seq == 9 && v.last && v.has_root && v.n == 3 && v.compute_us == 1234 && v.wait_us == 77);
    cr_assert_eq(wire_id(v.ids, 2), three_ids[2]);
    cr_assert_eq(memcmp(v.root, root, sizeof root), 0);
    cr_assert_eq(v.x + 3 * codec_row_bytes(CODEC_Q8, HIDDEN), v.root);
    wbuf_clear(&w);
    r.last = false; /* a root comes in one frame with everything */
    wire_put_result(&w, &r, three_ids, CODEC_Q8, HIDDEN, xs, root);
    cr_assert_eq(wire_get_result(w.p + WIRE_HEAD, w.n - WIRE_HEAD, codec_row_bytes(CODEC_Q8, HIDDEN), &v, &e), -1);
    wbuf_clear(&w);
    e = (struct err){0};
    static const uint32_t zero[1];
    r.n = 1;
    wire_put_result(&w, &r, zero, CODEC_Q8, HIDDEN, xs, NULL);
    cr_assert_eq(wire_get_result(w.p + WIRE_HEAD, w.n - WIRE_HEAD, codec_row_bytes(CODEC_Q8, HIDDEN), &v, &e), -1);
    wbuf_free(&w);
}

Test(wire, small_messages_come_back) {
    struct wbuf w = {0};
    struct err e = {0};
    uint64_t any = 0;
    uint32_t seq = 0;
    uint16_t layer = 0;
    wire_put_ping(&w, true, 0xfedcba9876543210);
    cr_assert_eq(w.p[4], WIRE_PONG);
    cr_assert_eq(wire_get_ping(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &any, &e), 0);
    cr_assert_eq(any, 0xfedcba9876543210);
    wbuf_clear(&w);
    wire_put_challenge(&w, 0xffffffff, 31);
    cr_assert_eq(wire_get_challenge(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &seq, &layer, &e), 0);
    cr_assert(seq == 0xffffffff && layer == 31);
    wbuf_clear(&w);
    wire_put_bye(&w);
    wire_put_bye(&w); /* frames are appended */
    cr_assert_eq(w.n, 10);
    cr_assert_eq(memcmp(w.p, "\1\0\0\0\10\1\0\0\0\10", 10), 0);
    wbuf_free(&w);
}

Test(wire, opening_comes_back) {
    struct wbuf w = {0};
    struct err e = {0};
    uint8_t leaves[3 * WIRE_DIGEST];
    for (size_t i = 0; i < sizeof leaves; i++)
        leaves[i] = (uint8_t)i;
    struct wire_opening o = {.seq = 2, .layer = 11, .n_leaves = 3, .n_rows = 2, .leaves = leaves}, v;
    wire_put_opening(&w, &o, HIDDEN, xs, xs + 2 * HIDDEN);
    cr_assert_eq(wire_get_opening(w.p + WIRE_HEAD, w.n - WIRE_HEAD, HIDDEN, &v, &e), 0);
    cr_assert(v.seq == 2 && v.layer == 11 && v.n_leaves == 3 && v.n_rows == 2);
    cr_assert_eq(memcmp(v.leaves, leaves, sizeof leaves), 0);
    cr_assert_eq(memcmp(v.in, xs, 2 * HIDDEN * sizeof *xs), 0);
    cr_assert_eq(memcmp(v.out, xs + 2 * HIDDEN, 2 * HIDDEN * sizeof *xs), 0);
    /* Sizes whose product is far beyond 64 bits. */
    memset(w.p + WIRE_HEAD + 8, 0xff, 4);
    cr_assert_eq(wire_get_opening(w.p + WIRE_HEAD, w.n - WIRE_HEAD, 0xffffffff, &v, &e), -1);
    e = (struct err){0};
    cr_assert_eq(wire_get_opening(w.p + WIRE_HEAD, w.n - WIRE_HEAD, 0, &v, &e), -1);
    wbuf_clear(&w);
    e = (struct err){0};
    o.n_leaves = 1;
    wire_put_opening(&w, &o, HIDDEN, xs, xs);
    cr_assert_eq(wire_get_opening(w.p + WIRE_HEAD, w.n - WIRE_HEAD, HIDDEN, &v, &e), -1);
    wbuf_clear(&w);
    e = (struct err){0};
    o.n_leaves = 2;
    o.n_rows = 0;
    wire_put_opening(&w, &o, HIDDEN, xs, xs);
    cr_assert_eq(wire_get_opening(w.p + WIRE_HEAD, w.n - WIRE_HEAD, HIDDEN, &v, &e), -1);
    wbuf_free(&w);
}

/* The largest frame of each kind is as long as wire_max_frame says and not a byte longer. */
Test(wire, max_frame) {
    cr_assert_eq(wire_max_frame(ROW, HIDDEN, 1, 1, 2), WIRE_FIRST_MAX);
    size_t row = codec_row_bytes(CODEC_F16, 4096);
    cr_assert_eq(wire_max_frame(row, 4096, 256, 512, 2), 1 + 12 + 2 * 32 + 256 * 2 * 4 * 4096); /* OPENING */
    struct wbuf w = {0};
    enum { ROWS = 200, LIVE = 90 };
    static struct node nodes[ROWS];
    static uint32_t ids[ROWS];
    static const float x[ROWS];
    struct wire_submit_parts s = {.seq = 1, .rewind = true, .commit = ids, .cancel = ids, .nodes = nodes};
    s.n_commit = s.n_cancel = LIVE;
    s.n_nodes = ROWS;
    wire_put_submit(&w, &s, CODEC_F32, 1, x);
    cr_assert_eq(w.n - 4, wire_max_frame(4, 1, ROWS, LIVE, 2));
    wbuf_clear(&w);
    struct wire_result r = {.seq = 1, .n = ROWS};
    uint8_t leaves[60 * WIRE_DIGEST] = {0};
    wire_put_result(&w, &r, ids, CODEC_F32, 1, x, leaves);
    cr_assert_leq(w.n - 4, wire_max_frame(4, 1, ROWS, 0, 2));
    wbuf_clear(&w);
    struct wire_opening o = {.seq = 1, .n_leaves = 60, .n_rows = ROWS, .leaves = leaves};
    wire_put_opening(&w, &o, 1, x, x);
    cr_assert_leq(w.n - 4, wire_max_frame(4, 1, ROWS, 0, 60));
    wbuf_free(&w);
    cr_assert_gt(wire_max_frame((size_t)1 << 33, 0x7fffffff, 0xffffffff, 0xffffffff, 65536), (size_t)1 << 48);
}

/* A writer that runs out of room leaves a bad buffer and no crash. */
Test(wire, writers_report_a_full_buffer) {
    struct wire_hello h = a_hello();
    struct wire_submit_parts s = {.seq = 1, .nodes = a_tree, .n_nodes = 4};
    for (size_t max = 1; max < 80; max++) {
        struct wbuf w = {.max = max};
        wire_put_hello(&w, &h);
        cr_assert(w.bad);
        wbuf_clear(&w);
        wire_put_submit(&w, &s, CODEC_F16, HIDDEN, xs);
        cr_assert(w.bad);
        wbuf_free(&w);
    }
}

Test(wire, times_that_do_not_fit) {
    cr_assert_eq(wire_us(1.5), 1500);
    cr_assert_eq(wire_us(-3), 0);
    cr_assert_eq(wire_us(4294967), 4294967000u);
    cr_assert_eq(wire_us(4294968), UINT32_MAX, "more than 71 minutes");
    cr_assert_eq(wire_us(1e300), UINT32_MAX);
}
