/* cmd/options.h - option tables: what a command accepts, from the command line and from the environment.
 *
 * A table is data: the parser, the help and the tests read the same one. A value comes from the command line, else from
 * the environment variable SPLITINF_<NAME>, else from the table's default. Messages name the option (or the variable),
 * the value, and what is allowed. */
#ifndef CMD_OPTIONS_H
#define CMD_OPTIONS_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opt_type {
    OPT_FLAG,    /* bool; --name, --no-name; in the environment 1 or 0, yes or no, true or false */
    OPT_INT,     /* int in [min, max] */
    OPT_U64,     /* uint64_t, decimal or 0x hexadecimal */
    OPT_FLOAT,   /* double in [min, max], finite */
    OPT_BYTES,   /* uint64_t, with K, M, G or T (powers of 1024), in [min, max] */
    OPT_CHOICE,  /* int: index into choices */
    OPT_STRING,  /* const char *, borrowed from the command line or the environment */
    OPT_STRINGS, /* struct strings; may be given several times; in the environment one per line */
};

struct strings {
    char **p; /* owned */
    int n;
};
void strings_free(struct strings *s); /* wipes; NULL is fine */

struct opt {
    const char *name; /* "max-tokens" */
    const char *arg;  /* "N"; NULL for a flag */
    const char *help;
    enum opt_type type;
    size_t offset;              /* of the value in the group's struct */
    const char *def;            /* as a user would write it; NULL: false, 0, the first choice, no string */
    double min, max;            /* both 0: no limits but those of the type */
    const char *const *choices; /* NULL-terminated */
};

/* Options that share a struct; commands put the groups together. base is where that struct lies in the command's own.
 */
struct opt_group {
    const char *title;      /* of the help's section */
    const struct opt *opts; /* ends with a nameless one */
    size_t base;
};

struct opt_table {
    const char *command;         /* "chat" */
    const char *const *synopsis; /* NULL-terminated lines without "usage: splitinf"; README repeats them */
    const char *about;           /* paragraphs for the help, separated by newlines */
    const struct opt_group *groups;
    int n_groups;
    const char *no_args; /* what to say about an argument that is no option; all commands so far take none */
};

enum { OPTS_MAX = 96 }; /* options of one command */

enum opt_source { OPT_FROM_DEFAULT, OPT_FROM_ENV, OPT_FROM_LINE };

struct opt_result {
    bool help;                    /* --help was asked for: values are not complete */
    unsigned char from[OPTS_MAX]; /* enum opt_source, in table order */
};

/* Fills values from argv[0..argc) (without program and command name). On error values hold what opts_free needs. */
int opts_parse(const struct opt_table *t, int argc, char **argv, void *values, struct opt_result *r, struct err *e);
void opts_free(const struct opt_table *t, void *values);

/* Where the value of an option that the table has came from. */
enum opt_source opts_source(const struct opt_table *t, const struct opt_result *r, const char *name);

/* One value, from its text: base is the group's struct, label what messages call the option ("--seed",
 * "SPLITINF_SEED"). */
int opt_set(const struct opt *o, void *base, const char *text, const char *label, struct err *e);
/* The option of a group by name, or NULL with the nearest name (or NULL) in *near. */
const struct opt *opt_find(const struct opt_group *g, const char *name, const char **near);
/* "0 to 2", "one of none, q8, q4": into out. */
void opt_allowed(const struct opt *o, char *out, size_t cap);
/* SPLITINF_MAX_TOKENS of max-tokens. */
void opt_env_name(const struct opt *o, char *out, size_t cap);

#endif
