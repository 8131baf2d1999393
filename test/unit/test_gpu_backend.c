/* The CUDA backend as a backend: what its operations promise beside the numbers (test_gpu_families) - bits that depend
 * on nothing but a row's own past, errors that say what to do, no memory left behind wherever one strikes. */
#include "core/model/kv.h"
#include "gpu/backend.h"
#include "gpu/stage.h"
#include "test/unit/gpu_rig.h"
#include "test/unit/layer_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TINY   "test/models/families/llama2"    /* 3 layers of hidden size 54, heads of 18 */
#define BIASED "test/models/families/qwen2-swa" /* 4 layers, biases, a window of 41 from layer 2 on */

static void prepare(void) {
    gpu_rig_prepare(0, 0);
}
TestSuite(gpu_backend, .init = prepare, .timeout = 120);
TestSuite(gpu_plan, .timeout = 20);

static void no_leaks(void) {
    if (!gpu_rig_real())
        cr_assert_eq(gpu_rig_leaks(), 0);
}

static void needs_two_cards(void) {
    struct err e = {0};
    int n;
    cr_assert_eq(gpu_count(&n, &e), 0, "%s", e.msg);
    if (n < 2)
        cr_skip_test("SKIP: this machine has %d card", n);
}

/* ---- a stage and sequences over it ---- */

enum { MAX_SEQUENCES = 4 };

struct bench {
    struct weights *weights;
    const struct model_config *config;
    struct backend *backend;
    struct stage *stage;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *tables[MAX_SEQUENCES];
    uint32_t slots;
};

static void bench_open(struct bench *b, const char *model, const char *cards, const struct part *part, int max_rows,
                       uint32_t slots) {
    struct err e = {0};
    *b = (struct bench){.slots = slots};
    b->weights = layer_open(model);
    b->config = weights_config(b->weights);
    const struct part all = {.hi = b->config->n_layers, .embed = true, .head = true};
    const struct load_opts o = {.max_rows = max_rows};
    cr_assert_eq(backend_cuda_create(&b->backend, &(struct cuda_opts){.devices = cards}, &e), 0, "%s", e.msg);
    cr_assert_eq(b->backend->ops->stage_load(b->backend, b->weights, part ? part : &all, &o, &b->stage, &e), 0, "%s",
                 e.msg);
    cr_assert_eq(b->backend->ops->kv_create(b->stage, slots, DT_F16, &b->kv, &e), 0, "%s", e.msg);
}

/* Every sequence is empty again. */
static void bench_reset(struct bench *b) {
    struct err e = {0};
    for (int i = 0; i < MAX_SEQUENCES; i++)
        kv_table_free(b->tables[i]);
    slot_pool_free(b->pool);
    cr_assert_eq(slot_pool_create(&b->pool, b->slots, &e), 0, "%s", e.msg);
    for (int i = 0; i < MAX_SEQUENCES; i++)
        cr_assert_eq(kv_table_create(&b->tables[i], b->pool, b->slots, b->slots, &e), 0, "%s", e.msg);
}

static void bench_close(struct bench *b) {
    for (int i = 0; i < MAX_SEQUENCES; i++)
        kv_table_free(b->tables[i]);
    slot_pool_free(b->pool);
    b->backend->ops->kv_free(b->kv);
    b->backend->ops->stage_free(b->stage);
    b->backend->ops->free(b->backend);
    weights_close(b->weights);
    no_leaks();
}

/* x [n][hidden] goes through the stage: row i is the next position of sequence i * n_sequences / n, `chunk` rows of
 * each sequence in a pass, `group` layers in a call. */
