#include "core/model/safetensors.h"

#include "core/base/buf.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum {
    MAX_HEADER = 100 * 1000 * 1000, /* the format's own limit */
    MAX_DIMS = 32,
};

struct safetensors {
    struct st_tensor *t; /* sorted by name */
    size_t n;
    size_t file_size;
};

/* Every type the format names, so that sizes can be checked also for those we cannot compute with. */
static const struct {
    const char *name;
    unsigned bits;
    enum dtype dtype;
} types[] = {
    {"F32", 32, DT_F32},          {"F16", 16, DT_F16},          {"BF16", 16, DT_BF16},    {"F64", 64, DT_COUNT},
    {"I64", 64, DT_COUNT},        {"U64", 64, DT_COUNT},        {"C64", 64, DT_COUNT},    {"I32", 32, DT_COUNT},
    {"U32", 32, DT_COUNT},        {"I16", 16, DT_COUNT},        {"U16", 16, DT_COUNT},    {"I8", 8, DT_COUNT},
    {"U8", 8, DT_COUNT},          {"BOOL", 8, DT_COUNT},        {"F8_E4M3", 8, DT_COUNT}, {"F8_E5M2", 8, DT_COUNT},
    {"F8_E8M0", 8, DT_COUNT},     {"F6_E2M3", 6, DT_COUNT},     {"F6_E3M2", 6, DT_COUNT}, {"F4", 4, DT_COUNT},
    {"F8_E4M3FNUZ", 8, DT_COUNT}, {"F8_E5M2FNUZ", 8, DT_COUNT},
};

static int read_shape(struct st_tensor *t, yyjson_val *shape, uint64_t *n_elems, const char *name, struct err *e) {
    if (!yyjson_is_arr(shape) || yyjson_arr_size(shape) > MAX_DIMS)
        return err_set(e, ERR_MODEL, "%s: tensor %.80s has no proper shape", name, t->name);
    uint64_t product = 1;
    size_t i, max;
    yyjson_val *d;
    yyjson_arr_foreach(shape, i, max, d) {
        if (!yyjson_is_uint(d) || __builtin_mul_overflow(product, yyjson_get_uint(d), &product))
            return err_set(e, ERR_MODEL, "%s: the shape of tensor %.80s is not a list of sizes", name, t->name);
        if (i < sizeof t->dims / sizeof *t->dims)
            t->dims[i] = yyjson_get_uint(d);
    }
    t->n_dims = (int)max;
    *n_elems = product;
    return 0;
}

static int read_type(struct st_tensor *t, yyjson_val *v, unsigned *bits, const char *name, struct err *e) {
    const char *s = yyjson_get_str(v);
    if (!s || !*s)
        return err_set(e, ERR_MODEL, "%s: tensor %.80s has no dtype", name, t->name);
    size_t n = strnlen(s, sizeof t->dtype_name - 1);
    memcpy(t->dtype_name, s, n);
    t->dtype = DT_COUNT;
    *bits = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(s, types[i].name) == 0) {
            t->dtype = types[i].dtype;
            *bits = types[i].bits;
        }
    }
    return 0;
}

/* One entry of the header. data: where the data section begins in the file. */
static int read_tensor(struct st_tensor *t, yyjson_val *key, yyjson_val *v, size_t data, const char *name,
                       struct err *e) {
    const char *s = yyjson_get_str(key);
    size_t n = yyjson_get_len(key);
    if (n == 0 || strlen(s) != n)
        return err_set(e, ERR_MODEL, "%s: a tensor's name is empty or holds a NUL", name);
    t->name = malloc(n + 1);
    if (!t->name)
        return err_set(e, ERR_MEMORY, "out of memory reading the header of %s", name);
    memcpy(t->name, s, n + 1);
    if (!yyjson_is_obj(v))
        return err_set(e, ERR_MODEL, "%s: the header's entry of %.80s is not an object", name, t->name);

    unsigned bits = 0;
    uint64_t n_elems = 0, n_bits = 0;
    if (read_type(t, yyjson_obj_get(v, "dtype"), &bits, name, e) != 0 ||
        read_shape(t, yyjson_obj_get(v, "shape"), &n_elems, name, e) != 0)
        return -1;

    yyjson_val *off = yyjson_obj_get(v, "data_offsets");
    yyjson_val *lo = yyjson_arr_get(off, 0), *hi = yyjson_arr_get(off, 1);
    if (yyjson_arr_size(off) != 2 || !yyjson_is_uint(lo) || !yyjson_is_uint(hi))
        return err_set(e, ERR_MODEL, "%s: tensor %.80s has no data_offsets", name, t->name);
    uint64_t begin = yyjson_get_uint(lo), end = yyjson_get_uint(hi);
    if (begin > end || end > SIZE_MAX / 2 - data)
        return err_set(e, ERR_MODEL, "%s: tensor %.80s has impossible offsets [%llu, %llu)", name, t->name,
                       (unsigned long long)begin, (unsigned long long)end);
    if (bits) {
        bool fits = !__builtin_mul_overflow(n_elems, (uint64_t)bits, &n_bits);
        if (!fits || n_bits % 8 != 0 || n_bits / 8 != end - begin)
            return err_set(e, ERR_MODEL,
                           "%s: tensor %.80s: offsets hold %llu bytes, its shape and dtype %s another size", name,
                           t->name, (unsigned long long)(end - begin), t->dtype_name);
    }
    t->begin = data + (size_t)begin;
    t->n_bytes = (size_t)(end - begin);
    return 0;
}

