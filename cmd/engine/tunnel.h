/* cmd/engine/tunnel.h - a model's middle layers on another machine, as a command's options name it: whom to connect to,
 * with which pins and codec, and, for trying things out on one machine, through which emulated link. */
#ifndef CMD_ENGINE_TUNNEL_H
#define CMD_ENGINE_TUNNEL_H

#include "cmd/options.h"
#include "core/base/err.h"
#include "core/model/middle.h"
#include "net/client/remote_middle.h"
#include "net/codec.h"

struct tunnel_opts {
    struct strings cloud, pin;
    bool trust_first;
    int codec;              /* 0: auto, else 1 + enum codec */
    int patience, progress; /* seconds; progress 0: as usual */
    double link_rtt, link_jitter, link_mbit;
    int pad_rows; /* of session_speculation, 0: none; no option of its own */
};
extern const struct opt tunnel_options[];

/* Is a cloud asked for? */
bool tunnel_wanted(const struct tunnel_opts *o);
/* ERR_USAGE for options that do not go together. */
int tunnel_check(const struct tunnel_opts *o, struct err *e);
/* What crosses the boundary: as chosen, or f16 to a cloud and f32 (nothing lost) on one machine. */
enum codec tunnel_codec(const struct tunnel_opts *o);

struct tunnel;

/* Connects. home: of the key and the remembered pins, NULL for the default. hello: what is asked of the cloud.
 * max_rows: of the largest window. What happens to the connection later is told to the user through cmd/term. */
int tunnel_open(struct tunnel **out, const struct tunnel_opts *o, const char *home, const struct wire_hello *hello,
                uint32_t max_rows, struct err *e);
/* The same to one address with a key and a pin of the caller's, both borrowed: a cloud of this process. Only the codec
 * and the link of o count. */
int tunnel_open_to(struct tunnel **out, const struct tunnel_opts *o, const char *address, const struct pin *pin,
                   const struct identity *id, const struct wire_hello *hello, uint32_t max_rows, struct err *e);
void tunnel_close(struct tunnel *t);            /* NULL is fine */
struct middle *tunnel_middle(struct tunnel *t); /* owned by t */

#endif
