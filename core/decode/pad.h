/* core/decode/pad.h - windows that do not tell what became of the guesses: each has the same number of rows, filled up
 * with nodes that are computed and cancelled like any wrong guess, and goes out on the tick of a clock. A window of
 * such nodes alone goes out when a tick comes and the result before it has not. For speculate.c and rounds.c; what this
 * hides and what not stands in docs/threat-model.md. */
#ifndef CORE_DECODE_PAD_H
#define CORE_DECODE_PAD_H

#include "core/decode/session_impl.h"

struct pad {
    int rows;                        /* of each window; 0: windows are as large as they are, and go at once */
    double tick_ms;                  /* 0: not chosen yet */
    double due_ms;                   /* of the last window; 0: none in this answer */
    double sent_ms;                  /* when it went */
    double trip_ms;                  /* the shortest that one was awaited, of */
    int n_trips;                     /* so many */
    double front_ms;                 /* that the front takes for a window */
    uint32_t idle[SESSION_PAD_IDLE]; /* roots of windows that were sent for the clock alone, to be cancelled */
    int n_idle;
    uint64_t drawn; /* numbers, of the generator that chooses what windows are filled with */
};

/* Tops the tree up, so that head and tree are one window. At the very end of a full context there is no room below it.
 */
void pad_fill(struct session *s);
/* speculation_fill. */
int pad_window(struct session *s, int n, uint32_t upto);
/* Returns when the window that is ready may go. */
void pad_hold(struct session *s);
/* session_gather, without end; windows go out meanwhile as the clock wants. */
int pad_gather(struct session *s, struct err *e);
/* All that was sent is here. */
void pad_came(struct session *s);

#endif
