/* core/model/shards.h - the safetensors files of one Hugging Face directory, seen as one set of tensors.
 * Found by model.safetensors.index.json, or model.safetensors, or whatever *.safetensors there is. With an index a file
 * is opened when one of its tensors is first asked for, so a part of a model needs only its own files. Everything in
 * the directory is untrusted; names from the index are plain file names of that directory or refused. */
#ifndef CORE_MODEL_SHARDS_H
#define CORE_MODEL_SHARDS_H

#include "core/base/err.h"
#include "core/model/safetensors.h"

#include <stdbool.h>

struct shards;

/* An entry of the index: which file holds a tensor. */
struct shard_entry {
    char *tensor; /* owned by the struct shard_index */
    size_t file;  /* into files */
};

struct shard_index {
    struct shard_entry *entries; /* sorted by tensor */
    size_t n_entries;
    char **files;
    size_t n_files;
};

/* Parses the text of an index file (n bytes). Pure. name is used in messages. */
int shard_index_parse(struct shard_index *x, const char *json, size_t n, const char *name, struct err *e);
void shard_index_free(struct shard_index *x);

int shards_open(struct shards **out, const char *dir, struct err *e);
void shards_free(struct shards *s);

struct shard_tensor {
    const struct st_tensor *t;
    const char *file;    /* path of the file that holds it */
    const uint8_t *data; /* NULL when the file ends before the tensor does */
    size_t file_size;
};

/* Finds a tensor, opening its file when need be: 1 found, 0 no such tensor, -1 with e set. */
int shards_find(struct shards *s, const char *tensor, struct shard_tensor *out, struct err *e);
bool shards_has(const struct shards *s, const char *tensor);
/* The same, and the file that an index puts it into exists. Opens nothing. */
bool shards_file_there(const struct shards *s, const char *tensor);

#endif
