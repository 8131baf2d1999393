#include "test/unit/model_rig.h"

#include "core/base/file.h"
#include "core/model/local_middle.h"
#include "gpu/backend.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct stage *load(struct rig *r, int lo, int hi, bool embed, bool head, const struct rig_opts *o) {
    struct err e = {0};
    struct stage *s;
    const struct part part = {.lo = lo, .hi = hi, .embed = embed, .head = head};
    const struct load_opts opts = {.max_rows = o->max_rows, .quant = o->quant, .lazy = o->lazy};
    cr_assert_eq(r->backend->ops->stage_load(r->backend, r->weights, &part, &opts, &s, &e), 0, "%s", e.msg);
    return s;
}

bool rig_on_card(void) {
    const char *name = getenv("TEST_BACKEND");
    return name && strcmp(name, "cuda") == 0;
}

void rig_backend(struct backend **out, int threads, const char *isa) {
    struct err e = {0};
    if (rig_on_card()) {
        gpu_rig_prepare(0, 0);
        cr_assert_eq(backend_cuda_create(out, NULL, &e), 0, "%s", e.msg);
    } else {
        cr_assert_eq(backend_cpu_create(out, threads, isa, &e), 0, "%s", e.msg);
    }
}

void rig_open(struct rig *r, const char *model, const struct rig_opts *o) {
    struct err e = {0};
    memset(r, 0, sizeof *r);
    cr_assert_eq(weights_open(&r->weights, model, &e), 0, "%s", e.msg);
    r->config = weights_config(r->weights);
    if (o->cards) {
        gpu_rig_prepare(0, 0);
        cr_assert_eq(backend_cuda_create(&r->backend, &(struct cuda_opts){.devices = o->cards}, &e), 0, "%s", e.msg);
    } else {
        rig_backend(&r->backend, o->threads ? o->threads : 1, o->isa);
    }
    int n = r->config->n_layers, front = o->front, back = n - o->back;
    if (!o->front && !o->back) {
        r->front = load(r, 0, n, true, true, o);
    } else {
        r->front = load(r, 0, front, true, false, o);
        r->middle_stage = load(r, front, back, false, false, o);
        r->back = load(r, back, n, false, true, o);
        cr_assert_eq(local_middle_create(&r->middle, r->middle_stage, o->kv_type, o->ctx, session_live(o->max_rows, 1),
                                         o->max_rows, NULL, NULL, &e),
                     0, "%s", e.msg);
    }
    const struct session_opts so = {.front = r->front,
                                    .back = r->back ? r->back : r->front,
                                    .middle = r->middle,
                                    .kv_type = o->kv_type,
                                    .max_ctx = o->ctx,
                                    .max_rows = o->max_rows,
                                    .prefill_windows = 1};
    cr_assert_eq(session_create(&r->session, &so, &e), 0, "%s", e.msg);
}

void rig_close(struct rig *r) {
    session_free(r->session);
    if (r->middle)
        r->middle->ops->free(r->middle);
    struct stage *stages[] = {r->front, r->middle_stage, r->back};
    for (int i = 0; i < 3; i++)
        if (stages[i])
            stages[i]->ops->stage_free(stages[i]);
    r->backend->ops->free(r->backend);
    weights_close(r->weights);
}

float *rig_chain_logits(struct rig *r, const uint32_t *tokens, int n) {
    struct err e = {0};
    int *parents = malloc((size_t)n * sizeof *parents);
    float *logits = malloc((size_t)n * (size_t)r->config->vocab * sizeof *logits);
    cr_assert(parents && logits);
    for (int i = 0; i < n; i++)
        parents[i] = i - 1;
    session_reset(r->session);
    cr_assert_eq(session_try_tree(r->session, tokens, parents, n, logits, &e), 0, "%s", e.msg);
    free(parents);
    return logits;
}

const float *rig_feed(struct rig *r, const uint32_t *tokens, uint32_t n) {
    struct err e = {0};
    cr_assert_eq(session_feed(r->session, tokens, n, NULL, NULL, &e), 0, "%s", e.msg);
    return session_logits(r->session);
}

