/* core/decode/session.h - one conversation: tokens, the KV of the trusted layers, a middle, and the loop
 * propose -> submit -> collect -> match -> commit.
 *
 * A session knows no text and no socket. Logits at a position are the same bits whatever windows computed it.
 *
 * A middle that fails is asked to recover, and what it lost is computed again from the tokens: feed, advance and
 * try_tree take longer then, and that is all. They fail with the middle's error (peer, io, crypto) when it cannot
 * recover, or fails again and again without getting further; the context keeps its tokens, and the next call tries
 * again. */
#ifndef CORE_DECODE_SESSION_H
#define CORE_DECODE_SESSION_H

#include "core/base/err.h"
#include "core/decode/sample.h"
#include "core/decode/speculation.h"
#include "core/model/backend.h"
#include "core/model/middle.h"

#include <stdbool.h>
#include <stdint.h>

struct session;

struct session_opts {
    struct stage *front;   /* embed + [0, front) */
    struct stage *back;    /* [n - back, n) + head; may be the same stage as front when one part holds everything */
    struct middle *middle; /* borrowed; NULL when front == back */
    enum dtype kv_type;    /* DT_F16 or DT_F32, of the trusted layers */
    uint32_t max_ctx;      /* positions */
    int max_rows;          /* rows of the largest window (prefill chunk); <= the stages' max_rows */
    int prefill_windows;   /* how many of them session_feed keeps in flight; 0: SESSION_WINDOWS. More than 1 is of use
                            * only when the middle works while this side does. */
    struct session_speculation speculation;
};

enum { SESSION_WINDOWS = 4 };

/* Nodes that a session with these options may have in flight: what its middle has to be made for, and KV places beside
 * those of the context, here and there. */
uint32_t session_live(int max_rows, int prefill_windows);
/* Bytes of activations that it and its middle may hold for them. */
uint64_t session_window_bytes(int hidden, int max_rows, int prefill_windows);

/* Bytes that speculation takes in a session, beside its drafter. */
uint64_t session_speculation_bytes(int hidden, int vocab, const struct session_speculation *o);

struct session_stats {
    uint32_t prompt_tokens; /* of the last session_feed: all, and how many were reused from the KV */
    uint32_t reused_tokens;
    uint64_t generated; /* since creation */
    uint64_t steps;     /* round trips of decoding since creation: tokens that no guess in flight had foreseen */
    double prefill_ms, decode_ms;                            /* of the last feed; since the last feed */
    double front_ms, middle_ms, back_ms, head_ms, sample_ms; /* since creation; middle is waiting for it */
    double cloud_ms;                                         /* compute time that the middle reported: all of it, */
    double awaited_ms;                                       /* and of passes that brought what was waited for */
    uint32_t recoveries; /* since creation: times that the middle came back; positions it had lost */
    uint64_t replayed_tokens;
    uint64_t hits, late; /* tokens that were in the tree; of them, those whose result had to be waited for */
    uint64_t nodes_sent, nodes_cancelled; /* guesses; the others were hits, or wait */
    uint64_t windows;                     /* with guesses */
    uint64_t ticks_idle, ticks_missed;    /* padded: windows for the clock alone; ticks at which none could be sent */
    double draft_ms;
};

int session_create(struct session **out, const struct session_opts *o, struct err *e);
void session_free(struct session *s); /* wipes tokens and activations */

/* Makes the context equal tokens[0..n): keeps the longest common prefix with what is there, drops the rest, computes
 * what is new in windows of at most max_rows. Afterwards session_logits are those of the last token. progress may be
 * NULL; it is told positions done and in all, and stops the feed when it returns non-zero (then -1 with ERR_NONE in e,
 * the context keeps what was computed; the same when the middle's stop function asked for it). ERR_USAGE when n is 0, n
 * > max_ctx, or a token is out of range. */
int session_feed(struct session *s, const uint32_t *tokens, uint32_t n,
                 int (*progress)(void *ctx, uint32_t done, uint32_t all), void *ctx, struct err *e);

/* Samples the next token from the current logits: *token. Does not compute it; session_advance does. n_generated tells
 * the sampler how many of the last tokens count as generated. */
int session_sample(struct session *s, const struct sample_params *p, uint32_t n_generated, uint32_t *token,
                   struct err *e);

/* Appends token to the context and computes its logits. ERR_USAGE when the context is full. */
int session_advance(struct session *s, uint32_t token, struct err *e);

/* Computes a window of speculative nodes: tokens[i] under parent index parents[i] (an earlier node of this window, or
 * -1 for a child of the last committed token), and writes logits[n][vocab]. The nodes are cancelled again. For tests,
 * and the ground on which drafting stands. n <= max_rows. */
int session_try_tree(struct session *s, const uint32_t *tokens, const int *parents, int n, float *logits,
                     struct err *e);

const float *session_logits(const struct session *s); /* [vocab], of the last token; NULL before the first feed */
const uint32_t *session_tokens(const struct session *s, uint32_t *n); /* borrowed */
uint32_t session_max_ctx(const struct session *s);
/* From the next token on. A mode that the session was not made for is sequential. */
void session_set_mode(struct session *s, enum session_mode m);
void session_reset(struct session *s); /* never waits: a middle that cannot be told now is told before the next pass */
const struct session_stats *session_stats(const struct session *s);

#endif
