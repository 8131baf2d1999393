/* The bench command: its options; the files in cmd/bench measure. */
#include "cmd/bench/card.h"
#include "cmd/bench/dry.h"
#include "cmd/bench/kernels.h"
#include "cmd/bench/local.h"
#include "cmd/bench/split.h"
#include "cmd/command.h"
#include "cmd/engine/device.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"

struct bench_opts {
    bool kernels, local;
    int rows, cols;
    const char *pass_rows;
    struct bench_local_opts alone;
    struct bench_split_opts split;
    struct bench_dry_opts dry;
    struct engine_opts engine;
    struct common_opts common;
};

#define AT(field) .offset = offsetof(struct bench_opts, field)
static const struct opt kernel_options[] = {
    {"kernels", NULL,
     "matrix products of 1 to 64 rows with each weight type: GB/s and GFLOP/s, and their share of the read bandwidth "
     "and of the arithmetic peak, which are measured in the same run. With --backend cuda on a card: products and "
     "whole "
     "passes of --model, or of Mistral 7B and NeMo",
     OPT_FLAG, AT(kernels)},
    {"rows", "N", "outputs of the matrix", OPT_INT, AT(rows), .def = "14336", .min = 1, .max = 1 << 20},
    {"cols", "N", "inputs of the matrix, a multiple of 256", OPT_INT, AT(cols), .def = "4096", .min = 256,
     .max = 1 << 20},
    {"pass-rows", "N,N...", "rows of products and passes on a card", OPT_STRING, AT(pass_rows),
     .def = "1,4,8,16,32,64,512,2048,8192"},
    {0},
};
static const struct opt local_options[] = {
    {"local", NULL,
     "how fast the model, all its weights packed, reads a prompt and writes an answer of --tokens on this machine "
     "alone",
     OPT_FLAG, AT(local)},
    {"prefill", "N", "tokens of the prompt", OPT_INT, AT(alone.prefill), .def = "512", .min = 1, .max = 1 << 20},
    {"repeat", "N",
     "runs, of which the median counts; of a split model every answer so often, added up, and once if not given",
     OPT_INT, AT(alone.repeat), .def = "3", .min = 1, .max = 1000},
    {0},
};
static const struct opt cloud_options[] = {
    {"cloud", "HOST:PORT", "measure this serve-cloud; without it bench starts one of its own on 127.0.0.1", OPT_STRINGS,
     AT(engine.tunnel.cloud)},
    {"pin", "PIN", "the pin that it printed", OPT_STRINGS, AT(engine.tunnel.pin)},
    {"patience", "S", "how long to try to get a lost cloud back", OPT_INT, AT(engine.tunnel.patience), .def = "120",
     .min = 0, .max = 86400},
    {"middle-quant", "TYPE", "--quant of the middle layers alone: what that cloud was started with", OPT_CHOICE,
     AT(engine.middle_quant), .choices = engine_middle_quant_choices},
    {"ctx", "N", "positions of context; 0: as many as prompts and answers take", OPT_INT, AT(engine.ctx), .def = "0",
     .min = 0, .max = CONFIG_MAX_CTX},
    {"chunk", "N", "prompt tokens computed in one pass; 0: 64, or 256 with --local", OPT_INT, AT(engine.chunk),
     .def = "0", .min = 0, .max = 8192},
    {0},
};
#undef AT

static const char *const synopsis[] = {
    "bench --model M [--mode HOW,...] [--rtt MS,...] [--out DIR] [OPTION]...",
    "bench --model M --replay FILE [--prime FILE]... [--rtt MS,...] [OPTION]...",
    "bench --dry --replay FILE --tokenizer FILE|DIR [--prime FILE]... [--nodes N,N...]",
    "bench --local --model M [--prefill N] [--tokens N] [--repeat N] [OPTION]...",
    "bench --kernels [--rows N] [--cols N] [--threads N] [OPTION]...",
    "bench --kernels --backend cuda [--device N] [--model M] [--pass-rows N,N...]",
    NULL,
};

