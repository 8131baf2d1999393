/* net/fingerprint.h - what HELLO says about a model: a digest of its shape and constants, and a fingerprint of weights
 * that finds mistakes (another fine-tune, another type), not lies. */
#ifndef NET_FINGERPRINT_H
#define NET_FINGERPRINT_H

#include "core/base/err.h"
#include "core/model/config.h"
#include "core/model/weights.h"
#include "net/wire.h"

#include <stdint.h>

/* SHA-256 over lines "name value\n" of every field of the config that changes what layers compute, floats as their
 * IEEE bits in hexadecimal; the same for an HF directory and a GGUF file of one model. */
int fingerprint_config(const struct model_config *c, uint8_t digest[WIRE_DIGEST], struct err *e);

/* SHA-256 over layers [lo, hi): for each tensor in the order of the layer's computation its name, dtype, rows and
 * columns, and 64 bytes from each of 8 rows chosen by its name. Zeros when a tensor is not there (the local side need
 * not have the middle); other failures are errors. Reads few pages. */
int fingerprint_weights(struct weights *w, int lo, int hi, uint8_t digest[WIRE_DIGEST], struct err *e);

/* Fills everything of a HELLO that comes from the model: n_layers, lo, hi, hidden, config, weights, version; the rest
 * is zero. */
int fingerprint_hello(struct weights *w, int lo, int hi, struct wire_hello *h, struct err *e);

#endif
