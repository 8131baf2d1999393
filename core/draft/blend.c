#include "core/draft/blend.h"

#include <math.h>
#include <string.h>

/* What is offered is corrected by CAME_MAX at most. A share starts as if it had seen so many contexts, and is never
 * quite 0 or 1. */
static const float START_N = 40.0f, START_CAME = 150.0f, DOUBT_N = 6.0f, DOUBT_CAME = 20.0f, CAME_MAX = 3.0f,
                   SHARE_MIN = 0.002f, SHARE_MAX = 0.995f;

int blend_bucket(uint32_t total, int n) {
    int seen = 0, kinds = n <= 1 ? 0 : n == 2 ? 1 : n <= 4 ? 2 : 3;
    static const uint32_t steps[] = {2, 3, 5, 10, 30, 100, 1000};
    while (seen < 7 && total >= steps[seen])
        seen++;
    return seen * 4 + kinds;
}

static float share_value(const struct blend_share *s) {
    float x = s->hit / s->n;
    return x < SHARE_MIN ? SHARE_MIN : x > SHARE_MAX ? SHARE_MAX : x;
}

static struct blend_cand *cand_at(struct blend_room *r, uint32_t token) {
    uint32_t h = token * 0x9e3779b1u >> 21;
    for (;; h = (h + 1) % BLEND_HASH) {
        if (r->hash[h] == 0) {
            if (r->n == BLEND_CANDIDATES)
                return NULL;
            struct blend_cand *c = &r->cand[r->n++];
            *c = (struct blend_cand){.token = token};
            r->hash[h] = (uint16_t)r->n;
            return c;
        }
        if (r->cand[r->hash[h] - 1].token == token)
            return &r->cand[r->hash[h] - 1];
    }
}

void blend_begin(struct blend_room *room) {
    memset(room->hash, 0, sizeof room->hash);
    room->n = 0;
    room->left = 1;
}

void blend_add(const struct blend_shares *w, const struct blend_view *v, struct blend_room *room, float skip,
               bool sorted) {
    float part = room->left * share_value(&w->at[v->expert][v->bucket]);
    room->left -= part;
    for (int k = 0; k < v->n; k++) {
        float p = part * (float)v->s[k].count / v->sum;
        if (p < skip) {
            if (sorted)
                return;
            continue;
        }
        struct blend_cand *c = cand_at(room, v->s[k].token);
        if (!c)
            continue;
        c->p += p;
        if (p > c->best) {
            c->best = p;
            c->source = (uint8_t)v->source;
        }
    }
}

static bool is_before(const struct blend_cand *a, const struct draft_candidate *b) {
    return a->p > b->p || (a->p == b->p && a->token < b->token); /* so that the order is always the same */
}

int blend_end(const struct blend_room *room, struct draft_candidate *out, int cap, float least) {
    int n = 0;
    for (int i = 0; cap > 0 && i < room->n; i++) {
        const struct blend_cand *c = &room->cand[i];
        if (c->p < least || (n == cap && !is_before(c, &out[n - 1])))
            continue;
        int at = n < cap ? n++ : n - 1;
        for (; at > 0 && is_before(c, &out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = (struct draft_candidate){.token = c->token, .p = c->p, .source = c->source};
    }
    return n;
}

void blend_learn(struct blend_shares *w, const struct blend_view *v, int n_views, uint32_t truth, float floor,
                 float memory) {
    float p = floor;
    for (int i = 0; i < n_views; i++) {
        struct blend_share *s = &w->at[v[i].expert][v[i].bucket];
        float q = 0, x = share_value(s);
        for (int k = 0; k < v[i].n; k++)
            if (v[i].s[k].token == truth)
                q = (float)v[i].s[k].count / v[i].sum;
        float mixed = x * q + (1 - x) * p;
        s->hit += x * q / mixed;
        s->n += 1;
        if (s->n > memory) {
            s->hit *= 0.5f;
            s->n *= 0.5f;
        }
        p = mixed;
    }
}

static int bin_of(float p) {
    int e;
    frexpf(p, &e); /* p = f * 2^e, f from 1/2 on */
    return e > 0 ? 0 : -e < BLEND_BINS ? -e : BLEND_BINS - 1;
}

void blend_came(struct blend_shares *w, const struct draft_candidate *c, int n, uint32_t truth, float memory) {
    for (int i = 0; i < n; i++) {
        struct blend_share *s = &w->came[c[i].source][bin_of(c[i].p)];
        s->hit += c[i].token == truth;
        s->n += c[i].p;
        if (s->n > memory) {
            s->hit *= 0.5f;
            s->n *= 0.5f;
        }
    }
}

void blend_calibrate(const struct blend_shares *w, struct draft_candidate *c, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) {
        const struct blend_share *s = &w->came[c[i].source][bin_of(c[i].p)];
        struct draft_candidate x = c[i];
        int at = i;
        x.p *= s->hit / s->n;
        sum += x.p;
        for (; at > 0 && c[at - 1].p < x.p; at--)
            c[at] = c[at - 1];
        c[at] = x;
    }
    for (int i = 0; sum > 1 && i < n; i++)
        c[i].p /= sum;
}

void blend_start_with(struct blend_shares *w, bool store) {
    for (int x = 0; x < BLEND_EXPERTS; x++)
        for (int b = 0; b < BLEND_BUCKETS; b++)
            w->at[x][b] = (struct blend_share){START_N * (float)blend_start[store][x][b] / 255, START_N};
    for (int i = 0; i < N_DRAFT_SOURCES; i++)
        for (int b = 0; b < BLEND_BINS; b++)
            w->came[i][b] = (struct blend_share){.hit = START_CAME, .n = START_CAME};
}

static void doubt(struct blend_share *s, float n) {
    s->hit *= s->n > n ? n / s->n : 1;
    s->n = s->n > n ? n : s->n;
}

void blend_doubt(struct blend_shares *w, int expert, enum draft_source source) {
    for (int b = 0; b < BLEND_BUCKETS; b++)
        doubt(&w->at[expert][b], DOUBT_N);
    for (int b = 0; b < BLEND_BINS; b++)
        doubt(&w->came[source][b], DOUBT_CAME);
}

void blend_sanitise(struct blend_shares *w) {
    for (int e = 0; e < BLEND_EXPERTS; e++) {
        for (int b = 0; b < BLEND_BUCKETS; b++) {
            struct blend_share *s = &w->at[e][b];
            if (!(s->n >= 1 && s->n <= 2 * BLEND_MEMORY && s->hit >= 0 && s->hit <= s->n))
                *s = (struct blend_share){.hit = 1, .n = 5};
        }
    }
    for (int i = 0; i < N_DRAFT_SOURCES; i++) {
        for (int b = 0; b < BLEND_BINS; b++) {
            struct blend_share *s = &w->came[i][b];
            if (!(s->n >= 1 && s->n <= 2 * BLEND_MEMORY && s->hit >= s->n / CAME_MAX && s->hit <= s->n * CAME_MAX))
                *s = (struct blend_share){.hit = START_CAME, .n = START_CAME};
        }
    }
}
