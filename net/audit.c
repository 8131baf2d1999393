#include "net/audit.h"

#include "core/base/wipe.h"
#include "core/model/kv.h"
#include "net/digest.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "leaves are hashed as they lie in memory");

/* ---- the tree ---- */

/* What stands before the content, so that no leaf can pass for an inner node. */
enum { TAG_LEAF = 0, TAG_INNER = 1 };

static int leaf_of(uint32_t i, const void *x, size_t n_bytes, uint8_t leaf[WIRE_DIGEST], struct err *e) {
    const uint8_t head[5] = {TAG_LEAF, (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), (uint8_t)(i >> 24)};
    struct digest d;
    digest_start(&d);
    digest_add(&d, head, sizeof head);
    digest_add(&d, x, n_bytes);
    return digest_end(&d, leaf, e);
}

int audit_leaf(uint32_t i, const float *x, size_t n, uint8_t leaf[WIRE_DIGEST], struct err *e) {
    return leaf_of(i, x, n * sizeof *x, leaf, e);
}

int audit_root(uint8_t (*leaves)[WIRE_DIGEST], int n, uint8_t root[WIRE_DIGEST], struct err *e) {
    if (n < 1)
        return err_set(e, ERR_USAGE, "a Merkle tree of %d leaves", n);
    for (; n > 1; n = (n + 1) / 2) {
        for (int i = 0; i + 1 < n; i += 2) {
            const uint8_t tag = TAG_INNER;
            struct digest d;
            digest_start(&d);
            digest_add(&d, &tag, 1);
            digest_add(&d, leaves[i], 2 * WIRE_DIGEST);
            if (digest_end(&d, leaves[i / 2], e) != 0)
                return -1;
        }
        if (n % 2)
            memmove(leaves[n / 2], leaves[n - 1], WIRE_DIGEST);
    }
    memcpy(root, leaves[0], WIRE_DIGEST);
    return 0;
}
