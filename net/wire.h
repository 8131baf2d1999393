/* net/wire.h - the messages of docs/protocol.md as bytes. Pure functions; everything read comes from a peer.
 * Readers take one frame's payload and give views into it: nothing is copied or allocated, and the view lives as long
 * as the frame. They check all that can be checked without knowing the session; ERR_PEER says what is wrong. Writers
 * append whole frames, length and type included; a wbuf that went bad is the caller's to see. */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/model/dtype.h"
#include "core/model/window.h"
#include "net/codec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_HEAD = 5,             /* bytes of length and type */
    WIRE_FIRST_MAX = 1024,     /* frame limit before WELCOME */
    WIRE_MAX_FRAME = 64 << 20, /* no WELCOME may say more */
    WIRE_MAX_LIST = 65535,
    WIRE_DIGEST = 32,
    WIRE_TOKEN = 16,
    WIRE_MAX_TEXT = 480,
    WIRE_MAX_BACKEND = 64,
    WIRE_FIRST_PIECE = 32 << 10, /* bytes of activations in the first RESULT of a window, where they are many */
};

/* clang-format off */
enum wire_type {
    WIRE_HELLO = 1, WIRE_WELCOME, WIRE_ERROR, WIRE_SUBMIT, WIRE_RESULT,
    WIRE_PING, WIRE_PONG, WIRE_BYE, WIRE_CHALLENGE, WIRE_OPENING,
};
const char *wire_type_name(int type); /* "SUBMIT"; "unknown" */

enum wire_code {
    WIRE_E_PROTOCOL = 1, WIRE_E_VERSION, WIRE_E_MODEL, WIRE_E_SPLIT, WIRE_E_WEIGHTS, WIRE_E_CODEC,
    WIRE_E_FULL, WIRE_E_TOO_LARGE, WIRE_E_DRAINING, WIRE_E_TAKEN_OVER, WIRE_E_FAILED, WIRE_E_IDLE,
};
/* clang-format on */

struct wire_hello {
    uint16_t version;
    uint8_t codec; /* enum codec; any number until wire_match has looked */
    uint8_t kv;    /* 0 f16, 1 f32, 2 fp8: wire_kv_type */
    uint8_t quant; /* enum quant */
    uint16_t n_layers, lo, hi;
    uint32_t hidden;
    uint8_t config[WIRE_DIGEST];
    uint8_t weights[WIRE_DIGEST]; /* zeros: the client does not have them */
    uint32_t ctx, live;
    uint8_t token[WIRE_TOKEN];
};
enum dtype wire_kv_type(uint8_t kv); /* of one that wire_match knows */

struct wire_welcome {
    uint16_t version;
    bool resumed;
    uint8_t token[WIRE_TOKEN];
    uint32_t len, head;
    uint32_t max_rows, max_frame, idle_ms, ttl_ms;
    char backend[WIRE_MAX_BACKEND + 1];
};

struct wire_submit {
    uint32_t seq;
    bool rewind, audit;
    uint32_t rewind_len, rewind_head;
    int n_commit, n_cancel, n_nodes;
    const uint8_t *commit, *cancel, *nodes; /* wire_id, wire_node */
    const uint8_t *x;                       /* n_nodes activations */
};

struct wire_result {
    uint32_t seq;
    bool last, has_root;
    int n;
    uint32_t compute_us, wait_us;
    const uint8_t *ids;  /* wire_id */
    const uint8_t *x;    /* n activations */
    const uint8_t *root; /* NULL without */
};

struct wire_opening {
    uint32_t seq;
    uint16_t layer;
    int n_leaves;
    uint32_t n_rows;
    const uint8_t *leaves;   /* [n_leaves][WIRE_DIGEST] */
    const uint8_t *in, *out; /* f32 [n_rows][hidden] */
};

/* Item i of a list in a view. */
uint32_t wire_id(const uint8_t *list, int i);
struct node wire_node(const uint8_t *list, int i);

/* The header of a frame. 1: *type and *len (of the payload) are set; 0: more than n bytes are needed; -1: ERR_PEER, the
 * length is 0 or above max_frame. */
int wire_head(const uint8_t *p, size_t n, uint32_t max_frame, int *type, size_t *len, struct err *e);

/* Readers. p, n: the payload. row_bytes: of the session's codec; hidden: numbers in an activation. */
/* Of another version only that is read, which wire_match refuses. */
int wire_get_hello(const uint8_t *p, size_t n, struct wire_hello *h, struct err *e);
int wire_get_welcome(const uint8_t *p, size_t n, struct wire_welcome *w, struct err *e);
int wire_get_submit(const uint8_t *p, size_t n, size_t row_bytes, struct wire_submit *s, struct err *e);
int wire_get_result(const uint8_t *p, size_t n, size_t row_bytes, struct wire_result *r, struct err *e);
int wire_get_ping(const uint8_t *p, size_t n, uint64_t *any, struct err *e);
int wire_get_challenge(const uint8_t *p, size_t n, uint32_t *seq, uint16_t *layer, struct err *e);
int wire_get_opening(const uint8_t *p, size_t n, uint32_t hidden, struct wire_opening *o, struct err *e);
/* text (as the backend of a WELCOME): as the peer wrote it, control characters and broken UTF-8 replaced by '?'. An
 * unknown code becomes WIRE_E_FAILED. */
int wire_get_error(const uint8_t *p, size_t n, int *code, char text[WIRE_MAX_TEXT + 1], struct err *e);

/* Writers: append one frame. Lengths and counts are the caller's own and must be within the limits above. */
void wire_put_hello(struct wbuf *w, const struct wire_hello *h);
void wire_put_welcome(struct wbuf *w, const struct wire_welcome *m);
void wire_put_error(struct wbuf *w, enum wire_code code, const char *text); /* cut at WIRE_MAX_TEXT */
void wire_put_ping(struct wbuf *w, bool pong, uint64_t any);
void wire_put_bye(struct wbuf *w);
void wire_put_challenge(struct wbuf *w, uint32_t seq, uint16_t layer);

struct wire_submit_parts {
    uint32_t seq;
    bool rewind, audit;
    uint32_t rewind_len, rewind_head;
    const uint32_t *commit, *cancel;
    const struct node *nodes;
    int n_commit, n_cancel, n_nodes;
};
void wire_put_submit(struct wbuf *w, const struct wire_submit_parts *s, enum codec c, int hidden, const float *x);
/* root NULL: without. s->ids, x and root of the view are not used. */
void wire_put_result(struct wbuf *w, const struct wire_result *r, const uint32_t *ids, enum codec c, int hidden,
                     const float *x, const uint8_t *root);
void wire_put_opening(struct wbuf *w, const struct wire_opening *o, uint32_t hidden, const float *in, const float *out);

/* The largest frame of a session, as max_frame counts (type and payload, at least WIRE_FIRST_MAX): a SUBMIT of max_rows
 * nodes with live ids in both lists, their RESULT, or the OPENING of an audit of max_rows rows over n_boundaries. It
 * may be above WIRE_MAX_FRAME: then max_rows is too large. */
size_t wire_max_frame(size_t row_bytes, int hidden, uint32_t max_rows, uint32_t live, int n_boundaries);

/* Does what the client wants (got) match what the cloud runs (mine)? 0, or the code to refuse with and the text that
 * names the first difference and both values. Codec: any that exists is served; mine->codec is not looked at. */
int wire_match(const struct wire_hello *mine, const struct wire_hello *got, char text[WIRE_MAX_TEXT + 1]);

/* Milliseconds as the microseconds of a RESULT: what does not fit is as much as does. */
uint32_t wire_us(double ms);

#endif
