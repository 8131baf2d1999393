#include "cmd/engine/engine.h"

#include "cmd/engine/device.h"
#include "cmd/engine/draft_log.h"
#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/model/gguf.h"
#include "core/model/local_middle.h"
#include "net/fingerprint.h"
#include "net/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Positions taken when --ctx is not given and the model was made for more. */
enum { DEFAULT_CTX = 4096 };
/* Prefill windows in flight where this process computes them itself, one after the other. */
enum { LOCAL_WINDOWS = 1 };
/* Rows of a prefill window. To a cloud they are smaller, so that the first result comes early and upload, compute and
 * download overlap. */
enum { LOCAL_CHUNK = 256, CLOUD_CHUNK = 64, CLOUD_AHEAD = 512 };
enum { MAX_TEMPLATE_FILE = 1 << 20 };

const char *const engine_isa_choices[] = {"auto", "portable", "avx2", "avx512", "neon", NULL};
static const char *const quant_choices[] = {"none", "q8", "q4", NULL};
const char *const engine_middle_quant_choices[] = {"same", "none", "q8", "q4", NULL};
static const char *const mode_choices[] = {"auto", "sequential", "stop-and-wait", "jacobi", "lookahead", NULL};
static const char *const kv_choices[] = {"f16", "f32", "fp8", NULL};

#define AT(field) .offset = offsetof(struct engine_opts, field)
const struct opt engine_options[] = {
    {"model", "M", "a Hugging Face directory, a .gguf file, or random:NAME[/LAYERS][:SEED]", OPT_STRING, AT(model)},
    {"front", "N", "layers of the first part; it stays, with the last one, on the trusted machine", OPT_INT, AT(front),
     .def = "2", .min = 0, .max = CONFIG_MAX_LAYERS},
    {"back", "N", "layers of the last part", OPT_INT, AT(back), .def = "2", .min = 0, .max = CONFIG_MAX_LAYERS},
    {"backend", "NAME", "what computes here; auto: a card where there is one that can be used, else the CPU",
     OPT_CHOICE, AT(backend), .choices = device_choices},
    {"device", "N[,N+N...]",
     "the card to compute on, as nvidia-smi numbers them, the first if not given. 0,1: the layers are spread over "
     "both; 0+1: both compute every layer together, each a half of it, which needs NVIDIA's NCCL",
     OPT_STRING, AT(device)},
    {"math", "HOW",
     "full: products on a card take activations with 16 bits of mantissa, near the CPU's 24; fast: with 8, as others "
     "do, and multiply half as much, which counts in prompts and wide windows. A CPU that is told fast rounds as such "
     "a card does, and is no faster",
     OPT_CHOICE, AT(math), .choices = device_math_choices},
    {"isa", "NAME", "CPU instructions to use, for comparisons", OPT_CHOICE, AT(isa), .choices = engine_isa_choices},
    {"threads", "N", "threads that compute; 0: all that this process may use", OPT_INT, AT(threads), .def = "0",
     .min = 0, .max = 1024},
    {"quant", "TYPE", "re-encode the weights while loading", OPT_CHOICE, AT(quant), .choices = quant_choices},
    {"kv", "TYPE",
     "the numbers in the KV cache, the same on both sides: f32 is for processors; fp8 takes half of a card's memory, "
     "and answers differ a little, of models with biases (Qwen2) a lot",
     OPT_CHOICE, AT(kv), .choices = kv_choices},
    {"memory", "BYTES",
     "refuse to take more than this for weights and KV cache, such as 12G; 0: than the machine, or the card, has "
     "available",
     OPT_BYTES, AT(memory), .def = "0"},
    {0},
};
const struct opt engine_context_options[] = {
    {"ctx", "N", "positions of context; 0: what the model was made for, at most 4096", OPT_INT, AT(ctx), .def = "0",
     .min = 0, .max = CONFIG_MAX_CTX},
    {"mode", "HOW",
     "auto: guess the next tokens while the cloud is away, to hide the round trip; sequential: one token, one round "
     "trip; stop-and-wait: a window of guesses with each token; jacobi, lookahead: the same with guesses that the "
     "model "
     "itself improves. The text is the same in all. Without a cloud auto is sequential",
     OPT_CHOICE, AT(mode), .choices = mode_choices},
    {"pad", "ROWS[:MS]",
     "privacy: while an answer is made, a window of exactly so many rows goes to the cloud every MS milliseconds "
     "(without "
     "MS: as often as it was measured to be possible), so that sizes and times on the network do not tell which "
     "guesses "
     "were right. They still tell how long an answer takes and how many windows the prompt has. auto is stop-and-wait "
     "then",
     OPT_STRING, AT(pad)},
    {"draft-log", "FILE",
     "write a line of numbers for each guess to FILE: source, depth, probability, what became of it, times; no tokens",
     OPT_STRING, AT(draft_log)},
    {"middle-quant", "TYPE", "the same for the middle layers alone: what a cloud was started with; same: as --quant",
     OPT_CHOICE, AT(middle_quant), .choices = engine_middle_quant_choices},
    {"chunk", "N", "prompt tokens computed in one pass; 0: 256, or 64 to a cloud", OPT_INT, AT(chunk), .def = "0",
     .min = 0, .max = 8192},
    {0},
};
const struct opt engine_iterate_options[] = {
    {"block", "N", "jacobi: guesses in a window", OPT_INT, AT(iterate.block), .def = "16", .min = 1,
     .max = ITERATE_BLOCK_MAX},
    {"ngram", "N", "lookahead: tokens of an n-gram", OPT_INT, AT(iterate.ngram), .def = "5", .min = 2,
     .max = ITERATE_NGRAM_MAX},
    {"window", "N",
     "lookahead: columns of the grid in which n-grams come about; 0: the oldest ones of prompt and answer are tried",
     OPT_INT, AT(iterate.window), .def = "7", .min = 0, .max = ITERATE_WINDOW_MAX},
    {"candidates", "N", "lookahead: n-grams that are tried at once", OPT_INT, AT(iterate.candidates), .def = "7",
     .min = 0, .max = ITERATE_CANDIDATES_MAX},
    {0},
};
const struct opt engine_text_options[] = {
    {"tokenizer", "PATH", "take the tokenizer from this directory or file instead of the model's own", OPT_STRING,
     AT(tokenizer)},
    {"chat-template", "FILE", "a Jinja chat template to use instead of the model's own", OPT_STRING, AT(chat_template)},
    {0},
};
#undef AT

