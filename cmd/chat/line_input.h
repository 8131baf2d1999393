/* cmd/chat/line_input.h - messages typed at a terminal: line editing and history (libedit), several lines in one
 * message (line_join.h). */
#ifndef CMD_CHAT_LINE_INPUT_H
#define CMD_CHAT_LINE_INPUT_H

#include "core/base/buf.h"
#include "core/base/err.h"

struct line_input;

enum line_result {
    LINE_MESSAGE,   /* one message was read */
    LINE_INTERRUPT, /* Ctrl-C: what was typed is dropped */
    LINE_END,       /* Ctrl-D on an empty line, a closed terminal, or a termination signal */
};

/* file: the history, which is read now and written by line_input_close (mode 0600); NULL: lines are kept in memory
 * only. */
int line_input_open(struct line_input **out, const char *file, struct err *e);
/* -1 when the history could not be written. in is freed in any case. */
int line_input_close(struct line_input *in, struct err *e);

/* Into message, emptied first, without the last newline. */
enum line_result line_input_read(struct line_input *in, struct wbuf *message);

#endif