static int bench_try(struct bench *b, float *x, int n, int n_sequences, int chunk, int group, struct err *e) {
    const size_t hidden = (size_t)b->config->hidden;
    const int each = n / n_sequences, lo = b->stage->part.lo, hi = b->stage->part.hi;
    struct row *rows = calloc((size_t)n, sizeof *rows);
    float *pass = malloc((size_t)n * hidden * sizeof *pass);
    int rc = 0;
    cr_assert(rows && pass);
    bench_reset(b);
    for (int at = 0; rc == 0 && at < each; at += chunk) {
        int k = each - at < chunk ? each - at : chunk;
        for (int s = 0; s < n_sequences; s++) {
            uint32_t ids[2048];
            struct node nodes[2048];
            for (int i = 0; i < k; i++) {
                ids[i] = (uint32_t)(at + i + 1);
                nodes[i] = (struct node){ids[i], ids[i] - 1, (uint32_t)(at + i)};
            }
            cr_assert_eq(kv_table_add(b->tables[s], nodes, k, NULL, e), k, "%s", e->msg);
            cr_assert_eq(kv_table_rows(b->tables[s], ids, k, rows + (size_t)s * (size_t)k, e), 0, "%s", e->msg);
            memcpy(pass + (size_t)(s * k) * hidden, x + (size_t)(s * each + at) * hidden,
                   (size_t)k * hidden * sizeof *x);
        }
        const struct batch batch = {rows, k * n_sequences};
        for (int l = lo; rc == 0 && l < hi; l += group)
            rc = b->backend->ops->layers(b->stage, b->kv, &batch, l, l + group < hi ? l + group : hi, pass, e);
        for (int s = 0; rc == 0 && s < n_sequences; s++) {
            uint32_t ids[2048];
            for (int i = 0; i < k; i++)
                ids[i] = (uint32_t)(at + i + 1);
            cr_assert_eq(kv_table_commit(b->tables[s], ids, k, e), 0, "%s", e->msg);
            memcpy(x + (size_t)(s * each + at) * hidden, pass + (size_t)(s * k) * hidden,
                   (size_t)k * hidden * sizeof *x);
        }
    }
    free(pass);
    free(rows);
    return rc;
}

static float *bench_run(struct bench *b, int n, int n_sequences, int chunk, int group) {
    struct err e = {0};
    float *x = malloc((size_t)n * (size_t)b->config->hidden * sizeof *x);
    cr_assert_not_null(x);
    layer_noise(x, (size_t)n * (size_t)b->config->hidden, 5);
    cr_assert_eq(bench_try(b, x, n, n_sequences, chunk, group, &e), 0, "%s", e.msg);
    return x;
}

/* ---- identity ---- */

Test(gpu_backend, passes_of_any_size_give_the_same_bits) {
    enum { N = 280 };
    struct bench b;
    const struct part part = {.hi = 2};
    bench_open(&b, TINY, NULL, &part, N, N);
    struct share *s = &((struct cuda_stage *)(void *)b.stage)->shares[0];
    const size_t bytes = (size_t)N * (size_t)b.config->hidden * sizeof(float);
    static const struct {
        int chunk, group, piece_rows; /* 0: as it is */
    } ways[] = {
        {5, 2, 0},   /* buckets of 8: once plain, once recorded, then replayed */
        {N, 2, 0},   /* two pieces */
        {N, 1, 128}, /* three, and each layer in a call of its own */
        {70, 2, 64}, /* two, of which the second is of another bucket */
    };
    float *want = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        int all = s->piece_rows;
        s->piece_rows = ways[i].piece_rows ? ways[i].piece_rows : all;
        float *got = bench_run(&b, N, 1, ways[i].chunk, ways[i].group);
        s->piece_rows = all;
        if (want)
            cr_expect_arr_eq(got, want, bytes, "%d rows, %d layers a call", ways[i].chunk, ways[i].group);
        else
            want = got;
        if (got != want)
            free(got);
    }
    free(want);
    bench_close(&b);
}

Test(gpu_backend, other_sessions_leave_the_bits_alone) {
    enum { N = 48 };
    struct bench b;
    bench_open(&b, BIASED, NULL, NULL, 64, 4 * N);
    const size_t row = (size_t)b.config->hidden * sizeof(float);
    float *alone = bench_run(&b, N, 1, 1, 4), *four = bench_run(&b, 4 * N, 4, 5, 4);
    cr_expect_arr_eq(four, alone, N * row, "a session among four");
    free(alone);
    free(four);
    bench_close(&b);
}

