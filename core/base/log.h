/* core/base/log.h - the one logging path. Library code reports through it; cmd/ decides where lines go.
 * Never log content: no prompt, token, text or activation. */
#ifndef CORE_BASE_LOG_H
#define CORE_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Receives each line, without a newline. May be called from any thread. */
typedef void (*log_sink)(void *ctx, enum log_level level, const char *line);

/* Before threads start. NULL silences. Levels above max are dropped before formatting. */
void log_to(log_sink sink, void *ctx, enum log_level max);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
