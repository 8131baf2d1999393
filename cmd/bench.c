/* The bench command: its options; bench_kernels and bench_model measure. */
#include "cmd/bench_dry.h"
#include "cmd/bench_kernels.h"
#include "cmd/bench_model.h"
#include "cmd/command.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"

struct bench_opts {
    bool kernels;
    int rows, cols;
    struct bench_model_opts model;
    struct bench_dry_opts dry;
    struct engine_opts engine;
    struct common_opts common;
};

#define AT(field) .offset = offsetof(struct bench_opts, field)
static const struct opt kernel_options[] = {
    {"kernels", NULL,
     "matrix products of 1 to 64 rows with each weight type: GB/s and GFLOP/s, and their share of the read bandwidth "
     "and "
     "of the arithmetic peak, which are measured in the same run",
     OPT_FLAG, AT(kernels)},
    {"rows", "N", "outputs of the matrix", OPT_INT, AT(rows), .def = "14336", .min = 1, .max = 1 << 20},
    {"cols", "N", "inputs of the matrix, a multiple of 256", OPT_INT, AT(cols), .def = "4096", .min = 256,
     .max = 1 << 20},
    {0},
};
#undef AT

#define AT(field) .offset = offsetof(struct bench_model_opts, field)
static const struct opt model_options[] = {
    {"prefill", "N", "tokens of the prompt", OPT_INT, AT(prefill), .def = "512", .min = 1, .max = 1 << 20},
    {"tokens", "N", "tokens of the answer", OPT_INT, AT(tokens), .def = "64", .min = 1, .max = 1 << 20},
    {"repeat", "N", "runs, of which the median counts", OPT_INT, AT(repeat), .def = "3", .min = 1, .max = 1000},
    {0},
};
#undef AT

static const char *const synopsis[] = {
    "bench --kernels [--rows N] [--cols N] [--threads N] [OPTION]...",
    "bench --model M [--prefill N] [--tokens N] [--repeat N] [OPTION]...",
    "bench --dry --replay FILE --tokenizer FILE|DIR [--prime FILE]... [--nodes N,N...]",
    NULL,
};

static const struct opt_group groups[] = {
    {"The kernels", kernel_options, 0},
    {"A model's prompt and answer speed, on this machine alone and with all weights packed at load", model_options,
     offsetof(struct bench_opts, model)},
    {"Drafts on recorded answers", bench_dry_options, offsetof(struct bench_opts, dry)},
    {"Model", engine_options, offsetof(struct bench_opts, engine)},
    {"Context", engine_context_options, offsetof(struct bench_opts, engine)},
    {"Common", common_options, offsetof(struct bench_opts, common)},
};

static const struct opt_table table = {
    .command = "bench",
    .synopsis = synopsis,
    .about = "Measures this machine: the kernels against its limits, a model, or how well drafts guess.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "say what to measure with --kernels, --model M or --dry",
};

static int run(void *values, const struct opt_result *given, struct err *e) {
    struct bench_opts *o = values;
    (void)given;
    term_setup("bench", o->common.quiet, o->common.verbose);
    if (o->kernels)
        return bench_kernels(o->engine.threads, engine_isa_name(o->engine.isa), o->rows, o->cols, o->common.json, e);
    if (o->dry.dry) {
        interrupt_setup();
        o->dry.json = o->common.json;
        int rc = bench_dry(&o->dry, e);
        return rc != 0 && interrupt_asked() ? interrupt_status() : rc;
    }
    if (!o->engine.model)
        return err_set(e, ERR_USAGE, "say what to measure: --kernels, a model with --model M, or drafts with --dry");
    interrupt_setup();
    interrupt_insist(true);
    o->model.json = o->common.json;
    int rc = bench_model(&o->engine, &o->model, e);
    return rc != 0 && interrupt_asked() ? interrupt_status() : rc;
}

const struct command cmd_bench = {
    .name = "bench",
    .summary = "measure this machine: the kernels, or a model's speed",
    .table = &table,
    .values_size = sizeof(struct bench_opts),
    .run = run,
};
