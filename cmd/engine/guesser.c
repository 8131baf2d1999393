#include "cmd/engine/guesser.h"

#include "cmd/engine/guesser_text.h"
#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/wipe.h"
#include "core/decode/small_model.h"
#include "core/draft/effort.h"
#include "core/draft/ngram.h"
#include "core/model/weights.h"

#include <stdlib.h>
#include <string.h>

/* Rows of a pass over the context; what reading it may take, so that nobody waits for guesses. */
enum { MAX_ROWS = 64 };
static const double READ_MOST_MS = 1500;

struct guesser {
    struct guesser_opts o;
    struct weights *weights;
    struct tokenizer *tok; /* its own; NULL: that of the large model */
    uint32_t ctx;
    struct part part;
    struct stage *stage;
    struct small_model *model; /* NULL: not loaded */
    bool failed;
    struct guesser_text *text;
    struct effort effort;
    uint32_t n;              /* tokens at the last sync */
    int left;                /* passes that may still be spent on this token */
    bool free;               /* nobody waits for the next one */
    bool turn;               /* it was not asked yet since the turn began */
    double told_ms, read_ms; /* when that was; of it spent on reading a turn's prompt, which is done once */
    double row_ms;           /* of a row when it reads; 0: not known */
    double piece_ms;         /* when the last piece was begun; 0: none was */
    struct guesser_stats stats;
};

int guesser_open(struct guesser **out, const struct guesser_opts *o, struct err *e) {
    struct guesser *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_MEMORY, "out of memory");
    g->o = *o;
    if (weights_open(&g->weights, o->path, e) != 0)
        goto fail;
    const struct model_config *c = weights_config(g->weights);
    const struct gguf *file = weights_gguf(g->weights);
    if (!file && !file_is_dir(o->path)) {
        err_set(e, ERR_USAGE, "--draft %s has no tokenizer: a directory or a .gguf file with one is needed", o->path);
        goto fail;
    }
    if (file ? tokenizer_from_gguf(&g->tok, file, e) : tokenizer_open(&g->tok, o->path, e))
        goto fail;
    if (tokenizer_n(g->tok) > (uint32_t)c->vocab) {
        err_set(e, ERR_MODEL, "the tokenizer of %s has %u tokens, but its model knows only %d", o->path,
                tokenizer_n(g->tok), c->vocab);
        goto fail;
    }
    g->stats.same_tokenizer = tokenizer_hash(g->tok) == tokenizer_hash(o->tok);
    if (g->stats.same_tokenizer) {
        tokenizer_free(g->tok);
        g->tok = NULL;
    }
    g->ctx = (uint32_t)c->max_ctx < o->ctx ? (uint32_t)c->max_ctx : o->ctx;
    g->part = (struct part){.lo = 0, .hi = c->n_layers, .embed = true, .head = true};
    *out = g;
    return 0;
fail:
    guesser_free(g);
    return -1;
}

int guesser_bytes(const struct guesser *g, bool card, struct guesser_bytes *bytes, struct err *e) {
    const struct part parts[3] = {g->part, {0}, {0}};
    const enum quant quant[3] = {QUANT_NONE, QUANT_NONE, QUANT_NONE};
    struct memory_plan plan;
    if (memory_plan(&plan, g->weights, parts, quant, g->o.kv, small_model_slots(g->ctx, MAX_ROWS), MAX_ROWS, card, e) !=
        0)
        return -1;
    bytes->stage = plan.weights + plan.kv + plan.scratch;
    bytes->beside = small_model_bytes(weights_config(g->weights), g->ctx, MAX_ROWS);
    return 0;
}

int guesser_load(struct guesser *g, struct backend *b, struct err *e) {
    const struct load_opts lo = {.max_rows = MAX_ROWS};
    if (b->ops->stage_load(b, g->weights, &g->part, &lo, &g->stage, e) != 0)
        return -1;
    const struct small_model_opts so = {.stage = g->stage, .kv_type = g->o.kv, .max_ctx = g->ctx, .max_rows = MAX_ROWS};
    if (small_model_create(&g->model, &so, e) != 0)
        return -1;
    return g->tok ? guesser_text_create(&g->text, g->o.tok, g->tok, g->model, e) : 0;
}

void guesser_free(struct guesser *g) {
    if (!g)
        return;
    guesser_text_free(g->text);
    small_model_free(g->model);
    if (g->stage)
        g->stage->ops->stage_free(g->stage);
    tokenizer_free(g->tok);
    if (g->weights)
        weights_close(g->weights);
    wipe_free(g, sizeof *g);
}

