/* core/draft/blend.h - one distribution out of many: experts stand in a row from the weakest to the most specific, and
 * each that has something to say takes a share of the probability from those before it (Jelinek and Mercer 1980,
 * deleted interpolation; the shares are learned online by expectation maximisation). How large the share is depends on
 * the expert and on how much it has seen: that is what makes the result calibrated. Knows no table and no text. */
#ifndef CORE_DRAFT_BLEND_H
#define CORE_DRAFT_BLEND_H

#include "core/draft/draft.h"
#include "core/draft/ngram.h"

enum { BLEND_EXPERTS = 24, BLEND_BUCKETS = 32, BLEND_CANDIDATES = 1500, BLEND_HASH = 2048, BLEND_BINS = 12 };

/* A share is hit / n: n counts what it was learned from. */
struct blend_share {
    float hit, n;
};
struct blend_shares {
    struct blend_share at[BLEND_EXPERTS][BLEND_BUCKETS];
    /* Of the candidates that a source offered at about 2^-bin: how many came, and the sum of what they were offered at.
     */
    struct blend_share came[N_DRAFT_SOURCES][BLEND_BINS];
};

/* What shares start from, in 1/255: without a store, and with one. */
extern const uint8_t blend_start[2][BLEND_EXPERTS][BLEND_BUCKETS];
void blend_start_with(struct blend_shares *w, bool store);
/* What w says of this expert and source is no more than an assumption: a few contexts will change it. */
void blend_doubt(struct blend_shares *w, int expert, enum draft_source source);

/* What one expert says in one context: successors with weights (any scale). */
struct blend_view {
    const struct ngram_succ *s;
    int n;
    int expert, bucket;
    float sum; /* of the counts */
    enum draft_source source;
};

/* Where candidates are gathered; large, so it is kept. Zero-initialise. */
struct blend_room {
    struct blend_cand {
        uint32_t token;
        float p, best; /* best: the largest part of p, from source */
        uint8_t source;
    } cand[BLEND_CANDIDATES];
    uint16_t hash[BLEND_HASH]; /* 1 + index into cand */
    int n;
    float left; /* what the experts so far did not take */
};

/* The bucket of an expert that saw total occurrences (in units) of n different successors. */
int blend_bucket(uint32_t total, int n);

/* Candidates: first blend_begin, then blend_add from the most specific expert to the weakest, which may be left out
 * where room->left is too small to matter; parts of a candidate below skip are left out as well, and where v->s stands
 * by falling count this saves looking at the rest (sorted). blend_end: those of at least `least`, by falling p, at most
 * cap. Their sum is at most 1. */
void blend_begin(struct blend_room *room);
void blend_add(const struct blend_shares *w, const struct blend_view *v, struct blend_room *room, float skip,
               bool sorted);
int blend_end(const struct blend_room *room, struct draft_candidate *out, int cap, float least);
/* truth came, v stand from the weakest expert to the most specific: shares move towards what would have been right.
 * floor: the probability of a token that nobody offered; memory: a share forgets what is older than about so many
 * contexts. */
enum { BLEND_MEMORY = 2000 };
void blend_learn(struct blend_shares *w, const struct blend_view *v, int n_views, uint32_t truth, float floor,
                 float memory);

/* Calibration: p becomes what came true of such offers; falling p again, and the sum at most 1. truth came where c was
 * offered (before calibration). */
void blend_calibrate(const struct blend_shares *w, struct draft_candidate *c, int n);
void blend_came(struct blend_shares *w, const struct draft_candidate *c, int n, uint32_t truth, float memory);

/* Any content becomes usable: shares from a file are not trusted. */
void blend_sanitise(struct blend_shares *w);

#endif
