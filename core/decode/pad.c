#include "core/decode/pad.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/decode/speculate_impl.h"

#include <errno.h>
#include <math.h>
#include <time.h>

enum {
    TRIES = 8,      /* to find a token of the text that is no sibling's */
    GIVE_UP = 1000, /* then any token; a vocabulary smaller than a window has none */
    TRIPS = 3,      /* that are measured before a tick is chosen; one alone may have been held up */
};
static const double STEP_MS = 5;  /* ticks are multiples of this */
static const double SPARE = 1.2;  /* of what a step was measured to take */
static const double SLACK_MS = 1; /* by which a window may be late; threads do not wake to the microsecond */

static uint32_t draw(struct pad *pad, uint32_t below) {
    return (uint32_t)(philox_u64(0, 0, pad->drawn++) % below);
}

/* A token as likely as any guess: one that the text has, each as often as there. */
static uint32_t some_token(struct session *s) {
    return s->tokens[draw(&s->spec->pad, s->n + 1)];
}

/* ---- rows ---- */

void pad_fill(struct session *s) {
    struct speculation *p = s->spec;
    int want = p->pad.rows - 1;
    for (int tries = 0; p->n < want && p->head.pos + 1 < s->o.max_ctx && tries < GIVE_UP; tries++) {
        /* Mostly below the head: what is deep in a tree is rarely true. Where text has run out of new tokens, any. */
        int parent = tries < TRIES ? (int)draw(&p->pad, 2 * (uint32_t)p->n + 1) - p->n - 1 : -1, old = p->n;
        uint32_t token = tries < TRIES ? some_token(s) : draw(&p->pad, (uint32_t)s->config->vocab);
        parent = parent < 0 ? -1 : parent;
        p->tree[old] = (struct draft_node){.token = token, .parent = parent, .p = 0.01F, .source = N_DRAFT_SOURCES};
        p->tree[old].path = parent < 0 ? 0.01F : 0.01F * p->tree[parent].path;
        speculation_accept(s, old, old + 1);
        tries = p->n > old ? -1 : tries;
    }
}

int pad_window(struct session *s, int n, uint32_t upto) {
    struct pad *pad = &s->spec->pad;
    int fill = s->o.max_rows - n;
    uint32_t room = s->o.max_ctx - upto, root = s->next_id + (uint32_t)n;
    if (pad->rows == 0 || fill == 0 || room < (uint32_t)fill || room < 2 || pad->n_idle == SESSION_PAD_IDLE)
        return 0;
    for (int i = 0; i < fill; i++) {
        s->tokens[upto + (uint32_t)i] = s->tokens[draw(pad, upto)];
        s->nodes[n + i] =
            (struct node){.id = root + (uint32_t)i, .parent = i ? root : s->nodes[n - 1].id, .pos = upto + (i > 0)};
    }
    pad->idle[pad->n_idle++] = root;
    return fill;
}

/* ---- the clock ---- */

/* Long enough for a step in which everything was accepted, which asks for most of this side. */
static void choose_tick(struct session *s) {
    struct speculation *p = s->spec;
    struct pad *pad = &p->pad;
    int passes = (pad->rows + p->max_batch - 1) / p->max_batch;
    double back = p->price.back.fixed + p->max_batch * p->price.back.slope;
    pad->tick_ms = ceil(SPARE * (pad->trip_ms + pad->front_ms + passes * back) / STEP_MS) * STEP_MS;
    log_line(LOG_INFO, "a window of %d rows every %.0f ms", pad->rows, pad->tick_ms);
}

static void sleep_until(double ms) {
    struct timespec t = {.tv_sec = (time_t)(ms / 1e3)};
    t.tv_nsec = (long)((ms - (double)t.tv_sec * 1e3) * 1e6);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

void pad_hold(struct session *s) {
    struct pad *pad = &s->spec->pad;
    double now = clock_ms();
    if (pad->due_ms > 0) {
        if (pad->tick_ms <= 0 && pad->n_trips >= TRIPS)
            choose_tick(s);
        if (pad->tick_ms <= 0)
            pad->due_ms = now;
        else
            pad->due_ms += pad->tick_ms;
        if (now > pad->due_ms + SLACK_MS) { /* the next one that can be kept */
            double n = ceil((now - pad->due_ms) / pad->tick_ms);
            pad->due_ms += n * pad->tick_ms;
            s->stats.ticks_missed += (uint64_t)n;
        }
        sleep_until(pad->due_ms);
    } else {
        pad->due_ms = now;
    }
    pad->sent_ms = clock_ms();
}

void pad_came(struct session *s) {
    struct pad *pad = &s->spec->pad;
    double trip = clock_ms() - pad->sent_ms;
    if (pad->tick_ms > 0)
        return;
    if (pad->n_trips++ == 0 || trip < pad->trip_ms)
        pad->trip_ms = trip;
}

/* A window that nobody waits for: one node below the head, and the others below that. */
static int send_idle(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    struct pad *pad = &p->pad;
    for (int i = 0; i < pad->rows; i++) {
        s->nodes[i] = (struct node){
            .id = s->next_id + (uint32_t)i, .parent = i ? s->next_id : p->head.id, .pos = p->head.pos + 1 + (i > 0)};
        p->tokens[i] = some_token(s);
    }
    pad->idle[pad->n_idle++] = s->next_id;
    s->paced = true;
    s->stats.ticks_idle++;
    return session_launch(s, p->tokens, pad->rows, p->pass, e);
}

int pad_gather(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    struct pad *pad = &p->pad;
    for (;;) {
        bool can = pad->rows > 0 && pad->tick_ms > 0 && p->has_head && pad->n_idle < SESSION_PAD_IDLE &&
                   p->head.pos + 2 < s->o.max_ctx;
        double left = can ? pad->due_ms + pad->tick_ms - pad->front_ms - clock_ms() : 0;
        int rc = can ? 0 : session_gather(s, -1, e);
        if (can && left > 0)
            rc = session_gather(s, (int)ceil(left), e);
        if (rc != 0 || !can)
            return rc;
        if (clock_ms() + pad->front_ms >= pad->due_ms + pad->tick_ms && send_idle(s, e) != 0)
            return -1;
    }
}
