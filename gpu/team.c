#include "gpu/team.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/thread.h"
#include "gpu/nccl.h"
#include "gpu/team_check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PATIENCE_MS = 60000, /* for the first gathers, in which NCCL connects the cards */
    PASS_PATIENCE = 5,   /* times as long for any gather later on, which takes milliseconds at most */
    LEAD = 8,            /* gathers that a rank may be ahead of another, see call_begin */
    LOOK_MS = 250,       /* how often the warden looks after a run */
    CALM_MS = 5000,      /* for calls of NCCL to return once the other cards' parts were aborted */
    END_MS = 30000,      /* for NCCL to give back what it has */
};

struct rank {
    struct team *team;
    struct gpu *card;
    int number;
    pthread_t thread; /* not of rank 0 */
    bool started;
    nccl_comm comm;
    struct err refused; /* what kept a gather of this run from being enqueued; its own thread's */
    int n_gathers;      /* and replays, in this run; with the lock */
    bool returned;
};

/* Who may touch a communicator: its rank's thread, in calls that are counted; and the warden, a thread that looks after
 * runs, aborts all communicators when the team breaks, and otherwise destroys them at the end. NCCL's abort frees those
 * who wait in gathers at once, but returns from the last communicator only when no recording holds one any more, so it
 * cannot be called by a thread of the run. */
struct team {
    int n;
    struct rank *ranks;
    const struct nccl *nccl;
    pthread_t warden;
    bool guarded;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t go;    /* to ranks: a run, or stop */
    pthread_cond_t done;  /* to the caller: all ranks have returned */
    pthread_cond_t step;  /* to ranks that are too far ahead */
    pthread_cond_t watch; /* to the warden */
    pthread_cond_t ended;
    unsigned run;
    int n_running;
    int (*fn)(void *ctx, int rank, struct err *e);
    void *ctx;
    bool stop, asleep; /* the warden is, until a run wakes it */
    bool enqueued;     /* a gather, in this run */
    struct err failed; /* the first failure of this run; no gather is enqueued after it */
    int n_calls;       /* ranks that are inside NCCL or a replay */
    double deadline;   /* of what is under way, clock_ms; 0: none */
    double pass_ms;    /* from a gather to that; 0: the deadline is of the beginning and stays */
    bool broken;       /* for good, after `failed` of that run */
    int breaker;       /* the rank that failed */
    bool at_end;       /* the warden is done */
};