static const struct opt_group groups[] = {
    {"A split model over distances", bench_split_options, offsetof(struct bench_opts, split)},
    {"Cloud and context", cloud_options, 0},
    {"Recorded answers, with a model or without", bench_dry_options, offsetof(struct bench_opts, dry)},
    {"This machine alone", local_options, 0},
    {"The kernels", kernel_options, 0},
    {"Model", engine_options, offsetof(struct bench_opts, engine)},
    {"Modes jacobi and lookahead", engine_iterate_options, offsetof(struct bench_opts, engine)},
    {"Common", common_options, offsetof(struct bench_opts, common)},
};

static const struct opt_table table = {
    .command = "bench",
    .synopsis = synopsis,
    .about = "Measures a split model: how many tokens per second each mode gives at which distance, where the time "
             "goes, and "
             "what a model of it predicts. Without --cloud it starts a cloud of its own behind an emulated link.\n"
             "Every answer is compared with that of sequential decoding; exit status 1 when one differs.\n"
             "With --dry it measures how well drafts guess recorded answers, without a model; with --local or "
             "--kernels this "
             "machine.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "say what to measure with --model M, --dry, --local or --kernels",
};

/* Options that more than one kind of bench has count for a split model only where they were given. */
static int run_split(struct bench_opts *o, const struct opt_result *given, struct err *e) {
    o->split.nodes = opts_source(cmd_bench.table, given, "nodes") != OPT_FROM_DEFAULT ? o->dry.nodes : NULL;
    o->split.repeat = opts_source(cmd_bench.table, given, "repeat") != OPT_FROM_DEFAULT ? o->alone.repeat : 1;
    o->split.replay = o->dry.replay;
    o->split.answers = o->dry.answers;
    o->split.prime = o->dry.prime;
    o->split.json = o->common.json;
    o->engine.home = o->common.home;
    o->engine.draft = o->split.draft;
    o->engine.tokenizer = o->dry.tokenizer;
    o->engine.chunk = o->engine.chunk ? o->engine.chunk : 64;
    return bench_split(&o->engine, &o->split, e);
}

static int run_local(struct bench_opts *o, struct err *e) {
    o->alone.tokens = o->split.tokens;
    o->alone.json = o->common.json;
    return bench_local(&o->engine, &o->alone, e);
}

static int run(void *values, const struct opt_result *given, struct err *e) {
    struct bench_opts *o = values;
    term_setup("bench", o->common.quiet, o->common.verbose);
    if (o->kernels && o->engine.backend != DEVICE_CPU && (o->engine.backend == DEVICE_CUDA || o->engine.device)) {
        interrupt_setup();
        int rc = bench_card(&o->engine, o->pass_rows, o->common.json, e);
        return rc != 0 && interrupt_asked() ? interrupt_status() : rc;
    }
    if (o->kernels)
        return bench_kernels(o->engine.threads, engine_isa_name(o->engine.isa), o->rows, o->cols, o->common.json, e);
    interrupt_setup();
    if (o->dry.dry) {
        o->dry.json = o->common.json;
        o->dry.out = o->split.out;
        int rc = bench_dry(&o->dry, e);
        return rc != 0 && interrupt_asked() ? interrupt_status() : rc;
    }
    if (!o->engine.model)
        return err_set(
            e, ERR_USAGE,
            "say what to measure: a model with --model M, drafts with --dry, or this machine with --kernels");
    interrupt_insist(true);
    int rc = o->local ? run_local(o, e) : run_split(o, given, e);
    return rc < 0 && interrupt_asked() ? interrupt_status() : rc;
}

const struct command cmd_bench = {
    .name = "bench",
    .summary = "measure modes over distances, drafts, or this machine",
    .table = &table,
    .values_size = sizeof(struct bench_opts),
    .run = run,
};
