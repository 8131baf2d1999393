/* cmd/engine/guesser.h - a small model on this machine that guesses what the large one will say (--draft): its files,
 * its memory, its tokenizer, and how much of its time is worth spending (core/draft/effort.h). With the tokenizer of
 * the large model its tokens are guesses as they are; with another one texts are compared (cmd/engine/guesser_text.h).
 * It can make nothing wrong: when it fails it is not asked any more, with a warning. */
#ifndef CMD_ENGINE_GUESSER_H
#define CMD_ENGINE_GUESSER_H

#include "core/draft/draft.h"
#include "core/model/backend.h"
#include "core/model/dtype.h"
#include "tok/tokenizer.h"

struct guesser;

struct guesser_opts {
    const char *path;            /* of its model */
    const struct tokenizer *tok; /* of the large model; borrowed */
    uint32_t vocab, ctx;         /* of that one */
    enum dtype kv;
};

/* Opens headers and tokenizer. Until it is loaded it says nothing. */
int guesser_open(struct guesser **out, const struct guesser_opts *o, struct err *e);
/* Bytes that it will take: where its backend (card: on one) keeps weights and KV, and of this machine's memory. */
struct guesser_bytes {
    uint64_t stage, beside;
};
int guesser_bytes(const struct guesser *g, bool card, struct guesser_bytes *bytes, struct err *e);
/* b is borrowed, and computes for others too, but not at the same time. */
int guesser_load(struct guesser *g, struct backend *b, struct err *e);
void guesser_free(struct guesser *g); /* wipes; before b */

/* For a drafter; borrows g. */
struct draft_model guesser_source(struct guesser *g);

struct guesser_stats {
    uint64_t passes; /* of the small model */
    double ms;       /* that they took */
    double pass_ms;  /* of one, lately */
    int effort;      /* passes that pay for a token, at present */
    bool same_tokenizer;
};
void guesser_stats(const struct guesser *g, struct guesser_stats *s);

#endif
