/* Cards that compute the same layers together (--device 0+1): the bits of one card, whatever the model, the pass and
 * the team; and what happens when one of them fails or has no room. */
#include "core/model/kv.h"
#include "core/model/names.h"
#include "gpu/backend.h"
#include "gpu/stage.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/layer_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIASED "test/models/families/qwen2-swa"  /* 4 layers, biases, a window of 41 from layer 2 on, MLP of 5 tiles */
#define THIRDS "test/models/families/llama-bias" /* 3 KV heads, biases everywhere, MLP of 7 tiles */
#define TINY   "test/models/tiny"                /* a KV head a card, slices of several tiles */

static void prepare(void) {
    gpu_rig_prepare(4, 0);
}
TestSuite(gpu_joined, .init = prepare, .timeout = 120);
TestSuite(gpu_slices, .timeout = 20);

static void needs_cards(int n) {
    struct err e = {0};
    int there;
    cr_assert_eq(gpu_count(&there, &e), 0, "%s", e.msg);
    if (there < n)
        cr_skip_test("SKIP: this machine has %d card%s", there, there == 1 ? "" : "s");
}

static void no_leaks(void) {
    if (!gpu_rig_real())
        cr_assert_eq(gpu_rig_leaks(), 0);
}

/* ---- slices ---- */

Test(gpu_slices, cover_all_rows_in_whole_tiles) {
    for (int rows = 1; rows <= 300; rows++)
        for (int n = 1; n <= 9; n++) {
            int at = 0, tiles = (rows + 15) / 16, each = plan_slice(rows, (struct seat){0, n}).each;
            if (plan_slice(rows, (struct seat){n - 1, n}).n <= 0) { /* what no team may have */
                cr_assert_leq(tiles, (n - 1) * ((tiles + n - 1) / n), "%d rows, %d cards", rows, n);
                continue;
            }
            for (int r = 0; r < n; r++) {
                struct slice s = plan_slice(rows, (struct seat){r, n});
                cr_assert_eq(s.first, at, "%d rows, card %d of %d", rows, r, n);
                cr_assert(s.each == each && s.first == r * each && s.n > 0);
                cr_assert(r == n - 1 ? s.n <= each : s.n == each);
                cr_assert(n == 1 || each % GPU_TILE == 0);
                at += s.n;
            }
            cr_assert_eq(at, rows);
        }
}

/* Each row of each tensor belongs to one card; those of q, k and v to the card of its head. */
static void plan_covers(const char *model, int n) {
    struct weights *w = layer_open(model);
    const struct model_config *c = weights_config(w);
    const struct part all = {.hi = c->n_layers, .head = true};
    struct stage_plan whole, plans[4];
    struct err e = {0};
    uint64_t file = 0;
    cr_assert_eq(stage_plan_make(&whole, w, &all, (struct seat){0, 1}, QUANT_NONE, &e), 0, "%s", e.msg);
    for (int r = 0; r < n; r++) {
        cr_assert_eq(stage_plan_make(&plans[r], w, &all, (struct seat){r, n}, QUANT_NONE, &e), 0, "%s", e.msg);
        file += plans[r].file;
    }
    cr_expect_eq(file, whole.file, "bytes are read once");
    for (int i = 0; i <= c->n_layers * N_LAYER_TENSORS; i++) {
        bool head = i == c->n_layers * N_LAYER_TENSORS;
        int tensor = i % N_LAYER_TENSORS, layer = i / N_LAYER_TENSORS;
        uint32_t at = 0, rows = head ? whole.head_tensor.t.rows : whole.layers[layer].tensors[tensor].t.rows;
        for (int r = 0; r < n; r++) {
            const struct matrix_part *p = head ? &plans[r].head_tensor : &plans[r].layers[layer].tensors[tensor];
            cr_expect_eq(p->first, at);
            at += p->n;
            if (!head && tensor < 3) {
                uint32_t heads = (uint32_t)(tensor == 0 ? c->n_heads : c->n_kv_heads) / (uint32_t)n;
                cr_expect_eq(p->n, heads * (uint32_t)c->head_dim);
            }
        }
        cr_expect_eq(at, rows, "tensor %d of layer %d", tensor, layer);
    }
    for (int r = 0; r < n; r++)
        stage_plan_free(&plans[r]);
    stage_plan_free(&whole);
    weights_close(w);
}

