#include "cmd/bench/dry.h"

#include "cmd/bench/drafts.h"
#include "cmd/bench/lists.h"
#include "cmd/bench/prime.h"
#include "cmd/bench/report.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"

#include <stdlib.h>

/* A store is primed from answers to other prompts only: the prompts that are measured are dealt into folds, and for
 * each fold everything in the priming files with one of its prompts is left out. So every figure is a leave-out
 * figure. */
enum { WITHOUT_MODEL = 1u << DRAFT_SUFFIX | 1u << DRAFT_NGRAM | 1u << DRAFT_STORE };

static const struct drafts {
    const char *source;
    unsigned sources;
    bool store;
} all_drafts[] = {
    {"suffix", 1u << DRAFT_SUFFIX, false},
    {"ngram", 1u << DRAFT_NGRAM, false},
    {"suffix+ngram", 1u << DRAFT_SUFFIX | 1u << DRAFT_NGRAM, false},
    {"store", 1u << DRAFT_STORE, true},
    {"all", WITHOUT_MODEL, true},
};
enum { N_DRAFTS = sizeof all_drafts / sizeof *all_drafts };

struct dry {
    const struct bench_dry_opts *o;
    struct traces replay, prime;
    uint32_t vocab;
    double sizes[BENCH_LIST];
    int n_sizes, folds;
    int every;  /* one answer in so many is measured */
    bool *held; /* [prime.n]: its prompt is one of those measured */
    bool *out;  /* [prime.n]: left out in this fold */
    struct bench_results results;
    struct progress progress;
    uint64_t done, all;
};

#define AT(field) .offset = offsetof(struct bench_dry_opts, field)
const struct opt bench_dry_options[] = {
    {"dry", NULL, "without a model: tokens per round trip of each source and tree size, stop and wait", OPT_FLAG,
     AT(dry)},
    {"replay", "FILE",
     "recorded answers: lines of {\"id\", \"prompt\", \"output\"}. With a model everything is computed and sent, but "
     "the "
     "answer is the recorded one, whatever the model says",
     OPT_STRING, AT(replay)},
    {"tokenizer", "FILE|DIR", "their tokenizer; with a model, taken in place of its own", OPT_STRING, AT(tokenizer)},
    {"prime", "FILE",
     "answers or text that the store learns first; the prompts being measured are left out (may be given several "
     "times)",
     OPT_STRINGS, AT(prime)},
    {"nodes", "N,N...", "drafted tokens of a window; with a model those of a tree, as many as chat takes if not given",
     OPT_STRING, AT(nodes), .def = "4,8,16,32,64"},
    {"answers", "N", "measure at most so many answers, spread over the file; 0: all, or 8 with a model", OPT_INT,
     AT(answers), .def = "0", .min = 0, .max = 1 << 20},
    {"folds", "N", "parts into which the prompts are dealt, each measured with a store that the other parts primed",
     OPT_INT, AT(folds), .def = "20", .min = 2, .max = 1000},
    {0},
};
#undef AT

static int tick(struct dry *d, struct err *e) {
    progress_show(&d->progress, ++d->done, d->all);
    return interrupt_asked() ? err_set(e, ERR_IO, "stopped") : 0;
}

static int fold_of(const struct dry *d, const struct trace *t) {
    return (int)((t->prompt_hash >> 17) % (uint64_t)d->folds);
}

static bool measured(const struct dry *d, int i) {
    return i % d->every == 0 && (!d->o->answers || i / d->every < d->o->answers) &&
           d->replay.at[i].n > d->replay.at[i].n_prompt;
}

static bool is_replayed(const struct dry *d, uint64_t hash) {
    for (int i = 0; i < d->replay.n; i++)
        if (d->replay.at[i].prompt_hash == hash)
            return true;
    return false;
}

static int measure_reference(struct dry *d, struct err *e) {
    for (int order = DRAFTS_FIRST_ORDER; order <= DRAFTS_LAST_ORDER; order++) {
        struct bench_row r = drafts_reference_row(order);
        for (int i = 0; i < d->replay.n; i++)
            if (measured(d, i))
                drafts_follow_reference(&d->replay.at[i], order, &r);
        if (bench_rows_add(&d->results.rows, &r, e) != 0)
            return -1;
    }
    return 0;
}

static int prime_fold(struct dry *d, int fold, struct draft_store **store, struct err *e) {
    for (int i = 0; i < d->prime.n; i++)
        d->out[i] = d->held[i] && fold_of(d, &d->prime.at[i]) == fold;
    return prime_store(store, d->vocab, &d->prime, d->out, e);
}