/* "GPU 0 (NVIDIA H200), GPU 1 (NVIDIA H200)" */
static const char *names(const struct team *t, char *buf, size_t size) {
    size_t at = 0;
    buf[0] = '\0';
    for (int r = 0; r < t->n && at < size; r++) {
        int n = snprintf(buf + at, size - at, "%sGPU %d (%s)", r ? ", " : "", t->ranks[r].card->ordinal,
                         t->ranks[r].card->name);
        at += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

/* With the lock. */
static void fail(struct team *t, int rank, const struct err *why) {
    if (t->failed.kind == ERR_NONE)
        t->failed = *why;
    pthread_cond_broadcast(&t->step);
    if (!t->enqueued || t->broken)
        return;
    t->broken = true;
    t->breaker = rank;
    pthread_cond_signal(&t->watch);
}

/* Some other rank, which will gather as often, is far behind this one. With the lock. */
static bool is_ahead(const struct team *t, const struct rank *r) {
    for (int i = 0; i < t->n; i++)
        if (!t->ranks[i].returned && r->n_gathers > t->ranks[i].n_gathers + LEAD)
            return true;
    return false;
}

/* The warden. */

static void wait_for(pthread_cond_t *c, struct team *t, double ms) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    long long ns = at.tv_nsec + (long long)(ms * 1e6);
    at.tv_sec += ns / 1000000000;
    at.tv_nsec = (long)(ns % 1000000000);
    (void)pthread_cond_timedwait(c, &t->lock, &at);
}

/* What NCCL's own threads have found wrong shows nowhere else: a card would wait for ever. Without the lock. */
static bool nccl_failed(struct team *t, int *rank, struct err *e) {
    char why[300];
    for (int r = 0; r < t->n; r++) {
        nccl_result found = 0, res = t->nccl->comm_error(t->ranks[r].comm, &found);
        if (res == 0)
            res = found;
        if (res == 0 || res == NCCL_IN_PROGRESS)
            continue;
        *rank = r;
        (void)err_set(e, ERR_DEVICE, "GPU %d (%s) has lost the other cards: NCCL: %s", t->ranks[r].card->ordinal,
                      t->ranks[r].card->name, nccl_error(t->nccl, res, why, sizeof why));
        return true;
    }
    return false;
}

/* With the lock, while a run is under way. */
static void look_after(struct team *t) {
    struct err e = {0};
    int rank = 0;
    if (t->deadline > 0 && clock_ms() > t->deadline) {
        (void)err_set(
            &e, ERR_DEVICE,
            "they do not answer each other; NCCL_DEBUG=INFO shows how NCCL connects them, and NCCL_P2P_DISABLE=1 "
            "keeps it from ways that some machines announce and do not have");
        fail(t, 0, &e);
        return;
    }
    pthread_mutex_unlock(&t->lock); /* nobody else frees communicators */
    bool failed = nccl_failed(t, &rank, &e);
    pthread_mutex_lock(&t->lock);
    if (failed && t->n_running > 0)
        fail(t, rank, &e);
}

/* Aborts all communicators. The last of them to be aborted is when NCCL frees their memory; up to then it only sets
 * flags that gathers see, and calls of other threads, which return then. So the last must wait until they have, and be
 * one that nobody is using: that of the rank that failed. */
static void abort_all(struct team *t) {
    double until = clock_ms() + CALM_MS;
    for (int r = 0; r < t->n; r++)
        if (r != t->breaker)
            (void)t->nccl->comm_abort(t->ranks[r].comm);
    pthread_mutex_lock(&t->lock);
    while (t->n_calls > 0 && clock_ms() < until)
        wait_for(&t->watch, t, until - clock_ms());
    pthread_mutex_unlock(&t->lock);
    (void)t->nccl->comm_abort(t->ranks[t->breaker].comm);
}

static void leave_nccl(struct team *t) {
    if (t->broken)
        abort_all(t);
    else
        for (int r = 0; r < t->n; r++)
            if (t->ranks[r].comm)
                (void)t->nccl->comm_destroy(t->ranks[r].comm);
}

static void *guard(void *arg) {
    struct team *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stop && !t->broken) {
        if (t->n_running == 0) {
            t->asleep = true;
            pthread_cond_wait(&t->watch, &t->lock);
            t->asleep = false;
            continue;
        }
        wait_for(&t->watch, t, LOOK_MS);
        if (t->n_running > 0 && !t->broken)
            look_after(t);
    }
    pthread_mutex_unlock(&t->lock);
    leave_nccl(t); /* nothing changes `broken` any more */
    pthread_mutex_lock(&t->lock);
    t->at_end = true;
    pthread_cond_signal(&t->ended);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* Runs. */

/* A rank that has returned gathers no more: another that has gathered more often would wait for ever. With the lock. */
static void check_alike(struct team *t, const struct rank *r) {
    struct err e = {0};
    for (int i = 0; i < t->n; i++) {
        const struct rank *o = &t->ranks[i];
        if (!(r->returned && o->n_gathers > r->n_gathers) && !(o->returned && r->n_gathers > o->n_gathers))
            continue;
        (void)err_set(&e, ERR_DEVICE, "GPU %d (%s) and GPU %d (%s) do not gather alike", r->card->ordinal,
                      r->card->name, o->card->ordinal, o->card->name);
        fail(t, r->number, &e);
    }
}

static void work(struct rank *r) {
    struct team *t = r->team;
    struct err e = {0};
    r->refused = (struct err){0};
    gpu_enter(r->card);
    int rc = t->fn(t->ctx, r->number, &e);
    if (r->refused.kind != ERR_NONE) {
        e = r->refused;
        rc = -1;
    }
    if (rc != 0)
        (void)err_set(&e, ERR_DEVICE, "GPU %d (%s) failed", r->card->ordinal, r->card->name);
    pthread_mutex_lock(&t->lock);
    r->returned = true;
    pthread_cond_broadcast(&t->step);
    if (rc != 0)
        fail(t, r->number, &e);
    else
        check_alike(t, r);
    pthread_mutex_unlock(&t->lock);
    if (rc == 0)
        return;
    /* Who uses the card next finds it as if nothing had been. What it still waits for is not enqueued or given up. */
    if (r->card->recording)
        gpu_forget(r->card, gpu_record_end(r->card));
    (void)gpu_wait(r->card, NULL);
}

static void *serve(void *arg) {
    struct rank *r = arg;
    struct team *t = r->team;
    unsigned seen = 0;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->stop && t->run == seen)
            pthread_cond_wait(&t->go, &t->lock);
        if (t->stop)
            break;
        seen = t->run;
        pthread_mutex_unlock(&t->lock);
        work(r);
        pthread_mutex_lock(&t->lock);
        if (--t->n_running == 0)
            pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int team_run(struct team *t, int (*fn)(void *ctx, int rank, struct err *e), void *ctx, struct err *e) {
    char cards[300];
    if (t->n == 1) {
        gpu_enter(t->ranks[0].card);
        return fn(ctx, 0, e);
    }
    pthread_mutex_lock(&t->lock);
    if (t->broken) {
        (void)err_set(e, t->failed.kind, "%s no longer work together, since a pass failed on one of them: %s",
                      names(t, cards, sizeof cards), t->failed.msg);
        pthread_mutex_unlock(&t->lock);
        return -1;
    }
    t->fn = fn;
    t->ctx = ctx;
    t->failed = (struct err){0};
    t->enqueued = false;
    if (t->pass_ms > 0)
        t->deadline = 0;
    for (int r = 0; r < t->n; r++) {
        t->ranks[r].n_gathers = 0;
        t->ranks[r].returned = false;
    }
    t->n_running = t->n;
    t->run++;
    pthread_cond_broadcast(&t->go);
    if (t->asleep)
        pthread_cond_signal(&t->watch);
    pthread_mutex_unlock(&t->lock);
    work(&t->ranks[0]);
    pthread_mutex_lock(&t->lock);
    t->n_running--;
    while (t->n_running > 0)
        pthread_cond_wait(&t->done, &t->lock);
    struct err failed = t->failed;
    pthread_mutex_unlock(&t->lock);
    return failed.kind == ERR_NONE ? 0 : err_set(e, failed.kind, "%s", failed.msg);
}

/* Gathers. */

/* Makes the rank's gpu_wait fail, and what it enqueues until then do nothing. */
static void refuse(struct rank *r, const char *what) {
    struct gpu *g = r->card;
    (void)err_set(&r->refused, ERR_DEVICE, "GPU %d (%s): %s", g->ordinal, g->name, what);
    if (g->failed != 0)
        return;
    g->failed = CU_UNKNOWN;
    g->failed_at = "gathering from the other cards";
}

/* From here to call_end the rank's communicator stays. A driver's queue of launches ends somewhere, at a thousand or
 * so: a rank that fills it behind a gather that another has not come to would wait inside the driver, where it may keep
 * the other from ever coming to it. So nobody gets far ahead. */
static bool call_begin(struct rank *r) {
    struct team *t = r->team;
    if (r->card->failed != 0)
        return false;
    pthread_mutex_lock(&t->lock);
    r->n_gathers++;
    check_alike(t, r);
    pthread_cond_broadcast(&t->step);
    while (t->failed.kind == ERR_NONE && is_ahead(t, r))
        pthread_cond_wait(&t->step, &t->lock);
    bool fine = t->failed.kind == ERR_NONE;
    if (fine) {
        t->enqueued = true;
        t->n_calls++;
        if (t->pass_ms > 0)
            t->deadline = clock_ms() + t->pass_ms;
    }
    pthread_mutex_unlock(&t->lock);
    if (!fine)
        refuse(r, "nothing is gathered, as another card has failed");
    return fine;
}

static void call_end(struct rank *r) {
    struct team *t = r->team;
    pthread_mutex_lock(&t->lock);
    if (--t->n_calls == 0 && t->broken)
        pthread_cond_signal(&t->watch);
    pthread_mutex_unlock(&t->lock);
}

void team_gather(struct team *t, int rank, cu_ptr buf, size_t bytes) {
    struct rank *r = &t->ranks[rank];
    char why[300], what[400];
    if (t->n == 1 || bytes == 0 || !call_begin(r))
        return;
    nccl_result res = t->nccl->all_gather((const void *)(uintptr_t)(buf + (size_t)rank * bytes), (void *)(uintptr_t)buf,
                                          bytes, NCCL_UINT8, r->comm, r->card->stream);
    if (res != 0) {
        snprintf(what, sizeof what, "NCCL cannot gather: %s", nccl_error(t->nccl, res, why, sizeof why));
        refuse(r, what);
    }
    call_end(r);
}

void team_replay(struct team *t, int rank, cu_graph_exec x) {
    struct rank *r = &t->ranks[rank];
    if (t->n > 1 && (!x || !call_begin(r)))
        return;
    gpu_replay(r->card, x);
    if (t->n > 1)
        call_end(r);
}

/* Beginning and end. */

int team_size(const struct team *t) {
    return t->n;
}

static int connect(struct team *t, struct err *e) {
    char why[300];
    sigset_t all, old;
    int *ordinals = calloc((size_t)t->n, sizeof *ordinals);
    nccl_comm *comms = calloc((size_t)t->n, sizeof(nccl_comm));
    int rc = -1;
    if (!ordinals || !comms) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    for (int r = 0; r < t->n; r++)
        ordinals[r] = t->ranks[r].card->ordinal;
    sigfillset(&all); /* NCCL's threads inherit it (thread.h) */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    nccl_result res = t->nccl->comm_init_all(comms, t->n, ordinals);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (res != 0) {
        err_set(e, ERR_DEVICE, "NCCL: %s", nccl_error(t->nccl, res, why, sizeof why));
        goto out;
    }
    for (int r = 0; r < t->n; r++)
        t->ranks[r].comm = comms[r];
    rc = 0;
out:
    free(ordinals);
    free(comms);
    return rc;
}

static int start(struct team *t, struct err *e) {
    if (thread_start(&t->warden, guard, t, "a thread for several cards", e) != 0)
        return -1;
    t->guarded = true;
    for (int r = 1; r < t->n; r++) {
        if (thread_start(&t->ranks[r].thread, serve, &t->ranks[r], "a thread for a card", e) != 0)
            return -1;
        t->ranks[r].started = true;
    }
    return 0;
}

static void set_deadline(struct team *t, double at) {
    pthread_mutex_lock(&t->lock);
    t->deadline = at;
    pthread_mutex_unlock(&t->lock);
}

static int join_cards(struct team *t, struct gpu *const *cards, int patience_ms, struct err *e) {
    char list[300], version[32];
    if (connect(t, e) != 0 || start(t, e) != 0)
        goto fail;
    set_deadline(t, clock_ms() + patience_ms);
    if (team_check(t, cards, e) != 0)
        goto fail;
    set_deadline(t, 0);
    t->pass_ms = (double)PASS_PATIENCE * patience_ms;
    gpu_enter(cards[0]);
    log_line(LOG_INFO, "%s work together (NCCL %s)", names(t, list, sizeof list),
             nccl_version(t->nccl, version, sizeof version));
    return 0;
fail:
    return err_wrap(e, "%s cannot work together", names(t, list, sizeof list));
}

int team_create_within(struct team **out, struct gpu *const *cards, int n, int patience_ms, struct err *e) {
    pthread_condattr_t monotonic;
    *out = NULL;
    const struct nccl *nccl = n > 1 ? nccl_open(e) : NULL;
    if (n > 1 && !nccl)
        return -1;
    struct team *t = calloc(1, sizeof *t);
    struct rank *ranks = calloc((size_t)n, sizeof *ranks);
    if (!t || !ranks) {
        free(t);
        free(ranks);
        return err_set(e, ERR_MEMORY, "out of memory");
    }
    t->n = n;
    t->ranks = ranks;
    t->nccl = nccl;
    for (int r = 0; r < n; r++)
        ranks[r] = (struct rank){.team = t, .card = cards[r], .number = r};
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->go, NULL);
    pthread_cond_init(&t->done, NULL);
    pthread_cond_init(&t->step, NULL);
    pthread_cond_init(&t->watch, &monotonic);
    pthread_cond_init(&t->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (n > 1 && join_cards(t, cards, patience_ms, e) != 0) {
        team_free(t);
        gpu_enter(cards[0]);
        return -1;
    }
    *out = t;
    return 0;
}

int team_create(struct team **out, struct gpu *const *cards, int n, struct err *e) {
    return team_create_within(out, cards, n, PATIENCE_MS, e);
}

/* Ends the threads. false: NCCL does not come back. */
static bool stop(struct team *t) {
    double until = clock_ms() + END_MS;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->go);
    pthread_cond_signal(&t->watch);
    pthread_mutex_unlock(&t->lock);
    for (int r = 1; r < t->n; r++)
        if (t->ranks[r].started)
            pthread_join(t->ranks[r].thread, NULL);
    if (!t->guarded)
        return true;
    pthread_mutex_lock(&t->lock);
    while (!t->at_end && clock_ms() < until)
        wait_for(&t->ended, t, until - clock_ms());
    bool done = t->at_end;
    pthread_mutex_unlock(&t->lock);
    if (done)
        pthread_join(t->warden, NULL);
    else
        pthread_detach(t->warden);
    return done;
}

void team_free(struct team *t) {
    if (!t)
        return;
    if (!stop(t)) {
        log_line(LOG_WARN, "NCCL does not give its memory on the cards back; that takes the end of the program");
        return; /* the warden has the rest */
    }
    if (!t->guarded)
        leave_nccl(t);
    pthread_cond_destroy(&t->ended);
    pthread_cond_destroy(&t->watch);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->step);
    pthread_cond_destroy(&t->go);
    pthread_mutex_destroy(&t->lock);
    free(t->ranks);
    free(t);
}
