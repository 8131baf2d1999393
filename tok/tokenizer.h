/* tok/tokenizer.h - text to token ids and back, for every tokenizer file of the supported families. Files are
 * untrusted.
 *
 * Text given to encode is text: characters that spell a special token become ordinary pieces unless the caller says
 * that this stretch may hold special tokens (a rendered chat template, never what a user typed). */
#ifndef TOK_TOKENIZER_H
#define TOK_TOKENIZER_H

#include "core/base/buf.h"
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;
struct gguf;

/* A growable list of ids. Zero-initialise; ids_free wipes. */
struct ids {
    uint32_t *p;
    size_t n, cap;
    bool bad; /* out of memory */
};
void ids_push(struct ids *v, uint32_t id);
void ids_clear(struct ids *v);
void ids_free(struct ids *v);

/* path: a model directory (tokenizer.json, else tekken.json, else tokenizer.model*; tokenizer_config.json read too), or
 * one of these files. */
int tokenizer_open(struct tokenizer **out, const char *path, struct err *e);
/* The tokenizer inside a GGUF file (tokenizer.ggml.*; models llama and gpt2). Everything is copied. */
int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, struct err *e);
void tokenizer_free(struct tokenizer *t);

/* Pure parsers, for the above and for fuzzing: n bytes at p. */
int tokenizer_parse_spm(struct tokenizer **out, const uint8_t *p, size_t n, const char *name, struct err *e);
int tokenizer_parse_hf(struct tokenizer **out, const char *p, size_t n, const char *name, struct err *e);
int tokenizer_parse_tekken(struct tokenizer **out, const char *p, size_t n, const char *name, struct err *e);

uint32_t tokenizer_n(const struct tokenizer *t);
/* Tells vocabularies apart: equal when the same ids have the same bytes and the same ones are special. No secret, and
 * no defence against whoever makes two alike. */
uint64_t tokenizer_hash(const struct tokenizer *t);
const char *tokenizer_kind(const struct tokenizer *t); /* "spm-bpe", "byte-bpe", "metaspace-bpe", "tekken" */
int tokenizer_bos(const struct tokenizer *t);          /* -1: none */
int tokenizer_eos(const struct tokenizer *t);
bool tokenizer_add_bos(const struct tokenizer *t); /* plain (raw) text starts with bos */
/* The id of a special/control/added token by its exact text; -1: none. */
int tokenizer_special(const struct tokenizer *t, const char *text, size_t n);
/* The text of a special token id ("" when the id is an ordinary piece). Borrowed. */
const char *tokenizer_special_text(const struct tokenizer *t, uint32_t id);
bool tokenizer_is_special(const struct tokenizer *t, uint32_t id);

enum {
    TOK_BOS = 1, /* put bos (and whatever the file's post-processor puts in front) first, if the tokenizer has one */
    TOK_SPECIAL = 2, /* text may hold special tokens */
    TOK_CONTINUE = 4 /* text goes on after earlier text: no dummy prefix */
};
/* Appends the ids of n bytes of text. Any bytes are accepted; invalid UTF-8 is encoded as byte tokens, or as U+FFFD
 * where the tokenizer has none. n log n. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int flags, struct ids *out, struct err *e);

/* A stretch of text in which no special token is looked for: what a user typed, inside a rendered template. */
struct tok_plain {
    size_t off, n;
};
/* As tokenizer_encode with TOK_SPECIAL, but a special token that touches one of the n_plain stretches (in order, apart)
 * is text. The text is still one text: words and merges cross from template to user text as they would without this. */
int tokenizer_encode_mixed(const struct tokenizer *t, const char *text, size_t n, const struct tok_plain *plain,
                           size_t n_plain, int flags, struct ids *out, struct err *e);

/* Decodes a whole list: appends to out. Special tokens are left out unless keep_special. */
int tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n, bool keep_special, struct wbuf *out,
                     struct err *e);

/* Decoding one id at a time; what comes out never ends inside a UTF-8 character. The concatenation over a list plus the
 * flush equals tokenizer_decode of the list. */
struct tok_stream {
    const struct tokenizer *t;
    uint8_t held[8]; /* bytes of an unfinished character */
    uint8_t n_held;
    bool started; /* a leading dummy-prefix space has been dealt with */
    bool keep_special;
};
void tok_stream_init(struct tok_stream *s, const struct tokenizer *t, bool keep_special, bool mid_text);
void tok_stream_put(struct tok_stream *s, uint32_t id, struct wbuf *out);
void tok_stream_flush(struct tok_stream *s, struct wbuf *out); /* held bytes that never became a character: U+FFFD */

#endif
