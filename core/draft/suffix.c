#include "core/draft/suffix.h"

#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, ROOT = 0, REFRESH = 16, MAX_TOKENS = 1 << 28 };

struct state {
    uint32_t len, link;
    uint32_t end;   /* index behind an occurrence, as late a one as is known */
    uint32_t edges; /* the first of its transitions */
};

struct edge {
    uint32_t from, token, to;
    uint32_t next;  /* of the same state */
    uint32_t chain; /* of the same hash */
};

struct suffix {
    uint32_t max, n, last;
    uint32_t n_states, n_edges, max_states, max_edges;
    uint32_t hash_mask;
    struct state *states;
    struct edge *edges;
    uint32_t *heads;
};

static size_t heads_bytes(const struct suffix *s) {
    return ((size_t)s->hash_mask + 1) * sizeof *s->heads;
}

static uint32_t state_new(struct suffix *s, uint32_t len, uint32_t end) {
    s->states[s->n_states] = (struct state){.len = len, .link = NONE, .end = end, .edges = NONE};
    return s->n_states++;
}

void suffix_clear(struct suffix *s) {
    wipe(s->states, s->n_states * sizeof *s->states);
    wipe(s->edges, s->n_edges * sizeof *s->edges);
    memset(s->heads, 0xff, heads_bytes(s));
    s->n = s->n_states = s->n_edges = 0;
    s->last = state_new(s, 0, 0);
}

static void set_bounds(struct suffix *s, uint32_t max_tokens) {
    s->max = max_tokens;
    /* An automaton of n tokens has at most 2n - 1 states and 3n - 4 transitions, n of 3 and more. */
    s->max_states = 2 * max_tokens + 2;
    s->max_edges = 3 * max_tokens + 4;
    for (s->hash_mask = 1023; s->hash_mask < s->max_edges;)
        s->hash_mask = 2 * s->hash_mask + 1;
}

uint64_t suffix_bytes(uint32_t max_tokens) {
    struct suffix s;
    set_bounds(&s, max_tokens <= MAX_TOKENS ? max_tokens : MAX_TOKENS);
    return s.max_states * sizeof *s.states + s.max_edges * sizeof *s.edges + heads_bytes(&s);
}

int suffix_create(struct suffix **out, uint32_t max_tokens, struct err *e) {
    struct suffix *s = calloc(1, sizeof *s);
    if (!s || max_tokens > MAX_TOKENS)
        goto fail;
    set_bounds(s, max_tokens);
    s->states = calloc(s->max_states, sizeof *s->states);
    s->edges = calloc(s->max_edges, sizeof *s->edges);
    s->heads = malloc(heads_bytes(s));
    if (!s->states || !s->edges || !s->heads)
        goto fail;
    suffix_clear(s);
    *out = s;
    return 0;
fail:
    suffix_free(s);
    return err_set(e, ERR_MEMORY, "out of memory for drafts over %u positions", max_tokens);
}

void suffix_free(struct suffix *s) {
    if (!s)
        return;
    if (s->states)
        wipe_free(s->states, s->n_states * sizeof *s->states);
    if (s->edges)
        wipe_free(s->edges, s->n_edges * sizeof *s->edges);
    free(s->heads);
    free(s);
}

uint32_t suffix_n(const struct suffix *s) {
    return s->n;
}

static uint32_t *head_of(const struct suffix *s, uint32_t from, uint32_t token) {
    uint64_t h = ((uint64_t)from << 32 | token) * 0x9e3779b97f4a7c15u;
    return &s->heads[(uint32_t)(h >> 32) & s->hash_mask];
}

static uint32_t edge_find(const struct suffix *s, uint32_t from, uint32_t token) {
    for (uint32_t i = *head_of(s, from, token); i != NONE; i = s->edges[i].chain)
        if (s->edges[i].from == from && s->edges[i].token == token)
            return i;
    return NONE;
}

static void edge_add(struct suffix *s, uint32_t from, uint32_t token, uint32_t to) {
    uint32_t *head = head_of(s, from, token), i = s->n_edges++;
    s->edges[i] = (struct edge){.from = from, .token = token, .to = to, .next = s->states[from].edges, .chain = *head};
    s->states[from].edges = *head = i;
}

/* q is reached from p by token, but holds longer texts as well: the short ones get a state of their own. */
static uint32_t split(struct suffix *s, uint32_t p, uint32_t token, uint32_t q) {
    uint32_t c = state_new(s, s->states[p].len + 1, s->states[q].end);
    for (uint32_t i = s->states[q].edges; i != NONE; i = s->edges[i].next)
        edge_add(s, c, s->edges[i].token, s->edges[i].to);
    s->states[c].link = s->states[q].link;
    s->states[q].link = c;
    for (uint32_t i; p != NONE && (i = edge_find(s, p, token)) != NONE && s->edges[i].to == q; p = s->states[p].link)
        s->edges[i].to = c;
    return c;
}

void suffix_add(struct suffix *s, uint32_t token) {
    if (s->n == s->max)
        return;
    /* What ends here lately is the better guess; longer chains of shorter and shorter suffixes are left as they are. */
    uint32_t v = s->states[s->last].link;
    for (int i = 0; i < REFRESH && v != NONE && v != ROOT; i++, v = s->states[v].link)
        s->states[v].end = s->n;
    uint32_t cur = state_new(s, s->states[s->last].len + 1, ++s->n), p = s->last, i = NONE;
    for (; p != NONE && (i = edge_find(s, p, token)) == NONE; p = s->states[p].link)
        edge_add(s, p, token, cur);
    if (p == NONE) {
        s->states[cur].link = ROOT;
    } else {
        uint32_t q = s->edges[i].to;
        s->states[cur].link = s->states[q].len == s->states[p].len + 1 ? q : split(s, p, token, q);
    }
    s->last = cur;
}

struct suffix_match suffix_here(const struct suffix *s) {
    uint32_t link = s->states[s->last].link;
    if (link == NONE)
        return (struct suffix_match){ROOT, 0};
    return (struct suffix_match){link, s->states[link].len};
}

struct suffix_match suffix_step(const struct suffix *s, struct suffix_match m, uint32_t token) {
    for (;;) {
        uint32_t i = edge_find(s, m.state, token);
        if (i != NONE)
            return (struct suffix_match){s->edges[i].to, m.len + 1};
        m.state = s->states[m.state].link;
        if (m.state == NONE)
            return (struct suffix_match){ROOT, 0};
        m.len = s->states[m.state].len;
    }
}

uint32_t suffix_next(const struct suffix *s, struct suffix_match m) {
    return s->states[m.state].end;
}
