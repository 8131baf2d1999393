/* cmd/bench/rig.h - a split model to measure: the edge layers here, the middle in a cloud of this process or in a real
 * one, each loaded once, and lanes. A lane is a session over a connection of its own, through an emulated link of its
 * own: what a client would have that does nothing else. So lanes learn nothing from each other, and can take turns. */
#ifndef CMD_BENCH_RIG_H
#define CMD_BENCH_RIG_H

#include "cmd/bench/tally.h"
#include "cmd/engine/engine.h"
#include "cmd/engine/loopback.h"
#include "core/draft/store.h"

struct bench_rig {
    struct engine en;
    struct part middle;
    struct loopback *loop;     /* NULL: a real cloud */
    struct draft_store *store; /* a scratch one, or NULL; never the user's */
};

/* The model's files; its tokenizer, unless it is a random one without --tokenizer (en.tok stays NULL). */
int bench_rig_open(struct bench_rig *r, const struct engine_opts *o, struct err *e);
/* Reads weights, once ctx is settled. n_lanes: open at the same time. */
int bench_rig_load(struct bench_rig *r, int n_lanes, struct err *e);
void bench_rig_close(struct bench_rig *r);

/* Does the model itself make the guesses? */
bool bench_iterates(enum session_mode m);

struct bench_lane_opts {
    enum session_mode mode;
    int nodes; /* guesses of a tree; 0: as many as a session, or the mode, takes by itself */
    enum codec codec;
    double rtt_ms, mbit; /* of the emulated link; rtt_ms < 0: there is none */
};

struct bench_lane {
    struct bench_lane_opts o;
    struct tunnel *tunnel;
    struct drafter *drafter;
    struct session *session;
    struct bench_path path;
};

int bench_lane_open(struct bench_lane *l, struct bench_rig *r, const struct bench_lane_opts *o, struct err *e);
void bench_lane_close(struct bench_lane *l);

#endif
