#include "cmd/bench/split.h"

#include "cmd/bench/ablation.h"
#include "cmd/bench/lists.h"
#include "cmd/bench/prime.h"
#include "cmd/bench/prompts.h"
#include "cmd/bench/report.h"
#include "cmd/bench/results.h"
#include "cmd/bench/rig.h"
#include "cmd/bench/traces.h"
#include "cmd/command.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "net/client/remote_middle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How it is measured. A cell is a round trip, a bandwidth and a codec; in it every variant (a mode, and a number of
 * guesses) has a lane of its own. The lanes take turns prompt by prompt, sequential decoding first and the others in an
 * order that changes, so that whatever else this machine does hits all alike. Before that each lane warms up. Every
 * answer has the same number of tokens: the ones that would end it are banned. */
enum { WARM_TOKENS = 12, LEAST_CTX = 512, REPLAYED = 8, MAX_VARIANTS = BENCH_LIST * BENCH_LIST };
enum { ALL_CATEGORIES = BENCH_CATEGORIES, N_TALLIES };

struct variant {
    enum session_mode mode;
    int nodes;
    double fixed_ms, tokens_per_step; /* as last seen: for the time that is left */
};

struct cell {
    double rtt, mbit;
    enum codec codec;
};

struct split {
    const struct bench_split_opts *o;
    struct bench_rig rig;
    struct bench_prompts prompts;
    double rtt[BENCH_LIST], mbit[BENCH_LIST], nodes[BENCH_LIST];
    int codec[BENCH_LIST], mode[BENCH_LIST];
    int n_rtt, n_mbit, n_nodes, n_codecs, n_modes;
    bool as_it_is; /* a real cloud without an emulated link */
    struct variant variants[MAX_VARIANTS];
    int n_variants;
    struct bench_lane *lanes;                 /* [n_variants] */
    struct bench_tally (*tallies)[N_TALLIES]; /* [n_variants]: by category, and all */
    struct ids *answers;                      /* [prompts.n]: of sequential in this cell, the first lane */
    struct ids answer;                        /* the one being made */
    struct sample_params sample;
    struct logit_bias bans[ENGINE_MAX_STOP];
    struct bench_results results;
    struct progress progress;
    char doing[96];
    uint64_t done, all; /* answers */
    int cell;           /* number of the one being measured */
};

#define AT(field) .offset = offsetof(struct bench_split_opts, field)
const struct opt bench_split_options[] = {
    {"mode", "HOW,HOW...", "how tokens are computed, see chat --help; sequential is always measured beside the others",
     OPT_STRING, AT(mode), .def = "sequential,auto"},
    {"rtt", "MS,MS...",
     "round trips of the emulated link; without it 0,20,80, or with --cloud the path as it is, without a link",
     OPT_STRING, AT(rtt)},
    {"mbit", "N,N...", "its bandwidths in Mbit/s each way; 0: no limit", OPT_STRING, AT(mbit), .def = "100"},
    {"codec", "TYPE,TYPE...", "activations on the wire: f32, f16, bf16, q8", OPT_STRING, AT(codec), .def = "f16"},
    {"tokens", "N", "tokens of each answer", OPT_INT, AT(tokens), .def = "64", .min = 1, .max = 1 << 20},
    {"prompts", "FILE", "texts to continue, separated by lines of ---; without it eight prompts of four categories",
     OPT_STRING, AT(prompts)},
    {"temperature", "T", "0 takes the likeliest token", OPT_FLOAT, AT(temperature), .def = "0", .min = 0, .max = 2},
    {"seed", "N", "of the answers when the temperature is not 0", OPT_U64, AT(seed), .def = "1"},
    {"draft", "M", "a small model on this machine that guesses too, as in chat", OPT_STRING, AT(draft)},
    {"out", "DIR", "write results.json, results.csv, plots as SVG and report.html there", OPT_STRING, AT(out)},
    {0},
};
#undef AT

/* ---- what is to be measured ---- */

