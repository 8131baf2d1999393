/* gpu/team_check.h - whether a team's gathers bring what they should. Uses team.h as anybody does. */
#ifndef GPU_TEAM_CHECK_H
#define GPU_TEAM_CHECK_H

#include "gpu/team.h"

/* Gathers patterns, small and large, launched and recorded. ERR_DEVICE, ERR_MEMORY. */
int team_check(struct team *t, struct gpu *const *cards, struct err *e);

#endif
