/* Compares the best kernels of this machine with the portable ones, bit for bit: all cases of test/unit/cpu_cases.c.
 * And the codecs of the wire with their golden rows: what one machine encodes, others compute with. For processors that
 * are not at hand (test/arm64.sh); elsewhere test/unit/test_cpu_kernels.c and test_codec.c do this and more. */
#include "net/codec.h"
#include "test/golden/codec_rows.h"
#include "test/unit/cpu_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In place of core/model/weights.c: the cases have their weights in memory. */
const void *tensor_row(const struct tensor *t, uint32_t row, void *scratch) {
    (void)scratch;
    return t->data + (size_t)row * t->row_bytes;
}

void tensor_will_need(const struct tensor *t, uint32_t lo, uint32_t hi) {
    (void)t, (void)lo, (void)hi;
}

void tensor_done(const struct tensor *t) {
    (void)t;
}

static int n_compared, n_failed;

static void compare(const char *what, size_t i, float *got, float *want, size_t n) {
    n_compared++;
    if (!got || !want || memcmp(got, want, n * sizeof *got) != 0) {
        n_failed++;
        printf("not ok %s %zu\n", what, i);
    }
    free(got);
    free(want);
}

static void compare_codec(enum codec c, const void *want) {
    size_t bytes = CODEC_ROWS * codec_row_bytes(c, CODEC_HIDDEN), n = CODEC_ROWS * CODEC_HIDDEN;
    float *x = malloc(n * sizeof *x), *twin = malloc(n * sizeof *x);
    uint8_t *got = malloc(bytes);
    if (!x || !twin || !got)
        abort();
    memcpy(x, codec_bits, n * sizeof *x);
    memcpy(twin, codec_bits, n * sizeof *x);
    codec_encode(c, x, CODEC_ROWS, CODEC_HIDDEN, got);
    codec_boundary(&c, twin, CODEC_ROWS, CODEC_HIDDEN);
    int rc = codec_decode(c, got, CODEC_ROWS, CODEC_HIDDEN, x);
    if (rc != 0 || memcmp(got, want, bytes) != 0) {
        n_failed++;
        printf("not ok codec %s\n", codec_name(c));
    }
    compare(codec_name(c), 0, x, twin, n);
    free(got);
}

int main(void) {
    struct err e = {0};
    struct cpu best, plain;
    if (cpu_init(&best, 2, NULL, &e) != 0 || cpu_init(&plain, 1, "portable", &e) != 0) {
        printf("not ok: %s\n", e.msg);
        return 1;
    }
    const struct matmul_case *products;
    const struct attend_case *attentions;
    size_t n = matmul_cases(&products);
    for (size_t i = 0; i < n; i++) {
        const struct matmul_case *m = &products[i];
        compare("product", i, matmul_case_run(&best, m, 0), matmul_case_run(&plain, m, 5),
                (size_t)m->n * (size_t)m->rows);
    }
    n = attend_cases(&attentions);
    for (size_t i = 0; i < n; i++) {
        const struct attend_case *a = &attentions[i];
        compare("attention", i, attend_case_run(&best, a, -1), attend_case_run(&plain, a, -1),
                a->n_rows * (size_t)a->n_heads * (size_t)a->head_dim);
    }
    for (int cols = 2; cols < 300; cols += 37) {
        size_t size;
        float *got = row_kernels_run(&best, 3, cols, &size), *want = row_kernels_run(&plain, 3, cols, &size);
        compare("rows", (size_t)cols, got, want, size);
    }
    compare_codec(CODEC_F16, codec_f16);
    compare_codec(CODEC_BF16, codec_bf16);
    compare_codec(CODEC_Q8, codec_q8);
    uint64_t digest = cases_digest(&best);
    if (digest != CASES_DIGEST) {
        n_failed++;
        printf("not ok: the digest of all results is %016llx, on other machines %016llx\n", (unsigned long long)digest,
               (unsigned long long)CASES_DIGEST);
    }
    printf("%s against portable: %d compared, %d differ\n", cpu_isa_name(&best), n_compared, n_failed);
    cpu_free(&best);
    cpu_free(&plain);
    return n_failed != 0;
}
