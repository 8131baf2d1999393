#include "net/cloud/serve.h"

#include "core/base/log.h"
#include "core/base/wipe.h"
#include "net/cloud/audit_store.h"

#include <stdio.h>
#include <string.h>

/* Frames of one port that are applied before the others have their turn. */
enum { FRAMES_PER_TURN = 64 };

/* ---- what is said ---- */

/* The port's last words. Its session, if it still has one, is the caller's business. */
void serve_refuse(struct port *p, enum wire_code code, const char *text) {
    struct frame *f = port_frame(p);
    if (f)
        wire_put_error(&f->buf, code, text);
    port_say(p, f);
    port_end(p);
}

/* The connection and its session are over. */
void serve_fail(struct server *v, struct port *p, enum wire_code code, const char *text) {
    struct cloud_session *c = p->session;
    log_line(LOG_WARN, "session event=failed id=%llu peer=%s code=%d why=\"%s\"",
             c ? (unsigned long long)c->number : 0ull, p->name, (int)code, text);
    if (c) {
        submit_forget(c, &v->scratch);
        sessions_end(&v->sessions, c, "ended");
    }
    serve_refuse(p, code, text);
}

void serve_result(struct port *p, const struct cloud_session *c, struct wire_result *r, const uint32_t *ids,
                  const float *x, int hidden, const uint8_t *root) {
    struct frame *f = port_frame(p);
    if (f)
        wire_put_result(&f->buf, r, ids, c->codec, hidden, x, root);
    port_say(p, f);
}

static void say_empty(struct port *p, const struct cloud_session *c, uint32_t seq, int hidden) {
    struct wire_result r = {.seq = seq, .last = true};
    serve_result(p, c, &r, NULL, NULL, hidden, NULL);
}

/* ---- HELLO ---- */

static void turn_away(struct server *v, struct port *p, enum wire_code code, const char *text) {
    char pin[PIN_TEXT];
    pin_format(&p->pin, pin);
    v->sessions.refused++;
    log_line(LOG_INFO, "session event=refused pin=%s peer=%s code=%d why=\"%s\"", pin, p->name, (int)code, text);
    serve_refuse(p, code, text);
}

/* Rows of one SUBMIT: what a pass holds, what may be in flight, and what a frame may hold. */
static uint32_t rows_of(const struct server *v, size_t row_bytes, uint32_t live) {
    uint32_t rows = (uint32_t)v->o.max_rows < live ? (uint32_t)v->o.max_rows : live;
    rows = rows < WIRE_MAX_LIST ? rows : WIRE_MAX_LIST;
    while (rows > 1 && wire_max_frame(row_bytes, v->hidden, rows, live, v->n_leaves) > WIRE_MAX_FRAME)
        rows -= rows / 16 + 1;
    return rows;
}

static void welcome(struct server *v, struct port *p, struct cloud_session *c, enum codec codec, bool resumed) {
    c->codec = codec;
    c->row_bytes = codec_row_bytes(codec, v->hidden);
    c->max_rows = rows_of(v, c->row_bytes, c->live);
    size_t max_frame = wire_max_frame(c->row_bytes, v->hidden, c->max_rows, c->live, v->n_leaves);
    max_frame = max_frame > WIRE_FIRST_MAX ? max_frame : WIRE_FIRST_MAX;
    max_frame = max_frame < WIRE_MAX_FRAME ? max_frame : WIRE_MAX_FRAME;
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .resumed = resumed,
                             .len = kv_table_len(c->table),
                             .head = kv_table_head(c->table),
                             .max_rows = c->max_rows,
                             .max_frame = (uint32_t)max_frame,
                             .idle_ms = v->o.idle_ms,
                             .ttl_ms = v->o.session_ttl_ms};
    memcpy(w.token, c->token, sizeof w.token);
    snprintf(w.backend, sizeof w.backend, "%s", v->o.backend_name ? v->o.backend_name : "");
    struct frame *f = port_frame(p);
    if (f)
        wire_put_welcome(&f->buf, &w);
    wipe(w.token, sizeof w.token);
    port_limit(p, (uint32_t)max_frame);
    port_say(p, f);
    sessions_log(c, resumed ? "resumed" : "created", NULL);
}

