#include "gpu/recording.h"

#include <stdlib.h>

int recordings_create(struct recordings *r, struct gpu *g, struct err *e) {
    *r = (struct recordings){.gpu = g, .most = MAX_RECORDINGS};
    r->list = calloc(MAX_RECORDINGS, sizeof *r->list);
    return r->list ? 0 : err_set(e, ERR_MEMORY, "out of memory for recorded passes");
}

void recordings_free(struct recordings *r) {
    for (int i = 0; i < r->n; i++)
        gpu_forget(r->gpu, r->list[i].exec);
    free(r->list);
    *r = (struct recordings){0};
}

static bool same(const struct launches *a, const struct launches *b) {
    return a->lo == b->lo && a->hi == b->hi && a->rows == b->rows && a->max_keys == b->max_keys && a->epoch == b->epoch;
}

struct recording *recordings_find(struct recordings *r, const struct launches *of) {
    for (int i = 0; i < r->n; i++)
        if (same(&r->list[i].of, of))
            return &r->list[i];
    return NULL;
}

struct recording *recordings_place(struct recordings *r, const struct launches *of) {
    struct recording *place = recordings_find(r, of);
    if (place)
        return place;
    if (r->n < r->most) {
        place = &r->list[r->n++];
    } else {
        place = r->list;
        for (int i = 0; i < r->n; i++)
            if (r->list[i].used < place->used || r->list[i].of.epoch != of->epoch)
                place = &r->list[i];
    }
    recording_forget(r, place);
    *place = (struct recording){.of = *of};
    return place;
}

bool recordings_note(struct recordings *r, struct recording *of) {
    of->due = of->used > 0 && !of->exec;
    of->used = ++r->clock;
    return of->due;
}

void recording_forget(struct recordings *r, struct recording *of) {
    if (!of->exec)
        return;
    gpu_enter(r->gpu);
    gpu_forget(r->gpu, of->exec);
    of->exec = NULL;
}
