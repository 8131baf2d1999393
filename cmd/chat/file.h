/* cmd/chat/file.h - a conversation in a file: messages and settings as JSON. The file may have been edited by hand or
 * come from somebody else: everything read is checked, and nothing changes unless all of it is right. */
#ifndef CMD_CHAT_FILE_H
#define CMD_CHAT_FILE_H

#include "cmd/chat/chat.h"

/* Writes beside path and renames, mode 0600: an old file stays until the new one is whole. */
int chat_file_save(const struct chat *c, const char *path, struct err *e);
/* Replaces conversation and settings. */
int chat_file_load(struct chat *c, const char *path, struct err *e);

#endif
