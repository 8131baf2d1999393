#include "net/digest.h"

void digest_start(struct digest *d) {
    d->op = psa_hash_operation_init();
    d->status = psa_crypto_init(); /* idempotent */
    if (d->status == PSA_SUCCESS)
        d->status = psa_hash_setup(&d->op, PSA_ALG_SHA_256);
}

void digest_add(struct digest *d, const void *p, size_t n) {
    if (d->status == PSA_SUCCESS)
        d->status = psa_hash_update(&d->op, p, n);
}

int digest_end(struct digest *d, uint8_t out[DIGEST_BYTES], struct err *e) {
    size_t n = 0;
    if (d->status == PSA_SUCCESS)
        d->status = psa_hash_finish(&d->op, out, DIGEST_BYTES, &n);
    psa_hash_abort(&d->op);
    if (d->status != PSA_SUCCESS || n != DIGEST_BYTES)
        return err_set(e, ERR_CRYPTO, "SHA-256 failed (PSA status %d)", (int)d->status);
    return 0;
}
