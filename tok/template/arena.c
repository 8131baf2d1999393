#include "tok/template/arena.h"

#include "core/base/wipe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST = 16 << 10, LARGEST = 1 << 20 };

struct tarena_block {
    struct tarena_block *next;
    size_t cap, used;
    _Alignas(ALIGN) unsigned char data[];
};

static struct tarena_block *block_new(struct tarena *a, size_t n) {
    size_t cap = a->top ? a->top->cap * 2 : FIRST;
    if (cap > LARGEST)
        cap = LARGEST;
    if (cap < n)
        cap = n;
    size_t size = sizeof(struct tarena_block) + cap;
    if (size > a->max || a->total > a->max - size)
        return NULL;
    struct tarena_block *b = malloc(size);
    if (!b)
        return NULL;
    b->cap = cap;
    b->used = 0;
    a->total += size;
    b->next = a->top;
    a->top = b;
    return b;
}

void *tarena_alloc(struct tarena *a, size_t n) {
    if (a->bad || n > SIZE_MAX / 4)
        goto fail;
    n = n ? (n + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    struct tarena_block *b = a->top;
    if (!b || n > b->cap - b->used)
        b = block_new(a, n);
    if (!b)
        goto fail;
    void *p = b->data + b->used;
    b->used += n;
    memset(p, 0, n);
    return p;
fail:
    a->bad = true;
    return NULL;
}

void *tarena_array(struct tarena *a, size_t n, size_t size) {
    if (size && n > SIZE_MAX / 4 / size) {
        a->bad = true;
        return NULL;
    }
    return tarena_alloc(a, n * size);
}

char *tarena_copy(struct tarena *a, const char *p, size_t n) {
    char *q = tarena_alloc(a, n + 1);
    if (q && n)
        memcpy(q, p, n);
    return q;
}

int tarena_grow(struct tarena *a, void **p, size_t n, size_t *cap, size_t size) {
    if (n < *cap)
        return 0;
    size_t want = *cap ? *cap * 2 : 8;
    void *q = tarena_array(a, want, size);
    if (!q)
        return -1;
    if (n)
        memcpy(q, *p, n * size);
    *p = q;
    *cap = want;
    return 0;
}

void tarena_free(struct tarena *a) {
    for (struct tarena_block *b = a->top, *next; b; b = next) {
        next = b->next;
        wipe_free(b, sizeof *b + b->cap);
    }
    *a = (struct tarena){.max = a->max};
}
