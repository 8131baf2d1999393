/* Connections of a remote middle: the first, and after a loss the next, to the same cloud or another one. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/wipe.h"
#include "net/client/remote.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CONNECT_MS = 10000,
    STALL_MS = 10000,
    PROGRESS_MS = 300000,
    PATIENCE_MS = 120000,
    KEEP_MS = 15000,
    FIRST_PAUSE_MS = 100,
    LAST_PAUSE_MS = 2000,
    MAX_FAULTS = 2, /* breaches of the protocol without a result between them: after that it is no accident */
};

struct remote *remote_of(struct middle *m) {
    return (struct remote *)(void *)m;
}

bool remote_asked_to_stop(struct remote *r) {
    return r->o.stop && r->o.stop(r->o.stop_ctx) != 0;
}

__attribute__((format(printf, 3, 4))) static void tell(struct remote *r, enum remote_event what, const char *fmt, ...) {
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_line(LOG_INFO, "%s", text);
    if (r->o.event)
        r->o.event(r->o.event_ctx, what, text);
}

/* Said by an honest cloud that cannot go on now: no more to be held against it than a link that breaks. */
static bool is_trouble(int code) {
    return code == WIRE_E_FULL || code == WIRE_E_DRAINING || code == WIRE_E_TAKEN_OVER || code == WIRE_E_FAILED ||
           code == WIRE_E_IDLE;
}

int remote_lost(struct remote *r, struct err *e) {
    const char *address = dial_address(r->dial, r->cloud);
    if (!r->lost) {
        r->lost = true;
        r->lost_at = clock_ms();
        if (r->why.kind == ERR_NONE) /* else broken rules that the channel did not see */
            channel_dead(r->ch, &r->why, &r->code);
        r->faults += r->why.kind == ERR_PEER && (r->code == 0 || r->code == WIRE_E_PROTOCOL);
    }
    if (r->code != 0)
        return err_set(e, is_trouble(r->code) ? ERR_IO : r->why.kind, "the cloud %s says: %s", address, r->why.msg);
    return err_set(e, r->why.kind, "the connection to the cloud %s is lost: %s", address, r->why.msg);
}

/* ---- one connection ---- */

static void close_channel(struct remote *r, bool bye) {
    if (!r->ch)
        return;
    struct channel_info c;
    channel_lock(r->ch);
    channel_info(r->ch, &c);
    channel_unlock(r->ch);
    r->info.bytes_up += c.up;
    r->info.bytes_down += c.down;
    r->info.work_ms += c.read_ms;
    channel_free(r->ch, bye);
    r->ch = NULL;
}

/* Tries cloud i once. On success the channel runs, and nothing is in flight. */
static enum dial_verdict open_channel(struct remote *r, int i, double until, struct err *e) {
    double now = clock_ms();
    const struct address_wait w = {.until = now + r->o.connect_ms < until ? now + r->o.connect_ms : until,
                                   .stop = r->o.stop,
                                   .stop_ctx = r->o.stop_ctx};
    struct channel *ch;
    struct wire_welcome m;
    enum dial_verdict v = dial_try(r->dial, i, &w, &ch, &m, e);
    if (v != DIAL_DONE)
        return v;
    size_t live = r->o.hello.live, row = r->row_bytes + 16,
           rows = r->o.max_rows < m.max_rows ? r->o.max_rows : m.max_rows;
    uint32_t keep = m.idle_ms / 3 < KEEP_MS ? m.idle_ms / 3 + 1 : KEEP_MS;
    const struct channel_opts o = {.frame = remote_on_frame,
                                   .ctx = r,
                                   .stall_ms = r->o.stall_ms,
                                   .keep_ms = keep,
                                   .max_out = 2 * live * row + m.max_frame + (1 << 20)};
    size_t largest = WIRE_FIRST_MAX + rows * row; /* no RESULT is longer */
    if (largest < m.max_frame)
        channel_limit(ch, (uint32_t)largest);
    if (r->info.connections > 0 && strcmp(r->welcome.backend, m.backend) != 0)
        log_line(LOG_WARN, "the cloud computes with %s now, with %s before: what follows may differ in its last bits",
                 m.backend, r->welcome.backend);
    remote_clear_queue(r);
    r->ch = ch;
    r->cloud = i;
    r->welcome = m;
    wipe(m.token, sizeof m.token);
    wipe(r->welcome.token, sizeof r->welcome.token);
    if (channel_start(ch, &o, e) != 0) {
        close_channel(r, false);
        return DIAL_NEVER;
    }
    r->info.connections++;
    r->lost = r->elsewhere = false;
    r->why = (struct err){0};
    r->code = 0;
    return DIAL_DONE;
}

/* ---- the first ---- */

