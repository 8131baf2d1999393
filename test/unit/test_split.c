/* The split against the model alone, bit for bit: tokens and logits of sessions whose middle layers are a cloud's, over
 * TLS and through a codec, against those of a local twin behind the same codec. Greedy and drawn, prompts in chunks of
 * 1, 7 and 64, trees, second turns; alone, and with 16 others in the same passes. */
#include "test/unit/model_rig.h"
#include "test/unit/split_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CHUNKS = 3, COMPANY = 17, ROUNDS = 2 };
static const int chunks[N_CHUNKS] = {1, 7, 64};

/* Talk number i of a model; any row of them has all codecs and chunks, greedy and drawn. */
static struct talk talk_of(int i) {
    int draw = i % 5; /* coprime to the others, so that all come together in the end */
    return (struct talk){.script = (uint64_t)i,
                         .codec = (enum codec)(i % N_CODECS),
                         .chunk = chunks[i / N_CODECS % N_CHUNKS],
                         .temperature = draw ? 0.8f : 0,
                         .seed = (uint64_t)draw};
}

static void describe(char *out, size_t cap, const char *model, const struct talk *t, const char *how) {
    snprintf(out, cap, "%s, codec %s, chunks of %d, temperature %.1f, seed %d, %s", model, codec_name(t->codec),
             t->chunk, (double)t->temperature, (int)t->seed, how);
}

static void expect(struct side *locals, const struct talk *t, struct record *want) {
    struct err e = {0};
    cr_assert_eq(talk_run(&locals[t->codec], t, want, &e), 0, "%s", e.msg);
}

/* n talks one after the other, each over a connection of its own. */
static void alone(const struct split_rig *r, struct side *locals, const char *name, int n) {
    struct record want = {0}, got = {0};
    struct err e = {0};
    char what[200];
    for (int i = 0; i < n; i++) {
        const struct talk t = talk_of(i);
        struct side s;
        expect(locals, &t, &want);
        side_open_remote(&s, r, t.codec, t.chunk);
        cr_assert_eq(talk_run(&s, &t, &got, &e), 0, "%s", e.msg);
        describe(what, sizeof what, name, &t, "alone");
        record_check(&got, &want, r->config->vocab, what);
        side_close(&s);
    }
    record_free(&want);
    record_free(&got);
}

struct guest {
    pthread_t thread;
    pthread_barrier_t *start;
    struct side side;
    struct talk talks[ROUNDS];
    struct record got[ROUNDS];
    int rc;
    struct err e;
};

static void *visit(void *arg) {
    struct guest *g = arg;
    pthread_barrier_wait(g->start);
    for (int k = 0; k < ROUNDS && g->rc == 0; k++)
        g->rc = talk_run(&g->side, &g->talks[k], &g->got[k], &g->e);
    return NULL;
}

/* Each of 17 with its own codec and chunks, all at once; each is held against its local twin. */
static void in_company(const struct split_rig *r, struct side *locals, const char *name) {
    struct guest *guests = calloc(COMPANY, sizeof *guests);
    pthread_barrier_t start;
    struct record want = {0};
    char what[200];
    cr_assert(guests);
    pthread_barrier_init(&start, NULL, COMPANY);
    for (int i = 0; i < COMPANY; i++) {
        struct guest *g = &guests[i];
        g->start = &start;
        for (int k = 0; k < ROUNDS; k++) { /* codec and chunks are the session's */
            g->talks[k] = talk_of(i);
            g->talks[k].script = (uint64_t)(100 + i + k * COMPANY);
            g->talks[k].seed += (uint64_t)k;
        }
        side_open_remote(&g->side, r, g->talks[0].codec, g->talks[0].chunk);
    }
    double passes = split_rig_metric(r, "pass_rows_count"), windows = split_rig_metric(r, "windows_total");
    for (int i = 0; i < COMPANY; i++)
        cr_assert_eq(pthread_create(&guests[i].thread, NULL, visit, &guests[i]), 0);
    for (int i = 0; i < COMPANY; i++)
        pthread_join(guests[i].thread, NULL);
    passes = split_rig_metric(r, "pass_rows_count") - passes;
    windows = split_rig_metric(r, "windows_total") - windows;
    cr_log_info("%s: %.0f windows in %.0f passes", name, windows, passes);
    cr_assert_lt(passes, windows, "nobody shared a pass");
    for (int i = 0; i < COMPANY; i++) {
        struct guest *g = &guests[i];
        cr_assert_eq(g->rc, 0, "%s", g->e.msg);
        for (int k = 0; k < ROUNDS; k++) {
            expect(locals, &g->talks[k], &want);
            describe(what, sizeof what, name, &g->talks[k], "with 16 others");
            record_check(&g->got[k], &want, r->config->vocab, what);
            record_free(&g->got[k]);
        }
        side_close(&g->side);
    }
    record_free(&want);
    pthread_barrier_destroy(&start);
    free(guests);
}

