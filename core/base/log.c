#include "core/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static struct {
    log_sink sink;
    void *ctx;
    enum log_level max;
} out;

void log_to(log_sink sink, void *ctx, enum log_level max) {
    out.sink = sink;
    out.ctx = ctx;
    out.max = max;
}

void log_line(enum log_level level, const char *fmt, ...) {
    if (!out.sink || level > out.max)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    out.sink(out.ctx, level, line);
}