/* A bias stands where its row does: element by element against the tensor. */
static void biases_follow(const char *model, int n) {
    struct weights *w = layer_open(model);
    const struct model_config *c = weights_config(w);
    const struct part all = {.hi = c->n_layers};
    struct err e = {0};
    for (int r = 0; r < n; r++) {
        struct stage_plan p;
        struct layer_vectors v;
        struct vectors count = {0};
        cr_assert_eq(stage_plan_make(&p, w, &all, (struct seat){r, n}, QUANT_NONE, &e), 0, "%s", e.msg);
        cr_assert_eq(plan_layer_vectors(&p, 1, &count, &v, &e), 0, "%s", e.msg);
        float *host = malloc(count.n * sizeof *host);
        struct vectors place = {.host = host, .card = host};
        cr_assert_eq(plan_layer_vectors(&p, 1, &place, &v, &e), 0, "%s", e.msg);
        static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down"};
        for (int m = 0; m < N_LAYER_MATRICES; m++)
            for (int t = 0; v.bias[m] && t < layer_matrices[m].n; t++) {
                const struct matrix_part *part = &p.layers[1].tensors[layer_matrices[m].first + t];
                int tensor = layer_matrices[m].first + t;
                struct tensor b;
                char name[NAMES_MAX];
                snprintf(name, sizeof name, "model.layers.1.%s.%s_proj.bias", tensor < 4 ? "self_attn" : "mlp",
                         names[tensor]);
                cr_assert_eq(weights_get(w, name, 1, part->t.rows, &b, &e), 0, "%s", e.msg);
                float *want = malloc(part->t.rows * sizeof *want);
                void *scratch = malloc(b.row_bytes);
                dtype_decode(b.dtype, tensor_row(&b, 0, scratch), part->t.rows, want);
                for (uint32_t i = 0; i < part->n; i++)
                    cr_assert_eq(v.bias[m][matrix_row(&p.layers[1].w[m], part, (int)i)], want[part->first + i],
                                 "%s, row %u of card %d", name, i, r);
                free(want);
                free(scratch);
            }
        free(host);
        stage_plan_free(&p);
    }
    weights_close(w);
}

Test(gpu_slices, belong_to_one_card_each) {
    plan_covers(TINY, 2);
    plan_covers(BIASED, 2);
    plan_covers(THIRDS, 3);
    biases_follow(BIASED, 2);
    biases_follow(THIRDS, 3);
}

static void refused(const char *model, int n, ...) {
    struct weights *w = layer_open(model);
    struct err e = {0};
    va_list ap;
    cr_expect_eq(plan_check_team(weights_config(w), n, model, &e), -1);
    cr_expect_eq(e.kind, ERR_USAGE);
    va_start(ap, n);
    for (const char *s; (s = va_arg(ap, const char *));)
        cr_expect(strstr(e.msg, s) != NULL, "no \"%s\" in: %s", s, e.msg);
    va_end(ap);
    weights_close(w);
}

Test(gpu_slices, of_models_that_cannot_be_cut) {
    refused(TINY, 3, "3 cards", "KV heads are 2", "Teams of 2 cards", "--device 0,1", NULL);
    refused("test/models/families/qwen3", 2, "KV heads are 1", "No team", "--device 0,1", NULL);
    refused("test/models/families/llama2", 3, "hidden size of 54", "16 rows", "No team", NULL);
}

/* ---- passes ---- */

struct bench {
    struct weights *weights;
    const struct model_config *config;
    struct backend *backend;
    struct stage *stage;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *table;
};

enum { LAYERS_HERE = 3, SLOTS = 320 }; /* with a layer that has a window */

static void bench_open(struct bench *b, const char *cards, int max_rows) {
    struct err e = {0};
    const struct part part = {.hi = LAYERS_HERE, .head = true};
    const struct load_opts o = {.max_rows = max_rows};
    *b = (struct bench){.weights = layer_open(BIASED)};
    b->config = weights_config(b->weights);
    cr_assert_eq(backend_cuda_create(&b->backend, &(struct cuda_opts){.devices = cards}, &e), 0, "%s", e.msg);
    cr_assert_eq(b->backend->ops->stage_load(b->backend, b->weights, &part, &o, &b->stage, &e), 0, "%s", e.msg);
    cr_assert_eq(b->backend->ops->kv_create(b->stage, SLOTS, DT_F16, &b->kv, &e), 0, "%s", e.msg);
}

static void bench_close(struct bench *b) {
    b->backend->ops->kv_free(b->kv);
    b->backend->ops->stage_free(b->stage);
    b->backend->ops->free(b->backend);
    weights_close(b->weights);
    no_leaks();
}

