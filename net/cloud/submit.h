/* net/cloud/submit.h - what the SUBMITs of a connection do to its session: the context, the nodes that wait to be
 * computed, and which of those a frame that has not been applied yet is going to drop. Frames come from a peer; an
 * ERR_PEER means that it broke the protocol. */
#ifndef NET_CLOUD_SUBMIT_H
#define NET_CLOUD_SUBMIT_H

#include "net/cloud/sessions.h"

struct submit_scratch {
    struct node *nodes;    /* [max_rows] */
    bool *keep;            /* [max_rows] */
    uint32_t *ids;         /* [WIRE_MAX_LIST] */
    int n_leaves, hidden;  /* of an audit */
    size_t audit_bytes;    /* that audits may still take */
    uint64_t dropped_rows; /* nodes that came and were not computed, so far */
};
int submit_scratch_init(struct submit_scratch *s, int max_rows, int n_leaves, int hidden, struct err *e);
void submit_scratch_free(struct submit_scratch *s);

/* Has to wait: it commits nodes that are not computed yet, or an audit is not finished. ERR_PEER: not a SUBMIT. */
int submit_ready(struct cloud_session *c, struct frame *f, bool *ready, struct err *e);

/* Applies f. It belongs to the session while nodes of it wait (f->n_waiting is not 0), else to the caller. Windows of
 * which nothing waits any more because of it are moved to finished, to be answered. */
int submit_apply(struct cloud_session *c, struct submit_scratch *s, struct frame *f, struct frame_list *finished,
                 struct err *e);

/* All that waits is dropped, and the audit is wiped: the connection is over. Frames go back to the port. */
void submit_forget(struct cloud_session *c, struct submit_scratch *s);

/* What the frames in the inbox are going to drop of what is in flight. all: everything; else ask kv_table_foreseen. */
void submit_foresee(struct cloud_session *c, struct submit_scratch *s, bool *all);

#endif
