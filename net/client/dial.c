#include "net/client/dial.h"

#include "core/base/log.h"
#include "core/base/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a SUBMIT of one node beside its activation, and a little more. */
enum { SUBMIT_SPARE = 64 };

struct target {
    char address[DIAL_ADDRESS];
    struct pin pin;
    bool has_pin;    /* pin is what this cloud has to show */
    bool remembered; /* it comes from home, not from the command line */
    bool trust_first;
    uint8_t token[WIRE_TOKEN];
};

struct dial {
    struct tls_config *tls;
    const char *home;
    struct wire_hello hello;
    struct target *targets;
    int n;
};

enum dial_verdict dial_verdict_of(int code) {
    switch (code) {
    case WIRE_E_VERSION:
    case WIRE_E_MODEL:
    case WIRE_E_SPLIT:
    case WIRE_E_WEIGHTS:
    case WIRE_E_CODEC:
    case WIRE_E_TOO_LARGE:
    case WIRE_E_TAKEN_OVER:
        return DIAL_NEVER;
    case WIRE_E_FULL:
    case WIRE_E_DRAINING:
        return DIAL_ELSEWHERE;
    default:
        return DIAL_AGAIN;
    }
}

int dial_create(struct dial **out, const struct remote_opts *o, struct err *e) {
    *out = NULL;
    if (o->n_clouds < 1)
        return err_set(e, ERR_USAGE, "no cloud is named: --cloud HOST:PORT");
    struct dial *d = calloc(1, sizeof *d);
    if (d)
        d->targets = calloc((size_t)o->n_clouds, sizeof *d->targets);
    if (!d || !d->targets) {
        dial_free(d);
        return err_set(e, ERR_MEMORY, "out of memory");
    }
    d->home = o->home;
    d->hello = o->hello;
    d->n = o->n_clouds;
    for (int i = 0; i < d->n; i++) {
        const struct remote_cloud *c = &o->clouds[i];
        struct target *t = &d->targets[i];
        char host[ADDRESS_HOST];
        uint16_t port;
        if (address_parse(c->address, host, &port, e) != 0)
            goto fail;
        snprintf(t->address, sizeof t->address, "%s", c->address);
        t->pin = c->pin;
        t->has_pin = c->has_pin;
        t->trust_first = c->trust_first;
    }
    if (tls_config_create(&d->tls, false, o->id, e) != 0)
        goto fail;
    *out = d;
    return 0;
fail:
    dial_free(d);
    return -1;
}

void dial_free(struct dial *d) {
    if (!d)
        return;
    tls_config_free(d->tls);
    wipe_free(d->targets, d->targets ? (size_t)d->n * sizeof *d->targets : 0);
    wipe_free(d, sizeof *d);
}

int dial_count(const struct dial *d) {
    return d->n;
}

const char *dial_address(const struct dial *d, int i) {
    return d->targets[i].address;
}

void dial_forget(struct dial *d, int i) {
    wipe(d->targets[i].token, sizeof d->targets[i].token);
}

/* ---- pins ---- */

/* Finds out which pin the cloud has to show, before anything is sent to it. */
static int settle_pin(struct dial *d, struct target *t, struct err *e) {
    if (t->has_pin)
        return 0;
    bool found = false;
    if (d->home && known_cloud_find(d->home, t->address, &t->pin, &found, e) != 0)
        return -1;
    t->has_pin = t->remembered = found;
    if (!found && !t->trust_first)
        return err_set(e, ERR_CRYPTO,
                       "nothing is known of the cloud %s: give its pin with --pin (splitinf identity prints it there), "
                       "or take the one that it shows with --trust-on-first-use",
                       t->address);
    if (!found && !d->home)
        return err_set(e, ERR_USAGE, "the pin of %s cannot be remembered without a home directory; give it with --pin",
                       t->address);
    return 0;
}

struct meeting {
    const struct target *t;
    struct pin shown;
    bool asked, refused;
};

