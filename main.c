/* The commands of splitinf. Everything else lies in cmd/. */
#include "cmd/command.h"

static const struct command *const commands[] = {
    &cmd_chat, &cmd_bench, &cmd_identity, &cmd_serve_cloud, &cmd_verify,
};

static const char *const later[] = {"serve-local", "attack", 0};

int main(int argc, char **argv) {
    return command_main(commands, sizeof commands / sizeof *commands, later, argc, argv);
}
