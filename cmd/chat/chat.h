/* cmd/chat/chat.h - what the rooms of the chat command share: its options, its state, and one turn. */
#ifndef CMD_CHAT_CHAT_H
#define CMD_CHAT_CHAT_H

#include "cmd/command.h"
#include "cmd/engine/conversation.h"
#include "cmd/engine/engine.h"
#include "cmd/engine/generate.h"
#include "cmd/engine/learned.h"
#include "cmd/engine/prompt.h"

/* What /set may change in mid-conversation. */
struct chat_settings {
    int max_tokens, top_k, repeat_window;
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    struct strings bias, stop;
};
extern const struct opt chat_settings_options[];

enum on_full { FULL_STOP, FULL_DROP_OLDEST };

struct chat_opts {
    const char *prompt, *system, *template_vars;
    bool local, raw, special, stats;
    int on_full;
    int history; /* 0: on, 1: off */
    bool no_store, forget;
    struct strings prime;
    struct chat_settings settings;
    struct engine_opts engine;
    struct common_opts common;
};

struct chat {
    struct chat_opts *o;
    char *system; /* the system prompt of the options; theirs is wiped */
    bool seed_given;
    struct engine engine;
    struct learned learned; /* its store is the engine's */
    struct prompt_source source;
    struct prompt_maker maker;
    struct conversation conv;
    struct answer answer; /* the last one */
    struct logit_bias bias[SAMPLE_MAX_BIAS];
    int output_errno; /* why standard output takes no more; 0: it does */
    bool output_cut;  /* a signal ended a write that was blocked */
};

/* Checks settings against the model: ERR_USAGE names the one that is wrong. */
int chat_check_settings(struct chat *c, struct err *e);

/* Makes the prompt for the conversation, whose last message is the user's, and sees that it fits the context: drops the
 * oldest turns when --on-full says so, else ERR_USAGE with the numbers. An error leaves all messages where they were.
 */
int chat_prompt(struct chat *c, const struct ids **prompt, struct err *e);

/* The answer to prompt: through emit (NULL: nowhere), into c->answer, and into the conversation when it is not empty.
 * Nothing of it is lost on error. */
int chat_answer(struct chat *c, const struct ids *prompt, int (*emit)(void *ctx, const char *text, size_t n),
                struct err *e);

/* Loads the engine, with the store where one is to be used. Called once. */
int chat_load(struct chat *c, struct err *e);

/* Statistics of the last answer, to standard error. */
void chat_print_stats(const struct chat *c);
/* One JSON object to standard output. */
int chat_print_json(struct chat *c, struct err *e);

/* Reads messages from the terminal and answers them until the user leaves. The exit status, or -1 with e. */
int chat_repl(struct chat *c, struct err *e);

/* Write text to standard output; ctx is the struct chat. -1 with output_errno set when that takes no more, or with
 * output_cut when the user stops the wait for a slow reader. For a
 * terminal, control characters but newline and tab become '?', so that a text cannot steer it. */
int chat_emit_plain(void *ctx, const char *text, size_t n);
int chat_emit_terminal(void *ctx, const char *text, size_t n);

#endif
