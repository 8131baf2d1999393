/* core/draft/store.h - what was generated before, as n-gram counts: a drafter that starts with them guesses much better
 * (SPECULATION.md: 2.18 instead of 1.77 tokens for each round trip). It is the user's text: files are 0600, and the
 * directory is the user's own (--home).
 *
 * Two files for each tokenizer: a log of the token sequences, append-only and with a check sum for each, and a table of
 * counts that is mapped, so opening takes no time however much was learned. A damaged table is made again from the log;
 * a log that ends in the middle of a record loses that record; both with a warning. Both have a bound: the log drops
 * its older half, a full table forgets what was seen least. Several processes may use a store at once; the files count
 * as hostile input. They are replaced by renaming and never cut while they may be mapped; when another program does
 * that, what is gone counts as zeros until the next draft_store_learn repairs it (store_guard.h). */
#ifndef CORE_DRAFT_STORE_H
#define CORE_DRAFT_STORE_H

#include "core/base/err.h"
#include "core/draft/blend.h"

#include <stddef.h>
#include <stdint.h>

struct draft_store;

struct draft_store_opts {
    uint32_t vocab;
    uint64_t tokenizer; /* tells tokenizers apart: a hash of the vocabulary */
    size_t table_bytes; /* bounds; 0: 256 MiB each */
    size_t log_bytes;
};

/* Opens the store in dir, which exists, or starts one. Files that are damaged are repaired with a warning. */
int draft_store_open(struct draft_store **out, const char *dir, const struct draft_store_opts *o, struct err *e);
/* A store without files, gone when closed. */
int draft_store_create(struct draft_store **out, const struct draft_store_opts *o, struct err *e);
void draft_store_close(struct draft_store *s); /* NULL is fine */
/* Deletes all stores in dir, of every tokenizer. What other processes have open they lose when they next learn. */
struct draft_store_forgotten {
    int n; /* stores */
    uint64_t bytes;
};
int draft_store_forget(const char *dir, struct draft_store_forgotten *done, struct err *e);

/* One sequence: a prompt with its answer, or a text. It ends before a token that the vocabulary lacks. On failure what
 * was learned before stays, and s can be used as before. No drafter may be using s meanwhile (the table may move). */
int draft_store_learn(struct draft_store *s, const uint32_t *tokens, size_t n, struct err *e);
uint64_t draft_store_tokens(const struct draft_store *s); /* learned so far, by all processes */
uint64_t draft_store_bytes(const struct draft_store *s);  /* of both files */

/* The counts; valid until the next draft_store_learn. The kinds of contexts in them (bits 1 << enum context_kind). */
const struct ngram_table *draft_store_table(const struct draft_store *s);
extern const unsigned draft_store_contexts;
/* How far to trust which count, as earlier drafters found out. */
void draft_store_shares(const struct draft_store *s, struct blend_shares *out);
void draft_store_keep_shares(struct draft_store *s, const struct blend_shares *w);

#endif
