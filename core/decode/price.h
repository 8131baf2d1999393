/* core/decode/price.h - when does a guess pay? Learns from measured times what a round trip, a row of a window and a
 * pass of this side cost, and how far the drafter's probabilities can be believed; says from these how likely a node
 * has to be to be sent. It also watches the whole: speculation that loses against plain decoding is switched off for a
 * while.
 *
 * No assumption stands at the start: the first tokens are decoded plainly, and trees grow as far as windows were
 * measured. It knows no session, no clock and no tokens. */
#ifndef CORE_DECODE_PRICE_H
#define CORE_DECODE_PRICE_H

#include <stdbool.h>

/* y = fixed + slope * rows, by least squares with forgetting. */
struct price_fit {
    double w, x, y, xx, xy; /* sums */
    double fixed, slope;
};
void price_fit_add(struct price_fit *f, double rows, double ms);

struct price {
    struct price_fit link;    /* a window there and back, less its pass; next to nothing: the middle is here */
    struct price_fit compute; /* the pass of the middle */
    struct price_fit front;
    struct price_fit back; /* with the head */
    double claimed, came;  /* probability that the drafter gave to its offers; of them came true. Both forget. */
    double plain_ms;       /* of a token without speculation */
    int plain_age;         /* tokens since that was measured */
    double block_ms;       /* of the last tokens with speculation, */
    int block_n;           /* so many */
    double share;          /* what the last such block took of plain decoding's time */
    int off_left;          /* tokens until it is tried again; 0: it is on */
    int off_next;          /* and how long it will be off the next time */
    double luck;           /* meanwhile: what the drafter gave to the last few tokens that came */
    bool lucky, unlucky;   /* that has put it on again; and it lost nevertheless: luck says nothing for a while */
    int seen;              /* plain tokens at the start */
    int widest;            /* rows of the largest window measured */
    bool tried;            /* the first block was not held against anything yet: it warms up */
};

/* A window of rows was waited for from the moment it was sent, with nothing before it in the queue. */
void price_window(struct price *p, int rows, double elapsed_ms, double compute_ms);
/* Of the offers with these probabilities in sum one came true, or none did. */
void price_offer(struct price *p, double claimed, bool came);
/* A token took ms while speculation was on, or off. */
void price_token(struct price *p, double ms);
/* A token without guesses took ms, drafting not counted. */
void price_plain(struct price *p, double ms);

/* Speculation is off, and the drafter gave so much to the token that came. When it goes on like that, it is on again;
 * if it loses then too, it stays off for its time. */
void price_missed(struct price *p, double given);
/* Is the next token to be decoded with speculation? plain: send it with no tree although speculation is on, to measure
 * what that costs. */
bool price_on(const struct price *p);
bool price_probe(const struct price *p);
/* The smallest path probability, as the drafter states it, that pays; more than 1: none does. */
double price_least(const struct price *p);
/* Nodes that the next tree may have. */
int price_cap(const struct price *p, int max_nodes);
/* Is it worth a window of its own to send nodes with these path probabilities in sum? */
bool price_pays(const struct price *p, double sum, int n);
/* Is the middle on another machine, which computes while this one does? */
bool price_away(const struct price *p);
/* How long the token of a window is awaited. */
double price_trip(const struct price *p);
/* The smallest path probability with which a guess goes in one window with the token: the token's result is later by
 * its row, and its own earlier by a pass. Others follow in a window behind. */
double price_together(const struct price *p);
/* The smallest path probability for which a row more in a pass of the back layers pays. */
double price_back_least(const struct price *p);

#endif
