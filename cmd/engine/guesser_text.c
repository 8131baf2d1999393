#include "cmd/engine/guesser_text.h"

#include "core/base/wipe.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of text behind the last cut: cut when there are more than TAIL_MAX, so that TAIL_MIN stay, or inside a word
 * that is TAIL_LONGEST. Tokens of one chain; small tokens that are followed for it at most. */
enum { TAIL_MIN = 24, TAIL_MAX = 96, TAIL_LONGEST = 1536, CHAIN = 48, FOLLOWED = 16 };

struct guesser_text {
    const struct tokenizer *large, *small;
    struct small_model *model;
    struct ids seen; /* tokens of the large model */
    struct tok_stream stream;
    struct wbuf tail;  /* text behind the last cut */
    struct ids before; /* small tokens up to there: the small model's context, never empty */
    bool cut;          /* there is text in it */
    /* What follows seen[0..chain_at), p < 0 where that is not known. */
    uint32_t chain_at;
    int n_chain;
    uint32_t chain[CHAIN];
    float p[CHAIN];
    /* Scratch. */
    struct ids path, made;
    struct wbuf text, said;
};

int guesser_text_create(struct guesser_text **out, const struct tokenizer *large, const struct tokenizer *small,
                        struct small_model *m, struct err *e) {
    struct guesser_text *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_MEMORY, "out of memory");
    g->large = large;
    g->small = small;
    g->model = m;
    *out = g;
    return 0;
}

void guesser_text_free(struct guesser_text *g) {
    if (!g)
        return;
    ids_free(&g->seen);
    ids_free(&g->before);
    ids_free(&g->path);
    ids_free(&g->made);
    wbuf_free(&g->tail);
    wbuf_free(&g->text);
    wbuf_free(&g->said);
    wipe_free(g, sizeof *g);
}

static bool starts_word(uint8_t c) {
    return c == ' ' || c == '\n';
}

/* Puts all but the end of the tail into small tokens. */
static int cut_tail(struct guesser_text *g, struct err *e) {
    if (g->tail.n <= TAIL_MAX)
        return 0;
    size_t at = g->tail.n - TAIL_MIN;
    while (at > 0 && !starts_word(g->tail.p[at]))
        at--;
    if (at == 0 && g->tail.n < TAIL_LONGEST)
        return 0; /* a long word */
    if (at == 0)
        at = g->tail.n - TAIL_MIN;
    if (tokenizer_encode(g->small, (const char *)g->tail.p, at, g->cut ? TOK_CONTINUE : 0, &g->before, e) != 0)
        return -1;
    g->cut = true;
    memmove(g->tail.p, g->tail.p + at, g->tail.n - at);
    g->tail.n -= at;
    return 0;
}

/* Does what was said since follow the chain? */
static bool chain_holds(const struct guesser_text *g) {
    uint32_t n = (uint32_t)g->seen.n;
    return g->n_chain > 0 && g->chain_at <= n && n - g->chain_at <= (uint32_t)g->n_chain &&
           memcmp(g->chain, g->seen.p + g->chain_at, (n - g->chain_at) * sizeof *g->chain) == 0;
}

static int start_again(struct guesser_text *g, struct err *e) {
    ids_clear(&g->seen);
    ids_clear(&g->before);
    wbuf_clear(&g->tail);
    tok_stream_init(&g->stream, g->large, false, false);
    g->n_chain = 0;
    g->cut = false;
    if (tokenizer_encode(g->small, "", 0, TOK_BOS, &g->before, e) != 0)
        return -1;
    if (g->before.n == 0) /* families without a token to start from use the one between texts */
        ids_push(&g->before, tokenizer_eos(g->small) >= 0 ? (uint32_t)tokenizer_eos(g->small) : 0);
    return 0;
}

int guesser_text_sync(struct guesser_text *g, const uint32_t *tokens, uint32_t n, struct err *e) {
    size_t same = 0;
    while (same < n && same < g->seen.n && tokens[same] == g->seen.p[same])
        same++;
    if ((same < g->seen.n || same == 0) && start_again(g, e) != 0) /* once for each turn at most */
        return -1;
    for (size_t i = g->seen.n; i < n; i++) {
        ids_push(&g->seen, tokens[i]);
        if (tokens[i] < tokenizer_n(g->large))
            tok_stream_put(&g->stream, tokens[i], &g->tail);
    }
    if (cut_tail(g, e) != 0)
        return -1;
    if (g->seen.bad || g->before.bad || g->tail.bad)
        return err_set(e, ERR_MEMORY, "out of memory for the text of a conversation");
    if (!chain_holds(g))
        g->n_chain = 0;
    small_model_context(g->model, g->before.p, (uint32_t)g->before.n);
    return 0;
}

