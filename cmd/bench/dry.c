#include "cmd/bench/dry.h"

#include "cmd/bench/traces.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/draft/draft.h"
#include "core/draft/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <yyjson.h>

/* What is counted. An answer of T tokens stands behind its prompt; nothing of it is known but what was committed. A
 * step is one round trip, stop and wait: a window of at most `nodes` drafted tokens, a tree below the last committed
 * one, goes out; the path of the tree that the recorded answer follows (a tokens) and the token behind it are
 * committed, a + 1 in all, and the next step begins. So each window brings one token that was not drafted: it ends in a
 * miss, or below a leaf of the window. The first window goes out with the prompt; the answer's end is not guessed.
 *
 *     tokens_per_round_trip = tokens / steps = E[accepted + 1]        miss_rate = steps / tokens
 *
 * A drafter is new for each answer: it knows the prompt, the answer so far and, where there is one, the store. A store
 * is primed from answers to other prompts only: the prompts that are measured are dealt into folds, and for each fold
 * everything in the priming files with one of its prompts is left out. */
enum { MAX_SIZES = 16, MAX_NODES = 512, TEACH_EVERY = 8, TEACH_MAX = 8192 };
enum { ALL = 1u << DRAFT_SUFFIX | 1u << DRAFT_NGRAM | 1u << DRAFT_STORE /* those that need no model */ };
static const size_t STORE_BYTES = (size_t)64 << 20;

struct row {
    const char *mode, *source;
    int nodes;
    long long tokens, steps;
    double draft_ms;
};

struct dry {
    const struct bench_dry_opts *o;
    struct traces replay, prime;
    uint32_t vocab;
    int sizes[MAX_SIZES], n_sizes;
    int folds;
    int every; /* one answer in so many is measured */
    struct row rows[8 * MAX_SIZES];
    int n_rows;
    struct progress progress;
    uint64_t done, all;
};

#define AT(field) .offset = offsetof(struct bench_dry_opts, field)
const struct opt bench_dry_options[] = {
    {"dry", NULL, "without a model: tokens per round trip of each source and tree size, stop and wait", OPT_FLAG,
     AT(dry)},
    {"replay", "FILE", "recorded answers: lines of {\"id\", \"prompt\", \"output\"}", OPT_STRING, AT(replay)},
    {"tokenizer", "FILE|DIR", "their tokenizer, or with a model the one to take instead of its own", OPT_STRING,
     AT(tokenizer)},
    {"prime", "FILE",
     "answers or text that the store learns first; the prompts being measured are left out (may be given several "
     "times)",
     OPT_STRINGS, AT(prime)},
    {"nodes", "N,N...", "drafted tokens of a window, or with a model guesses in flight (then 64 if not given)",
     OPT_STRING, AT(nodes), .def = "4,8,16,32,64"},
    {"answers", "N", "measure at most so many answers, spread over the file; 0: all, or 8 with a model", OPT_INT,
     AT(answers), .def = "0", .min = 0, .max = 1 << 20},
    {"folds", "N", "parts into which the prompts are dealt, each measured with a store that the other parts primed",
     OPT_INT, AT(folds), .def = "20", .min = 2, .max = 1000},
    {0},
};
#undef AT

static int parse_sizes(struct dry *d, struct err *e) {
    const char *s = d->o->nodes;
    for (;;) {
        char *end;
        errno = 0;
        long v = strtol(s, &end, 10);
        if (end == s || errno || v < 1 || v > MAX_NODES || (*end != ',' && *end != '\0') || d->n_sizes == MAX_SIZES)
            return err_set(e, ERR_USAGE, "--nodes %s: up to %d numbers from 1 to %d, with commas between them",
                           d->o->nodes, MAX_SIZES, MAX_NODES);
        d->sizes[d->n_sizes++] = (int)v;
        if (*end == '\0')
            return 0;
        s = end + 1;
    }
}

