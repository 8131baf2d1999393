#include "cmd/engine/tunnel.h"

#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/decode/session.h"
#include "net/client/address.h"
#include "net/identity.h"
#include "net/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CLOUDS = 8 };

static const char *const codecs[] = {"auto", "f32", "f16", "bf16", "q8", NULL};

#define AT(field) .offset = offsetof(struct tunnel_opts, field)
const struct opt tunnel_options[] = {
    {"cloud", "HOST:PORT",
     "where serve-cloud runs the middle layers; may be repeated: a later one is used when the earlier stay away",
     OPT_STRINGS, AT(cloud)},
    {"pin", "PIN", "the pin that serve-cloud printed; repeated in the order of --cloud", OPT_STRINGS, AT(pin)},
    {"trust-on-first-use", NULL, "without --pin: take the pin of a cloud never met before, and remember it in --home",
     OPT_FLAG, AT(trust_first)},
    {"codec", "TYPE",
     "activations on the wire; auto: f16 to a cloud. With --local: what the wire would do to them; auto: nothing",
     OPT_CHOICE, AT(codec), .choices = codecs},
    {"patience", "S", "how long to try to get a lost cloud back", OPT_INT, AT(patience), .def = "120", .min = 0,
     .max = 86400},
    {"progress", "S", "how long to wait for a cloud that is there and computes nothing", OPT_INT, AT(progress),
     .def = "300", .min = 1, .max = 86400},
    {"link-rtt", "MS", "put an emulated link of this round trip before the cloud, for trying things out", OPT_FLOAT,
     AT(link_rtt), .def = "0", .min = 0, .max = 10000},
    {"link-jitter", "MS", "and with up to so much more delay each way, by chance", OPT_FLOAT, AT(link_jitter),
     .def = "0", .min = 0, .max = 10000},
    {"link-mbit", "N", "and of this bandwidth in Mbit/s each way; 0: no limit", OPT_FLOAT, AT(link_mbit), .def = "0",
     .min = 0, .max = 1e6},
    {0},
};
#undef AT

struct tunnel {
    char *home;
    struct identity *id; /* NULL: the caller's is used */
    struct link *links[MAX_CLOUDS];
    char link_address[MAX_CLOUDS][32];
    double link_rtt;
    struct middle *middle;
    double lost_at; /* clock of REMOTE_LOST; 0: connected */
};

bool tunnel_wanted(const struct tunnel_opts *o) {
    return o->cloud.n > 0;
}

enum codec tunnel_codec(const struct tunnel_opts *o) {
    if (o->codec)
        return (enum codec)(o->codec - 1);
    return tunnel_wanted(o) ? CODEC_F16 : CODEC_F32;
}

static bool has_link(const struct tunnel_opts *o) {
    return o->link_rtt > 0 || o->link_jitter > 0 || o->link_mbit > 0;
}

int tunnel_check(const struct tunnel_opts *o, struct err *e) {
    bool emulated = has_link(o);
    if (o->cloud.n > MAX_CLOUDS)
        return err_set(e, ERR_USAGE, "--cloud %d times; at most %d", o->cloud.n, MAX_CLOUDS);
    if (!tunnel_wanted(o)) {
        if (o->pin.n || o->trust_first || emulated)
            return err_set(e, ERR_USAGE, "%s goes with --cloud HOST:PORT",
                           o->pin.n         ? "--pin"
                           : o->trust_first ? "--trust-on-first-use"
                                            : "--link-rtt, --link-jitter or --link-mbit");
        return 0;
    }
    if (o->pin.n && o->pin.n != o->cloud.n)
        return err_set(e, ERR_USAGE, "--cloud %d times and --pin %d times: each cloud has its own, in the same order",
                       o->cloud.n, o->pin.n);
    if (emulated && !o->pin.n)
        return err_set(e, ERR_USAGE,
                       "--link-rtt, --link-jitter and --link-mbit need --pin: the link hides the address of the cloud");
    return 0;
}

/* What remote_middle tells, for a person. */
static void on_event(void *ctx, enum remote_event what, const char *text) {
    struct tunnel *t = ctx;
    switch (what) {
    case REMOTE_LOST:
        t->lost_at = clock_ms();
        term_warn("%s", text);
        break;
    case REMOTE_RESUMED:
    case REMOTE_REPLAY:
    case REMOTE_SWITCHED:
        if (t->lost_at > 0)
            term_note("%s; the pause was %.1f s", text, (clock_ms() - t->lost_at) / 1e3);
        else
            term_note("%s", text);
        t->lost_at = 0;
        break;
    case REMOTE_CONNECTED:
    case REMOTE_RETRY:
        log_line(LOG_INFO, "%s", text);
        break;
    }
}