const char *engine_isa_name(int choice) {
    return choice ? engine_isa_choices[choice] : NULL;
}

int engine_cloud_windows(const struct engine *en) {
    int n = CLOUD_AHEAD / en->chunk;
    return n > SESSION_WINDOWS ? n : SESSION_WINDOWS;
}

enum session_mode engine_mode(const struct engine *en) {
    static const enum session_mode modes[] = {SESSION_AUTO, SESSION_SEQUENTIAL, SESSION_STOP_AND_WAIT, SESSION_JACOBI,
                                              SESSION_LOOKAHEAD};
    return en->o.mode == 0 && !tunnel_wanted(&en->o.tunnel) ? SESSION_SEQUENTIAL : modes[en->o.mode];
}

enum quant engine_quant(const struct engine *en, int part) {
    return (enum quant)(part == 1 && en->o.middle_quant ? en->o.middle_quant - 1 : en->o.quant);
}

void engine_warn_kv(const struct engine *en) {
    if (engine_kv_type(en) == DT_E4M3 && en->config->qkv_bias)
        log_line(LOG_WARN, "--kv fp8: this model adds biases to its keys, which three bits of mantissa do not bear: "
                           "answers may be nonsense. --kv f16 is safe");
}

enum dtype engine_kv_type(const struct engine *en) {
    return wire_kv_type((uint8_t)en->o.kv);
}

const char *engine_backend_name(const struct engine *en) {
    return device_name(en->backend, &en->o);
}

static void add_stop(struct engine *en, int id) {
    if (id < 0 || en->n_stop == ENGINE_MAX_STOP)
        return;
    for (int i = 0; i < en->n_stop; i++)
        if (en->stop[i] == (uint32_t)id)
            return;
    en->stop[en->n_stop++] = (uint32_t)id;
}