/* Branches as long as no cache makes room for beforehand; where there is no memory for their tables, the pass fails and
 * nothing else. */
Test(gpu_backend, long_branches_take_more_memory) {
    enum { BEFORE = 128, ROWS = 64 };
    struct bench b;
    const struct part part = {.hi = 1, .head = true};
    bench_open(&b, TINY, NULL, &part, ROWS, BEFORE + ROWS);
    const size_t hidden = (size_t)b.config->hidden, n = ROWS * hidden;
    const struct share *s = &((const struct cuda_stage *)(const void *)b.stage)->shares[0];
    const size_t at_first = s->in_bytes;
    struct row rows[ROWS];
    uint32_t trunk[BEFORE], tails[ROWS][BEFORE + 1];
    float *x = malloc(n * sizeof *x), *want = malloc(n * sizeof *x), *logits = malloc((size_t)b.config->vocab * 4);
    struct err e = {0};
    cr_assert(x && want && logits);
    free(bench_run(&b, BEFORE, 1, ROWS, 1)); /* fills slots 0, 1, 2, ... */
    for (int way = 0; way < 3; way++) {
        for (uint32_t i = 0; i < ROWS; i++) {
            for (uint32_t k = 0; k < BEFORE; k++)
                trunk[k] = tails[i][k] = k;
            tails[i][BEFORE] = BEFORE + i;
            rows[i] = (struct row){.pos = BEFORE, .slot = BEFORE + i, .trunk = trunk};
            rows[i].n_trunk = way == 0 ? BEFORE : 0; /* one trunk, or branches from the root on */
            rows[i].n_tail = way == 0 ? 1 : BEFORE + 1;
            rows[i].tail = way == 0 ? &tails[i][BEFORE] : tails[i];
        }
        const struct batch batch = {rows, ROWS};
        layer_noise(x, n, 8);
        if (way == 1 && !gpu_rig_real()) {
            gpu_rig_fail_in(1);
            cr_assert_eq(b.backend->ops->layers(b.stage, b.kv, &batch, 0, 1, x, &e), -1);
            expect_err(&e, ERR_MEMORY, "what passes bring along", NULL);
            e = (struct err){0};
            cr_assert_eq(b.backend->ops->head(b.stage, x, 1, logits, &e), 0, "%s", e.msg);
        }
        cr_assert_eq(b.backend->ops->layers(b.stage, b.kv, &batch, 0, 1, x, &e), 0, "%s", e.msg);
        if (way == 0)
            memcpy(want, x, n * sizeof *x);
        cr_expect_arr_eq(x, want, n * sizeof *x, "way %d", way);
        cr_expect(way == 0 ? s->in_bytes == at_first : s->in_bytes > at_first);
    }
    free(x);
    free(want);
    free(logits);
    bench_close(&b);
}

Test(gpu_backend, two_cards_give_the_bits_of_one) {
    enum { N = 40 };
    struct bench one, two;
    needs_two_cards();
    bench_open(&one, BIASED, "1", NULL, 32, N);
    bench_open(&two, BIASED, "1,0", NULL, 32, N);
    const struct cuda_stage *s = (const struct cuda_stage *)(const void *)two.stage;
    cr_assert_eq(s->n_shares, 2, "both cards have layers");
    cr_assert_eq(s->shares[0].hi, s->shares[1].lo);
    cr_assert_eq(s->shares[0].card->gpu->ordinal, 1, "in the order that was said");
    const size_t bytes = N * (size_t)one.config->hidden * sizeof(float), vocab = (size_t)one.config->vocab;
    float *a = bench_run(&one, N, 1, 8, 4), *b = bench_run(&two, N, 1, 8, 4);
    float *la = malloc(32 * vocab * sizeof *la), *lb = malloc(32 * vocab * sizeof *lb);
    struct err e = {0};
    cr_assert(la && lb);
    cr_expect_arr_eq(a, b, bytes);
    for (int i = 0; i < 2; i++) {
        struct bench *t = i ? &two : &one;
        cr_assert_eq(t->backend->ops->head(t->stage, a, 32, i ? lb : la, &e), 0, "%s", e.msg);
    }
    cr_expect_arr_eq(la, lb, 32 * vocab * sizeof *la);
    free(a);
    free(b);
    free(la);
    free(lb);
    bench_close(&two);
    bench_close(&one);
}

