#include "cmd/chat/line_join.h"

#include <string.h>

static const char fence[] = "\"\"\"";
enum { FENCE = sizeof fence - 1 };

void line_join(struct line_joiner *j, const char *line, size_t n, struct wbuf *text) {
    if (!j->more && n >= FENCE && memcmp(line, fence, FENCE) == 0) {
        j->block = j->more = true;
        line += FENCE;
        n -= FENCE;
        if (n == 0) /* the text begins with the next line */
            return;
    }
    bool last = j->block && n >= FENCE && memcmp(line + n - FENCE, fence, FENCE) == 0;
    if (last)
        n -= FENCE;
    if (last && n == 0 && j->begun) { /* the text ended with the line before */
        j->more = false;
        return;
    }
    if (j->begun)
        wbuf_u8(text, '\n');
    j->begun = true;
    j->more = j->block ? !last : n && line[n - 1] == '\\';
    wbuf_put(text, line, j->more && !j->block ? n - 1 : n);
}