static void find_stops(struct engine *en) {
    /* Tokens that end a turn in the templates of the supported families. Many files, GGUF above all, name only the
     * end-of-text token as eos although the model was trained to end its turns with one of these. */
    static const char *const turn_ends[] = {"<|eot_id|>", "<|im_end|>", "<|eom_id|>"};
    for (int i = 0; i < en->config->n_eos; i++)
        add_stop(en, en->config->eos[i]);
    add_stop(en, tokenizer_eos(en->tok));
    for (size_t i = 0; i < sizeof turn_ends / sizeof *turn_ends; i++)
        add_stop(en, tokenizer_special(en->tok, turn_ends[i], strlen(turn_ends[i])));
}

int engine_open_tokenizer(struct engine *en, struct err *e) {
    const struct gguf *g = en->o.tokenizer ? NULL : weights_gguf(en->weights);
    const char *path = en->o.tokenizer ? en->o.tokenizer : en->o.model;
    if (!en->o.tokenizer && !g && !file_is_dir(path))
        return err_set(e, ERR_USAGE, "%s has no tokenizer; name one with --tokenizer DIR|FILE", path);
    if (g ? tokenizer_from_gguf(&en->tok, g, e) : tokenizer_open(&en->tok, path, e))
        return -1;
    uint32_t n = tokenizer_n(en->tok);
    if (n > (uint32_t)en->config->vocab)
        return err_set(e, ERR_MODEL,
                       "the tokenizer of %s has %u tokens, but the model %s knows only %d: they do not belong together",
                       path, n, en->o.model, en->config->vocab);
    find_stops(en);
    return 0;
}

static int template_from_file(struct engine *en, const char *path, struct err *e) {
    char *text = NULL;
    size_t n;
    if (file_read(path, MAX_TEMPLATE_FILE, &text, &n, e) != 0)
        return -1;
    int rc = chat_template_parse(&en->tmpl, text, n, path, e);
    free(text);
    return rc;
}

/* What the template calls bos_token and eos_token, where no file beside it has named them. */
static int name_special(const struct tokenizer *t, int id, char **text, struct err *e) {
    if (*text || id < 0)
        return 0;
    *text = strdup(tokenizer_special_text(t, (uint32_t)id));
    return *text ? 0 : err_set(e, ERR_MEMORY, "out of memory");
}

int engine_open_template(struct engine *en, struct err *e) {
    const struct gguf *g = en->o.tokenizer ? NULL : weights_gguf(en->weights);
    const char *path = en->o.tokenizer ? en->o.tokenizer : en->o.model;
    struct gguf_str s;
    int rc = 0;
    if (en->o.chat_template)
        rc = template_from_file(en, en->o.chat_template, e);
    else if (g)
        rc = gguf_string(g, "tokenizer.chat_template", &s) ? chat_template_parse(&en->tmpl, s.p, s.n, path, e) : 0;
    else if (file_is_dir(path))
        rc = chat_template_open_dir(&en->tmpl, &en->bos, &en->eos, path, e);
    if (rc != 0 || name_special(en->tok, tokenizer_bos(en->tok), &en->bos, e) != 0 ||
        name_special(en->tok, tokenizer_eos(en->tok), &en->eos, e) != 0)
        return -1;
    if (!en->tmpl)
        return err_set(e, ERR_USAGE,
                       "%s has no chat template: it was not made for chats. --raw continues a text as it is, "
                       "--chat-template FILE brings one",
                       path);
    return 0;
}

void engine_settle_chunk(struct engine *en) {
    int chunk = en->o.chunk ? en->o.chunk : tunnel_wanted(&en->o.tunnel) ? CLOUD_CHUNK : LOCAL_CHUNK;
    en->chunk = chunk < (int)en->ctx ? chunk : (int)en->ctx;
}

