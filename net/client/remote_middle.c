/* The middle on top of a channel: SUBMITs with what was gathered, and results. */
#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "net/client/remote.h"

#include <stdlib.h>
#include <string.h>

enum {
    SUBMIT_FIXED = 29, /* bytes of a SUBMIT without its lists, type included */
    NODE_BYTES = 12,
};

/* The cloud broke the rules in a way that the channel does not see. The lock is held. */
static int broke_rules(struct remote *r, const struct err *why, struct err *e) {
    wire_put_error(channel_out(r->ch), WIRE_E_PROTOCOL, why->msg);
    channel_send(r->ch);
    r->why = *why;
    return remote_lost(r, e);
}

/* ---- what comes: on the channel's thread ---- */

static void forget_done(struct remote *r) {
    while (r->n_flights > 0 && r->flights[r->first_flight].done) {
        r->first_flight = (r->first_flight + 1) % REMOTE_FLIGHTS;
        r->n_flights--;
    }
    channel_expect(r->ch, r->n_flights > 0 || r->awaiting);
}

static struct remote_flight *flight_of(struct remote *r, uint32_t seq) {
    for (int i = 0; i < r->n_flights; i++) {
        struct remote_flight *f = &r->flights[(r->first_flight + i) % REMOTE_FLIGHTS];
        if (f->seq == seq && !f->done)
            return f;
    }
    return NULL;
}

static int check_result(const struct remote *r, const struct wire_result *v, const struct remote_flight *f,
                        struct err *e) {
    if (!f)
        return err_set(e, ERR_PEER, "a RESULT came for SUBMIT %u, which is not in flight", v->seq);
    if (v->n > f->n - f->got)
        return err_set(e, ERR_PEER, "RESULTs of SUBMIT %u have %d nodes, it had %d", v->seq, f->got + v->n, f->n);
    for (int i = 0; i < v->n; i++)
        if (wire_id(v->ids, i) < f->first || wire_id(v->ids, i) > f->last)
            return err_set(e, ERR_PEER, "a RESULT of SUBMIT %u names node %u, which was not in it", v->seq,
                           wire_id(v->ids, i));
    if (v->has_root != (f->audit && v->last))
        return err_set(e, ERR_PEER, "the RESULT of SUBMIT %u %s a commitment", v->seq, v->has_root ? "has" : "lacks");
    if (r->n_results == r->max_results)
        return err_set(e, ERR_PEER, "more RESULTs came than were asked for");
    return 0;
}

/* Puts payload into the queue and leaves empty memory in its place. */
static void queue_result(struct remote *r, struct wbuf *payload) {
    struct wbuf *slot = &r->results[(r->first_result + r->n_results++) % r->max_results];
    *slot = *payload;
    *payload = r->n_spare > 0 ? r->spare[--r->n_spare] : (struct wbuf){0};
}

int remote_on_frame(void *ctx, int type, struct wbuf *payload, struct err *e) {
    struct remote *r = ctx;
    if (type == WIRE_OPENING) {
        if (!r->awaiting)
            return err_set(e, ERR_PEER, "an OPENING came that was not asked for");
        struct wbuf old = r->opening;
        r->opening = *payload;
        *payload = old;
        r->awaiting = false;
        r->has_opening = true;
        r->progress = clock_ms();
        forget_done(r);
        return 0;
    }
    struct wire_result v;
    if (wire_get_result(payload->p, payload->n, r->row_bytes, &v, e) != 0)
        return -1;
    struct remote_flight *f = flight_of(r, v.seq);
    if (check_result(r, &v, f, e) != 0)
        return -1;
    f->got += v.n;
    f->done = v.last;
    if (v.n > 0 || v.last)
        r->progress = clock_ms();
    if (v.has_root) {
        memcpy(r->root, v.root, sizeof r->root);
        r->has_root = true;
    }
    if (f->done && !f->dropped)
        r->n_wanted--;
    /* Nothing is queued without nodes or an end, so the queue is bounded by what was asked for. */
    if (!f->dropped && (v.n > 0 || v.last))
        queue_result(r, payload);
    forget_done(r);
    return 0;
}

/* Takes the lock; -1 without it when the connection is lost. */
static int enter(struct remote *r, struct err *e) {
    if (!r->ch)
        return remote_lost(r, e);
    channel_lock(r->ch);
    if (!r->lost && !channel_dead(r->ch, NULL, NULL))
        return 0;
    remote_lost(r, e);
    channel_unlock(r->ch);
    return -1;
}

/* ---- waiting: the lock is held ---- */

