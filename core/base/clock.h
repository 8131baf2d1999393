/* core/base/clock.h - monotonic time for measurements and timeouts. */
#ifndef CORE_BASE_CLOCK_H
#define CORE_BASE_CLOCK_H

/* Milliseconds since an arbitrary start; never goes back. */
double clock_ms(void);

#endif
