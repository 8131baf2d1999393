/* cmd/engine/prompt.h - makes prompts with a model's chat template and tokenizer: the prompt_maker of real
 * conversations. */
#ifndef CMD_ENGINE_PROMPT_H
#define CMD_ENGINE_PROMPT_H

#include "cmd/engine/conversation.h"

struct prompt_source {
    const struct tokenizer *tok;
    const struct chat_template *tmpl; /* NULL: raw, messages are laid end to end */
    const char *bos, *eos;
    const char *extra_json; /* further variables of the template, or NULL */
    bool special;           /* raw text may spell special tokens */
    char date[16];
};

/* src is borrowed by the maker. */
void prompt_maker_init(struct prompt_maker *m, struct prompt_source *src);

#endif