static int measure_fold(struct dry *d, const struct drafts *k, int fold, struct draft_store *store,
                        struct bench_row *rows, double *draft_ms, struct err *e) {
    const struct drafter_opts o = {.vocab = d->vocab, .sources = k->sources, .store = store};
    for (int i = 0; i < d->replay.n; i++) {
        if (!measured(d, i) || fold_of(d, &d->replay.at[i]) != fold)
            continue;
        for (int n = 0; n < d->n_sizes; n++)
            if (drafts_follow(&d->replay.at[i], &o, &rows[n], &draft_ms[n], e) != 0)
                return -1;
        if (tick(d, e) != 0)
            return -1;
    }
    return 0;
}

/* Fold by fold, since making a fold's store takes the longest. */
static int measure_drafts(struct dry *d, struct err *e) {
    struct bench_row rows[N_DRAFTS][BENCH_LIST];
    double draft_ms[N_DRAFTS][BENCH_LIST] = {0};
    int rc = 0;
    for (int k = 0; k < N_DRAFTS; k++)
        for (int n = 0; n < d->n_sizes; n++)
            rows[k][n] = bench_row_of("auto", all_drafts[k].source, (int)d->sizes[n]);
    for (int f = 0; f < d->folds && rc == 0; f++) {
        struct draft_store *store = NULL;
        rc = d->prime.n ? prime_fold(d, f, &store, e) : 0;
        for (int k = 0; k < N_DRAFTS && rc == 0; k++)
            if (store || !all_drafts[k].store)
                rc = measure_fold(d, &all_drafts[k], f, all_drafts[k].store ? store : NULL, rows[k], draft_ms[k], e);
        draft_store_close(store);
    }
    for (int k = 0; k < N_DRAFTS && rc == 0; k++)
        for (int n = 0; n < d->n_sizes && rc == 0 && rows[k][n].steps; n++) {
            rows[k][n].overhead_ms = draft_ms[k][n] / (double)rows[k][n].steps; /* drafting is all there is of it */
            rc = bench_rows_add(&d->results.rows, &rows[k][n], e);
        }
    return rc;
}

static int open_dry(struct dry *d, struct err *e) {
    const struct bench_dry_opts *o = d->o;
    struct tokenizer *tok = NULL;
    int rc = -1;
    d->n_sizes = bench_list_numbers("nodes", o->nodes, 1, DRAFTS_MAX_NODES, 1, d->sizes, e);
    if (d->n_sizes < 0 || tokenizer_open(&tok, o->tokenizer, e) != 0 || traces_read(&d->replay, o->replay, tok, e) != 0)
        goto out;
    d->vocab = tokenizer_n(tok);
    for (int i = 0; i < o->prime.n; i++)
        if (traces_read(&d->prime, o->prime.p[i], tok, e) != 0)
            goto out;
    d->every = o->answers > 0 && o->answers < d->replay.n ? d->replay.n / o->answers : 1;
    d->held = calloc((size_t)d->prime.n + 1, sizeof *d->held);
    d->out = calloc((size_t)d->prime.n + 1, sizeof *d->out);
    if (!d->held || !d->out) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    d->folds = 1;
    for (int i = 0; i < d->prime.n; i++) {
        d->held[i] = is_replayed(d, d->prime.at[i].prompt_hash);
        if (d->held[i])
            d->folds = o->folds;
    }
    for (int i = 0; i < d->replay.n; i++)
        d->all += measured(d, i);
    rc = d->all ? 0 : err_set(e, ERR_USAGE, "--replay %s: no answer in it", o->replay);
    for (int k = 0, n = (int)d->all; k < N_DRAFTS; k++)
        d->all += k && (d->prime.n || !all_drafts[k].store) ? (uint64_t)n : 0;
out:
    tokenizer_free(tok);
    return rc;
}

int bench_dry(const struct bench_dry_opts *o, struct err *e) {
    struct dry d = {.o = o};
    int rc = -1;
    if (!o->replay || !o->tokenizer)
        return err_set(e, ERR_USAGE,
                       "--dry needs recorded answers (--replay FILE) and their tokenizer (--tokenizer FILE|DIR)");
    if ((o->out && bench_report_prepare(o->out, e) != 0) || open_dry(&d, e) != 0)
        goto out;
    progress_start(&d.progress, "replaying", "answers");
    rc = measure_reference(&d, e);
    if (rc == 0)
        rc = measure_drafts(&d, e);
    progress_end(&d.progress, 0);
    if (rc == 0)
        rc = o->out ? bench_report_write(o->out, &d.results, e) : 0;
    if (rc == 0)
        rc = bench_results_print(&d.results, o->json, e);
out:
    free(d.held);
    free(d.out);
    bench_results_free(&d.results);
    traces_free(&d.replay);
    traces_free(&d.prime);
    return rc;
}
