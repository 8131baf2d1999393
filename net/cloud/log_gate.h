/* net/cloud/log_gate.h - keeps what strangers cause from flooding the log: a line for the same key passes once a
 * minute, and only so many different keys do. One thread. */
#ifndef NET_CLOUD_LOG_GATE_H
#define NET_CLOUD_LOG_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_GATE_KEYS = 64, LOG_GATE_KEY = 56, LOG_GATE_MS = 60000 };

/* Zero-initialise to start. */
struct log_gate {
    struct {
        uint8_t key[LOG_GATE_KEY];
        double until; /* clock_ms; 0: never used */
    } slots[LOG_GATE_KEYS];
    uint64_t held; /* lines held back since the last that passed */
};

/* May a line for this key (n <= LOG_GATE_KEY bytes) be written at time now? *held: lines kept back before it. */
bool log_gate_pass(struct log_gate *g, const void *key, size_t n, double now, uint64_t *held);

#endif
