/* test/unit/tap.h - an observer on the network: relays one connection at a time and notes size and time of each TLS
 * record that carries data, which is all that can be seen. Everything asserts. */
#ifndef TEST_TAP_H
#define TEST_TAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { TAP_RECORDS = 4096 };

struct tap_record {
    bool up;
    int bytes; /* of its payload */
    double ms;
};

struct tap {
    uint16_t port, target;
    int listener, quit[2];
    pthread_t thread;
    pthread_mutex_t lock;
    struct tap_record record[TAP_RECORDS];
    int n;
};

void tap_start(struct tap *t, uint16_t target); /* on 127.0.0.1, both */
void tap_stop(struct tap *t);
int tap_count(struct tap *t); /* records so far */

#endif
