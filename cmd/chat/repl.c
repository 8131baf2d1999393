/* The chat command at a terminal: messages, slash commands, and answers that Ctrl-C stops. An error is said and the
 * conversation stands as it was. */
#include "cmd/chat/chat.h"
#include "cmd/chat/file.h"
#include "cmd/chat/line_input.h"
#include "cmd/interrupt.h"
#include "cmd/suggest.h"
#include "cmd/term.h"
#include "core/base/file.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct repl {
    struct chat *c;
    struct line_input *in;
    struct wbuf unanswered; /* a message that got no answer: /retry sends it again */
    bool leave;
};

static const struct opt_group settings_group = {.opts = chat_settings_options};

/* ---- answering ---- */

static void keep_unanswered(struct repl *r) {
    struct conversation *conv = &r->c->conv;
    if (strcmp(conversation_last_role(conv), "user") != 0)
        return;
    wbuf_clear(&r->unanswered);
    wbuf_str(&r->unanswered, conv->messages[conv->n - 1].content);
    conversation_pop(conv);
}

static void say_how_it_ended(const struct repl *r) {
    const struct chat *c = r->c;
    switch (c->answer.reason) {
    case STOP_INTERRUPT:
        term_note("stopped%s", r->unanswered.n ? "; /retry sends the message again" : "");
        break;
    case STOP_LENGTH:
        term_note("the answer was cut at max-tokens %d; /set max-tokens changes it", c->o->settings.max_tokens);
        break;
    case STOP_CONTEXT:
        term_warn("the context of %u tokens is full; /drop forgets the oldest turn, /reset all of them", c->engine.ctx);
        break;
    default:
        break;
    }
}

/* Answers the user's message at the end of the conversation. */
static void answer(struct repl *r) {
    struct chat *c = r->c;
    struct err e = {0};
    const struct ids *prompt;
    bool tty = isatty(STDOUT_FILENO);
    interrupt_clear();
    wbuf_clear(&r->unanswered);
    answer_free(&c->answer);
    c->output_cut = false;
    int rc = chat_prompt(c, &prompt, &e);
    if (rc == 0)
        rc = chat_answer(c, prompt, tty ? chat_emit_terminal : chat_emit_plain, &e);
    if (c->answer.text.n && !c->output_cut)
        chat_emit_plain(c, "\n", 1);
    keep_unanswered(r);
    if (rc != 0)
        term_error("%s", e.msg);
    else
        say_how_it_ended(r);
    if (rc == 0 && r->unanswered.n && c->answer.reason != STOP_INTERRUPT && c->answer.reason != STOP_OUTPUT)
        term_note("the model answered nothing; /retry sends the message again");
    if (rc != 0 && c->answer.text.n && !r->unanswered.n)
        term_note("what was said of the answer is kept: /retry asks for another one");
    if (rc != 0 && r->unanswered.n)
        term_note("your message is kept: /retry sends it again (/drop forgets the oldest turn, /reset all of them)");
    if (rc == 0 && c->o->stats)
        chat_print_stats(c);
    interrupt_clear();
}

static void say(struct repl *r, const char *text) {
    struct err e = {0};
    if (conversation_add(&r->c->conv, "user", text, &e) != 0)
        term_error("%s", e.msg);
    else
        answer(r);
}

/* ---- slash commands ---- */

static void do_help(struct repl *r, const char *arg);

static void do_reset(struct repl *r, const char *arg) {
    struct err e = {0};
    (void)arg;
    conversation_clear(&r->c->conv);
    wbuf_clear(&r->unanswered);
    answer_free(&r->c->answer);
    session_reset(r->c->engine.session);
    if (r->c->system && conversation_set_system(&r->c->conv, r->c->system, &e) != 0)
        term_error("%s", e.msg);
    else
        term_note("a new conversation");
}

static void do_retry(struct repl *r, const char *arg) {
    struct conversation *conv = &r->c->conv;
    (void)arg;
    if (r->unanswered.n) {
        char *text = strdup(wbuf_cstr(&r->unanswered));
        if (text)
            say(r, text);
        if (text)
            wipe_free(text, strlen(text));
        return;
    }
    struct err e = {0};
    char *old = NULL;
    if (strcmp(conversation_last_role(conv), "assistant") == 0) {
        old = strdup(conv->messages[conv->n - 1].content);
        if (!old) {
            term_error("out of memory for another answer");
            return;
        }
        conversation_pop(conv);
    }
    if (strcmp(conversation_last_role(conv), "user") == 0)
        answer(r);
    else
        term_error("there is no message to send again");
    if (old && r->unanswered.n) { /* no new answer: the old one stays */
        if (conversation_add(conv, "user", wbuf_cstr(&r->unanswered), &e) != 0 ||
            conversation_add(conv, "assistant", old, &e) != 0)
            term_error("%s", e.msg);
        else
            wbuf_clear(&r->unanswered);
        term_note("the earlier answer stays");
    }
    if (old)
        wipe_free(old, strlen(old));
}

