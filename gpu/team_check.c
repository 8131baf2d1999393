#include "gpu/team_check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* NCCL takes other ways for little and for much. */
static const size_t sizes[] = {1 << 10, 128 << 10};
enum { UNSET = 0xee, WORD = sizeof(uint32_t) };

struct part { /* of one card */
    cu_ptr buf;
    uint32_t *host; /* pinned */
    cu_graph_exec recording;
};

struct check {
    struct team *team;
    struct gpu *const *cards;
    struct part *parts;
    size_t bytes; /* of a block */
    unsigned round;
    bool replays;
};

static uint32_t pattern(unsigned rank, unsigned round, size_t i) {
    return ((uint32_t)i + (rank << 20) + (round << 26)) * 2654435761u;
}

static int record(void *ctx, int rank, struct err *e) {
    struct check *c = ctx;
    struct gpu *g = c->cards[rank];
    gpu_record_begin(g);
    team_gather(c->team, rank, c->parts[rank].buf, c->bytes);
    c->parts[rank].recording = gpu_record_end(g);
    if (gpu_wait(g, e) != 0)
        return -1;
    return c->parts[rank].recording ? 0 : err_set(e, ERR_MEMORY, "GPU %d (%s) has no memory", g->ordinal, g->name);
}

static int gather(void *ctx, int rank, struct err *e) {
    struct check *c = ctx;
    struct gpu *g = c->cards[rank];
    struct part *p = &c->parts[rank];
    size_t all = (size_t)team_size(c->team) * c->bytes, words = c->bytes / WORD;
    memset(p->host, UNSET, all);
    for (size_t i = 0; i < words; i++)
        p->host[(size_t)rank * words + i] = pattern((unsigned)rank, c->round, i);
    gpu_copy_to(g, p->buf, p->host, all);
    if (c->replays)
        team_replay(c->team, rank, p->recording);
    else
        team_gather(c->team, rank, p->buf, c->bytes);
    gpu_copy_from(g, p->host, p->buf, all);
    if (gpu_wait(g, e) != 0)
        return -1;
    for (int r = 0; r < team_size(c->team); r++)
        for (size_t i = 0; i < words; i++)
            if (p->host[(size_t)r * words + i] != pattern((unsigned)r, c->round, i))
                return err_set(e, ERR_DEVICE, "GPU %d (%s) does not get what GPU %d has sent", g->ordinal, g->name,
                               c->cards[r]->ordinal);
    return 0;
}

static int gathers(struct check *c, bool replays, struct err *e) {
    c->replays = replays;
    c->round++;
    return team_run(c->team, gather, c, e);
}

/* On the caller's thread: the others have nothing to do meanwhile. */
static void forget(struct check *c) {
    for (int r = 0; r < team_size(c->team); r++) {
        gpu_enter(c->cards[r]);
        gpu_forget(c->cards[r], c->parts[r].recording);
        c->parts[r].recording = NULL;
    }
}

int team_check(struct team *t, struct gpu *const *cards, struct err *e) {
    int n = team_size(t), rc = -1;
    size_t most = (size_t)n * sizes[sizeof sizes / sizeof *sizes - 1];
    struct check c = {.team = t, .cards = cards, .parts = calloc((size_t)n, sizeof *c.parts)};
    if (!c.parts)
        return err_set(e, ERR_MEMORY, "out of memory");
    for (int r = 0; r < n; r++) {
        gpu_enter(cards[r]);
        if (gpu_alloc(cards[r], &c.parts[r].buf, most, "a first gather", e) != 0 ||
            gpu_host_alloc(cards[r], (void **)&c.parts[r].host, most, e) != 0)
            goto out;
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        c.bytes = sizes[i];
        if (gathers(&c, false, e) != 0 || team_run(t, record, &c, e) != 0 || gathers(&c, true, e) != 0 ||
            gathers(&c, true, e) != 0)
            goto out;
        forget(&c);
    }
    rc = 0;
out:
    forget(&c);
    for (int r = 0; r < n; r++) {
        gpu_enter(cards[r]);
        gpu_free(cards[r], c.parts[r].buf);
        if (c.parts[r].host)
            gpu_host_free(cards[r], c.parts[r].host, most);
    }
    free(c.parts);
    return rc;
}
