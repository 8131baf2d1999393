/* core/decode/speculate_impl.h - the tree of guesses as speculate.c keeps it, for rounds.c, which fills it in another
 * way, pad.c, and for nobody else but tests that look inside. */
#ifndef CORE_DECODE_SPECULATE_IMPL_H
#define CORE_DECODE_SPECULATE_IMPL_H

#include "core/decode/pad.h"
#include "core/decode/price.h"
#include "core/decode/speculate.h"

enum {
    BACK_ROWS = 4, /* nodes that go through back layers and head in one pass */
    OFFERED = 16,  /* candidates that are held against the truth at each position */
};

/* What the session knows of a node of the tree, beside what the drafter does. */
struct guess {
    uint32_t id, pos;
    int place;                       /* of its row in x */
    enum { SENT, HERE, DONE } state; /* HERE: back from the middle; DONE: its logits are at row */
    int row;
    uint32_t depth; /* these are for the log */
    float path;
    double sent_ms, came_ms;
};

struct rounds;

struct speculation {
    struct session_speculation o;
    struct session_drafter drafter;
    int max_nodes, max_batch; /* nodes of a drafted tree; rows of a pass */
    int room;                 /* for nodes */
    struct price price;
    struct {
        double pass_ms;      /* of the drafter's small model while this side waits; 0: it made none */
        double last_ms;      /* of the last one that was measured */
        double round_ms;     /* of drafting and sending without such a pass */
        double over_ms;      /* when that was done last */
    } ahead;                 /* (ahead.h) */
    struct guess head;       /* the token that is being computed; the tree hangs below it, or below the committed one */
    bool has_head;           /* between its submit and its commit */
    struct draft_node *tree; /* [room]; parents first */
    struct guess *guess;     /* [room]: of the same nodes */
    int n;
    int *map;         /* [room]: scratch of compactions */
    uint32_t *doomed; /* [room + 1]: scratch of cancels */
    float *x;         /* [room + 1][hidden]: rows that came from the middle, by place */
    int *places;      /* [room + 1]: free ones */
    int n_places;
    float *pass;      /* [room + 1][hidden]: rows of one pass */
    uint32_t *tokens; /* [room + 1]: of one window */
    float *logits;    /* [n_logits][vocab]: BACK_ROWS of the last pass, and those that rounds keep */
    int n_logits;
    struct draft_candidate offered[OFFERED];
    int n_offered;         /* what the drafter said of the next token; -1: it was not asked */
    struct rounds *rounds; /* NULL: neither jacobi nor lookahead */
    struct pad pad;
};

/* Does auto weigh what a guess costs? */
bool speculation_priced(const struct speculation *p);
/* Nodes that the tree may have: a new one, or with what goes out behind it. */
int speculation_cap(const struct speculation *p, bool tree);
/* Sends the head when it is new, and the nodes from `from` on, in as many windows as it takes. *rows, *at_ms: of the
 * first one, and when it was sent. */
int speculation_send(struct session *s, bool with_head, int from, int *rows, double *at_ms, struct err *e);
/* Waits until no node of the tree, and not the head, is on its way. */
int speculation_await_all(struct session *s, struct err *e);
/* Back layers and head for n <= max_batch of the head and the nodes, parents first: logits in rows 0 to n - 1 of
 * p->logits. The guesses' own state is the caller's to change. */
int speculation_back(struct session *s, struct guess *const *g, int n, struct err *e);
/* Takes of tree[from..n) what can be sent; map[i] is where it stands then, or -1. */
void speculation_accept(struct session *s, int from, int n);

#endif
