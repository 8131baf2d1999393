#include "tok/bpe.h"

#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX

static uint32_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    return (uint32_t)(h >> 16);
}

int bpe_init_pairs(struct bpe *b, uint32_t n_pairs, struct err *e) {
    uint32_t size = 64;
    while (size < 2 * (uint64_t)n_pairs && size < 1u << 31)
        size *= 2;
    b->pair = malloc(size * sizeof *b->pair);
    if (!b->pair || size <= n_pairs)
        return err_set(e, ERR_MEMORY, "out of memory for %u merges", n_pairs);
    for (uint32_t i = 0; i < size; i++)
        b->pair[i].left = NO_ID;
    b->mask = size - 1;
    return 0;
}

void bpe_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t into) {
    uint32_t h = hash_pair(left, right) & b->mask;
    while (b->pair[h].left != NO_ID && !(b->pair[h].left == left && b->pair[h].right == right))
        h = (h + 1) & b->mask;
    b->n_pairs += b->pair[h].left == NO_ID;
    b->pair[h] = (struct bpe_pair){left, right, rank, into};
}

void bpe_free(struct bpe *b) {
    free(b->rank);
    free(b->pair);
    *b = (struct bpe){0};
}

uint32_t bpe_rank_of_score(float score) {
    uint32_t u;
    score += 0.0f; /* -0 orders like 0 */
    memcpy(&u, &score, sizeof u);
    u = u >> 31 ? ~u : u | 0x80000000u; /* ascending like the float */
    return ~u - 1;                      /* never NO_RANK: only a NaN could be that */
}

void bpe_push(struct bpe_work *w, uint32_t id, uint32_t off, uint32_t len, bool frozen) {
    if (w->n == w->cap) {
        uint32_t cap = w->cap ? w->cap * 2 : 64;
        struct bpe_symbol *s = cap > w->cap ? malloc((size_t)cap * sizeof *s) : NULL;
        if (!s) {
            w->bad = true;
            return;
        }
        if (w->n)
            memcpy(s, w->s, (size_t)w->n * sizeof *s);
        wipe_free(w->s, (size_t)w->cap * sizeof *s);
        w->s = s;
        w->cap = cap;
    }
    w->s[w->n++] = (struct bpe_symbol){.id = id, .off = off, .len = len, .frozen = frozen};
}

static void note_left_half(const struct bpe *b, struct bpe_work *w, uint32_t id, uint32_t len) {
    if (!w->left_half && !w->bad) {
        w->left_half = calloc(b->vocab->n, sizeof *w->left_half);
        w->n_left_half = w->left_half ? b->vocab->n : 0;
        w->bad = !w->left_half;
    }
    if (id < w->n_left_half)
        w->left_half[id] = len;
}

/* Fills in what symbol i would become together with its next. */
static void look(const struct bpe *b, const uint8_t *text, struct bpe_work *w, uint32_t i) {
    struct bpe_symbol *s = w->s, *l = &s[i];
    l->rank = NO_RANK;
    if (l->next == BPE_END)
        return;
    const struct bpe_symbol *r = &s[l->next];
    if (l->frozen || r->frozen)
        return;
    if (!b->pair) {
        uint32_t id = vocab_find(b->vocab, text + l->off, (size_t)l->len + r->len);
        if (id != NO_ID) {
            l->rank = b->rank[id];
            l->into = id;
            if (vocab_type(b->vocab, id) == PIECE_UNUSED)
                note_left_half(b, w, id, l->len);
        }
        return;
    }
    if (l->id == NO_ID || r->id == NO_ID)
        return;
    for (uint32_t h = hash_pair(l->id, r->id) & b->mask; b->pair[h].left != NO_ID; h = (h + 1) & b->mask)
        if (b->pair[h].left == l->id && b->pair[h].right == r->id) {
            l->rank = b->pair[h].rank;
            l->into = b->pair[h].into;
            return;
        }
}

/* Four children to a node: half the depth, and a node's children share a cache line. */
static void heap_down(uint64_t *h, size_t n, size_t i) {
    uint64_t v = h[i];
    for (;;) {
        size_t c = 4 * i + 1, end = c + 4 < n ? c + 4 : n;
        if (c >= n)
            break;
        for (size_t k = c + 1; k < end; k++)
            if (h[k] < h[c])
                c = k;
        if (h[c] >= v)
            break;
        h[i] = h[c];
        i = c;
    }
    h[i] = v;
}

static void heap_up(uint64_t *h, size_t i) {
    uint64_t v = h[i];
    while (i && h[(i - 1) / 4] > v) {
        h[i] = h[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    h[i] = v;
}

/* An entry is rank and position in one number, so that the smallest is the lowest rank and among these the leftmost.
 * An entry is stale when the symbol at its position no longer has that rank. */
static uint64_t entry(const struct bpe_symbol *s, uint32_t i) {
    return (uint64_t)s[i].rank << 32 | i;
}

int bpe_merge(const struct bpe *b, struct bpe_work *w, const uint8_t *text) {
    if (w->bad)
        return -1;
    if (w->n == 0)
        return 0;
    struct bpe_symbol *s = w->s;
    uint32_t n = w->n;
    size_t need = 3 * (size_t)n; /* every merge adds at most two entries */
    if (w->cap_heap < need) {
        wipe_free(w->heap, w->cap_heap * sizeof *w->heap);
        w->cap_heap = 0;
        w->heap = malloc(need * sizeof *w->heap);
        if (!w->heap) {
            w->bad = true;
            return -1;
        }
        w->cap_heap = need;
    }
    uint64_t *h = w->heap;
    size_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        s[i].prev = i ? i - 1 : BPE_END;
        s[i].next = i + 1 < n ? i + 1 : BPE_END;
        look(b, text, w, i);
        if (s[i].rank != NO_RANK)
            h[m++] = entry(s, i);
    }
    for (size_t i = m / 4 + 1; m && i-- > 0;)
        heap_down(h, m, i);
    while (m) {
        uint64_t top = h[0];
        h[0] = h[--m];
        heap_down(h, m, 0);
        uint32_t i = (uint32_t)top;
        if (s[i].rank != top >> 32)
            continue;
        uint32_t r = s[i].next, after = s[r].next;
        s[i].id = s[i].into;
        s[i].len += s[r].len;
        s[i].next = after;
        s[r].rank = NO_RANK;
        if (after != BPE_END)
            s[after].prev = i;
        look(b, text, w, i);
        if (s[i].rank != NO_RANK) {
            h[m] = entry(s, i);
            heap_up(h, m++);
        }
        uint32_t l = s[i].prev;
        if (l != BPE_END) {
            look(b, text, w, l);
            if (s[l].rank != NO_RANK) {
                h[m] = entry(s, l);
                heap_up(h, m++);
            }
        }
    }
    return w->bad ? -1 : 0;
}

void bpe_work_free(struct bpe_work *w) {
    wipe_free(w->s, (size_t)w->cap * sizeof *w->s);
    wipe_free(w->heap, w->cap_heap * sizeof *w->heap);
    wipe_free(w->left_half, w->n_left_half * sizeof *w->left_half);
    *w = (struct bpe_work){0};
}
