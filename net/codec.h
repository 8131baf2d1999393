/* net/codec.h - activations as bytes on the wire, exactly as docs/protocol.md (Codecs) says. Pure functions; what is
 * decoded comes from a peer. Encoding is total: whatever the numbers are, the result decodes to finite ones. */
#ifndef NET_CODEC_H
#define NET_CODEC_H

#include <stddef.h>
#include <stdint.h>

enum codec { CODEC_F32, CODEC_F16, CODEC_BF16, CODEC_Q8, N_CODECS };

const char *codec_name(enum codec c);     /* "f32", "f16", "bf16", "q8" */
extern const char *const codec_choices[]; /* the names in order, NULL behind them */

size_t codec_row_bytes(enum codec c, int hidden);

/* out has n * codec_row_bytes bytes; x is [n][hidden]. */
void codec_encode(enum codec c, const float *x, int n, int hidden, uint8_t *out);

/* 0, or -1 when a number is not finite; then x holds no meaning. */
int codec_decode(enum codec c, const uint8_t *in, int n, int hidden, float *x);

/* What a trip over the wire does to x [n][hidden], in place: encode and decode without bytes between. ctx points to an
 * enum codec. Fits boundary_fn of local_middle: the local twin of a split model. Bit for bit the same as the two calls.
 */
void codec_boundary(void *ctx, float *x, int n, int hidden);

#endif
