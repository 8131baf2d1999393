#include "net/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char magic[8] = "splitinf";

enum {
    SUBMIT_REWIND = 1,
    SUBMIT_AUDIT = 2,
    RESULT_LAST = 1,
    RESULT_ROOT = 2,
    ID_BYTES = 4,
    NODE_BYTES = 12,
    /* Payloads without their lists. */
    HELLO_BYTES = 112,
    SUBMIT_BYTES = 20,
    RESULT_BYTES = 16,
    OPENING_BYTES = 12,
};

const char *wire_type_name(int type) {
    static const char *const names[] = {
        [WIRE_HELLO] = "HELLO",         [WIRE_WELCOME] = "WELCOME", [WIRE_ERROR] = "ERROR", [WIRE_SUBMIT] = "SUBMIT",
        [WIRE_RESULT] = "RESULT",       [WIRE_PING] = "PING",       [WIRE_PONG] = "PONG",   [WIRE_BYE] = "BYE",
        [WIRE_CHALLENGE] = "CHALLENGE", [WIRE_OPENING] = "OPENING",
    };
    return type >= WIRE_HELLO && type <= WIRE_OPENING ? names[type] : "unknown";
}

static uint32_t get_u32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t wire_id(const uint8_t *list, int i) {
    return get_u32(list + (size_t)i * ID_BYTES);
}

struct node wire_node(const uint8_t *list, int i) {
    const uint8_t *p = list + (size_t)i * NODE_BYTES;
    return (struct node){.id = get_u32(p), .parent = get_u32(p + 4), .pos = get_u32(p + 8)};
}

static bool all_zero(const uint8_t *p, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

uint32_t wire_us(double ms) {
    return ms > 0 ? ms < UINT32_MAX / 1e3 ? (uint32_t)(ms * 1e3) : UINT32_MAX : 0;
}

/* ---- readers ---- */

int wire_head(const uint8_t *p, size_t n, uint32_t max_frame, int *type, size_t *len, struct err *e) {
    if (n < 4)
        return 0;
    uint32_t length = get_u32(p);
    if (length == 0)
        return err_set(e, ERR_PEER, "a frame has length 0");
    if (length > max_frame)
        return err_set(e, ERR_PEER, "a frame of %u bytes is above the limit of %u", length, max_frame);
    if (n < WIRE_HEAD)
        return 0;
    *type = p[4];
    *len = length - 1;
    return 1;
}

/* Every reader ends here: the whole payload was there, and nothing behind it. */
static int finish(const struct rbuf *r, const char *what, struct err *e) {
    if (r->bad)
        return err_set(e, ERR_PEER, "%s of %zu bytes is too short", what, r->n);
    if (rbuf_left(r) != 0)
        return err_set(e, ERR_PEER, "%s has %zu bytes too many", what, rbuf_left(r));
    return 0;
}

static void get_bytes(struct rbuf *r, uint8_t *out, size_t n) {
    const uint8_t *p = rbuf_bytes(r, n);
    if (p)
        memcpy(out, p, n);
}

static int reserved(uint8_t v, const char *what, struct err *e) {
    return v == 0 ? 0 : err_set(e, ERR_PEER, "%s has %u in a reserved field", what, v);
}

int wire_get_hello(const uint8_t *p, size_t n, struct wire_hello *h, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *h = (struct wire_hello){0};
    const uint8_t *m = rbuf_bytes(&r, sizeof magic);
    if (!m || memcmp(m, magic, sizeof magic) != 0)
        return err_set(e, ERR_PEER, "HELLO does not begin with \"splitinf\"");
    h->version = rbuf_u16(&r);
    if (!r.bad && h->version != WIRE_VERSION)
        return 0; /* what follows may be anything; wire_match has the answer */
    h->codec = rbuf_u8(&r);
    h->kv = rbuf_u8(&r);
    h->quant = rbuf_u8(&r);
    uint8_t zero = rbuf_u8(&r);
    h->n_layers = rbuf_u16(&r);
    h->lo = rbuf_u16(&r);
    h->hi = rbuf_u16(&r);
    h->hidden = rbuf_u32(&r);
    get_bytes(&r, h->config, WIRE_DIGEST);
    get_bytes(&r, h->weights, WIRE_DIGEST);
    h->ctx = rbuf_u32(&r);
    h->live = rbuf_u32(&r);
    get_bytes(&r, h->token, WIRE_TOKEN);
    if (finish(&r, "HELLO", e) != 0 || reserved(zero, "HELLO", e) != 0)
        return -1;
    if (h->ctx == 0 || h->live == 0)
        return err_set(e, ERR_PEER, "HELLO asks for a session of %u positions and %u nodes in flight", h->ctx, h->live);
    return 0;
}

/* Bytes of the UTF-8 character at p, 0 when there is none that is well-formed. n >= 1. */
static size_t utf8_length(const uint8_t *p, size_t n) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc0 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : 4;
    if (len == 1)
        return 1;
    if (p[0] < 0xc0 || p[0] >= 0xf8 || n < len)
        return 0;
    uint32_t c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

/* n bytes of a peer's text as a string that can go to a terminal; out has n + 1 bytes. */
static void sanitise(const uint8_t *p, size_t n, char *out) {
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_length(p + i, n - i);
        bool control = len == 1 && (p[i] < 0x20 || p[i] == 0x7f);
        bool c1 = len == 2 && p[i] == 0xc2 && p[i + 1] < 0xa0;
        if (len > 0 && !control && !c1) {
            memcpy(out, p + i, len);
            out += len;
        } else {
            *out++ = '?';
            len = len ? len : 1;
        }
    }
    *out = '\0';
}

