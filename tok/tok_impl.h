/* tok/tok_impl.h - what a tokenizer is made of; shared by the files in tok/ that build, encode and decode, and by no
 * one else. After a parser has built it, a tokenizer is never changed: encoding and decoding may run in many threads.
 */
#ifndef TOK_TOK_IMPL_H
#define TOK_TOK_IMPL_H

#include "tok/bpe.h"
#include "tok/normalize.h"
#include "tok/pretok.h"
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
    bool prefix_once;   /* the dummy prefix is only put at the start, not behind each special token */
    bool cut_at_meta;   /* no piece has META after something else: text may be cut there before merging */
    bool byte_fallback; /* else unknown text becomes unk */
    uint32_t *units;    /* precompiled charsmap: a Darts-clone double array ... */
    size_t n_units;
    char *strings; /* ... whose values are offsets of NUL-terminated strings in here; NULL: identity */
    size_t n_strings;
    struct strset user; /* user-defined pieces: taken whole, neither normalised nor merged */
    char *unk_surface;
};

/* A token that is found in text as a whole, before the text is cut into words. */
struct added {
    uint32_t id;
    char *text;
    uint32_t n_text;
    bool special, single_word, lstrip, rstrip, normalized;
};

/* The pipeline of tokenizer.json: added tokens, normalizer, added tokens again, pre-tokenizer, merges. tekken.json and
 * GGUF's gpt2 are this one too. */
struct hf {
    struct strset raw;         /* added tokens looked for in the text as it comes: text to index in added */
    struct strset after;       /* those looked for in normalised text, by their own normalised form */
    struct strset special_raw; /* the special ones of after, as they are */
    struct norm norm;
    struct pretok pretok;
    bool byte_level;  /* pieces are bytes: vocab holds them unmapped, byte_id has the single ones */
    bool whole_words; /* a word that is a piece is taken as it is */
    bool byte_fallback, fuse_unk;
    bool cut_at_meta;                                          /* no merge joins META to something before it */
    bool metaspace;                                            /* spaces become META before splitting ... */
    char *meta;                                                /* ... or whatever stands here */
    enum { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } prefix; /* put before text: a space, or meta */
    enum { DECODE_BYTES, DECODE_TEXT, DECODE_METASPACE, DECODE_JOINED } decode;
    bool decode_fallback;       /* <0x0A> pieces are bytes */
    bool strip_first;           /* one leading space of the whole text goes */
    struct norm decode_replace; /* per piece */
    struct vocab shown;         /* what each piece decodes to; empty when that is what stands in vocab */
};

struct tokenizer {
    enum tok_kind { KIND_SPM, KIND_BYTE, KIND_METASPACE, KIND_TEKKEN, KIND_COUNT } kind;
    struct vocab vocab;
    struct bpe bpe;
    uint32_t cap_rank;   /* allocated elements of bpe.rank, while pieces are added */
    struct added *added; /* control, special and added tokens */
    uint32_t n_added, cap_added;
    struct strset special; /* their text to id */
    int bos, eos, unk;     /* -1: none */
    uint32_t *front;       /* what TOK_BOS puts in front */
    uint32_t n_front;
    uint32_t byte_id[256]; /* the piece of each byte; NO_ID: none */
    struct spm spm;        /* KIND_SPM */
    struct hf hf;          /* the other kinds */
};

struct tokenizer *tok_new(enum tok_kind kind, struct err *e);
/* Adds a token to t->added and t->special; text is copied. */
int tok_add_token(struct tokenizer *t, const struct added *a, const void *text, size_t n, struct err *e);
/* Adds an id to what TOK_BOS puts in front. */
int tok_add_front(struct tokenizer *t, uint32_t id, struct err *e);

/* One encode call. */
struct enc {
    const struct tokenizer *t;
    int flags;
    const struct tok_plain *plain; /* no special tokens there */
    size_t n_plain, next_plain;
    struct ids *out;
    struct bpe_work w;
    bool unk_last; /* spm: the last thing pushed was unk; consecutive ones are one */
    struct regex_scratch *regex;
    struct spans words, words_tmp;
};

/* Bytes from i to the next place where no special token may be: n - i when there is none, 0 when i is there. i never
 * goes down from call to call. */
size_t enc_room(struct enc *c, size_t i, size_t n);
void hf_free(struct hf *hf);

/* Appends the ids of a whole text to c->out. */
int spm_encode(struct enc *c, const uint8_t *p, size_t n, struct err *e);
int hf_encode(struct enc *c, const uint8_t *p, size_t n, struct err *e);
/* Appends the normalised form. */
int spm_normalize(const struct spm *s, const uint8_t *p, size_t n, bool prefix, struct wbuf *out, struct err *e);
/* Appends a piece of the given type and score (not NaN) with the next free id. */
int spm_add_piece(struct tokenizer *t, const uint8_t *p, size_t n, enum piece_type type, float score, struct err *e);
/* What is derived from the vocabulary once it is complete: its index, cut_at_meta. */
int spm_finish(struct tokenizer *t, struct err *e);
void spm_free(struct spm *s);

/* "<0x0A>": 10; -1 for any other text. */
int byte_piece_value(const uint8_t *p, size_t n);

#endif
