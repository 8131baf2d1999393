#include "cmd/command.h"

#include "cmd/help.h"
#include "cmd/suggest.h"
#include "cmd/term.h"
#include "cmd/version.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct common_opts, field)
const struct opt common_options[] = {
    {"home", "DIR", "where splitinf keeps its own files, made with mode 0700 [~/.splitinf]", OPT_STRING,
     .offset = AT(home)},
    {"json", NULL, "print one JSON object instead of text", OPT_FLAG, .offset = AT(json)},
    {"quiet", NULL, "only errors on standard error", OPT_FLAG, .offset = AT(quiet)},
    {"verbose", NULL, "say more about what is being done", OPT_FLAG, .offset = AT(verbose)},
    {0},
};
#undef AT

static void overview(FILE *f, const struct command *const *commands, int n) {
    fputs("usage: splitinf COMMAND [OPTION]...\n"
          "       splitinf COMMAND --help | splitinf help COMMAND\n"
          "       splitinf --version\n"
          "\n"
          "Private use of large language models on rented machines.\n"
          "\n"
          "Commands\n",
          f);
    for (int i = 0; i < n; i++)
        fprintf(f, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nExit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.\n", f);
}

static const struct command *find(const struct command *const *commands, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int unknown_command(const struct command *const *commands, int n, const char *const *later, const char *name) {
    struct suggest s = {0};
    for (int i = 0; later[i]; i++) {
        if (strcmp(later[i], name) == 0) {
            term_error("this version has no command '%s' yet; it comes with a later version", name);
            return EXIT_USAGE;
        }
    }
    for (int i = 0; i < n; i++)
        suggest_offer(&s, name, commands[i]->name);
    suggest_offer(&s, name, "help");
    if (s.best)
        term_error("there is no command '%.60s'; did you mean '%s'?", name, s.best);
    else
        term_error("there is no command '%.60s'; splitinf --help lists those that there are", name);
    return EXIT_USAGE;
}

/* Output that did not reach its file (a full disk) is a failure; a reader that went away is not. */
static int flushed(int status) {
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE && errno != 0) {
        term_error("writing standard output: %s", strerrordesc_np(errno));
        return status == EXIT_DONE ? EXIT_FAILED : status;
    }
    return status;
}

static int run(const struct command *c, int argc, char **argv) {
    struct err e = {0};
    struct opt_result given;
    int status = -1;
    term_setup(c->name, false, false);
    void *values = calloc(1, c->values_size);
    if (!values) {
        err_set(&e, ERR_MEMORY, "out of memory");
        goto out;
    }
    if (opts_parse(c->table, argc, argv, values, &given, &e) != 0)
        goto out;
    if (given.help) {
        help_command(stdout, c->table);
        status = EXIT_DONE;
        goto out;
    }
    status = c->run(values, &given, &e);
out:
    if (status < 0) {
        status = e.kind == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
        term_error("%s", e.msg);
        if (status == EXIT_USAGE)
            term_note("try: splitinf %s --help", c->name);
    }
    if (values)
        opts_free(c->table, values);
    free(values);
    return flushed(status);
}

int command_main(const struct command *const *commands, int n, const char *const *later, int argc, char **argv) {
    term_setup(NULL, false, false);
    if (argc < 2) {
        overview(stderr, commands, n);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        version_print(stdout);
        return flushed(EXIT_DONE);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (strcmp(name, "help") == 0 && argc == 2)) {
        overview(stdout, commands, n);
        return flushed(EXIT_DONE);
    }
    if (strcmp(name, "help") == 0) {
        const struct command *c = find(commands, n, argv[2]);
        if (!c)
            return unknown_command(commands, n, later, argv[2]);
        help_command(stdout, c->table);
        return flushed(EXIT_DONE);
    }
    if (name[0] == '-') {
        term_error("'%.60s' stands before the command; write splitinf COMMAND %.60s", name, name);
        return EXIT_USAGE;
    }
    const struct command *c = find(commands, n, name);
    return c ? run(c, argc - 2, argv + 2) : unknown_command(commands, n, later, name);
}
