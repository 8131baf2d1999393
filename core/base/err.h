/* core/base/err.h - the one error convention: int 0 or -1, and a struct err that says why.
 * The first error wins: a later err_set on a filled err changes nothing, so clean-up code may fail in peace.
 * Messages are complete sentences' worth: what failed, on what, what to do; only cmd/ prints them.
 * They may quote hostile names: control characters other than the newline become '?'. */
#ifndef CORE_BASE_ERR_H
#define CORE_BASE_ERR_H

enum err_kind {
    ERR_NONE = 0,
    ERR_USAGE,  /* the caller or the command line asked for something that makes no sense */
    ERR_IO,     /* files, sockets, the system */
    ERR_MODEL,  /* a model, tokenizer or template file is wrong or not supported */
    ERR_PEER,   /* the other machine broke the protocol or refused */
    ERR_CRYPTO, /* keys, certificates, TLS */
    ERR_DEVICE, /* a GPU or its driver */
    ERR_MEMORY, /* out of memory, or over a bound that was set */
};

struct err {
    enum err_kind kind;
    char msg[500];
};

/* Fills e unless it is already filled (or NULL). Returns -1 always, so that `return err_set(...)` reads well. */
int err_set(struct err *e, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, with ": " and the text of the errno value errnum appended. */
int err_sys(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " before a message that a lower floor has set. Returns -1. Does nothing to an empty e. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "usage", "io", ...: for logs and JSON. */
const char *err_kind_name(enum err_kind kind);

#endif