/* Positions [from, from + n) of one sequence in slots 0, 1, 2, ... */
static int bench_pass(struct bench *b, int from, int n, float *x, struct err *e) {
    static uint32_t slots[SLOTS];
    static struct row rows[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++)
        slots[i] = i;
    for (uint32_t i = 0; i < (uint32_t)n; i++)
        rows[i] = (struct row){
            .pos = (uint32_t)from + i, .slot = (uint32_t)from + i, .n_trunk = (uint32_t)from + i + 1, .trunk = slots};
    const struct batch batch = {rows, n};
    return b->backend->ops->layers(b->stage, b->kv, &batch, 0, LAYERS_HERE, x, e);
}

static struct share *shares_of(const struct bench *b) {
    return ((struct cuda_stage *)(void *)b->stage)->shares;
}

static float *noise_rows(const struct bench *b, int n) {
    float *x = malloc((size_t)n * (size_t)b->config->hidden * sizeof *x);
    cr_assert_not_null(x);
    layer_noise(x, (size_t)n * (size_t)b->config->hidden, 5);
    return x;
}

/* Pieces whose copies overlap with what the cards compute; and the same row three times, the last one replayed. */
Test(gpu_joined, pieces_and_recordings) {
    enum { N = 280, MORE = 3 };
    struct bench one, two;
    struct err e = {0};
    needs_cards(2);
    bench_open(&one, "0", N);
    bench_open(&two, "0+1", N);
    const size_t hidden = (size_t)one.config->hidden;
    float *a = noise_rows(&one, N), *b = noise_rows(&two, N);
    shares_of(&two)[0].piece_rows = shares_of(&two)[1].piece_rows = 128;
    cr_assert_eq(bench_pass(&one, 0, N, a, &e), 0, "%s", e.msg);
    cr_assert_eq(bench_pass(&two, 0, N, b, &e), 0, "%s", e.msg);
    cr_expect_arr_eq(a, b, N * hidden * sizeof *a);
    shares_of(&two)[0].piece_rows = shares_of(&two)[1].piece_rows = 512;
    for (int i = 0; i < MORE; i++) {
        cr_assert_eq(bench_pass(&one, N + i, 1, a, &e), 0, "%s", e.msg);
        cr_assert_eq(bench_pass(&two, N + i, 1, b, &e), 0, "%s", e.msg);
        cr_expect_arr_eq(a, b, hidden * sizeof *a, "pass %d", i);
    }
    for (int rank = 0; rank < 2; rank++) {
        const struct share_kv *kv = &((const struct cuda_kv *)two.kv)->shares[rank];
        cr_expect_eq(kv->bytes, ((const struct cuda_kv *)one.kv)->shares[0].bytes / 2, "half of the heads");
        int recorded = 0;
        for (int i = 0; i < kv->recordings.n; i++)
            recorded += kv->recordings.list[i].exec != NULL;
        cr_expect_geq(recorded, 1, "card %d has recorded nothing", rank);
    }
    free(a);
    free(b);
    bench_close(&two);
    bench_close(&one);
}

/* ---- failures ---- */

/* Takes all but so many bytes of a card. */
static cu_ptr ballast(struct gpu *g, size_t but) {
    gpu_enter(g);
    return gpu_rig_alloc(g, gpu_memory_left(g) - but);
}

static struct gpu *card_of(const struct backend *b, int i) {
    return ((const struct cuda_backend *)(const void *)b)->cards[i].gpu;
}

