/* The chat command: its options, and one answer to one prompt. repl.c is the conversation at a terminal. */
#include "cmd/chat/chat.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROMPT = 256 << 20 }; /* bytes taken from standard input */

#define AT(field) .offset = offsetof(struct chat_opts, field)
static const char *const full_choices[] = {"stop", "drop-oldest", NULL};
static const char *const on_off[] = {"on", "off", NULL};
static const struct opt options[] = {
    {"local", NULL, "run the whole model on this machine", OPT_FLAG, AT(local)},
    {"prompt", "TEXT",
     "answer this and leave. Without it: standard input up to its end, less one newline there, or a conversation when "
     "that is a terminal",
     OPT_STRING, AT(prompt)},
    {"system", "TEXT", "the system prompt", OPT_STRING, AT(system)},
    {"raw", NULL, "continue the text as it is, without the chat template", OPT_FLAG, AT(raw)},
    {"special", NULL, "with --raw: let the text spell special tokens such as [INST]", OPT_FLAG, AT(special)},
    {"template-vars", "JSON", "variables for the chat template, such as {\"enable_thinking\": false}", OPT_STRING,
     AT(template_vars)},
    {"on-full", "WHAT", "what to do when a conversation outgrows the context", OPT_CHOICE, AT(on_full),
     .choices = full_choices},
    {"history", "WHAT", "keep the lines typed at the terminal in the file history of --home", OPT_CHOICE, AT(history),
     .choices = on_off},
    {"draft", "M",
     "a small model that runs on this machine and guesses what the large one will say: a directory or a .gguf file. It "
     "is used as far as it saves time; the text stays the same",
     OPT_STRING, AT(engine.draft)},
    {"prime", "FILE",
     "learn this text, so that guesses know it; may be repeated. Leaves then, unless there is a --prompt", OPT_STRINGS,
     AT(prime)},
    {"no-store", NULL,
     "neither use nor keep what conversations with a cloud teach the guesses; with --local nothing is kept anyway",
     OPT_FLAG, AT(no_store)},
    {"forget", NULL, "delete everything that was learned, for all models, from --home, and leave", OPT_FLAG,
     AT(forget)},
    {"stats", NULL, "print counts and times to standard error", OPT_FLAG, AT(stats)},
    {0},
};
#undef AT

#define AT(field) .offset = offsetof(struct chat_settings, field)
const struct opt chat_settings_options[] = {
    {"max-tokens", "N", "longest answer; 0: until the model ends it or the context is full", OPT_INT, AT(max_tokens),
     .def = "0", .min = 0, .max = CONFIG_MAX_CTX},
    {"temperature", "T", "0 takes the likeliest token always; above, draws", OPT_FLOAT, AT(temperature), .def = "0",
     .min = 0, .max = 10},
    {"top-k", "N", "draw from the N likeliest tokens only; 0: from all", OPT_INT, AT(top_k), .def = "0", .min = 0,
     .max = CONFIG_MAX_VOCAB},
    {"top-p", "P", "draw from the likeliest tokens that together have this probability", OPT_FLOAT, AT(top_p),
     .def = "1", .min = 0, .max = 1},
    {"min-p", "P", "draw from tokens at least this many times as likely as the likeliest", OPT_FLOAT, AT(min_p),
     .def = "0", .min = 0, .max = 1},
    {"repeat-penalty", "X", "above 1 makes tokens of the text so far less likely", OPT_FLOAT, AT(repeat_penalty),
     .def = "1", .min = 0.01, .max = 100},
    {"repeat-window", "N", "how many last tokens --repeat-penalty looks at; 0: all", OPT_INT, AT(repeat_window),
     .def = "0", .min = 0, .max = CONFIG_MAX_CTX},
    {"presence-penalty", "X", "taken once from the logit of each token that the answer has", OPT_FLOAT,
     AT(presence_penalty), .def = "0", .min = -100, .max = 100},
    {"frequency-penalty", "X", "taken for each time that the answer has the token", OPT_FLOAT, AT(frequency_penalty),
     .def = "0", .min = -100, .max = 100},
    {"seed", "N", "of the draws; without it another one each time, which --stats and --json print", OPT_U64, AT(seed)},
    {"logit-bias", "ID=B", "add B to the logit of token ID, or ID=ban; may be repeated", OPT_STRINGS, AT(bias)},
    {"stop", "TEXT", "end the answer before this text; may be repeated", OPT_STRINGS, AT(stop)},
    {0},
};
#undef AT

static const char *const synopsis[] = {
    "chat --model M (--cloud HOST:PORT --pin PIN | --local) [--prompt TEXT] [OPTION]...",
    "chat --model M --prime FILE... [OPTION]...",
    "chat --forget [--home DIR] [--json]",
    NULL,
};

