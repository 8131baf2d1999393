/* The CUDA backend: which cards it has, and whether they still work. */
#include "gpu/backend.h"

#include "gpu/stage.h"

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

static void name_cards(struct cuda_backend *b) {
    int version = 0;
    const struct gpu *first = b->cards[0].gpu;
    first->driver->driver_version(&version);
    snprintf(b->name, sizeof b->name, "cuda-sm%d%d", first->major, first->minor);
    for (int i = 0; i < b->n_cards; i++) {
        const struct gpu *g = b->cards[i].gpu;
        size_t n = strlen(b->describe), m = strlen(b->name);
        snprintf(b->describe + n, sizeof b->describe - n, "%s%s, %.0f GB", i ? "; " : "", g->name,
                 (double)g->memory / 1e9);
        if (g->major != first->major || g->minor != first->minor)
            snprintf(b->name + m, sizeof b->name - m, "+sm%d%d", g->major, g->minor);
    }
    size_t n = strlen(b->describe), m = strlen(b->name);
    bool fast = b->cards[0].fast;
    snprintf(b->name + m, sizeof b->name - m, "%s", fast ? "-fast" : "");
    snprintf(b->describe + n, sizeof b->describe - n, ", driver %d.%d%s", version / 1000, version % 1000 / 10,
             fast ? ", activations rounded to bf16 (--math fast)" : "");
}

const char *backend_cuda_name(const struct backend *b) {
    return cuda_of(b)->name;
}

const char *backend_cuda_describe(const struct backend *b) {
    return cuda_of(b)->describe;
}

uint64_t backend_cuda_memory_left(const struct backend *base) {
    const struct cuda_backend *b = cuda_of(base);
    uint64_t left = 0;
    for (int i = 0; i < b->n_cards; i++) {
        gpu_enter(b->cards[i].gpu);
        left += gpu_memory_left(b->cards[i].gpu);
    }
    return left;
}

/* ---- creation ---- */

/* "1,0" into ordinals; each at most once. Returns how many, or -1. */
static int parse_devices(const char *devices, int ordinals[MAX_CARDS], struct err *e) {
    int n = 0;
    for (const char *at = devices;; at++) {
        char *end;
        long v = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (v < 0 || v > 1023 || (*end != '\0' && *end != ','))
            return err_set(e, ERR_USAGE, "--device %s: numbers of cards are expected, like 0 or 0,1", devices);
        for (int i = 0; i < n; i++)
            if (ordinals[i] == v)
                return err_set(e, ERR_USAGE, "--device %s: GPU %ld stands there twice", devices, v);
        if (n == MAX_CARDS)
            return err_set(e, ERR_USAGE, "--device %s: at most %d cards", devices, MAX_CARDS);
        ordinals[n++] = (int)v;
        at = end;
        if (*at == '\0')
            return n;
    }
}

void cuda_backend_free(struct backend *base) {
    struct cuda_backend *b = cuda_of(base);
    if (!b)
        return;
    for (int i = 0; i < b->n_cards; i++)
        gpu_close(b->cards[i].gpu);
    free(b);
}

int backend_cuda_create(struct backend **out, const struct cuda_opts *o, struct err *e) {
    *out = NULL;
    int ordinals[MAX_CARDS] = {0}, n = parse_devices(o && o->devices ? o->devices : "0", ordinals, e);
    if (n <= 0)
        return -1;
    struct cuda_backend *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_MEMORY, "out of memory");
    b->base.ops = &cuda_ops;
    for (int i = 0; i < n; i++) {
        if (gpu_open(&b->cards[i].gpu, ordinals[i], e) != 0) {
            cuda_backend_free(&b->base);
            return -1;
        }
        b->cards[b->n_cards++].fast = o && o->fast;
    }
    name_cards(b);
    *out = &b->base;
    return 0;
}
