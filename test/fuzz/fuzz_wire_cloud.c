/* Fuzzes what a cloud reads from a client: frames of HELLO, SUBMIT, PING, PONG, CHALLENGE, ERROR and BYE. */
#include "test/fuzz/wire_fuzz.h"

static int hello(const uint8_t *p, size_t n, struct err *e) {
    static const struct wire_hello mine = {.version = 1, .n_layers = 32, .lo = 2, .hi = 30, .hidden = 4096};
    struct wire_hello h;
    struct wbuf w = {0};
    char text[WIRE_MAX_TEXT + 1];
    if (wire_get_hello(p, n, &h, e) != 0)
        return -1;
    int code = wire_match(&mine, &h, text);
    check(code >= 0 && code <= WIRE_E_IDLE && (code == 0) == (text[0] == '\0'));
    check(wire_match(&h, &h, text) == 0 || h.codec >= N_CODECS);
    if (h.version == WIRE_VERSION) {
        wire_put_hello(&w, &h);
        same(&w, p, n);
    } else
        check(code == WIRE_E_VERSION);
    return 0;
}

static int submit(const struct session *s, const uint8_t *p, size_t n, struct err *e) {
    struct wire_submit v;
    struct wbuf w = {0};
    if (wire_get_submit(p, n, s->row_bytes, &v, e) != 0)
        return -1;
    struct wire_submit_parts parts = {.seq = v.seq, .rewind = v.rewind, .audit = v.audit};
    parts.rewind_len = v.rewind_len;
    parts.rewind_head = v.rewind_head;
    parts.n_commit = v.n_commit;
    parts.n_cancel = v.n_cancel;
    parts.n_nodes = v.n_nodes;
    uint32_t *ids = malloc(((size_t)v.n_commit + (size_t)v.n_cancel + 1) * sizeof *ids);
    struct node *nodes = malloc(((size_t)v.n_nodes + 1) * sizeof *nodes);
    check(ids && nodes);
    for (int i = 0; i < v.n_commit; i++)
        ids[i] = wire_id(v.commit, i);
    for (int i = 0; i < v.n_cancel; i++)
        ids[v.n_commit + i] = wire_id(v.cancel, i);
    for (int i = 0; i < v.n_nodes; i++) {
        nodes[i] = wire_node(v.nodes, i);
        check(nodes[i].id > nodes[i].parent && (i == 0 || nodes[i].id > nodes[i - 1].id));
        check((nodes[i].parent == NODE_NONE) == (nodes[i].pos == 0));
    }
    parts.commit = ids;
    parts.cancel = ids + v.n_commit;
    parts.nodes = nodes;
    float *x = rows_of(s, v.x, v.n_nodes, e);
    if (x) {
        wire_put_submit(&w, &parts, s->codec, s->hidden, x);
        if (s->codec == CODEC_Q8) { /* one number has several forms there */
            check(w.n == WIRE_HEAD + n);
            wbuf_free(&w);
        } else
            same(&w, p, n);
    }
    int rc = x ? 0 : -1;
    free(x);
    free(ids);
    free(nodes);
    return rc;
}

static int challenge(const uint8_t *p, size_t n, struct err *e) {
    struct wbuf w = {0};
    uint32_t seq;
    uint16_t layer;
    if (wire_get_challenge(p, n, &seq, &layer, e) != 0)
        return -1;
    wire_put_challenge(&w, seq, layer);
    same(&w, p, n);
    return 0;
}

static int frame(struct session *s, int type, const uint8_t *p, size_t n, struct err *e) {
    switch (type) {
    case WIRE_HELLO:
        if (hello(p, n, e) != 0)
            return -1;
        s->max_frame = 1 << 16;
        return 0;
    case WIRE_SUBMIT:
        return submit(s, p, n, e);
    case WIRE_PING:
    case WIRE_PONG:
        return ping_frame(type == WIRE_PONG, p, n, e);
    case WIRE_CHALLENGE:
        return challenge(p, n, e);
    case WIRE_ERROR:
        return error_frame(p, n, e);
    default:
        return err_set(e, ERR_PEER, "%s is not for a cloud", wire_type_name(type));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct session s = session_of(data[0]);
    feed(&s, data + 1, size - 1, frame);
    return 0;
}
