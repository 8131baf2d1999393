/* cmd/chat/line_join.h - how typed lines make one message, apart from any terminal. Pure.
 * A line that ends in a backslash goes on in the next; a line that starts with """ opens a block that """ ends. */
#ifndef CMD_CHAT_LINE_JOIN_H
#define CMD_CHAT_LINE_JOIN_H

#include "core/base/buf.h"

/* Start with {0} and an empty text. */
struct line_joiner {
    bool more;  /* the message goes on in the next line */
    bool block; /* inside """ */
    bool begun; /* text holds a line, if an empty one */
};
/* Adds one line (without its newline) to text. j->more tells whether the message is complete. */
void line_join(struct line_joiner *j, const char *line, size_t n, struct wbuf *text);

#endif