/* A cloud may be there and answer PINGs, and not compute: it hangs, or has far too much to do. */
static void judge_progress(struct remote *r) {
    double quiet = clock_ms() - r->progress;
    if (r->lost || (r->n_flights == 0 && !r->awaiting) || quiet < r->o.progress_ms)
        return;
    err_set(&r->why, ERR_IO, "it is there and has computed nothing for %.1f s", quiet / 1000);
    r->code = 0;
    r->elsewhere = true;
    remote_lost(r, NULL);
}

static bool lost_while_waiting(struct remote *r) {
    bool dead = channel_dead(r->ch, NULL, NULL);
    if (!dead)
        judge_progress(r);
    return r->lost || dead;
}

/* At most ms, until something happens. false: stop was asked. */
static bool wait_a_little(struct remote *r, double ms) {
    channel_wait(r->ch, ms);
    if (!r->o.stop)
        return true;
    channel_unlock(r->ch);
    bool stop = remote_asked_to_stop(r);
    channel_lock(r->ch);
    return !stop;
}

/* ---- what goes: the lock is held ---- */

/* Ids that fill lists of n up. */
static size_t padding(const struct remote *r, size_t n) {
    size_t unit = r->o.pad_ids;
    return unit ? (n / unit + (n % unit || n == 0)) * unit - n : 0;
}

static size_t lists_bytes(const struct remote *r) {
    size_t n = (size_t)(r->len - r->told) + (size_t)r->n_cancel;
    return 4 * (n + padding(r, n));
}

static bool anything_gathered(const struct remote *r) {
    return r->rewind || r->len > r->told || r->n_cancel > 0;
}

/* One SUBMIT with n_commit and n_cancel of what was gathered, and nodes. */
static void put_submit(struct remote *r, int n_commit, int n_cancel, const struct node *nodes, int n, const float *x) {
    int room = n_cancel == r->n_cancel ? r->max_cancel - n_cancel : 0; /* behind all that are cancelled */
    int pad = (int)padding(r, (size_t)n_commit + (size_t)n_cancel);
    pad = pad < room ? pad : room;
    for (int i = 0; i < pad; i++)
        r->cancel[n_cancel + i] = NODE_NONE;
    const struct wire_submit_parts s = {.seq = ++r->seq,
                                        .rewind = r->rewind,
                                        .audit = r->audit_next && n > 0,
                                        .rewind_len = r->told,
                                        .rewind_head = r->told ? r->chain[r->told - 1] : NODE_NONE,
                                        .commit = r->chain + r->told,
                                        .n_commit = n_commit,
                                        .cancel = r->cancel,
                                        .n_cancel = n_cancel + pad,
                                        .nodes = nodes,
                                        .n_nodes = n};
    wire_put_submit(channel_out(r->ch), &s, r->codec, r->hidden, x);
    r->rewind = false;
    r->told += (uint32_t)n_commit;
    r->n_cancel -= n_cancel;
    memmove(r->cancel, r->cancel + n_cancel, (size_t)r->n_cancel * sizeof *r->cancel);
    if (n == 0)
        return;
    if (r->n_flights == 0)
        r->progress = clock_ms();
    r->flights[(r->first_flight + r->n_flights++) % REMOTE_FLIGHTS] =
        (struct remote_flight){.seq = s.seq, .first = nodes[0].id, .last = nodes[n - 1].id, .n = n, .audit = s.audit};
    r->n_wanted++;
    if (s.audit)
        r->audit_seq = s.seq;
    r->audit_next = false;
    channel_expect(r->ch, true);
}

/* What was gathered, in SUBMITs of its own. */
static void put_gathered(struct remote *r) {
    size_t room = (r->welcome.max_frame - SUBMIT_FIXED) / 4;
    while (anything_gathered(r)) {
        size_t left = room < WIRE_MAX_LIST ? room : WIRE_MAX_LIST;
        left = left > 2 * (size_t)r->o.pad_ids ? left - r->o.pad_ids : left;
        uint32_t waiting = r->len - r->told;
        int n_commit = waiting < left ? (int)waiting : (int)left;
        left -= (size_t)n_commit;
        put_submit(r, n_commit, (size_t)r->n_cancel < left ? r->n_cancel : (int)left, NULL, 0, NULL);
    }
    channel_send(r->ch);
}

/* As many SUBMITs as there is a place for have no answer yet: waits for one. */
static int await_flight(struct remote *r, struct err *e) {
    while (r->n_flights == REMOTE_FLIGHTS) {
        if (lost_while_waiting(r))
            return remote_lost(r, e);
        if (!wait_a_little(r, REMOTE_SLICE_MS))
            return -1;
    }
    return 0;
}

