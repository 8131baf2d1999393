#include "net/cloud/sessions.h"

#include "core/base/log.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int sessions_init(struct sessions *s, const struct batch_opts *o, uint64_t slot_bytes, struct err *e) {
    *s = (struct sessions){.max = o->max_sessions,
                           .max_per_pin = o->max_per_pin ? o->max_per_pin : o->max_sessions,
                           .max_ctx = o->max_ctx,
                           .max_live = o->max_live,
                           .ttl_ms = o->session_ttl_ms,
                           .slot_bytes = slot_bytes};
    if (o->max_sessions == 0 || o->max_ctx == 0 || o->max_live == 0)
        return err_set(e, ERR_USAGE,
                       "a cloud needs room for at least one session, one position and one node in flight");
    /* More than all sessions together may use is never used. */
    uint64_t most = (uint64_t)o->max_sessions * ((uint64_t)o->max_ctx + o->max_live);
    uint64_t n = slot_bytes ? o->kv_bytes / slot_bytes : most;
    n = n < most ? n : most;
    n = n < UINT32_MAX ? n : UINT32_MAX - 1;
    if (n < 2)
        return err_set(e, ERR_USAGE, "%.1f MB of KV cache hold no session: one position needs %.1f KB",
                       (double)o->kv_bytes / 1e6, (double)slot_bytes / 1e3);
    s->all = calloc(s->max, sizeof(struct cloud_session *));
    if (!s->all)
        return err_set(e, ERR_MEMORY, "out of memory for %u sessions", s->max);
    if (slot_pool_create(&s->pool, (uint32_t)n, e) != 0) {
        free(s->all);
        s->all = NULL;
        return -1;
    }
    return 0;
}

static void session_free(struct cloud_session *c) {
    if (!c)
        return;
    kv_table_free(c->table);
    free(c->pending);
    wipe_free(c, sizeof *c);
}

void sessions_free(struct sessions *s) {
    for (uint32_t i = 0; i < s->n; i++)
        session_free(s->all[i]);
    free(s->all);
    slot_pool_free(s->pool);
    *s = (struct sessions){0};
}

void sessions_log(const struct cloud_session *c, const char *event, const char *text) {
    char pin[PIN_TEXT];
    pin_format(&c->pin, pin);
    log_line(LOG_INFO, "session event=%s id=%llu pin=%s peer=%s ctx=%u slots=%llu len=%u%s%s%s", event,
             (unsigned long long)c->number, pin, c->port ? c->port->name : "-", c->ctx,
             (unsigned long long)c->ctx + c->live, kv_table_len(c->table), text ? " why=\"" : "", text ? text : "",
             text ? "\"" : "");
}

/* Every byte is looked at, whatever it is. */
static bool same(const void *a, const void *b, size_t n) {
    const volatile uint8_t *x = a, *y = b;
    uint8_t diff = 0;
    for (size_t i = 0; i < n; i++)
        diff |= (uint8_t)(x[i] ^ y[i]);
    return diff == 0;
}

struct cloud_session *sessions_find(struct sessions *s, const uint8_t token[WIRE_TOKEN], const struct pin *pin) {
    struct cloud_session *found = NULL;
    for (uint32_t i = 0; i < s->n; i++) {
        bool hit = same(s->all[i]->token, token, WIRE_TOKEN);
        bool owner = same(&s->all[i]->pin, pin, sizeof *pin);
        if (hit & owner)
            found = s->all[i];
    }
    return found;
}

/* ---- admission ---- */

static uint64_t slots_of(const struct cloud_session *c) {
    return (uint64_t)c->ctx + c->live;
}

static uint32_t held_by(const struct sessions *s, const struct pin *pin) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++)
        n += same(&s->all[i]->pin, pin, sizeof *pin);
    return n;
}

/* only: of this pin; NULL: of any. */
static struct cloud_session *victim(const struct sessions *s, const struct pin *only) {
    struct cloud_session *best = NULL;
    uint32_t best_held = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        struct cloud_session *c = s->all[i];
        if (c->port || (only && !same(&c->pin, only, sizeof *only)))
            continue;
        uint32_t held = held_by(s, &c->pin);
        if (!best || held > best_held || (held == best_held && c->detached_ms < best->detached_ms)) {
            best = c;
            best_held = held;
        }
    }
    return best;
}

static double mb(const struct sessions *s, uint64_t slots) {
    return (double)(slots * s->slot_bytes) / 1e6;
}

