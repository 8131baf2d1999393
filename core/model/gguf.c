#include "core/model/gguf.h"

#include "core/base/buf.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_KV = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_KEY = 1 << 12, /* bytes of a key or of a tensor's name */
    MAX_DIMS = 4,
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
};

struct kv {
    struct gguf_str key;
    enum gguf_type type;
    const uint8_t *p;        /* the value's bytes; of a string, behind its length */
    size_t n_bytes;          /* of a string */
    struct gguf_array array; /* when type is GGUF_ARR */
};

struct gguf {
    const char *name;
    struct kv *kv; /* sorted by key */
    size_t n_kv;
    struct gguf_tensor *t; /* sorted by name */
    uint64_t *offset;      /* while parsing: of t[i], from the start of the data */
    size_t n_t;
};

static const uint8_t scalar_bytes[] = {
    [GGUF_U8] = 1,   [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4,
    [GGUF_BOOL] = 1, [GGUF_STR] = 0, [GGUF_ARR] = 0, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* ggml's numbering. Sizes are those of its block layouts; a type without a name was removed or never given out. */
static const struct ggml_type {
    const char *name;
    uint16_t block, block_bytes;
} ggml_types[] = {
    [0] = {"f32", 1, 4},         [1] = {"f16", 1, 2},         [2] = {"q4_0", 32, 18},      [3] = {"q4_1", 32, 20},
    [6] = {"q5_0", 32, 22},      [7] = {"q5_1", 32, 24},      [8] = {"q8_0", 32, 34},      [9] = {"q8_1", 32, 40},
    [10] = {"q2_K", 256, 84},    [11] = {"q3_K", 256, 110},   [12] = {"q4_K", 256, 144},   [13] = {"q5_K", 256, 176},
    [14] = {"q6_K", 256, 210},   [15] = {"q8_K", 256, 292},   [16] = {"iq2_xxs", 256, 66}, [17] = {"iq2_xs", 256, 74},
    [18] = {"iq3_xxs", 256, 98}, [19] = {"iq1_s", 256, 50},   [20] = {"iq4_nl", 32, 18},   [21] = {"iq3_s", 256, 110},
    [22] = {"iq2_s", 256, 82},   [23] = {"iq4_xs", 256, 136}, [24] = {"i8", 1, 1},         [25] = {"i16", 1, 2},
    [26] = {"i32", 1, 4},        [27] = {"i64", 1, 8},        [28] = {"f64", 1, 8},        [29] = {"iq1_m", 256, 56},
    [30] = {"bf16", 1, 2},       [34] = {"tq1_0", 256, 54},   [35] = {"tq2_0", 256, 66},   [39] = {"mxfp4", 32, 17},
    [40] = {"nvfp4", 64, 36},    [41] = {"q1_0", 128, 18},
};

static const struct ggml_type *ggml_type(uint32_t t) {
    return t < sizeof ggml_types / sizeof *ggml_types && ggml_types[t].name ? &ggml_types[t] : NULL;
}

const char *gguf_ggml_type_name(uint32_t number) {
    const struct ggml_type *t = ggml_type(number);
    return t ? t->name : "unknown";
}

static enum dtype dtype_of(uint32_t t) {
    for (int d = 0; d < DT_COUNT; d++)
        if (strcmp(gguf_ggml_type_name(t), dtype_info((enum dtype)d)->name) == 0)
            return (enum dtype)d;
    return DT_COUNT;
}

static int compare(struct gguf_str a, struct gguf_str b) {
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_key(const void *a, const void *b) {
    return compare(((const struct kv *)a)->key, ((const struct kv *)b)->key);
}

static int by_name(const void *a, const void *b) {
    return compare(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

/* For "%.*s" in messages: not the whole of a long string. */
static int shown(struct gguf_str s) {
    return s.n < 80 ? (int)s.n : 80;
}

/* ---- metadata ---- */

static struct gguf_str read_str(struct rbuf *r) {
    uint64_t n = rbuf_u64(r);
    if (n > rbuf_left(r)) {
        r->bad = true;
        return (struct gguf_str){(const char *)r->p, 0};
    }
    const uint8_t *p = rbuf_bytes(r, (size_t)n);
    return (struct gguf_str){(const char *)(p ? p : r->p), p ? (size_t)n : 0};
}

static int read_array(struct rbuf *r, struct kv *v, const char *name, struct err *e) {
    uint32_t type = rbuf_u32(r);
    uint64_t n = rbuf_u64(r);
    if (type == GGUF_ARR)
        return err_set(e, ERR_MODEL, "%s: metadata key %.*s is an array of arrays, which is not supported", name,
                       shown(v->key), v->key.p);
    if (type > GGUF_F64)
        return err_set(e, ERR_MODEL, "%s: metadata key %.*s is an array of the unknown type %u", name, shown(v->key),
                       v->key.p, type);
    size_t each = type == GGUF_STR ? 8 : scalar_bytes[type];
    if (n > rbuf_left(r) / each) {
        r->bad = true;
        return 0;
    }
    v->array = (struct gguf_array){.type = (enum gguf_type)type, .n = n, .p = r->p + r->off};
    size_t start = r->off;
    if (type == GGUF_STR)
        for (uint64_t i = 0; i < n && !r->bad; i++)
            read_str(r);
    else
        rbuf_skip(r, (size_t)n * each);
    v->array.n_bytes = r->off - start;
    return 0;
}

static int read_kv(struct rbuf *r, struct kv *v, const char *name, struct err *e) {
    v->key = read_str(r);
    uint32_t type = rbuf_u32(r);
    if (r->bad)
        return 0;
    if (v->key.n == 0 || v->key.n > MAX_KEY)
        return err_set(e, ERR_MODEL, "%s: a metadata key has a length of %zu bytes", name, v->key.n);
    if (type > GGUF_F64)
        return err_set(e, ERR_MODEL, "%s: metadata key %.*s has the unknown type %u", name, shown(v->key), v->key.p,
                       type);
    v->type = (enum gguf_type)type;
    if (v->type == GGUF_ARR)
        return read_array(r, v, name, e);
    if (v->type == GGUF_STR) {
        struct gguf_str s = read_str(r);
        v->p = (const uint8_t *)s.p;
        v->n_bytes = s.n;
        return 0;
    }
    v->p = rbuf_bytes(r, scalar_bytes[type]);
    if (v->p && v->type == GGUF_BOOL && *v->p > 1)
        return err_set(e, ERR_MODEL, "%s: metadata key %.*s is a bool of value %u", name, shown(v->key), v->key.p,
                       *v->p);
    return 0;
}

static int read_all_kv(struct gguf *g, struct rbuf *r, uint64_t n, struct err *e) {
    g->kv = calloc((size_t)n + 1, sizeof *g->kv);
    if (!g->kv)
        return err_set(e, ERR_MEMORY, "out of memory reading the metadata of %s", g->name);
    for (uint64_t i = 0; i < n; i++) {
        if (read_kv(r, &g->kv[i], g->name, e) != 0)
            return -1;
        if (r->bad)
            return err_set(e, ERR_MODEL,
                           "%s: the file ends (or lies about a length) in metadata entry %llu of %llu; it is "
                           "truncated or damaged",
                           g->name, (unsigned long long)i + 1, (unsigned long long)n);
    }
    g->n_kv = (size_t)n;
    qsort(g->kv, g->n_kv, sizeof *g->kv, by_key);
    for (size_t i = 1; i < g->n_kv; i++)
        if (by_key(&g->kv[i - 1], &g->kv[i]) == 0)
            return err_set(e, ERR_MODEL, "%s: metadata key %.*s stands twice in the file", g->name, shown(g->kv[i].key),
                           g->kv[i].key.p);
    return 0;
}

/* ---- tensors ---- */

/* Sets t->n_bytes for every type whose size is known; t->dtype says whether it is one of ours. */
static int read_size(struct gguf_tensor *t, size_t *n_bytes, const char *name, struct err *e) {
    const struct ggml_type *type = ggml_type(t->ggml_type);
    uint64_t n = 1;
    *n_bytes = 0;
    for (int i = 0; i < t->n_dims; i++)
        if (t->dims[i] == 0 || __builtin_mul_overflow(n, t->dims[i], &n) || n > INT64_MAX / 8)
            return err_set(e, ERR_MODEL, "%s: tensor %.*s has an impossible shape", name, shown(t->name), t->name.p);
    if (!type)
        return 0;
    if (t->dims[0] % type->block != 0)
        return err_set(e, ERR_MODEL, "%s: tensor %.*s has rows of %llu elements, no multiple of the %u in a %s block",
                       name, shown(t->name), t->name.p, (unsigned long long)t->dims[0], type->block, type->name);
    n /= type->block;
    if (__builtin_mul_overflow(n, type->block_bytes, n_bytes) || *n_bytes > SIZE_MAX / 4)
        return err_set(e, ERR_MODEL, "%s: tensor %.*s has an impossible shape", name, shown(t->name), t->name.p);
    return 0;
}

static int read_tensor(struct gguf *g, struct rbuf *r, struct gguf_tensor *t, uint64_t *offset, size_t alignment,
                       struct err *e) {
    t->name = read_str(r);
    uint32_t n_dims = rbuf_u32(r);
    if (r->bad)
        return 0;
    if (t->name.n == 0 || t->name.n > MAX_KEY)
        return err_set(e, ERR_MODEL, "%s: a tensor's name has a length of %zu bytes", g->name, t->name.n);
    if (n_dims < 1 || n_dims > MAX_DIMS)
        return err_set(e, ERR_MODEL, "%s: tensor %.*s has %u dimensions; expected 1 to %d", g->name, shown(t->name),
                       t->name.p, n_dims, MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < n_dims; i++)
        t->dims[i] = rbuf_u64(r);
    t->ggml_type = rbuf_u32(r);
    t->dtype = dtype_of(t->ggml_type);
    *offset = rbuf_u64(r);
    if (r->bad)
        return 0;
    if (*offset % alignment != 0 || *offset > SIZE_MAX / 4)
        return err_set(e, ERR_MODEL, "%s: tensor %.*s has the impossible offset %llu (alignment %zu)", g->name,
                       shown(t->name), t->name.p, (unsigned long long)*offset, alignment);
    return read_size(t, &t->n_bytes, g->name, e);
}

struct extent {
    uint64_t begin;
    const struct gguf_tensor *t;
};

static int by_begin(const void *a, const void *b) {
    const struct extent *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* offset[i] is that of t[i]: to be called before t is sorted. */
static int check_overlap(const struct gguf *g, struct err *e) {
    struct extent *x = calloc(g->n_t + 1, sizeof *x);
    if (!x)
        return err_set(e, ERR_MEMORY, "out of memory reading the tensors of %s", g->name);
    int rc = 0;
    for (size_t i = 0; i < g->n_t; i++)
        x[i] = (struct extent){g->offset[i], &g->t[i]};
    qsort(x, g->n_t, sizeof *x, by_begin);
    for (size_t i = 1; i < g->n_t && rc == 0; i++)
        if (x[i].begin - x[i - 1].begin < x[i - 1].t->n_bytes)
            rc = err_set(e, ERR_MODEL, "%s: tensors %.*s and %.*s overlap in the file", g->name,
                         shown(x[i - 1].t->name), x[i - 1].t->name.p, shown(x[i].t->name), x[i].t->name.p);
    free(x);
    return rc;
}

static int read_all_tensors(struct gguf *g, struct rbuf *r, uint64_t n, size_t alignment, struct err *e) {
    g->t = calloc((size_t)n + 1, sizeof *g->t);
    g->offset = calloc((size_t)n + 1, sizeof *g->offset);
    if (!g->t || !g->offset)
        return err_set(e, ERR_MEMORY, "out of memory reading the tensors of %s", g->name);
    for (uint64_t i = 0; i < n; i++) {
        if (read_tensor(g, r, &g->t[i], &g->offset[i], alignment, e) != 0)
            return -1;
        if (r->bad)
            return err_set(e, ERR_MODEL,
                           "%s: the file ends (or lies about a length) in tensor entry %llu of %llu; it is "
                           "truncated or damaged",
                           g->name, (unsigned long long)i + 1, (unsigned long long)n);
    }
    g->n_t = (size_t)n;
    if (check_overlap(g, e) != 0)
        return -1;

    size_t data = r->off + (alignment - r->off % alignment) % alignment;
    for (size_t i = 0; i < g->n_t; i++) {
        struct gguf_tensor *t = &g->t[i];
        bool inside = data <= r->n && g->offset[i] <= r->n - data && t->n_bytes <= r->n - data - g->offset[i];
        t->data = inside ? r->p + data + g->offset[i] : NULL;
        if (t->dtype == DT_COUNT)
            t->n_bytes = 0;
    }
    qsort(g->t, g->n_t, sizeof *g->t, by_name);
    for (size_t i = 1; i < g->n_t; i++)
        if (by_name(&g->t[i - 1], &g->t[i]) == 0)
            return err_set(e, ERR_MODEL, "%s: tensor %.*s stands twice in the file", g->name, shown(g->t[i].name),
                           g->t[i].name.p);
    return 0;
}

/* ---- the file ---- */

static int read_version(struct rbuf *r, const char *name, struct err *e) {
    uint32_t magic = rbuf_u32(r), version = rbuf_u32(r);
    if (r->bad)
        return err_set(e, ERR_MODEL, "%s: %zu bytes are too few for a GGUF file; it is truncated", name, r->n);
    if (magic != 0x46554747u)
        return err_set(e, ERR_MODEL, "%s: not a GGUF file (it does not begin with the letters GGUF)", name);
    if ((version & 0xffff) == 0 && version != 0)
        return err_set(e, ERR_MODEL, "%s: a big-endian GGUF file, which is not supported; convert it to little-endian",
                       name);
    if (version != 2 && version != 3)
        return err_set(e, ERR_MODEL, "%s: GGUF version %u; supported are 2 and 3", name, version);
    return 0;
}

static int read_alignment(const struct gguf *g, size_t *alignment, struct err *e) {
    uint64_t v = DEFAULT_ALIGNMENT;
    struct kv key = {.key = {"general.alignment", 17}};
    bool has = bsearch(&key, g->kv, g->n_kv, sizeof *g->kv, by_key) != NULL;
    if (has && (!gguf_u64(g, "general.alignment", &v) || v == 0 || (v & (v - 1)) != 0 || v > MAX_ALIGNMENT))
        return err_set(e, ERR_MODEL, "%s: general.alignment is not a power of two of at most %d", g->name,
                       MAX_ALIGNMENT);
    *alignment = (size_t)v;
    return 0;
}

static int read_file(struct gguf *g, struct rbuf *r, struct err *e) {
    if (read_version(r, g->name, e) != 0)
        return -1;
    uint64_t n_t = rbuf_u64(r), n_kv = rbuf_u64(r);
    /* The shortest entries: 8 + 1 + 4 + 1 bytes of metadata, 8 + 1 + 4 + 8 + 4 + 8 of a tensor. */
    if (r->bad || n_kv > MAX_KV || n_kv > rbuf_left(r) / 14 || n_t > MAX_TENSORS || n_t > rbuf_left(r) / 33)
        return err_set(e, ERR_MODEL,
                       "%s: %llu metadata entries and %llu tensors do not go into %zu bytes; the file is "
                       "truncated or damaged",
                       g->name, (unsigned long long)n_kv, (unsigned long long)n_t, r->n);
    size_t alignment = DEFAULT_ALIGNMENT;
    if (read_all_kv(g, r, n_kv, e) != 0 || read_alignment(g, &alignment, e) != 0)
        return -1;
    return read_all_tensors(g, r, n_t, alignment, e);
}

int gguf_parse(struct gguf **out, const uint8_t *p, size_t n, const char *name, struct err *e) {
    *out = NULL;
    struct gguf *g = calloc(1, sizeof *g);
    char *copy = strdup(name);
    if (!g || !copy) {
        free(g);
        free(copy);
        return err_set(e, ERR_MEMORY, "out of memory opening %s", name);
    }
    g->name = copy;
    struct rbuf r = rbuf_of(p, n);
    int rc = read_file(g, &r, e);
    free(g->offset);
    g->offset = NULL;
    if (rc != 0) {
        gguf_free(g);
        return -1;
    }
    *out = g;
    return 0;
}

void gguf_free(struct gguf *g) {
    if (!g)
        return;
    free((char *)(uintptr_t)g->name);
    free(g->kv);
    free(g->t);
    free(g);
}

const char *gguf_name(const struct gguf *g) {
    return g->name;
}

/* ---- access ---- */

static const struct kv *find(const struct gguf *g, const char *key) {
    struct kv k = {.key = {key, strlen(key)}};
    return bsearch(&k, g->kv, g->n_kv, sizeof *g->kv, by_key);
}

static bool is_signed(enum gguf_type t) {
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

static bool is_unsigned(enum gguf_type t) {
    return t == GGUF_U8 || t == GGUF_U16 || t == GGUF_U32 || t == GGUF_U64;
}

/* An integer of scalar_bytes[t] bytes, sign-extended when the type is signed. */
static int64_t load_int(enum gguf_type t, const uint8_t *p) {
    size_t n = scalar_bytes[t];
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    if (is_signed(t) && n > 0 && n < 8 && v >> (8 * n - 1))
        v |= UINT64_MAX << (8 * n);
    return (int64_t)v;
}

static double load_float(enum gguf_type t, const uint8_t *p) {
    struct rbuf r = rbuf_of(p, scalar_bytes[t]);
    return t == GGUF_F32 ? (double)rbuf_f32(&r) : rbuf_f64(&r);
}

bool gguf_u64(const struct gguf *g, const char *key, uint64_t *v) {
    const struct kv *k = find(g, key);
    if (!k || (!is_signed(k->type) && !is_unsigned(k->type)))
        return false;
    int64_t i = load_int(k->type, k->p);
    if (is_signed(k->type) && i < 0)
        return false;
    *v = (uint64_t)i;
    return true;
}

bool gguf_f64(const struct gguf *g, const char *key, double *v) {
    const struct kv *k = find(g, key);
    if (!k)
        return false;
    if (k->type == GGUF_F32 || k->type == GGUF_F64)
        *v = load_float(k->type, k->p);
    else if ((is_signed(k->type) || is_unsigned(k->type)) && scalar_bytes[k->type] < 8)
        *v = (double)load_int(k->type, k->p);
    else
        return false;
    return true;
}

bool gguf_bool(const struct gguf *g, const char *key, bool *v) {
    const struct kv *k = find(g, key);
    if (!k || k->type != GGUF_BOOL)
        return false;
    *v = *k->p != 0;
    return true;
}

bool gguf_string(const struct gguf *g, const char *key, struct gguf_str *v) {
    const struct kv *k = find(g, key);
    if (!k || k->type != GGUF_STR)
        return false;
    *v = (struct gguf_str){(const char *)k->p, k->n_bytes};
    return true;
}

bool gguf_arr(const struct gguf *g, const char *key, struct gguf_array *v) {
    const struct kv *k = find(g, key);
    if (!k || k->type != GGUF_ARR)
        return false;
    *v = k->array;
    return true;
}

bool gguf_raw(const struct gguf *g, const char *key, struct gguf_raw *v) {
    const struct kv *k = find(g, key);
    if (!k)
        return false;
    if (k->type == GGUF_STR)
        *v = (struct gguf_raw){k->type, k->p - 8, 8 + k->n_bytes};
    else if (k->type == GGUF_ARR)
        *v = (struct gguf_raw){k->type, k->array.p - 12, 12 + k->array.n_bytes};
    else
        *v = (struct gguf_raw){k->type, k->p, scalar_bytes[k->type]};
    return true;
}

bool gguf_arr_next_str(const struct gguf_array *a, size_t *off, struct gguf_str *v) {
    if (a->type != GGUF_STR || *off >= a->n_bytes)
        return false;
    struct rbuf r = rbuf_of(a->p, a->n_bytes);
    rbuf_skip(&r, *off);
    *v = read_str(&r);
    *off = r.off;
    return !r.bad;
}

double gguf_arr_f64(const struct gguf_array *a, uint64_t i) {
    const uint8_t *p = a->p + (size_t)i * scalar_bytes[a->type];
    if (a->type == GGUF_F32 || a->type == GGUF_F64)
        return load_float(a->type, p);
    if (a->type == GGUF_U64)
        return (double)(uint64_t)load_int(a->type, p);
    return a->type == GGUF_STR ? 0.0 : (double)gguf_arr_i64(a, i);
}

int64_t gguf_arr_i64(const struct gguf_array *a, uint64_t i) {
    const uint8_t *p = a->p + (size_t)i * scalar_bytes[a->type];
    if (a->type == GGUF_STR)
        return 0;
    if (a->type == GGUF_BOOL)
        return *p != 0;
    if (a->type == GGUF_F32 || a->type == GGUF_F64) {
        double d = load_float(a->type, p);
        return d >= -9e18 && d <= 9e18 ? (int64_t)d : 0; /* NaN fails both */
    }
    return load_int(a->type, p);
}

uint64_t gguf_n_tensors(const struct gguf *g) {
    return g->n_t;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i) {
    return &g->t[i];
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, const char *name) {
    struct gguf_tensor k = {.name = {name, strlen(name)}};
    return bsearch(&k, g->t, g->n_t, sizeof *g->t, by_name);
}
