/* The verify command: does the split give what the model alone would have given, bit for bit? */
#include "cmd/verify/verify.h"
#include "cmd/command.h"
#include "cmd/engine/device.h"
#include "cmd/engine/draft_log.h"
#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "cmd/json.h"
#include "cmd/term.h"
#include "cmd/text_file.h"
#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "net/audit.h"
#include "net/digest.h"
#include "net/fingerprint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPTS = 64, AUDIT_ROWS = 48, RANDOM_PROMPT = 24, SESSIONS = 4 };

/* Prose, a list, code, other scripts, rare bytes: what tokenizers cut differently. */
static const char *const builtin[] = {
    "Once upon a time there was a fox who",
    "The patient, born 14 March 1961, was admitted with chest pain and",
    "1. apples\n2. pears\n3.",
    "int main(int argc, char **argv) {\n    for (int i = 0; i < argc; i++)\n",
    ("Le ch\xc3\xa2teau \xc3\xa9tait vide. \xe6\x9d\xb1\xe4\xba\xac\xe3\x81\xaf "
     "\xd0\x9c\xd0\xbe\xd1\x81\xd0\xba\xd0\xb2\xd0\xb0 "),
    "{\"name\": \"Ada\", \"tags\": [\"a\", \"b\"], \"n\": -1.5e3}\n\xf0\x9f\x99\x82 ",
};
enum { N_BUILTIN = sizeof builtin / sizeof *builtin };

struct verify_opts {
    const char *prompts;
    bool random;
    int tokens, audit;
    uint64_t seed;
    struct engine_opts engine;
    struct common_opts common;
};

#define AT(field) .offset = offsetof(struct verify_opts, field)
static const struct opt options[] = {
    {"prompts", "FILE", "texts to continue, separated by lines of ---; without it a few of its own", OPT_STRING,
     AT(prompts)},
    {"random-prompts", NULL, "continue token ids drawn by chance: for a model without a tokenizer", OPT_FLAG,
     AT(random)},
    {"tokens", "N", "length of each answer", OPT_INT, AT(tokens), .def = "32", .min = 1, .max = 100000},
    {"seed", "N", "of the sampled answers", OPT_U64, AT(seed), .def = "1"},
    {"audit", "N",
     "make the cloud commit to what each of its layers computed, then open N layers chosen at random and compute them "
     "from the model on this machine",
     OPT_INT, AT(audit), .def = "0", .min = 0, .max = 1000},
    {0},
};
#undef AT

static const char *const synopsis[] = {
    "verify --model M [--cloud HOST:PORT --pin PIN] [--tokens N] [--audit N] [OPTION]...",
    NULL,
};

static const struct opt_group groups[] = {
    {"Verify", options, 0},
    {"Cloud", tunnel_options, offsetof(struct verify_opts, engine.tunnel)},
    {"Model", engine_options, offsetof(struct verify_opts, engine)},
    {"Context", engine_context_options, offsetof(struct verify_opts, engine)},
    {"Modes jacobi and lookahead", engine_iterate_options, offsetof(struct verify_opts, engine)},
    {"Text", engine_text_options, offsetof(struct verify_opts, engine)},
    {"Common", common_options, offsetof(struct verify_opts, common)},
};

static const struct opt_table table = {
    .command = "verify",
    .synopsis = synopsis,
    .about =
        "Continues texts twice, with the whole model on this machine and with its middle layers in a cloud, and "
        "compares every token and every bit of the logits, likeliest tokens and drawn ones. Exit status 1 when "
        "anything differs. Where the cloud computes with another backend than this machine (a card there, the CPU "
        "here), bits cannot be equal: then the logits of the likeliest tokens have to be near.\n"
        "Without --cloud it starts a cloud of its own on 127.0.0.1. This machine needs memory for the whole model.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "texts are given as --prompts FILE",
};

/* One answer: tokens, and the first 8 bytes of a SHA-256 over the logits of each position. */
struct run {
    uint32_t *ids;
    uint64_t *logits;
    int n;
    double ms;
};

/* One text in one way of drawing. */
struct comparison {
    const char *draw, *mode;
    int prompt, n_prompt;
    double local_tok_s, split_tok_s;
    int first; /* step of the first difference; -1: none */
    uint32_t local_id, split_id;
    bool logits_only;
    bool near;    /* of unlike backends: */
    double apart; /* the largest distance of logits */
};