static bool accept_pin(void *ctx, const struct pin *pin) {
    struct meeting *m = ctx;
    m->asked = true;
    m->shown = *pin;
    m->refused = m->t->has_pin && !pin_equal(&m->t->pin, pin);
    return !m->refused;
}

static int wrong_pin(const struct dial *d, const struct meeting *m, struct err *e) {
    char want[PIN_TEXT], got[PIN_TEXT];
    pin_format(&m->t->pin, want);
    pin_format(&m->shown, got);
    *e = (struct err){0};
    if (m->t->remembered)
        return err_set(e, ERR_CRYPTO,
                       "THE KEY OF THE CLOUD %s HAS CHANGED: it was %s, now it is %s. Somebody may be in between. If "
                       "splitinf identity prints the new pin on that cloud, take its line out of %s/known_clouds",
                       m->t->address, want, got, d->home);
    return err_set(
        e, ERR_CRYPTO,
        "THE CLOUD %s SHOWS ANOTHER KEY: --pin says %s, its pin is %s. Somebody may be in between. If splitinf "
        "identity prints that pin on that cloud, give it with --pin",
        m->t->address, want, got);
}

/* The pin that was shown belongs to this address from now on. */
static int remember_pin(struct dial *d, struct target *t, const struct meeting *m, struct err *e) {
    if (t->has_pin)
        return 0;
    if (known_cloud_add(d->home, t->address, &m->shown, e) != 0)
        return -1;
    t->pin = m->shown;
    t->has_pin = t->remembered = true;
    return 0;
}

/* ---- a try ---- */

/* Can a session live with these limits? */
static int check_welcome(const struct dial *d, const struct wire_welcome *m, struct err *e) {
    size_t row = codec_row_bytes((enum codec)d->hello.codec, (int)d->hello.hidden);
    if (m->max_frame < row + SUBMIT_SPARE)
        return err_set(e, ERR_PEER, "its frames of at most %u bytes have no room for an activation of %zu",
                       m->max_frame, row);
    if (m->len > d->hello.ctx)
        return err_set(e, ERR_PEER, "it speaks of %u positions in a context of %u", m->len, d->hello.ctx);
    return 0;
}

static enum dial_verdict verdict(const struct err *e, int code, bool refused) {
    if (e->kind == ERR_NONE)
        return DIAL_STOPPED;
    if (code != 0)
        return dial_verdict_of(code);
    /* A refused key, on either side, is the matter of people; so are usage and memory. */
    return refused || (e->kind != ERR_IO && e->kind != ERR_PEER) ? DIAL_NEVER : DIAL_AGAIN;
}

enum dial_verdict dial_try(struct dial *d, int i, const struct address_wait *w, struct channel **out,
                           struct wire_welcome *m, struct err *e) {
    struct target *t = &d->targets[i];
    struct meeting meeting = {.t = t};
    struct channel *c = NULL;
    struct err why = {0};
    int code = 0;
    *out = NULL;
    memcpy(d->hello.token, t->token, sizeof t->token);
    if (settle_pin(d, t, e) != 0)
        return DIAL_NEVER;
    if (channel_connect(&c, t->address, d->tls, accept_pin, &meeting, w, &why) == 0 &&
        channel_greet(c, &d->hello, w, m, &code, &why) == 0 && check_welcome(d, m, &why) == 0 &&
        remember_pin(d, t, &meeting, &why) == 0) {
        memcpy(t->token, m->token, sizeof t->token);
        *out = c;
        return DIAL_DONE;
    }
    channel_free(c, false);
    if (meeting.refused)
        wrong_pin(d, &meeting, &why);
    else if (code != 0)
        err_wrap(&why, "the cloud %s refuses", t->address);
    else if (!strstr(why.msg, t->address))
        err_wrap(&why, "the cloud %s", t->address);
    enum dial_verdict v = verdict(&why, code, meeting.refused);
    if (v != DIAL_STOPPED)
        err_set(e, why.kind, "%s", why.msg);
    return v;
}
