/* core/model/weights.h - the tensors of one model by their Hugging Face names, whatever holds them: safetensors (one
 * file or sharded), GGUF, or a generator (random:NAME). Opening reads headers only; a tensor's bytes are touched when
 * its rows are asked for, so a part of a model costs only that part. File content is untrusted: every tensor handed out
 * has been checked against its file's bounds and the shape asked for. */
#ifndef CORE_MODEL_WEIGHTS_H
#define CORE_MODEL_WEIGHTS_H

#include "core/base/err.h"
#include "core/model/config.h"
#include "core/model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weights;
struct gguf;

/* A matrix (rows x cols, row-major, y = W x) or a vector (rows == 1). Borrowed from its struct weights. */
struct tensor {
    char name[96];
    enum dtype dtype;
    uint32_t rows, cols;
    uint32_t permute_heads; /* GGUF llama q/k rows are stored rotary-interleaved: heads to undo it by; 0: as is */
    size_t row_bytes;
    const uint8_t *data; /* row 0 in the mapping; NULL when rows are generated */
    uint64_t key;        /* generator stream, when data is NULL */
    float scale;         /* generator: standard deviation (0: the constant 1, a norm) */
};

/* path: an HF directory, a .gguf file, or random:NAME[/LAYERS][:SEED]. */
int weights_open(struct weights **out, const char *path, struct err *e);
void weights_close(struct weights *w);

const struct model_config *weights_config(const struct weights *w);
const char *weights_path(const struct weights *w);
/* The GGUF file behind w (for its tokenizer and chat template), or NULL. */
const struct gguf *weights_gguf(const struct weights *w);

/* Finds a tensor and checks its shape: rows x cols, or a vector of cols elements when rows is 1. Names are HF's, e.g.
 * "model.layers.3.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight". A missing tensor, a wrong
 * shape, an unknown dtype or bytes outside the file is an ERR_MODEL that names the tensor and the file; a file of a
 * sharded model that is not there is an ERR_IO. May open that file: one thread at a time. */
int weights_get(struct weights *w, const char *name, uint32_t rows, uint32_t cols, struct tensor *t, struct err *e);
bool weights_has(const struct weights *w, const char *name);
/* The same, and the file that the index of a sharded model puts it into exists: who has a part of a model need not have
 * the files of the others. */
bool weights_file_there(const struct weights *w, const char *name);

/* Row `row` of t in t->dtype: a pointer into the mapping, or scratch (t->row_bytes long) filled by the generator.
 * Thread-safe. row < t->rows. */
const void *tensor_row(const struct tensor *t, uint32_t row, void *scratch);

/* Says that rows [lo, hi) will be read soon (or will not be needed again): madvise on the mapping, else nothing. */
void tensor_will_need(const struct tensor *t, uint32_t lo, uint32_t hi);
void tensor_done(const struct tensor *t);

#endif