static int tick(struct dry *d, struct err *e) {
    progress_show(&d->progress, ++d->done, d->all);
    return interrupt_asked() ? err_set(e, ERR_IO, "stopped") : 0;
}

/* Drafted tokens that the answer follows from position at on. */
static uint32_t follow(const struct draft_node *tree, int n, const struct trace *t, uint32_t at) {
    int node = -1;
    uint32_t a = 0;
    for (int i = 0; i < n && at + a < t->n; i++) {
        if (tree[i].parent == node && tree[i].token == t->tokens[at + a]) {
            node = i;
            a++;
        }
    }
    return a;
}

static int measure_answer(const struct dry *b, const struct trace *t, struct draft_store *store, unsigned sources,
                          struct row *row, struct err *e) {
    struct draft_node tree[MAX_NODES];
    struct drafter *d;
    uint32_t at = t->n_prompt;
    struct drafter_opts o = {.vocab = b->vocab, .max_ctx = t->n, .sources = sources, .store = store};
    if (drafter_create(&d, &o, e) != 0)
        return -1;
    drafter_sync(d, t->tokens, at);
    double t0 = clock_ms();
    while (at < t->n) {
        drafter_sync(d, t->tokens, at);
        int n = draft_tree_grow(d, NULL, 0, tree, 0, row->nodes, 0);
        uint32_t a = follow(tree, n, t, at);
        at += a + 1 < t->n - at ? a + 1 : t->n - at;
        row->steps++;
    }
    row->draft_ms += clock_ms() - t0;
    row->tokens += t->n - t->n_prompt;
    drafter_free(d);
    return 0;
}

/* The reference's drafts (coder903/split-inference): the n-grams of prompt and answer under their first token, of which
 * the five oldest that start with the last token are candidates, checked one by one: here as branches of one window. */
static void measure_reference(const struct trace *t, int order, struct row *row) {
    enum { CANDIDATES = 5 };
    uint32_t at = t->n_prompt;
    while (at < t->n) {
        uint32_t best = 0, found = 0;
        for (uint32_t i = 0; i + (uint32_t)order <= at && found < CANDIDATES; i++) {
            if (t->tokens[i] != t->tokens[at - 1])
                continue;
            uint32_t a = 0;
            while (a + 1 < (uint32_t)order && at + a < t->n && t->tokens[i + 1 + a] == t->tokens[at + a])
                a++;
            best = a > best ? a : best;
            bool seen = false;
            for (uint32_t j = 0; j < i && !seen; j++)
                seen = memcmp(t->tokens + j, t->tokens + i, (size_t)order * sizeof *t->tokens) == 0;
            found += !seen;
        }
        at += best + 1 < t->n - at ? best + 1 : t->n - at;
        row->steps++;
    }
    row->tokens += t->n - t->n_prompt;
}

static int fold_of(const struct dry *d, const struct trace *t) {
    return (int)((t->prompt_hash >> 17) % (uint64_t)d->folds);
}

static bool measured(const struct dry *d, int i) {
    return i % d->every == 0 && d->replay.at[i].n > d->replay.at[i].n_prompt;
}

static bool is_replayed(const struct dry *d, uint64_t hash) {
    for (int i = 0; i < d->replay.n; i++)
        if (d->replay.at[i].prompt_hash == hash)
            return true;
    return false;
}

/* The sample of answers that teaches the store how far to trust it: the last ones, before the store has learned them.
 */
