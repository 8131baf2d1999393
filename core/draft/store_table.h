/* core/draft/store_table.h - the mapped count table of a store: a header, the blend's shares, the n-gram block. For
 * store.c only. The n-gram block may hold anything (ngram.h); the header is checked. */
#ifndef CORE_DRAFT_STORE_TABLE_H
#define CORE_DRAFT_STORE_TABLE_H

#include "core/base/err.h"
#include "core/draft/blend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { STORE_TABLE_HEAD = 1 << 15 };

/* The start of the file, in the machine's byte order (a table from elsewhere is made again). */
struct store_head {
    char magic[8];
    uint64_t tokenizer;
    uint32_t vocab;
    uint32_t bits;
    uint32_t contexts; /* the kinds that are counted */
    uint32_t check;    /* of the fields above */
    uint64_t applied;  /* bytes of the log that are counted */
    uint64_t tokens;   /* counted so far */
    uint32_t has_shares;
    struct blend_shares shares;
};

struct store_table {
    uint8_t *map; /* NULL: none */
    size_t n;
    ino_t inode; /* 0: no file */
    int guard;   /* store_guard.h; -1: none */
    struct store_head *head;
    struct ngram_table ngrams;
};

struct store_kind {
    uint64_t tokenizer;
    uint32_t vocab, contexts;
};

/* Whether n bytes at p are the table of this store; pure. */
bool store_table_sound(const uint8_t *p, size_t n, const struct store_kind *k);

/* A new empty table of 2^bits lines: at path, which is replaced as a whole, or in memory (path NULL). */
int store_table_make(struct store_table *t, const char *path, const struct store_kind *k, unsigned bits, struct err *e);
/* Maps the one at path. 1: there is none; 2: it is damaged, or of another store. */
int store_table_map(struct store_table *t, const char *path, const struct store_kind *k, struct err *e);
void store_table_close(struct store_table *t);

/* Twice as many lines, with everything that is in t. Failure leaves t as it is. */
int store_table_grow(struct store_table *t, const char *path, const struct store_kind *k, struct err *e);

#endif
