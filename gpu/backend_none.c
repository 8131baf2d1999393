/* Until the backend itself is there. */
#include "gpu/backend.h"

#include <stddef.h>

int backend_cuda_create(struct backend **out, const char *devices, struct err *e) {
    (void)devices;
    *out = NULL;
    return err_set(e, ERR_DEVICE, "the CUDA backend is not part of this program yet");
}

const char *backend_cuda_name(const struct backend *b) {
    (void)b;
    return "cuda";
}

const char *backend_cuda_describe(const struct backend *b) {
    (void)b;
    return "a card";
}

uint64_t backend_cuda_memory_left(const struct backend *b) {
    (void)b;
    return 0;
}
