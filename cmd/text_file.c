#include "cmd/text_file.h"

#include "core/base/file.h"
#include "core/base/wipe.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_BYTES = 16 << 20 };

/* Where the text at p ends, and at *next what comes behind the line that ends it. */
static const char *text_end(const char *p, const char *end, const char **next) {
    for (const char *line = p; line < end; line = *next) {
        const char *nl = memchr(line, '\n', (size_t)(end - line)), *stop = nl ? nl : end;
        *next = nl ? nl + 1 : end;
        if (stop - line == 3 && memcmp(line, "---", 3) == 0)
            return line;
    }
    *next = end;
    return end;
}

int text_file_each(const char *path, int (*each)(void *ctx, const char *text, size_t n, struct err *e), void *ctx,
                   struct err *e) {
    char *text = NULL;
    size_t n;
    bool any = false;
    int rc = 0;
    if (file_read(path, MAX_BYTES, &text, &n, e) != 0)
        return -1;
    for (const char *p = text, *end = text + n, *next; p < end && rc == 0; p = next) {
        const char *stop = text_end(p, end, &next);
        while (stop > p && stop[-1] == '\n')
            stop--;
        if (stop > p) {
            any = true;
            rc = each(ctx, p, (size_t)(stop - p), e);
        }
    }
    if (rc == 0 && !any)
        rc = err_set(e, ERR_USAGE, "%s holds no text", path);
    wipe_free(text, n);
    return rc;
}
