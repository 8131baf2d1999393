/* core/model/gguf.h - GGUF v2 and v3 files: metadata and tensor directory, parsed over mapped, untrusted bytes.
 * Values are borrowed from the mapping; every string and array has been bounds-checked when it is handed out. */
#ifndef CORE_MODEL_GGUF_H
#define CORE_MODEL_GGUF_H

#include "core/base/err.h"
#include "core/model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

struct gguf_str {
    const char *p; /* not NUL-terminated, may hold any bytes */
    size_t n;
};

struct gguf_array {
    enum gguf_type type; /* never GGUF_ARR: nested arrays are refused */
    uint64_t n;
    const uint8_t *p; /* first element */
    size_t n_bytes;
};

struct gguf_tensor {
    struct gguf_str name;
    uint32_t ggml_type; /* as stored; dtype is only set when it is one of ours */
    enum dtype dtype;   /* DT_COUNT: not supported */
    int n_dims;
    uint64_t dims[4]; /* ggml order: dims[0] is the row length */
    const uint8_t *data;
    size_t n_bytes; /* 0 when the type is not supported */
};

struct gguf;

/* Parses n bytes at p (borrowed until gguf_free). Pure: touches only the header. name is used in messages. */
int gguf_parse(struct gguf **out, const uint8_t *p, size_t n, const char *name, struct err *e);
void gguf_free(struct gguf *g);

const char *gguf_name(const struct gguf *g);
/* ggml's name of a tensor type, "q5_K"; "unknown" for a number that it does not define. */
const char *gguf_ggml_type_name(uint32_t number);
/* Each: true and *v when the key exists with a type that converts without loss, else false. */
bool gguf_u64(const struct gguf *g, const char *key, uint64_t *v);
bool gguf_f64(const struct gguf *g, const char *key, double *v);
bool gguf_bool(const struct gguf *g, const char *key, bool *v);
bool gguf_string(const struct gguf *g, const char *key, struct gguf_str *v);
bool gguf_arr(const struct gguf *g, const char *key, struct gguf_array *v);

/* The value of a key as it stands in the file: of a string its length too, of an array its type and count. */
struct gguf_raw {
    enum gguf_type type;
    const uint8_t *p;
    size_t n_bytes;
};
bool gguf_raw(const struct gguf *g, const char *key, struct gguf_raw *v);

/* Walks the strings of a string array: start with *off = 0; false at its end. */
bool gguf_arr_next_str(const struct gguf_array *a, size_t *off, struct gguf_str *v);
/* Element i (i < a->n) of a numeric or bool array as double / int64. */
double gguf_arr_f64(const struct gguf_array *a, uint64_t i);
int64_t gguf_arr_i64(const struct gguf_array *a, uint64_t i);

uint64_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i);
const struct gguf_tensor *gguf_tensor(const struct gguf *g, const char *name); /* NULL: none */

#endif
