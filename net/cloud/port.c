#include "net/cloud/port.h"

#include "core/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A peer may have one frame of the largest size and a few small ones queued, and as much unsent. Small frames count for
 * more than they say, because they cost more. */
enum { QUEUE_MIN = 256 << 10, FRAME_COST = 256 };
/* Memory that a port keeps to use again: enough for the frames of decoding, not for those of a prefill. */
enum { SPARE_BYTES = 512 << 10 };

void frame_push(struct frame_list *l, struct frame *f) {
    f->next = NULL;
    if (l->first)
        l->last->next = f;
    else
        l->first = f;
    l->last = f;
}

struct frame *frame_pop(struct frame_list *l) {
    struct frame *f = l->first;
    if (f)
        l->first = f->next;
    return f;
}

static void frame_free(struct frame *f) {
    if (!f)
        return;
    wbuf_free(&f->buf);
    free(f);
}

static void list_free(struct frame_list *l) {
    for (struct frame *f; (f = frame_pop(l));)
        frame_free(f);
}

/* ---- the set ---- */

int ports_init(struct ports *s, void (*wake)(void *ctx), void *wake_ctx, struct err *e) {
    *s = (struct ports){.wake = wake, .wake_ctx = wake_ctx};
    pthread_condattr_t a;
    int rc = pthread_condattr_init(&a);
    if (rc != 0)
        return err_sys(e, rc, "cannot make a condition variable");
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    rc = pthread_cond_init(&s->changed, &a);
    pthread_condattr_destroy(&a);
    if (rc != 0)
        return err_sys(e, rc, "cannot make a condition variable");
    rc = pthread_mutex_init(&s->lock, NULL);
    if (rc != 0) {
        pthread_cond_destroy(&s->changed);
        return err_sys(e, rc, "cannot make a mutex");
    }
    return 0;
}

static void port_free(struct port *p) {
    list_free(&p->in);
    list_free(&p->inbox);
    list_free(&p->out);
    list_free(&p->spare);
    free(p);
}

