/* cmd/version.h - what this binary is: version, commit, backends, libraries. The build passes SPLITINF_VERSION and
 * SPLITINF_COMMIT (strings) to version.c only, so a new commit rebuilds one file. */
#ifndef CMD_VERSION_H
#define CMD_VERSION_H

#include <stdio.h>

const char *version_string(void); /* "0.1.0" */
void version_print(FILE *f);

#endif
