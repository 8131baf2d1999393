/* core/cpu: matrices that stay raw until the first pass is over. Whatever state they are in, and while they change it,
 * products and passes give the same bits. */
#include "core/cpu/cpu.h"
#include "core/cpu/settle.h"
#include "core/cpu/stage.h"
#include "test/unit/cpu_cases.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct cpu make_cpu(const char *isa, int threads) {
    struct cpu c;
    struct err e = {0};
    cr_assert_eq(cpu_init(&c, threads, isa, &e), 0, "%s", e.msg);
    return c;
}

/* Shapes of which a worker makes one, two, three and four panels at a time. */
static const struct matmul_case wide[] = {
    {DT_F32, QUANT_NONE, 20, 5001, 1, false, false, 101},
    {DT_F32, QUANT_NONE, 40, 3001, 2, true, false, 102},
    {DT_BF16, QUANT_NONE, 70, 5001, 1, false, true, 103},
    {DT_Q8_0, QUANT_NONE, 66, 5024, 1, false, false, 104},
};
enum { N_WIDE = sizeof wide / sizeof *wide };

static void compare_raw(const struct matmul_case *m) {
    struct cpu best = make_cpu(NULL, 1);
    float *want = matmul_case_run(&best, m, 0);
    cr_assert_not_null(want);
    for (const char *const *isa = cpu_isa_list(); *isa; isa++) {
        struct cpu c = make_cpu(*isa, 2);
        float *got = matmul_case_run_raw(&c, m, 0);
        cr_assert_not_null(got);
        cr_assert_arr_eq(got, want, (size_t)m->n * (size_t)m->rows * sizeof *got, "%s %d x %d, %d rows: %s",
                         dtype_info(m->type)->name, m->rows, m->cols, m->n, *isa);
        free(got);
        cpu_free(&c);
    }
    free(want);
    cpu_free(&best);
}

Test(raw, products_have_the_same_bits, .timeout = 300) {
    const struct matmul_case *cases;
    size_t n = matmul_cases(&cases);
    for (size_t i = 0; i < n; i++) /* the small ones: all types, all odd ends */
        if (cases[i].quant == QUANT_NONE && cases[i].rows * cases[i].cols < 100000)
            compare_raw(&cases[i]);
    for (size_t i = 0; i < N_WIDE; i++)
        compare_raw(&wide[i]);
}

/* What only moves bytes may be raw; what has to be computed is packed while it is loaded. */
Test(raw, is_for_what_lies_in_memory_as_it_is_used) {
    uint8_t byte = 0;
    struct tensor t = {.dtype = DT_BF16, .rows = 16, .cols = 64, .data = &byte};
    cr_assert(packed_may_be_raw(&t, QUANT_NONE));
    cr_assert_not(packed_may_be_raw(&t, QUANT_Q8));
    t.cols = 60; /* no blocks of 32: not re-encoded */
    cr_assert(packed_may_be_raw(&t, QUANT_Q8));
    t.dtype = DT_Q4_0;
    cr_assert(packed_may_be_raw(&t, QUANT_Q4));
    t.data = NULL; /* generated */
    cr_assert_not(packed_may_be_raw(&t, QUANT_NONE));
}

/* ---- settling ---- */

/* A few matrices with one input, packed and raw, and the right results. */
enum { N_MATRICES = 7, COLS = 512, ROWS = 400, N_X = 3 };
struct bed {
    struct cpu cpu;
    struct settle_gate gate;
    struct mapping {
        uint8_t *p;
        size_t n;
    } files[N_MATRICES];
    struct packed raw[N_MATRICES], *list[N_MATRICES];
    float *x, *want[N_MATRICES], *got;
};

