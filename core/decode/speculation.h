/* core/decode/speculation.h - how a session (session.h) computes tokens that are not known yet: the modes, who guesses,
 * and what of it the network may see. */
#ifndef CORE_DECODE_SPECULATION_H
#define CORE_DECODE_SPECULATION_H

#include "core/draft/draft.h"
#include "core/draft/iterate.h"

#include <stdint.h>

/* How tokens are computed; what comes out is the same bits in each. */
enum session_mode {
    SESSION_SEQUENTIAL,    /* one token, one round trip */
    SESSION_STOP_AND_WAIT, /* a tree of guesses goes with each token, and nothing more until it is back */
    SESSION_AUTO,          /* guesses go out as they pay, below those in flight too; none where they do not */
    SESSION_JACOBI,        /* stop and wait with guesses that the target itself makes better (core/draft/iterate.h): */
    SESSION_LOOKAHEAD,     /* a block, or a grid and n-grams */
    N_SESSION_MODES
};
const char *session_mode_name(enum session_mode m);

/* Who guesses: the functions of core/draft/draft.h on ctx, or others of the same meaning. logits may be NULL, and so
 * may ahead: then auto drafts before it waits and not while it does. */
struct session_drafter {
    void *ctx;
    void (*sync)(void *ctx, const uint32_t *tokens, uint32_t n);
    void (*logits)(void *ctx, uint32_t token, const float *logits);
    int (*next)(void *ctx, const uint32_t *path, int n_path, struct draft_candidate *c, int cap);
    void (*outcome)(void *ctx, const struct draft_candidate *offered, int n, uint32_t truth);
    int (*grow)(void *ctx, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap, float least);
    int (*ahead)(void *ctx, struct draft_node *tree, int n, int cap, float least, int passes, int *made);
};

struct session_drafter session_drafter_of(struct drafter *d); /* borrows d */

/* What became of a guess. Nothing here tells a token. */
struct session_guess {
    enum {
        GUESS_ACCEPTED,
        GUESS_REJECTED /* another token came there */,
        GUESS_CANCELLED /* nothing came there */
    } fate;
    uint8_t source;                   /* enum draft_source; N_DRAFT_SOURCES: padding */
    uint32_t depth;                   /* below the token that it went out with, or behind */
    float p, path;                    /* as the drafter said */
    double sent_ms, came_ms, over_ms; /* clock_ms; came_ms 0: its result was not back */
};

struct session_speculation {
    enum session_mode mode;
    const struct session_drafter *drafter; /* copied; NULL: stop-and-wait and auto are sequential */
    int max_nodes; /* of a tree; auto has as many again in windows behind it. 0: SESSION_NODES; at most
                    * SESSION_MAX_NODES, and in flight SESSION_IN_FLIGHT */
    /* Of jacobi and lookahead, both of which are ready then; NULL: the usual settings when the session is made in one
     * of these modes, and otherwise they are sequential. */
    const struct iterate_opts *iterate;
    /* Privacy: decoding sends windows of pad_rows rows, no more and no less (0: as they come; at most max_rows and
     * SESSION_PAD_ROWS), one every pad_ms (0: what a step was measured to take, rounded up). auto is stop-and-wait
     * then, for several windows in flight tell by themselves how many paid. Windows of session_feed are filled up to
     * max_rows. What was lost and is computed again is not padded. */
    int pad_rows;
    double pad_ms;
    /* Is told of each guess when its fate is known; may be NULL. */
    void (*fate)(void *ctx, const struct session_guess *g);
    void *fate_ctx;
};
enum {
    SESSION_NODES = 128,
    SESSION_MAX_NODES = 192,
    SESSION_IN_FLIGHT = 240,
    SESSION_PAD_ROWS = 32,
    SESSION_PAD_IDLE = 4
};
/* To what multiple lists of committed and cancelled ids have to be filled up, so that they tell nothing either: a
 * window of decoding and one of the prompt come with as many, at most. */
uint32_t session_pad_ids(int pad_rows, int max_rows);

#endif
