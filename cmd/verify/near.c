/* Where the cloud and this machine compute with unlike backends, whose bits cannot be equal: how far are they apart? */
#include "cmd/interrupt.h"
#include "cmd/verify/verify.h"

#include <math.h>

static double distance(const float *split, const float *alone, int n) {
    double diff = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        double d = (double)split[i] - (double)alone[i];
        diff += d * d;
        norm += (double)alone[i] * (double)alone[i];
    }
    return diff == 0 ? 0 : sqrt(diff) / sqrt(norm);
}

int verify_near(struct session *alone, struct session *split, const struct ids *prompt, int n_tokens, int vocab,
                double most, struct near_report *r, struct err *e) {
    struct sample_params greedy;
    sample_params_default(&greedy);
    *r = (struct near_report){.at = -1};
    session_reset(alone);
    session_reset(split);
    if (session_feed(alone, prompt->p, (uint32_t)prompt->n, NULL, NULL, e) != 0 ||
        session_feed(split, prompt->p, (uint32_t)prompt->n, NULL, NULL, e) != 0)
        return -1;
    for (int i = 0; i < n_tokens; i++) {
        uint32_t token;
        double d = distance(session_logits(split), session_logits(alone), vocab);
        if (!(d <= r->worst) && !isnan(r->worst))
            r->worst = d;
        if (r->at < 0 && !(d <= most))
            r->at = i;
        if (interrupt_asked())
            return err_set(e, ERR_IO, "stopped");
        if (i + 1 < n_tokens && (session_sample(alone, &greedy, (uint32_t)i, &token, e) != 0 ||
                                 session_advance(alone, token, e) != 0 || session_advance(split, token, e) != 0))
            return -1;
    }
    return 0;
}
