/* core/model/safetensors.h - the header of one safetensors file, parsed over mapped, untrusted bytes. Pure. */
#ifndef CORE_MODEL_SAFETENSORS_H
#define CORE_MODEL_SAFETENSORS_H

#include "core/base/err.h"
#include "core/model/dtype.h"

#include <stddef.h>
#include <stdint.h>

struct st_tensor {
    char *name;          /* owned by the struct safetensors */
    char dtype_name[12]; /* as stored, for messages */
    enum dtype dtype;    /* DT_COUNT: a type that is not supported */
    int n_dims;
    uint64_t dims[4];
    size_t begin, n_bytes; /* from the start of the file; begin + n_bytes <= size_checked, see st_parse */
};

struct safetensors;

/* Parses the header of a file of n bytes at p. Offsets are checked against each other (no overlap) and against the
 * length that the header itself implies; a file that ends early still parses, and st_in_file tells which tensors are
 * whole. */
int st_parse(struct safetensors **out, const uint8_t *p, size_t n, const char *name, struct err *e);
void st_free(struct safetensors *s);
size_t st_n(const struct safetensors *s);
const struct st_tensor *st_at(const struct safetensors *s, size_t i);
const struct st_tensor *st_find(const struct safetensors *s, const char *name);
/* 1 when the whole tensor lies inside the file, else 0. */
int st_in_file(const struct safetensors *s, const struct st_tensor *t);

#endif