static void do_drop(struct repl *r, const char *arg) {
    char *end = NULL;
    long n = *arg ? strtol(arg, &end, 10) : 1, done = 0;
    if ((end && *end) || n < 1) {
        term_error("/drop takes a number of turns");
        return;
    }
    while (done < n && conversation_drop_oldest(&r->c->conv))
        done++;
    if (done == 0)
        term_error("only one turn is left; /reset forgets it too");
    else
        term_note("the oldest %ld turn%s forgotten", done, done == 1 ? " is" : "s are");
}

static void do_system(struct repl *r, const char *arg) {
    struct err e = {0};
    if (r->c->o->raw)
        term_error("a system prompt goes with a chat template, which --raw leaves out");
    else if (conversation_set_system(&r->c->conv, arg, &e) != 0)
        term_error("%s", e.msg);
    else
        term_note(*arg ? "the system prompt is set" : "no system prompt any more");
}

static void do_save(struct repl *r, const char *arg) {
    struct err e = {0};
    if (!*arg)
        term_error("/save needs a file name");
    else if (chat_file_save(r->c, arg, &e) != 0)
        term_error("%s", e.msg);
    else
        term_note("%zu messages saved to %s", r->c->conv.n, arg);
}

static void do_load(struct repl *r, const char *arg) {
    struct err e = {0};
    if (!*arg) {
        term_error("/load needs a file name");
    } else if (chat_file_load(r->c, arg, &e) != 0) {
        term_error("%s", e.msg);
    } else {
        wbuf_clear(&r->unanswered);
        keep_unanswered(r);
        term_note("%zu messages from %s%s", r->c->conv.n, arg,
                  r->unanswered.n ? "; the last one has no answer: /retry sends it" : "");
    }
}

static void do_stats(struct repl *r, const char *arg) {
    (void)arg;
    if (r->c->answer.n_prompt)
        chat_print_stats(r->c);
    else
        term_error("nothing was answered yet");
}

static void print_setting(const struct chat *c, const struct opt *o) {
    const void *v = (const char *)&c->o->settings + o->offset;
    fprintf(stderr, "  %-18s ", o->name);
    if (o->type == OPT_INT)
        fprintf(stderr, "%d", *(const int *)v);
    else if (o->type == OPT_FLOAT)
        fprintf(stderr, "%g", *(const double *)v);
    else if (o->type == OPT_U64 && !c->seed_given)
        fprintf(stderr, "another one each time");
    else if (o->type == OPT_U64)
        fprintf(stderr, "%llu", (unsigned long long)*(const uint64_t *)v);
    else
        for (int i = 0; i < ((const struct strings *)v)->n; i++)
            fprintf(stderr, "%s'%s'", i ? " " : "", ((const struct strings *)v)->p[i]);
    fputc('\n', stderr);
}

/* /set NAME VALUE: tried on a copy, so that a value which the model refuses changes nothing. Lists are replaced. */
static void set(struct chat *c, const struct opt *o, const char *value) {
    struct err e = {0};
    struct chat_settings old = c->o->settings;
    struct strings *list =
        o->type == OPT_STRINGS ? (struct strings *)(void *)((char *)&c->o->settings + o->offset) : NULL;
    struct strings before = list ? *list : (struct strings){0};
    bool given = c->seed_given;
    if (list)
        *list = (struct strings){0};
    if (o->type == OPT_U64)
        c->seed_given = *value != '\0';
    bool clear = !*value && (list || o->type == OPT_U64);
    if ((clear || opt_set(o, &c->o->settings, value, o->name, &e) == 0) && chat_check_settings(c, &e) == 0) {
        strings_free(list ? &before : NULL);
        return;
    }
    strings_free(list);
    c->o->settings = old;
    c->seed_given = given;
    term_error("%s", e.msg);
}

static void do_set(struct repl *r, const char *arg) {
    char name[64], allowed[200];
    const char *near = NULL, *value = arg + strcspn(arg, " \t=");
    if (!*arg) {
        for (const struct opt *o = chat_settings_options; o->name; o++)
            print_setting(r->c, o);
        return;
    }
    snprintf(name, sizeof name, "%.*s", (int)(value - arg), arg);
    value += *value != '\0';
    value += strspn(value, " \t");
    const struct opt *o = opt_find(&settings_group, name, &near);
    if (!o) {
        term_error("there is no setting '%s'%s%s%s", name, near ? "; did you mean " : "; /set lists them",
                   near ? near : "", near ? "?" : "");
    } else if (!*value && o->type != OPT_STRINGS && o->type != OPT_U64) {
        opt_allowed(o, allowed, sizeof allowed);
        print_setting(r->c, o);
        term_note("/set %s takes %s", o->name, allowed);
    } else {
        set(r->c, o, value);
    }
}

static void do_quit(struct repl *r, const char *arg) {
    (void)arg;
    r->leave = true;
}