static int make_token(uint8_t token[WIRE_TOKEN]) {
    size_t n = 0;
    while (n < WIRE_TOKEN) {
        ssize_t got = getrandom(token + n, WIRE_TOKEN - n, 0);
        if (got < 0 && errno != EINTR)
            return -1;
        n += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static struct cloud_session *session_make(struct sessions *s, struct port *port, uint32_t ctx, uint32_t live) {
    struct err e = {0};
    struct cloud_session *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct cloud_session){.number = ++s->next_number, .pin = port->pin, .ctx = ctx, .live = live};
    c->pending = malloc((size_t)live * sizeof *c->pending);
    if (!c->pending || make_token(c->token) != 0 || kv_table_create(&c->table, s->pool, ctx, live, &e) != 0) {
        session_free(c);
        return NULL;
    }
    return c;
}

int sessions_admit(struct sessions *s, struct port *port, uint32_t ctx, uint32_t live, struct cloud_session **out,
                   char text[WIRE_MAX_TEXT + 1]) {
    *out = NULL;
    const size_t cap = WIRE_MAX_TEXT + 1;
    uint64_t all = slot_pool_size(s->pool), need = (uint64_t)ctx + live;
    if (ctx > s->max_ctx || live > s->max_live) {
        snprintf(text, cap,
                 "a session here has at most %u positions and %u nodes in flight; this one asks for %u and %u",
                 s->max_ctx, s->max_live, ctx, live);
        return WIRE_E_TOO_LARGE;
    }
    if (need > all) {
        snprintf(text, cap,
                 "this session needs %llu slots (%.1f MB) of KV cache and all there is are %llu (%.1f MB): ask for a "
                 "smaller context, or start the cloud with more",
                 (unsigned long long)need, mb(s, need), (unsigned long long)all, mb(s, all));
        return WIRE_E_TOO_LARGE;
    }
    uint64_t loose = 0; /* what evicting everybody who is away would give */
    uint32_t away = 0, mine = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->all[i]->port) {
            mine += same(&s->all[i]->pin, &port->pin, sizeof port->pin);
            continue;
        }
        loose += slots_of(s->all[i]);
        away++;
    }
    if (mine >= s->max_per_pin) {
        snprintf(text, cap,
                 "this client has %u sessions here and may have %u: end one of them, or start the cloud with a larger "
                 "--max-sessions-per-pin",
                 mine, s->max_per_pin);
        return WIRE_E_FULL;
    }
    if (need > all - s->reserved + loose || s->n - away >= s->max) {
        snprintf(
            text, cap,
            "no room now: this session needs %llu slots (%.1f MB) of the %llu (%.1f MB) of KV cache; %u sessions (of "
            "%u at most) hold %llu (%.1f MB); try later, elsewhere or with a smaller context",
            (unsigned long long)need, mb(s, need), (unsigned long long)all, mb(s, all), s->n - away, s->max,
            (unsigned long long)(s->reserved - loose), mb(s, s->reserved - loose));
        return WIRE_E_FULL;
    }
    for (;;) {
        bool own = held_by(s, &port->pin) >= s->max_per_pin;
        if (!own && need <= all - s->reserved && s->n < s->max)
            break;
        s->evicted++;
        sessions_end(s, victim(s, own ? &port->pin : NULL), "evicted");
    }
    struct cloud_session *c = session_make(s, port, ctx, live);
    if (!c) {
        snprintf(text, cap, "out of memory for a session; try later");
        return WIRE_E_FULL;
    }
    s->reserved += need;
    s->all[s->n++] = c;
    s->created++;
    sessions_attach(s, c, port);
    *out = c;
    return 0;
}

/* ---- life ---- */

void sessions_attach(struct sessions *s, struct cloud_session *c, struct port *p) {
    (void)s;
    c->port = p;
    c->seq = 0;
    p->session = c;
}

void sessions_detach(struct sessions *s, struct cloud_session *c, double now_ms) {
    (void)s;
    kv_table_rewind(c->table, kv_table_len(c->table), kv_table_head(c->table));
    if (c->port)
        c->port->session = NULL;
    c->port = NULL;
    c->detached_ms = now_ms;
}

void sessions_end(struct sessions *s, struct cloud_session *c, const char *event) {
    sessions_log(c, event, NULL);
    uint32_t i = 0;
    while (s->all[i] != c)
        i++;
    memmove(&s->all[i], &s->all[i + 1], (s->n - i - 1) * sizeof(struct cloud_session *));
    s->n--;
    s->reserved -= slots_of(c);
    if (c->port)
        c->port->session = NULL;
    session_free(c);
}

double sessions_expire(struct sessions *s, double now_ms) {
    double next = 0;
    for (uint32_t i = s->n; i-- > 0;) {
        struct cloud_session *c = s->all[i];
        if (c->port)
            continue;
        double due = c->detached_ms + s->ttl_ms;
        if (due <= now_ms) {
            s->expired++;
            sessions_end(s, c, "expired");
        } else if (next == 0 || due < next) {
            next = due;
        }
    }
    return next;
}

uint32_t sessions_attached(const struct sessions *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++)
        n += s->all[i]->port != NULL;
    return n;
}
