#include "cmd/json.h"

#include "core/base/wipe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Each block starts with its size, in a header that keeps the alignment of malloc. */
enum { HEADER = 16 };

static void *take(void *ctx, size_t n) {
    (void)ctx;
    if (n > SIZE_MAX - HEADER)
        return NULL;
    char *p = malloc(n + HEADER);
    if (!p)
        return NULL;
    memcpy(p, &n, sizeof n);
    return p + HEADER;
}

static void drop(void *ctx, void *block) {
    (void)ctx;
    if (!block)
        return;
    char *p = (char *)block - HEADER;
    size_t n;
    memcpy(&n, p, sizeof n);
    wipe_free(p, n + HEADER);
}

static void *resize(void *ctx, void *block, size_t old, size_t n) {
    void *p = take(ctx, n);
    if (!p)
        return NULL;
    if (block) {
        memcpy(p, block, old < n ? old : n);
        drop(ctx, block);
    }
    return p;
}

const struct yyjson_alc json_wiping = {.malloc = take, .realloc = resize, .free = drop};

int json_write_error(const yyjson_write_err *why, const char *what, struct err *e) {
    if (why->code == YYJSON_WRITE_ERROR_INVALID_STRING)
        return err_set(e, ERR_USAGE, "%s holds text that is not UTF-8, which JSON cannot hold", what);
    return err_set(e, ERR_MEMORY, "out of memory writing %s as JSON", what);
}