static void on_hello(struct server *v, struct port *p, const struct frame *f, double now) {
    struct err e = {0};
    struct wire_hello h;
    char text[WIRE_MAX_TEXT + 1];
    if (wire_get_hello(f->buf.p, f->buf.n, &h, &e) != 0) {
        serve_fail(v, p, WIRE_E_PROTOCOL, e.msg);
        return;
    }
    int code = wire_match(&v->o.mine, &h, text);
    struct cloud_session *c = NULL;
    static const uint8_t zeros[WIRE_TOKEN];
    if (code == 0 && v->draining) {
        code = WIRE_E_DRAINING;
        snprintf(text, sizeof text, "this cloud is going away and takes no new sessions: try later or elsewhere");
    }
    if (code == 0 && memcmp(h.token, zeros, sizeof zeros) != 0)
        c = sessions_find(&v->sessions, h.token, &p->pin);
    if (code == 0 && c && (c->ctx != h.ctx || c->live != h.live)) {
        code = WIRE_E_PROTOCOL;
        snprintf(text, sizeof text, "the session has ctx %u and live %u; it cannot go on with %u and %u", c->ctx,
                 c->live, h.ctx, h.live);
    }
    bool resumed = c != NULL;
    if (code == 0 && c) {
        struct port *before = c->port;
        if (before) {
            submit_forget(c, &v->scratch);
            sessions_detach(&v->sessions, c, now);
            sessions_log(c, "taken-over", NULL);
            serve_refuse(before, WIRE_E_TAKEN_OVER, "another connection goes on with this session");
        }
        v->sessions.resumed++;
        sessions_attach(&v->sessions, c, p);
    } else if (code == 0) {
        code = sessions_admit(&v->sessions, p, h.ctx, h.live, &c, text);
    }
    wipe(h.token, sizeof h.token);
    if (code != 0)
        turn_away(v, p, (enum wire_code)code, text);
    else
        welcome(v, p, c, (enum codec)h.codec, resumed);
}

/* ---- the other frames ---- */

/* false: f has to wait, and those behind it. */
static bool on_submit(struct server *v, struct port *p, struct frame *f) {
    struct cloud_session *c = p->session;
    struct err e = {0};
    bool ready;
    if (submit_ready(c, f, &ready, &e) != 0) {
        frame_pop(&p->inbox);
        port_done(p, f);
        serve_fail(v, p, WIRE_E_PROTOCOL, e.msg);
        return true;
    }
    if (!ready)
        return false;
    frame_pop(&p->inbox);
    struct frame_list finished = {0};
    int rc = submit_apply(c, &v->scratch, f, &finished, &e);
    for (struct frame *w; (w = frame_pop(&finished));) {
        if (rc == 0)
            say_empty(p, c, w->submit.seq, v->hidden);
        port_done(p, w);
    }
    if (rc != 0) {
        port_done(p, f);
        serve_fail(v, p,
                   e.kind == ERR_PEER     ? WIRE_E_PROTOCOL
                   : e.kind == ERR_MEMORY ? WIRE_E_FULL
                                          : WIRE_E_TOO_LARGE,
                   e.msg);
        return true;
    }
    if (f->n_waiting > 0)
        return true;
    if (f->submit.n_nodes > 0)
        say_empty(p, c, f->submit.seq, v->hidden);
    port_done(p, f);
    return true;
}

/* The client gives up this connection, not its session. */
static void on_error(struct server *v, struct port *p, const struct frame *f) {
    struct err e = {0};
    int code;
    char text[WIRE_MAX_TEXT + 1];
    if (wire_get_error(f->buf.p, f->buf.n, &code, text, &e) != 0) {
        serve_fail(v, p, WIRE_E_PROTOCOL, e.msg);
        return;
    }
    log_line(LOG_WARN, "session event=given-up id=%llu peer=%s code=%d", (unsigned long long)p->session->number,
             p->name, code);
    port_end(p);
}

static void on_challenge(struct server *v, struct port *p, const struct frame *f) {
    struct cloud_session *c = p->session;
    struct err e = {0};
    uint32_t seq;
    uint16_t layer;
    const struct part *part = &v->o.stage->part;
    if (wire_get_challenge(f->buf.p, f->buf.n, &seq, &layer, &e) != 0) {
        serve_fail(v, p, WIRE_E_PROTOCOL, e.msg);
        return;
    }
    if (!c->audit || c->audit->seq != seq || layer < part->lo || layer >= part->hi) {
        serve_fail(v, p, WIRE_E_PROTOCOL, "a CHALLENGE without its commitment, or for a layer that is not here");
        return;
    }
    struct audit_store *a = c->audit;
    int leaf = layer - part->lo;
    const struct wire_opening o = {
        .seq = seq, .layer = layer, .n_leaves = a->n_leaves, .n_rows = (uint32_t)a->n_rows, .leaves = a->leaves[0]};
    struct frame *out = port_frame(p);
    if (out)
        wire_put_opening(&out->buf, &o, (uint32_t)a->hidden, audit_store_row(a, leaf, 0),
                         audit_store_row(a, leaf + 1, 0));
    port_say(p, out);
}

