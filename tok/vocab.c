#include "tok/vocab.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_bytes(const uint8_t *p, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    while (n >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        p += 8;
        n -= 8;
    }
    uint64_t w = 0;
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)p[i] << (8 * i);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 13);
}

static int grow_ids(struct vocab *v, uint32_t need, struct err *e) {
    if (need <= v->cap)
        return 0;
    uint32_t cap = v->cap ? v->cap : 1024;
    while (cap < need)
        cap *= 2;
    struct piece *p = realloc(v->piece, cap * sizeof *p);
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory for a vocabulary of %u pieces", cap);
    memset(p + v->cap, 0, (cap - v->cap) * sizeof *p);
    v->piece = p;
    v->cap = cap;
    return 0;
}

static int put_bytes(struct vocab *v, const void *p, size_t len, uint32_t *off, struct err *e) {
    if (len > VOCAB_MAX_PIECE)
        return err_set(e, ERR_MODEL, "a vocabulary piece has %zu bytes; at most %u are supported", len,
                       VOCAB_MAX_PIECE);
    if (len > v->cap_bytes - v->n_bytes) {
        size_t cap = v->cap_bytes ? v->cap_bytes : 4096;
        while (cap - v->n_bytes < len)
            cap *= 2;
        if (cap > UINT32_MAX)
            return err_set(e, ERR_MODEL, "the vocabulary has over 4 GB of text");
        uint8_t *b = realloc(v->bytes, cap);
        if (!b)
            return err_set(e, ERR_MEMORY, "out of memory for %zu bytes of vocabulary", cap);
        v->bytes = b;
        v->cap_bytes = cap;
    }
    *off = (uint32_t)v->n_bytes;
    if (len)
        memcpy(v->bytes + v->n_bytes, p, len);
    v->n_bytes += len;
    return 0;
}

int vocab_set(struct vocab *v, uint32_t id, const void *p, size_t len, enum piece_type type, struct err *e) {
    if (id >= VOCAB_MAX_IDS)
        return err_set(e, ERR_MODEL, "token id %u is over the limit of %u", id, VOCAB_MAX_IDS - 1);
    if (grow_ids(v, id + 1, e) != 0)
        return -1;
    if (v->piece[id].type != PIECE_NONE)
        return err_set(e, ERR_MODEL, "token id %u is given to two pieces", id);
    uint32_t off = 0;
    if (put_bytes(v, p, len, &off, e) != 0)
        return -1;
    v->piece[id] = (struct piece){.off = off, .len = (uint16_t)len, .type = (uint8_t)type};
    if (id >= v->n)
        v->n = id + 1;
    return 0;
}

int vocab_replace(struct vocab *v, uint32_t id, const void *p, size_t len, struct err *e) {
    uint32_t off = 0;
    if (put_bytes(v, p, len, &off, e) != 0)
        return -1;
    v->piece[id].off = off;
    v->piece[id].len = (uint16_t)len;
    return 0;
}

int vocab_index(struct vocab *v, unsigned types, struct err *e) {
    uint32_t size = 64;
    while (size < 2 * v->n)
        size *= 2;
    free(v->slot);
    v->slot = calloc(size, sizeof *v->slot);
    if (!v->slot)
        return err_set(e, ERR_MEMORY, "out of memory for an index of %u pieces", v->n);
    v->mask = size - 1;
    v->max_len = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        const struct piece *q = &v->piece[id];
        if (q->type == PIECE_NONE || q->len == 0 || !(types >> q->type & 1))
            continue;
        const uint8_t *p = v->bytes + q->off;
        uint32_t h = hash_bytes(p, q->len) & v->mask;
        while (v->slot[h]) {
            const struct piece *o = &v->piece[v->slot[h] - 1];
            if (o->len == q->len && memcmp(v->bytes + o->off, p, q->len) == 0)
                break;
            h = (h + 1) & v->mask;
        }
        v->slot[h] = id + 1;
        if (q->len > v->max_len)
            v->max_len = q->len;
    }
    return 0;
}

void vocab_free(struct vocab *v) {
    free(v->piece);
    free(v->bytes);
    free(v->slot);
    *v = (struct vocab){0};
}

uint32_t vocab_find(const struct vocab *v, const void *p, size_t len) {
    if (len == 0 || len > v->max_len)
        return NO_ID;
    for (uint32_t h = hash_bytes(p, len) & v->mask; v->slot[h]; h = (h + 1) & v->mask) {
        const struct piece *o = &v->piece[v->slot[h] - 1];
        if (o->len == len && memcmp(v->bytes + o->off, p, len) == 0)
            return v->slot[h] - 1;
    }
    return NO_ID;
}
