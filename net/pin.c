/* Pins: their text, and what they are made of. */
#include "net/identity_key.h"
#include "net/pin_list.h"

#include <string.h>

static const char prefix[] = "sha256:";
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
enum { N_PREFIX = sizeof prefix - 1, N_DIGITS = 43 };

void pin_format(const struct pin *p, char text[PIN_TEXT]) {
    memcpy(text, prefix, N_PREFIX);
    char *out = text + N_PREFIX;
    uint32_t bits = 0;
    int n_bits = 0;
    for (size_t i = 0; i < sizeof p->sha256; i++) {
        bits = bits << 8 | p->sha256[i];
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            *out++ = digits[bits >> (n_bits - 6) & 63];
    }
    *out++ = digits[bits << (6 - n_bits) & 63];
    *out = '\0';
}

/* One digit of base64url, or -1. */
static int digit_value(char c) {
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* True when the text is the one way to write the pin: the two bits that are left over are zero. */
static bool decode(struct pin *p, const char *text, size_t n) {
    if (n != N_PREFIX + N_DIGITS || memcmp(text, prefix, N_PREFIX) != 0)
        return false;
    uint32_t bits = 0;
    int n_bits = 0;
    size_t at = 0;
    for (size_t i = N_PREFIX; i < n; i++) {
        int v = digit_value(text[i]);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            p->sha256[at++] = (uint8_t)(bits >> n_bits);
        }
    }
    return (bits & ((1U << n_bits) - 1)) == 0;
}

int pin_parse_n(struct pin *p, const char *text, size_t n, struct err *e) {
    struct pin parsed;
    if (!decode(&parsed, text, n))
        return err_set(e, ERR_USAGE,
                       "'%.*s' is no pin; a pin is 'sha256:' and 43 letters, digits, '-' or '_', as splitinf identity "
                       "prints it",
                       (int)(n < 80 ? n : 80), text);
    *p = parsed;
    return 0;
}

int pin_parse(struct pin *p, const char *text, struct err *e) {
    return pin_parse_n(p, text, strlen(text), e);
}

bool pin_equal(const struct pin *a, const struct pin *b) {
    uint8_t differ = 0;
    for (size_t i = 0; i < sizeof a->sha256; i++)
        differ |= a->sha256[i] ^ b->sha256[i];
    return differ == 0;
}

bool pin_of_spki(struct pin *p, const uint8_t *spki, size_t n) {
    /* SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING (0x04, X, Y) }: DER leaves no choice, so that the
     * head says which kind of key it is. */
    static const uint8_t head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                   0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
    size_t n_hash;
    if (n != sizeof head + 64 || memcmp(spki, head, sizeof head) != 0)
        return false;
    return psa_hash_compute(PSA_ALG_SHA_256, spki, n, p->sha256, sizeof p->sha256, &n_hash) == PSA_SUCCESS;
}