static int rm_submit(struct middle *m, const struct window *w, const float *x, struct err *e) {
    struct remote *r = remote_of(m);
    double t0 = clock_ms();
    if (enter(r, e) != 0)
        return -1;
    int rc = -1;
    size_t row = r->row_bytes + NODE_BYTES, room = r->welcome.max_frame - SUBMIT_FIXED, most = room / row;
    most = most < r->welcome.max_rows ? most : r->welcome.max_rows;
    if (r->audit_next && (r->len != 0 || (size_t)w->n > most)) {
        err_set(e, ERR_USAGE, "a commitment is to an empty context and at most %zu rows, not to %u and %d", most,
                r->len, w->n);
        goto out;
    }
    if (lists_bytes(r) > room / 2 || lists_bytes(r) / 4 > WIRE_MAX_LIST || lists_bytes(r) + row > room)
        put_gathered(r);
    for (int at = 0; at < w->n;) {
        size_t fit = (room - lists_bytes(r)) / row, left = (size_t)(w->n - at);
        fit = fit < r->welcome.max_rows ? fit : r->welcome.max_rows;
        int n = (int)(fit < left ? fit : left);
        if (r->n_flights == REMOTE_FLIGHTS && await_flight(r, e) != 0)
            goto out;
        put_submit(r, (int)(r->len - r->told), r->n_cancel, w->nodes + at, n, x + (size_t)at * (size_t)r->hidden);
        channel_send(r->ch);
        at += n;
    }
    r->info.work_ms += clock_ms() - t0;
    rc = 0;
out:
    channel_unlock(r->ch);
    return rc;
}

static int rm_commit(struct middle *m, const uint32_t *ids, int n, struct err *e) {
    struct remote *r = remote_of(m);
    int rc = 0;
    if (enter(r, e) != 0)
        return -1;
    if (n > 0 && (uint32_t)n > r->o.hello.ctx - r->len)
        rc = err_set(e, ERR_USAGE, "the context of %u positions is full", r->o.hello.ctx);
    else if (n > 0) {
        memcpy(r->chain + r->len, ids, (size_t)n * sizeof *ids);
        r->len += (uint32_t)n;
    }
    channel_unlock(r->ch);
    return rc;
}

static int rm_cancel(struct middle *m, uint32_t id, struct err *e) {
    struct remote *r = remote_of(m);
    if (enter(r, e) != 0)
        return -1;
    if (r->n_cancel == r->max_cancel)
        put_gathered(r);
    r->cancel[r->n_cancel++] = id;
    if (r->n_wanted > 0 && r->o.pad_ids == 0) /* it may spare the cloud work */
        put_gathered(r);
    channel_unlock(r->ch);
    return 0;
}

/* Nothing that is in flight, or came and was not collected, is of use any more. */
static void drop_flights(struct remote *r) {
    for (int i = 0; i < r->n_flights; i++)
        r->flights[(r->first_flight + i) % REMOTE_FLIGHTS].dropped = true;
    r->n_wanted = 0;
    for (; r->n_results > 0; r->n_results--) {
        wbuf_free(&r->results[r->first_result]);
        r->first_result = (r->first_result + 1) % r->max_results;
    }
    r->has_root = false;
}

static int rm_rewind(struct middle *m, uint32_t len, uint32_t head, struct err *e) {
    struct remote *r = remote_of(m);
    int rc = -1;
    if (enter(r, e) != 0)
        return -1;
    if (len > r->len || (len && r->chain[len - 1] != head)) {
        err_set(e, ERR_USAGE, "cannot rewind to %u of %u positions", len, r->len);
        goto out;
    }
    bool in_flight = r->n_wanted > 0;
    if (len > r->told) /* nodes that wait to be committed would be dropped as well */
        put_gathered(r);
    r->len = r->told = len;
    r->rewind = true;
    r->n_cancel = 0;
    drop_flights(r);
    if (in_flight)
        put_gathered(r);
    rc = 0;
out:
    channel_unlock(r->ch);
    return rc;
}

/* ---- results ---- */

/* Decodes a RESULT, outside the lock: the payload is the caller's. */
static int decode(struct remote *r, const struct wbuf *payload, struct middle_result *out, struct err *e) {
    struct wire_result v;
    if (wire_get_result(payload->p, payload->n, r->row_bytes, &v, e) != 0)
        return -1;
    if (v.n > out->cap)
        return err_set(e, ERR_USAGE, "a result of %d rows for a place of %d", v.n, out->cap);
    if (codec_decode(r->codec, v.x, v.n, r->hidden, out->x) != 0)
        return err_set(e, ERR_PEER, "a RESULT has numbers that are not finite");
    for (int i = 0; i < v.n; i++)
        out->ids[i] = wire_id(v.ids, i);
    out->n = v.n;
    out->compute_ms = v.compute_us / 1000.0;
    return 0;
}

