/* core/model/random.h - models of published shapes with generated weights: random:NAME[/LAYERS][:SEED]. Every value is
 * a function of the seed, the model's name, the tensor's name, the row and the column, so any part can be made
 * anywhere, in any order, with the same bytes. No file is read. */
#ifndef CORE_MODEL_RANDOM_H
#define CORE_MODEL_RANDOM_H

#include "core/base/err.h"
#include "core/model/config.h"

#include <stddef.h>
#include <stdint.h>

struct random_model {
    struct model_config config;
    uint64_t key; /* of the seed and the name; the number of layers plays no part */
};

/* spec is the text behind "random:". Not hostile (it is the user's own command line), but checked in full. */
int random_model_parse(struct random_model *m, const char *spec, struct err *e);

/* The stream of one tensor and the standard deviation of its values (0: all of them are 1). */
uint64_t random_tensor_key(const struct random_model *m, const char *hf_name);
float random_tensor_scale(const struct random_model *m, const char *hf_name);

/* n values of row `row` as bf16: near-normal, mean 0, standard deviation scale. Equal on every machine. */
void random_row(uint64_t key, float scale, uint32_t row, uint16_t *dst, size_t n);

#endif