/* Want of memory on one card fails what was asked for, and the team works on. */
Test(gpu_joined, want_of_memory_on_one_card_breaks_nothing) {
    enum { N = 4, BRANCHES = 16, LEFT = 8 << 10 };
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(2, 64 << 20);
    struct bench b;
    struct err e = {0};
    bench_open(&b, "0+1", N * BRANCHES);
    const struct backend_ops *ops = b.backend->ops;
    const struct part part = {.hi = LAYERS_HERE};
    const struct load_opts o = {.max_rows = N};
    struct gpu *second = card_of(b.backend, 1);
    struct stage *s;
    struct kv *kv;
    float *x = noise_rows(&b, N), *want = noise_rows(&b, N);
    cr_assert_eq(bench_pass(&b, 0, N, want, &e), 0, "%s", e.msg);

    cu_ptr full = ballast(second, LEFT);
    cr_expect_eq(ops->stage_load(b.backend, b.weights, &part, &o, &s, &e), -1);
    expect_err(&e, ERR_MEMORY, "GPU 1 (Emulated card 1)", NULL);
    e = (struct err){0};
    cr_expect_eq(ops->kv_create(b.stage, 1000, DT_F16, &kv, &e), -1);
    expect_err(&e, ERR_MEMORY, "GPU 1 (Emulated card 1)", "1000 slots", NULL);
    cr_expect_eq(backend_cuda_memory_left(b.backend), (uint64_t)2 * LEFT, "as much as the fuller card has, twice");

    /* Long branches need longer tables. */
    static uint32_t tails[N * BRANCHES][SLOTS];
    struct row rows[N * BRANCHES];
    for (uint32_t i = 0; i < N * BRANCHES; i++) {
        for (uint32_t k = 0; k < 250; k++)
            tails[i][k] = k % N;
        rows[i] = (struct row){.pos = 249, .slot = N + i, .n_tail = 250, .tail = tails[i]};
    }
    const struct batch batch = {rows, N * BRANCHES};
    float *branches = noise_rows(&b, N * BRANCHES);
    e = (struct err){0};
    cr_expect_eq(ops->layers(b.stage, b.kv, &batch, 0, LAYERS_HERE, branches, &e), -1);
    expect_err(&e, ERR_MEMORY, "GPU 1 (Emulated card 1)", "what passes bring along", NULL);

    gpu_enter(second);
    gpu_free(second, full);
    e = (struct err){0};
    for (int i = 0; i < 3; i++) { /* launched, recorded, replayed */
        layer_noise(x, (size_t)N * (size_t)b.config->hidden, 5);
        cr_assert_eq(bench_pass(&b, 0, N, x, &e), 0, "%s", e.msg);
        cr_expect_arr_eq(x, want, (size_t)N * (size_t)b.config->hidden * sizeof *x, "pass %d", i);
    }
    cr_assert_eq(ops->layers(b.stage, b.kv, &batch, 0, LAYERS_HERE, branches, &e), 0, "%s", e.msg);
    free(branches);
    free(x);
    free(want);
    bench_close(&b);
}

/* A launch that fails on one card, or breaks it: an error, no waiting for ever, and nobody goes on with what is left.
 */
Test(gpu_joined, one_card_failing_ends_the_team) {
    enum { N = 8 };
    gpu_rig_needs_emulated_card();
    for (int way = 0; way < 4; way++) {
        struct bench b;
        struct err e = {0};
        bench_open(&b, "0+1,2", N);
        float *x = noise_rows(&b, N);
        float *logits = malloc((size_t)b.config->vocab * sizeof *logits);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(bench_pass(&b, 0, N, x, &e), 0, "%s", e.msg);
        if (way % 2)
            gpu_rig_break_in(way < 2 ? 7 : 2);
        else
            gpu_rig_fail_in(way < 2 ? 7 : 2);
        /* Of a kind that is launched, or replayed. */
        cr_assert_eq(bench_pass(&b, 0, way < 2 ? 1 : N, x, &e), -1, "way %d", way);
        expect_err(&e, ERR_DEVICE, "CUDA_ERROR_", NULL);
        for (int i = 0; i < 3; i++) {
            struct kv *kv;
            e = (struct err){0};
            cr_expect_eq(i == 0   ? bench_pass(&b, 0, N, x, &e)
                         : i == 1 ? b.backend->ops->kv_create(b.stage, 8, DT_F16, &kv, &e)
                                  : bench_pass(&b, 0, 1, x, &e),
                         -1);
            expect_err(&e, ERR_DEVICE, "has failed", "start it again", "CUDA_ERROR_", NULL);
        }
        b.backend->ops->kv_clear(b.kv);
        free(logits);
        free(x);
        bench_close(&b);
    }
}

static int use_team(struct weights *w, const char *cards, struct err *e) {
    const struct part part = {.hi = 2, .head = true};
    const struct load_opts o = {.max_rows = 4};
    const uint32_t slot = 0;
    const struct row row = {.slot = slot, .n_trunk = 1, .trunk = &slot};
    const struct batch batch = {&row, 1};
    struct backend *b = NULL;
    struct stage *s = NULL;
    struct kv *kv = NULL;
    float *x = calloc((size_t)weights_config(w)->hidden, sizeof *x);
    float *logits = malloc((size_t)weights_config(w)->vocab * sizeof *logits);
    cr_assert(x && logits);
    int rc = backend_cuda_create(&b, &(struct cuda_opts){.devices = cards}, e);
    if (rc == 0)
        rc = b->ops->stage_load(b, w, &part, &o, &s, e);
    if (rc == 0)
        rc = b->ops->kv_create(s, 8, DT_F16, &kv, e);
    for (int i = 0; rc == 0 && i < 3; i++) {
        rc = b->ops->layers(s, kv, &batch, 0, 2, x, e);
        if (rc == 0)
            rc = b->ops->head(s, x, 1, logits, e);
    }
    if (kv)
        b->ops->kv_free(kv);
    if (s)
        s->ops->stage_free(s);
    if (b)
        b->ops->free(b);
    free(x);
    free(logits);
    return rc;
}