static int prime(const struct dry *d, int fold, const bool *held, struct draft_store *s, struct err *e) {
    struct drafter *dr = NULL;
    int rc = -1;
    for (int i = 0; i < d->prime.n; i++) {
        const struct trace *t = &d->prime.at[i];
        if (held[i] && fold_of(d, t) == fold)
            continue;
        if (i % TEACH_EVERY == TEACH_EVERY - 1 && i > d->prime.n / 2 && t->n <= TEACH_MAX) {
            struct drafter_opts o = {.vocab = d->vocab, .max_ctx = t->n, .sources = ALL, .store = s};
            if (drafter_create(&dr, &o, e) != 0)
                goto out;
            for (uint32_t n = t->n_prompt; n <= t->n; n++)
                drafter_sync(dr, t->tokens, n);
            drafter_teach(dr);
            drafter_free(dr);
            dr = NULL;
        }
        if (draft_store_learn(s, t->tokens, t->n, e) != 0)
            goto out;
    }
    rc = 0;
out:
    drafter_free(dr);
    return rc;
}

static struct row *row_new(struct dry *d, const char *mode, const char *source, int nodes) {
    d->rows[d->n_rows] = (struct row){.mode = mode, .source = source, .nodes = nodes};
    return &d->rows[d->n_rows++];
}

static int measure_drafts(struct dry *d, const char *source, unsigned sources, bool with_store, const bool *held,
                          struct err *e) {
    struct draft_store *store = NULL;
    struct row *rows = &d->rows[d->n_rows];
    int rc = -1;
    for (int k = 0; k < d->n_sizes; k++)
        row_new(d, "auto", source, d->sizes[k]);
    for (int f = 0; f < d->folds; f++) {
        if (with_store &&
            (draft_store_create(&store, &(struct draft_store_opts){.vocab = d->vocab, .table_bytes = STORE_BYTES}, e) !=
                 0 ||
             prime(d, f, held, store, e) != 0))
            goto out;
        for (int i = 0; i < d->replay.n; i++) {
            if (!measured(d, i) || fold_of(d, &d->replay.at[i]) != f)
                continue;
            for (int k = 0; k < d->n_sizes; k++)
                if (measure_answer(d, &d->replay.at[i], store, sources, &rows[k], e) != 0)
                    goto out;
            if (tick(d, e) != 0)
                goto out;
        }
        draft_store_close(store);
        store = NULL;
    }
    rc = 0;
out:
    draft_store_close(store);
    return rc;
}

static int print_json(const struct dry *d, struct err *e) {
    struct utsname u = {0};
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    yyjson_mut_val *m = yyjson_mut_obj_add_obj(doc, o, "machine");
    uname(&u);
    yyjson_mut_obj_add_strcpy(doc, m, "system", u.sysname);
    yyjson_mut_obj_add_strcpy(doc, m, "arch", u.machine);
    yyjson_mut_obj_add_int(doc, m, "processors", sysconf(_SC_NPROCESSORS_ONLN));
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, o, "rows");
    for (int i = 0; i < d->n_rows; i++) {
        static const char *const absent[] = {"rtt_ms",          "mbit",     "codec",     "category", "tok_s",
                                             "predicted_tok_s", "bytes_up", "bytes_down"};
        const struct row *r = &d->rows[i];
        yyjson_mut_val *x = yyjson_mut_arr_add_obj(doc, rows);
        yyjson_mut_obj_add_str(doc, x, "mode", r->mode);
        yyjson_mut_obj_add_str(doc, x, "source", r->source);
        yyjson_mut_obj_add_int(doc, x, "nodes", r->nodes);
        yyjson_mut_obj_add_int(doc, x, "tokens", r->tokens);
        yyjson_mut_obj_add_int(doc, x, "steps", r->steps);
        yyjson_mut_obj_add_real(doc, x, "tokens_per_round_trip", (double)r->tokens / (double)r->steps);
        yyjson_mut_obj_add_real(doc, x, "miss_rate", (double)r->steps / (double)r->tokens);
        if (r->draft_ms > 0) /* drafting is all there is of it here */
            yyjson_mut_obj_add_real(doc, x, "overhead_ms", r->draft_ms / (double)r->steps);
        else
            yyjson_mut_obj_add_null(doc, x, "overhead_ms");
        for (size_t k = 0; k < sizeof absent / sizeof *absent; k++)
            yyjson_mut_obj_add_null(doc, x, absent[k]);
    }
    char *text = yyjson_mut_write(doc, 0, NULL);
    yyjson_mut_doc_free(doc);
    if (!text)
        return err_set(e, ERR_MEMORY, "out of memory");
    puts(text);
    free(text);
    return 0;
}