static int add_variant(struct split *s, enum session_mode mode, int nodes, struct err *e) {
    for (int i = 0; i < s->n_variants; i++)
        if (s->variants[i].mode == mode && s->variants[i].nodes == nodes)
            return 0;
    if (s->n_variants == MAX_VARIANTS)
        return err_set(e, ERR_USAGE, "too many modes and numbers of --nodes");
    s->variants[s->n_variants++] = (struct variant){.mode = mode, .nodes = nodes, .fixed_ms = 20, .tokens_per_step = 1};
    return 0;
}

static int parse_lists(struct split *s, const struct engine_opts *en, struct err *e) {
    const struct bench_split_opts *o = s->o;
    const char *modes[N_SESSION_MODES];
    for (int i = 0; i < N_SESSION_MODES; i++)
        modes[i] = session_mode_name((enum session_mode)i);
    s->as_it_is = tunnel_wanted(&en->tunnel) && !o->rtt;
    if ((s->n_modes = bench_list_names("mode", o->mode, modes, N_SESSION_MODES, s->mode, e)) < 0 ||
        (s->n_rtt = bench_list_numbers("rtt",
                                       o->rtt        ? o->rtt
                                       : s->as_it_is ? "0"
                                                     : "0,20,80",
                                       0, 10000, 0, s->rtt, e)) < 0 ||
        (s->n_mbit = bench_list_numbers("mbit", s->as_it_is ? "0" : o->mbit, 0, 1e6, 0, s->mbit, e)) < 0 ||
        (s->n_codecs = bench_list_names("codec", o->codec, codec_choices, N_CODECS, s->codec, e)) < 0 ||
        (o->nodes && (s->n_nodes = bench_list_numbers("nodes", o->nodes, 1, SESSION_MAX_NODES, 1, s->nodes, e)) < 0))
        return -1;
    if (!s->n_nodes) {
        s->n_nodes = 1;
        s->nodes[0] = SESSION_NODES;
    }
    if (add_variant(s, SESSION_SEQUENTIAL, 0, e) != 0)
        return -1;
    for (int i = 0; i < s->n_modes; i++) {
        enum session_mode m = (enum session_mode)s->mode[i];
        for (int k = 0; k < (m == SESSION_SEQUENTIAL ? 0 : bench_iterates(m) ? 1 : s->n_nodes); k++)
            if (add_variant(s, m, bench_iterates(m) ? 0 : (int)s->nodes[k], e) != 0)
                return -1;
    }
    return iterate_check(&en->iterate, SESSION_MAX_NODES, e);
}

static int make_prompts(struct split *s, struct err *e) {
    const struct bench_split_opts *o = s->o;
    struct engine *en = &s->rig.en;
    int rc;
    if (o->replay && o->prompts)
        return err_set(e, ERR_USAGE, "--replay and --prompts both say what is to be answered; take one of them");
    if (!en->tok && (o->prompts || o->replay))
        return err_set(e, ERR_USAGE, "%s has no tokenizer; name one with --tokenizer DIR|FILE", en->o.model);
    if (!en->tok)
        rc = bench_prompts_random(&s->prompts, en, e);
    else if (o->replay)
        rc = bench_prompts_replay(&s->prompts, en, o->replay, o->answers ? o->answers : REPLAYED, o->tokens, e);
    else if (o->prompts)
        rc = bench_prompts_file(&s->prompts, en, o->prompts, e);
    else
        rc = bench_prompts_builtin(&s->prompts, en, e);
    return rc;
}

/* As much context as the longest prompt and answer take, when --ctx does not say. */
static int settle_context(struct split *s, struct err *e) {
    struct engine *en = &s->rig.en;
    size_t most = 0;
    for (int i = 0; i < s->prompts.n; i++)
        most = s->prompts.at[i].ids.n > most ? s->prompts.at[i].ids.n : most;
    size_t need = most + (size_t)s->o->tokens;
    if (need > (size_t)en->config->max_ctx || (en->o.ctx && need > en->ctx))
        return err_set(e, ERR_USAGE, "a prompt of %zu tokens and --tokens %d do not fit into the %u positions that %s",
                       most, s->o->tokens, en->o.ctx ? en->ctx : (unsigned)en->config->max_ctx,
                       en->o.ctx ? "--ctx gives" : "the model was made for");
    if (!en->o.ctx) /* and no less than windows of the usual size need */
        en->ctx = (uint32_t)(need > LEAST_CTX                       ? need
                             : en->config->max_ctx < (int)LEAST_CTX ? (size_t)en->config->max_ctx
                                                                    : LEAST_CTX);
    engine_settle_chunk(en);
    return 0;
}