static const struct opt_group groups[] = {
    {"Chat", options, 0},
    {"Cloud", tunnel_options, offsetof(struct chat_opts, engine.tunnel)},
    {"Sampling", chat_settings_options, offsetof(struct chat_opts, settings)},
    {"Model", engine_options, offsetof(struct chat_opts, engine)},
    {"Context", engine_context_options, offsetof(struct chat_opts, engine)},
    {"Modes jacobi and lookahead", engine_iterate_options, offsetof(struct chat_opts, engine)},
    {"Text", engine_text_options, offsetof(struct chat_opts, engine)},
    {"Common", common_options, offsetof(struct chat_opts, common)},
};

/* The whole of standard input, as one C string in w. */
static int read_stdin(struct wbuf *w, struct err *e) {
    char block[4096];
    w->max = MAX_PROMPT;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, block, sizeof block);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR && !interrupt_asked())
            continue;
        if (n < 0)
            return err_sys(e, errno, "reading the prompt from standard input");
        wbuf_put(w, block, (size_t)n);
        wipe(block, sizeof block);
        if (w->bad)
            return err_set(e, ERR_USAGE, "the prompt on standard input is larger than %d MB", MAX_PROMPT >> 20);
    }
    if (w->n && w->p[w->n - 1] == '\n')
        w->n--;
    if (w->n && w->p[w->n - 1] == '\r')
        w->n--;
    if (w->n == 0)
        return err_set(e, ERR_USAGE, "there is no prompt: standard input is empty");
    if (memchr(w->p, '\0', w->n))
        return err_set(e, ERR_USAGE, "the prompt on standard input holds a NUL byte: it is no text");
    return 0;
}

static int add_first_messages(struct chat *c, const char *prompt, struct err *e) {
    if (c->system && conversation_set_system(&c->conv, c->system, e) != 0)
        return -1;
    return prompt ? conversation_add(&c->conv, "user", prompt, e) : 0;
}

/* What stands in argv stands in the process list. */
static void hide(const char *text) {
    if (text)
        wipe((char *)(uintptr_t)text, strlen(text));
}

static void say_how_it_ended(const struct chat *c) {
    int most = c->engine.config->max_ctx;
    if (c->answer.reason == STOP_CONTEXT && (int)c->engine.ctx < most)
        term_warn("the answer ends here because the context of %u tokens is full; --ctx can go up to %d", c->engine.ctx,
                  most);
    else if (c->answer.reason == STOP_CONTEXT)
        term_warn("the answer ends here because the context is full: the model was made for %d tokens", most);
    else if (c->answer.reason == STOP_LENGTH && !c->o->common.json)
        term_note("the answer was cut at --max-tokens %d", c->o->settings.max_tokens);
}

static int one_shot(struct chat *c, const char *prompt, struct err *e) {
    const struct ids *tokens;
    bool tty = isatty(STDOUT_FILENO), json = c->o->common.json;
    interrupt_insist(true);
    /* Refused before anything large is read: a prompt that does not fit. */
    if (add_first_messages(c, prompt, e) != 0 || chat_prompt(c, &tokens, e) != 0)
        return -1;
    if (chat_load(c, e) != 0)
        return interrupt_asked() ? interrupt_status() : -1;
    int rc = chat_answer(c, tokens, json ? NULL : tty ? chat_emit_terminal : chat_emit_plain, e);
    if (json && rc == 0)
        rc = chat_print_json(c, e);
    if (tty && !json && c->answer.text.n && !c->output_cut)
        chat_emit_plain(c, "\n", 1);
    if (rc != 0)
        return -1;
    if (c->output_errno && c->output_errno != EPIPE)
        return err_sys(e, c->output_errno, "writing the answer to standard output");
    say_how_it_ended(c);
    if (c->o->stats)
        chat_print_stats(c);
    return c->answer.reason == STOP_INTERRUPT || c->output_cut ? interrupt_status() : EXIT_DONE;
}

/* Learning alone is neither a conversation here nor one with a cloud. */
static bool only_primes(const struct chat_opts *o) {
    return o->prime.n > 0 && !o->prompt;
}

static int check_options(const struct chat_opts *o, struct err *e) {
    if (!o->engine.model)
        return err_set(e, ERR_USAGE, "--model is needed: a Hugging Face directory or a .gguf file");
    if (o->prime.n && o->no_store)
        return err_set(e, ERR_USAGE, "--prime and --no-store: a text is learned into the store");
    if (only_primes(o))
        return 0;
    if (o->local == tunnel_wanted(&o->engine.tunnel))
        return err_set(e, ERR_USAGE,
                       o->local ? "--local and --cloud: the middle layers run here or there, not both"
                                : "--cloud HOST:PORT --pin PIN is needed, or --local to run the whole "
                                  "model on this machine");
    if (tunnel_check(&o->engine.tunnel, e) != 0)
        return -1;
    if (o->engine.draft && o->local)
        return err_set(e, ERR_USAGE, "--draft saves round trips to a cloud; with --local there are none");
    if (o->special && !o->raw)
        return err_set(e, ERR_USAGE,
                       "--special goes with --raw: in a chat, what a user types is never a special token");
    if (o->raw && (o->system || o->template_vars || o->engine.chat_template))
        return err_set(e, ERR_USAGE, "%s goes with a chat template, which --raw leaves out",
                       o->system          ? "--system"
                       : o->template_vars ? "--template-vars"
                                          : "--chat-template");
    return 0;
}

