/* cmd/bench/lists.h - option values that are lists: "0,20,80", "sequential,auto". Pure. */
#ifndef CMD_BENCH_LISTS_H
#define CMD_BENCH_LISTS_H

#include "core/base/err.h"

enum { BENCH_LIST = 16 }; /* items of a list at most */

/* Numbers from min to max; whole: without fractions. The same number twice counts once. Returns how many, or -1 with
 * ERR_USAGE that names option. */
int bench_list_numbers(const char *option, const char *text, double min, double max, int whole, double out[BENCH_LIST],
                       struct err *e);
/* The same for names[0..n_names): their indices. */
int bench_list_names(const char *option, const char *text, const char *const *names, int n_names, int out[BENCH_LIST],
                     struct err *e);

#endif
