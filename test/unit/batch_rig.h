/* test/unit/batch_rig.h - a batch thread over the middle of a model, peers that speak frames with it without a network,
 * and for each a twin: a local_middle behind the same codec, which says what every node's activation has to be. All of
 * it asserts. Waiting ends when something happens, or fails the test after a long time. */
#ifndef TEST_UNIT_BATCH_RIG_H
#define TEST_UNIT_BATCH_RIG_H

#include "core/model/middle.h"
#include "net/cloud/batch.h"

#include <pthread.h>

/* A stage that stops before layers until it is told to go on, so that a test decides what comes while a pass runs. */
struct gate {
    struct stage base;
    struct stage *real;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int allowed;  /* calls of layers that may still begin; -1: any number */
    bool waiting; /* one stands before it */
    bool fail;    /* the next call fails */
    int slow_us;  /* that a call takes at least */
    int calls, last_rows;
    int kv_clears;
};

struct batch_rig {
    struct weights *weights;
    const struct model_config *config;
    struct backend *backend, *twin_backend;
    struct gate gate;
    struct stage *twin_stage;
    struct batch_opts opts;
    struct batch_thread *batch;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    unsigned wakes;
};

/* Options of which 0 means: kv_bytes 64 MB, 64 sessions, ctx 1024, live 256, rows of a pass 64, ttl and idle 60 s. */
void batch_rig_open(struct batch_rig *r, const char *model, int front, int back, const struct batch_opts *o);
void batch_rig_close(struct batch_rig *r);

void gate_allow(struct batch_rig *r, int calls); /* from now on; -1: opens it */
void gate_slow(struct batch_rig *r, int us);
int gate_wait(struct batch_rig *r); /* until a call stands before it; how many rows it has */

enum { PEER_MAX_IDS = 60000 };

struct peer {
    struct batch_rig *r;
    struct port *port;
    enum codec codec;
    size_t row_bytes;
    struct wire_welcome welcome;
    uint32_t seq, next_id;
    struct wbuf payload; /* of the last frame taken */
    int code;            /* of the last ERROR */
    char text[WIRE_MAX_TEXT + 1];
    struct middle *twin; /* NULL until peer_hello made a session */
    float **want;        /* [PEER_MAX_IDS]: what node id has to be; NULL: unknown */
    uint64_t noise;
};

/* who: a number that stands for a pin. */
void peer_open(struct batch_rig *r, struct peer *p, int who, enum codec codec);
void peer_close(struct peer *p);          /* the connection; then everything of p */
void peer_drop(struct peer *p);           /* the connection only */
void peer_again(struct peer *p, int who); /* a new connection */

struct wire_hello peer_hello_of(const struct peer *p, uint32_t ctx, uint32_t live);
void peer_post(struct peer *p, struct wbuf *frame); /* a whole frame; is empty afterwards */
void peer_say_hello(struct peer *p, const struct wire_hello *h);
/* HELLO, and WELCOME has to come. token NULL: a new session, with a new twin. */
void peer_hello(struct peer *p, uint32_t ctx, uint32_t live, const uint8_t *token);

/* The next frame: its type, payload in p->payload; 0: the port is finished. */
int peer_frame(struct peer *p);
bool peer_frame_now(struct peer *p, int *type); /* false: there is none yet */
/* ERROR of this code has to be next, and then the end. */
void peer_expect_error(struct peer *p, int code);

/* Random activations of the right size; nodes get their ids here. The twin computes them at once. */
void peer_submit(struct peer *p, struct wire_submit_parts *s);
void peer_submit_raw(struct peer *p, const struct wire_submit_parts *s, const float *x); /* no twin */
/* One RESULT, every activation compared with the twin's. Returns how many nodes; *last. ids may be NULL. */
int peer_result(struct peer *p, uint32_t *ids, bool *last);
void peer_check_result(struct peer *p, uint32_t *ids, int *n, bool *last); /* of p->payload */
/* Submits a chain of n nodes under the head, takes the results and commits it with the next SUBMIT: plain decoding. */
void peer_chain(struct peer *p, int n);

struct batch_stats rig_stats(struct batch_rig *r);

#endif