static void split_equals_local(const char *path, int edge, enum dtype kv_type, int n_alone) {
    struct split_rig r;
    struct side locals[N_CODECS];
    split_rig_open(&r, path, edge, edge, kv_type);
    for (int c = 0; c < N_CODECS; c++)
        side_open_local(&locals[c], &r, (enum codec)c);
    alone(&r, locals, path, n_alone);
    in_company(&r, locals, path);
    for (int c = 0; c < N_CODECS; c++)
        side_close(&locals[c]);
    split_rig_close(&r);
}

enum { ALL = N_CODECS * N_CHUNKS * 5, ONCE = N_CODECS * N_CHUNKS };

/* Codecs that differ are seen: the comparison above is no comparison of nothing. */
Test(split, another_codec_is_another_text, .timeout = 300) {
    struct split_rig r;
    struct record *rec = calloc(N_CODECS, sizeof *rec);
    struct err e = {0};
    split_rig_open(&r, "test/models/tiny", 1, 1, DT_F16);
    struct talk t = talk_of(0);
    t.temperature = 0.8f;
    for (int c = 0; c < N_CODECS; c++) {
        struct side s;
        side_open_remote(&s, &r, (enum codec)c, t.chunk);
        cr_assert_eq(talk_run(&s, &t, &rec[c], &e), 0, "%s", e.msg);
        side_close(&s);
        for (int k = 0; k < c; k++)
            cr_assert_neq(memcmp(rec[c].rows, rec[k].rows, (size_t)r.config->vocab * sizeof(float)), 0, "%s and %s",
                          codec_name((enum codec)c), codec_name((enum codec)k));
    }
    for (int c = 0; c < N_CODECS; c++)
        record_free(&rec[c]);
    free(rec);
    split_rig_close(&r);
}

#define MODEL(id, name)                                                                                                \
    Test(split, id, .timeout = 600) {                                                                                  \
        split_equals_local("test/models/families/" name, 1, DT_F16, ONCE);                                             \
    }

MODEL(qwen2_swa, "qwen2-swa")
MODEL(gguf_nemo, "gguf-nemo/model.gguf")

#if defined(__SANITIZE_THREAD__)
#define FEW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FEW 1
#endif
#endif

#ifndef FEW /* threads do the same whatever the model is: under ThreadSanitizer those above are enough */
Test(split, tiny, .timeout = 600) {
    split_equals_local("test/models/tiny", 2, DT_F16, ALL);
}

Test(split, tiny_f32_kv, .timeout = 600) {
    split_equals_local("test/models/tiny", 1, rig_on_card() ? DT_F16 : DT_F32, ONCE);
}

Test(split, stories260K, .timeout = 600) {
    char model[400];
    shared_path_or_skip(model, sizeof model, "data/models/stories260K");
    split_equals_local(model, 1, DT_F16, ALL);
}

MODEL(mistral_v01, "mistral-v01")
MODEL(mistral_v03, "mistral-v03")
MODEL(nemo, "nemo")
MODEL(llama2, "llama2")
MODEL(llama31, "llama31")
MODEL(llama32, "llama32")
MODEL(qwen2, "qwen2")
MODEL(qwen3, "qwen3")
MODEL(gguf_llama, "gguf-llama/model.gguf")
MODEL(gguf_llama32, "gguf-llama32/model.gguf")
MODEL(gguf_qwen2, "gguf-qwen2/model.gguf")
MODEL(gguf_qwen3, "gguf-qwen3/model.gguf")
MODEL(gguf_k, "gguf-k/model.gguf")
#endif