struct verify {
    const struct verify_opts *o;
    struct engine en;
    struct part middle;
    struct loopback *loop;
    struct tunnel *tunnel;
    struct drafter *drafter;
    struct session *split;
    double near;                      /* how far logits may be apart, where */
    char there[WIRE_MAX_BACKEND + 1]; /* what the cloud computes with, where that is unlike this machine's; else "" */
    struct ids prompts[MAX_PROMPTS];
    int n_prompts;
    struct run local, remote;
    struct comparison results[2 * MAX_PROMPTS * N_SESSION_MODES];
    int n_results, n_different;
    double apart; /* of all results */
    struct audit_report audit;
};

/* ---- prompts ---- */

static int add_prompt(void *ctx, const char *text, size_t n, struct err *e) {
    struct verify *v = ctx;
    if (v->n_prompts == MAX_PROMPTS)
        return err_set(e, ERR_USAGE, "%s has more than %d texts", v->o->prompts, MAX_PROMPTS);
    struct ids *p = &v->prompts[v->n_prompts++];
    if (tokenizer_encode(v->en.tok, text, n, TOK_BOS, p, e) != 0)
        return -1;
    return p->n ? 0 : err_set(e, ERR_USAGE, "text %d is empty", v->n_prompts);
}

/* For a model without a tokenizer. */
static int random_prompts(struct verify *v, struct err *e) {
    for (int i = 0; i < 2; i++) {
        struct ids *p = &v->prompts[v->n_prompts++];
        for (uint64_t k = 0; k < RANDOM_PROMPT; k++)
            ids_push(p, (uint32_t)(philox_u64(v->o->seed, (uint64_t)i, k) % (uint64_t)v->en.config->vocab));
        if (p->bad)
            return err_set(e, ERR_MEMORY, "out of memory");
    }
    return 0;
}

static int make_prompts(struct verify *v, struct err *e) {
    int rc = 0;
    bool none = !v->en.o.tokenizer && strncmp(v->en.o.model, "random:", 7) == 0;
    if (none && v->o->prompts)
        rc = err_set(e, ERR_USAGE, "%s has no tokenizer; name one with --tokenizer DIR|FILE", v->en.o.model);
    else if (v->o->random && v->o->prompts)
        rc = err_set(e, ERR_USAGE, "--prompts FILE or --random-prompts, not both");
    else if (none || v->o->random)
        rc = random_prompts(v, e);
    else if (engine_open_tokenizer(&v->en, e) != 0)
        return -1;
    else if (v->o->prompts)
        rc = text_file_each(v->o->prompts, add_prompt, v, e);
    else
        for (int i = 0; i < N_BUILTIN && rc == 0; i++)
            rc = add_prompt(v, builtin[i], strlen(builtin[i]), e);
    for (int i = 0; i < v->n_prompts && rc == 0; i++)
        if (v->prompts[i].n + (size_t)v->o->tokens > v->en.ctx)
            rc =
                err_set(e, ERR_USAGE, "text %d has %zu tokens; with --tokens %d they do not fit into the context of %u",
                        i + 1, v->prompts[i].n, v->o->tokens, v->en.ctx);
    return rc;
}

/* ---- both sides ---- */

static int open_tunnel(struct verify *v, struct tunnel **t, const struct wire_hello *hello, struct err *e) {
    const struct engine *en = &v->en;
    if (!v->loop)
        return tunnel_open(t, &v->en.o.tunnel, v->o->common.home, hello, (uint32_t)en->chunk, e);
    return tunnel_open_to(t, &v->en.o.tunnel, loopback_address(v->loop), loopback_pin(v->loop),
                          loopback_client(v->loop), hello, (uint32_t)en->chunk, e);
}

static int make_hello(struct verify *v, struct wire_hello *hello, struct err *e) {
    const struct engine *en = &v->en;
    if (fingerprint_hello(en->weights, v->middle.lo, v->middle.hi, hello, e) != 0)
        return -1;
    hello->kv = (uint8_t)en->o.kv;
    hello->quant = (uint8_t)engine_quant(en, 1);
    hello->ctx = en->ctx;
    hello->live = session_live(en->chunk, engine_cloud_windows(en));
    return 0;
}

/* What the split side takes beside the model alone: KV of its own for the edge layers and, when the cloud is in this
 * process, the middle layers once more. */
