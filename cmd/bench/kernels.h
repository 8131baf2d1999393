/* cmd/bench/kernels.h - the table of `splitinf bench --kernels`: matrix products against what this machine can do. */
#ifndef CMD_BENCH_KERNELS_H
#define CMD_BENCH_KERNELS_H

#include "core/base/err.h"

#include <stdbool.h>

/* Times products of M = 1 .. 64 rows with a rows x cols matrix of each weight type, and prints a table (or, with json,
 * one object) on standard output. n_threads and isa as in backend_cpu_create; cols a multiple of 256. Takes half a
 * minute and a few hundred MB. */
int bench_kernels(int n_threads, const char *isa, int rows, int cols, bool json, struct err *e);

#endif
