/* tok/template.h - chat templates: the Jinja subset that the templates of the supported families use.
 *
 * A template is untrusted: parsing and rendering are bounded in depth, steps and output. A construct outside the subset
 * is an ERR_MODEL that names it and its line; there is no silent fallback. */
#ifndef TOK_TEMPLATE_H
#define TOK_TEMPLATE_H

#include "core/base/buf.h"
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct chat_message {
    const char *role;    /* "system", "user", "assistant", "tool" */
    const char *content; /* UTF-8, NUL-terminated */
};

struct chat_template;

/* Pure. n bytes of template source. */
int chat_template_parse(struct chat_template **out, const char *src, size_t n, const char *name, struct err *e);
void chat_template_free(struct chat_template *t);

/* What a render is given beside the messages. Strings may be NULL (then undefined in the template). */
struct chat_vars {
    const char *bos_token, *eos_token;
    bool add_generation_prompt;
    const char *date;       /* for strftime_now and date_string: "26 Jul 2024" */
    const char *extra_json; /* a JSON object of further variables (enable_thinking, tools, documents ...), or NULL */
};

/* A rendered prompt as stretches: template text may hold special tokens, text that came out of message content may not.
 * So a user who types "</s>" or "<|im_end|>" has typed six or ten characters. */
struct chat_span {
    size_t off, n;
    bool from_user; /* this stretch came from message content */
};

struct chat_prompt {
    struct wbuf text;
    struct chat_span *spans; /* in order, covering text */
    size_t n_spans, cap_spans;
};

/* raise_exception in the template gives an ERR_USAGE with the template's own message. */
int chat_template_render(const struct chat_template *t, const struct chat_message *m, size_t n,
                         const struct chat_vars *v, struct chat_prompt *out, struct err *e);
void chat_prompt_free(struct chat_prompt *p); /* wipes */

/* The template of a model directory (chat_template.jinja, else tokenizer_config.json's chat_template: a string, or a
 * list of which "default" is taken), with the bos/eos strings found beside it (malloc'ed, NULL when absent). 0 with *t
 * NULL when the directory has none. */
int chat_template_open_dir(struct chat_template **t, char **bos_token, char **eos_token, const char *dir,
                           struct err *e);

#endif
