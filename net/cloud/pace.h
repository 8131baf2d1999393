/* net/cloud/pace.h - how long a pass of n rows takes here, learned from passes, and how many prefill rows may join a
 * pass without making those wait who decode (Sarathi-Serve, arXiv 2403.02310). Pure arithmetic. */
#ifndef NET_CLOUD_PACE_H
#define NET_CLOUD_PACE_H

#include <stdbool.h>

enum { PACE_STEPS = 17 }; /* 1, 2, 4, ... 65536 rows */

struct pace {
    double ms[PACE_STEPS]; /* of 1 << i rows; 0: not known yet */
    double decode_rows;    /* of a pass that decodes, on average */
    double credit_ms;      /* what decoding has put by for prefill */
    unsigned asked;
};

/* Rows of a pass and the time it took. n_decode of them were of small windows. */
void pace_learn(struct pace *p, int n, int n_decode, double ms);
/* Estimate; 0 while nothing is known. Between two known sizes by interpolation, beyond the largest in proportion. */
double pace_ms(const struct pace *p, int n);
/* How many prefill rows may go with n_decode rows, at most `room`, when others are decoding. Over time the decode rows
 * take at most PACE_SHARE longer than they would alone, and a single pass at most twice as long. n_decode 0: decoders
 * are active, but have nothing to compute just now. */
#define PACE_SHARE 0.4
int pace_prefill(struct pace *p, int n_decode, int room);
/* How many prefill rows may make a pass of their own, at most `room`, when nobody decodes: as many as take about a
 * second, for whoever connects or begins to decode meanwhile waits for its end. */
int pace_alone(const struct pace *p, int room);

#endif
