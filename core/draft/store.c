#include "core/draft/store.h"
#include "core/base/wipe.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <string.h>

const unsigned draft_store_contexts = (1u<<CONTEXT_0)|(1u<<CONTEXT_1)|(1u<<CONTEXT_2)|(1u<<CONTEXT_3)|(1u<<CONTEXT_4)|(1u<<CONTEXT_5)|(1u<<CONTEXT_SKIP13)|(1u<<CONTEXT_SKIP2);
struct draft_store { struct ngram_table t; uint32_t vocab; uint64_t n; struct blend_shares w; int have; };
int draft_store_create(struct draft_store **out, uint32_t vocab, size_t max_bytes, struct err *e) {
    struct draft_store *s = calloc(1, sizeof *s);
    (void)e;
    s->t.bits = NGRAM_MIN_BITS;
    while (ngram_bytes(s->t.bits + 1) <= max_bytes) s->t.bits++;
    s->t.slots = mmap(NULL, ngram_bytes(s->t.bits), PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    s->vocab = vocab;
    *out = s;
    return 0;
}
void draft_store_close(struct draft_store *s) { if (!s) return; munmap(s->t.slots, ngram_bytes(s->t.bits)); free(s); }
int draft_store_learn(struct draft_store *s, const uint32_t *tokens, uint32_t n, struct err *e) {
    (void)e;
    for (uint32_t i = 0; i < n; i++) {
        struct contexts c;
        contexts_of(&c, tokens, i);
        for (int k = 0; k < N_CONTEXTS; k++)
            if (c.have & draft_store_contexts & 1u << k)
                ngram_add(&s->t, c.hash[k], context_lines(k), tokens[i], 1, 256);
    }
    s->n += n;
    return 0;
}
uint64_t draft_store_tokens(const struct draft_store *s) { return s->n; }
const struct ngram_table *draft_store_table(const struct draft_store *s) { return &s->t; }
const struct blend_shares *draft_store_shares(const struct draft_store *s) { return s->have ? &s->w : NULL; }
void draft_store_keep_shares(struct draft_store *s, const struct blend_shares *w) { s->w = *w; s->have = 1; }
