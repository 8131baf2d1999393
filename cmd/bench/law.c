#include "cmd/bench/law.h"

#include <math.h>

double law_tok_s(double miss_rate, double miss_ms, double hit_ms) {
    double ms = miss_rate * miss_ms + (1 - miss_rate) * hit_ms;
    return ms > 0 ? 1e3 / ms : NAN;
}

struct law_fit law_fit(const struct law_point *p, int n, int skip) {
    struct law_fit f = {.fixed_ms = NAN, .tokens_per_step = NAN};
    double sum = 0, weights = 0, tokens = 0;
    for (int i = 0; i < n; i++) {
        if (i == skip || !(p[i].step_ms > 0))
            continue;
        double w = 1 / (p[i].step_ms * p[i].step_ms);
        sum += w * (p[i].step_ms - p[i].rtt_ms);
        weights += w;
        tokens += p[i].tokens_per_step;
        f.n++;
    }
    if (f.n) {
        f.fixed_ms = sum / weights;
        f.tokens_per_step = tokens / f.n;
    }
    return f;
}

double law_fit_tok_s(const struct law_fit *f, double rtt_ms) {
    double ms = rtt_ms + f->fixed_ms;
    return ms > 0 ? 1e3 * f->tokens_per_step / ms : NAN;
}

double law_cross_validate(const struct law_point *p, int n, double *error) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        struct law_fit f = law_fit(p, n, i);
        double x = (p[i].rtt_ms + f.fixed_ms) / p[i].step_ms - 1;
        if (error)
            error[i] = x;
        sum += fabs(x);
    }
    return n >= 2 ? sum / n : NAN;
}
