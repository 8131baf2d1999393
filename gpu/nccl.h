/* gpu/nccl.h - NVIDIA's NCCL, opened at run time: the functions of libnccl by which cards of one machine exchange data.
 *
 * As driver.h: no header of NVIDIA's is needed and no library for the program to start. Types and constants are those
 * of the library's ABI (all of version 2); test_gpu_nccl compares them with nccl.h where that is installed.
 * SPLITINF_LIBNCCL names another library than libnccl.so.2 (tests: emulated cards). */
#ifndef GPU_NCCL_H
#define GPU_NCCL_H

#include "core/base/err.h"
#include "gpu/driver.h"

typedef int nccl_result;            /* 0: done */
typedef int nccl_type;              /* of elements */
typedef struct ncclComm *nccl_comm; /* one card's part in a clique of cards */

enum {
    NCCL_IN_PROGRESS = 7,
    NCCL_UINT8 = 1,
    /* Before 2.19.4 communicators could not be given up from another thread than the one that uses them. */
    NCCL_OLDEST = 21904,
};

/* X(result, name in libnccl, field, parameters) */
#define NCCL_FUNCTIONS(X)                                                                                              \
    X(nccl_result, ncclGetVersion, version, (int *version))                                                            \
    X(const char *, ncclGetErrorString, error_string, (nccl_result r))                                                 \
    X(const char *, ncclGetLastError, last_error, (nccl_comm c))                                                       \
    X(nccl_result, ncclCommInitAll, comm_init_all, (nccl_comm * c, int n, const int *devices))                         \
    X(nccl_result, ncclCommDestroy, comm_destroy, (nccl_comm c))                                                       \
    X(nccl_result, ncclCommAbort, comm_abort, (nccl_comm c))                                                           \
    X(nccl_result, ncclCommGetAsyncError, comm_error, (nccl_comm c, nccl_result * r))                                  \
    X(nccl_result, ncclAllGather, all_gather,                                                                          \
      (const void *from, void *to, size_t count, nccl_type type, nccl_comm c, cu_stream s))

struct nccl {
    void *library;
#define NCCL_FIELD(result, name, field, params) result(*field) params; // NOLINT(bugprone-macro-parentheses)
    NCCL_FUNCTIONS(NCCL_FIELD)
#undef NCCL_FIELD
};

/* Opens the library, once per process; later calls return the same. NULL with ERR_DEVICE: there is none here, or one
 * that is too old. Thread-safe. */
const struct nccl *nccl_open(struct err *e);

/* "2.28.9" */
const char *nccl_version(const struct nccl *n, char *buf, size_t size);
/* What r says, and what NCCL has to say of its last failure, for messages. */
const char *nccl_error(const struct nccl *n, nccl_result r, char *buf, size_t size);

#endif