static bool is_measured(const struct split *s, uint64_t hash) {
    for (int i = 0; i < s->prompts.n; i++)
        if (s->prompts.at[i].hash == hash && hash)
            return true;
    return false;
}

/* A scratch store of everything in the files of --prime but the prompts that are measured. */
static int prime(struct split *s, struct err *e) {
    const struct engine *en = &s->rig.en;
    struct traces t = {0};
    int rc = 0;
    if (!s->o->prime.n)
        return 0;
    if (!en->tok)
        return err_set(e, ERR_USAGE, "--prime needs a tokenizer; name one with --tokenizer DIR|FILE");
    for (int i = 0; i < s->o->prime.n && rc == 0; i++)
        rc = traces_read(&t, s->o->prime.p[i], en->tok, e);
    bool *out = calloc((size_t)t.n + 1, sizeof *out);
    for (int i = 0; i < t.n && out; i++)
        out[i] = is_measured(s, t.at[i].prompt_hash);
    if (rc == 0)
        rc = out ? prime_store(&s->rig.store, (uint32_t)en->config->vocab, &t, out, e)
                 : err_set(e, ERR_MEMORY, "out of memory");
    free(out);
    traces_free(&t);
    return rc;
}

static int reserve(struct split *s, struct err *e) {
    s->lanes = calloc((size_t)s->n_variants, sizeof *s->lanes);
    s->tallies = calloc((size_t)s->n_variants, sizeof *s->tallies);
    s->answers = calloc((size_t)s->prompts.n, sizeof *s->answers);
    if (!s->lanes || !s->tallies || !s->answers)
        return err_set(e, ERR_MEMORY, "out of memory for %d variants", s->n_variants);
    sample_params_default(&s->sample);
    s->sample.temperature = (float)s->o->temperature;
    s->sample.seed = s->o->seed;
    s->sample.bias = s->bans;
    s->sample.n_bias = s->rig.en.n_stop;
    for (int i = 0; i < s->rig.en.n_stop; i++)
        s->bans[i] = (struct logit_bias){.token = s->rig.en.stop[i], .bias = -INFINITY};
    return sample_params_check(&s->sample, s->rig.en.config->vocab, e);
}

/* ---- one answer ---- */

static int on_feed(void *ctx, uint32_t done, uint32_t all) {
    (void)ctx, (void)done, (void)all;
    return interrupt_asked();
}

/* n tokens behind p, into s->answer: what the model says at each position. A recorded answer is followed all the same.
 */
static int answer(struct split *s, struct bench_lane *l, const struct bench_prompt *p, int n, struct bench_tally *t,
                  struct err *e) {
    struct remote_info from, before, to;
    ids_clear(&s->answer);
    session_reset(l->session);
    if (session_feed(l->session, p->ids.p, (uint32_t)p->ids.n, on_feed, NULL, e) != 0)
        return -1;
    if (p->next.n && (size_t)n > p->next.n)
        n = (int)p->next.n;
    remote_middle_info(tunnel_middle(l->tunnel), &from);
    to = from;
    for (int i = 0; i < n; i++) {
        const struct session_stats then = *session_stats(l->session);
        uint32_t token;
        double t0 = clock_ms();
        if (interrupt_asked())
            return err_set(e, ERR_IO, "stopped");
        if (session_sample(l->session, &s->sample, (uint32_t)i, &token, e) != 0)
            return -1;
        ids_push(&s->answer, token);
        if (session_advance(l->session, p->next.n ? p->next.p[i] : token, e) != 0)
            return -1;
        double ms = clock_ms() - t0;
        before = to;
        remote_middle_info(tunnel_middle(l->tunnel), &to);
        const struct bench_token k = {ms, to.work_ms - before.work_ms, &then, session_stats(l->session)};
        if (bench_tally_token(t, &k, &l->path, e) != 0)
            return -1;
    }
    t->bytes_up += (double)(to.bytes_up - from.bytes_up);
    t->bytes_down += (double)(to.bytes_down - from.bytes_down);
    return s->answer.bad ? err_set(e, ERR_MEMORY, "out of memory for an answer") : 0;
}