static int count_memory(struct verify *v, struct err *e) {
    struct engine *en = &v->en;
    struct memory_plan p;
    enum dtype kv = engine_kv_type(en);
    bool card = device_is_card(en->backend);
    int windows = engine_cloud_windows(en);
    uint64_t slots = (uint64_t)en->ctx + session_live(en->chunk, windows);
    const enum quant quant[3] = {engine_quant(en, 0), engine_quant(en, 1), engine_quant(en, 2)};
    const struct part edges[3] = {en->parts[0], {0}, en->parts[2]}, middle[3] = {{0}, v->middle, {0}};
    if (memory_plan(&p, en->weights, edges, quant, kv, slots, en->chunk, card, e) != 0)
        return -1;
    const struct drafter_opts dr = {.vocab = (uint32_t)en->config->vocab, .max_ctx = en->ctx};
    en->beside_stages = p.kv;
    en->beside = session_window_bytes(en->config->hidden, en->chunk, windows) + drafter_bytes(&dr) +
                 session_speculation_bytes(en->config->hidden, en->config->vocab,
                                           &(struct session_speculation){.iterate = &en->o.iterate});
    if (tunnel_wanted(&en->o.tunnel))
        return 0;
    if (memory_plan(&p, en->weights, middle, quant, kv, 0, en->chunk, card, e) != 0)
        return -1;
    en->beside_stages += p.weights + p.scratch + loopback_kv_bytes(en, &v->middle, SESSIONS);
    return 0;
}

/* The whole model here, then the same edge layers with a middle that is elsewhere. */
static int open_sides(struct verify *v, struct wire_hello *hello, struct err *e) {
    struct engine *en = &v->en;
    struct tunnel_opts tunnel = en->o.tunnel;
    if (device_open(&en->backend, &en->o, e) != 0 || count_memory(v, e) != 0)
        return -1;
    int pad_rows = en->pad_rows;
    en->o.tunnel.cloud.n = 0; /* this engine is the local side, behind the same codec */
    en->pad_rows = 0;
    if (!en->o.tunnel.codec)
        en->o.tunnel.codec = 1 + CODEC_F16;
    int rc = engine_load(en, e);
    en->o.tunnel = tunnel;
    en->pad_rows = pad_rows;
    if (rc != 0)
        return -1;
    if (!tunnel_wanted(&tunnel) && loopback_start(&v->loop, en, &v->middle, SESSIONS, e) != 0)
        return -1;
    if (make_hello(v, hello, e) != 0)
        return -1;
    hello->codec = (uint8_t)en->codec;
    if (open_tunnel(v, &v->tunnel, hello, e) != 0)
        return -1;
    struct remote_info info;
    remote_middle_info(tunnel_middle(v->tunnel), &info);
    const char *ours = engine_backend_name(en);
    v->near = engine_kv_type(&v->en) == DT_E4M3                        ? VERIFY_NEAR_FP8
              : audit_math_fast(info.backend) != audit_math_fast(ours) ? VERIFY_NEAR_FAST
                                                                       : VERIFY_NEAR;
    if (!v->loop && strcmp(info.backend, ours) != 0 && audit_tolerance(info.backend, ours) > 0)
        snprintf(v->there, sizeof v->there, "%s", info.backend);
    const struct drafter_opts dr = {.vocab = (uint32_t)en->config->vocab, .max_ctx = en->ctx};
    if (drafter_create(&v->drafter, &dr, e) != 0)
        return -1;
    const struct session_drafter drafter = session_drafter_of(v->drafter);
    const struct session_opts so = {.front = en->stages[0],
                                    .back = en->stages[2],
                                    .middle = tunnel_middle(v->tunnel),
                                    .kv_type = engine_kv_type(en),
                                    .max_ctx = en->ctx,
                                    .max_rows = en->chunk,
                                    .prefill_windows = engine_cloud_windows(en),
                                    .speculation = {.mode = SESSION_SEQUENTIAL,
                                                    .drafter = &drafter,
                                                    .iterate = &en->o.iterate,
                                                    .pad_rows = en->pad_rows,
                                                    .pad_ms = en->pad_ms,
                                                    .fate = en->draft_log ? draft_log_guess : NULL,
                                                    .fate_ctx = en->draft_log}};
    return session_create(&v->split, &so, e);
}