static int settle_shape(struct engine *en, struct err *e) {
    const struct model_config *c = en->config;
    int n = c->n_layers, front = en->o.front, back = en->o.back;
    if (front + back > n) {
        front = front < n ? front : n;
        back = back < n - front ? back : n - front;
        term_note("%s has %d layers: --front %d --back %d instead of %d and %d", en->o.model, n, front, back,
                  en->o.front, en->o.back);
    }
    en->parts[0] = (struct part){.lo = 0, .hi = front, .embed = true};
    en->parts[1] = (struct part){.lo = front, .hi = n - back};
    en->parts[2] = (struct part){.lo = n - back, .hi = n, .head = true};
    if (en->o.ctx > c->max_ctx)
        return err_set(e, ERR_USAGE, "--ctx %d: %s was made for at most %d positions", en->o.ctx, en->o.model,
                       c->max_ctx);
    en->ctx = (uint32_t)(en->o.ctx ? en->o.ctx : c->max_ctx < DEFAULT_CTX ? c->max_ctx : DEFAULT_CTX);
    engine_settle_chunk(en);
    if (tunnel_wanted(&en->o.tunnel) && en->parts[1].lo >= en->parts[1].hi)
        return err_set(e, ERR_USAGE, "%s has %d layers: with --front %d --back %d none is left for a cloud",
                       en->o.model, n, front, back);
    return 0;
}

/* "16" or "16:100". */
static int parse_pad(struct engine *en, struct err *e) {
    char *end = NULL;
    if (!en->o.pad)
        return 0;
    long rows = strtol(en->o.pad, &end, 10);
    double ms = 0;
    bool ok = end != en->o.pad && rows >= 1 && rows <= SESSION_PAD_ROWS;
    if (ok && *end == ':') {
        const char *at = end + 1;
        ms = strtod(at, &end);
        ok = end != at && ms >= 1 && ms <= 60000;
    }
    if (!ok || *end != '\0')
        return err_set(e, ERR_USAGE, "--pad %s: rows of a window, 1 to %d, and after a colon 1 to 60000 milliseconds",
                       en->o.pad, SESSION_PAD_ROWS);
    en->pad_rows = (int)rows;
    en->pad_ms = ms;
    en->o.tunnel.pad_rows = en->pad_rows;
    return 0;
}

int engine_open(struct engine *en, const struct engine_opts *o, struct err *e) {
    *en = (struct engine){.o = *o};
    if (!o->model)
        return err_set(e, ERR_USAGE, "--model is needed: a Hugging Face directory or a .gguf file");
    /* Commands without a context of their own do not have these options. */
    if (o->iterate.block > 0 && iterate_check(&o->iterate, SESSION_MAX_NODES, e) != 0)
        return -1;
    if (parse_pad(en, e) != 0 || weights_open(&en->weights, o->model, e) != 0)
        return -1;
    en->config = weights_config(en->weights);
    return settle_shape(en, e);
}

/* host: what lies in this machine's memory wherever the backend computes. */
static int check_memory(const struct engine *en, const struct memory_plan *p, uint64_t host, struct err *e) {
    const char *is;
    bool card = device_is_card(en->backend);
    uint64_t limit = device_memory(en->backend, en->o.memory, &is);
    uint64_t work = p->scratch + en->beside_stages + (card ? 0 : host), need = p->weights + p->kv + work;
    enum dtype type = engine_kv_type(en);
    char total[16], weights[16], kv[16], scratch[16], have[16];
    term_size((double)need, total);
    term_size((double)p->weights, weights);
    term_size((double)p->kv, kv);
    term_size((double)work, scratch);
    term_size((double)limit, have);
    if (need > limit)
        return err_set(e, ERR_MEMORY,
                       "%s needs %s %s (weights %s, KV cache of %u positions %s, work space %s), but %s %s; try %s%s"
                       "a smaller --ctx%s%s",
                       en->o.model, total, device_memory_name(en->backend), weights, en->ctx, kv, scratch, have, is,
                       en->o.quant == QUANT_NONE ? "--quant q8 or q4, "
                       : en->o.quant == QUANT_Q8 ? "--quant q4, "
                                                 : "",
                       type == DT_F32           ? "--kv f16, "
                       : type == DT_F16 && card ? "--kv fp8, "
                                                : "",
                       card ? ", --backend cpu" : "",
                       en->o.memory ? " or more --memory" : " (--memory BYTES overrides what the system says)");
    if (need > limit - limit / 10)
        term_warn("%s needs %s %s and %s %s: that is near the limit", en->o.model, total,
                  device_memory_name(en->backend), have, is);
    uint64_t here = memory_available();
    term_size((double)host, total);
    term_size((double)here, have);
    return !card || host <= here
               ? 0
               : err_set(e, ERR_MEMORY,
                         "%s needs %s of this machine's memory for windows and guesses, but %s is what "
                         "is available; try a smaller --ctx or --chunk",
                         en->o.model, total, have);
}

