/* Fuzzes what a client reads from a cloud: frames of WELCOME, RESULT, PING, PONG, OPENING and ERROR. */
#include "test/fuzz/wire_fuzz.h"

static int welcome(struct session *s, const uint8_t *p, size_t n, struct err *e) {
    struct wire_welcome m, again;
    struct wbuf w = {0};
    if (wire_get_welcome(p, n, &m, e) != 0)
        return -1;
    check(m.max_frame >= WIRE_FIRST_MAX && m.max_frame <= WIRE_MAX_FRAME && m.max_rows >= 1);
    check(m.max_rows <= WIRE_MAX_LIST && strlen(m.backend) <= WIRE_MAX_BACKEND);
    wire_put_welcome(&w, &m);
    check(wire_get_welcome(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &again, e) == 0);
    check(strcmp(again.backend, m.backend) == 0);
    size_t fixed = n - p[44]; /* behind it the name, of which control characters may have gone */
    check(w.n - WIRE_HEAD >= fixed && memcmp(w.p + WIRE_HEAD, p, 44) == 0);
    wbuf_free(&w);
    s->max_frame = m.max_frame;
    return 0;
}

static int result(const struct session *s, const uint8_t *p, size_t n, struct err *e) {
    struct wire_result r;
    struct wbuf w = {0};
    if (wire_get_result(p, n, s->row_bytes, &r, e) != 0)
        return -1;
    uint32_t *ids = malloc(((size_t)r.n + 1) * sizeof *ids);
    check(ids != NULL && r.has_root == (r.root != NULL));
    for (int i = 0; i < r.n; i++)
        check((ids[i] = wire_id(r.ids, i)) != NODE_NONE);
    float *x = rows_of(s, r.x, r.n, e);
    if (x) {
        wire_put_result(&w, &r, ids, s->codec, s->hidden, x, r.root);
        if (s->codec == CODEC_Q8) { /* one number has several forms there */
            check(w.n == WIRE_HEAD + n);
            wbuf_free(&w);
        } else
            same(&w, p, n);
    }
    int rc = x ? 0 : -1;
    free(x);
    free(ids);
    return rc;
}

static int opening(const struct session *s, const uint8_t *p, size_t n, struct err *e) {
    struct session f32 = *s;
    struct wire_opening o;
    struct wbuf w = {0};
    if (wire_get_opening(p, n, (uint32_t)s->hidden, &o, e) != 0)
        return -1;
    f32.codec = CODEC_F32;
    float *in = rows_of(&f32, o.in, (int)o.n_rows, e), *out = in ? rows_of(&f32, o.out, (int)o.n_rows, e) : NULL;
    if (out) {
        wire_put_opening(&w, &o, (uint32_t)s->hidden, in, out);
        same(&w, p, n);
    }
    int rc = out ? 0 : -1;
    free(in);
    free(out);
    return rc;
}

static int frame(struct session *s, int type, const uint8_t *p, size_t n, struct err *e) {
    switch (type) {
    case WIRE_WELCOME:
        return welcome(s, p, n, e);
    case WIRE_RESULT:
        return result(s, p, n, e);
    case WIRE_OPENING:
        return opening(s, p, n, e);
    case WIRE_PING:
    case WIRE_PONG:
        return ping_frame(type == WIRE_PONG, p, n, e);
    case WIRE_ERROR:
        return error_frame(p, n, e);
    default:
        return err_set(e, ERR_PEER, "%s is not for a client", wire_type_name(type));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct session s = session_of(data[0]);
    feed(&s, data + 1, size - 1, frame);
    return 0;
}
