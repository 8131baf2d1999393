/* core/model/e4m3.h - keys and values in eight bits: what a KV cache of type DT_E4M3 ("fp8") keeps of a head.
 *
 * Elements are e4m3 of the OCP 8-bit floating point specification: a sign, 4 bits of exponent, 3 of mantissa, up to
 * 448, subnormals down to 2^-9. A head's elements (of one position: K after RoPE, or V) share a scale, the least power
 * of two from 2^-15 to 2^7 under which none exceeds 448, so that nothing is clipped, scaling is exact and what is
 * stored follows from this head alone. With these limits each element, scaled back, is exact in f16: a reader of fp8
 * computes what a reader of f16 would over the same numbers.
 *
 * Cards keep codes and scales (gpu/rope.cu, gpu/attend_cells.cuh are the same rules in device code). The CPU backend
 * rounds by them and keeps f16, so that it says what a card would. Pure functions. */
#ifndef CORE_MODEL_E4M3_H
#define CORE_MODEL_E4M3_H

#include <stddef.h>
#include <stdint.h>

enum { E4M3_ALIGN = 16 };  /* bytes to which a card pads the codes of a head */
#define E4M3_MOST 57344.0f /* the largest magnitude that a head may have: 448 * 2^7 */

uint8_t e4m3_from_f32(float f); /* nearest even; above 448, infinity included: 448; NaN: 0x7f */
float e4m3_to_f32(uint8_t code);

/* The scale of a head's n elements; NaN when one is above E4M3_MOST or not a number: such a head is NaN throughout. */
float e4m3_scale(const float *x, size_t n);
/* What a reader of the head gets, as f16. */
void e4m3_round(const float *x, size_t n, uint16_t *f16);

#endif
