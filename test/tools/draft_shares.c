/* test/tools/draft_shares.c - learns the shares that a drafter starts with from recorded answers, and writes
 * core/draft/shares.c on standard output:
 *
 *   draft_shares TOKENIZER HALF FILE... >core/draft/shares.c
 *
 * HALF: 0 or 1 takes the prompts whose hash is even or odd, so that the others can show whether the shares hold beyond
 * what they were learned from; 2 takes all. The store grows answer by answer, so each is new to it: files should not
 * answer the same prompts. */
#include "cmd/bench/traces.h"
#include "core/draft/drafter.h"
#include "core/draft/store.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    struct tokenizer *tok = NULL;
    struct traces t = {0};
    struct err e = {0};
    if (argc < 4 || tokenizer_open(&tok, argv[1], &e) != 0)
        return fprintf(stderr, "draft_shares TOKENIZER HALF FILE...\n%s\n", e.msg), 1;
    for (int i = 3; i < argc; i++)
        if (traces_read(&t, argv[i], tok, &e) != 0)
            return fprintf(stderr, "%s\n", e.msg), 1;
    puts("/* Made by test/tools/draft_shares.c: the shares of the experts in 1/255, without a store and with one. */\n"
         "#include \"core/draft/blend.h\"\n\n"
         "const uint8_t blend_start[2][BLEND_EXPERTS][BLEND_BUCKETS] = {");
    for (int with = 0; with < 2; with++) {
        struct draft_store *store = NULL;
        struct blend_shares shares;
        bool first = true;
        if (with && draft_store_create(
                        &store, &(struct draft_store_opts){.vocab = tokenizer_n(tok), .table_bytes = (size_t)64 << 20},
                        &e) != 0)
            return fprintf(stderr, "%s\n", e.msg), 1;
        for (int i = 0; i < t.n; i++) {
            const struct trace *a = &t.at[i];
            struct drafter *d;
            struct drafter_opts o = {.vocab = tokenizer_n(tok),
                                     .max_ctx = a->n,
                                     .store = store,
                                     .sources = 1u << DRAFT_SUFFIX | 1u << DRAFT_NGRAM | 1u << DRAFT_STORE};
            if (atoi(argv[2]) < 2 && (int)(a->prompt_hash >> 40 & 1) != atoi(argv[2]))
                continue;
            if (drafter_create(&d, &o, &e) != 0)
                return fprintf(stderr, "%s\n", e.msg), 1;
            d->memory = 1e9f;
            if (!first)
                d->shares = shares;
            for (uint32_t n = a->n_prompt; n <= a->n; n++)
                drafter_sync(d, a->tokens, n);
            shares = d->shares;
            first = false;
            drafter_free(d);
            if (store && draft_store_learn(store, a->tokens, a->n, &e) != 0)
                return fprintf(stderr, "%s\n", e.msg), 1;
        }
        puts("    {");
        for (int x = 0; !first && x < BLEND_EXPERTS; x++) {
            printf("        {");
            for (int b = 0; b < BLEND_BUCKETS; b++)
                printf("%d%s", (int)(255 * shares.at[x][b].hit / shares.at[x][b].n),
                       b + 1 < BLEND_BUCKETS ? ", " : "},\n");
        }
        puts("    },");
        draft_store_close(store);
    }
    puts("};");
    traces_free(&t);
    tokenizer_free(tok);
    return 0;
}