Test(gpu_joined, every_allocation_and_launch_may_fail) {
    gpu_rig_needs_emulated_card();
    struct weights *w = layer_open(BIASED);
    int memory = 0, device = 0;
    for (int n = 1;; n += 7) {
        struct err e = {0};
        gpu_rig_fail_in(n);
        if (use_team(w, "0+1", &e) == 0)
            break;
        cr_expect(e.kind == ERR_MEMORY || e.kind == ERR_DEVICE, "failure %d: kind %d, %s", n, (int)e.kind, e.msg);
        memory += e.kind == ERR_MEMORY;
        device += e.kind == ERR_DEVICE;
        cr_assert_eq(gpu_rig_leaks(), 0, "failure %d (%s) leaves memory behind", n, e.msg);
    }
    gpu_rig_fail_in(0);
    cr_expect_gt(memory, 4, "%d allocations", memory);
    cr_expect_gt(device, 10, "%d launches", device);
    weights_close(w);
}

struct watch {
    uint64_t done, total;
    int calls, stop_at;
};

static int watch(void *ctx, uint64_t done, uint64_t total) {
    struct watch *w = ctx;
    cr_assert(done > w->done && done <= total);
    w->done = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

Test(gpu_joined, loading_counts_every_byte_once) {
    needs_cards(2);
    struct weights *w = layer_open(BIASED);
    const struct part part = {.hi = 4, .head = true};
    struct backend *b;
    struct stage *s;
    struct err e = {0};
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "0+1"}, &e), 0, "%s", e.msg);
    struct watch at = {0};
    struct load_opts o = {.max_rows = 4, .progress = watch, .progress_ctx = &at};
    cr_assert_eq(b->ops->stage_load(b, w, &part, &o, &s, &e), 0, "%s", e.msg);
    cr_expect_eq(at.done, at.total);
    /* q, k, v, o, gate, up, down of each layer, and the head: bf16 */
    cr_expect_eq(at.total, (uint64_t)2 * (4 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 80) + 192 * 64));
    b->ops->stage_free(s);
    at = (struct watch){.stop_at = at.calls / 2};
    cr_expect_eq(b->ops->stage_load(b, w, &part, &o, &s, &e), -1);
    expect_err(&e, ERR_IO, "loading was stopped", NULL);
    b->ops->free(b);
    weights_close(w);
    no_leaks();
}

/* ---- what makes no sense ---- */

Test(gpu_joined, what_cannot_be_joined_says_what_can) {
    static const struct {
        const char *devices, *why;
    } wrong[] = {{"0+", "numbers of cards"},          {"+0", "numbers of cards"},
                 {"0++1", "numbers of cards"},        {"0+,1", "numbers of cards"},
                 {"0+0", "GPU 0 stands there twice"}, {"0+1,1", "GPU 1 stands there twice"}};
    struct backend *b;
    struct stage *s;
    struct err e = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        e = (struct err){0};
        cr_expect_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = wrong[i].devices}, &e), -1);
        expect_err(&e, ERR_USAGE, wrong[i].why, NULL);
    }
    gpu_rig_needs_emulated_card();
    struct weights *w = layer_open("test/models/families/qwen3");
    const struct part part = {.hi = 1};
    const struct load_opts o = {.max_rows = 4};
    e = (struct err){0};
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "2,0+1"}, &e), 0, "%s", e.msg);
    cr_expect_str_eq(backend_cuda_name(b), "cuda-sm90+sm86");
    cr_expect_str_eq(backend_cuda_describe(b),
                     "Emulated card 2, 1 GB; Emulated card 0, 1 GB + Emulated card 1, 1 GB, joined, driver 13.0");
    b->ops->free(b);
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "0+1"}, &e), 0, "%s", e.msg);
    cr_expect_eq(b->ops->stage_load(b, w, &part, &o, &s, &e), -1);
    expect_err(&e, ERR_USAGE, "2 cards", "KV heads are 1", "--device 0,1", NULL);
    b->ops->free(b);
    weights_close(w);
    no_leaks();
}

Test(gpu_joined, without_nccl_the_error_names_the_other_way) {
    gpu_rig_needs_emulated_card();
    struct backend *b;
    struct err e = {0};
    setenv("SPLITINF_LIBNCCL", "/nowhere/libnccl.so.2", 1);
    cr_expect_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "1+0"}, &e), -1);
    expect_err(&e, ERR_DEVICE, "--device 1+0", "NCCL", "--device 0,1", NULL);
    e = (struct err){0};
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "1,0"}, &e), 0, "%s", e.msg);
    b->ops->free(b);
    no_leaks();
}
