/* tok/tok_impl.h - what a tokenizer is made of; shared by the files in tok/ that build, encode and decode, and by no
 * one else. After a parser has built it, a tokenizer is never changed: encoding and decoding may run in many threads.
 */
#ifndef TOK_TOK_IMPL_H
#define TOK_TOK_IMPL_H

#include "tok/bpe.h"
#include "tok/strset.h"
#include "tok/tokenizer.h"
#include "tok/vocab.h"

/* U+2581, which stands for a space in SentencePiece and metaspace vocabularies. */
#define META     "\xe2\x96\x81"
#define META_LEN 3

#define TOK_MAX_FILE ((size_t)256 << 20) /* a tokenizer file; real ones have up to some 30 MB */
#define TOK_MAX_TEXT ((size_t)1 << 28)   /* one encode call */

/* The normaliser of SentencePiece and how its model treats white space. */
struct spm {
    bool dummy_prefix, remove_extra, escape, suffix;
    bool cut_at_meta;   /* no piece has META after something else: text may be cut there before merging */
    bool byte_fallback; /* else unknown text becomes unk */
    uint32_t *units;    /* precompiled charsmap: a Darts-clone double array ... */
    size_t n_units;
    char *strings; /* ... whose values are offsets of NUL-terminated strings in here; NULL: identity */
    size_t n_strings;
    struct strset user; /* user-defined pieces: taken whole, neither normalised nor merged */
    char *unk_surface;
};

struct tokenizer {
    enum tok_kind { KIND_SPM, KIND_COUNT } kind;
    struct vocab vocab;
    struct bpe bpe;
    uint32_t cap_rank;     /* allocated elements of bpe.rank, while pieces are added */
    struct strset special; /* text of control and special tokens to id */
    int bos, eos, unk;     /* -1: none */
    bool add_bos;
    uint32_t byte_id[256]; /* byte fallback; NO_ID: none */
    struct spm spm;
};

struct tokenizer *tok_new(enum tok_kind kind, struct err *e);

/* Scratch of one encode call. */
struct enc {
    const struct tokenizer *t;
    struct ids *out;
    struct bpe_work w;
    bool unk_last; /* the last thing pushed was unk: consecutive ones are one */
};

/* Encodes text that holds no special tokens. prefix: put the dummy prefix, if the model has one. */
int spm_encode(struct enc *c, const uint8_t *p, size_t n, bool prefix, struct err *e);
/* Appends the normalised form. */
int spm_normalize(const struct spm *s, const uint8_t *p, size_t n, bool prefix, struct wbuf *out, struct err *e);
/* Appends a piece of the given type and score (not NaN) with the next free id. */
int spm_add_piece(struct tokenizer *t, const uint8_t *p, size_t n, enum piece_type type, float score, struct err *e);
/* What is derived from the vocabulary once it is complete: index, cut_at_meta, byte_id. */
int spm_finish(struct tokenizer *t, struct err *e);
void spm_free(struct spm *s);

/* "<0x0A>": 10; -1 for any other text. */
int byte_piece_value(const uint8_t *p, size_t n);

#endif
