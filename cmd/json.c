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
