#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

void wipe(void *p, size_t n) {
    if (p && n)
        explicit_bzero(p, n);
}

void wipe_free(void *p, size_t n) {
    if (!p)
        return;
    wipe(p, n);
    free(p);
}