/* More kinds of passes than there are places: the oldest go, and nothing is mixed up. */
Test(gpu_backend, recordings_are_bounded) {
    enum { PLACES = 4 };
    struct bench b;
    struct err e = {0};
    const struct part part = {.hi = 3};
    bench_open(&b, TINY, NULL, &part, 8, 32);
    const size_t hidden = (size_t)b.config->hidden;
    struct share_kv *kv = &((struct cuda_kv *)b.kv)->shares[0];
    float *x = malloc(8 * hidden * sizeof *x), *first = malloc(8 * hidden * sizeof *x);
    struct row rows[8];
    uint32_t trunk[8];
    int recorded = 0;
    cr_assert(x && first);
    kv->recordings.most = PLACES;
    for (int i = 0; i < 40; i++) {
        /* Each kind three times in a row: plain, recorded, replayed. */
        int kind = i / 3 % 7, n = 1 << kind % 4, lo = kind / 4, known = kv->recordings.n;
        for (uint32_t k = 0; k < (uint32_t)n; k++) {
            trunk[k] = 31 - k;
            rows[k] = (struct row){.pos = k, .slot = trunk[k], .n_trunk = k + 1, .trunk = trunk};
        }
        const struct batch batch = {rows, n};
        layer_noise(x, (size_t)n * hidden, 9);
        cr_assert_eq(b.backend->ops->layers(b.stage, b.kv, &batch, lo, 3, x, &e), 0, "%s", e.msg);
        if (i == 0)
            memcpy(first, x, hidden * sizeof *x);
        if (lo == 0)
            cr_expect_arr_eq(x, first, hidden * sizeof *x, "row 0 of %d in pass %d", n, i);
        cr_expect_leq(kv->recordings.n, PLACES);
        cr_expect_geq(kv->recordings.n, known);
        recorded = 0;
        for (int k = 0; k < kv->recordings.n; k++)
            recorded += kv->recordings.list[k].exec != NULL;
    }
    cr_expect_geq(recorded, PLACES - 1, "%d of %d are recorded", recorded, PLACES);
    free(x);
    free(first);
    bench_close(&b);
}

/* ---- memory ---- */

