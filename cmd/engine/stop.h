/* cmd/engine/stop.h - stop strings in text that arrives in pieces. Pure. */
#ifndef CMD_ENGINE_STOP_H
#define CMD_ENGINE_STOP_H

#include "cmd/options.h"

/* text[0..n) is what has been generated, of which [0..shown) has been given out already. Returns how far it may be
 * given out now: up to the stop string that is complete first (*hit is set), else up to the longest end that may still
 * become one. The result does not depend on how the text was cut into pieces. */
size_t stop_scan(const struct strings *stops, const char *text, size_t n, size_t shown, bool *hit);

#endif
