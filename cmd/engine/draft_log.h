/* cmd/engine/draft_log.h - a file with a line for each guess of a session, to see which source was right how often and
 * what was sent for nothing. It holds numbers and never a token; but which guesses were right says something about the
 * text, so it is made for its owner alone. */
#ifndef CMD_ENGINE_DRAFT_LOG_H
#define CMD_ENGINE_DRAFT_LOG_H

#include "core/base/err.h"
#include "core/decode/session.h"

struct draft_log;

/* A new file, mode 0600; what stood there before is gone. */
int draft_log_open(struct draft_log **out, const char *path, struct err *e);
void draft_log_guess(void *log, const struct session_guess *g); /* for session_speculation.fate */
void draft_log_close(struct draft_log *l);                      /* warns when not all could be written; NULL is fine */

#endif
