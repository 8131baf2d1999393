/* cmd/engine/learned.h - the learned store (core/draft/store.h) as chat uses it: opened for a tokenizer in --home, told
 * each turn, primed from texts, forgotten. While talking, a store that fails is said once and costs nothing but
 * guesses.
 *
 * Only conversations with a cloud are learned, and only they read the store: a guess travels to the cloud as any token
 * does, so what was said to the whole model on this machine must not turn up there. */
#ifndef CMD_ENGINE_LEARNED_H
#define CMD_ENGINE_LEARNED_H

#include "cmd/options.h"
#include "core/draft/draft.h"
#include "core/draft/store.h"
#include "tok/tokenizer.h"

struct learned {
    struct draft_store *store; /* NULL: none */
    struct ids last;           /* prompt and answer of the last turn */
    bool failed;               /* said already */
};

/* home NULL: the default one. */
int learned_open(struct learned *l, const char *home, const struct tokenizer *t, struct err *e);
/* The same for a chat: what fails is a warning. */
void learned_try_open(struct learned *l, const char *home, const struct tokenizer *t);
void learned_close(struct learned *l);

/* A turn is over: what was new in it is learned, and what d found out about whom to trust is kept. */
void learned_turn(struct learned *l, struct drafter *d, const struct ids *prompt, const uint32_t *answer,
                  size_t n_answer);
/* Where in a prompt that comes after the tokens last[0..n_last) the new part begins: behind what both begin with, or
 * behind the end of last wherever that stands (older turns may have been dropped). For learned_turn. */
size_t learned_new_part(const uint32_t *last, size_t n_last, const uint32_t *prompt, size_t n);

/* Learns text files, says how much; ERR_NONE in e: Ctrl-C. *n_tokens: of all. What was learned before a failure stays.
 */
int learned_prime(struct learned *l, const struct tokenizer *t, const struct strings *files, uint64_t *n_tokens,
                  struct err *e);

/* Deletes all stores in home, and says what. */
int learned_forget(const char *home, bool json, struct err *e);

#endif
