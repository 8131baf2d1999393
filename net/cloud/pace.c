#include "net/cloud/pace.h"

/* Where rows are nearly free (weights are read anyway), every pass takes a few more of them. Where they are not, passes
 * without any put time by until a whole chunk is worth it: one chunk of four rows costs no more than one of two. */
static const double SMOOTH = 0.25, LEARN = 0.2;
/* A pass without decode rows makes those wait who come meanwhile. */
static const double IDLE_PART = 0.75;
enum { WORTH = 8, LEAST = 4, TRY_MORE = 8, TRY_NONE = 32 };
/* A pass for prefill alone: its time, its least rows (fewer would read weights too often), and the first one's. */
static const double ALONE_MS = 1000;
enum { ALONE_LEAST = 16, ALONE_FIRST = 64 };

static double at(const struct pace *p, int n) {
    int below = -1, above = -1;
    for (int i = 0; i < PACE_STEPS; i++) {
        if (p->ms[i] <= 0)
            continue;
        if (1 << i <= n)
            below = i;
        else if (above < 0)
            above = i;
    }
    if (below < 0)
        return above < 0 ? 0 : p->ms[above];
    if (above < 0)
        return p->ms[below] * n / (double)(1 << below);
    double w = (double)(n - (1 << below)) / (double)((1 << above) - (1 << below));
    return p->ms[below] + w * (p->ms[above] - p->ms[below]);
}

double pace_ms(const struct pace *p, int n) {
    return at(p, n);
}

void pace_learn(struct pace *p, int n, int n_decode, double ms) {
    int i = 0;
    n = n < 1 << (PACE_STEPS - 1) ? n : 1 << (PACE_STEPS - 1);
    while (i + 2 < PACE_STEPS && 2 << i <= n)
        i++;
    double w = (double)(n - (1 << i)) / (double)(1 << i); /* n lies between steps i and i + 1 */
    if (p->ms[i] <= 0)
        p->ms[i] = at(p, 1 << i) > 0 && at(p, 1 << i) < ms ? at(p, 1 << i) : ms;
    if (w > 0 && p->ms[i + 1] <= 0)
        p->ms[i + 1] = ms * 2 / (1 + w);
    /* One step of least squares on the two ends. */
    double miss = ms - at(p, n), norm = (1 - w) * (1 - w) + w * w;
    p->ms[i] += LEARN * miss * (1 - w) / norm;
    if (w > 0)
        p->ms[i + 1] += LEARN * miss * w / norm;
    if (p->ms[i] < 1e-6)
        p->ms[i] = 1e-6;
    if (p->ms[i + 1] > 0 && p->ms[i + 1] < p->ms[i])
        p->ms[i + 1] = p->ms[i]; /* more rows never take less */
    if (n_decode > 0)
        p->decode_rows += (p->decode_rows > 0 ? LEARN : 1) * (n_decode - p->decode_rows);
}

/* The most rows that take no longer than limit together with n_decode. */
static int fitting(const struct pace *p, int n_decode, int room, double limit) {
    int lo = 0, hi = room;
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        if (at(p, n_decode + mid) <= limit)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

static int at_least(int n, int least, int room) {
    n = n < least ? least : n;
    return n < room ? n : room;
}

int pace_prefill(struct pace *p, int n_decode, int room) {
    p->asked++;
    if (n_decode == 0) {
        int typical = (int)(p->decode_rows + 0.5);
        return at_least(fitting(p, 0, room, IDLE_PART * at(p, typical > 0 ? typical : 1)), LEAST, room);
    }
    double alone = at(p, n_decode);
    if (alone == 0)
        return at_least(0, LEAST, room);
    p->credit_ms += PACE_SHARE * alone;
    if (p->credit_ms > alone)
        p->credit_ms = alone;
    if (p->asked % TRY_NONE == 0)
        return 0; /* how long do they take alone? */
    int n = fitting(p, n_decode, room, alone * (1 + SMOOTH));
    if (n >= WORTH) {
        if (p->asked % TRY_MORE == 0)
            n = at_least(n, n + n / 4, room); /* what is not tried is not learned */
    } else if (p->credit_ms >= alone) {
        n = at_least(fitting(p, n_decode, room, 2 * alone), LEAST, room);
    } else {
        return 0;
    }
    p->credit_ms -= at(p, n_decode + n) - alone;
    return n;
}

int pace_alone(const struct pace *p, int room) {
    bool known = at(p, 1) > 0;
    return at_least(known ? fitting(p, 0, room, ALONE_MS) : 0, known ? ALONE_LEAST : ALONE_FIRST, room);
}