/* Everything that a program does with cards, in order; -1 at the first failure, and all is given back. */
static int use_cards(struct weights *w, const char *cards, int *passes, struct err *e) {
    const struct part part = {.hi = 2, .embed = true, .head = true};
    const struct load_opts o = {.max_rows = 4};
    const size_t hidden = (size_t)weights_config(w)->hidden;
    const uint32_t token = 3, slot = 0;
    const struct row row = {.slot = slot, .n_trunk = 1, .trunk = &slot};
    const struct batch batch = {&row, 1};
    struct backend *b = NULL;
    struct stage *s = NULL;
    struct kv *kv = NULL;
    float *x = malloc(hidden * sizeof *x), *logits = malloc((size_t)weights_config(w)->vocab * sizeof *logits);
    cr_assert(x && logits);
    int rc = backend_cuda_create(&b, &(struct cuda_opts){.devices = cards}, e);
    if (rc == 0)
        rc = b->ops->stage_load(b, w, &part, &o, &s, e);
    if (rc == 0)
        rc = b->ops->kv_create(s, 8, DT_F16, &kv, e);
    for (int i = 0; rc == 0 && i < 2; i++, ++*passes) {
        rc = b->ops->embed(s, &token, 1, x, e);
        if (rc == 0)
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

/* Until nothing fails any more: the first, the (1 + step)th, ... */
static void fails_everywhere(const char *cards, int step, int *memory, int *device) {
    struct weights *w = layer_open(TINY);
    int passes = 0;
    *memory = *device = 0;
    for (int n = 1;; n += step) {
        struct err e = {0};
        gpu_rig_fail_in(n);
        passes = 0;
        if (use_cards(w, cards, &passes, &e) == 0)
            break;
        cr_expect(e.kind == ERR_MEMORY || e.kind == ERR_DEVICE, "failure %d: kind %d, %s", n, (int)e.kind, e.msg);
        *memory += e.kind == ERR_MEMORY;
        *device += e.kind == ERR_DEVICE;
        cr_assert_eq(gpu_rig_leaks(), 0, "failure %d (%s) leaves memory behind", n, e.msg);
    }
    cr_expect_eq(passes, 2);
    gpu_rig_fail_in(0);
    weights_close(w);
}

Test(gpu_backend, every_allocation_and_launch_may_fail) {
    gpu_rig_needs_emulated_card();
    int memory, device;
    fails_everywhere("0", 1, &memory, &device);
    cr_expect_gt(memory, 15, "%d allocations", memory);
    cr_expect_gt(device, 40, "%d launches", device);
    fails_everywhere("0,1", 5, &memory, &device);
    cr_expect_gt(memory + device, 12);
}

struct peak {
    const struct backend *backend;
    uint64_t least_left;
};

static int on_peak(void *ctx, uint64_t done, uint64_t total) {
    struct peak *p = ctx;
    uint64_t left = backend_cuda_memory_left(p->backend);
    (void)done, (void)total;
    p->least_left = left < p->least_left ? left : p->least_left;
    return 0;
}

Test(gpu_backend, a_small_card_says_what_would_fit) {
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(1, 64 << 20);
    struct err e = {0};
    struct weights *w = layer_open("test/models/tiny");
    struct backend *b;
    struct stage *s;
    struct kv *kv;
    struct peak peak = {.least_left = UINT64_MAX};
    const struct part part = {.lo = 1, .hi = 7}, less = {.lo = 1, .hi = 3};
    const struct load_opts o = {.max_rows = 8, .progress = on_peak, .progress_ctx = &peak};
    cr_assert_eq(backend_cuda_create(&b, NULL, &e), 0, "%s", e.msg);
    peak.backend = b;
    struct gpu *g = ((struct cuda_backend *)(void *)b)->cards[0].gpu;
    cr_assert_eq(b->ops->stage_load(b, w, &part, &o, &s, &e), 0, "%s", e.msg);
    cr_assert_gt(s->ops->stage_bytes(s), (size_t)6 * 2 * (3 * 192 * 384 + 2 * 192 * 192 + 2 * 192 * 64));
    b->ops->stage_free(s);
    /* Now there is a little less than that took at its peak. */
    cu_ptr ballast = gpu_rig_alloc(g, (size_t)peak.least_left + 4096);
    cr_assert_eq(b->ops->stage_load(b, w, &part, &o, &s, &e), -1);
    cr_assert_null(s);
    expect_err(&e, ERR_MEMORY, "layers 1 to 7", "test/models/tiny", "GPU 0 (Emulated card 0)",
               "5 of these 6 layers would fit", "--quant", "--device", NULL);
    e = (struct err){0};
    cr_assert_eq(b->ops->stage_load(b, w, &less, &o, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(b->ops->kv_create(s, 400000, DT_F16, &kv, &e), -1);
    cr_assert_null(kv);
    expect_err(&e, ERR_MEMORY, "400000 slots", "would fit", "--ctx", NULL);
    e = (struct err){0};
    cr_assert_eq(b->ops->kv_create(s, 64, DT_F16, &kv, &e), 0, "%s", e.msg);
    b->ops->kv_free(kv);
    b->ops->stage_free(s);
    gpu_free(g, ballast);
    b->ops->free(b);
    weights_close(w);
    no_leaks();
}

Test(gpu_backend, a_cleared_cache_is_zero) {
    struct bench b;
    bench_open(&b, TINY, NULL, NULL, 8, 16);
    const struct share_kv *kv = &((const struct cuda_kv *)b.kv)->shares[0];
    free(bench_run(&b, 16, 1, 8, 3));
    uint8_t *data = malloc(kv->bytes);
    cr_assert_not_null(data);
    for (int i = 0; i < 2; i++) {
        size_t used = 0;
        gpu_rig_read(kv->share->card->gpu, data, kv->data, kv->bytes);
        for (size_t k = 0; k < kv->bytes; k++)
            used += data[k] != 0;
        cr_expect(i ? used == 0 : used > kv->bytes / 2, "%zu of %zu bytes", used, kv->bytes);
        b.backend->ops->kv_clear(b.kv);
    }
    free(data);
    bench_close(&b);
}

/* ---- failures ---- */

Test(gpu_backend, a_failed_pass_is_remembered) {
    gpu_rig_needs_emulated_card();
    struct bench b;
    struct err e = {0};
    bench_open(&b, TINY, NULL, NULL, 8, 64);
    const size_t hidden = (size_t)b.config->hidden;
    float *x = calloc(8 * hidden, sizeof *x), *logits = malloc((size_t)b.config->vocab * sizeof *logits);
    cr_assert(x && logits);
    cr_assert_eq(bench_try(&b, x, 8, 1, 8, 3, &e), 0, "%s", e.msg);
    gpu_rig_fail_in(5);
    cr_assert_eq(bench_try(&b, x, 8, 1, 8, 3, &e), -1);
    expect_err(&e, ERR_DEVICE, "Emulated card 0", "CUDA_ERROR_LAUNCH_FAILED", NULL);
    for (int i = 0; i < 4; i++) {
        struct kv *kv = NULL;
        struct stage *s = NULL;
        const struct part part = {.hi = 1};
        const struct load_opts o = {.max_rows = 1};
        const struct backend_ops *ops = b.backend->ops;
        e = (struct err){0};
        int rc = i == 0   ? bench_try(&b, x, 8, 1, 8, 3, &e)
                 : i == 1 ? ops->head(b.stage, x, 1, logits, &e)
                 : i == 2 ? ops->kv_create(b.stage, 4, DT_F16, &kv, &e)
                          : ops->stage_load(b.backend, b.weights, &part, &o, &s, &e);
        cr_expect_eq(rc, -1, "call %d", i);
        expect_err(&e, ERR_DEVICE, "has failed", "start", "CUDA_ERROR_LAUNCH_FAILED", NULL);
    }
    b.backend->ops->kv_clear(b.kv);
    free(x);
    free(logits);
    bench_close(&b);
}

struct watch {
    uint64_t done, total;
    int calls, stop_at;
};

static int watch(void *ctx, uint64_t done, uint64_t total) {
    struct watch *w = ctx;
    cr_assert_gt(done, w->done);
    cr_assert_leq(done, total);
    w->done = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

Test(gpu_backend, loading_tells_how_far_it_is_and_can_be_stopped) {
    needs_two_cards();
    struct weights *w = layer_open(BIASED);
    const struct part part = {.hi = 4, .head = true};
    struct backend *b;
    struct err e = {0};
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "0,1"}, &e), 0, "%s", e.msg);
    int all = 0;
    for (int stop_at = 0; stop_at == 0 || stop_at < all; stop_at += 6) {
        struct watch at = {.stop_at = stop_at};
        const struct load_opts o = {.max_rows = 4, .progress = watch, .progress_ctx = &at};
        struct stage *s;
        e = (struct err){0};
        int rc = b->ops->stage_load(b, w, &part, &o, &s, &e);
        if (stop_at == 0) {
            cr_assert_eq(rc, 0, "%s", e.msg);
            cr_assert_eq(at.done, at.total);
            /* q, k, v, o, gate, up, down of each layer, and the head, as the file has them: bf16 */
            cr_assert_eq(at.total, (uint64_t)2 * (4 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 80) + 192 * 64));
            all = at.calls;
            b->ops->stage_free(s);
            continue;
        }
        cr_assert_eq(rc, -1, "stopped at call %d", stop_at);
        cr_assert_null(s);
        expect_err(&e, ERR_IO, "loading was stopped", NULL);
    }
    cr_assert_gt(all, 6);
    b->ops->free(b);
    weights_close(w);
    no_leaks();
}

/* ---- what makes no sense ---- */

Test(gpu_backend, operations_refuse_what_makes_no_sense) {
    struct bench b;
    const struct part middle = {.lo = 1, .hi = 3};
    bench_open(&b, TINY, NULL, &middle, 4, 16);
    const struct backend_ops *ops = b.backend->ops;
    const size_t hidden = (size_t)b.config->hidden;
    float *x = calloc(8 * hidden, sizeof *x), *logits = malloc(8 * (size_t)b.config->vocab * sizeof *logits);
    const uint32_t slots[] = {0, 1, 2, 3, 16}, tokens[] = {1, 160};
    struct row rows[5];
    struct stage *s;
    struct kv *kv;
    struct err e = {0};
    cr_assert(x && logits);
    for (uint32_t i = 0; i < 5; i++)
        rows[i] = (struct row){.pos = i, .slot = slots[i], .n_trunk = i + 1, .trunk = slots};
    struct batch batch = {rows, 0};

#define REFUSED(call, ...)                                                                                             \
    do {                                                                                                               \
        e = (struct err){0};                                                                                           \
        cr_expect_eq(call, -1);                                                                                        \
        expect_err(&e, ERR_USAGE, __VA_ARGS__, NULL);                                                                  \
    } while (0)
    cr_assert_eq(ops->layers(b.stage, b.kv, &batch, 1, 3, x, &e), 0, "no rows are fine");
    batch.n = 4;
    cr_assert_eq(ops->layers(b.stage, b.kv, &batch, 2, 2, x, &e), 0, "no layers are fine");
    REFUSED(ops->layers(b.stage, b.kv, &batch, 0, 3, x, &e), "layers 0 to 3", "holds 1 to 3");
    REFUSED(ops->layers(b.stage, b.kv, &batch, 1, 4, x, &e), "layers 1 to 4");
    batch.n = 5;
    REFUSED(ops->layers(b.stage, b.kv, &batch, 1, 3, x, &e), "5 rows", "passes of 4 rows");
    batch = (struct batch){rows + 4, 1};
    REFUSED(ops->layers(b.stage, b.kv, &batch, 1, 3, x, &e), "slot 16 of 16");
    rows[4] = (struct row){.pos = 256, .slot = 3, .n_trunk = 1, .trunk = slots};
    REFUSED(ops->layers(b.stage, b.kv, &batch, 1, 3, x, &e), "position 256", "256");
    REFUSED(ops->embed(b.stage, tokens, 1, x, &e), "no embedding");
    REFUSED(ops->head(b.stage, x, 1, logits, &e), "no head");
    REFUSED(ops->kv_create(b.stage, 16, DT_F32, &kv, &e), "f16 or fp8, not f32", "--kv f16", "--backend cpu");
    cr_expect_null(kv);
    const struct load_opts o = {.max_rows = 4}, none = {.max_rows = 0};
    const struct part wrong[] = {{.lo = -1, .hi = 1}, {.lo = 2, .hi = 1}, {.lo = 0, .hi = 4}};
    for (int i = 0; i < 3; i++)
        REFUSED(ops->stage_load(b.backend, b.weights, &wrong[i], &o, &s, &e), "no layers");
    REFUSED(ops->stage_load(b.backend, b.weights, &middle, &none, &s, &e), "no layers");

    const struct part ends = {.embed = true, .head = true}; /* no layers between them */
    e = (struct err){0};
    cr_assert_eq(ops->stage_load(b.backend, b.weights, &ends, &o, &s, &e), 0, "%s", e.msg);
    REFUSED(ops->embed(s, tokens, 2, x, &e), "token 160", "vocabulary of 160");
    REFUSED(ops->head(s, x, 5, logits, &e), "5 rows");
    e = (struct err){0};
    cr_assert_eq(ops->kv_create(s, 16, DT_F16, &kv, &e), 0, "%s", e.msg);
    batch = (struct batch){rows, 4};
    cr_assert_eq(ops->layers(s, kv, &batch, 0, 0, x, &e), 0, "%s", e.msg);
    cr_assert_eq(ops->embed(s, tokens, 1, x, &e), 0, "%s", e.msg);
    cr_assert_eq(ops->head(s, x, 4, logits, &e), 0, "%s", e.msg);
    ops->kv_free(kv);
    ops->stage_free(s);
    free(x);
    free(logits);
    bench_close(&b);
}

Test(gpu_backend, cards_are_named) {
    struct backend *b;
    struct err e = {0};
    const struct {
        const char *devices, *why;
        enum err_kind kind;
    } wrong[] = {
        {"", "numbers of cards", ERR_USAGE},   {"0,", "numbers of cards", ERR_USAGE},
        {",0", "numbers of cards", ERR_USAGE}, {"0 1", "numbers of cards", ERR_USAGE},
        {"-1", "numbers of cards", ERR_USAGE}, {"99999999999999999999", "numbers of cards", ERR_USAGE},
        {"0,0", "twice", ERR_USAGE},           {"77", "no GPU 77", ERR_DEVICE},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        e = (struct err){0};
        cr_expect_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = wrong[i].devices}, &e), -1, "'%s'",
                     wrong[i].devices);
        cr_expect_null(b);
        expect_err(&e, wrong[i].kind, wrong[i].why, NULL);
    }
    gpu_rig_needs_emulated_card();
    e = (struct err){0};
    cr_assert_eq(backend_cuda_create(&b, &(struct cuda_opts){.devices = "1,0"}, &e), 0, "%s", e.msg);
    cr_expect_str_eq(backend_cuda_name(b), "cuda-sm86+sm90");
    cr_expect_str_eq(backend_cuda_describe(b), "Emulated card 1, 1 GB; Emulated card 0, 1 GB, driver 13.0");
    cr_expect_eq(backend_cuda_memory_left(b), (uint64_t)2 << 30);
    b->ops->free(b);
}