static int start(struct remote *r, struct err *e) {
    struct err first = {0};
    int n = dial_count(r->dial);
    for (int i = 0; i < n; i++) {
        struct err why = {0};
        enum dial_verdict v = open_channel(r, i, clock_ms() + r->o.connect_ms, &why);
        if (v == DIAL_DONE) {
            tell(r, REMOTE_CONNECTED, "connected to the cloud %s", dial_address(r->dial, i));
            return 0;
        }
        if (v == DIAL_STOPPED)
            return -1;
        if (n > 1)
            tell(r, REMOTE_RETRY, "%s", why.msg);
        err_set(&first, why.kind, "%s", why.msg);
    }
    return n == 1 ? err_set(e, first.kind, "%s", first.msg)
                  : err_set(e, first.kind, "none of %d clouds can be used; the first: %s", n, first.msg);
}

int remote_middle_create(struct middle **out, const struct remote_opts *o, struct err *e) {
    *out = NULL;
    if (o->hello.ctx < 1 || o->hello.live < 1 || o->hello.live > INT32_MAX / 2)
        return err_set(e, ERR_USAGE, "a session of %u positions and %u nodes in flight", o->hello.ctx, o->hello.live);
    if (o->pad_ids > o->hello.live / 2)
        return err_set(e, ERR_USAGE, "lists padded to multiples of %u ids, and %u nodes in flight", o->pad_ids,
                       o->hello.live);
    struct remote *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_MEMORY, "out of memory");
    r->base.ops = &remote_ops;
    r->o = *o;
    r->o.clouds = NULL;
    r->o.connect_ms = o->connect_ms ? o->connect_ms : CONNECT_MS;
    r->o.stall_ms = o->stall_ms ? o->stall_ms : STALL_MS;
    r->o.progress_ms = o->progress_ms ? o->progress_ms : PROGRESS_MS;
    r->o.patience_ms = o->patience_ms ? o->patience_ms : PATIENCE_MS;
    r->codec = (enum codec)o->hello.codec;
    r->hidden = (int)o->hello.hidden;
    r->row_bytes = codec_row_bytes(r->codec, r->hidden);
    r->max_cancel = (int)o->hello.live;
    r->max_results = (int)o->hello.live + REMOTE_FLIGHTS;
    r->o.max_rows = o->max_rows ? o->max_rows : WIRE_MAX_LIST;
    r->chain = calloc(o->hello.ctx, sizeof *r->chain);
    r->cancel = malloc((size_t)r->max_cancel * sizeof *r->cancel);
    r->results = calloc((size_t)r->max_results, sizeof *r->results);
    if (!r->chain || !r->cancel || !r->results) {
        err_set(e, ERR_MEMORY, "out of memory for a context of %u positions", o->hello.ctx);
        goto fail;
    }
    if (dial_create(&r->dial, o, e) != 0 || start(r, e) != 0)
        goto fail;
    *out = &r->base;
    return 0;
fail:
    remote_free(&r->base);
    return -1;
}

void remote_free(struct middle *m) {
    struct remote *r = remote_of(m);
    if (!r)
        return;
    close_channel(r, !r->lost);
    if (r->results)
        remote_clear_queue(r);
    while (r->n_spare > 0)
        wbuf_free(&r->spare[--r->n_spare]);
    dial_free(r->dial);
    free(r->chain);
    free(r->cancel);
    free(r->results);
    wipe_free(r, sizeof *r);
}

void remote_middle_info(struct middle *m, struct remote_info *info) {
    struct remote *r = remote_of(m);
    struct channel_info c = {0};
    *info = r->info;
    snprintf(info->address, sizeof info->address, "%s", dial_address(r->dial, r->cloud));
    snprintf(info->backend, sizeof info->backend, "%s", r->welcome.backend);
    info->max_rows = r->welcome.max_rows;
    if (r->ch) {
        channel_lock(r->ch);
        channel_info(r->ch, &c);
        channel_unlock(r->ch);
    }
    info->pin = c.pin;
    snprintf(info->suite, sizeof info->suite, "%s", c.suite);
    info->rtt_ms = c.rtt_ms;
    info->bytes_up += c.up;
    info->bytes_down += c.down;
    info->work_ms += c.read_ms;
}

/* ---- the next ---- */

/* How much of ids[0..n) the cloud still has, by what WELCOME said; the rest is told with the next SUBMIT. */
static uint32_t settle_context(struct remote *r, bool same_cloud, const uint32_t *ids, uint32_t n) {
    const struct wire_welcome *w = &r->welcome;
    uint32_t kept = 0;
    if (w->len > 0 && w->len <= n && ids[w->len - 1] == w->head) {
        kept = w->len;
    } else if (w->len > n && n > 0 && same_cloud && r->chain[w->len - 1] == w->head && r->chain[n - 1] == ids[n - 1]) {
        kept = n; /* it has not heard of the last rewind */
        r->rewind = true;
    } else {
        r->rewind = w->len > 0;
    }
    for (uint32_t i = 0; i < kept; i++)
        r->chain[i] = ids[i];
    r->len = r->told = kept;
    return kept;
}