int wire_get_welcome(const uint8_t *p, size_t n, struct wire_welcome *w, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *w = (struct wire_welcome){0};
    w->version = rbuf_u16(&r);
    uint8_t resumed = rbuf_u8(&r), zero = rbuf_u8(&r);
    get_bytes(&r, w->token, WIRE_TOKEN);
    w->len = rbuf_u32(&r);
    w->head = rbuf_u32(&r);
    w->max_rows = rbuf_u32(&r);
    w->max_frame = rbuf_u32(&r);
    w->idle_ms = rbuf_u32(&r);
    w->ttl_ms = rbuf_u32(&r);
    uint8_t n_backend = rbuf_u8(&r);
    const uint8_t *backend = rbuf_bytes(&r, n_backend);
    if (finish(&r, "WELCOME", e) != 0 || reserved(zero, "WELCOME", e) != 0)
        return -1;
    if (w->version != WIRE_VERSION)
        return err_set(e, ERR_PEER, "WELCOME is of version %u, not %d", w->version, WIRE_VERSION);
    if (n_backend > WIRE_MAX_BACKEND)
        return err_set(e, ERR_PEER, "WELCOME has a backend name of %u bytes", n_backend);
    if (resumed > 1 || (w->len == 0) != (w->head == 0) || (!resumed && w->len != 0))
        return err_set(e, ERR_PEER, "WELCOME contradicts itself: resumed %u, %u positions, last id %u", resumed, w->len,
                       w->head);
    if (w->max_rows == 0 || w->max_rows > WIRE_MAX_LIST)
        return err_set(e, ERR_PEER, "WELCOME allows %u rows", w->max_rows);
    if (w->max_frame < WIRE_FIRST_MAX || w->max_frame > WIRE_MAX_FRAME)
        return err_set(e, ERR_PEER, "WELCOME sets a frame limit of %u, not %d to %d", w->max_frame, WIRE_FIRST_MAX,
                       WIRE_MAX_FRAME);
    w->resumed = resumed;
    sanitise(backend, n_backend, w->backend);
    return 0;
}