static void print_table(const struct dry *d) {
    printf("%-12s %-14s %5s %9s %9s %12s %10s\n", "mode", "source", "nodes", "tokens", "steps", "tokens/trip",
           "ms/token");
    for (int i = 0; i < d->n_rows; i++) {
        const struct row *r = &d->rows[i];
        printf("%-12s %-14s %5d %9lld %9lld %12.3f %10.4f\n", r->mode, r->source, r->nodes, r->tokens, r->steps,
               (double)r->tokens / (double)r->steps, r->draft_ms / (double)r->tokens);
    }
}

int bench_dry(const struct bench_dry_opts *o, struct err *e) {
    struct dry d = {.o = o};
    struct tokenizer *tok = NULL;
    bool *held = NULL;
    int rc = -1;
    if (!o->replay || !o->tokenizer)
        return err_set(e, ERR_USAGE,
                       "--dry needs recorded answers (--replay FILE) and their tokenizer (--tokenizer FILE|DIR)");
    if (parse_sizes(&d, e) != 0 || tokenizer_open(&tok, o->tokenizer, e) != 0 ||
        traces_read(&d.replay, o->replay, tok, e) != 0)
        goto out;
    d.vocab = tokenizer_n(tok);
    for (int i = 0; i < o->prime.n; i++)
        if (traces_read(&d.prime, o->prime.p[i], tok, e) != 0)
            goto out;
    d.every = o->answers > 0 && o->answers < d.replay.n ? d.replay.n / o->answers : 1;
    held = calloc((size_t)d.prime.n + 1, sizeof *held);
    if (!held) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    d.folds = 1;
    for (int i = 0; i < d.prime.n; i++) {
        held[i] = is_replayed(&d, d.prime.at[i].prompt_hash);
        if (held[i])
            d.folds = o->folds;
    }
    static const int orders[] = {3, 5, 7};
    static const char *const names[] = {"n=3", "n=5", "n=7"};
    int n_measured = 0;
    for (int i = 0; i < d.replay.n; i++)
        n_measured += measured(&d, i);
    d.all = (uint64_t)n_measured * (o->prime.n ? 5 : 3);
    if (n_measured == 0) {
        err_set(e, ERR_USAGE, "--replay %s: no answer in it", o->replay);
        goto out;
    }
    progress_start(&d.progress, "replaying", "answers");
    for (int k = 0; k < 3; k++) {
        struct row *r = row_new(&d, "reference", names[k], 5 * (orders[k] - 1));
        for (int i = 0; i < d.replay.n; i++)
            if (measured(&d, i))
                measure_reference(&d.replay.at[i], orders[k], r);
    }
    if ((measure_drafts(&d, "suffix", 1u << DRAFT_SUFFIX, false, held, e) != 0 ||
         measure_drafts(&d, "ngram", 1u << DRAFT_NGRAM, false, held, e) != 0))
        goto out;
    if (measure_drafts(&d, "suffix+ngram", 1u << DRAFT_SUFFIX | 1u << DRAFT_NGRAM, false, held, e) != 0)
        goto out;
    if (d.prime.n > 0 && (measure_drafts(&d, "store", 1u << DRAFT_STORE, true, held, e) != 0 ||
                          measure_drafts(&d, "all", ALL, true, held, e) != 0))
        goto out;
    progress_end(&d.progress, 0);
    rc = o->json ? print_json(&d, e) : 0;
    if (!o->json)
        print_table(&d);
out:
    free(held);
    traces_free(&d.replay);
    traces_free(&d.prime);
    tokenizer_free(tok);
    return rc;
}
