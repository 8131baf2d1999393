/* test/unit/observer.h - an observer on the network: relays one connection at a time and notes size and time of each
 * TLS record that carries data, which is all that can be seen. Everything asserts. */
#ifndef TEST_OBSERVER_H
#define TEST_OBSERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { OBSERVER_RECORDS = 4096 };

struct seen_record {
    bool up;
    int bytes; /* of its payload */
    double ms;
};

struct observer {
    uint16_t port, target;
    int listener, quit[2];
    pthread_t thread;
    pthread_mutex_t lock;
    struct seen_record record[OBSERVER_RECORDS];
    int n;
};

void observer_start(struct observer *t, uint16_t target); /* on 127.0.0.1, both */
void observer_stop(struct observer *t);
int observer_count(struct observer *t); /* records so far */

#endif
