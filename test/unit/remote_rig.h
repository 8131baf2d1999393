/* test/unit/remote_rig.h - a session of the toy model whose middle is remote: real clouds (net/cloud/cloud) in this
 * process, each behind an emulated link. Everything asserts. */
#ifndef TEST_REMOTE_RIG_H
#define TEST_REMOTE_RIG_H

#include "core/decode/session.h"
#include "net/client/remote_middle.h"
#include "net/cloud/cloud.h"
#include "net/link.h"
#include "test/unit/toy.h"

#include <pthread.h>

enum { RIG_CLOUDS = 2, RIG_FRONT = 2, RIG_BACK = 1, RIG_ROWS = 16, RIG_EVENTS = REMOTE_SWITCHED + 1 };

struct toy_cloud {
    struct stage stage;
    struct cloud_opts o; /* listen is set by start */
    struct identity *id;
    struct allow_list *allow;
    struct cloud *cloud; /* NULL: not running */
    pthread_t thread;
    char listen[40];
};

struct remote_rig {
    struct stage front, back;
    struct identity *client;
    struct toy_cloud cloud[RIG_CLOUDS];
    struct link *link[RIG_CLOUDS];
    struct remote_cloud clouds[RIG_CLOUDS];
    char address[RIG_CLOUDS][40];
    struct remote_opts o;
    int windows;
    struct session_speculation speculation;
    struct middle *middle;
    struct session *session;
    int events[RIG_EVENTS];
    char last[RIG_EVENTS][600];
};

/* Clouds run, links are up; o and the clouds' options may still be changed (then toy_cloud_stop and _start). */
void remote_rig_init(struct remote_rig *r);
void remote_rig_connect(struct remote_rig *r); /* middle and session */
void remote_rig_disconnect(struct remote_rig *r);
void remote_rig_free(struct remote_rig *r);

/* Has one conversation, and says how long a link may be silent on this machine, as busy as it is, before that means
 * something: 400 ms where it is quick. */
uint32_t remote_rig_patience(struct remote_rig *r);

/* On a port of its own; the link leads there. */
void toy_cloud_start(struct remote_rig *r, int i);
void toy_cloud_stop(struct remote_rig *r, int i); /* at once: its sessions are gone */

#endif
