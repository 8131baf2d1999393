/* test/unit/fake_cloud.h - a cloud that does what a script says: TLS and frames on a thread, one connection after the
 * other, each in the hands of a function of the test. For what no real cloud does. */
#ifndef TEST_FAKE_CLOUD_H
#define TEST_FAKE_CLOUD_H

#include "core/base/buf.h"
#include "net/identity.h"
#include "net/tls.h"
#include "net/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fake_conn {
    struct tls *tls;
    int fd;
    int number; /* of this connection, from 0 */
    atomic_bool *quit;
    struct wbuf in;
};

struct fake_cloud {
    void (*serve)(struct fake_conn *c, void *ctx); /* returns: the connection is closed */
    void *ctx;
    struct identity *id;
    struct tls_config *config;
    int listener, rcvbuf; /* rcvbuf: set before start; 0: the system's */
    char address[40];
    pthread_t thread;
    atomic_bool quit;
};

void fake_cloud_start(struct fake_cloud *f);
void fake_cloud_stop(struct fake_cloud *f);

/* For serve. False: the other side or the test has gone. */
bool fake_read(struct fake_conn *c, int *type, struct wbuf *payload);
bool fake_some(struct fake_conn *c, size_t *n); /* reads whatever comes, and forgets it */
bool fake_write(struct fake_conn *c, const void *p, size_t n);
bool fake_flush(struct fake_conn *c, struct wbuf *frames); /* sends and empties */
/* Takes HELLO and answers WELCOME. */
bool fake_welcome(struct fake_conn *c, struct wire_hello *h, const struct wire_welcome *m);

#endif
