/* cmd/help.h - help texts, made from option tables. */
#ifndef CMD_HELP_H
#define CMD_HELP_H

#include "cmd/options.h"

#include <stdio.h>

/* Starts with the lines "usage: splitinf COMMAND ..." that README repeats. */
void help_command(FILE *f, const struct opt_table *t);

/* Writes text in lines of at most 96 columns; every line but the first is indented. at is the column where the
 * first one starts. A newline in the text starts a new line. */
void help_wrap(FILE *f, const char *text, int at, int indent);

#endif
