/* core/decode/speculate.h - the tree of guesses that a session has in flight below its last committed token. It owns
 * the tree, what came back of it and the price of a guess; the KV table, the parts and the middle are the session's.
 *
 * The caller of a session samples each position once, from logits that are the same bits whatever window computed them.
 * So guesses decide when something is computed and never what comes out. */
#ifndef CORE_DECODE_SPECULATE_H
#define CORE_DECODE_SPECULATE_H

#include "core/decode/session_impl.h"

/* Nothing when the session has no drafter or no middle. All memory is taken here. */
int speculation_create(struct session *s, struct err *e);
void speculation_free(struct session *s);

/* Is the next token one for speculation_advance? */
bool speculation_wanted(struct session *s);
/* session_advance, on a session that is whole. When it fails, guesses may be in flight: the session rewinds. */
int speculation_advance(struct session *s, uint32_t token, struct err *e);
/* The caller sampled the next token in this way. */
void speculation_sampled(struct session *s, const struct sample_params *p, uint32_t n_generated);
/* A window of the context was waited for since it was sent, with nothing before it. */
void speculation_window(struct session *s, int rows, double elapsed_ms, double compute_ms);
/* A token was computed in ms without speculation. */
void speculation_plain(struct session *s, double ms);

/* A window that has a tick to wait for is ready; its front took ms. */
void speculation_hold(struct session *s, double front_ms);

/* Describes nodes behind s->nodes[0..n) that fill the window up when windows are padded; it ends at position upto - 1.
 * Their tokens stand in s->tokens from upto on. Returns how many. */
int speculation_fill(struct session *s, int n, uint32_t upto);

/* Cancels what is in flight, here and there. */
void speculation_drop(struct session *s);
/* The KV was rewound: nothing is in flight any more. */
void speculation_forget(struct session *s);
/* A row came from the middle. 1: it was of the tree; 0: it was not; -1: it was, and had come before. */
int speculation_take(struct session *s, uint32_t id, const float *x);

#endif
