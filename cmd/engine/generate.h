/* cmd/engine/generate.h - one answer: feeds a prompt, samples until something ends it, and gives the text out as it
 * comes. Text is given out in whole characters, and never a part of a stop string. */
#ifndef CMD_ENGINE_GENERATE_H
#define CMD_ENGINE_GENERATE_H

#include "cmd/engine/engine.h"
#include "cmd/options.h"
#include "core/decode/sample.h"

enum stop_reason {
    STOP_NONE,
    STOP_EOS,       /* the model ended its answer */
    STOP_STRING,    /* a stop string came */
    STOP_LENGTH,    /* --max-tokens */
    STOP_CONTEXT,   /* the context is full */
    STOP_INTERRUPT, /* Ctrl-C or a termination signal */
    STOP_OUTPUT,    /* nobody takes the text any more */
};
const char *stop_reason_name(enum stop_reason r);

struct generate_opts {
    struct sample_params sample;
    uint32_t max_tokens; /* 0: as many as the context holds */
    const struct strings *stops;
    bool mid_text; /* the answer goes on inside a text (raw): a leading space is part of it */
    /* Takes n bytes of text; non-zero: no more is wanted. May be NULL. */
    int (*emit)(void *ctx, const char *text, size_t n);
    void *emit_ctx;
};

struct answer {
    struct wbuf text; /* as given out */
    struct ids ids;   /* generated, without the token that ended the answer */
    struct ids ends;  /* per id: bytes of text behind it, or UINT32_MAX inside a character */
    char lead[8];     /* what mid_text would have put in front */
    enum stop_reason reason;
    uint64_t seed;
    uint32_t n_sampled, n_prompt, n_reused;
    uint64_t steps;
    double ttft_ms; /* from the start of the feed to the first token */
    double prefill_ms, decode_ms;
};

void answer_free(struct answer *a);
/* How many ids stand for whole text that was given out, and how many bytes that is. */
size_t answer_whole_ids(const struct answer *a, size_t *n_text);
/* Tokens per second of decoding and tokens gained per step of it; 0 when there was none. */
double answer_tok_s(const struct answer *a);
double answer_tokens_per_step(const struct answer *a);

/* a is emptied first. 0 also when interrupted (a->reason); on error a holds what came before it. */
int generate(struct engine *en, const struct ids *prompt, const struct generate_opts *o, struct answer *a,
             struct err *e);

#endif