static const struct slash {
    const char *name, *arg, *help;
    void (*run)(struct repl *r, const char *arg);
} slashes[] = {
    {"help", "", "this list", do_help},
    {"reset", "", "forget the conversation", do_reset},
    {"retry", "", "ask for another answer to the last message", do_retry},
    {"drop", "[N]", "forget the oldest turn, or the oldest N", do_drop},
    {"system", "[TEXT]", "set the system prompt, or take it away", do_system},
    {"save", "FILE", "write the conversation and the settings to a file", do_save},
    {"load", "FILE", "take them from a file", do_load},
    {"stats", "", "counts and times of the last answer", do_stats},
    {"set", "[NAME VALUE]", "change a setting, or list them", do_set},
    {"quit", "", "leave; so does Ctrl-D", do_quit},
};
enum { N_SLASHES = sizeof slashes / sizeof *slashes };

static void do_help(struct repl *r, const char *arg) {
    (void)r;
    (void)arg;
    for (int i = 0; i < N_SLASHES; i++) {
        int at = fprintf(stderr, "  /%s %s", slashes[i].name, slashes[i].arg);
        fprintf(stderr, "%*s%s\n", at < 24 ? 24 - at : 1, "", slashes[i].help);
    }
    fputs(
        "Ctrl-C stops an answer. A line that ends in \\ goes on in the next; \"\"\" opens and ends a block of lines.\n"
        "A message that starts with a slash is written with two.\n",
        stderr);
}

static void slash(struct repl *r, char *line) {
    char *name = line + 1, *arg = name + strcspn(name, " \t");
    struct suggest s = {0};
    if (*arg)
        *arg++ = '\0';
    arg += strspn(arg, " \t");
    for (size_t n = strlen(arg); n && (arg[n - 1] == ' ' || arg[n - 1] == '\t'); n--)
        arg[n - 1] = '\0';
    for (int i = 0; i < N_SLASHES; i++) {
        if (strcmp(slashes[i].name, name) == 0) {
            slashes[i].run(r, arg);
            return;
        }
        suggest_offer(&s, name, slashes[i].name);
    }
    if (strcmp(name, "exit") == 0)
        do_quit(r, arg);
    else if (s.best)
        term_error("there is no command /%.60s; did you mean /%s?", name, s.best);
    else
        term_error("there is no command /%.60s; /help lists them", name);
}

/* ---- the loop ---- */

/* The history's path in --home or ~/.splitinf, which is made when missing. NULL with a warning when there is none. */
static char *history_path(const struct chat_opts *o) {
    char *dir = NULL, *path = NULL;
    const char *home = getenv("HOME");
    if (o->history != 0)
        return NULL;
    if (o->common.home)
        dir = strdup(o->common.home);
    else if (!home || !*home || asprintf(&dir, "%s/.splitinf", home) < 0)
        dir = NULL;
    if (!dir)
        term_warn("there is no HOME, so what is typed is not remembered; --home DIR gives a place");
    else if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        term_warn("%s cannot be made (%s), so what is typed is not remembered", dir, strerrordesc_np(errno));
    else if (asprintf(&path, "%s/history", dir) < 0)
        path = NULL;
    free(dir);
    return path;
}

static void take(struct repl *r, struct wbuf *message) {
    if (message->n == 0)
        return;
    char *text = (char *)message->p;
    (void)wbuf_cstr(message); /* ends it with a NUL */
    if (text[0] == '/' && text[1] == '/')
        say(r, text + 1);
    else if (text[0] == '/')
        slash(r, text);
    else
        say(r, text);
}

int chat_repl(struct chat *c, struct err *e) {
    struct repl r = {.c = c};
    struct wbuf message = {0};
    struct err lost = {0};
    char *history = NULL;
    int rc = -1;
    if (c->system && conversation_set_system(&c->conv, c->system, e) != 0)
        goto out;
    interrupt_insist(true);
    if (chat_load(c, e) != 0) {
        rc = interrupt_asked() ? interrupt_status() : -1;
        goto out;
    }
    interrupt_insist(false);
    history = history_path(c->o);
    if (line_input_open(&r.in, history, e) != 0)
        goto out;
    term_note("%s, context of %u tokens; /help lists the commands, Ctrl-D leaves", c->o->engine.model, c->engine.ctx);
    rc = 0;
    while (!r.leave && !interrupt_terminated()) {
        interrupt_clear();
        enum line_result got = line_input_read(r.in, &message);
        if (got == LINE_END)
            break;
        if (got == LINE_INTERRUPT) {
            fputs("\nCtrl-D or /quit leaves.\n", stderr);
            continue;
        }
        take(&r, &message);
        if (c->output_errno)
            break;
    }
    if (!r.leave)
        fputc('\n', stderr);
    if (interrupt_terminated())
        rc = interrupt_status();
    else if (c->output_errno && c->output_errno != EPIPE)
        rc = err_sys(e, c->output_errno, "writing the answer to standard output");
    if (line_input_close(r.in, &lost) != 0)
        term_warn("%s", lost.msg);
    r.in = NULL;
out:
    wbuf_free(&message);
    wbuf_free(&r.unanswered);
    free(history);
    return rc;
}