/* The small model's tokens of the text behind its context: the tail, and what path (large tokens) says. */
static int small_path(struct guesser_text *g, const uint32_t *path, int n) {
    struct tok_stream s = g->stream;
    struct err e = {0};
    wbuf_clear(&g->text);
    wbuf_put(&g->text, g->tail.p, g->tail.n);
    for (int i = 0; i < n; i++)
        if (path[i] < tokenizer_n(g->large))
            tok_stream_put(&s, path[i], &g->text);
    ids_clear(&g->path);
    if (g->text.bad ||
        tokenizer_encode(g->small, (const char *)g->text.p, g->text.n, g->cut ? TOK_CONTINUE : 0, &g->path, &e) != 0)
        return -1;
    return g->path.n + FOLLOWED <= SMALL_DEPTH ? 0 : -1;
}

/* What the small model says next, and with which probability; ends[i] is where token i ends in g->said. Returns how
 * many tokens: to the end of a word, or 0: it did not come to one. *n_text: of the words that are whole. */
static int follow(struct guesser_text *g, int (*look)(void *ctx, const uint32_t *path, int n), void *ctx, float *p,
                  size_t *ends, size_t *n_text) {
    struct tok_stream s;
    int n = 0;
    *n_text = 0;
    wbuf_clear(&g->said);
    tok_stream_init(&s, g->small, false, true);
    for (; n < FOLLOWED; n++) {
        const struct small_answer *a = small_model_known(g->model, g->path.p, (int)g->path.n);
        if (!a && look && look(ctx, g->path.p, (int)g->path.n) == 0)
            a = small_model_known(g->model, g->path.p, (int)g->path.n);
        if (!a || a->n == 0 || tokenizer_is_special(g->small, a->token[0]) || a->token[0] >= tokenizer_n(g->small))
            break;
        size_t before = g->said.n;
        p[n] = a->p[0];
        ids_push(&g->path, a->token[0]);
        tok_stream_put(&s, a->token[0], &g->said);
        ends[n] = g->said.n;
        if (before > 0 && g->said.n > before && starts_word(g->said.p[before]))
            *n_text = before; /* what stands before this token is whole */
    }
    return g->path.bad || g->said.bad ? 0 : n;
}

/* The text of a large token that stands behind others. */
static size_t length_of(struct guesser_text *g, uint32_t token) {
    struct tok_stream s;
    tok_stream_init(&s, g->large, false, true);
    wbuf_clear(&g->text);
    tok_stream_put(&s, token, &g->text);
    return g->text.n;
}

/* Makes the chain longer behind path, which it ends with. */
static void extend(struct guesser_text *g, const uint32_t *path, int n,
                   int (*look)(void *ctx, const uint32_t *path, int n), void *ctx) {
    float p[FOLLOWED];
    size_t ends[FOLLOWED], n_text, at = 0;
    struct err e = {0};
    int k = small_path(g, path, n) == 0 ? follow(g, look, ctx, p, ends, &n_text) : 0, next = 0;
    if (k == 0 || n_text == 0)
        return;
    ids_clear(&g->made);
    if (tokenizer_encode(g->large, (const char *)g->said.p, n_text, TOK_CONTINUE, &g->made, &e) != 0)
        return;
    for (size_t i = 0; i < g->made.n && g->n_chain < CHAIN; i++) {
        float q = 1;
        at += length_of(g, g->made.p[i]);
        for (; next < k && ends[next] <= at; next++)
            q *= p[next];
        g->chain[g->n_chain] = g->made.p[i];
        g->p[g->n_chain++] = q;
    }
}

bool guesser_text_next(struct guesser_text *g, const uint32_t *path, int n,
                       int (*look)(void *ctx, const uint32_t *path, int n), void *ctx, uint32_t *token, float *p) {
    uint32_t seen = (uint32_t)g->seen.n;
    if (n < 0 || n >= CHAIN)
        return false;
    if (g->n_chain == 0 && n == 0)
        g->chain_at = seen;
    int at = (int)(seen - g->chain_at); /* of the chain, where path begins */
    if (at < 0 || at + n > g->n_chain || memcmp(g->chain + at, path, (size_t)n * sizeof *path) != 0)
        return false;
    if (at + n == g->n_chain && look) {
        if (at > 0) { /* what was said is no part of it any more */
            memmove(g->chain, g->chain + at, (size_t)n * sizeof *g->chain);
            memmove(g->p, g->p + at, (size_t)n * sizeof *g->p);
            g->n_chain = n;
            g->chain_at = seen;
            at = 0;
        }
        extend(g, path, n, look, ctx);
    }
    if (at + n >= g->n_chain)
        return false;
    *token = g->chain[at + n];
    *p = g->p[at + n];
    return true;
}
