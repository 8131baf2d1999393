#include "core/draft/ngram.h"

/* A slot: check bits of the hash (28), token (20), count (16). Empty: count 0. The check bits are those below the top
 * CHECK_FROM; a table of more lines uses some of them for the line as well, and so a table can be moved into a larger
 * one without knowing the contexts. */
enum { COUNT_BITS = 16, TOKEN_BITS = 20, CHECK_BITS = 28, CHECK_FROM = 12 };
static const uint32_t COUNT_MAX = (1u << COUNT_BITS) - 1;

size_t ngram_bytes(unsigned bits) {
    return ((size_t)1 << bits) * NGRAM_LINE * sizeof(uint64_t);
}

static uint64_t slot_of(uint64_t check, uint32_t token, uint32_t count) {
    return check << (TOKEN_BITS + COUNT_BITS) | (uint64_t)token << COUNT_BITS | count;
}

static uint64_t check_of(uint64_t h) {
    return h << CHECK_FROM >> (64 - CHECK_BITS);
}

static uint32_t slot_token(uint64_t s) {
    return (uint32_t)(s >> COUNT_BITS) & ((1u << TOKEN_BITS) - 1);
}

static uint32_t slot_count(uint64_t s) {
    return (uint32_t)s & COUNT_MAX;
}

/* Contexts that may use several lines have an own hash for each; a successor's token says which. */
static uint64_t line_hash(uint64_t h, uint32_t i) {
    h = (h + i * 0xd6e8feb86659fd93u) * 0xff51afd7ed558ccdu;
    return h ^ h >> 32;
}

static uint64_t *line_at(const struct ngram_table *t, uint64_t lh) {
    return t->slots + (lh >> (64 - t->bits)) * NGRAM_LINE;
}

static uint64_t get(const uint64_t *s) {
    return __atomic_load_n(s, __ATOMIC_RELAXED);
}

static void put(uint64_t *s, uint64_t v) {
    __atomic_store_n(s, v, __ATOMIC_RELAXED);
}

/* The slot to put a new successor into: a free one, else the one with the smallest count. */
static uint64_t *least(uint64_t *line) {
    uint64_t *min = line;
    for (int i = 1; i < NGRAM_LINE; i++)
        if (slot_count(get(&line[i])) < slot_count(get(min)))
            min = &line[i];
    return min;
}

static void fade(uint64_t *line, uint64_t check, uint32_t token, unsigned keep) {
    for (int i = 0; i < NGRAM_LINE; i++) {
        uint64_t s = get(&line[i]);
        uint32_t c = slot_count(s);
        if (c && s >> (TOKEN_BITS + COUNT_BITS) == check && slot_token(s) != token)
            put(&line[i], s - c + ((c * keep + 128) >> 8));
    }
}

uint32_t ngram_add(const struct ngram_table *t, uint64_t h, int n_lines, uint32_t token, uint32_t inc, unsigned keep) {
    uint64_t lh = line_hash(h, token % (uint32_t)n_lines), check = check_of(lh);
    uint64_t *line = line_at(t, lh);
    for (int i = 0; keep < 256 && i < n_lines; i++) {
        uint64_t other = line_hash(h, (uint32_t)i);
        fade(line_at(t, other), check_of(other), token, keep);
    }
    for (int i = 0; i < NGRAM_LINE; i++) {
        uint64_t s = get(&line[i]);
        uint32_t c = slot_count(s);
        if (c == 0 || s >> COUNT_BITS != (check << TOKEN_BITS | token))
            continue;
        put(&line[i], s - c + (inc < COUNT_MAX - c ? c + inc : COUNT_MAX));
        return c;
    }
    uint64_t *s = least(line);
    uint32_t c = slot_count(get(s));
    if (inc > COUNT_MAX)
        inc = COUNT_MAX;
    if (c <= inc)
        put(s, slot_of(check, token, inc));
    else /* what was seen more often gives way slowly */
        put(s, get(s) - inc);
    return 0;
}

int ngram_find(const struct ngram_table *t, uint64_t h, int n_lines, uint32_t vocab, struct ngram_succ *out, int cap) {
    int n = 0;
    for (int i = 0; i < n_lines; i++) {
        uint64_t lh = line_hash(h, (uint32_t)i), check = check_of(lh);
        const uint64_t *line = line_at(t, lh);
        for (int k = 0; k < NGRAM_LINE; k++) {
            uint64_t s = get(&line[k]);
            uint32_t token = slot_token(s);
            if (s >> (TOKEN_BITS + COUNT_BITS) != check || slot_count(s) == 0 || token >= vocab)
                continue;
            if (n == cap)
                return n;
            out[n++] = (struct ngram_succ){token, slot_count(s)};
        }
    }
    return n;
}

void ngram_prefetch(const struct ngram_table *t, uint64_t h, int n_lines) {
    for (int i = 0; i < n_lines; i++)
        __builtin_prefetch(line_at(t, line_hash(h, (uint32_t)i)));
}

void ngram_move(const struct ngram_table *dst, const struct ngram_table *src) {
    size_t n = (size_t)1 << src->bits;
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < NGRAM_LINE; k++) {
            uint64_t s = get(&src->slots[i * NGRAM_LINE + (size_t)k]);
            if (slot_count(s) == 0)
                continue;
            /* The line's bits are the top of the hash, the check bits go on from there. */
            uint64_t top = (uint64_t)i << (64 - src->bits) & ~(UINT64_MAX >> CHECK_FROM);
            uint64_t lh = top | s >> (TOKEN_BITS + COUNT_BITS) << (64 - CHECK_FROM - CHECK_BITS);
            uint64_t *line = line_at(dst, lh), *to = least(line);
            if (slot_count(get(to)) < slot_count(s))
                put(to, s);
        }
    }
}
