/* net/cloud/serve.h - the cloud's half of the conversation: what each frame of a port does to its session, and what is
 * said. It runs on the thread that owns the sessions and computes nothing. Frames come from peers: whoever breaks the
 * protocol loses its session, and nobody else notices. */
#ifndef NET_CLOUD_SERVE_H
#define NET_CLOUD_SERVE_H

#include "net/cloud/submit.h"

struct server {
    struct batch_opts o;
    struct sessions sessions;
    struct submit_scratch scratch;
    int hidden;
    int n_leaves; /* of an audit */
    bool draining;
    uint64_t audited; /* number of the session whose leaf was hashed last */
};

/* Looks at what came. Returns whether there is more that could be looked at now. */
bool serve_port(struct server *v, struct port *p, double now);
/* The connection is gone: its session stays behind, unless it said BYE. Frees p. */
void serve_gone(struct server *v, struct port *p, double now);

/* ERROR, and nothing more. p must not have a session (any more). */
void serve_refuse(struct port *p, enum wire_code code, const char *text);
/* The same, and the end of the session if there is one. */
void serve_fail(struct server *v, struct port *p, enum wire_code code, const char *text);
/* The cloud is going away. */
void serve_goodbye(struct server *v, struct port *p);

void serve_result(struct port *p, const struct cloud_session *c, struct wire_result *r, const uint32_t *ids,
                  const float *x, int hidden, const uint8_t *root);
/* Hashes one leaf of one audit whose rows are computed, in turns, so that passes of others never wait for more than
 * that; answers an audit that is complete. Returns whether it did anything. */
bool serve_audits(struct server *v);

#endif