/* One progress over three loads, and over the first pass. */
static int on_load(void *ctx, uint64_t done, uint64_t total) {
    struct engine_part *p = ctx;
    struct engine *en = p->en;
    (void)total;
    progress_show(&en->loading, p->before + done, en->to_load);
    bool whole = p->before + done == en->to_load, stop = interrupt_asked();
    if (whole || stop)
        progress_end(&en->loading, whole ? en->to_load : 0);
    return stop;
}

static int load_stages(struct engine *en, const struct memory_plan *plan, struct err *e) {
    struct load_opts lo = {.max_rows = en->chunk, .lazy = !en->settled, .progress = on_load};
    en->to_load = plan->file[0] + plan->file[1] + plan->file[2];
    progress_start(&en->loading, "loading weights", NULL);
    uint64_t before = 0;
    for (int i = 0; i < 3; before += plan->file[i++]) {
        if (i == 1 && en->tunnel)
            continue;
        en->loads[i] = (struct engine_part){en, before};
        lo.quant = engine_quant(en, i);
        lo.progress_ctx = &en->loads[i];
        if (en->backend->ops->stage_load(en->backend, en->weights, &en->parts[i], &lo, &en->stages[i], e) != 0) {
            progress_end(&en->loading, 0);
            return -1;
        }
    }
    return 0;
}

/* The middle layers: a tunnel to those of a cloud. */
static int connect_middle(struct engine *en, uint32_t live, struct err *e) {
    struct wire_hello hello;
    if (fingerprint_hello(en->weights, en->parts[1].lo, en->parts[1].hi, &hello, e) != 0)
        return -1;
    hello.codec = (uint8_t)en->codec;
    hello.kv = (uint8_t)en->o.kv;
    hello.quant = (uint8_t)engine_quant(en, 1);
    hello.ctx = en->ctx;
    hello.live = live;
    if (tunnel_open(&en->tunnel, &en->o.tunnel, en->o.home, &hello, (uint32_t)en->chunk, e) != 0)
        return -1;
    en->middle = tunnel_middle(en->tunnel);
    en->parts[1] = (struct part){0}; /* not for this machine */
    return 0;
}

/* Or those of this machine, behind what the wire would do to the activations. */
static int make_middle(struct engine *en, enum dtype kv, uint32_t live, struct err *e) {
    boundary_fn boundary = en->codec == CODEC_F32 ? NULL : codec_boundary;
    return local_middle_create(&en->middle, en->stages[1], kv, en->ctx, live, en->chunk, boundary, &en->codec, e);
}

/* NULL: the mode does not iterate. */
static const struct iterate_opts *iterates(const struct engine *en) {
    enum session_mode mode = engine_mode(en);
    return mode == SESSION_JACOBI || mode == SESSION_LOOKAHEAD ? &en->o.iterate : NULL;
}

static int open_guesser(struct engine *en, enum dtype kv, struct guesser_bytes *bytes, struct err *e) {
    const struct guesser_opts o = {
        .path = en->o.draft, .tok = en->tok, .vocab = (uint32_t)en->config->vocab, .ctx = en->ctx, .kv = kv};
    enum session_mode mode = engine_mode(en);
    *bytes = (struct guesser_bytes){0};
    if (!en->o.draft)
        return 0;
    if (mode != SESSION_AUTO && mode != SESSION_STOP_AND_WAIT)
        return err_set(e, ERR_USAGE, "--draft: nothing is drafted in --mode %s, but in auto and in stop-and-wait",
                       session_mode_name(mode));
    return guesser_open(&en->guesser, &o, e) == 0 ? guesser_bytes(en->guesser, device_is_card(en->backend), bytes, e)
                                                  : -1;
}

static int make_session(struct engine *en, enum dtype kv, int windows, struct err *e) {
    const struct session_drafter drafter = session_drafter_of(en->drafter);
    const struct session_opts so = {.front = en->stages[0],
                                    .back = en->stages[2],
                                    .middle = en->middle,
                                    .kv_type = kv,
                                    .max_ctx = en->ctx,
                                    .max_rows = en->chunk,
                                    .prefill_windows = windows,
                                    .speculation = {.mode = engine_mode(en),
                                                    .drafter = &drafter,
                                                    .iterate = iterates(en),
                                                    .pad_rows = en->pad_rows,
                                                    .pad_ms = en->pad_ms,
                                                    .fate = en->draft_log ? draft_log_guess : NULL,
                                                    .fate_ctx = en->draft_log}};
    return session_create(&en->session, &so, e);
}

