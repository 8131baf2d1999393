/* What the two targets of net/wire share: an input is a byte that chooses the session, and the bytes of a connection,
 * cut into frames as a receiver does. Whatever a reader accepts has to come out of the writers again as it went in. */
#ifndef TEST_FUZZ_WIRE_FUZZ_H
#define TEST_FUZZ_WIRE_FUZZ_H

#include "net/wire.h"

#include <stdlib.h>
#include <string.h>

struct session {
    enum codec codec;
    int hidden;
    uint32_t max_frame;
    size_t row_bytes;
};

static inline void check(int holds) {
    if (!holds)
        abort();
}

static inline struct session session_of(uint8_t b) {
    struct session s = {.codec = b & 3, .hidden = 1 + (b >> 2 & 31)};
    s.row_bytes = codec_row_bytes(s.codec, s.hidden);
    s.max_frame = b >> 7 ? 1 << 16 : WIRE_FIRST_MAX;
    return s;
}

/* One frame. p has exactly n bytes, so that a sanitizer sees one too many. -1 ends the connection. */
typedef int (*frame_fn)(struct session *s, int type, const uint8_t *p, size_t n, struct err *e);

static inline void feed(struct session *s, const uint8_t *p, size_t n, frame_fn frame) {
    for (;;) {
        struct err e = {0};
        int type = -1, rc = 0;
        size_t len = 0;
        /* Byte by byte: a header is judged when it is there, and not otherwise later. */
        for (size_t have = 0; have <= n && have <= WIRE_HEAD && rc == 0; have++) {
            rc = wire_head(p, have, s->max_frame, &type, &len, &e);
            check(rc == 0 || (rc == 1 && have == WIRE_HEAD) || (rc == -1 && have >= 4));
        }
        check((rc == -1) == (e.kind == ERR_PEER));
        if (rc != 1)
            return;
        check(len < s->max_frame);
        p += WIRE_HEAD;
        n -= WIRE_HEAD;
        if (len > n)
            return;
        uint8_t *exact = malloc(len ? len : 1);
        check(exact != NULL);
        memcpy(exact, p, len);
        rc = frame(s, type, exact, len, &e);
        free(exact);
        check(rc == 0 ? e.kind == ERR_NONE : rc == -1 && e.kind == ERR_PEER && e.msg[0]);
        if (rc != 0)
            return;
        p += len;
        n -= len;
    }
}

/* The frame in w says what p[n] said. Empties w. */
static inline void same(struct wbuf *w, const uint8_t *p, size_t n) {
    check(!w->bad && w->n == WIRE_HEAD + n && memcmp(w->p + WIRE_HEAD, p, n) == 0);
    wbuf_free(w);
}

/* Memory for n rows of x, decoded; NULL when numbers are not finite, and sets e as a receiver would. */
static inline float *rows_of(const struct session *s, const uint8_t *x, int n, struct err *e) {
    float *rows = malloc(((size_t)n * (size_t)s->hidden + 1) * sizeof *rows);
    check(rows != NULL);
    if (codec_decode(s->codec, x, n, s->hidden, rows) == 0) {
        for (size_t i = 0; i < (size_t)n * (size_t)s->hidden; i++)
            check(rows[i] - rows[i] == 0);
        return rows;
    }
    free(rows);
    err_set(e, ERR_PEER, "an activation is not finite");
    return NULL;
}

static inline int error_frame(const uint8_t *p, size_t n, struct err *e) {
    char text[WIRE_MAX_TEXT + 1], again[WIRE_MAX_TEXT + 1];
    struct wbuf w = {0};
    int code, code2;
    if (wire_get_error(p, n, &code, text, e) != 0)
        return -1;
    check(code >= WIRE_E_PROTOCOL && code <= WIRE_E_IDLE);
    for (const char *t = text; *t; t++)
        check((unsigned char)*t >= 0x20 && *t != 0x7f);
    wire_put_error(&w, (enum wire_code)code, text);
    check(wire_get_error(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &code2, again, e) == 0);
    check(code2 == code && strcmp(text, again) == 0);
    wbuf_free(&w);
    return 0;
}

static inline int ping_frame(bool pong, const uint8_t *p, size_t n, struct err *e) {
    struct wbuf w = {0};
    uint64_t any;
    if (wire_get_ping(p, n, &any, e) != 0)
        return -1;
    wire_put_ping(&w, pong, any);
    same(&w, p, n);
    return 0;
}

#endif