static int on_stop(void *ctx) {
    (void)ctx;
    return interrupt_asked();
}

static int open_link(struct tunnel *t, int i, const struct tunnel_opts *o, struct remote_cloud *c, struct err *e) {
    char host[ADDRESS_HOST];
    struct link_opts lo = {
        .host = host, .rtt_ms = o->link_rtt, .jitter_ms = o->link_jitter, .mbit = o->link_mbit, .seed = 1};
    if (!has_link(o))
        return 0;
    t->link_rtt = o->link_rtt + 2 * o->link_jitter;
    if (address_parse(c->address, host, &lo.port, e) != 0 || link_start(&t->links[i], &lo, e) != 0)
        return -1;
    snprintf(t->link_address[i], sizeof t->link_address[i], "127.0.0.1:%u", link_port(t->links[i]));
    c->address = t->link_address[i];
    return 0;
}

/* clouds[0..n) with id, through links where o asks for them. */
static int connect_clouds(struct tunnel *t, const struct tunnel_opts *o, struct remote_cloud *clouds, int n,
                          const struct identity *id, const struct wire_hello *hello, uint32_t max_rows, struct err *e) {
    for (int i = 0; i < n; i++)
        if (open_link(t, i, o, &clouds[i], e) != 0)
            return -1;
    struct remote_opts ro = {.id = id,
                             .home = t->home,
                             .clouds = clouds,
                             .n_clouds = n,
                             .hello = *hello,
                             .pad_ids = o->pad_rows ? session_pad_ids(o->pad_rows, (int)max_rows) : 0,
                             .max_rows = max_rows,
                             .patience_ms = o->patience ? (uint32_t)o->patience * 1000 : 1,
                             .progress_ms = (uint32_t)o->progress * 1000,
                             .event = on_event,
                             .event_ctx = t,
                             .stop = on_stop};
    return remote_middle_create(&t->middle, &ro, e);
}

int tunnel_open(struct tunnel **out, const struct tunnel_opts *o, const char *home, const struct wire_hello *hello,
                uint32_t max_rows, struct err *e) {
    *out = NULL;
    struct remote_cloud clouds[MAX_CLOUDS] = {0};
    struct tunnel *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory");
    int rc = tunnel_check(o, e);
    if (rc == 0 && !(t->home = home ? strdup(home) : identity_default_home(e)))
        rc = err_set(e, ERR_MEMORY, "out of memory");
    if (rc == 0)
        rc = identity_open(&t->id, t->home, e);
    for (int i = 0; i < o->cloud.n && rc == 0; i++) {
        clouds[i] =
            (struct remote_cloud){.address = o->cloud.p[i], .has_pin = o->pin.n > 0, .trust_first = o->trust_first};
        if (o->pin.n && (rc = pin_parse(&clouds[i].pin, o->pin.p[i], e)) != 0)
            err_wrap(e, "--pin");
    }
    if (rc == 0)
        rc = connect_clouds(t, o, clouds, o->cloud.n, t->id, hello, max_rows, e);
    if (rc != 0) {
        tunnel_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

int tunnel_open_to(struct tunnel **out, const struct tunnel_opts *o, const char *address, const struct pin *pin,
                   const struct identity *id, const struct wire_hello *hello, uint32_t max_rows, struct err *e) {
    *out = NULL;
    struct remote_cloud cloud = {.address = address, .pin = *pin, .has_pin = true};
    struct tunnel *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (connect_clouds(t, o, &cloud, 1, id, hello, max_rows, e) != 0) {
        tunnel_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

void tunnel_close(struct tunnel *t) {
    if (!t)
        return;
    if (t->middle)
        t->middle->ops->free(t->middle);
    if (t->links[0]) /* the goodbye is still on its way through them */
        usleep((useconds_t)(t->link_rtt * 1e3) + 5000);
    for (int i = 0; i < MAX_CLOUDS; i++)
        if (t->links[i])
            link_stop(t->links[i]);
    identity_free(t->id);
    free(t->home);
    free(t);
}

struct middle *tunnel_middle(struct tunnel *t) {
    return t->middle;
}
