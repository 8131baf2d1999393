/* gpu/stage.h - a part of a model on one or several cards, and the backend that they make. Not for use outside gpu/ and
 * its tests.
 *
 * Cards are in teams, mostly of one. A stage is cut into consecutive layers for each team, of which each of its cards
 * has a share (share.h); x goes from team to team through the host. */
#ifndef GPU_STAGE_H
#define GPU_STAGE_H

#include "core/model/embed.h"
#include "gpu/backend.h"
#include "gpu/share.h"

enum { MAX_CARDS = 16 };

struct cuda_backend {
    struct backend base;
    int n_cards;
    struct card cards[MAX_CARDS]; /* those of a team behind one another */
    char name[64], describe[400];
};

struct cuda_kv {
    struct cuda_stage *stage;
    uint32_t n_slots, max_keys;
    struct share_kv shares[MAX_CARDS];
};

struct cuda_stage {
    struct stage base;
    struct cuda_backend *backend;
    int max_rows;
    int n_shares;
    struct share shares[MAX_CARDS]; /* those of a team behind one another */
    struct embedding embed;
    size_t bytes;
};

void cuda_backend_free(struct backend *base);
/* What a team has room for, rank 0's card being c: as many times what the fullest of its cards has left as it has
 * cards, for they take alike. */
size_t team_memory_left(const struct card *c);
extern const struct backend_ops cuda_ops; /* stage.c */

#endif