/* A file with these bytes behind `off` others, mapped: pages that are let go have to come back. */
static struct mapping map_bytes(const uint8_t *data, size_t n, size_t off) {
    int fd = memfd_create("matrix", MFD_CLOEXEC);
    cr_assert(fd >= 0 && pwrite(fd, data, n, (off_t)off) == (ssize_t)n);
    struct mapping m = {mmap(NULL, off + n, PROT_READ, MAP_PRIVATE, fd, 0), off + n};
    cr_assert(m.p != MAP_FAILED);
    close(fd);
    return m;
}

/* Heads that GGUF has interleaved, and tensors at odd addresses, are what a file may hold. */
static void bed_open(struct bed *b, int threads) {
    static const enum dtype types[N_MATRICES] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K};
    struct err e = {0};
    memset(b, 0, sizeof *b);
    b->cpu = make_cpu(NULL, threads);
    settle_gate_init(&b->gate);
    b->x = malloc(N_X * COLS * sizeof *b->x);
    b->got = malloc(N_X * ROWS * sizeof *b->got);
    cr_assert(b->x && b->got);
    for (int i = 0; i < N_X * COLS; i++)
        b->x[i] = case_noise(200, (uint32_t)i);
    for (int i = 0; i < N_MATRICES; i++) {
        const struct matmul_case m = {types[i], QUANT_NONE, ROWS, COLS, N_X, false, false, (uint32_t)(210 + i)};
        struct tensor t;
        uint8_t *rows = matmul_case_weights(&m, &t);
        b->want[i] = malloc(N_X * ROWS * sizeof **b->want);
        cr_assert(rows && b->want[i]);
        b->files[i] = map_bytes(rows, t.row_bytes * ROWS, i % 2);
        free(rows);
        t.data = b->files[i].p + i % 2;
        t.permute_heads = i % 3 == 0 ? 10 : 0;
        struct packed w;
        cr_assert_eq(packed_load(&w, &b->cpu, &t, QUANT_NONE, &e), 0, "%s", e.msg);
        cr_assert_eq(cpu_reserve(&b->cpu, cpu_matmul_scratch(&w, N_X), &e), 0, "%s", e.msg);
        const struct matmul job = {.w = &w, .y = b->want[i], .ldy = ROWS};
        cpu_matmul(&b->cpu, &job, 1, b->x, COLS, N_X);
        packed_free(&w);
        cr_assert_eq(packed_raw(&b->raw[i], &b->cpu, &t, &e), 0, "%s", e.msg);
        b->list[i] = &b->raw[i];
    }
}

static void bed_close(struct bed *b) {
    for (int i = 0; i < N_MATRICES; i++) {
        packed_free(&b->raw[i]);
        munmap(b->files[i].p, b->files[i].n);
        free(b->want[i]);
    }
    free(b->x);
    free(b->got);
    settle_gate_free(&b->gate);
    cpu_free(&b->cpu);
}

static int n_raw(const struct bed *b) {
    int n = 0;
    for (int i = 0; i < N_MATRICES; i++)
        n += packed_is_raw(&b->raw[i]);
    return n;
}

static void products_are_right(struct bed *b) {
    for (int i = 0; i < N_MATRICES; i++) {
        const struct matmul job = {.w = &b->raw[i], .y = b->got, .ldy = ROWS};
        cpu_matmul(&b->cpu, &job, 1, b->x, COLS, N_X);
        cr_assert_arr_eq(b->got, b->want[i], N_X * ROWS * sizeof *b->got, "matrix %d", i);
    }
}

Test(settle, products_go_on_meanwhile, .timeout = 300) {
    for (int threads = 1; threads <= 3; threads += 2) {
        struct bed b;
        struct settle *s;
        struct err e = {0};
        bed_open(&b, threads);
        cr_assert_eq(settle_start(&s, &b.gate, &b.cpu, b.list, N_MATRICES, &e), 0, "%s", e.msg);
        products_are_right(&b);
        cr_assert_eq(n_raw(&b), N_MATRICES, "the first pass is not over");
        settle_served(s, 1000); /* the first one; that of the second helps */
        for (int i = 0; n_raw(&b); i++) {
            if (i % 2)
                settle_served(s, 0.05);
            products_are_right(&b);
        }
        products_are_right(&b);
        settle_stop(s);
        bed_close(&b);
    }
}

