#include "tok/strset.h"

#include <stdlib.h>
#include <string.h>

int strset_add(struct strset *s, const void *p, size_t n, uint32_t value, struct err *e) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct strset_entry *q = realloc(s->e, cap * sizeof *q);
        if (!q)
            return err_set(e, ERR_MEMORY, "out of memory for %zu added tokens", cap);
        s->e = q;
        s->cap = cap;
    }
    if (n > UINT32_MAX / 2 - s->n_bytes)
        return err_set(e, ERR_MODEL, "the added tokens have over 2 GB of text");
    if (n > s->cap_bytes - s->n_bytes) {
        size_t cap = s->cap_bytes ? s->cap_bytes : 1024;
        while (cap - s->n_bytes < n)
            cap *= 2;
        uint8_t *b = realloc(s->bytes, cap);
        if (!b)
            return err_set(e, ERR_MEMORY, "out of memory for added tokens (%zu bytes)", cap);
        s->bytes = b;
        s->cap_bytes = cap;
    }
    memcpy(s->bytes + s->n_bytes, p, n);
    s->e[s->n++] = (struct strset_entry){(uint32_t)s->n_bytes, (uint32_t)n, value};
    s->n_bytes += n;
    return 0;
}

static int by_bytes(const void *a, const void *b, void *ctx) {
    const struct strset_entry *x = a, *y = b;
    const uint8_t *base = ctx;
    int c = memcmp(base + x->off, base + y->off, x->len < y->len ? x->len : y->len);
    if (c)
        return c;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->off < y->off ? -1 : 1; /* equal strings keep their order */
}

void strset_seal(struct strset *s) {
    if (s->n)
        qsort_r(s->e, s->n, sizeof *s->e, by_bytes, s->bytes);
    size_t k = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct strset_entry *last = k ? &s->e[k - 1] : NULL, *x = &s->e[i];
        if (!last || last->len != x->len || memcmp(s->bytes + last->off, s->bytes + x->off, x->len) != 0)
            s->e[k++] = *x;
    }
    s->n = k;
    size_t i = 0;
    for (unsigned b = 0; b <= 256; b++) {
        while (i < k && s->bytes[s->e[i].off] < b)
            i++;
        s->first[b] = (uint32_t)i;
    }
}

size_t strset_match(const struct strset *s, const void *text, size_t n, uint32_t *value) {
    const uint8_t *t = text;
    if (n == 0 || s->n == 0)
        return 0;
    /* lo .. hi-1: the members that agree with the text in the first d bytes, the one of exactly d bytes first */
    size_t lo = s->first[t[0]], hi = s->first[t[0] + 1], best = 0;
    for (size_t d = 1; lo < hi; d++) {
        if (s->e[lo].len == d) {
            best = d;
            *value = s->e[lo].value;
            lo++;
        }
        if (d == n || lo == hi)
            break;
        for (int upper = 0; upper < 2; upper++) { /* binary search for both ends of the run with byte t[d] */
            size_t a = lo, b = hi;
            while (a < b) {
                size_t m = a + (b - a) / 2;
                uint8_t c = s->bytes[s->e[m].off + d];
                if (c < t[d] || (upper && c == t[d]))
                    a = m + 1;
                else
                    b = m;
            }
            if (upper)
                hi = a;
            else
                lo = a;
        }
    }
    return best;
}

uint32_t strset_find(const struct strset *s, const void *p, size_t n) {
    uint32_t v;
    return strset_match(s, p, n, &v) == n && n ? v : UINT32_MAX;
}

void strset_free(struct strset *s) {
    free(s->e);
    free(s->bytes);
    *s = (struct strset){0};
}
