#include "net/cloud/log_gate.h"

#include <string.h>

bool log_gate_pass(struct log_gate *g, const void *key, size_t n, double now, uint64_t *held) {
    uint8_t padded[LOG_GATE_KEY] = {0};
    int free_slot = -1;
    memcpy(padded, key, n < sizeof padded ? n : sizeof padded);
    for (int i = 0; i < LOG_GATE_KEYS; i++) {
        if (g->slots[i].until <= now)
            free_slot = i;
        else if (memcmp(g->slots[i].key, padded, sizeof padded) == 0) {
            g->held++;
            return false;
        }
    }
    if (free_slot < 0) {
        g->held++;
        return false;
    }
    memcpy(g->slots[free_slot].key, padded, sizeof padded);
    g->slots[free_slot].until = now + LOG_GATE_MS;
    *held = g->held;
    g->held = 0;
    return true;
}