Test(settle, stops_at_once_wherever_it_is, .timeout = 300) {
    for (int products = 0; products < 4; products++) {
        struct bed b;
        struct settle *s;
        struct err e = {0};
        bed_open(&b, 2);
        cr_assert_eq(settle_start(&s, &b.gate, &b.cpu, b.list, N_MATRICES, &e), 0, "%s", e.msg);
        settle_served(s, 0);
        for (int i = 0; i < products; i++)
            products_are_right(&b);
        settle_stop(s);
        int left = n_raw(&b);
        products_are_right(&b);
        cr_assert_eq(n_raw(&b), left, "nobody is at work any more");
        bed_close(&b);
    }
    settle_stop(NULL);
}

Test(settle, waits_for_the_first_pass_of_all, .timeout = 300) {
    struct bed b[2];
    struct settle *s[2];
    struct err e = {0};
    bed_open(&b[0], 1);
    bed_open(&b[1], 1);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(settle_start(&s[i], &b[0].gate, &b[i].cpu, b[i].list, N_MATRICES, &e), 0, "%s", e.msg);
    for (int i = 0; i < 2; i++) /* nor does the pool help */
        settle_served(s[0], 1000);
    settle_stop(s[0]); /* its thread has ended, and found no time that was its own */
    cr_assert_eq(n_raw(&b[0]), N_MATRICES);
    cr_assert_eq(n_raw(&b[1]), N_MATRICES);
    settle_served(s[1], 0);
    while (n_raw(&b[1]))
        products_are_right(&b[1]);
    settle_stop(s[1]);
    bed_close(&b[0]);
    bed_close(&b[1]);
}

/* Whoever calls it can have the pool do all of it. */
Test(settle, the_pool_helps, .timeout = 300) {
    struct bed b;
    struct settle *s;
    struct err e = {0};
    bed_open(&b, 3);
    cr_assert_eq(settle_start(&s, &b.gate, &b.cpu, b.list, N_MATRICES, &e), 0, "%s", e.msg);
    settle_served(s, 0);
    while (n_raw(&b))
        settle_served(s, 1000);
    products_are_right(&b);
    settle_stop(s);
    bed_close(&b);
}

/* ---- whole models ---- */

static const char model[] = "test/models/tiny";
static const uint32_t tokens[] = {1, 40, 77, 200, 12, 5, 211, 9, 64, 128, 33, 2};
enum { N_TOKENS = sizeof tokens / sizeof *tokens };

static int stage_n_raw(const struct stage *s) {
    const struct raw_list *r = &((const struct cpu_stage *)(const void *)s)->raw;
    int n = 0;
    for (int i = 0; i < r->n; i++)
        n += packed_is_raw(r->p[i]);
    return n;
}

static int rig_n_raw(const struct rig *r) {
    return stage_n_raw(r->front) + stage_n_raw(r->middle_stage) + stage_n_raw(r->back);
}

static void lazy_is_eager(const char *path, enum quant quant, bool any_raw) {
    struct rig_opts o = {.front = 1, .back = 1, .max_rows = 16, .ctx = 64, .kv_type = DT_F16, .threads = 2};
    struct rig eager, lazy;
    o.quant = quant;
    rig_open(&eager, path, &o);
    o.lazy = true;
    rig_open(&lazy, path, &o);
    size_t bytes = N_TOKENS * (size_t)eager.config->vocab * sizeof(float);
    float *want = rig_chain_logits(&eager, tokens, N_TOKENS), *got;
    cr_assert_eq(rig_n_raw(&lazy) > 0, any_raw, "%s", path);
    do {
        got = rig_chain_logits(&lazy, tokens, N_TOKENS);
        cr_assert_arr_eq(got, want, bytes, "%s", path);
        free(got);
    } while (rig_n_raw(&lazy));
    got = rig_chain_logits(&lazy, tokens, N_TOKENS);
    cr_assert_arr_eq(got, want, bytes, "%s", path);
    free(got);
    free(want);
    rig_close(&lazy);
    rig_close(&eager);
}