/* The first lane's answer is what the others have to say too. */
static int hold_against(struct split *s, int prompt, const struct bench_lane *l, bool first, struct err *e) {
    struct ids *want = &s->answers[prompt];
    if (first) {
        ids_clear(want);
        for (size_t i = 0; i < s->answer.n; i++)
            ids_push(want, s->answer.p[i]);
        return want->bad ? err_set(e, ERR_MEMORY, "out of memory for answers") : 0;
    }
    if (want->n != s->answer.n || memcmp(want->p, s->answer.p, want->n * sizeof *want->p) != 0) {
        term_error("the answer to prompt %d in mode %s at %g ms is not that of sequential decoding", prompt + 1,
                   session_mode_name(l->o.mode), l->o.rtt_ms < 0 ? 0 : l->o.rtt_ms);
        s->results.n_different++;
    }
    return 0;
}

/* ---- progress ---- */

static struct cell cell_at(const struct split *s, int i) {
    return (struct cell){s->rtt[i % s->n_rtt], s->mbit[i / s->n_rtt % s->n_mbit],
                         (enum codec)s->codec[i / s->n_rtt / s->n_mbit]};
}

static int n_cells(const struct split *s) {
    return s->n_rtt * s->n_mbit * s->n_codecs;
}

/* As long as the answers that are still to come would take if each variant went on as it was last seen. */
static double left_ms(const struct split *s, int turns_done) {
    double ms = 0;
    for (int i = s->cell; i < n_cells(s); i++) {
        const struct cell c = cell_at(s, i);
        int turns = s->prompts.n * s->o->repeat - (i == s->cell ? turns_done : 0);
        for (int k = 0; k < s->n_variants; k++)
            ms += turns * s->o->tokens * (c.rtt + s->variants[k].fixed_ms) / s->variants[k].tokens_per_step;
    }
    return ms;
}

static void show(struct split *s, const struct cell *c, const struct variant *v, int turn) {
    double ms = left_ms(s, turn);
    int category = s->prompts.at[turn % s->prompts.n].category;
    char left[24];
    snprintf(left, sizeof left, ms < 90e3 ? "%.0f s" : "%.0f min", ms < 90e3 ? ms / 1e3 : ms / 60e3);
    snprintf(s->doing, sizeof s->doing, "%s at %g ms%s%s, about %s left", session_mode_name(v->mode), c->rtt,
             category < 0 ? "" : ", ", category < 0 ? "" : bench_categories[category], left);
    progress_show(&s->progress, s->done, s->all);
}

/* ---- a cell ---- */

static int measure_one(struct split *s, const struct cell *c, int turn, int variant, struct err *e) {
    int prompt = turn % s->prompts.n;
    const struct bench_prompt *p = &s->prompts.at[prompt];
    struct variant *v = &s->variants[variant];
    struct bench_lane *l = &s->lanes[variant];
    struct bench_tally t = {0};
    show(s, c, v, turn);
    int rc = answer(s, l, p, s->o->tokens, &t, e);
    if (rc == 0)
        rc = hold_against(s, prompt, l, variant == 0, e);
    if (rc == 0 && p->category >= 0)
        rc = bench_tally_add(&s->tallies[variant][p->category], &t, e);
    if (rc == 0)
        rc = bench_tally_add(&s->tallies[variant][ALL_CATEGORIES], &t, e);
    if (rc == 0 && t.steps > 0) {
        v->tokens_per_step = (double)t.tokens / (double)t.steps;
        v->fixed_ms = t.ms / (double)t.steps - l->path.rtt_ms;
    }
    s->done++;
    bench_tally_free(&t);
    return rc;
}

