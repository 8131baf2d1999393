/* core/model/export.h - writes a model directory or file that holds only layers [lo, hi): what a rented machine needs,
 * and nothing that could read text: no embedding, head or other layers, no tokenizer, no template. */
#ifndef CORE_MODEL_EXPORT_H
#define CORE_MODEL_EXPORT_H

#include "core/base/err.h"
#include "core/model/weights.h"

#include <stdint.h>

/* out: a directory that does not exist yet or is empty. From an HF directory: out/config.json (as it was) and
 * out/model.safetensors; from a GGUF file: out/middle.gguf with the model's shape keys and the tensors as they were.
 * Written under another name and renamed at the end, so that a broken export never looks whole. progress as in
 * load_opts. *bytes: written. random: models need no export (ERR_USAGE). */
int export_layers(struct weights *w, const char *model, int lo, int hi, const char *out,
                  int (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx, uint64_t *bytes, struct err *e);

#endif
