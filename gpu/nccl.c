#include "gpu/nccl.h"

#include "gpu/library.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct nccl opened;
static struct err failure; /* empty: opened is complete */

static void say_version(int v, char *buf, size_t size) {
    if (v < 10000) /* up to 2.8 */
        snprintf(buf, size, "%d.%d.%d", v / 1000, v / 100 % 10, v % 100);
    else
        snprintf(buf, size, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
}

/* The first function that the library lacks; NULL: none. */
static const char *find_functions(void) {
    const char *missing = NULL;
    /* Through memcpy, as C has no conversion from an object's pointer to a function's. */
#define FIND(result, name, field, params)                                                                              \
    {                                                                                                                  \
        void *f = library_function(opened.library, #name);                                                             \
        memcpy(&opened.field, &f, sizeof f);                                                                           \
        if (!f && !missing)                                                                                            \
            missing = #name;                                                                                           \
    }
    NCCL_FUNCTIONS(FIND)
#undef FIND
    return missing;
}

static void open_once(void) {
    static const char *names[] = {"libnccl.so.2", "libnccl.so", NULL};
    const char *other = getenv("SPLITINF_LIBNCCL");
    const char *only[] = {other, NULL};
    bool named = other && *other;
    char version[32] = "unknown", oldest[32];
    int v = 0;
    /* Cards of one machine: nobody else has to reach what NCCL listens on to bring them together. */
    (void)setenv("NCCL_SOCKET_IFNAME", "=lo", 0);
    (void)setenv("NCCL_RAS_ENABLE", "0", 0);
    /* All connections at the beginning: later they would be made, and take memory, in the midst of a pass. */
    (void)setenv("NCCL_RUNTIME_CONNECT", "0", 0);
    opened.library = library_open(named ? only : names, &failure);
    if (!opened.library) {
        err_wrap(&failure, "several cards for the same layers need NVIDIA's NCCL, which is not here: install it "
                           "(libnccl2), or give each card layers of its own (--device 0,1)");
        return;
    }
    const char *missing = find_functions();
    if (opened.version && opened.version(&v) == 0)
        say_version(v, version, sizeof version);
    if (!missing && v >= NCCL_OLDEST)
        return;
    say_version(NCCL_OLDEST, oldest, sizeof oldest);
    err_set(
        &failure, ERR_DEVICE,
        "NVIDIA's NCCL here is too old: %s is version %s%s%s, and %s or later is needed; install a newer one, or give "
        "each card layers of its own (--device 0,1)",
        named ? other : names[0], version, missing ? " and has no " : "", missing ? missing : "", oldest);
}

const struct nccl *nccl_open(struct err *e) {
    pthread_once(&once, open_once);
    if (failure.kind != ERR_NONE) {
        err_set(e, failure.kind, "%s", failure.msg);
        return NULL;
    }
    return &opened;
}

const char *nccl_version(const struct nccl *n, char *buf, size_t size) {
    int v = 0;
    (void)n->version(&v);
    say_version(v, buf, size);
    return buf;
}

const char *nccl_error(const struct nccl *n, nccl_result r, char *buf, size_t size) {
    const char *text = n->error_string(r), *more = n->last_error(NULL);
    snprintf(buf, size, "%s%s%s", text ? text : "unknown error", more && *more ? ": " : "", more ? more : "");
    for (char *p = buf; *p; p++)
        if (*p == '\n')
            *p = ' ';
    return buf;
}