static int open_cell(struct split *s, const struct cell *c, struct err *e) {
    for (int i = 0; i < s->n_variants; i++) {
        const struct bench_lane_opts lo = {.mode = s->variants[i].mode,
                                           .nodes = s->variants[i].nodes,
                                           .codec = c->codec,
                                           .rtt_ms = s->as_it_is ? -1 : c->rtt,
                                           .mbit = c->mbit};
        struct bench_tally warm = {0};
        show(s, c, &s->variants[i], 0);
        int rc = bench_lane_open(&s->lanes[i], &s->rig, &lo, e);
        if (rc == 0)
            rc = answer(s, &s->lanes[i], &s->prompts.at[0], s->o->tokens < WARM_TOKENS ? s->o->tokens : WARM_TOKENS,
                        &warm, e);
        bench_tally_free(&warm);
        if (rc != 0)
            return -1;
        if (s->as_it_is) {
            struct remote_info info;
            remote_middle_info(tunnel_middle(s->lanes[i].tunnel), &info);
            s->lanes[i].path.rtt_ms = info.rtt_ms;
        }
    }
    return 0;
}

/* Guesses of a window. */
static int nodes_of(const struct split *s, const struct variant *v) {
    const struct iterate_opts *o = &s->rig.en.o.iterate;
    return v->mode == SESSION_JACOBI      ? iterate_nodes(ITERATE_JACOBI, o)
           : v->mode == SESSION_LOOKAHEAD ? iterate_nodes(ITERATE_LOOKAHEAD, o)
                                          : v->nodes;
}

static int add_row(struct split *s, const struct cell *c, int variant, int category, struct err *e) {
    struct variant *v = &s->variants[variant];
    struct bench_tally *t = &s->tallies[variant][category];
    bool drafts = v->mode == SESSION_AUTO || v->mode == SESSION_STOP_AND_WAIT;
    struct bench_row r = bench_row_of(session_mode_name(v->mode), drafts ? "all" : NULL, nodes_of(s, v));
    if (t->tokens == 0)
        return 0;
    r.rtt_ms = s->lanes[variant].path.rtt_ms;
    r.mbit = s->as_it_is ? NAN : c->mbit;
    r.codec = codec_name(c->codec);
    r.category = category < ALL_CATEGORIES ? bench_categories[category] : NULL;
    bench_tally_row(t, &s->lanes[variant].path, &r);
    return bench_rows_add(&s->results.rows, &r, e);
}

/* The point that this cell gives to the fit of a variant. Round trips of 0 are no distance: they do not count. */
static void add_point(struct split *s, const struct cell *c, int variant) {
    struct bench_results *r = &s->results;
    const struct variant *v = &s->variants[variant];
    struct bench_tally *t = &s->tallies[variant][ALL_CATEGORIES];
    const struct bench_path *path = &s->lanes[variant].path;
    struct bench_fit *f = NULL;
    const char *mode = session_mode_name(v->mode), *codec = codec_name(c->codec);
    if (path->rtt_ms <= 0 || t->steps == 0)
        return;
    for (int i = 0; i < r->n_fits && !f; i++)
        if (r->fits[i].mode == mode && r->fits[i].nodes == nodes_of(s, v) && r->fits[i].codec == codec &&
            r->fits[i].mbit == c->mbit)
            f = &r->fits[i];
    if (!f && r->n_fits < BENCH_FITS) {
        f = &r->fits[r->n_fits++];
        *f = (struct bench_fit){
            .mode = mode, .codec = codec, .nodes = nodes_of(s, v), .mbit = c->mbit, .adapts = v->mode == SESSION_AUTO};
    }
    if (!f || f->n == BENCH_LIST)
        return;
    double n = (double)t->steps, tokens = (double)t->tokens;
    f->at[f->n++] = (struct law_point){.rtt_ms = path->rtt_ms,
                                       .step_ms = t->ms / n,
                                       .tokens_per_step = tokens / n,
                                       .miss_rate = n / tokens,
                                       .miss_ms = bench_tally_miss_ms(t),
                                       .hit_ms = bench_tally_hit_ms(t, path)};
    f->fit = law_fit(f->at, f->n, -1, f->adapts);
    f->cv_error = law_cross_validate(f->at, f->n, f->adapts, f->error);
}

