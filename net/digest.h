/* net/digest.h - SHA-256 piece by piece, through mbedTLS' PSA API. A failure is kept and told at the end. */
#ifndef NET_DIGEST_H
#define NET_DIGEST_H

#include "core/base/err.h"

#include <psa/crypto.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGEST_BYTES = 32 };

struct digest {
    psa_hash_operation_t op;
    psa_status_t status;
};

void digest_start(struct digest *d);
void digest_add(struct digest *d, const void *p, size_t n);
/* Ends what digest_start began, also when it fails: nothing has to be freed. -1: ERR_CRYPTO. */
int digest_end(struct digest *d, uint8_t out[DIGEST_BYTES], struct err *e);

#endif