/* Returns whether frames are left that could be looked at now. */
bool serve_port(struct server *v, struct port *p, double now) {
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        struct frame *f = p->inbox.first;
        if (!f || p->over || (port_clogged(p) && !p->gone))
            return false;
        if (f->type == WIRE_SUBMIT && p->session) {
            if (!on_submit(v, p, f))
                return false;
            continue;
        }
        if (f->type == WIRE_CHALLENGE && p->session && audit_store_open(p->session->audit))
            return false; /* until it is finished */
        frame_pop(&p->inbox);
        if (f->type == WIRE_PING) {
            /* net/cloud/cloud.c answers these ahead of everything */
        } else if (f->type == WIRE_HELLO && !p->session) {
            on_hello(v, p, f, now);
        } else if (f->type == WIRE_CHALLENGE && p->session) {
            on_challenge(v, p, f);
        } else if (f->type == WIRE_ERROR && p->session) {
            on_error(v, p, f);
        } else if (f->type == WIRE_BYE && p->session) {
            submit_forget(p->session, &v->scratch);
            sessions_end(&v->sessions, p->session, "ended");
            port_end(p);
        } else {
            char text[80];
            snprintf(text, sizeof text, "a %s %s", wire_type_name(f->type),
                     p->session ? "is not for the cloud" : "came before HELLO");
            serve_fail(v, p, WIRE_E_PROTOCOL, text);
        }
        port_done(p, f);
    }
    return true;
}

/* A BYE may stand behind a SUBMIT that has to wait. */
static bool said_bye(const struct port *p) {
    for (const struct frame *f = p->inbox.first; f; f = f->next)
        if (f->type == WIRE_BYE)
            return true;
    return false;
}

void serve_gone(struct server *v, struct port *p, double now) {
    struct cloud_session *c = p->session;
    if (c) {
        submit_forget(c, &v->scratch);
        if (said_bye(p)) {
            sessions_end(&v->sessions, c, "ended");
        } else {
            sessions_log(c, "detached", NULL);
            sessions_detach(&v->sessions, c, now);
        }
    }
    port_drop(p);
}

void serve_goodbye(struct server *v, struct port *p) {
    struct cloud_session *c = p->session;
    if (c) {
        submit_forget(c, &v->scratch);
        sessions_end(&v->sessions, c, "drained");
    }
    serve_refuse(p, WIRE_E_DRAINING, "this cloud is going away: try later or elsewhere");
}

/* ---- audits ---- */

static void finish_audit(struct cloud_session *c) {
    struct audit_store *a = c->audit;
    struct wire_result r = {.seq = a->seq,
                            .last = true,
                            .has_root = true,
                            .n = a->n_rows,
                            .compute_us = wire_us(a->compute_ms),
                            .wait_us = wire_us(a->started_ms - a->window->came_ms)};
    serve_result(c->port, c, &r, a->ids, audit_store_row(a, a->n_leaves - 1, 0), a->hidden, a->root);
    port_done(c->port, a->window);
    a->window = NULL;
}

/* Has rows of an audit that wait to be hashed. */
static bool can_step(const struct cloud_session *c) {
    return audit_store_open(c->audit) && c->audit->n_computed == c->audit->n_rows && !port_clogged(c->port);
}

bool serve_audits(struct server *v) {
    struct cloud_session *next = NULL;
    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < v->sessions.n; i++) {
        struct cloud_session *c = v->sessions.all[i];
        uint64_t after = c->number - v->audited - 1; /* wraps: those behind the last one first, then around */
        if (can_step(c) && (!next || after < best)) {
            best = after;
            next = c;
        }
    }
    if (!next)
        return false;
    struct err e = {0};
    v->audited = next->number;
    int rc = audit_store_step(next->audit, &e);
    if (rc < 0)
        serve_fail(v, next->port, WIRE_E_FAILED, e.msg);
    else if (rc > 0)
        finish_audit(next);
    return true; /* there may be more, and frames behind it */
}