static void give_up(struct guesser *g, const struct err *e) {
    term_warn("the model of --draft guesses no more: %s", e->msg);
    g->failed = true;
}

/* Before each piece of a long context: would the rest of it take too long? */
static int stop_reading(void *ctx) {
    struct guesser *g = ctx;
    double now = clock_ms();
    if (g->piece_ms > 0)
        g->row_ms = (now - g->piece_ms) / MAX_ROWS;
    g->piece_ms = now;
    return interrupt_asked() || g->row_ms * small_model_missing(g->model) > READ_MOST_MS;
}

/* A pass behind the small model's own context and a path of its own tokens, while there are some left. */
static int look(void *ctx, const uint32_t *path, int n) {
    struct guesser *g = ctx;
    struct err e = {0};
    if ((g->left <= 0 && !g->free) || g->failed || g->row_ms * small_model_missing(g->model) > READ_MOST_MS)
        return -1;
    g->piece_ms = 0;
    uint64_t before = small_model_passes(g->model);
    double t0 = clock_ms();
    int rc = small_model_look(g->model, path, n, stop_reading, g, &e);
    double ms = clock_ms() - t0;
    uint64_t passes = small_model_passes(g->model) - before;
    g->left -= !g->free;
    g->stats.ms += ms;
    g->stats.passes += passes;
    if (rc != 0) {
        g->left = 0; /* ERR_USAGE: what stands there is beyond it; ERR_NONE: it would take too long */
        if (e.kind != ERR_NONE && e.kind != ERR_USAGE)
            give_up(g, &e);
        return -1;
    }
    bool prompt = g->turn && passes > 1;
    g->turn = false;
    if (prompt)
        g->read_ms += ms;
    else if (passes == 1)
        effort_pass(&g->effort, ms);
    return 0;
}

/* Tokens come one by one while an answer is written; anything else is another turn, whose time is somebody's typing. */
static void on_sync(void *ctx, const uint32_t *tokens, uint32_t n) {
    struct guesser *g = ctx;
    struct err e = {0};
    double now = clock_ms();
    if (!g->model || g->failed)
        return;
    if (n != g->n + 1) {
        g->turn = true;
        g->row_ms /= 2; /* the machine may only have been busy */
    } else if (g->told_ms > 0) {
        effort_token(&g->effort, now - g->told_ms - g->read_ms);
    }
    g->told_ms = now;
    g->read_ms = 0;
    g->n = n;
    g->left = effort_passes(&g->effort);
    if (!g->text)
        small_model_context(g->model, tokens, n);
    else if (guesser_text_sync(g->text, tokens, n, &e) != 0)
        give_up(g, &e);
}

static uint32_t as_count(float p) {
    float c = p * 65535;
    return c >= 65535 ? 65535 : c >= 1 ? (uint32_t)c : 0;
}

static int next_by_text(struct guesser *g, const uint32_t *path, int n, bool compute, struct ngram_succ *out) {
    float p;
    if (!guesser_text_next(g->text, path, n, compute ? look : NULL, g, &out[0].token, &p))
        return 0;
    out[0].count = as_count(p);
    return out[0].token < g->o.vocab && out[0].count > 0;
}

static int on_next(void *ctx, const uint32_t *path, int n, enum draft_compute how, struct ngram_succ *out, int cap) {
    struct guesser *g = ctx;
    bool compute = how != DRAFT_KNOWN;
    int k = 0;
    if (!g->model || g->failed || cap < 1 || n > SMALL_DEPTH)
        return 0;
    /* Behind another tokenizer a word takes as many passes as it takes, and may not end: that is never free. */
    g->free = how == DRAFT_FREE && !g->text;
    if (g->text)
        return next_by_text(g, path, n, compute, out);
    const struct small_answer *a = small_model_known(g->model, path, n);
    if (!a && compute && look(g, path, n) == 0)
        a = small_model_known(g->model, path, n);
    for (int i = 0; a && i < a->n && k < cap; i++) {
        out[k] = (struct ngram_succ){a->token[i], as_count(a->p[i])};
        k += out[k].token < g->o.vocab && out[k].count > 0;
    }
    return k;
}

struct draft_model guesser_source(struct guesser *g) {
    return (struct draft_model){.ctx = g, .sync = on_sync, .next = on_next};
}

void guesser_stats(const struct guesser *g, struct guesser_stats *s) {
    *s = g->stats;
    s->pass_ms = g->effort.pass_ms;
    s->effort = effort_passes(&g->effort);
}
