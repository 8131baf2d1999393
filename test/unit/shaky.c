#include "test/unit/shaky.h"

#include "core/base/clock.h"
#include "test/unit/toy.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct shaky *of(struct middle *m) {
    return (struct shaky *)(void *)m;
}

/* 0: goes through; -1: fails; *reaches: the other side hears of it all the same. */
static int call(struct shaky *s, bool *reaches, struct err *e) {
    *reaches = true;
    s->calls++;
    if (!s->dead && (s->calls_left < 0 || s->calls_left-- > 0))
        return 0;
    *reaches = !s->dead && s->late;
    if (!s->dead) {
        s->calls_left = s->again ? s->again : -1;
        s->failures++;
    }
    s->dead = true;
    return err_set(e, s->failures % 2 ? ERR_PEER : ERR_IO, "the link went away");
}

static int s_submit(struct middle *m, const struct window *w, const float *x, struct err *e) {
    struct shaky *s = of(m);
    bool reaches;
    int rc = call(s, &reaches, e);
    if (reaches) {
        cr_assert_lt(s->n_sent, SHAKY_WINDOWS);
        s->sent_ms[(s->first + s->n_sent++) % SHAKY_WINDOWS] = clock_ms();
        cr_assert_eq(s->inner->ops->submit(s->inner, w, x, e), 0, "%s", e->msg);
    }
    return rc;
}

static int s_commit(struct middle *m, const uint32_t *ids, int n, struct err *e) {
    struct shaky *s = of(m);
    bool reaches;
    int rc = call(s, &reaches, e);
    if (reaches)
        cr_assert_eq(s->inner->ops->commit(s->inner, ids, n, e), 0, "%s", e->msg);
    return rc;
}

static int s_cancel(struct middle *m, uint32_t id, struct err *e) {
    struct shaky *s = of(m);
    bool reaches;
    int rc = call(s, &reaches, e);
    if (reaches)
        cr_assert_eq(s->inner->ops->cancel(s->inner, id, e), 0, "%s", e->msg);
    return rc;
}

static void forget(struct shaky *s) {
    s->n_sent = s->n = 0;
}

static int s_rewind(struct middle *m, uint32_t len, uint32_t head, struct err *e) {
    struct shaky *s = of(m);
    bool reaches;
    int rc = call(s, &reaches, e);
    if (reaches) {
        cr_assert_eq(s->inner->ops->rewind(s->inner, len, head, e), 0, "%s", e->msg);
        forget(s);
    }
    return rc;
}

/* Everything that the inner one can compute, into the rows that wait. */
static void pull(struct shaky *s, struct middle_result *r) {
    struct err e = {0};
    for (int rc; (rc = s->inner->ops->collect(s->inner, r, 0, &e)) != 0;) {
        cr_assert(rc > 0 && s->n_sent > 0, "%s", e.msg);
        double sent = s->sent_ms[s->first];
        s->first = (s->first + 1) % SHAKY_WINDOWS;
        s->n_sent--;
        for (int i = 0; i < r->n; i++, s->n++) {
            cr_assert_lt(s->n, SHAKY_ROWS);
            s->row[s->n].id = r->ids[i];
            s->row[s->n].ready_ms = sent + s->delay_ms;
            s->row[s->n].compute_ms = r->compute_ms;
            memcpy(s->x + (size_t)s->n * (size_t)s->hidden, r->x + (size_t)i * (size_t)s->hidden,
                   (size_t)s->hidden * sizeof *s->x);
        }
    }
}

static void take(struct shaky *s, int at, struct middle_result *r) {
    size_t hidden = (size_t)s->hidden;
    r->ids[r->n] = s->row[at].id;
    r->compute_ms = s->row[at].compute_ms;
    memcpy(r->x + (size_t)r->n++ * hidden, s->x + (size_t)at * hidden, hidden * sizeof *s->x);
    s->n--;
    memmove(&s->row[at], &s->row[at + 1], (size_t)(s->n - at) * sizeof s->row[0]);
    memmove(s->x + (size_t)at * hidden, s->x + (size_t)(at + 1) * hidden, (size_t)(s->n - at) * hidden * sizeof *s->x);
}

static int s_collect(struct middle *m, struct middle_result *r, int timeout_ms, struct err *e) {
    struct shaky *s = of(m);
    bool reaches;
    r->n = 0;
    if (s->stop_left >= 0 && s->stop_left-- == 0)
        return -1;
    if (call(s, &reaches, e) != 0)
        return -1;
    pull(s, r);
    r->n = 0;
    r->compute_ms = 0;
    if (s->n == 0)
        return 0;
    int some = s->pieces ? (int)(toy_rnd(&s->seed) % 5) : r->cap;
    if (s->pieces && timeout_ms == 0 && some == 0)
        return 0;
    double first = s->row[0].ready_ms, wait;
    for (int i = 1; i < s->n; i++)
        first = s->row[i].ready_ms < first ? s->row[i].ready_ms : first;
    while ((wait = first - clock_ms()) > 0) {
        if (timeout_ms >= 0)
            return 0;
        const struct timespec t = {.tv_nsec = (long)(wait * 1e6)};
        nanosleep(&t, NULL);
    }
    double now = clock_ms();
    for (int i = 0; some > 0 && s->n > 0 && r->n < r->cap; some--) {
        i = s->pieces ? (int)(toy_rnd(&s->seed) % (uint32_t)s->n) : 0;
        if (s->row[i].ready_ms <= now)
            take(s, i, r);
    }
    return 1;
}

static int s_recover(struct middle *m, const uint32_t *ids, uint32_t n, uint32_t *kept, struct err *e) {
    struct shaky *s = of(m);
    s->dead = false;
    s->recoveries++;
    cr_assert_eq(s->inner->ops->recover(s->inner, ids, n, kept, e), 0, "%s", e->msg);
    if (s->loses == SHAKY_LOSES_ALL)
        *kept = 0;
    else if (s->loses == SHAKY_LOSES_SOME)
        *kept = toy_rnd(&s->seed) % (*kept + 1);
    forget(s);
    return s->inner->ops->rewind(s->inner, *kept, *kept ? ids[*kept - 1] : NODE_NONE, e);
}

static const struct middle_ops ops = {.name = "shaky",
                                      .submit = s_submit,
                                      .commit = s_commit,
                                      .cancel = s_cancel,
                                      .rewind = s_rewind,
                                      .collect = s_collect,
                                      .recover = s_recover};

void shaky_init(struct shaky *m, struct middle *inner, int hidden) {
    *m = (struct shaky){.base = {&ops}, .inner = inner, .hidden = hidden, .calls_left = -1, .stop_left = -1};
    m->x = malloc((size_t)SHAKY_ROWS * (size_t)hidden * sizeof *m->x);
    cr_assert_not_null(m->x);
}

void shaky_free(struct shaky *m) {
    free(m->x);
}
