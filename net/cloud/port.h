/* net/cloud/port.h - mailboxes between connections and the one thread that computes (the port_* functions of
 * net/cloud/batch.h and the thread's side of them): queues of frames, how much they hold, who is woken when. It knows
 * nothing of what frames say.
 *
 * One mutex for all ports of a set; it is held for moving pointers only. */
#ifndef NET_CLOUD_PORT_H
#define NET_CLOUD_PORT_H

#include "net/cloud/batch.h"

#include <pthread.h>

/* A frame on its way: the payload of one that came, or a whole one that goes. Its memory belongs to its port, which
 * uses it again. */
struct frame {
    struct frame *next;
    int type;
    struct wbuf buf;
    /* The thread's notes on a SUBMIT (net/cloud/submit.h): */
    struct wire_submit submit; /* a view into buf */
    bool parsed;               /* submit is filled */
    uint32_t n_waiting;        /* nodes that are neither computed nor dropped */
    double came_ms;
};

struct frame_list {
    struct frame *first, *last;
};
void frame_push(struct frame_list *l, struct frame *f);
struct frame *frame_pop(struct frame_list *l); /* NULL: empty */

struct ports {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    struct port *fresh; /* opened, and not yet seen by the thread */
    bool news;          /* something came since ports_collect */
    /* the thread's */
    struct port *first; /* all, also closed ones that were not yet dropped */
    bool wake_due;
    void (*wake)(void *ctx);
    void *wake_ctx;
};

struct cloud_session;

struct port {
    struct ports *set;
    struct port *next;
    struct pin pin;
    char name[64];
    /* under lock */
    struct frame_list in, out, spare;
    size_t held;   /* bytes that came and are still needed */
    size_t unsent; /* bytes in out, or taken and not yet sent */
    size_t spare_bytes;
    uint32_t max_frame;
    bool closed, finished, starved; /* starved: no memory for a frame that came */
    bool full_seen;                 /* the other side was told to stop reading */
    /* the thread's */
    struct frame_list inbox;
    struct cloud_session *session; /* after HELLO */
    double opened_ms;
    bool gone;       /* closed */
    bool lost_frame; /* starved */
    bool over;       /* its last frame was said */
};

int ports_init(struct ports *s, void (*wake)(void *ctx), void *wake_ctx, struct err *e);
void ports_free(struct ports *s); /* with all ports */
/* Runs on any thread. */
struct port *ports_open(struct ports *s, const struct pin *pin, const char *name, struct err *e);
void ports_notify(struct ports *s); /* the lock is held: the thread has to look at something */

/* The rest is for the thread. */

/* Moves what came to the inboxes and sees who is gone. */
void ports_collect(struct ports *s);
bool ports_news(struct ports *s);
/* Waits for news, until clock_ms says until_ms (0: no limit). */
void ports_wait(struct ports *s, double until_ms);
/* Wakes the other side if something happened that it should see. */
void ports_wake(struct ports *s);
void port_drop(struct port *p); /* out of the set; frees it */

struct frame *port_frame(struct port *p);            /* an empty one; NULL: out of memory */
void port_say(struct port *p, struct frame *f);      /* f goes out. A frame that went bad ends the port instead */
void port_end(struct port *p);                       /* nothing more will be said; what came and comes is dropped */
void port_done(struct port *p, struct frame *f);     /* f is not needed any more; NULL is fine */
bool port_clogged(struct port *p);                   /* too much unsent: compute nothing for it now */
void port_limit(struct port *p, uint32_t max_frame); /* after WELCOME */

#endif
