#include "core/model/readahead.h"

#include "core/base/thread.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* How far it runs ahead: enough to keep a disk busy, little beside what a model takes anyway. */
enum { LEAD = 512 << 20, STEP = 16 << 20 };

struct readahead {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t asked, used; /* bytes */
    bool stop;
    struct tensor *tensors;
    int n;
};

enum turn { STOP, ASK, SKIP };

/* Waits for the lead to shrink. SKIP: whoever reads is ahead of us. */
static enum turn take_turn(struct readahead *r, uint64_t bytes) {
    pthread_mutex_lock(&r->lock);
    while (!r->stop && r->asked > r->used && r->asked - r->used > LEAD)
        pthread_cond_wait(&r->moved, &r->lock);
    r->asked += bytes;
    enum turn turn = r->stop ? STOP : r->asked <= r->used ? SKIP : ASK;
    pthread_mutex_unlock(&r->lock);
    return turn;
}

/* Waits for tensor i; false: stop. */
static bool take_tensor(struct readahead *r, int i, struct tensor *t) {
    pthread_mutex_lock(&r->lock);
    while (!r->stop && i >= r->n)
        pthread_cond_wait(&r->moved, &r->lock);
    bool go = !r->stop;
    if (go)
        *t = r->tensors[i];
    pthread_mutex_unlock(&r->lock);
    return go;
}

static void *ahead(void *arg) {
    struct readahead *r = arg;
    struct tensor t;
    for (int i = 0; take_tensor(r, i, &t); i++) {
        uint32_t rows = (uint32_t)(STEP / t.row_bytes) + 1;
        for (uint32_t lo = 0; lo < t.rows;) {
            uint32_t hi = t.rows - lo > rows ? lo + rows : t.rows;
            enum turn turn = take_turn(r, (uint64_t)(hi - lo) * t.row_bytes);
            if (turn == STOP)
                return NULL;
            if (turn == ASK)
                tensor_will_need(&t, lo, hi);
            lo = hi;
        }
    }
    return NULL;
}

int readahead_add(struct readahead *r, const struct tensor *t, int n, struct err *e) {
    pthread_mutex_lock(&r->lock);
    struct tensor *all = realloc(r->tensors, ((size_t)r->n + (size_t)n) * sizeof *t);
    if (all) {
        memcpy(all + r->n, t, (size_t)n * sizeof *t);
        r->tensors = all;
        r->n += n;
        pthread_cond_signal(&r->moved);
    }
    pthread_mutex_unlock(&r->lock);
    return all ? 0 : err_set(e, ERR_MEMORY, "out of memory to read a model");
}

int readahead_start(struct readahead **out, const struct tensor *t, int n, struct err *e) {
    *out = NULL;
    struct readahead *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_MEMORY, "out of memory to read a model");
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, NULL);
    if (readahead_add(r, t, n, e) != 0 || thread_start(&r->thread, ahead, r, "a thread that reads ahead", e) != 0) {
        readahead_stop(r);
        return -1;
    }
    r->started = true;
    *out = r;
    return 0;
}

void readahead_done(struct readahead *r, uint64_t bytes) {
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->used += bytes;
    pthread_cond_signal(&r->moved);
    pthread_mutex_unlock(&r->lock);
}

void readahead_stop(struct readahead *r) {
    if (!r)
        return;
    if (r->started) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_signal(&r->moved);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    pthread_cond_destroy(&r->moved);
    pthread_mutex_destroy(&r->lock);
    free(r->tensors);
    free(r);
}
