/* tok/bpe.h - the byte-pair merge engine under every tokenizer kind.
 *
 * A sequence of symbols is merged pair by pair, lowest rank first, leftmost first among equal ranks, until no pair can
 * be merged: a heap over a linked list, n log n. What may merge is asked in one of two ways: by pair  (tokenizer.json,
 * GGUF gpt2): a table of (left id, right id) -> (rank, id); by text  (SentencePiece, tekken):     two neighbours merge
 * when their joined text is a piece; its rank is per id. Works on ids and byte ranges of text that is borrowed; knows
 * no files and no Unicode. */
#ifndef TOK_BPE_H
#define TOK_BPE_H

#include "core/base/err.h"
#include "tok/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpe {
    const struct vocab *vocab; /* by text: what joined text is looked up in; borrowed */
    uint32_t *rank;            /* by text: rank of each id; owned */
    struct bpe_pair {
        uint32_t left, right; /* left NO_ID: free */
        uint32_t rank, into;
    } * pair; /* by pair: open addressing; owned */
    uint32_t mask, n_pairs;
};

/* By pair: room for n_pairs, then each with bpe_add; of equal pairs the last wins. */
int bpe_init_pairs(struct bpe *b, uint32_t n_pairs, struct err *e);
void bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t into);
void bpe_free(struct bpe *b);

/* A rank that orders like the score: higher scores first, equal scores equal. Not for NaN. */
uint32_t bpe_rank_of_score(float score);

struct bpe_symbol {
    uint32_t id;       /* NO_ID: text that is no piece; it stays as it is unless a merge by text takes it in */
    uint32_t off, len; /* byte range in the text */
    uint32_t prev, next;
    uint32_t rank, into; /* the merge with the next symbol; rank NO_RANK: none */
    uint32_t frozen;     /* never merged */
};
#define BPE_END UINT32_MAX

/* Scratch for one encode call; zero-initialise. Holds traces of the text: bpe_work_free wipes. */
struct bpe_work {
    struct bpe_symbol *s;
    uint32_t n, cap;
    uint64_t *heap;
    size_t cap_heap;
    uint32_t *left_half; /* of each id; NULL until an unused piece comes up */
    size_t n_left_half;
    bool bad; /* out of memory */
};

void bpe_push(struct bpe_work *w, uint32_t id, uint32_t off, uint32_t len, bool frozen);
/* How the unused piece id was last put together (by text only): the length of its left half, 0: never. */
static inline uint32_t bpe_left_half(const struct bpe_work *w, uint32_t id) {
    return id < w->n_left_half ? w->left_half[id] : 0;
}
/* Merges the n symbols of w, whose text ranges adjoin (by text). Afterwards the list starts at s[0] and follows next to
 * BPE_END. 0, or -1 when out of memory. */
int bpe_merge(const struct bpe *b, struct bpe_work *w, const uint8_t *text);
void bpe_work_free(struct bpe_work *w);

#endif