static int answer(struct verify *v, struct session *s, const struct ids *prompt, const struct sample_params *p,
                  struct run *r, struct err *e) {
    uint8_t sum[DIGEST_BYTES];
    double t0 = 0;
    session_reset(s);
    r->n = 0;
    if (session_feed(s, prompt->p, (uint32_t)prompt->n, NULL, NULL, e) != 0)
        return -1;
    for (t0 = clock_ms();;) {
        struct digest d;
        digest_start(&d);
        digest_add(&d, session_logits(s), (size_t)v->en.config->vocab * sizeof(float));
        if (digest_end(&d, sum, e) != 0)
            return -1;
        memcpy(&r->logits[r->n], sum, sizeof r->logits[0]);
        if (session_sample(s, p, (uint32_t)r->n, &r->ids[r->n], e) != 0)
            return -1;
        if (++r->n == v->o->tokens)
            break;
        if (interrupt_asked())
            return err_set(e, ERR_IO, "stopped");
        if (session_advance(s, r->ids[r->n - 1], e) != 0)
            return -1;
    }
    r->ms = clock_ms() - t0;
    return 0;
}

static void hold_against(struct verify *v, struct comparison *c) {
    c->first = -1;
    for (int i = 0; i < v->o->tokens && c->first < 0; i++) {
        bool token = v->local.ids[i] != v->remote.ids[i];
        if (!token && v->local.logits[i] == v->remote.logits[i])
            continue;
        c->first = i;
        c->local_id = v->local.ids[i];
        c->split_id = v->remote.ids[i];
        c->logits_only = !token;
    }
    v->n_different += c->first >= 0;
    int n = v->o->tokens - 1;
    c->local_tok_s = v->local.ms > 0 ? n / v->local.ms * 1e3 : 0;
    c->split_tok_s = v->remote.ms > 0 ? n / v->remote.ms * 1e3 : 0;
}

static void print_row(const struct comparison *c, int tokens) {
    printf("%4d %7d  %-8s %-13s %7d ", c->prompt, c->n_prompt, c->draw, c->mode, tokens);
    if (c->near)
        printf("%25s   %s: %.1e apart", "", c->first < 0 ? "near" : "DIFFERENT", c->apart);
    else
        printf("%12.1f %12.1f   %s", c->local_tok_s, c->split_tok_s, c->first < 0 ? "equal" : "");
    if (c->first >= 0 && (c->near || c->logits_only))
        printf("%s: the logits of answer position %d", c->near ? "" : "DIFFERENT", c->first + 1);
    else if (c->first >= 0)
        printf("DIFFERENT: answer position %d is token %u and was to be %u", c->first + 1, c->split_id, c->local_id);
    printf("\n");
    fflush(stdout);
}

/* Of unlike backends the answer of the model alone is what both go along. */
static int compare_near(struct verify *v, int prompt, struct err *e) {
    struct near_report r;
    struct comparison *c = &v->results[v->n_results];
    *c = (struct comparison){.draw = "greedy", .mode = "near", .prompt = prompt + 1, .near = true};
    c->n_prompt = (int)v->prompts[prompt].n;
    session_set_mode(v->split, SESSION_SEQUENTIAL);
    if (verify_near(v->en.session, v->split, &v->prompts[prompt], v->o->tokens, v->en.config->vocab, v->near, &r, e) !=
        0)
        return -1;
    c->first = r.at;
    c->apart = r.worst;
    v->n_different += r.at >= 0;
    v->apart = r.worst > v->apart ? r.worst : v->apart;
    v->n_results++;
    if (!v->o->common.json)
        print_row(c, v->o->tokens);
    return 0;
}

/* The answer that the modes of the split have to give: the model's alone, or where its bits cannot be had from the
 * cloud's backend, the split's own without guesses. */
static int right_answer(struct verify *v, const struct ids *prompt, const struct sample_params *p, struct err *e) {
    session_set_mode(v->split, SESSION_SEQUENTIAL);
    return answer(v, v->there[0] ? v->split : v->en.session, prompt, p, &v->local, e);
}