void ports_free(struct ports *s) {
    ports_collect(s);
    while (s->first) {
        struct port *p = s->first;
        s->first = p->next;
        port_free(p);
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

void ports_notify(struct ports *s) {
    s->news = true;
    pthread_cond_signal(&s->changed);
}

struct port *ports_open(struct ports *s, const struct pin *pin, const char *name, struct err *e) {
    struct port *p = calloc(1, sizeof *p);
    if (!p) {
        err_set(e, ERR_MEMORY, "out of memory for a connection");
        return NULL;
    }
    p->set = s;
    p->pin = *pin;
    snprintf(p->name, sizeof p->name, "%s", name);
    p->max_frame = WIRE_FIRST_MAX;
    p->opened_ms = clock_ms();
    pthread_mutex_lock(&s->lock);
    p->next = s->fresh;
    s->fresh = p;
    ports_notify(s);
    pthread_mutex_unlock(&s->lock);
    return p;
}

void ports_collect(struct ports *s) {
    pthread_mutex_lock(&s->lock);
    s->news = false;
    for (struct port *p; (p = s->fresh);) {
        s->fresh = p->next;
        p->next = s->first;
        s->first = p;
    }
    for (struct port *p = s->first; p; p = p->next) {
        for (struct frame *f; (f = frame_pop(&p->in));)
            frame_push(&p->inbox, f);
        p->gone = p->closed;
        p->lost_frame = p->starved;
    }
    pthread_mutex_unlock(&s->lock);
}

bool ports_news(struct ports *s) {
    pthread_mutex_lock(&s->lock);
    bool news = s->news;
    pthread_mutex_unlock(&s->lock);
    return news;
}

void ports_wait(struct ports *s, double until_ms) {
    struct timespec t = {.tv_sec = (time_t)(until_ms / 1e3), .tv_nsec = (long)(fmod(until_ms, 1e3) * 1e6)};
    pthread_mutex_lock(&s->lock);
    while (!s->news) {
        if (until_ms == 0)
            pthread_cond_wait(&s->changed, &s->lock);
        else if (pthread_cond_timedwait(&s->changed, &s->lock, &t) == ETIMEDOUT)
            break;
    }
    pthread_mutex_unlock(&s->lock);
}

void ports_wake(struct ports *s) {
    if (s->wake_due && s->wake)
        s->wake(s->wake_ctx);
    s->wake_due = false;
}

/* ---- one port, from the connection's side ---- */

static size_t queue_limit(const struct port *p) {
    return p->max_frame > QUEUE_MIN ? p->max_frame : QUEUE_MIN;
}

/* Takes an empty frame; the lock is held. */
static struct frame *spare_take(struct port *p) {
    struct frame *f = frame_pop(&p->spare);
    if (f)
        p->spare_bytes -= f->buf.cap;
    return f;
}

static bool is_full(const struct port *p) {
    return p->held > queue_limit(p);
}

void port_close(struct port *p) {
    struct ports *s = p->set;
    pthread_mutex_lock(&s->lock);
    p->closed = true; /* from here on p is the thread's to free */
    ports_notify(s);
    pthread_mutex_unlock(&s->lock);
}

void port_post(struct port *p, int type, struct wbuf *frame) {
    struct ports *s = p->set;
    pthread_mutex_lock(&s->lock);
    struct frame *f = NULL;
    if (!p->finished) {
        f = spare_take(p);
        if (!f)
            f = calloc(1, sizeof *f);
        p->starved = p->starved || !f;
    }
    if (f) { /* memory for memory: the reader goes on with an empty buffer that was used before */
        struct wbuf empty = f->buf;
        empty.max = frame->max;
        *f = (struct frame){.type = type, .buf = *frame, .came_ms = clock_ms()};
        f->buf.max = 0;
        *frame = empty;
        p->held += f->buf.n + FRAME_COST;
        frame_push(&p->in, f);
    }
    ports_notify(s);
    pthread_mutex_unlock(&s->lock);
    if (!f)
        wbuf_clear(frame);
}

/* Keeps an empty frame to use it again, or gives it back to be freed; the lock is held. */
static struct frame *spare_put(struct port *p, struct frame *f) {
    if (f->buf.cap > SPARE_BYTES - p->spare_bytes)
        return f;
    p->spare_bytes += f->buf.cap;
    frame_push(&p->spare, f);
    return NULL;
}

bool port_full(struct port *p) {
    pthread_mutex_lock(&p->set->lock);
    bool full = is_full(p);
    p->full_seen = full;
    pthread_mutex_unlock(&p->set->lock);
    return full;
}

bool port_take(struct port *p, struct wbuf *out) {
    pthread_mutex_lock(&p->set->lock);
    struct frame *f = frame_pop(&p->out);
    if (f) {
        struct wbuf empty = *out;
        *out = f->buf;
        out->max = empty.max;
        empty.max = 0;
        f->buf = empty;
    }
    struct frame *surplus = f ? spare_put(p, f) : NULL;
    pthread_mutex_unlock(&p->set->lock);
    frame_free(surplus);
    return f != NULL;
}

void port_sent(struct port *p, size_t bytes) {
    pthread_mutex_lock(&p->set->lock);
    bool clogged = p->unsent > queue_limit(p);
    p->unsent -= bytes < p->unsent ? bytes : p->unsent;
    if (clogged && p->unsent <= queue_limit(p))
        ports_notify(p->set);
    pthread_mutex_unlock(&p->set->lock);
}

bool port_finished(struct port *p) {
    pthread_mutex_lock(&p->set->lock);
    bool finished = p->finished && !p->out.first;
    pthread_mutex_unlock(&p->set->lock);
    return finished;
}

uint32_t port_max_frame(struct port *p) {
    pthread_mutex_lock(&p->set->lock);
    uint32_t max = p->max_frame;
    pthread_mutex_unlock(&p->set->lock);
    return max;
}

/* ---- and from the thread's ---- */

void port_drop(struct port *p) {
    struct port **at = &p->set->first;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    port_free(p);
}

struct frame *port_frame(struct port *p) {
    pthread_mutex_lock(&p->set->lock);
    struct frame *f = spare_take(p);
    pthread_mutex_unlock(&p->set->lock);
    if (!f)
        return calloc(1, sizeof *f);
    *f = (struct frame){.buf = f->buf};
    return f;
}

void port_say(struct port *p, struct frame *f) {
    if (!f || f->buf.bad) {
        port_done(p, f);
        port_end(p);
        return;
    }
    pthread_mutex_lock(&p->set->lock);
    p->unsent += f->buf.n;
    frame_push(&p->out, f);
    pthread_mutex_unlock(&p->set->lock);
    p->set->wake_due = true;
}

void port_end(struct port *p) {
    p->over = true;
    p->set->wake_due = true;
    pthread_mutex_lock(&p->set->lock);
    p->finished = true;
    struct frame_list in = p->in;
    p->in = (struct frame_list){0};
    p->held = 0;
    pthread_mutex_unlock(&p->set->lock);
    list_free(&in);
    list_free(&p->inbox);
}

void port_done(struct port *p, struct frame *f) {
    if (!f)
        return;
    size_t came = f->type ? f->buf.n + FRAME_COST : 0; /* what goes has no type here */
    wbuf_clear(&f->buf);
    pthread_mutex_lock(&p->set->lock);
    p->held -= came < p->held ? came : p->held;
    if (p->full_seen && !is_full(p)) {
        p->full_seen = false;
        p->set->wake_due = true;
    }
    f = spare_put(p, f);
    pthread_mutex_unlock(&p->set->lock);
    frame_free(f);
}

bool port_clogged(struct port *p) {
    pthread_mutex_lock(&p->set->lock);
    bool clogged = p->unsent > queue_limit(p);
    pthread_mutex_unlock(&p->set->lock);
    return clogged;
}

void port_limit(struct port *p, uint32_t max_frame) {
    pthread_mutex_lock(&p->set->lock);
    p->max_frame = max_frame;
    pthread_mutex_unlock(&p->set->lock);
}
