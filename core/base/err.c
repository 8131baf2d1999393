#include "core/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages quote names out of files and from peers, and end on terminals: no control character gets through (no escape
 * sequence; only a newline, which texts of our own use), be it ASCII or one of the C1 set in UTF-8. */
static void make_printable(char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)s[0], next = (unsigned char)s[1];
        if ((c < 0x20 && c != '\n') || c == 0x7f)
            *s = '?';
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0)
            s[0] = s[1] = '?';
    }
}

int err_set(struct err *e, enum err_kind kind, const char *fmt, ...) {
    if (!e || e->kind != ERR_NONE)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    make_printable(e->msg);
    e->kind = kind;
    return -1;
}

int err_sys(struct err *e, int errnum, const char *fmt, ...) {
    if (!e || e->kind != ERR_NONE)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    make_printable(e->msg);
    size_t n = strlen(e->msg);
    const char *text = strerrordesc_np(errnum); /* thread-safe, unlike strerror */
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", text ? text : "unknown error");
    e->kind = ERR_IO;
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...) {
    if (!e || e->kind == ERR_NONE)
        return -1;
    char head[sizeof e->msg], whole[2 * sizeof e->msg + 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    make_printable(head);
    snprintf(whole, sizeof whole, "%s: %s", head, e->msg);
    whole[sizeof e->msg - 1] = '\0';
    memcpy(e->msg, whole, sizeof e->msg);
    return -1;
}

const char *err_kind_name(enum err_kind kind) {
    switch (kind) {
    case ERR_NONE:
        return "none";
    case ERR_USAGE:
        return "usage";
    case ERR_IO:
        return "io";
    case ERR_MODEL:
        return "model";
    case ERR_PEER:
        return "peer";
    case ERR_CRYPTO:
        return "crypto";
    case ERR_DEVICE:
        return "device";
    case ERR_MEMORY:
        return "memory";
    }
    return "unknown";
}
