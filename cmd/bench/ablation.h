/* cmd/bench/ablation.h - the answers of a bench, drafted once more without a network: the reference's n-grams of each
 * length beside our own tree, by category. */
#ifndef CMD_BENCH_ABLATION_H
#define CMD_BENCH_ABLATION_H

#include "cmd/bench/prompts.h"
#include "cmd/bench/record.h"

/* answers[i] is that to prompt i; those that are empty are left out. */
int bench_ablation(struct bench_rows *out, const struct bench_prompts *p, const struct ids *answers, uint32_t vocab,
                   struct err *e);

#endif
