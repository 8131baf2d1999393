/* test/unit/cloud_rig.h - a cloud on a thread of this process, over a stage that computes nothing and can be made to
 * wait; peers that speak TLS and frames to it; and the log lines that it wrote. Everything asserts. */
#ifndef TEST_UNIT_CLOUD_RIG_H
#define TEST_UNIT_CLOUD_RIG_H

#include "core/model/backend.h"
#include "net/cloud/cloud.h"
#include "net/identity.h"
#include "net/tls.h"
#include "net/wire.h"

#include <pthread.h>
#include <stdatomic.h>

enum { RIG_HIDDEN = 64, RIG_LAYERS = 4, RIG_WAIT_MS = 20000, RIG_MAX_WINDOW = 8 };

struct cloud_rig {
    struct model_config config;
    struct stage stage;
    struct identity *id, *client; /* the client's pin is allowed */
    struct allow_list *allow;
    struct cloud_opts o; /* change between init and start; strangers may knock as often as they like */
    struct cloud *cloud;
    pthread_t thread;
    bool joined;
    int rc; /* of cloud_run */
};

/* While on, the stage does not come back from its pass. */
void rig_hold(bool on);
void rig_await_pass(void); /* until the compute thread has come to its first pass */
uint32_t rig_random(void); /* the same numbers in each run */

/* Fills o; allow_file NULL: only the client's pin is allowed. */
void cloud_rig_init(struct cloud_rig *r, const char *allow_file);
void cloud_rig_start(struct cloud_rig *r);
void cloud_rig_join(struct cloud_rig *r); /* waits for cloud_run to return */
void cloud_rig_stop(struct cloud_rig *r); /* at once, and frees everything */

/* Log lines since the start of the process that hold the text. */
int log_count(const char *text);
/* Waits until there are at least n. */
void log_await(const char *text, int n);

extern _Thread_local uint32_t rig_source; /* the address that this thread connects from; 0: the usual one */
int tcp_connect(uint16_t port);           /* blocking */
/* Waits until the peer has closed fd, at most RIG_WAIT_MS, reading what it says into buf. Returns bytes. */
size_t tcp_drain(int fd, char *buf, size_t cap);
bool tcp_closed(int fd, int timeout_ms); /* within this time */

struct guest {
    int fd;
    struct tls_config *config;
    struct tls *tls;
    struct wbuf in;
    uint32_t seq;
    uint32_t next_id, pos;
    uint32_t fresh[RIG_MAX_WINDOW]; /* of the last window */
    int n_fresh;
    struct wire_welcome welcome;
};

/* TLS; 0, or -1 when it was refused. */
int guest_connect(struct guest *p, const struct cloud_rig *r, const struct identity *id);
void guest_close(struct guest *p);
/* 0, or -1: the connection is gone. */
int guest_send(struct guest *p, const void *bytes, size_t n);
/* The next frame: its type, its payload in p->in; 0: closed; -1: broken; -2: none in time. */
int guest_frame(struct guest *p, int timeout_ms);
/* Until a frame of this type; asserts. */
void guest_await(struct guest *p, int type);
/* Waits for an ERROR with this code and then for the close. */
void guest_await_error(struct guest *p, int code);
void guest_hello(struct guest *p, const struct cloud_rig *r); /* and WELCOME */
void guest_open(struct guest *p, const struct cloud_rig *r);  /* guest_connect with the good client, guest_hello */
/* Commits the last window and submits one of n nodes behind it; -1 when the connection is gone. */
int guest_submit(struct guest *p, int n);
void guest_ping(struct guest *p, uint64_t any); /* and its PONG, whatever else comes before */

/* A good client is served, as ever. */
void rig_check_served(const struct cloud_rig *r);

#endif
