#include "core/decode/rounds.h"

#include "core/base/clock.h"
#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

struct rounds {
    struct iteration *of[N_ITERATE_KINDS];
    int room;
    int n_asked;               /* guesses of the last one, of which */
    int *at;                   /* [room]: node of the tree, or -1: it could not be sent */
    uint32_t *said;            /* [room] */
    int *row;                  /* [room]: of a node on the path that the target goes, its row of logits; else 0 */
    struct sample_params draw; /* of the session's last session_sample */
    struct logit_bias bias[SAMPLE_MAX_BIAS];
    uint32_t first_generated; /* position */
};

static const struct iterate_opts *settings(const struct iterate_opts *o, struct iterate_opts *usual) {
    iterate_opts_default(usual);
    return o ? o : usual;
}

int rounds_size(const struct iterate_opts *o, int *nodes) {
    struct iterate_opts usual;
    int depth = 0;
    o = settings(o, &usual);
    for (int k = 0; k < N_ITERATE_KINDS; k++) {
        int n = iterate_nodes((enum iterate_kind)k, o), deep = iterate_depth((enum iterate_kind)k, o);
        *nodes = n > *nodes ? n : *nodes;
        depth = deep > depth ? deep : depth;
    }
    return depth;
}

int rounds_create(struct rounds **out, const struct iterate_opts *o, int room, struct err *e) {
    struct iterate_opts usual;
    struct rounds *r = *out = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_MEMORY, "out of memory");
    o = settings(o, &usual);
    if (iterate_check(o, SESSION_MAX_NODES, e) != 0)
        return -1;
    for (int k = 0; k < N_ITERATE_KINDS; k++)
        if (iteration_create(&r->of[k], (enum iterate_kind)k, o, e) != 0)
            return -1;
    r->room = room;
    r->at = calloc((size_t)room, sizeof *r->at);
    r->said = calloc((size_t)room, sizeof *r->said);
    r->row = calloc((size_t)room, sizeof *r->row);
    if (!r->at || !r->said || !r->row)
        return err_set(e, ERR_MEMORY, "out of memory for %d guesses", room);
    sample_params_default(&r->draw);
    return 0;
}

void rounds_free(struct rounds *r) {
    if (!r)
        return;
    for (int k = 0; k < N_ITERATE_KINDS; k++)
        iteration_free(r->of[k]);
    free(r->at);
    if (r->said)
        wipe_free(r->said, (size_t)r->room * sizeof *r->said);
    free(r->row);
    wipe_free(r, sizeof *r);
}

void rounds_sampled(struct rounds *r, const struct sample_params *p, uint32_t n, uint32_t n_generated) {
    r->draw = *p;
    r->draw.bias = r->bias;
    r->draw.n_bias = p->n_bias < SAMPLE_MAX_BIAS ? p->n_bias : SAMPLE_MAX_BIAS;
    for (int i = 0; i < r->draw.n_bias; i++)
        r->bias[i] = p->bias[i];
    r->first_generated = n_generated < n ? n - n_generated : 0;
}

static struct iteration *iteration_of(const struct session *s) {
    const struct speculation *p = s->spec;
    return p->rounds->of[p->o.mode == SESSION_JACOBI ? ITERATE_JACOBI : ITERATE_LOOKAHEAD];
}

void rounds_grow(struct session *s, bool miss) {
    struct speculation *p = s->spec;
    struct rounds *r = p->rounds;
    double t0 = clock_ms();
    if (!miss)
        return;
    r->n_asked = iteration_guess(iteration_of(s), s->tokens, s->n + 1, p->tree);
    int sent = p->pad.rows && r->n_asked >= p->pad.rows ? p->pad.rows - 1 : r->n_asked;
    speculation_accept(s, 0, sent);
    for (int i = 0; i < r->n_asked; i++)
        r->at[i] = i < sent ? p->map[i] : -1;
    s->stats.draft_ms += clock_ms() - t0;
}

/* What the session would sample behind node at (-1: the head) if the text came to it. Its ancestors stand in s->tokens
 * meanwhile, behind the head. */
static uint32_t sample(struct session *s, int at, const float *logits) {
    const struct speculation *p = s->spec;
    const struct rounds *r = p->rounds;
    uint32_t n = (at < 0 ? p->head.pos : p->guess[at].pos) + 1;
    for (int i = at; i >= 0; i = p->tree[i].parent)
        s->tokens[p->guess[i].pos] = p->tree[i].token;
    uint32_t generated = n > r->first_generated ? n - r->first_generated : 0;
    uint32_t token = sampler_pick(s->sampler, &r->draw, logits, s->tokens, (int)n, (int)generated, n);
    wipe(s->tokens + s->n + 1, (n - s->n - 1) * sizeof *s->tokens);
    return token;
}

/* Every row, in passes of max_batch: each gets its token, and those that the text will come to if it is sampled as it
 * was keep their logits. token: behind the head; by_node: behind each node. */
static int pass_all(struct session *s, uint32_t *by_node, struct err *e) {
    struct speculation *p = s->spec;
    int *row = p->rounds->row, kept = BACK_ROWS;
    size_t vocab = (size_t)s->config->vocab;
    uint32_t behind_head = 0;
    for (int from = -1; from < p->n; from += p->max_batch) {
        struct guess *g[BACK_ROWS];
        int n = 0;
        for (; n < p->max_batch && from + n < p->n; n++)
            g[n] = from + n < 0 ? &p->head : &p->guess[from + n];
        if (speculation_back(s, g, n, e) != 0)
            return -1;
        double t0 = clock_ms();
        for (int i = 0; i < n; i++) {
            int at = from + i, up = at < 0 ? -1 : p->tree[at].parent;
            const float *logits = p->logits + (size_t)i * vocab;
            uint32_t token = sample(s, at, logits);
            bool on_path = at < 0 || (p->tree[at].token == (up < 0 ? behind_head : by_node[up]) && (up < 0 || row[up]));
            if (at < 0)
                behind_head = token;
            else
                by_node[at] = token;
            if (at >= 0)
                row[at] = 0;
            if (!on_path || kept == p->n_logits)
                continue;
            memcpy(p->logits + (size_t)kept * vocab, logits, vocab * sizeof *logits);
            g[i]->state = DONE;
            g[i]->row = kept;
            if (at >= 0)
                row[at] = kept;
            kept++;
        }
        s->stats.draft_ms += clock_ms() - t0;
    }
    return 0;
}

int rounds_finish(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    struct rounds *r = p->rounds;
    uint32_t *by_node = p->tokens; /* what was sent from there is on its way */
    if (speculation_await_all(s, e) != 0 || pass_all(s, by_node, e) != 0)
        return -1;
    for (int i = 0; i < r->n_asked; i++)
        r->said[i] = r->at[i] < 0 ? ITERATE_UNKNOWN : by_node[r->at[i]];
    iteration_said(iteration_of(s), r->said, r->n_asked);
    return 0;
}
