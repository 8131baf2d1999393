/* tok/template.h - chat templates: the Jinja subset that the templates of the supported families use.
 *
 * What is rendered is byte for byte what transformers' apply_chat_template gives. A template is untrusted: parsing and
 * rendering are bounded in depth, steps, memory and output. A construct outside the subset is an ERR_MODEL that names
 * it and its line, when parsing where that is possible; there is no silent fallback. Messages never quote the
 * conversation. A rendering's memory holds the conversation and is wiped. */
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

/* Pure. n bytes of template source; name stands in messages (NULL: "chat template"). A parsed template is immutable and
 * may be rendered by several threads at once. */
int chat_template_parse(struct chat_template **out, const char *src, size_t n, const char *name, struct err *e);
void chat_template_free(struct chat_template *t);

/* What a render is given beside the messages. Strings may be NULL (then undefined in the template). The variables tools
 * and documents are none unless extra_json has them. */
struct chat_vars {
    const char *bos_token, *eos_token;
    bool add_generation_prompt;
    const char *date; /* for strftime_now and date_string: "26 Jul 2024" or "2024-07-26", at midnight */
    /* A JSON object of further variables (enable_thinking, tools, documents ...), or NULL. They win over those above,
     * and "messages" over the array of messages: the way to give messages with tool_calls, or content in parts. Its
     * strings are user text. */
    const char *extra_json;
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

/* out: zeroed, or of an earlier render; emptied on failure. raise_exception in the template gives an ERR_USAGE with the
 * template's own message, in which "[...]" stands for user text. A role that is not a plain word counts as user text.
 */
int chat_template_render(const struct chat_template *t, const struct chat_message *m, size_t n,
                         const struct chat_vars *v, struct chat_prompt *out, struct err *e);
void chat_prompt_free(struct chat_prompt *p); /* wipes */

/* The template of a model directory (chat_template.jinja, else tokenizer_config.json's chat_template: a string, or a
 * list of which "default" is taken), with the bos/eos strings found beside it (malloc'ed, NULL when absent). 0 with *t
 * NULL when the directory has none. */
int chat_template_open_dir(struct chat_template **t, char **bos_token, char **eos_token, const char *dir,
                           struct err *e);

#endif
