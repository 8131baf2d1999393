/* net/identity_key.h - what is inside an identity, for net/tls.c, and the few things about keys that both need. The
 * only headers of ours that show mbedTLS. A SubjectPublicKeyInfo may come from a stranger. */
#ifndef NET_IDENTITY_KEY_H
#define NET_IDENTITY_KEY_H

#include "net/identity.h"

#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

/* Read-only once it was made, and so shared by threads: mbedTLS signs with a P-256 key without writing to it. */
struct identity {
    struct pin pin;
    mbedtls_pk_context key;
    mbedtls_x509_crt cert;
};

/* Starts the crypto library, once for the process. From any thread. */
int crypto_start(struct err *e);
/* Its message for one of its codes, such as "SSL - ...": into out. */
void crypto_strerror(int code, char *out, size_t cap);

/* The pin of a key. False when it is no uncompressed ECDSA P-256 key in DER. */
bool pin_of_spki(struct pin *p, const uint8_t *spki, size_t n);

#endif
