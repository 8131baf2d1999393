/* The CUDA backend: which cards it has, in which teams, and whether they still work. */
#include "gpu/backend.h"

#include "gpu/stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cuda_backend *cuda_of(const struct backend *b) {
    return (struct cuda_backend *)(uintptr_t)b;
}

/* ---- cards ---- */

int card_enter(struct card *c, struct err *e) {
    if (c->broken.kind != ERR_NONE)
        return err_set(e, ERR_DEVICE,
                       "GPU %d (%s) has failed and cannot be used again by this process; start it again (%.300s)",
                       c->gpu->ordinal, c->gpu->name, c->broken.msg);
    gpu_enter(c->gpu);
    return 0;
}

int card_wait(struct card *c, struct err *e) {
    struct err why = {0};
    if (gpu_wait(c->gpu, &why) == 0)
        return 0;
    if (c->broken.kind == ERR_NONE)
        c->broken = why;
    return err_set(e, why.kind, "%s", why.msg);
}

/* ---- names ---- */

static void append(char *text, size_t cap, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t cap, const char *format, ...) {
    size_t n = strlen(text);
    va_list ap;
    va_start(ap, format);
    vsnprintf(text + n, cap - n, format, ap);
    va_end(ap);
}

static bool alike(const struct gpu *a, const struct gpu *b) {
    return strcmp(a->name, b->name) == 0 && a->memory == b->memory;
}

/* "2 x NVIDIA H200, 141 GB, joined", or each card of a team when they differ. */
static void describe_team(struct cuda_backend *b, int first) {
    int end = first + b->cards[first].seat.n, same = first;
    for (int i = first; i < end; i += same) {
        const struct gpu *g = b->cards[i].gpu;
        for (same = 1; i + same < end && alike(b->cards[i + same].gpu, g);)
            same++;
        append(b->describe, sizeof b->describe, "%s", i > first ? " + " : first > 0 ? "; " : "");
        if (same > 1)
            append(b->describe, sizeof b->describe, "%d x ", same);
        append(b->describe, sizeof b->describe, "%s, %.0f GB", g->name, (double)g->memory / 1e9);
    }
    if (end - first > 1)
        append(b->describe, sizeof b->describe, ", joined");
}

static void name_cards(struct cuda_backend *b) {
    int version = 0;
    const struct gpu *first = b->cards[0].gpu;
    first->driver->driver_version(&version);
    snprintf(b->name, sizeof b->name, "cuda-sm%d%d", first->major, first->minor);
    for (int i = 0; i < b->n_cards; i++) {
        const struct gpu *g = b->cards[i].gpu;
        if (g->major != first->major || g->minor != first->minor)
            append(b->name, sizeof b->name, "+sm%d%d", g->major, g->minor);
    }
    for (int i = 0; i < b->n_cards; i += b->cards[i].seat.n)
        describe_team(b, i);
    append(b->describe, sizeof b->describe, ", driver %d.%d", version / 1000, version % 1000 / 10);
}

const char *backend_cuda_name(const struct backend *b) {
    return cuda_of(b)->name;
}

const char *backend_cuda_describe(const struct backend *b) {
    return cuda_of(b)->describe;
}

size_t team_memory_left(const struct card *c) {
    size_t least = SIZE_MAX;
    for (int i = 0; i < c->seat.n; i++) {
        gpu_enter(c[i].gpu);
        size_t left = gpu_memory_left(c[i].gpu);
        least = left < least ? left : least;
    }
    return least * (size_t)c->seat.n;
}

uint64_t backend_cuda_memory_left(const struct backend *base) {
    const struct cuda_backend *b = cuda_of(base);
    uint64_t left = 0;
    for (int i = 0; i < b->n_cards; i += b->cards[i].seat.n)
        left += team_memory_left(&b->cards[i]);
    return left;
}

/* ---- creation ---- */

/* What --device says, card by card. */
struct device {
    int ordinal;
    struct seat seat;
};

static void seat_team(struct device *d, int n) {
    for (int i = 0; i < n; i++)
        d[i].seat = (struct seat){i, n};
}

/* "1,0", "0+1,2+3"; each card at most once. Returns how many, or -1. */
static int parse_devices(const char *devices, struct device list[MAX_CARDS], struct err *e) {
    int n = 0, team = 0; /* the first of the team that is being read */
    for (const char *at = devices;; at++) {
        char *end;
        long v = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (v < 0 || v > 1023 || (*end != '\0' && *end != ',' && *end != '+'))
            return err_set(e, ERR_USAGE,
                           "--device %s: numbers of cards are expected, like 0, 0,1 (layers are spread over them) or "
                           "0+1 (both compute the same layers)",
                           devices);
        for (int i = 0; i < n; i++)
            if (list[i].ordinal == v)
                return err_set(e, ERR_USAGE, "--device %s: GPU %ld stands there twice", devices, v);
        if (n == MAX_CARDS)
            return err_set(e, ERR_USAGE, "--device %s: at most %d cards", devices, MAX_CARDS);
        list[n++].ordinal = (int)v;
        at = end;
        if (*at != '+') {
            seat_team(list + team, n - team);
            team = n;
        }
        if (*at == '\0')
            return n;
    }
}

void cuda_backend_free(struct backend *base) {
    struct cuda_backend *b = cuda_of(base);
    if (!b)
        return;
    for (int i = 0; i < b->n_cards; i++)
        if (b->cards[i].seat.rank == 0)
            team_free(b->cards[i].team);
    for (int i = 0; i < b->n_cards; i++)
        gpu_close(b->cards[i].gpu);
    free(b);
}

/* The cards of a team are open. */
static int join(struct card *cards, const char *devices, struct err *e) {
    struct gpu *gpus[MAX_CARDS];
    struct team *team;
    int n = cards->seat.n;
    for (int i = 0; i < n; i++)
        gpus[i] = cards[i].gpu;
    if (team_create(&team, gpus, n, e) != 0)
        return n > 1 ? err_wrap(e, "--device %s", devices) : -1;
    for (int i = 0; i < n; i++)
        cards[i].team = team;
    return 0;
}

int backend_cuda_create(struct backend **out, const struct cuda_opts *o, struct err *e) {
    *out = NULL;
    const char *devices = o && o->devices ? o->devices : "0";
    struct device list[MAX_CARDS];
    int n = parse_devices(devices, list, e);
    if (n <= 0)
        return -1;
    struct cuda_backend *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_MEMORY, "out of memory");
    b->base.ops = &cuda_ops;
    for (int i = 0; i < n; i++) {
        if (gpu_open(&b->cards[i].gpu, list[i].ordinal, e) != 0)
            goto fail;
        b->cards[i].seat = list[i].seat;
        b->n_cards++;
    }
    for (int i = 0; i < n; i += b->cards[i].seat.n)
        if (join(&b->cards[i], devices, e) != 0)
            goto fail;
    name_cards(b);
    *out = &b->base;
    return 0;
fail:
    cuda_backend_free(&b->base);
    return -1;
}
