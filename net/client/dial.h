/* net/client/dial.h - the clouds that a client may use: their pins, what each said when it was tried last, and the
 * token of the session on each. One try at a time; when to try again is the caller's matter. */
#ifndef NET_CLIENT_DIAL_H
#define NET_CLIENT_DIAL_H

#include "net/client/channel.h"
#include "net/client/remote_middle.h"

enum { DIAL_ADDRESS = 280 };

enum dial_verdict {
    DIAL_DONE,
    DIAL_STOPPED,   /* asked for; e is empty */
    DIAL_AGAIN,     /* may be better in a moment */
    DIAL_ELSEWHERE, /* has no room or is going away: rather another one, or later */
    DIAL_NEVER,     /* will not change by itself */
};
/* What an ERROR with this code means for another try at the same cloud. */
enum dial_verdict dial_verdict_of(int code);

struct dial;

/* Copies the clouds; id and home are borrowed. ERR_USAGE: no clouds, or an address that is none. */
int dial_create(struct dial **out, const struct remote_opts *o, struct err *e);
void dial_free(struct dial *d);
int dial_count(const struct dial *d);
const char *dial_address(const struct dial *d, int i);

/* Connects to cloud i and says HELLO, with the token that it gave before. A message names the cloud. */
enum dial_verdict dial_try(struct dial *d, int i, const struct address_wait *w, struct channel **out,
                           struct wire_welcome *m, struct err *e);

/* The session on cloud i is not asked for again. */
void dial_forget(struct dial *d, int i);

#endif
