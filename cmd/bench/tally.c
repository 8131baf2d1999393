#include "cmd/bench/tally.h"

#include "cmd/bench/law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int push(struct bench_times *t, double ms, struct err *e) {
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 256;
        double *more = realloc(t->ms, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_MEMORY, "out of memory for measurements");
        t->ms = more;
        t->cap = cap;
    }
    t->ms[t->n++] = ms;
    return 0;
}

/* Time that one position takes at the link's rate. */
static double row_wire_ms(const struct bench_path *p) {
    return p->mbit > 0 ? p->row_bytes * 8 / (p->mbit * 1e3) : 0;
}

int bench_tally_token(struct bench_tally *t, const struct bench_token *k, const struct bench_path *p, struct err *e) {
    const struct session_stats *a = k->before, *b = k->after;
    double front = b->front_ms - a->front_ms, wait = b->middle_ms - a->middle_ms,
           awaited = b->awaited_ms - a->awaited_ms;
    double back = b->back_ms - a->back_ms + b->head_ms - a->head_ms;
    bool miss = b->steps > a->steps;
    double rows = (double)(b->nodes_sent - a->nodes_sent) + miss,
           pass = t->steps ? t->step_cloud / (double)t->steps : 0;
    t->tokens++;
    t->ms += k->ms;
    t->front += front;
    t->back += back;
    t->draft += b->draft_ms - a->draft_ms;
    t->cloud += b->cloud_ms - a->cloud_ms;
    t->rows += rows;
    if (!miss && (b->late == a->late || wait < (p->rtt_ms + pass) / 2)) {
        t->hit_ms += k->ms - wait;
        return 0;
    }
    /* Up go all rows of its window, unless those that were wanted less went in others behind it; down comes its own row
     * first, with a few others. */
    double up = p->whole ? rows : 1, down = p->whole && p->first_rows > 1 ? fmin(rows, p->first_rows) : 1;
    double wire = (up + down) * row_wire_ms(p), more = wait - p->rtt_ms - wire - awaited;
    /* Windows that went out behind the first were computed while that was on its way. */
    double beside = more < 0 ? (-more < front ? -more : front) : 0;
    t->steps++;
    t->step_cloud += awaited;
    t->step_rows += up + down;
    t->step_wire += wire;
    t->step_model += front - beside + back;
    if (!miss)
        return 0;
    double local = k->ms - front - wait - back, own = local + (more > 0 ? more : 0);
    return push(&t->over, own, e) != 0 || push(&t->here, fmin(own, local + k->transport_ms), e) != 0 ? -1 : 0;
}

int bench_tally_add(struct bench_tally *t, const struct bench_tally *more, struct err *e) {
    t->tokens += more->tokens;
    t->steps += more->steps;
    t->ms += more->ms;
    t->front += more->front;
    t->back += more->back;
    t->draft += more->draft;
    t->hit_ms += more->hit_ms;
    t->rows += more->rows;
    t->cloud += more->cloud;
    t->step_model += more->step_model;
    t->step_cloud += more->step_cloud;
    t->step_wire += more->step_wire;
    t->step_rows += more->step_rows;
    t->bytes_up += more->bytes_up;
    t->bytes_down += more->bytes_down;
    for (int i = 0; i < more->over.n; i++)
        if (push(&t->over, more->over.ms[i], e) != 0 || push(&t->here, more->here.ms[i], e) != 0)
            return -1;
    return 0;
}

void bench_tally_free(struct bench_tally *t) {
    free(t->over.ms);
    free(t->here.ms);
    *t = (struct bench_tally){0};
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct bench_times *t) {
    double *v = t->ms;
    int n = t->n;
    if (n == 0)
        return NAN;
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

double bench_tally_miss_ms(struct bench_tally *t) {
    double own = median(&t->over);
    return t->steps ? (t->step_model + t->step_cloud + t->step_wire) / (double)t->steps + (own > 0 ? own : 0) : NAN;
}

double bench_tally_hit_ms(const struct bench_tally *t, const struct bench_path *p) {
    double hits = (double)(t->tokens - t->steps), all = (double)t->tokens;
    double local = hits > 0 ? t->hit_ms / hits : 0;
    /* Nothing is under way between the steps of those that stop and wait. */
    double link = p->whole ? 0 : row_wire_ms(p) * t->rows / all, cloud = p->whole ? 0 : t->cloud / all;
    double most = link > cloud ? link : cloud;
    return local > most ? local : most;
}

void bench_tally_row(struct bench_tally *t, const struct bench_path *p, struct bench_row *r) {
    double n = (double)t->steps;
    r->tokens = t->tokens;
    r->steps = t->steps;
    r->bytes_up = t->bytes_up;
    r->bytes_down = t->bytes_down;
    r->overhead_ms = median(&t->over);
    r->overhead_here_ms = median(&t->here);
    if (t->steps == 0 || t->ms <= 0)
        return;
    r->tok_s = (double)t->tokens * 1e3 / t->ms;
    r->predicted_tok_s = law_tok_s(n / (double)t->tokens, p->rtt_ms + bench_tally_miss_ms(t), bench_tally_hit_ms(t, p));
    struct bench_step *s = &r->step;
    s->all = t->ms / n;
    s->rtt = p->rtt_ms + t->step_wire / n;
    s->cloud = t->step_cloud / n;
    s->front = t->front / n;
    s->back = t->back / n;
    s->serialise = p->row_ms * t->step_rows / n;
    s->draft = t->draft / n;
    double known = s->rtt + s->cloud + s->front + s->back + s->serialise + s->draft;
    s->wait = s->all > known ? s->all - known : 0;
}