/* Waits, and says whether stop was asked. */
static bool pause_for(struct remote *r, double ms) {
    double until = clock_ms() + ms;
    struct timespec slice = {.tv_nsec = REMOTE_SLICE_MS * 1000000L};
    while (clock_ms() < until) {
        if (remote_asked_to_stop(r))
            return true;
        nanosleep(&slice, NULL);
    }
    return remote_asked_to_stop(r);
}

/* Looks for a cloud that takes the session: the one that had it, and later or when it sends us away the others too. */
static int search(struct remote *r, bool *hopeless, struct err *e) {
    double began = clock_ms(), until = began + r->o.patience_ms, pause = FIRST_PAUSE_MS;
    int home = r->cloud, n = dial_count(r->dial);
    uint64_t dice = (uint64_t)(began * 1000) | 1;
    bool elsewhere = r->elsewhere || dial_verdict_of(r->code) == DIAL_ELSEWHERE;
    int first = elsewhere ? home + 1 : home;
    char told[sizeof e->msg] = "";
    struct err why = {0};
    hopeless[home] = r->faults >= MAX_FAULTS || dial_verdict_of(r->code) == DIAL_NEVER;
    remote_lost(r, &why);
    for (;;) {
        bool any = false;
        for (int k = 0; k < n; k++) {
            int i = (first + k) % n;
            if (hopeless[i] || (i != home && !elsewhere && !hopeless[home]))
                continue;
            why = (struct err){0};
            enum dial_verdict v = open_channel(r, i, until, &why);
            if (v == DIAL_DONE || v == DIAL_STOPPED)
                return v == DIAL_DONE ? 0 : -1;
            if (strcmp(told, why.msg) != 0)
                tell(r, REMOTE_RETRY, "%s", why.msg);
            snprintf(told, sizeof told, "%s", why.msg);
            hopeless[i] = v == DIAL_NEVER;
            elsewhere = elsewhere || v == DIAL_ELSEWHERE || clock_ms() - began >= r->o.patience_ms / 4.0;
        }
        for (int i = 0; i < n; i++)
            any = any || !hopeless[i];
        if (!any)
            return err_set(e, why.kind, "%s", why.msg);
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        double wait = pause * (0.75 + 0.5 * (double)(dice >> 40) / (1 << 24));
        if (clock_ms() + wait >= until)
            return err_set(e, ERR_IO, "no cloud within %.1f s; the last answer: %s", r->o.patience_ms / 1000.0,
                           why.msg);
        if (pause_for(r, wait))
            return -1;
        pause = 2 * pause < LAST_PAUSE_MS ? 2 * pause : LAST_PAUSE_MS;
    }
}

int remote_recover(struct middle *m, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e) {
    struct remote *r = remote_of(m);
    int before = r->cloud;
    *kept = 0;
    if (n > r->o.hello.ctx)
        return err_set(e, ERR_USAGE, "a context of %u positions, not %u", r->o.hello.ctx, n);
    bool *hopeless = calloc((size_t)dial_count(r->dial), sizeof *hopeless);
    if (!hopeless)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (r->ch) {
        channel_lock(r->ch);
        if (!r->lost && !channel_dead(r->ch, NULL, NULL)) /* the caller did not like what came */
            err_set(&r->why, ERR_PEER, "its results were not what was asked for");
        remote_lost(r, NULL);
        channel_unlock(r->ch);
    }
    tell(r, REMOTE_LOST, "the connection to the cloud %s was lost (%s); trying again", dial_address(r->dial, before),
         r->why.msg);
    close_channel(r, false);
    if (r->code == WIRE_E_TAKEN_OVER) /* that session is somebody else's now */
        dial_forget(r->dial, r->cloud);
    int rc = search(r, hopeless, e);
    free(hopeless);
    if (rc != 0) {
        r->faults = r->code = 0; /* whoever asks again means it */
        return -1;
    }
    r->info.lost_ms += clock_ms() - r->lost_at;
    *kept = settle_context(r, r->cloud == before, ids, n);
    r->info.resumed += r->welcome.resumed;
    r->info.replayed += n - *kept;
    const char *address = dial_address(r->dial, r->cloud);
    if (r->cloud != before)
        tell(r, REMOTE_SWITCHED, "the cloud %s takes over; %u of %u positions are computed again", address, n - *kept,
             n);
    else if (*kept == n)
        tell(r, REMOTE_RESUMED, "connected to the cloud %s again; it has lost nothing", address);
    else
        tell(r, REMOTE_REPLAY, "connected to the cloud %s again; %u of %u positions are computed again", address,
             n - *kept, n);
    return 0;
}
