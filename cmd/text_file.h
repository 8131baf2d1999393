/* cmd/text_file.h - files of texts that a user hands to a command: separated by lines of ---. */
#ifndef CMD_TEXT_FILE_H
#define CMD_TEXT_FILE_H

#include "core/base/err.h"

#include <stddef.h>

/* Calls each for every text that is not empty, without the newlines at its end, until one returns non-zero; returns
 * that. ERR_USAGE when the file holds no text. The text is wiped afterwards. */
int text_file_each(const char *path, int (*each)(void *ctx, const char *text, size_t n, struct err *e), void *ctx,
                   struct err *e);

#endif
