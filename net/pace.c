#include "net/pace.h"

/* A mixed pass may take this much longer than the decode rows alone. A pass without decode rows makes those wait who
 * come meanwhile, so it may take only as long as theirs. */
static const double MIXED_FACTOR = 1.25, LEARN = 0.2;
enum { MIN_PREFILL = 2, TRY_MORE = 8, TRY_NONE = 32 };

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

int pace_prefill(struct pace *p, int n_decode, int room) {
    int base = n_decode ? n_decode : (int)(p->decode_rows + 0.5);
    double limit = at(p, base > 0 ? base : 1) * (n_decode ? MIXED_FACTOR : 1);
    int lo = 0, hi = room; /* the most rows within the limit */
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        if (at(p, n_decode + mid) <= limit)
            lo = mid;
        else
            hi = mid - 1;
    }
    p->mixed++;
    if (n_decode && p->mixed % TRY_NONE == 0)
        return 0; /* how long do they take alone? */
    if (p->mixed % TRY_MORE == 0)
        lo += lo / 4 + 1;
    if (lo < MIN_PREFILL)
        lo = MIN_PREFILL;
    return lo < room ? lo : room;
}