/* ---- dealing out layers ---- */

static void deals(const size_t *cost, int n, size_t head, const size_t *left, int n_cards, const int *want,
                  int want_head) {
    int got[MAX_CARDS], card = spread_layers(cost, n, head, left, n_cards, got);
    for (int i = 0; i < n_cards; i++)
        cr_expect_eq(got[i], want[i], "card %d gets %d layers, not %d", i, got[i], want[i]);
    cr_expect_eq(card, want_head);
}

Test(gpu_plan, layers_are_dealt_out_by_memory) {
    const size_t even[] = {5, 5, 5, 5, 5, 5, 5, 5}, odd[] = {9, 1, 1, 1, 1, 1, 1, 1};
    deals(even, 8, 0, (size_t[]){100}, 1, (int[]){8}, 0);
    deals(even, 8, 0, (size_t[]){50, 50}, 2, (int[]){4, 4}, 1);
    deals(even, 8, 0, (size_t[]){75, 25}, 2, (int[]){6, 2}, 1);
    deals(even, 8, 40, (size_t[]){50, 50}, 2, (int[]){8, 0}, 1);
    deals(even, 8, 10, (size_t[]){50, 50}, 2, (int[]){5, 3}, 1);
    deals(even, 8, 10, (size_t[]){1000, 1}, 2, (int[]){8, 0}, 0);
    deals(even, 8, 10, (size_t[]){1, 1000}, 2, (int[]){0, 8}, 1);
    deals(even, 8, 0, (size_t[]){1, 1, 1, 1}, 4, (int[]){2, 2, 2, 2}, 3);
    deals(odd, 8, 0, (size_t[]){1, 1}, 2, (int[]){1, 7}, 1);
    deals(even, 8, 1, (size_t[]){0, 0}, 2, (int[]){0, 8}, 1); /* no memory at all: some card has to say so */
    deals(even, 0, 7, (size_t[]){3, 3}, 2, (int[]){0, 0}, 0);
}
