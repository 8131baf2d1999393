/* core/draft/store.h - what was generated before, as n-gram counts: a drafter that starts with them guesses much better
 * (SPECULATION.md: 2.18 instead of 1.77 tokens for each round trip). It is the user's text: files are 0600, in --home.
 *
 * Two files for each tokenizer: a log of the token sequences, append-only and with a check sum for each, and a table of
 * counts that is mapped, so opening takes no time however much was learned. The table can be made again from the log and
 * is when it is damaged; a log that ends in the middle of a record loses that record. Both have a bound: the log drops
 * its older half, a full table forgets what was seen least. Several processes may use a store at once. Both files count
 * as hostile input. */
#ifndef CORE_DRAFT_STORE_H
#define CORE_DRAFT_STORE_H

#include "core/base/err.h"
#include "core/draft/blend.h"
#include "core/draft/context.h"

#include <stddef.h>
#include <stdint.h>

struct draft_store;

/* In memory only, gone when closed; at most max_bytes. */
int draft_store_create(struct draft_store **out, uint32_t vocab, size_t max_bytes, struct err *e);
void draft_store_close(struct draft_store *s); /* NULL is fine */

/* One sequence: a prompt with its answer, a text. Tokens that the vocabulary lacks end it. */
int draft_store_learn(struct draft_store *s, const uint32_t *tokens, uint32_t n, struct err *e);
uint64_t draft_store_tokens(const struct draft_store *s); /* learned so far */

/* The count table, and the kinds of contexts counted in it (bits 1 << enum context_kind). */
const struct ngram_table *draft_store_table(const struct draft_store *s);
extern const unsigned draft_store_contexts;
/* The blend's shares that earlier drafters learned with this store; NULL: none yet. */
const struct blend_shares *draft_store_shares(const struct draft_store *s);
void draft_store_keep_shares(struct draft_store *s, const struct blend_shares *w);

#endif
