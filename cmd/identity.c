/* The identity command: makes this machine's key on first use, and prints its pin, which is not secret. */
#include "net/identity.h"
#include "cmd/command.h"
#include "cmd/term.h"

#include <stdio.h>
#include <stdlib.h>

struct identity_opts {
    struct common_opts common;
};

static const char *const synopsis[] = {"identity [--home DIR] [--json]", NULL};

static const struct opt_group groups[] = {
    {"Common", common_options, offsetof(struct identity_opts, common)},
};

static const struct opt_table table = {
    .command = "identity",
    .synopsis = synopsis,
    .about =
        "Prints this machine's own pin: the hash of its public key, by which other machines know it. The key is made "
        "on first use and stays in --home. A pin is not secret, the key is.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "there is nothing to name; --home DIR says whose pin",
};

static int run(void *values, const struct opt_result *given, struct err *e) {
    struct identity_opts *o = values;
    struct identity *id = NULL;
    char *home = NULL, pin[PIN_TEXT];
    int rc = -1;
    (void)given;
    term_setup("identity", o->common.quiet, o->common.verbose);
    const char *where = o->common.home;
    if (!where)
        where = home = identity_default_home(e);
    if (!where || identity_open(&id, where, e) != 0)
        goto out;
    pin_format(identity_pin(id), pin);
    printf(o->common.json ? "{\"pin\":\"%s\"}\n" : "%s\n", pin);
    rc = EXIT_DONE;
out:
    identity_free(id);
    free(home);
    return rc;
}

const struct command cmd_identity = {
    .name = "identity",
    .summary = "print this machine's own pin",
    .table = &table,
    .values_size = sizeof(struct identity_opts),
    .run = run,
};
