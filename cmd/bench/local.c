#include "cmd/bench/local.h"

#include "cmd/engine/device.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/cpu/cpu.h"
#include "gpu/backend.h"
#include "gpu/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

struct run {
    double prefill_tok_s, decode_tok_s;
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static int stop(void *ctx, uint32_t done, uint32_t all) {
    (void)ctx, (void)done, (void)all;
    return interrupt_asked();
}

/* One prompt and one answer, from an empty context. */
static int measure(struct session *s, const uint32_t *prompt, const struct bench_local_opts *b, struct run *r,
                   struct err *e) {
    struct sample_params greedy;
    sample_params_default(&greedy);
    session_reset(s);
    double t0 = clock_ms();
    if (session_feed(s, prompt, (uint32_t)b->prefill, stop, NULL, e) != 0)
        return e->kind == ERR_NONE ? err_set(e, ERR_IO, "stopped") : -1;
    double t1 = clock_ms();
    for (int i = 0; i < b->tokens; i++) {
        uint32_t token;
        if (interrupt_asked())
            return err_set(e, ERR_IO, "stopped");
        if (session_sample(s, &greedy, (uint32_t)i, &token, e) != 0 || session_advance(s, token, e) != 0)
            return -1;
    }
    double t2 = clock_ms();
    r->prefill_tok_s = b->prefill * 1e3 / (t1 - t0);
    r->decode_tok_s = b->tokens * 1e3 / (t2 - t1);
    return 0;
}

struct report {
    const char *model, *backend;
    bool card;
    int threads, prefill, tokens, repeat;
    double prefill_tok_s, decode_tok_s, load_ms;
    double gb_s, read_gb_s; /* weights read per second of decoding; what the memory gives: a card's copies */
};

static int print_json(const struct report *r, struct err *e) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(d);
    yyjson_mut_doc_set_root(d, o);
    yyjson_mut_obj_add_str(d, o, "model", r->model);
    yyjson_mut_obj_add_str(d, o, "backend", r->backend);
    yyjson_mut_obj_add_int(d, o, "threads", r->threads);
    yyjson_mut_obj_add_int(d, o, "prefill_tokens", r->prefill);
    yyjson_mut_obj_add_int(d, o, "decode_tokens", r->tokens);
    yyjson_mut_obj_add_int(d, o, "repeat", r->repeat);
    yyjson_mut_obj_add_real(d, o, "prefill_tok_s", r->prefill_tok_s);
    yyjson_mut_obj_add_real(d, o, "decode_tok_s", r->decode_tok_s);
    yyjson_mut_obj_add_real(d, o, "decode_gb_s", r->gb_s);
    yyjson_mut_obj_add_real(d, o, "read_gb_s", r->read_gb_s);
    yyjson_mut_obj_add_real(d, o, "load_ms", r->load_ms);
    char *text = yyjson_mut_write(d, 0, NULL);
    yyjson_mut_doc_free(d);
    if (!text)
        return err_set(e, ERR_MEMORY, "out of memory");
    puts(text);
    free(text);
    return 0;
}

static void print_table(const struct report *r) {
    printf("%s, %s", r->model, r->backend);
    if (!r->card)
        printf(", %d threads", r->threads);
    printf(", loaded in %.1f s; medians of %d runs\n", r->load_ms / 1e3, r->repeat);
    printf("  prompt of %4d tokens  %8.1f tok/s\n", r->prefill, r->prefill_tok_s);
    printf("  answer of %4d tokens  %8.1f tok/s   weights at %.1f GB/s, %.0f%% of the %.1f GB/s that memory reads\n",
           r->tokens, r->decode_tok_s, r->gb_s, 100 * r->gb_s / r->read_gb_s, r->read_gb_s);
}

/* What the memory gives that weights lie in, in the same run. */
static int measure_memory(const struct engine_opts *o, struct report *r, struct err *e) {
    struct cpu cpu = {0};
    struct cpu_limits here;
    struct gpu_limits there;
    struct gpu *g;
    if (r->card) {
        if (gpu_open(&g, device_first(o), e) != 0)
            return -1;
        int rc = gpu_limits_measure(g, LIMITS_COPY, 0, &there, e);
        gpu_close(g);
        r->read_gb_s = device_joined(o) * there.copy_bytes_s / 1e9;
        return rc;
    }
    if (cpu_init(&cpu, o->threads, engine_isa_name(o->isa), e) != 0)
        return -1;
    cpu_measure_limits(&cpu, &here);
    r->threads = pool_threads(cpu.pool);
    r->read_gb_s = here.read_bytes_s / 1e9;
    cpu_free(&cpu);
    return 0;
}

int bench_local(const struct engine_opts *o, const struct bench_local_opts *b, struct err *e) {
    struct engine en;
    uint32_t *prompt = NULL;
    double *prefill = NULL, *decode = NULL;
    int rc = -1;
    if (engine_open(&en, o, e) != 0)
        goto out;
    if (b->prefill + b->tokens > en.config->max_ctx) {
        err_set(e, ERR_USAGE, "--prefill %d and --tokens %d: %s was made for at most %d positions", b->prefill,
                b->tokens, o->model, en.config->max_ctx);
        goto out;
    }
    if (o->ctx == 0) { /* as much as is measured, not what chatting would get */
        en.ctx = (uint32_t)(b->prefill + b->tokens);
        engine_settle_chunk(&en);
    }
    if ((uint32_t)(b->prefill + b->tokens) > en.ctx) {
        err_set(e, ERR_USAGE, "--prefill %d and --tokens %d do not fit into --ctx %u", b->prefill, b->tokens, en.ctx);
        goto out;
    }
    en.settled = true;
    if (engine_load(&en, e) != 0)
        goto out;
    prompt = malloc((size_t)b->prefill * sizeof *prompt);
    prefill = malloc((size_t)b->repeat * sizeof *prefill);
    decode = malloc((size_t)b->repeat * sizeof *decode);
    if (!prompt || !prefill || !decode) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    for (int i = 0; i < b->prefill; i++)
        prompt[i] = (uint32_t)(philox_u64(1, (uint64_t)i, 0) % (uint64_t)en.config->vocab);
    struct progress p;
    progress_start(&p, "measuring", "runs");
    for (int i = -1; i < b->repeat; i++) { /* the first one warms up */
        struct run r = {0};
        if (measure(en.session, prompt, b, &r, e) != 0)
            goto out;
        if (i >= 0) {
            prefill[i] = r.prefill_tok_s;
            decode[i] = r.decode_tok_s;
        }
        progress_show(&p, (uint64_t)i + 2, (uint64_t)b->repeat + 1);
    }
    progress_end(&p, 0);
    size_t bytes = 0;
    for (int i = 0; i < 3; i++)
        bytes += en.stages[i]->ops->stage_bytes(en.stages[i]);
    struct report r = {.model = o->model,
                       .backend = engine_backend_name(&en),
                       .card = device_is_card(en.backend),
                       .prefill = b->prefill,
                       .tokens = b->tokens,
                       .repeat = b->repeat,
                       .prefill_tok_s = median(prefill, b->repeat),
                       .decode_tok_s = median(decode, b->repeat),
                       .load_ms = en.load_ms};
    if (measure_memory(o, &r, e) != 0)
        goto out;
    r.gb_s = r.decode_tok_s * (double)bytes / 1e9;
    rc = b->json ? print_json(&r, e) : 0;
    if (!b->json)
        print_table(&r);
out:
    free(prompt);
    free(prefill);
    free(decode);
    engine_close(&en);
    return rc;
}
