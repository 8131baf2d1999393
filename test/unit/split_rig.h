/* test/unit/split_rig.h - one model split between a cloud in this process and clients of it, over real TLS, beside
 * local twins that compute the middle themselves behind the same codec; and talks, which both have and which must come
 * out the same bit for bit. Opening and closing assert; a talk runs on any thread and does not. */
#ifndef TEST_UNIT_SPLIT_RIG_H
#define TEST_UNIT_SPLIT_RIG_H

#include "core/decode/session.h"
#include "net/client/remote_middle.h"
#include "net/cloud/cloud.h"
#include "net/codec.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { SPLIT_CTX = 256, SPLIT_CHUNK = 64, SPLIT_CLOUD_ROWS = 48, SPLIT_SESSIONS = 20 };

struct split_rig {
    struct weights *weights;
    const struct model_config *config;
    int front, back;
    enum dtype kv_type;
    struct backend *backend; /* the cloud's */
    struct stage *stage;
    struct identity *server, *client;
    struct allow_list *allow;
    struct cloud *cloud;
    pthread_t thread;
    char address[32];
    struct remote_cloud where;
    struct wire_hello hello;
};

/* The cloud computes passes of at most SPLIT_CLOUD_ROWS, so that larger windows come back in pieces, on 3 threads. */
void split_rig_open(struct split_rig *r, const char *model, int front, int back, enum dtype kv_type);
/* The same for one more client, with so many nodes in flight at most. */
void split_rig_open_for(struct split_rig *r, const char *model, int front, int back, enum dtype kv_type,
                        const struct pin *also, uint32_t max_live);
void split_rig_close(struct split_rig *r);
/* A number of the cloud's /metrics. */
double split_rig_metric(const struct split_rig *r, const char *name);

/* One session with the parts that a client computes, on one thread. */
struct side {
    const struct split_rig *rig;
    struct backend *backend;
    struct stage *front, *middle_stage, *back;
    enum codec codec;
    struct middle *middle;
    struct session *session;
};

void side_open_local(struct side *s, const struct split_rig *r, enum codec codec);
void side_open_remote(struct side *s, const struct split_rig *r, enum codec codec, int chunk);
void side_close(struct side *s);

struct talk {
    uint64_t script; /* what its prompts and trees are made from */
    enum codec codec;
    int chunk;         /* of a remote side; trees are no larger */
    float temperature; /* 0: greedy; else with top-p 0.95 */
    uint64_t seed;     /* of the sampler */
};

enum { TALK_TURNS = 2, TALK_TOKENS = 12, TALK_TREES = 4, TALK_MAX_TREE = 24 };

struct record {
    uint32_t tokens[TALK_TURNS * TALK_TOKENS];
    float *rows; /* [n_rows][vocab]: logits before each token, and of trees */
    int n_rows;
};

/* Two turns: a prompt, TALK_TOKENS tokens, and trees between them; the second turn drops some of the first. Memory of
 * rec->rows is made on first use and used again. */
int talk_run(struct side *s, const struct talk *t, struct record *rec, struct err *e);
void record_free(struct record *rec);
/* Asserts that they are equal, and that there is something in them. */
void record_check(const struct record *got, const struct record *want, int vocab, const char *what);

#endif
