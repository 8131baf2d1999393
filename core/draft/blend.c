#include "core/draft/blend.h"

#include <math.h>
#include <string.h>

/* A share starts as if it had seen so many contexts, and is never quite 0 or 1. */
static const float START_N = 40.0f, SHARE_MIN = 0.002f, SHARE_MAX = 0.995f;

int blend_bucket(uint32_t total, int n) {
    int seen = 0, kinds = n <= 1 ? 0 : n == 2 ? 1 : n <= 4 ? 2 : 3;
    static const uint32_t steps[] = {2, 3, 5, 10, 30, 100, 1000};
    while (seen < 7 && total >= steps[seen])
        seen++;
    return seen * 4 + kinds;
}

static struct blend_share *share_of(struct blend_shares *w, const struct blend_view *v, const struct blend_room *room) {
    (void)room;
    return &w->at[v->expert][v->bucket];
}

static float share_value(const struct blend_share *s) {
    float x = s->hit / s->n;
    return x < SHARE_MIN ? SHARE_MIN : x > SHARE_MAX ? SHARE_MAX : x;
}

static float weight_sum(const struct blend_view *v) {
    float sum = 0;
    for (int i = 0; i < v->n; i++)
        sum += (float)v->s[i].count;
    return sum;
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

/* The cap largest of the candidates, by falling p; equal ones by token, so that the order is always the same. */
static int pick(const struct blend_room *r, struct draft_candidate *out, int cap) {
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        const struct blend_cand *c = &r->cand[i];
        int at = n;
        if (n == cap) {
            const struct draft_candidate *last = &out[n - 1];
            if (c->p < last->p || (c->p == last->p && c->token > last->token))
                continue;
            at--;
        } else {
            n++;
        }
        for (; at > 0 && (out[at - 1].p < c->p || (out[at - 1].p == c->p && out[at - 1].token > c->token)); at--)
            out[at] = out[at - 1];
        out[at] = (struct draft_candidate){.token = c->token, .p = c->p, .source = c->source};
    }
    return n;
}

static void room_clear(struct blend_room *room) {
    memset(room->hash, 0, sizeof room->hash);
    room->n = 0;
    room->scale = 1;
    room->top = -1;
}

/* One more expert takes its share x from what was mixed so far. */
static void mix_in(struct blend_room *room, const struct blend_view *v, float x, float sum) {
    room->scale *= 1 - x;
    float part = x / (sum * room->scale);
    for (int k = 0; k < v->n; k++) {
        struct blend_cand *c = cand_at(room, v->s[k].token);
        float p = part * (float)v->s[k].count;
        if (!c)
            continue;
        c->p += p;
        if (p > c->best) {
            c->best = p;
            c->source = (uint8_t)v->source;
        }
        if (room->top < 0 || c->p > room->cand[room->top].p)
            room->top = (int)(c - room->cand);
    }
}

int blend_mix(const struct blend_shares *w, const struct blend_view *v, int n_views, struct blend_room *room,
              struct draft_candidate *out, int cap) {
    room_clear(room);
    if (cap <= 0)
        return 0;
    for (int i = 0; i < n_views; i++) {
        float sum = weight_sum(&v[i]);
        if (sum > 0)
            mix_in(room, &v[i], share_value(share_of((struct blend_shares *)w, &v[i], room)), sum);
    }
    int n = pick(room, out, cap);
    for (int i = 0; i < n; i++)
        out[i].p *= room->scale;
    return n;
}

void blend_learn(struct blend_shares *w, const struct blend_view *v, int n_views, struct blend_room *room,
                 uint32_t truth, float floor, float memory) {
    float p = floor;
    room_clear(room);
    for (int i = 0; i < n_views; i++) {
        float sum = weight_sum(&v[i]), q = 0;
        if (!(sum > 0))
            continue;
        for (int k = 0; k < v[i].n; k++)
            if (v[i].s[k].token == truth)
                q = (float)v[i].s[k].count / sum;
        struct blend_share *s = share_of(w, &v[i], room);
        float x = share_value(s);
        float mixed = x * q + (1 - x) * p;
        mix_in(room, &v[i], x, sum);
        s->hit += x * q / mixed;
        s->n += 1;
        if (s->n > memory) {
            s->hit *= 0.5f;
            s->n *= 0.5f;
        }
        p = mixed;
    }
}

void blend_start_with(struct blend_shares *w, bool store) {
    for (int x = 0; x < BLEND_EXPERTS; x++)
        for (int b = 0; b < BLEND_BUCKETS; b++)
            w->at[x][b] = (struct blend_share){START_N * (float)blend_start[store][x][b] / 255, START_N};
}

void blend_sanitise(struct blend_shares *w) {
    for (int e = 0; e < BLEND_EXPERTS; e++) {
        for (int b = 0; b < BLEND_BUCKETS; b++) {
            struct blend_share *s = &w->at[e][b];
            if (!(s->n >= 1 && s->n <= 2 * BLEND_MEMORY && s->hit >= 0 && s->hit <= s->n))
                *s = (struct blend_share){.hit = 1, .n = 5};
        }
    }
}