static int take_result(struct remote *r, struct middle_result *out, struct err *e) {
    struct err why = {0};
    struct wbuf payload = r->results[r->first_result];
    r->results[r->first_result] = (struct wbuf){0};
    r->first_result = (r->first_result + 1) % r->max_results;
    r->n_results--;
    channel_unlock(r->ch);
    double t0 = clock_ms();
    int rc = decode(r, &payload, out, &why);
    wbuf_clear(&payload);
    r->info.work_ms += clock_ms() - t0;
    channel_lock(r->ch);
    if (r->n_spare < REMOTE_SPARE)
        r->spare[r->n_spare++] = payload;
    else
        wbuf_free(&payload);
    if (rc != 0 && why.kind == ERR_PEER)
        return broke_rules(r, &why, e);
    if (rc != 0)
        return err_set(e, why.kind, "%s", why.msg);
    r->faults = 0;
    return 1;
}

static int rm_collect(struct middle *m, struct middle_result *out, int timeout_ms, struct err *e) {
    struct remote *r = remote_of(m);
    double until = clock_ms() + timeout_ms;
    int rc = -1;
    out->n = 0;
    if (enter(r, e) != 0)
        return -1;
    for (;;) {
        if (r->n_results > 0) {
            rc = take_result(r, out, e);
            break;
        }
        if (lost_while_waiting(r)) {
            rc = remote_lost(r, e);
            break;
        }
        double left = timeout_ms < 0 ? REMOTE_SLICE_MS : until - clock_ms();
        if (r->n_wanted == 0 || left <= 0) {
            rc = 0;
            break;
        }
        if (!wait_a_little(r, left < REMOTE_SLICE_MS ? left : REMOTE_SLICE_MS) && r->n_results == 0)
            break;
    }
    channel_unlock(r->ch);
    return rc;
}

/* ---- commitments ---- */

int remote_middle_audit_next(struct middle *m, struct err *e) {
    struct remote *r = remote_of(m);
    if (enter(r, e) != 0)
        return -1;
    r->audit_next = true;
    r->has_root = false;
    channel_unlock(r->ch);
    return 0;
}

int remote_middle_root(struct middle *m, uint8_t root[WIRE_DIGEST], struct err *e) {
    struct remote *r = remote_of(m);
    if (enter(r, e) != 0)
        return -1;
    int rc = r->has_root ? 0 : err_set(e, ERR_USAGE, "the cloud has not committed to anything");
    if (rc == 0)
        memcpy(root, r->root, sizeof r->root);
    channel_unlock(r->ch);
    return rc;
}

int remote_middle_challenge(struct middle *m, uint16_t layer, struct wbuf *out, int timeout_ms, struct err *e) {
    struct remote *r = remote_of(m);
    double until = clock_ms() + timeout_ms;
    int rc = -1;
    if (enter(r, e) != 0)
        return -1;
    if (!r->has_root || r->seq != r->audit_seq || r->n_wanted > 0 || r->awaiting) {
        err_set(e, ERR_USAGE, "a commitment can be opened until something else is submitted, and layer by layer");
        goto out;
    }
    r->awaiting = true;
    r->progress = clock_ms();
    r->has_opening = false;
    wire_put_challenge(channel_out(r->ch), r->audit_seq, layer);
    channel_limit(r->ch, r->welcome.max_frame);
    channel_expect(r->ch, true);
    channel_send(r->ch);
    for (;;) {
        if (r->has_opening) {
            struct wbuf old = *out;
            *out = r->opening;
            wbuf_free(&old);
            r->opening = (struct wbuf){0};
            rc = 0;
            break;
        }
        if (lost_while_waiting(r)) {
            remote_lost(r, e);
            break;
        }
        double left = until - clock_ms();
        if (left <= 0) {
            err_set(e, ERR_IO, "the cloud %s did not open its commitment within %d ms", dial_address(r->dial, r->cloud),
                    timeout_ms);
            break;
        }
        if (!wait_a_little(r, left < REMOTE_SLICE_MS ? left : REMOTE_SLICE_MS))
            break;
    }
out:
    channel_unlock(r->ch);
    return rc;
}

void remote_clear_queue(struct remote *r) {
    drop_flights(r);
    r->first_flight = r->n_flights = 0;
    r->n_cancel = 0;
    r->rewind = false;
    r->audit_next = r->awaiting = r->has_opening = false;
    r->audit_seq = r->seq = 0;
    wbuf_free(&r->opening);
}

const struct middle_ops remote_ops = {
    .name = "remote",
    .free = remote_free,
    .submit = rm_submit,
    .commit = rm_commit,
    .cancel = rm_cancel,
    .rewind = rm_rewind,
    .collect = rm_collect,
    .recover = remote_recover,
};
