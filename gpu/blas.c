#include "gpu/blas.h"

#include "gpu/library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WAYS = 8, FILL = 1 << 20 };
#define WORKSPACE ((size_t)64 << 20)

typedef struct blas_context *blas_handle;
typedef struct blas_matmul *blas_desc;
typedef struct blas_matrix *blas_layout;
typedef struct blas_wish *blas_preference;

/* X(name without "cublasLt", field, parameters) */
#define BLAS_FUNCTIONS(X)                                                                                              \
    X(Create, create, (blas_handle * h))                                                                               \
    X(Destroy, destroy, (blas_handle h))                                                                               \
    X(MatmulDescCreate, desc_create, (blas_desc * d, int compute, int scale))                                          \
    X(MatmulDescSetAttribute, desc_set, (blas_desc d, int attribute, const void *v, size_t n))                         \
    X(MatmulDescDestroy, desc_destroy, (blas_desc d))                                                                  \
    X(MatrixLayoutCreate, layout_create, (blas_layout * l, int type, uint64_t rows, uint64_t cols, int64_t ld))        \
    X(MatrixLayoutDestroy, layout_destroy, (blas_layout l))                                                            \
    X(MatmulPreferenceCreate, preference_create, (blas_preference * p))                                                \
    X(MatmulPreferenceSetAttribute, preference_set, (blas_preference p, int attribute, const void *v, size_t n))       \
    X(MatmulPreferenceDestroy, preference_destroy, (blas_preference p))                                                \
    X(MatmulAlgoGetHeuristic, heuristic,                                                                               \
      (blas_handle h, blas_desc d, blas_layout la, blas_layout lb, blas_layout lc, blas_layout ld, blas_preference p,  \
       int n, struct blas_heuristic *r, int *n_found))                                                                 \
    X(Matmul, matmul,                                                                                                  \
      (blas_handle h, blas_desc d, const void *alpha, cu_ptr a, blas_layout la, cu_ptr b, blas_layout lb,              \
       const void *beta, cu_ptr c, blas_layout lc, cu_ptr out, blas_layout lo, const uint64_t *algo, cu_ptr workspace, \
       size_t workspace_bytes, cu_stream s))

struct blas_product {
    struct gpu *g;
    size_t (*version)(void);
#define BLAS_FIELD(name, field, params) int(*field) params; // NOLINT(bugprone-macro-parentheses)
    BLAS_FUNCTIONS(BLAS_FIELD)
#undef BLAS_FIELD
    blas_handle handle;
    blas_desc desc;
    blas_layout layout;
    blas_preference preference;
    cu_ptr a, b, d, workspace;
    struct blas_heuristic ways[MAX_WAYS];
    char library[32];
};

static int open_library(struct blas_product *p, struct err *e) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL};
    void *library = library_open(names, e);
    if (!library)
        return -1;
    /* A pointer to a function cannot be had from one to an object but by its bytes. */
    void *f;
#define BLAS_FIND(name, field, params)                                                                                 \
    if (!(f = library_function(library, "cublasLt" #name)))                                                            \
        return err_set(e, ERR_DEVICE, "libcublasLt has no function cublasLt" #name);                                   \
    memcpy(&p->field, &f, sizeof f);
    BLAS_FUNCTIONS(BLAS_FIND)
    BLAS_FIND(GetVersion, version, )
#undef BLAS_FIND
    size_t v = p->version();
    /* 130100 of 13.1.0 */
    snprintf(p->library, sizeof p->library, "cuBLASLt %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    return 0;
}

/* Values as in weights: power that a card may draw depends on them, and zeros would flatter it. */
static int fill(struct blas_product *p, cu_ptr to, size_t bytes, struct err *e) {
    void *host = NULL;
    uint32_t seed = 1;
    if (gpu_host_alloc(p->g, &host, FILL, e) != 0)
        return -1;
    for (size_t i = 0; i < FILL / 2; i++) {
        seed = seed * 1664525 + 1013904223;
        ((uint16_t *)host)[i] = (uint16_t)(0x3c00 | (seed >> 16 & 0x83ff));
    }
    for (size_t at = 0; at < bytes; at += FILL)
        gpu_copy_to(p->g, to + at, host, bytes - at < FILL ? bytes - at : FILL);
    int rc = gpu_wait(p->g, e);
    gpu_host_free(p->g, host, FILL);
    return rc;
}

static int prepare(struct blas_product *p, int n, int *n_ways, struct err *e) {
    const int32_t transpose = BLAS_OP_T;
    const uint64_t workspace = WORKSPACE;
    const uint64_t un = (uint64_t)n;
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): by its bytes, open_library has filled it
    int r = p->create(&p->handle);
    if (r == 0)
        r = p->desc_create(&p->desc, BLAS_COMPUTE_32F, BLAS_R_32F);
    if (r == 0)
        r = p->desc_set(p->desc, BLAS_DESC_TRANSA, &transpose, sizeof transpose);
    if (r == 0)
        r = p->layout_create(&p->layout, BLAS_R_16BF, un, un, n);
    if (r == 0)
        r = p->preference_create(&p->preference);
    if (r == 0)
        r = p->preference_set(p->preference, BLAS_PREFERENCE_WORKSPACE, &workspace, sizeof workspace);
    if (r == 0)
        r = p->heuristic(p->handle, p->desc, p->layout, p->layout, p->layout, p->layout, p->preference, MAX_WAYS,
                         p->ways, n_ways);
    if (r != 0 || *n_ways < 1)
        return err_set(e, ERR_DEVICE, "%s has no product for this card (status %d)", p->library, r);
    return 0;
}

int blas_product_create(struct blas_product **out, struct gpu *g, int n, int *n_ways, struct err *e) {
    size_t bytes = (size_t)n * (size_t)n * 2;
    struct blas_product *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory");
    p->g = g;
    if (open_library(p, e) != 0 || prepare(p, n, n_ways, e) != 0 ||
        gpu_alloc(g, &p->a, bytes, "a matrix to measure with", e) != 0 ||
        gpu_alloc(g, &p->b, bytes, "a matrix to measure with", e) != 0 ||
        gpu_alloc(g, &p->d, bytes, "a matrix to measure with", e) != 0 ||
        gpu_alloc(g, &p->workspace, WORKSPACE, "cuBLASLt", e) != 0 || fill(p, p->a, bytes, e) != 0 ||
        fill(p, p->b, bytes, e) != 0) {
        blas_product_free(p);
        return -1;
    }
    *out = p;
    return 0;
}

int blas_product_run(struct blas_product *p, int way, struct err *e) {
    const float one = 1, zero = 0;
    int r = p->matmul(p->handle, p->desc, &one, p->a, p->layout, p->b, p->layout, &zero, p->d, p->layout, p->d,
                      p->layout, p->ways[way].algo, p->workspace, WORKSPACE, p->g->stream);
    return r == 0 ? 0 : err_set(e, ERR_DEVICE, "%s failed (status %d)", p->library, r);
}

void blas_product_free(struct blas_product *p) {
    if (!p)
        return;
    gpu_free(p->g, p->a);
    gpu_free(p->g, p->b);
    gpu_free(p->g, p->d);
    gpu_free(p->g, p->workspace);
    if (p->preference)
        p->preference_destroy(p->preference);
    if (p->layout)
        p->layout_destroy(p->layout);
    if (p->desc)
        p->desc_destroy(p->desc);
    if (p->handle)
        p->destroy(p->handle);
    free(p);
}

const char *blas_product_library(const struct blas_product *p) {
    return p->library;
}
