/* cmd/engine/conversation.h - the messages of a chat, and their tokens turn after turn.
 *
 * A template is rendered over the whole conversation each turn, and tokenising an answer's text again need not give the
 * ids that were generated (nor, then, the KV that stands computed for them). So the tokens of the earlier turns are
 * kept: where the new rendering begins with the text that those tokens stand for, they are taken over as they are, and
 * only the text behind is encoded. Equal means the same bytes from the same side: what a user types never takes over
 * tokens that the template was read as. When a template rewrites its past (drops reasoning, moves the system prompt),
 * the text differs and everything behind the last answer that is still equal is encoded afresh: slower, never wrong.
 *
 * Knows no template, tokenizer or model: those come in as struct prompt_maker. Everything held is secret and wiped. */
#ifndef CMD_ENGINE_CONVERSATION_H
#define CMD_ENGINE_CONVERSATION_H

#include "core/base/buf.h"
#include "tok/template.h"
#include "tok/tokenizer.h"

struct prompt_maker {
    /* Renders messages m[0..n) as a prompt that ends where the answer begins. */
    int (*render)(void *ctx, const struct chat_message *m, size_t n, struct chat_prompt *out, struct err *e);
    /* Appends the ids of text, which spans[0..n_spans) cover from its first byte to its last. at_start: nothing comes
     * before it, else it goes on after earlier tokens. */
    int (*encode)(void *ctx, const char *text, const struct chat_span *spans, size_t n_spans, bool at_start,
                  struct ids *out, struct err *e);
    void *ctx;
};

/* A place where the text and the tokens are known to correspond: behind an answer. */
struct conversation_mark {
    size_t text, tokens;
};

struct conversation {
    struct chat_message *messages; /* strings owned */
    size_t n, cap;
    size_t n_aside; /* messages[n..n + n_aside) are set aside */
    /* The last prompt: its text, for each byte whether it came from a message (1) or the template (0), its tokens, and
     * the answers inside it. */
    struct wbuf text, from_user;
    struct ids tokens;
    struct conversation_mark *marks;
    size_t n_marks, cap_marks;
    /* The answer behind that prompt: the ids that were generated and the text that they stand for. lead is what the
     * tokenizer leaves out in front of a text that stands alone (a space), which a template may or may not put there.
     */
    struct wbuf answer;
    struct ids answer_ids;
    char lead[8];
};

void conversation_init(struct conversation *c);
void conversation_free(struct conversation *c);
/* Forgets messages and tokens. */
void conversation_clear(struct conversation *c);

/* Appends a message; copies both strings. */
int conversation_add(struct conversation *c, const char *role, const char *content, struct err *e);
/* Puts a system message first, or replaces the one there; NULL or "" takes it away. */
int conversation_set_system(struct conversation *c, const char *content, struct err *e);
/* Takes the last message away. */
void conversation_pop(struct conversation *c);
/* Drops the oldest user message and its answer. False when only one turn is left. */
bool conversation_drop_oldest(struct conversation *c);
/* The same, but the messages are only set aside: one of the two calls below must follow before messages are added or
 * taken away. Neither of them can fail. */
bool conversation_set_aside(struct conversation *c);
void conversation_put_back(struct conversation *c);
void conversation_forget_aside(struct conversation *c);
/* "user", "assistant", ... of the last message; "" when there is none. */
const char *conversation_last_role(const struct conversation *c);

/* The prompt for the messages so far: *tokens is borrowed until the next call on c. */
int conversation_prompt(struct conversation *c, const struct prompt_maker *maker, const struct ids **tokens,
                        struct err *e);

/* Appends the assistant's message behind the prompt that conversation_prompt made last. ids[0..n_ids) stand for the
 * first n_text bytes of it (all of it, unless the answer was cut inside a token). */
int conversation_answer(struct conversation *c, const char *content, size_t n_text, const uint32_t *ids, size_t n_ids,
                        const char *lead, struct err *e);

#endif
