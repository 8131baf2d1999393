#include "cmd/bench/law.h"

#include <math.h>
#include <stddef.h>

double law_tok_s(double miss_rate, double miss_ms, double hit_ms) {
    double ms = miss_rate * miss_ms + (1 - miss_rate) * hit_ms;
    return ms > 0 ? 1e3 / ms : NAN;
}

struct law_fit law_fit(const struct law_point *p, int n, int skip, bool adapts) {
    struct law_fit f = {.fixed_ms = NAN, .at_ms = NAN};
    double w = 0, x = 0, y = 0, xx = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        if (i == skip || !(p[i].step_ms > 0) || !(p[i].rtt_ms > 0))
            continue;
        double weight = 1 / (p[i].step_ms * p[i].step_ms), at = log2(p[i].rtt_ms), fixed = p[i].step_ms - p[i].rtt_ms;
        w += weight;
        x += weight * at;
        y += weight * fixed;
        xx += weight * at * at;
        xy += weight * at * fixed;
        f.n++;
    }
    if (f.n == 0)
        return f;
    double spread = xx - x * x / w;
    if (adapts && spread > 1e-9 * xx)
        f.growth_ms = (xy - x * y / w) / spread;
    f.fixed_ms = y / w;
    f.at_ms = exp2(x / w);
    return f;
}

double law_fit_step_ms(const struct law_fit *f, double rtt_ms) {
    return rtt_ms + f->fixed_ms + (f->growth_ms != 0 ? f->growth_ms * log2(rtt_ms / f->at_ms) : 0);
}

double law_cross_validate(const struct law_point *p, int n, bool adapts, double *error) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        struct law_fit f = law_fit(p, n, i, adapts);
        double x = law_fit_step_ms(&f, p[i].rtt_ms) / p[i].step_ms - 1;
        if (error)
            error[i] = x;
        sum += fabs(x);
    }
    return n >= 2 ? sum / n : NAN;
}

static struct law_point blend(const struct law_point *a, const struct law_point *b, double w) {
    return (struct law_point){.tokens_per_step = a->tokens_per_step + w * (b->tokens_per_step - a->tokens_per_step),
                              .miss_rate = a->miss_rate + w * (b->miss_rate - a->miss_rate),
                              .miss_ms = a->miss_ms + w * (b->miss_ms - a->miss_ms),
                              .hit_ms = a->hit_ms + w * (b->hit_ms - a->hit_ms)};
}

struct law_point law_point_at(const struct law_point *p, int n, bool adapts, double rtt_ms) {
    const struct law_point *below = NULL, *above = NULL;
    struct law_point at = {.tokens_per_step = NAN, .miss_rate = NAN, .miss_ms = NAN, .hit_ms = NAN};
    for (int i = 0; i < n; i++) {
        if (!adapts)
            at = i == 0 ? p[0] : blend(&at, &p[i], 1 / (double)(i + 1));
        if (p[i].rtt_ms <= rtt_ms && (!below || p[i].rtt_ms > below->rtt_ms))
            below = &p[i];
        if (p[i].rtt_ms >= rtt_ms && (!above || p[i].rtt_ms < above->rtt_ms))
            above = &p[i];
    }
    below = below ? below : above;
    above = above ? above : below;
    if (adapts && below && above) {
        bool same = !(above->rtt_ms > below->rtt_ms);
        at = blend(below, above, same ? 0 : log2(rtt_ms / below->rtt_ms) / log2(above->rtt_ms / below->rtt_ms));
    }
    at.rtt_ms = rtt_ms;
    at.step_ms = NAN;
    return at;
}
