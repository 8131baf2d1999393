/* test/unit/shaky.h - a middle around another one that answers late, in pieces and in another order, and that can be
 * lost and come back with less. */
#ifndef TEST_SHAKY_H
#define TEST_SHAKY_H

#include "core/model/middle.h"

#include <stdbool.h>

enum { SHAKY_ROWS = 1024, SHAKY_WINDOWS = 64 };

struct shaky {
    struct middle base;
    struct middle *inner;
    int hidden;
    double delay_ms; /* from submit to result, however many are in flight */
    bool pieces;
    uint32_t seed;
    int calls_left; /* until one fails; -1: none does */
    int again;      /* calls from one failure to the next; 0: only one */
    bool late;      /* the failing call reaches the other side */
    enum { SHAKY_KEEPS, SHAKY_LOSES_SOME, SHAKY_LOSES_ALL } loses;
    int stop_left; /* collects until the caller's stop function asks; -1: never */
    /* its own */
    bool dead;
    int calls, failures, recoveries;
    double sent_ms[SHAKY_WINDOWS]; /* a ring: of windows that the inner one still has */
    int first, n_sent;
    struct {
        uint32_t id;
        double ready_ms, compute_ms;
    } row[SHAKY_ROWS];
    float *x; /* [SHAKY_ROWS][hidden] */
    int n;
};

void shaky_init(struct shaky *m, struct middle *inner, int hidden);
void shaky_free(struct shaky *m); /* not the inner one */

#endif