static int compare_all(struct verify *v, struct err *e) {
    struct sample_params draws[2];
    static const char *const names[2] = {"greedy", "sampled"};
    sample_params_default(&draws[0]);
    draws[0].temperature = 0;
    draws[1] = draws[0];
    draws[1].temperature = 0.8F;
    draws[1].top_p = 0.95F;
    draws[1].seed = v->o->seed;
    if (v->there[0] && !v->o->common.json)
        printf("the cloud computes with %s, this machine with %s: logits have to be near those of the model alone, "
               "within %.0e,\nand each mode has to equal sequential decoding through the cloud\n",
               v->there, engine_backend_name(&v->en), v->near);
    if (!v->o->common.json)
        printf("text  tokens  draw     mode           answer  %s  split tok/s   logits and tokens\n",
               v->there[0] ? " seq. tok/s" : "alone tok/s");
    for (int i = 0; i < v->n_prompts; i++) {
        if (v->there[0] && compare_near(v, i, e) != 0)
            return -1;
        for (int d = 0; d < 2; d++) {
            if (right_answer(v, &v->prompts[i], &draws[d], e) != 0)
                return -1;
            for (int m = 0; m < N_SESSION_MODES; m++) {
                if (v->there[0] && m == SESSION_SEQUENTIAL)
                    continue;
                struct comparison *c = &v->results[v->n_results];
                *c = (struct comparison){.draw = names[d],
                                         .mode = session_mode_name((enum session_mode)m),
                                         .prompt = i + 1,
                                         .n_prompt = (int)v->prompts[i].n};
                session_set_mode(v->split, (enum session_mode)m);
                if (answer(v, v->split, &v->prompts[i], &draws[d], &v->remote, e) != 0)
                    return -1;
                hold_against(v, c);
                v->n_results++;
                if (!v->o->common.json)
                    print_row(c, v->o->tokens);
            }
        }
    }
    return 0;
}

/* ---- the audit: a session of its own, with the first text as its window ---- */

static int audit(struct verify *v, const struct wire_hello *hello, struct err *e) {
    struct tunnel *t = NULL;
    const struct ids *p = &v->prompts[0];
    int n = p->n < AUDIT_ROWS ? (int)p->n : AUDIT_ROWS;
    n = n < v->en.chunk ? n : v->en.chunk;
    if (open_tunnel(v, &t, hello, e) != 0)
        return -1;
    int rc = verify_audit(&v->en, tunnel_middle(t), &v->middle, p->p, n, v->o->audit, v->o->common.json, &v->audit, e);
    tunnel_close(t);
    return rc;
}

static int print_json(struct verify *v, const struct err *caught, struct err *e) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(d), *rows = yyjson_mut_arr(d);
    yyjson_mut_doc_set_root(d, o);
    bool ok = yyjson_mut_obj_add_bool(d, o, "equal", v->n_different == 0) &&
              yyjson_mut_obj_add_str(d, o, "rule", v->there[0] ? "near" : "bits") &&
              yyjson_mut_obj_add_real(d, o, "largest_distance", v->apart) &&
              yyjson_mut_obj_add_str(d, o, "codec", codec_name(v->en.codec)) &&
              yyjson_mut_obj_add_val(d, o, "answers", rows);
    for (int i = 0; i < v->n_results && ok; i++) {
        const struct comparison *c = &v->results[i];
        yyjson_mut_val *r = yyjson_mut_arr_add_obj(d, rows);
        ok = r && yyjson_mut_obj_add_int(d, r, "text", c->prompt) && yyjson_mut_obj_add_str(d, r, "draw", c->draw) &&
             yyjson_mut_obj_add_str(d, r, "mode", c->mode) &&
             yyjson_mut_obj_add_int(d, r, "prompt_tokens", c->n_prompt) &&
             yyjson_mut_obj_add_int(d, r, "tokens", v->o->tokens) &&
             yyjson_mut_obj_add_real(d, r, "local_tok_s", c->local_tok_s) &&
             yyjson_mut_obj_add_real(d, r, "split_tok_s", c->split_tok_s) &&
             (c->first < 0 ? yyjson_mut_obj_add_null(d, r, "first_difference")
                           : yyjson_mut_obj_add_int(d, r, "first_difference", c->first + 1));
    }
    if (v->o->audit && ok)
        ok = yyjson_mut_obj_add_int(d, o, "audited_layers", v->audit.n_layers) &&
             yyjson_mut_obj_add_int(d, o, "audit_positions", v->audit.n_rows) &&
             yyjson_mut_obj_add_str(d, o, "audit_backend", v->audit.backend) &&
             yyjson_mut_obj_add_real(d, o, "audit_tolerance", v->audit.tolerance) &&
             yyjson_mut_obj_add_bool(d, o, "audit_passed", !caught) &&
             (caught ? yyjson_mut_obj_add_str(d, o, "audit_error", caught->msg)
                     : yyjson_mut_obj_add_real(d, o, "audit_largest_difference", v->audit.worst));
    char *text = ok ? yyjson_mut_write(d, YYJSON_WRITE_NEWLINE_AT_END, NULL) : NULL;
    yyjson_mut_doc_free(d);
    if (!text)
        return err_set(e, ERR_MEMORY, "out of memory");
    fputs(text, stdout);
    free(text);
    return 0;
}