static int measure_cell(struct split *s, const struct cell *c, struct err *e) {
    int rc = open_cell(s, c, e);
    for (int i = 0; i < s->o->repeat * s->prompts.n && rc == 0; i++)
        for (int k = 0; k < s->n_variants && rc == 0; k++) /* sequential first: the others are held against it */
            rc = measure_one(s, c, i, k == 0 || s->n_variants == 1 ? k : 1 + (k - 1 + i) % (s->n_variants - 1), e);
    struct err kept = {0}; /* what was measured until it failed counts */
    for (int i = 0; i < s->n_variants; i++) {
        for (int k = 0; k < N_TALLIES; k++) {
            if (k == ALL_CATEGORIES)
                add_point(s, c, i);
            if (add_row(s, c, i, k, &kept) != 0 && rc == 0)
                rc = err_set(e, kept.kind, "%s", kept.msg);
            bench_tally_free(&s->tallies[i][k]);
        }
        bench_lane_close(&s->lanes[i]);
    }
    return rc;
}

static int measure(struct split *s, struct err *e) {
    int rc = 0;
    s->all = (uint64_t)n_cells(s) * (uint64_t)s->n_variants * (uint64_t)(s->prompts.n * s->o->repeat);
    progress_start(&s->progress, s->doing, "answers");
    for (s->cell = 0; s->cell < n_cells(s) && rc == 0; s->cell++) {
        const struct cell c = cell_at(s, s->cell);
        rc = measure_cell(s, &c, e);
    }
    snprintf(s->doing, sizeof s->doing, "measured");
    progress_end(&s->progress, rc == 0 ? s->all : 0);
    return rc;
}

/* ---- the command ---- */

static void describe(struct split *s) {
    const struct engine *en = &s->rig.en;
    s->results.machine = (struct bench_machine){.backend = engine_backend_name(en),
                                                .model = en->o.model,
                                                .cloud = s->rig.loop ? NULL : en->o.tunnel.cloud.p[0],
                                                .threads = en->o.threads,
                                                .layers = en->config->n_layers,
                                                .hidden = en->config->hidden,
                                                .front = en->parts[0].hi,
                                                .back = en->config->n_layers - en->parts[2].lo};
}

static int report(struct split *s, struct err *e) {
    const struct engine *en = &s->rig.en;
    if (s->o->out &&
        (bench_ablation(&s->results.drafts, &s->prompts, s->answers, (uint32_t)en->config->vocab, e) != 0 ||
         bench_report_write(s->o->out, &s->results, e) != 0))
        return -1;
    return bench_results_print(&s->results, s->o->json, e);
}

static void close_split(struct split *s) {
    for (int i = 0; s->lanes && i < s->n_variants; i++)
        bench_lane_close(&s->lanes[i]);
    for (int i = 0; s->answers && i < s->prompts.n; i++)
        ids_free(&s->answers[i]);
    free(s->lanes);
    free(s->tallies);
    free(s->answers);
    ids_free(&s->answer);
    bench_results_free(&s->results);
    bench_prompts_free(&s->prompts);
    bench_rig_close(&s->rig);
    free(s);
}

int bench_split(const struct engine_opts *engine, const struct bench_split_opts *o, struct err *e) {
    struct split *s = calloc(1, sizeof *s);
    int status = -1;
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory");
    s->o = o;
    if (parse_lists(s, engine, e) != 0 || (o->out && bench_report_prepare(o->out, e) != 0) ||
        bench_rig_open(&s->rig, engine, e) != 0 || make_prompts(s, e) != 0 || settle_context(s, e) != 0 ||
        prime(s, e) != 0 || reserve(s, e) != 0 || bench_rig_load(&s->rig, s->n_variants, e) != 0)
        goto out;
    describe(s);
    int rc = measure(s, e);
    if (rc != 0 && !interrupt_asked())
        goto out;
    /* Ctrl-C: what there is counts. */
    if (s->results.rows.n && report(s, e) != 0)
        goto out;
    status = s->results.n_different ? EXIT_FAILED : rc != 0 ? interrupt_status() : EXIT_DONE;
out:
    if (status < 0 && interrupt_asked())
        status = interrupt_status();
    close_split(s);
    return status;
}
