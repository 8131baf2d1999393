/* tok/hf_json.h - reading tokenizer.json, in two files: hf_json.c has the vocabulary, hf_parts.c the components around
 * it. The JSON is untrusted; every component that is not supported is refused by its name. */
#ifndef TOK_HF_JSON_H
#define TOK_HF_JSON_H

#include "tok/tok_impl.h"

#include <yyjson.h>

/* One of the top-level components (NULL or null: none) into t->hf. What the vocabulary means must be known: the decoder
 * comes last. */
int hf_read_normalizer(struct tokenizer *t, yyjson_val *v, struct err *e);
int hf_read_pre_tokenizer(struct tokenizer *t, yyjson_val *v, struct err *e);
int hf_read_post_processor(struct tokenizer *t, yyjson_val *v, struct err *e);
int hf_read_decoder(struct tokenizer *t, yyjson_val *v, struct err *e);

/* Adds a pre-tokenizer step. */
int hf_add_split(struct tokenizer *t, const char *pattern, size_t n, enum regex_dialect dialect,
                 enum pretok_behavior behavior, bool invert, struct err *e);

/* Puts the added tokens into the sets that encoding searches. After the normalizer is read. */
int hf_finish_added(struct tokenizer *t, struct err *e);
/* Turns pieces that spell bytes in GPT-2's printable characters into those bytes. */
int hf_unmap_bytes(struct tokenizer *t, struct err *e);
/* Adds the merge of two pieces of the indexed vocabulary; t->bpe has room for it. */
int hf_add_merge(struct tokenizer *t, const char *l, size_t n_l, const char *r, size_t n_r, uint32_t rank,
                 struct err *e);

/* A string member as bytes; NULL when it is absent, null or no string. */
const char *json_str(yyjson_val *obj, const char *key, size_t *n);
/* A boolean member, or the default when it is absent or null. */
bool json_bool(yyjson_val *obj, const char *key, bool otherwise);

#endif
