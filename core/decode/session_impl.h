/* core/decode/session_impl.h - what the halves of a session share: session.c (the context, windows of it, recovery) and
 * speculate.c (guesses below it). For nobody else, but tests that look inside. */
#ifndef CORE_DECODE_SESSION_IMPL_H
#define CORE_DECODE_SESSION_IMPL_H

#include "core/decode/session.h"
#include "core/model/kv.h"

struct speculation;

/* A window between front and back. Its ids are consecutive. */
struct flight {
    uint32_t first;             /* id of its first node */
    int n, missing;             /* rows; of them still in the middle */
    bool alone;                 /* nothing was in flight before it */
    double sent_ms, compute_ms; /* of the pass so far */
    bool *got;                  /* [max_rows] */
    float *x;                   /* [max_rows][hidden]: what left the front, then row by row what came from the middle */
};

/* What the middle has to be told before the next pass. */
enum debt { SOUND, REWIND, RECOVER };

struct session {
    struct session_opts o;
    const struct model_config *config;
    bool split; /* front, middle and back are three parts; else front holds everything */
    struct slot_pool *pool;
    struct kv_table *table; /* of the trusted layers; front and back share slots */
    struct kv *front_kv, *back_kv;
    uint32_t *tokens; /* [max_ctx]: n that the context has; during a call also those that are about to come */
    uint32_t *ids;    /* [max_ctx]: node ids of the first `done` */
    uint32_t n, done; /* done: positions committed on both sides of the middle; < n after it lost some */
    uint32_t sent;    /* positions committed or in flight; >= done */
    uint32_t next_id, last_sent; /* last_sent: id of the node at position sent - 1 */
    bool have_logits;            /* logits belong to position n - 1 */
    enum debt debt;
    int vain;                      /* recoveries since something was gained */
    uint32_t most_done, most_kept; /* what counts as a gain: more than these */
    float *logits;                 /* [vocab] */
    struct flight *flights;        /* [depth], a ring */
    int depth, first_flight, n_flights;
    struct node *nodes; /* [max_rows] */
    uint32_t *new_ids;  /* [max_rows] */
    uint32_t *got_ids;  /* [max_rows]: of one result */
    float *got_x;       /* [max_rows][hidden] */
    struct row *rows;   /* [max_rows] */
    struct sampler *sampler;
    struct speculation *spec; /* NULL: sequential decoding is all there is */
    bool paced;               /* the next window goes out on a tick (pad.h), */
    bool feeding;             /* and those of session_feed are filled up */
    struct session_stats stats;
};

/* Every failure of the middle goes through here. It returns -1. */
int session_middle_failed(struct session *s, const struct err *e);

/* Computes s->nodes[0..n), whose ids follow next_id, with their tokens up to the middle and sends them on. They are
 * live then on both sides. x [n][hidden] is what left the front. */
int session_launch(struct session *s, const uint32_t *tokens, int n, float *x, struct err *e);

/* Takes one result, which may be a part of a window, to where it belongs. Waits up to timeout_ms for it (-1: as long as
 * it takes). 1: there was one; 0: none in time. */
int session_gather(struct session *s, int timeout_ms, struct err *e);

int session_head(struct session *s, const float *x, int n, float *logits, struct err *e);

/* Commits ids[0..n), whose tokens stand in s->tokens; here first: that stays when the middle cannot be told, for it is
 * what recover is told. logits: of the last one, or NULL when s->logits are not. */
int session_commit(struct session *s, const uint32_t *ids, int n, bool logits, struct err *e);

#endif
