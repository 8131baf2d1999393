/* cmd/bench/prompts.h - what a bench lets a model continue: prompts of four categories that come with the program, the
 * user's own, recorded answers, or random tokens for a model that has no tokenizer. */
#ifndef CMD_BENCH_PROMPTS_H
#define CMD_BENCH_PROMPTS_H

#include "cmd/engine/engine.h"

enum { BENCH_CATEGORIES = 4 };
extern const char *const bench_categories[BENCH_CATEGORIES]; /* "code", "structured", "creative", "conversational" */

struct bench_prompt {
    struct ids ids;
    int category;    /* index; -1: none */
    struct ids next; /* the recorded answer that is followed whatever the model says; empty: the model's own */
    uint64_t hash;   /* of a recorded prompt's text; 0 */
};
struct bench_prompts {
    struct bench_prompt *at;
    int n;
};
void bench_prompts_free(struct bench_prompts *v);

/* Each takes a chat template where the model has one, for so a model is used; without one the text is continued. The
 * tokenizer is open in en. */
int bench_prompts_builtin(struct bench_prompts *v, struct engine *en, struct err *e);
/* Texts separated by lines of ---. */
int bench_prompts_file(struct bench_prompts *v, struct engine *en, const char *path, struct err *e);
/* At most n recorded answers, spread over the file; their tokens, and the first n_tokens of each answer. */
int bench_prompts_replay(struct bench_prompts *v, const struct engine *en, const char *path, int n, int n_tokens,
                         struct err *e);
int bench_prompts_random(struct bench_prompts *v, const struct engine *en, struct err *e);

#endif