int engine_load(struct engine *en, struct err *e) {
    struct memory_plan plan;
    struct guesser_bytes guesser;
    const struct part middle = en->parts[1];
    const enum quant quant[3] = {engine_quant(en, 0), engine_quant(en, 1), engine_quant(en, 2)};
    enum dtype kv = engine_kv_type(en);
    bool remote = tunnel_wanted(&en->o.tunnel);
    int windows = remote ? engine_cloud_windows(en) : LOCAL_WINDOWS;
    uint32_t live = session_live(en->chunk, windows);
    double t0 = clock_ms();
    en->codec = tunnel_codec(&en->o.tunnel);
    engine_warn_kv(en);
    if (!remote && en->pad_rows > 0)
        return err_set(e, ERR_USAGE, "--pad goes with --cloud HOST:PORT: without a network there is nothing to see");
    if (!en->backend &&
        (device_open(&en->backend, &en->o, e) != 0 || (!remote && device_check_kv(en->backend, &en->o, e) != 0)))
        return -1;
    if (open_guesser(en, kv, &guesser, e) != 0 || (remote && connect_middle(en, live, e) != 0))
        return -1;
    if (memory_plan(&plan, en->weights, en->parts, quant, kv, (uint64_t)en->ctx + live, en->chunk,
                    device_is_card(en->backend), e) != 0)
        return -1;
    const struct session_speculation sp = {.iterate = iterates(en)};
    const struct draft_model source = en->guesser ? guesser_source(en->guesser) : (struct draft_model){0};
    const struct drafter_opts dr = {.vocab = (uint32_t)en->config->vocab,
                                    .max_ctx = en->ctx,
                                    .store = en->store,
                                    .model = en->guesser ? &source : NULL};
    /* The store itself is a mapped file, which the kernel can take back. */
    plan.scratch += guesser.stage;
    uint64_t host =
        session_window_bytes(en->config->hidden, en->chunk, windows) + drafter_bytes(&dr) + guesser.beside +
        (remote || iterates(en) ? session_speculation_bytes(en->config->hidden, en->config->vocab, &sp) : 0) +
        en->beside;
    if (check_memory(en, &plan, host, e) != 0 || load_stages(en, &plan, e) != 0 ||
        (!remote && make_middle(en, kv, live, e) != 0))
        return -1;
    if ((en->guesser && guesser_load(en->guesser, en->backend, e) != 0) || drafter_create(&en->drafter, &dr, e) != 0 ||
        (en->o.draft_log && draft_log_open(&en->draft_log, en->o.draft_log, e) != 0) ||
        make_session(en, kv, windows, e) != 0)
        return -1;
    en->load_ms = clock_ms() - t0;
    log_line(LOG_INFO, "%s: %s, layers 0-%d | %d-%d%s | %d-%d; weights %.1f MB, KV cache %.1f MB", en->o.model,
             en->config->arch, en->parts[0].hi, middle.lo, middle.hi, remote ? " in the cloud" : "", en->parts[2].lo,
             en->parts[2].hi, (double)plan.weights / 1e6, (double)plan.kv / 1e6);
    return 0;
}

void engine_close(struct engine *en) {
    session_free(en->session);
    draft_log_close(en->draft_log);
    drafter_free(en->drafter);
    guesser_free(en->guesser);
    if (en->tunnel)
        tunnel_close(en->tunnel);
    else if (en->middle)
        en->middle->ops->free(en->middle);
    for (int i = 0; i < 3; i++)
        if (en->stages[i])
            en->stages[i]->ops->stage_free(en->stages[i]);
    if (en->backend)
        en->backend->ops->free(en->backend);
    chat_template_free(en->tmpl);
    tokenizer_free(en->tok);
    if (en->weights)
        weights_close(en->weights);
    free(en->bos);
    free(en->eos);
    *en = (struct engine){0};
}
