/* tok/vocab.h - the pieces of a tokenizer: bytes by id, and id by bytes.
 * Knows nothing of files or of merging. Ids and lengths are checked here, so parsers may pass on what a file says. */
#ifndef TOK_VOCAB_H
#define TOK_VOCAB_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOCAB_MAX_IDS   (1u << 22)
#define VOCAB_MAX_PIECE 4096u /* bytes; real ones have up to a few hundred */
#define NO_ID           UINT32_MAX

/* The numbers of SentencePiece and GGUF files; 0 marks an id that the file leaves out. */
enum piece_type {
    PIECE_NONE = 0,
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6,
};

struct vocab {
    uint32_t n; /* ids are 0 .. n-1 */
    uint32_t cap;
    struct piece {
        uint32_t off;
        uint16_t len;
        uint8_t type;
    } * piece;
    uint8_t *bytes;
    size_t n_bytes, cap_bytes;
    uint32_t *slot; /* hash table: id + 1, 0 for free */
    uint32_t mask;
    uint32_t max_len; /* the longest indexed piece */
};

/* Sets piece id (growing n to id + 1); an id that is already set is an error. Bytes are copied. */
int vocab_set(struct vocab *v, uint32_t id, const void *p, size_t len, enum piece_type type, struct err *e);
/* Gives the piece that is set at id other bytes (not longer than VOCAB_MAX_PIECE). Before vocab_index. */
int vocab_replace(struct vocab *v, uint32_t id, const void *p, size_t len, struct err *e);
/* Builds the table from bytes to id over the pieces whose type's bit (1 << type) is in types. Of equal pieces the last
 * is found. */
int vocab_index(struct vocab *v, unsigned types, struct err *e);
void vocab_free(struct vocab *v);

/* The id of an indexed piece, or NO_ID. */
uint32_t vocab_find(const struct vocab *v, const void *p, size_t len);

static inline const uint8_t *vocab_bytes(const struct vocab *v, uint32_t id, size_t *len) {
    *len = v->piece[id].len;
    return v->bytes + v->piece[id].off;
}
static inline enum piece_type vocab_type(const struct vocab *v, uint32_t id) {
    return (enum piece_type)v->piece[id].type;
}

#endif
