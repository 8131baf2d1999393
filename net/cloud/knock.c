#include "net/cloud/knock.h"

#include <string.h>

void knock_init(struct knock *k, struct knock_rate each, struct knock_rate all) {
    *k = (struct knock){.each = each, .all = all, .left = all.burst};
}

static double refilled(const struct knock_rate *r, double left, double at, double now) {
    left += (now - at) / 1e3 * r->per_s;
    return left < r->burst ? left : r->burst;
}

/* The place of the address. Where there is none left, the one that has nearly its whole burst back says least; places
 * of strangers go before those of who is allowed. */
static struct knock_place *place_of(struct knock *k, const struct peer_address *a, double now) {
    struct knock_place *best = NULL;
    for (int i = 0; i < KNOCK_PLACES; i++) {
        struct knock_place *p = &k->places[i];
        if (p->at == 0) {
            best = !best || best->at != 0 ? p : best;
            continue;
        }
        if (peer_address_equal(&p->address, a))
            return p;
        if (best && best->at == 0)
            continue;
        if (!best || p->good < best->good ||
            (p->good == best->good &&
             refilled(&k->each, p->left, p->at, now) > refilled(&k->each, best->left, best->at, now)))
            best = p;
    }
    *best = (struct knock_place){.address = *a, .left = k->each.burst, .at = now};
    return best;
}

bool knock_take(struct knock *k, const struct peer_address *a, double now_ms) {
    struct knock_place *p = place_of(k, a, now_ms);
    p->left = refilled(&k->each, p->left, p->at, now_ms);
    p->at = now_ms;
    k->left = refilled(&k->all, k->left, k->at, now_ms);
    k->at = now_ms;
    bool limits_all = k->all.per_s > 0 && !p->good;
    if ((k->each.per_s > 0 && p->left < 1) || (limits_all && k->left < 1))
        return false;
    p->left -= 1;
    if (limits_all)
        k->left -= 1;
    return true;
}

void knock_give_back(struct knock *k, const struct peer_address *a, double now_ms) {
    struct knock_place *p = place_of(k, a, now_ms);
    p->left += 1;
    if (!p->good)
        k->left += 1;
    p->good = true;
}

bool knock_is_good(const struct knock *k, const struct peer_address *a) {
    for (int i = 0; i < KNOCK_PLACES; i++)
        if (k->places[i].at != 0 && peer_address_equal(&k->places[i].address, a))
            return k->places[i].good;
    return false;
}