void rig_greedy(struct rig *r, uint32_t *tokens, int n) {
    struct err e = {0};
    struct sample_params p;
    sample_params_default(&p);
    p.temperature = 0;
    for (int i = 0; i < n; i++) {
        cr_assert_eq(session_sample(r->session, &p, (uint32_t)i, &tokens[i], &e), 0, "%s", e.msg);
        cr_assert_eq(session_advance(r->session, tokens[i], &e), 0, "%s", e.msg);
    }
}

/* ---- golden.bin ---- */

void golden_open(struct golden *g, const char *path) {
    struct err e = {0};
    size_t n;
    memset(g, 0, sizeof *g);
    cr_assert_eq(file_read(path, 1 << 20, &g->data, &n, &e), 0, "%s", e.msg);
    cr_assert(n > 28 && memcmp(g->data, "SIGOLD1\n", 8) == 0, "%s is not a golden file", path);
    uint32_t head[5];
    memcpy(head, g->data + 8, sizeof head);
    g->vocab = head[0], g->n_tokens = head[1], g->n_full = head[2], g->n_proj = head[3], g->n_greedy = head[4];
    char *p = g->data + 28;
    void *fields[] = {&g->tokens, &g->argmax, &g->gap,    &g->norm,      &g->proj,
                      &g->full,   &g->logits, &g->greedy, &g->greedy_gap};
    const size_t counts[] = {g->n_tokens,
                             g->n_tokens,
                             g->n_tokens,
                             g->n_tokens,
                             (size_t)g->n_tokens * g->n_proj,
                             g->n_full,
                             (size_t)g->n_full * g->vocab,
                             g->n_greedy,
                             g->n_greedy};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        memcpy(fields[i], &p, sizeof p);
        p += counts[i] * 4;
    }
    cr_assert_eq((size_t)(p - g->data), n, "%s has %zu bytes, its header says %zu", path, n, (size_t)(p - g->data));
}

void golden_close(struct golden *g) {
    free(g->data);
    memset(g, 0, sizeof *g);
}

static double sign_of(const struct golden *g, uint32_t j, uint32_t v) {
    uint64_t z = (uint64_t)v * g->n_proj + j + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) >> 63 ? -1 : 1;
}

struct distance golden_compare(const struct golden *g, const float *logits, double tolerance) {
    struct distance d = {0};
    size_t vocab = g->vocab;
    for (uint32_t i = 0; i < g->n_full; i++) {
        const float *want = g->logits + i * vocab, *got = logits + g->full[i] * vocab;
        double sum = 0;
        for (size_t v = 0; v < vocab; v++)
            sum += ((double)got[v] - want[v]) * ((double)got[v] - want[v]);
        double rel = sqrt(sum) / g->norm[g->full[i]];
        d.full = rel > d.full || isnan(rel) ? rel : d.full;
    }
    for (uint32_t t = 0; t < g->n_tokens; t++) {
        const float *got = logits + t * vocab;
        double sum = 0;
        for (uint32_t j = 0; j < g->n_proj; j++) {
            double p = 0;
            for (uint32_t v = 0; v < g->vocab; v++)
                p += sign_of(g, j, v) * got[v];
            sum += (p - g->proj[t * g->n_proj + j]) * (p - g->proj[t * g->n_proj + j]);
        }
        double rel = sqrt(sum / g->n_proj) / g->norm[t];
        d.estimate = rel > d.estimate || isnan(rel) ? rel : d.estimate;
        uint32_t best = 0;
        for (uint32_t v = 1; v < g->vocab; v++)
            best = got[v] > got[best] ? v : best;
        /* Two logits that each move by no more than the whole distance can change places only within twice that. */
        if (best != g->argmax[t] && g->gap[t] > 2 * tolerance * g->norm[t])
            d.argmax_wrong++;
    }
    return d;
}

void shared_path_or_skip(char *out, size_t cap, const char *below) {
    const char *shared = getenv("TEST_SHARED");
    snprintf(out, cap, "%s/%s", shared ? shared : "../shared", below);
    if (!file_exists(out) && !file_is_dir(out))
        cr_skip_test("SKIP: %s is not here (set TEST_SHARED to the folder that holds it)", out);
}
