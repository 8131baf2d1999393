/* core/draft/ngram.h - counts of what followed which context, in a fixed block of memory.
 *
 * A context is a 64-bit hash of tokens; a count sits in one 8-byte slot of a 64-byte line that the hash picks, so a
 * lookup costs one cache line for each line a context may use. Slots hold {check bits of the hash, token, count}, and
 * any content of the block is a valid table: a file that another process writes to, or that was damaged, gives worse
 * guesses and nothing else. Full lines forget what was seen least. Knows no file, no order and no probability.
 *
 * The block may be shared between processes: slots are read and written as atomic words, and a lost update is a lost
 * count. */
#ifndef CORE_DRAFT_NGRAM_H
#define CORE_DRAFT_NGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    NGRAM_LINE = 8,           /* slots of a line */
    NGRAM_MIN_BITS = 12,      /* of the number of lines */
    NGRAM_MAX_BITS = 26,      /* the check bits suffice for so many (4 GiB) */
    NGRAM_MAX_VOCAB = 1 << 20 /* tokens are 20 bits of a slot */
};

struct ngram_table {
    uint64_t *slots; /* borrowed; 64-byte aligned, zero when new */
    unsigned bits;   /* 2^bits lines */
};

struct ngram_succ {
    uint32_t token;
    uint32_t count;
};

/* Of the block behind a table. */
size_t ngram_bytes(unsigned bits);

/* The hash of a context, one token further into the past; start from a seed that names the kind of context. */
static inline uint64_t ngram_hash(uint64_t h, uint32_t token) {
    h = (h ^ (token + 0x51ed27u)) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* token followed the context h: its count grows by inc. n_lines: how many lines contexts of this kind may use (the same
 * at every call). keep < 256: the counts of the context's other successors are first multiplied by keep/256, so that
 * what came lately weighs more. Returns the count that token had before. */
uint32_t ngram_add(const struct ngram_table *t, uint64_t h, int n_lines, uint32_t token, uint32_t inc, unsigned keep);

/* Successors of h below vocab with a count, at most cap, in no order. Returns how many. */
int ngram_find(const struct ngram_table *t, uint64_t h, int n_lines, uint32_t vocab, struct ngram_succ *out, int cap);
/* Asks for the lines of h to be fetched, for an ngram_find soon. */
void ngram_prefetch(const struct ngram_table *t, uint64_t h, int n_lines);

/* Everything in src into dst, which is new and has as many lines or more. */
void ngram_move(const struct ngram_table *dst, const struct ngram_table *src);

#endif