static int reserve(struct verify *v, struct err *e) {
    struct run *r[2] = {&v->local, &v->remote};
    for (int i = 0; i < 2; i++) {
        r[i]->ids = calloc((size_t)v->o->tokens, sizeof *r[i]->ids);
        r[i]->logits = calloc((size_t)v->o->tokens, sizeof *r[i]->logits);
        if (!r[i]->ids || !r[i]->logits)
            return err_set(e, ERR_MEMORY, "out of memory for answers of %d tokens", v->o->tokens);
    }
    return 0;
}

static void say_result(const struct verify *v) {
    if (v->n_different)
        printf("%d of %d answers of the split are not what they have to be\n", v->n_different, v->n_results);
    else if (v->there[0])
        printf("the split (codec %s) is near the model alone: the logits of a position are at most %.1e apart; and all "
               "modes give equal answers, bit for bit\n",
               codec_name(v->en.codec), v->apart);
    else
        printf("all %d answers of the split (codec %s) equal those of the model alone, bit for bit\n", v->n_results,
               codec_name(v->en.codec));
}

static void close_verify(struct verify *v) {
    session_free(v->split);
    drafter_free(v->drafter);
    tunnel_close(v->tunnel);
    loopback_stop(v->loop);
    engine_close(&v->en);
    for (int i = 0; i < v->n_prompts; i++)
        ids_free(&v->prompts[i]);
    free(v->local.ids);
    free(v->local.logits);
    free(v->remote.ids);
    free(v->remote.logits);
    wipe_free(v, sizeof *v);
}

/* Whoever names a pin means a cloud: to verify another one, in this process, would only look like an answer. */
static int check_cloud(const struct tunnel_opts *t, struct err *e) {
    if (tunnel_wanted(t))
        return tunnel_check(t, e);
    return t->pin.n || t->trust_first
               ? err_set(e, ERR_USAGE, "%s goes with --cloud HOST:PORT; without that, verify starts a cloud of its own",
                         t->pin.n ? "--pin" : "--trust-on-first-use")
               : 0;
}

static int run(void *values, const struct opt_result *given, struct err *e) {
    struct verify_opts *o = values;
    struct verify *v = calloc(1, sizeof *v);
    struct wire_hello hello;
    struct err caught = {0};
    int status = -1;
    (void)given;
    term_setup("verify", o->common.quiet, o->common.verbose);
    interrupt_setup();
    interrupt_insist(true);
    if (!v)
        return err_set(e, ERR_MEMORY, "out of memory");
    v->o = o;
    o->engine.home = o->common.home;
    if (check_cloud(&o->engine.tunnel, e) != 0)
        goto out;
    if (engine_open(&v->en, &o->engine, e) != 0)
        goto out;
    v->middle = v->en.parts[1];
    if (v->middle.lo >= v->middle.hi) {
        err_set(e, ERR_USAGE, "%s has %d layers: with --front %d --back %d none is left to be split off", v->en.o.model,
                v->en.config->n_layers, v->en.o.front, v->en.o.back);
        goto out;
    }
    if (make_prompts(v, e) != 0 || reserve(v, e) != 0 || open_sides(v, &hello, e) != 0 || compare_all(v, e) != 0)
        goto out;
    bool bad = false;
    if (o->audit && audit(v, &hello, &caught) != 0) {
        bad = true;
        if (caught.kind != ERR_PEER) {
            *e = caught;
            err_wrap(e, "the audit could not be finished");
            goto out;
        }
    }
    if (o->common.json) {
        if (print_json(v, bad ? &caught : NULL, e) != 0)
            goto out;
    } else {
        say_result(v);
    }
    if (bad)
        term_error("audit: %s", caught.msg);
    status = v->n_different || bad ? EXIT_FAILED : EXIT_DONE;
out:
    if (status < 0 && interrupt_asked())
        status = interrupt_status();
    close_verify(v);
    return status;
}

const struct command cmd_verify = {
    .name = "verify",
    .summary = "compare the split with the model alone, and audit a cloud",
    .table = &table,
    .values_size = sizeof(struct verify_opts),
    .run = run,
};