/* Index of the node called id among n with increasing ids, or -1. */
static int find_node(const uint8_t *nodes, int n, uint32_t id) {
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (wire_node(nodes, mid).id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && wire_node(nodes, lo).id == id ? lo : -1;
}

static int check_nodes(const struct wire_submit *s, struct err *e) {
    uint32_t last = 0;
    for (int i = 0; i < s->n_nodes; i++) {
        struct node v = wire_node(s->nodes, i);
        if (v.id <= last)
            return err_set(e, ERR_PEER, "SUBMIT %u: node %u comes after %u", s->seq, v.id, last);
        if (v.parent >= v.id)
            return err_set(e, ERR_PEER, "SUBMIT %u: node %u has the parent %u", s->seq, v.id, v.parent);
        int parent = find_node(s->nodes, i, v.parent);
        bool fits = v.parent == NODE_NONE ? v.pos == 0
                    : parent < 0          ? v.pos != 0
                                          : v.pos != 0 && wire_node(s->nodes, parent).pos == v.pos - 1;
        if (!fits)
            return err_set(e, ERR_PEER, "SUBMIT %u: node %u with parent %u is at position %u", s->seq, v.id, v.parent,
                           v.pos);
        if (s->audit && v.parent != last)
            return err_set(e, ERR_PEER, "SUBMIT %u: an audit has to be one chain, but the parent of %u is %u", s->seq,
                           v.id, v.parent);
        last = v.id;
    }
    return 0;
}

static int check_submit(const struct wire_submit *s, struct err *e) {
    uint32_t last = 0;
    if (s->seq == 0)
        return err_set(e, ERR_PEER, "SUBMIT has number 0");
    if ((s->rewind_len == 0) != (s->rewind_head == 0))
        return err_set(e, ERR_PEER, "SUBMIT %u rewinds to %u positions that end with %u", s->seq, s->rewind_len,
                       s->rewind_head);
    if (s->audit && (s->n_nodes == 0 || s->n_commit != 0 || s->rewind_len != 0))
        return err_set(e, ERR_PEER, "SUBMIT %u: an audit needs an empty context and at least one node", s->seq);
    for (int i = 0; i < s->n_commit; i++) {
        uint32_t id = wire_id(s->commit, i);
        if (id <= last)
            return err_set(e, ERR_PEER, "SUBMIT %u commits %u after %u", s->seq, id, last);
        last = id;
    }
    return check_nodes(s, e);
}

int wire_get_submit(const uint8_t *p, size_t n, size_t row_bytes, struct wire_submit *s, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *s = (struct wire_submit){0};
    s->seq = rbuf_u32(&r);
    uint8_t flags = rbuf_u8(&r), zero = rbuf_u8(&r);
    s->n_commit = rbuf_u16(&r);
    s->n_cancel = rbuf_u16(&r);
    s->n_nodes = rbuf_u16(&r);
    s->rewind = flags & SUBMIT_REWIND;
    s->audit = flags & SUBMIT_AUDIT;
    if (s->rewind) {
        s->rewind_len = rbuf_u32(&r);
        s->rewind_head = rbuf_u32(&r);
    }
    s->commit = rbuf_bytes(&r, (size_t)s->n_commit * ID_BYTES);
    s->cancel = rbuf_bytes(&r, (size_t)s->n_cancel * ID_BYTES);
    s->nodes = rbuf_bytes(&r, (size_t)s->n_nodes * NODE_BYTES);
    s->x = rbuf_bytes(&r, (size_t)s->n_nodes * row_bytes);
    if (finish(&r, "SUBMIT", e) != 0 || reserved(zero, "SUBMIT", e) != 0)
        return -1;
    if (flags & ~(SUBMIT_REWIND | SUBMIT_AUDIT))
        return err_set(e, ERR_PEER, "SUBMIT %u has the unknown flags %u", s->seq, flags);
    return check_submit(s, e);
}

int wire_get_result(const uint8_t *p, size_t n, size_t row_bytes, struct wire_result *r, struct err *e) {
    struct rbuf b = rbuf_of(p, n);
    *r = (struct wire_result){0};
    r->seq = rbuf_u32(&b);
    uint8_t flags = rbuf_u8(&b), zero = rbuf_u8(&b);
    r->n = rbuf_u16(&b);
    r->compute_us = rbuf_u32(&b);
    r->wait_us = rbuf_u32(&b);
    r->last = flags & RESULT_LAST;
    r->has_root = flags & RESULT_ROOT;
    r->ids = rbuf_bytes(&b, (size_t)r->n * ID_BYTES);
    r->x = rbuf_bytes(&b, (size_t)r->n * row_bytes);
    if (r->has_root)
        r->root = rbuf_bytes(&b, WIRE_DIGEST);
    if (finish(&b, "RESULT", e) != 0 || reserved(zero, "RESULT", e) != 0)
        return -1;
    if (r->seq == 0)
        return err_set(e, ERR_PEER, "RESULT is for SUBMIT 0");
    if (flags & ~(RESULT_LAST | RESULT_ROOT))
        return err_set(e, ERR_PEER, "RESULT %u has the unknown flags %u", r->seq, flags);
    if (r->has_root && !r->last)
        return err_set(e, ERR_PEER, "RESULT %u has a root and is not the last", r->seq);
    for (int i = 0; i < r->n; i++)
        if (wire_id(r->ids, i) == NODE_NONE)
            return err_set(e, ERR_PEER, "RESULT %u names node 0", r->seq);
    return 0;
}

int wire_get_ping(const uint8_t *p, size_t n, uint64_t *any, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *any = rbuf_u64(&r);
    return finish(&r, "PING or PONG", e);
}

int wire_get_challenge(const uint8_t *p, size_t n, uint32_t *seq, uint16_t *layer, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *seq = rbuf_u32(&r);
    *layer = rbuf_u16(&r);
    return finish(&r, "CHALLENGE", e);
}

int wire_get_opening(const uint8_t *p, size_t n, uint32_t hidden, struct wire_opening *o, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    size_t row = 4 * (size_t)hidden;
    *o = (struct wire_opening){0};
    o->seq = rbuf_u32(&r);
    o->layer = rbuf_u16(&r);
    o->n_leaves = rbuf_u16(&r);
    o->n_rows = rbuf_u32(&r);
    o->leaves = rbuf_bytes(&r, (size_t)o->n_leaves * WIRE_DIGEST);
    if (!r.bad && row != 0 && o->n_rows <= rbuf_left(&r) / 2 / row) { /* before a product that might overflow */
        o->in = rbuf_bytes(&r, o->n_rows * row);
        o->out = rbuf_bytes(&r, o->n_rows * row);
    } else
        r.bad = true;
    if (finish(&r, "OPENING", e) != 0)
        return -1;
    if (o->n_leaves < 2 || o->n_rows == 0)
        return err_set(e, ERR_PEER, "OPENING has %d leaves and %u rows", o->n_leaves, o->n_rows);
    return 0;
}

int wire_get_error(const uint8_t *p, size_t n, int *code, char text[WIRE_MAX_TEXT + 1], struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    *code = WIRE_E_FAILED;
    text[0] = '\0';
    uint16_t c = rbuf_u16(&r), n_text = rbuf_u16(&r);
    const uint8_t *t = rbuf_bytes(&r, n_text);
    if (finish(&r, "ERROR", e) != 0)
        return -1;
    if (n_text > WIRE_MAX_TEXT)
        return err_set(e, ERR_PEER, "ERROR has a text of %u bytes", n_text);
    if (c >= WIRE_E_PROTOCOL && c <= WIRE_E_IDLE)
        *code = c;
    sanitise(t, n_text, text);
    return 0;
}

/* ---- writers ---- */

/* Begins a frame; end_frame at its place fills the length in. */
static size_t begin_frame(struct wbuf *w, enum wire_type type) {
    size_t at = w->n;
    wbuf_u32(w, 0);
    wbuf_u8(w, (uint8_t)type);
    return at;
}

static void end_frame(struct wbuf *w, size_t at) {
    if (w->bad)
        return;
    size_t length = w->n - at - 4;
    for (int i = 0; i < 4; i++)
        w->p[at + (size_t)i] = (uint8_t)(length >> (8 * i));
}

static void put_ids(struct wbuf *w, const uint32_t *ids, int n) {
    for (int i = 0; i < n; i++)
        wbuf_u32(w, ids[i]);
}

static void put_rows(struct wbuf *w, enum codec c, const float *x, int n, int hidden) {
    size_t bytes = (size_t)n * codec_row_bytes(c, hidden);
    if (n == 0 || wbuf_room(w, bytes) != 0)
        return;
    codec_encode(c, x, n, hidden, w->p + w->n);
    w->n += bytes;
}

void wire_put_hello(struct wbuf *w, const struct wire_hello *h) {
    size_t at = begin_frame(w, WIRE_HELLO);
    wbuf_put(w, magic, sizeof magic);
    wbuf_u16(w, h->version);
    wbuf_u8(w, h->codec);
    wbuf_u8(w, h->kv);
    wbuf_u8(w, h->quant);
    wbuf_u8(w, 0);
    wbuf_u16(w, h->n_layers);
    wbuf_u16(w, h->lo);
    wbuf_u16(w, h->hi);
    wbuf_u32(w, h->hidden);
    wbuf_put(w, h->config, WIRE_DIGEST);
    wbuf_put(w, h->weights, WIRE_DIGEST);
    wbuf_u32(w, h->ctx);
    wbuf_u32(w, h->live);
    wbuf_put(w, h->token, WIRE_TOKEN);
    end_frame(w, at);
}

void wire_put_welcome(struct wbuf *w, const struct wire_welcome *m) {
    size_t at = begin_frame(w, WIRE_WELCOME), n = strnlen(m->backend, WIRE_MAX_BACKEND);
    wbuf_u16(w, m->version);
    wbuf_u8(w, m->resumed);
    wbuf_u8(w, 0);
    wbuf_put(w, m->token, WIRE_TOKEN);
    wbuf_u32(w, m->len);
    wbuf_u32(w, m->head);
    wbuf_u32(w, m->max_rows);
    wbuf_u32(w, m->max_frame);
    wbuf_u32(w, m->idle_ms);
    wbuf_u32(w, m->ttl_ms);
    wbuf_u8(w, (uint8_t)n);
    wbuf_put(w, m->backend, n);
    end_frame(w, at);
}

void wire_put_error(struct wbuf *w, enum wire_code code, const char *text) {
    size_t at = begin_frame(w, WIRE_ERROR), n = strnlen(text, WIRE_MAX_TEXT + 1);
    if (n > WIRE_MAX_TEXT)
        for (n = WIRE_MAX_TEXT; n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80;)
            n--; /* not within a character */
    wbuf_u16(w, (uint16_t)code);
    wbuf_u16(w, (uint16_t)n);
    wbuf_put(w, text, n);
    end_frame(w, at);
}

void wire_put_ping(struct wbuf *w, bool pong, uint64_t any) {
    size_t at = begin_frame(w, pong ? WIRE_PONG : WIRE_PING);
    wbuf_u64(w, any);
    end_frame(w, at);
}

void wire_put_bye(struct wbuf *w) {
    end_frame(w, begin_frame(w, WIRE_BYE));
}

void wire_put_challenge(struct wbuf *w, uint32_t seq, uint16_t layer) {
    size_t at = begin_frame(w, WIRE_CHALLENGE);
    wbuf_u32(w, seq);
    wbuf_u16(w, layer);
    end_frame(w, at);
}

void wire_put_submit(struct wbuf *w, const struct wire_submit_parts *s, enum codec c, int hidden, const float *x) {
    size_t at = begin_frame(w, WIRE_SUBMIT);
    wbuf_u32(w, s->seq);
    wbuf_u8(w, (uint8_t)((s->rewind ? SUBMIT_REWIND : 0) | (s->audit ? SUBMIT_AUDIT : 0)));
    wbuf_u8(w, 0);
    wbuf_u16(w, (uint16_t)s->n_commit);
    wbuf_u16(w, (uint16_t)s->n_cancel);
    wbuf_u16(w, (uint16_t)s->n_nodes);
    if (s->rewind) {
        wbuf_u32(w, s->rewind_len);
        wbuf_u32(w, s->rewind_head);
    }
    put_ids(w, s->commit, s->n_commit);
    put_ids(w, s->cancel, s->n_cancel);
    for (int i = 0; i < s->n_nodes; i++) {
        wbuf_u32(w, s->nodes[i].id);
        wbuf_u32(w, s->nodes[i].parent);
        wbuf_u32(w, s->nodes[i].pos);
    }
    put_rows(w, c, x, s->n_nodes, hidden);
    end_frame(w, at);
}

void wire_put_result(struct wbuf *w, const struct wire_result *r, const uint32_t *ids, enum codec c, int hidden,
                     const float *x, const uint8_t *root) {
    size_t at = begin_frame(w, WIRE_RESULT);
    wbuf_u32(w, r->seq);
    wbuf_u8(w, (uint8_t)((r->last ? RESULT_LAST : 0) | (root ? RESULT_ROOT : 0)));
    wbuf_u8(w, 0);
    wbuf_u16(w, (uint16_t)r->n);
    wbuf_u32(w, r->compute_us);
    wbuf_u32(w, r->wait_us);
    put_ids(w, ids, r->n);
    put_rows(w, c, x, r->n, hidden);
    if (root)
        wbuf_put(w, root, WIRE_DIGEST);
    end_frame(w, at);
}

void wire_put_opening(struct wbuf *w, const struct wire_opening *o, uint32_t hidden, const float *in,
                      const float *out) {
    size_t at = begin_frame(w, WIRE_OPENING);
    wbuf_u32(w, o->seq);
    wbuf_u16(w, o->layer);
    wbuf_u16(w, (uint16_t)o->n_leaves);
    wbuf_u32(w, o->n_rows);
    wbuf_put(w, o->leaves, (size_t)o->n_leaves * WIRE_DIGEST);
    put_rows(w, CODEC_F32, in, (int)o->n_rows, (int)hidden);
    put_rows(w, CODEC_F32, out, (int)o->n_rows, (int)hidden);
    end_frame(w, at);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

size_t wire_max_frame(size_t row_bytes, int hidden, uint32_t max_rows, uint32_t live, int n_boundaries) {
    size_t rows = max_rows < WIRE_MAX_LIST ? max_rows : WIRE_MAX_LIST;
    size_t ids = live < WIRE_MAX_LIST ? live : WIRE_MAX_LIST;
    size_t submit = 1 + SUBMIT_BYTES + 2 * ids * ID_BYTES + rows * (NODE_BYTES + row_bytes);
    size_t result = 1 + RESULT_BYTES + rows * (ID_BYTES + row_bytes) + WIRE_DIGEST;
    size_t opening = 1 + OPENING_BYTES + (size_t)n_boundaries * WIRE_DIGEST + rows * 2 * 4 * (size_t)hidden;
    return larger(larger(submit, result), larger(opening, WIRE_FIRST_MAX));
}

/* ---- HELLO against HELLO ---- */

static int refuse(char text[WIRE_MAX_TEXT + 1], enum wire_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int refuse(char text[WIRE_MAX_TEXT + 1], enum wire_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, WIRE_MAX_TEXT + 1, fmt, ap);
    va_end(ap);
    return (int)code;
}

static const char *name_of(const char *const *names, int n, int i) {
    return i < n ? names[i] : "an unknown one";
}

/* Front and back layers, as the options are called. */
static int refuse_split(const struct wire_hello *mine, const struct wire_hello *got, char *text) {
    if (got->lo >= got->hi || got->hi > got->n_layers)
        return refuse(text, WIRE_E_SPLIT, "the client asks for layers %u to %u of %u, which makes no sense", got->lo,
                      got->hi, got->n_layers);
    return refuse(
        text, WIRE_E_SPLIT,
        "the split differs: the cloud computes layers %u to %u (--front %u --back %u), the client wants %u to "
        "%u (--front %u --back %u); use the same --front and --back on both sides",
        mine->lo, mine->hi, mine->lo, mine->n_layers - mine->hi, got->lo, got->hi, got->lo, got->n_layers - got->hi);
}

enum dtype wire_kv_type(uint8_t kv) {
    static const enum dtype types[] = {DT_F16, DT_F32, DT_E4M3};
    return types[kv];
}

int wire_match(const struct wire_hello *mine, const struct wire_hello *got, char text[WIRE_MAX_TEXT + 1]) {
    static const char *const kv[] = {"f16", "f32", "fp8"}, *const quant[] = {"none", "q8", "q4"};
    text[0] = '\0';
    if (got->version != mine->version)
        return refuse(text, WIRE_E_VERSION,
                      "the cloud speaks version %u of the protocol, the client version %u; update the older one",
                      mine->version, got->version);
    if (got->codec >= N_CODECS)
        return refuse(text, WIRE_E_CODEC, "the cloud has the codecs f32, f16, bf16 and q8, the client wants number %u",
                      got->codec);
    if (got->kv != mine->kv)
        return refuse(text, WIRE_E_CODEC,
                      "the KV cache differs: %s on the cloud, %s wanted by the client; use the same --kv on both sides",
                      name_of(kv, 3, mine->kv), name_of(kv, 3, got->kv));
    if (got->quant != mine->quant)
        return refuse(
            text, WIRE_E_WEIGHTS,
            "the quantisation on load differs: %s on the cloud, %s wanted by the client; use the same --quant "
            "on both sides",
            name_of(quant, 3, mine->quant), name_of(quant, 3, got->quant));
    if (got->n_layers != mine->n_layers)
        return refuse(text, WIRE_E_MODEL,
                      "the models differ: %u layers on the cloud, %u on the client; use the same model on both sides",
                      mine->n_layers, got->n_layers);
    if (got->lo != mine->lo || got->hi != mine->hi)
        return refuse_split(mine, got, text);
    if (got->hidden != mine->hidden)
        return refuse(text, WIRE_E_MODEL,
                      "the models differ: hidden size %u on the cloud, %u on the client; use the same model on both "
                      "sides",
                      mine->hidden, got->hidden);
    if (memcmp(got->config, mine->config, WIRE_DIGEST) != 0)
        return refuse(text, WIRE_E_MODEL,
                      "the models differ in their configuration: digest %02x%02x%02x%02x on the cloud, "
                      "%02x%02x%02x%02x on the client; use the same model files on both sides",
                      mine->config[0], mine->config[1], mine->config[2], mine->config[3], got->config[0],
                      got->config[1], got->config[2], got->config[3]);
    if (!all_zero(got->weights, WIRE_DIGEST) && memcmp(got->weights, mine->weights, WIRE_DIGEST) != 0)
        return refuse(text, WIRE_E_WEIGHTS,
                      "the weights differ: fingerprint %02x%02x%02x%02x on the cloud, %02x%02x%02x%02x on the client; "
                      "use the same model files on both sides",
                      mine->weights[0], mine->weights[1], mine->weights[2], mine->weights[3], got->weights[0],
                      got->weights[1], got->weights[2], got->weights[3]);
    return 0;
}
