#include "gpu/library.h"

#include <dlfcn.h>
#include <stddef.h>

void *library_open(const char *const *names, struct err *e) {
    const char *why = "no name";
    for (int i = 0; names[i]; i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        why = dlerror();
    }
    err_set(e, ERR_DEVICE, "%s cannot be opened: %s", names[0], why ? why : "unknown");
    return NULL;
}

void *library_function(void *library, const char *name) {
    return dlsym(library, name);
}