Test(lazy, passes_have_the_same_bits_before_and_after, .timeout = 300) {
    lazy_is_eager(model, QUANT_NONE, true);
    lazy_is_eager(model, QUANT_Q8, false);
    lazy_is_eager("test/models/families/gguf-llama/model.gguf", QUANT_NONE, true);
    lazy_is_eager("test/models/families/gguf-k/model.gguf", QUANT_NONE, true);
}

Test(lazy, a_model_that_is_hardly_used_goes_away) {
    for (int passes = 0; passes < 3; passes++) {
        const struct rig_opts o = {
            .front = 2, .back = 2, .max_rows = 8, .ctx = 32, .kv_type = DT_F16, .threads = 2, .lazy = true};
        struct rig r;
        rig_open(&r, model, &o);
        for (int i = 0; i < passes; i++)
            rig_feed(&r, tokens, (uint32_t)(i + 1));
        rig_close(&r);
    }
}

/* ---- progress and its power to stop ---- */

struct watch {
    uint64_t done, total;
    int calls, stop_at; /* the call that says stop; 0: none */
};

static int watch(void *ctx, uint64_t done, uint64_t total) {
    struct watch *w = ctx;
    cr_assert_gt(done, w->done);
    cr_assert_leq(done, total);
    w->done = done;
    w->total = total;
    return ++w->calls == w->stop_at;
}

Test(lazy, progress_goes_on_in_the_first_pass) {
    struct watch w = {.stop_at = 5};
    struct err e = {0};
    struct weights *weights;
    struct backend *b;
    struct stage *s;
    struct kv *kv;
    cr_assert_eq(weights_open(&weights, model, &e), 0, "%s", e.msg);
    const struct model_config *c = weights_config(weights);
    const struct part part = {.lo = 0, .hi = c->n_layers, .embed = true, .head = true};
    const struct load_opts o = {.max_rows = 1, .lazy = true, .progress = watch, .progress_ctx = &w};
    cr_assert_eq(backend_cpu_create(&b, 1, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(b->ops->stage_load(b, weights, &part, &o, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(w.calls, 0, "nothing was read yet");
    cr_assert_eq(b->ops->kv_create(s, 4, DT_F32, &kv, &e), 0, "%s", e.msg);
    struct row row = {.pos = 0, .slot = 0, .tail = &row.slot, .n_tail = 1};
    const struct batch batch = {&row, 1};
    size_t vocab = (size_t)c->vocab;
    float *x = calloc((size_t)c->hidden, sizeof *x), *y = calloc(2 * vocab, sizeof *y);
    cr_assert(x && y);
    cr_assert_eq(b->ops->embed(s, tokens, 1, x, &e), 0, "%s", e.msg);
    cr_assert_eq(b->ops->layers(s, kv, &batch, 0, c->n_layers, x, &e), -1);
    cr_assert_eq(e.kind, ERR_NONE, "nothing failed: %s", e.msg);
    cr_assert_eq(w.calls, 5);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(b->ops->embed(s, tokens, 1, x, &e), 0, "%s", e.msg);
        cr_assert_eq(b->ops->layers(s, kv, &batch, 0, c->n_layers, x, &e), 0, "%s", e.msg);
        cr_assert_eq(b->ops->head(s, x, 1, y + (size_t)i * vocab, &e), 0, "%s", e.msg);
        cr_assert_eq(w.done, w.total, "all was read, once");
    }
    cr_assert_arr_eq(y, y + vocab, vocab * sizeof *y);
    free(x);
    free(y);
    b->ops->kv_free(kv);
    b->ops->stage_free(s);
    b->ops->free(b);
    weights_close(weights);
}