static int by_begin(const void *a, const void *b) {
    const struct st_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int by_name(const void *a, const void *b) {
    const struct st_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int check_overlap(const struct safetensors *s, const char *name, struct err *e) {
    const struct st_tensor *last = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const struct st_tensor *t = &s->t[i];
        if (last && t->n_bytes && t->begin - last->begin < last->n_bytes)
            return err_set(e, ERR_MODEL, "%s: tensors %.80s and %.80s overlap in the file", name, last->name, t->name);
        if (t->n_bytes)
            last = t;
    }
    return 0;
}

static int read_header(struct safetensors *s, yyjson_val *root, size_t data, const char *name, struct err *e) {
    if (!yyjson_is_obj(root))
        return err_set(e, ERR_MODEL, "%s: the header is not a JSON object; not a safetensors file", name);
    s->t = calloc(yyjson_obj_size(root) + 1, sizeof *s->t);
    if (!s->t)
        return err_set(e, ERR_MEMORY, "out of memory reading the header of %s", name);
    size_t i, max;
    yyjson_val *key, *v;
    yyjson_obj_foreach(root, i, max, key, v) {
        if (yyjson_equals_str(key, "__metadata__"))
            continue;
        if (read_tensor(&s->t[s->n++], key, v, data, name, e) != 0)
            return -1;
    }
    qsort(s->t, s->n, sizeof *s->t, by_begin);
    if (check_overlap(s, name, e) != 0)
        return -1;
    qsort(s->t, s->n, sizeof *s->t, by_name);
    for (size_t k = 1; k < s->n; k++)
        if (strcmp(s->t[k - 1].name, s->t[k].name) == 0)
            return err_set(e, ERR_MODEL, "%s: tensor %.80s stands twice in the header", name, s->t[k].name);
    return 0;
}

int st_parse(struct safetensors **out, const uint8_t *p, size_t n, const char *name, struct err *e) {
    *out = NULL;
    struct rbuf r = rbuf_of(p, n);
    uint64_t len = rbuf_u64(&r);
    if (r.bad)
        return err_set(e, ERR_MODEL, "%s: %zu bytes are too few for a safetensors file; it is truncated", name, n);
    if (len > MAX_HEADER)
        return err_set(e, ERR_MODEL,
                       "%s: claims a header of %llu bytes (at most %d are allowed); not a safetensors file", name,
                       (unsigned long long)len, MAX_HEADER);
    if (len > rbuf_left(&r))
        return err_set(e, ERR_MODEL, "%s: the file of %zu bytes ends inside its header of %llu; it is truncated", name,
                       n, (unsigned long long)len);

    int rc = -1;
    struct safetensors *s = calloc(1, sizeof *s);
    yyjson_read_err why = {0};
    yyjson_doc *doc = NULL;
    if (!s) {
        err_set(e, ERR_MEMORY, "out of memory reading the header of %s", name);
        goto out;
    }
    /* Without the INSITU flag the reader copies; it does not write to p. */
    doc = yyjson_read_opts((char *)(uintptr_t)(p + 8), (size_t)len, 0, NULL, &why);
    if (!doc) {
        err_set(e, why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? ERR_MEMORY : ERR_MODEL,
                "%s: the header is not JSON: %s at byte %zu", name, why.msg, why.pos);
        goto out;
    }
    s->file_size = n;
    if (read_header(s, yyjson_doc_get_root(doc), 8 + (size_t)len, name, e) != 0)
        goto out;
    *out = s;
    s = NULL;
    rc = 0;
out:
    yyjson_doc_free(doc);
    st_free(s);
    return rc;
}

void st_free(struct safetensors *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        free(s->t[i].name);
    free(s->t);
    free(s);
}

size_t st_n(const struct safetensors *s) {
    return s->n;
}

const struct st_tensor *st_at(const struct safetensors *s, size_t i) {
    return &s->t[i];
}

const struct st_tensor *st_find(const struct safetensors *s, const char *name) {
    struct st_tensor key = {.name = (char *)(uintptr_t)name};
    return bsearch(&key, s->t, s->n, sizeof *s->t, by_name);
}

int st_in_file(const struct safetensors *s, const struct st_tensor *t) {
    return t->begin <= s->file_size && t->n_bytes <= s->file_size - t->begin;
}
