#include "net/cloud/audit_store.h"

#include "core/base/wipe.h"
#include "net/audit.h"

#include <stdlib.h>
#include <string.h>

size_t audit_store_bytes(int n_rows, int n_leaves, int hidden) {
    return (size_t)n_rows * (size_t)n_leaves * (size_t)hidden * sizeof(float);
}

int audit_store_create(struct audit_store **out, uint32_t seq, int n_rows, int n_leaves, int hidden, enum codec c,
                       struct err *e) {
    *out = NULL;
    struct audit_store *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, ERR_MEMORY, "out of memory for an audit");
    *a = (struct audit_store){.seq = seq, .n_rows = n_rows, .n_leaves = n_leaves, .hidden = hidden, .codec = c};
    a->x = malloc(audit_store_bytes(n_rows, n_leaves, hidden));
    a->ids = malloc((size_t)n_rows * sizeof *a->ids);
    a->leaves = malloc((size_t)n_leaves * sizeof *a->leaves);
    if (!a->x || !a->ids || !a->leaves) {
        audit_store_free(a);
        return err_set(e, ERR_MEMORY, "out of memory for the audit of %d rows", n_rows);
    }
    *out = a;
    return 0;
}

void audit_store_free(struct audit_store *a) {
    if (!a)
        return;
    wipe_free(a->x, audit_store_bytes(a->n_rows, a->n_leaves, a->hidden));
    free(a->ids);
    free(a->leaves);
    free(a);
}

float *audit_store_row(struct audit_store *a, int leaf, uint32_t row) {
    return a->x + ((size_t)leaf * (size_t)a->n_rows + row) * (size_t)a->hidden;
}

int audit_store_step(struct audit_store *a, struct err *e) {
    size_t n = (size_t)a->n_rows * (size_t)a->hidden;
    int leaf = a->n_hashed;
    float *x = audit_store_row(a, leaf, 0);
    if (leaf == a->n_leaves - 1 && leaf > 0)
        codec_boundary(&a->codec, x, a->n_rows, a->hidden);
    if (audit_leaf((uint32_t)leaf, x, n, a->leaves[leaf], e) != 0)
        return -1;
    if (++a->n_hashed < a->n_leaves)
        return 0;
    uint8_t(*scratch)[WIRE_DIGEST] = malloc((size_t)a->n_leaves * sizeof *scratch);
    if (!scratch)
        return err_set(e, ERR_MEMORY, "out of memory for an audit");
    memcpy(scratch, a->leaves, (size_t)a->n_leaves * sizeof *scratch);
    int rc = audit_root(scratch, a->n_leaves, a->root, e);
    free(scratch);
    return rc == 0 ? 1 : -1;
}
