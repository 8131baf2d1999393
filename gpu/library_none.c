#include "gpu/library.h"

#include <stddef.h>

void *library_open(const char *const *names, struct err *e) {
    err_set(e, ERR_DEVICE,
            "%s cannot be opened: this is the static binary, which loads no library and has the CPU only", names[0]);
    return NULL;
}

void *library_function(void *library, const char *name) {
    (void)library, (void)name;
    return NULL;
}