int chat_load(struct chat *c, struct err *e) {
    struct engine *en = &c->engine;
    /* A store that primed is open already, and what a chat on this machine says must not get into it. */
    if (!tunnel_wanted(&en->o.tunnel))
        learned_close(&c->learned);
    else if (!c->learned.store && !c->o->no_store)
        learned_try_open(&c->learned, c->o->common.home, en->tok);
    en->store = c->learned.store;
    return engine_load(en, e);
}

static int prime(struct chat *c, struct err *e) {
    uint64_t n;
    if (learned_open(&c->learned, c->o->common.home, c->engine.tok, e) != 0)
        return -1;
    if (learned_prime(&c->learned, c->engine.tok, &c->o->prime, &n, e) != 0)
        return -1;
    if (c->o->common.json && only_primes(c->o))
        printf("{\"learned_tokens\":%llu,\"store_tokens\":%llu}\n", (unsigned long long)n,
               (unsigned long long)draft_store_tokens(c->learned.store));
    return 0;
}

static int open_chat(struct chat *c, struct err *e) {
    struct engine *en = &c->engine;
    if (engine_open(en, &c->o->engine, e) != 0 || engine_open_tokenizer(en, e) != 0)
        return -1;
    if (only_primes(c->o))
        return 0;
    if (!c->o->raw && engine_open_template(en, e) != 0)
        return -1;
    c->source = (struct prompt_source){.tok = en->tok,
                                       .tmpl = en->tmpl,
                                       .bos = en->bos,
                                       .eos = en->eos,
                                       .extra_json = c->o->template_vars,
                                       .special = c->o->special};
    prompt_maker_init(&c->maker, &c->source);
    return chat_check_settings(c, e);
}

static int run(void *values, const struct opt_result *given, struct err *e) {
    struct chat_opts *o = values;
    struct chat *c = calloc(1, sizeof *c);
    struct wbuf input = {0};
    int status = -1;
    term_setup("chat", o->common.quiet, o->common.verbose);
    interrupt_setup();
    if (!c)
        return err_set(e, ERR_MEMORY, "out of memory");
    c->o = o;
    o->engine.home = o->common.home;
    c->seed_given = opts_source(cmd_chat.table, given, "seed") != OPT_FROM_DEFAULT;
    conversation_init(&c->conv);
    if (o->forget) {
        status = learned_forget(o->common.home, o->common.json, e) == 0 ? EXIT_DONE : -1;
        goto out;
    }
    if (check_options(o, e) != 0)
        goto out;
    bool repl = !o->prompt && !only_primes(o) && isatty(STDIN_FILENO);
    if (repl && o->common.json) {
        err_set(e, ERR_USAGE, "--json needs --prompt TEXT, or a prompt on standard input");
        goto out;
    }
    if (open_chat(c, e) != 0)
        goto out;
    if (o->prime.n && prime(c, e) != 0) {
        status = interrupt_asked() ? interrupt_status() : -1;
        goto out;
    }
    if (only_primes(o)) {
        status = EXIT_DONE;
        goto out;
    }
    if (o->system) {
        if (!(c->system = strdup(o->system))) {
            err_set(e, ERR_MEMORY, "out of memory");
            goto out;
        }
        hide(o->system);
    }
    if (o->prompt)
        wbuf_str(&input, o->prompt);
    else if (!repl && read_stdin(&input, e) != 0) {
        status = interrupt_asked() ? interrupt_status() : -1;
        goto out;
    }
    hide(o->prompt);
    status = repl ? chat_repl(c, e) : one_shot(c, wbuf_cstr(&input), e);
out:
    wbuf_free(&input);
    answer_free(&c->answer);
    conversation_free(&c->conv);
    engine_close(&c->engine);
    learned_close(&c->learned); /* the drafter had it */
    wipe_free(c->system, c->system ? strlen(c->system) : 0);
    wipe_free(c, sizeof *c);
    return status;
}

static const struct opt_table table = {
    .command = "chat",
    .synopsis = synopsis,
    .about =
        "Answers a prompt, or talks at the terminal.\n"
        "The answer goes to standard output and nothing else does; progress, statistics and warnings go to standard "
        "error.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "a prompt is given as --prompt TEXT",
};

const struct command cmd_chat = {
    .name = "chat",
    .summary = "answer a prompt, or talk at the terminal",
    .table = &table,
    .values_size = sizeof(struct chat_opts),
    .run = run,
};
