/* cmd/command.h - what a subcommand is, and the one way in which all of them are run: parse, help, run, report, status.
 */
#ifndef CMD_COMMAND_H
#define CMD_COMMAND_H

#include "cmd/options.h"
#include "core/base/err.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name;
    const char *summary; /* one line for splitinf --help */
    const struct opt_table *table;
    size_t values_size; /* of the struct that the table fills; zeroed before */
    /* The exit status, or -1 with e set (it is printed; ERR_USAGE gives status 2, the rest 1). */
    int (*run)(void *values, const struct opt_result *given, struct err *e);
};

extern const struct command cmd_chat;
extern const struct command cmd_bench;
extern const struct command cmd_identity;
extern const struct command cmd_serve_cloud;
extern const struct command cmd_verify;

/* later: names of commands that this version does not have yet, NULL-terminated. */
int command_main(const struct command *const *commands, int n, const char *const *later, int argc, char **argv);

/* Options that every command has. */
struct common_opts {
    const char *home; /* NULL: ~/.splitinf */
    bool json, quiet, verbose;
};
extern const struct opt common_options[];

#endif
