/* test/unit/cpu_cases.h - inputs for the CPU kernels, their results, and what those should be in double precision.
 * Without a test framework, so that the program that compares NEON with the portable kernels can use them too. */
#ifndef TEST_CPU_CASES_H
#define TEST_CPU_CASES_H

#include "core/cpu/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y[n][rows] = x w^T, with weights of `type`, re-encoded by quant. Everything follows from the fields and the seed. */
struct matmul_case {
    enum dtype type;
    enum quant quant;
    int rows, cols, n;
    bool bias, add;
    uint32_t seed;
};

/* The file's bytes of the weights, row after row; malloc'ed. */
uint8_t *matmul_case_weights(const struct matmul_case *m, struct tensor *t);
/* The product in calls of `step` rows (0: all at once); malloc'ed, [n][rows]. NULL when packing or memory failed. */
float *matmul_case_run(struct cpu *c, const struct matmul_case *m, int step);
/* The same over a matrix that stays raw. */
float *matmul_case_run_raw(struct cpu *c, const struct matmul_case *m, int step);
double *matmul_case_reference(const struct matmul_case *m);

/* Rows of a batch over scattered slots: a chain of n_rows new positions behind n_trunk committed ones; or a tree whose
 * row i has parent (i - 1) / 2; or chains of two sessions whose rows alternate. */
enum attend_shape { ATTEND_CHAIN, ATTEND_TREE, ATTEND_SESSIONS };

struct attend_case {
    enum attend_shape shape;
    int n_heads, n_kv_heads, head_dim;
    uint32_t n_trunk, n_rows;
    int window;
    enum dtype kv_type;
    uint32_t seed;
};

/* Attention of all rows, or of one alone (only >= 0): [rows][n_heads][head_dim], malloc'ed. */
float *attend_case_run(struct cpu *c, const struct attend_case *a, int only);
double *attend_case_reference(const struct attend_case *a);

/* Norm, gate, rotation, half precision: all of their results behind one another. */
float *row_kernels_run(struct cpu *c, int n, int cols, size_t *n_out);

/* Cases that touch every kernel and every odd end; the same list for every instruction set. */
size_t matmul_cases(const struct matmul_case **out);
size_t attend_cases(const struct attend_case **out);

/* All results of all cases in one number (FNV-1a), which every machine and every build has to agree on: the two ends of
 * a split model may run on different processors. Whoever changes an order of operations on purpose changes the
 * constant. */
#define CASES_DIGEST 0x4fddbd048b69f97eu
uint64_t cases_digest(struct cpu *c);

/* A number in (-1, 1) from a counter. */
float case_noise(uint32_t seed, uint32_t i);
/* |a - b| / |b|, the norms over n elements. */
double relative_error(const float *a, const double *b, size_t n);

#endif
