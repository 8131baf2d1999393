/* cmd/engine/guesser_text.h - guesses by a model with another tokenizer. Two tokenizers have one thing in common, the
 * text. So what was said is put into the small model's tokens as it grows; its likeliest continuation is followed to
 * the end of a word, and that text is put into the large model's tokens. One chain, not a tree.
 *
 * Text is cut at spaces so that only its end is encoded again when more comes: linear in the text, and a token that a
 * cut splits makes a guess worse and nothing else. */
#ifndef CMD_ENGINE_GUESSER_TEXT_H
#define CMD_ENGINE_GUESSER_TEXT_H

#include "core/decode/small_model.h"
#include "tok/tokenizer.h"

struct guesser_text;

int guesser_text_create(struct guesser_text **out, const struct tokenizer *large, const struct tokenizer *small,
                        struct small_model *m, struct err *e);
void guesser_text_free(struct guesser_text *g); /* wipes */

/* The large model's tokens so far. */
int guesser_text_sync(struct guesser_text *g, const uint32_t *tokens, uint32_t n, struct err *e);
/* The token that comes behind these and path, with its probability. False: not known (yet). look (NULL: none may be
 * made) has the small model compute what follows its context and a path; 0, or -1: no more. */
bool guesser_text_next(struct guesser_text *g, const uint32_t *path, int n,
                       int (*look)(void *ctx, const uint32_t *path, int n), void *ctx, uint32_t *token, float *p);

#endif
