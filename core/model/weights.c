#include "core/model/weights.h"

#include "core/base/file.h"
#include "core/model/gguf.h"
#include "core/model/names.h"
#include "core/model/random.h"
#include "core/model/shards.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_CONFIG = 4 << 20 }; /* bytes of a config.json */

static const char random_prefix[] = "random:";

struct weights {
    char *path;
    struct model_config config;
    /* One of three is set up: */
    struct shards *shards;
    struct gguf *gguf;
    struct random_model random;
    struct file_map gguf_map;
};

/* ---- opening ---- */

static int open_hf(struct weights *w, const char *dir, const char *config_path, struct err *e) {
    char path[PATH_MAX], *config = NULL, *generation = NULL;
    size_t n = 0, n_generation = 0;
    int rc = -1;
    if (file_join(path, sizeof path, dir, "generation_config.json", e) != 0 ||
        file_read(config_path, MAX_CONFIG, &config, &n, e) != 0)
        goto out;
    if (file_exists(path) && file_read(path, MAX_CONFIG, &generation, &n_generation, e) != 0)
        goto out;
    if (config_from_json(&w->config, config, n, generation, n_generation, dir, e) != 0)
        goto out;
    rc = shards_open(&w->shards, dir, e);
out:
    free(config);
    free(generation);
    return rc;
}

static int open_gguf(struct weights *w, const char *path, struct err *e) {
    if (file_map(&w->gguf_map, path, e) != 0)
        return -1;
    size_t n = strlen(path);
    bool called_gguf = n >= 5 && strcmp(path + n - 5, ".gguf") == 0;
    if (!called_gguf && (w->gguf_map.n < 4 || memcmp(w->gguf_map.p, "GGUF", 4) != 0))
        return err_set(
            e, ERR_MODEL,
            "%s: not a model; expected a Hugging Face directory (config.json and *.safetensors), a .gguf file, or "
            "random:NAME",
            path);
    if (gguf_parse(&w->gguf, w->gguf_map.p, w->gguf_map.n, path, e) != 0)
        return -1;
    return config_from_gguf(&w->config, w->gguf, e);
}

/* A directory without a config.json: fine when it holds one GGUF file and nothing to choose from. */
static int open_lone_gguf(struct weights *w, const char *dir, struct err *e) {
    char path[PATH_MAX] = "";
    int n = 0, rc = 0;
    DIR *d = opendir(dir);
    if (!d)
        return err_sys(e, errno, "cannot read the directory %s", dir);
    for (struct dirent *en; rc == 0 && (en = readdir(d));) {
        size_t len = strlen(en->d_name);
        if (len > 5 && strcmp(en->d_name + len - 5, ".gguf") == 0 && n++ == 0)
            rc = file_join(path, sizeof path, dir, en->d_name, e);
    }
    closedir(d);
    if (rc != 0)
        return -1;
    if (n == 0)
        return err_set(e, ERR_MODEL,
                       "%s: no model here: expected config.json with *.safetensors beside it, or a .gguf file", dir);
    if (n > 1)
        return err_set(e, ERR_MODEL, "%s: holds %d .gguf files; give the path of one of them, such as %.200s", dir, n,
                       path);
    return open_gguf(w, path, e);
}

static int open_path(struct weights *w, const char *path, struct err *e) {
    struct stat st;
    if (strncmp(path, random_prefix, sizeof random_prefix - 1) == 0) {
        if (random_model_parse(&w->random, path + sizeof random_prefix - 1, e) != 0)
            return -1;
        w->config = w->random.config;
        return 0;
    }
    if (stat(path, &st) != 0)
        return err_sys(e, errno, "no model at %s", path);
    if (!S_ISDIR(st.st_mode))
        return open_gguf(w, path, e);
    char config[PATH_MAX];
    if (file_join(config, sizeof config, path, "config.json", e) != 0)
        return -1;
    return file_exists(config) ? open_hf(w, path, config, e) : open_lone_gguf(w, path, e);
}

int weights_open(struct weights **out, const char *path, struct err *e) {
    *out = NULL;
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return err_set(e, ERR_MEMORY, "out of memory opening %s", path);
    }
    if (open_path(w, path, e) != 0) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *w) {
    if (!w)
        return;
    shards_free(w->shards);
    gguf_free(w->gguf);
    file_unmap(&w->gguf_map);
    config_free(&w->config);
    free(w->path);
    free(w);
}

const struct model_config *weights_config(const struct weights *w) {
    return &w->config;
}

const char *weights_path(const struct weights *w) {
    return w->path;
}

const struct gguf *weights_gguf(const struct weights *w) {
    return w->gguf;
}

/* ---- finding ---- */

static int missing(const struct weights *w, const char *name, struct err *e) {
    return err_set(e, ERR_MODEL, "%s: has no tensor %.95s", w->path, name);
}

/* Checks dims, outermost first, against rows x cols. */
static int check_shape(const struct tensor *t, const uint64_t *dims, int n_dims, const char *file, struct err *e) {
    if (n_dims == 2 && dims[0] == t->rows && dims[1] == t->cols)
        return 0;
    if (n_dims == 1 && t->rows == 1 && dims[0] == t->cols)
        return 0;
    char shape[100] = "a scalar";
    for (int i = 0, at = 0; i < n_dims && i < 4; i++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%llu", i ? " x " : "", (unsigned long long)dims[i]);
    char expected[32];
    snprintf(expected, sizeof expected, t->rows == 1 ? "%u" : "%u x %u", t->rows == 1 ? t->cols : t->rows, t->cols);
    return err_set(e, ERR_MODEL, "%s: tensor %s has the shape %s%s; expected %s", file, t->name, shape,
                   n_dims > 4 ? " x ..." : "", expected);
}

static int get_shard(struct weights *w, struct tensor *t, struct err *e) {
    struct shard_tensor s;
    int found = shards_find(w->shards, t->name, &s, e);
    if (found < 0)
        return -1;
    if (found == 0)
        return missing(w, t->name, e);
    if (s.t->dtype == DT_COUNT)
        return err_set(e, ERR_MODEL,
                       "%s: tensor %s is of dtype %s, which is not supported; supported are F32, F16, BF16", s.file,
                       t->name, s.t->dtype_name);
    if (check_shape(t, s.t->dims, s.t->n_dims, s.file, e) != 0)
        return -1;
    if (!s.data)
        return err_set(
            e, ERR_MODEL,
            "%s: tensor %s would lie at bytes %zu to %zu, but the file ends at %zu; it is truncated, fetch it "
            "again",
            s.file, t->name, s.t->begin, s.t->begin + s.t->n_bytes, s.file_size);
    t->dtype = s.t->dtype;
    t->data = s.data;
    return 0;
}

static int get_gguf(struct weights *w, struct tensor *t, struct err *e) {
    struct tensor_info info;
    if (!names_find(&w->config, t->name, &info))
        return missing(w, t->name, e);
    const struct gguf_tensor *g = gguf_tensor(w->gguf, info.gguf);
    if (!g)
        return err_set(e, ERR_MODEL, "%s: has no tensor %s (%s)", gguf_name(w->gguf), info.gguf, t->name);
    if (g->dtype == DT_COUNT)
        return err_set(
            e, ERR_MODEL,
            "%s: tensor %s is of type %s (%u), which is not supported; supported are f32, f16, bf16, q8_0, q4_0, "
            "q4_K, q6_K",
            gguf_name(w->gguf), info.gguf, gguf_ggml_type_name(g->ggml_type), g->ggml_type);
    uint64_t dims[4];
    for (int i = 0; i < g->n_dims; i++)
        dims[i] = g->dims[g->n_dims - 1 - i];
    if (check_shape(t, dims, g->n_dims, gguf_name(w->gguf), e) != 0)
        return -1;
    if (!g->data)
        return err_set(e, ERR_MODEL,
                       "%s: tensor %s (%zu bytes) lies behind the end of the file at %zu; it is truncated, fetch "
                       "it again",
                       gguf_name(w->gguf), info.gguf, g->n_bytes, w->gguf_map.n);
    t->dtype = g->dtype;
    t->data = g->data;
    if (w->config.family == FAMILY_LLAMA)
        t->permute_heads = info.heads;
    if (t->permute_heads && t->rows == 1 && dtype_info(t->dtype)->block != 1)
        return err_set(e, ERR_MODEL, "%s: tensor %s is a bias of type %s; expected f32, f16 or bf16",
                       gguf_name(w->gguf), info.gguf, dtype_info(t->dtype)->name);
    return 0;
}

static int get_random(struct weights *w, struct tensor *t, struct err *e) {
    struct tensor_info info;
    if (!names_find(&w->config, t->name, &info))
        return missing(w, t->name, e);
    uint64_t dims[2] = {info.rows, info.cols};
    if (check_shape(t, dims, 2, w->path, e) != 0)
        return -1;
    t->dtype = DT_BF16;
    t->key = random_tensor_key(&w->random, t->name);
    t->scale = random_tensor_scale(&w->random, t->name);
    return 0;
}

int weights_get(struct weights *w, const char *name, uint32_t rows, uint32_t cols, struct tensor *t, struct err *e) {
    *t = (struct tensor){.rows = rows, .cols = cols};
    if (strlen(name) >= sizeof t->name)
        return missing(w, name, e);
    memcpy(t->name, name, strlen(name) + 1);
    int rc = w->shards ? get_shard(w, t, e) : w->gguf ? get_gguf(w, t, e) : get_random(w, t, e);
    if (rc != 0)
        return -1;
    t->row_bytes = dtype_row_bytes(t->dtype, cols);
    return 0;
}

bool weights_has(const struct weights *w, const char *name) {
    struct tensor_info info;
    if (w->shards)
        return shards_has(w->shards, name);
    if (!names_find(&w->config, name, &info))
        return false;
    return !w->gguf || gguf_tensor(w->gguf, info.gguf);
}

bool weights_file_there(const struct weights *w, const char *name) {
    return w->shards ? shards_file_there(w->shards, name) : weights_has(w, name);
}

/* ---- rows ---- */

/* Where HF's row r of a q or k projection stands in a llama GGUF: HF keeps a head's first halves before its second
 * halves, GGUF keeps each rotary pair together. n is the rows of a head. */
static uint32_t interleaved(uint32_t r, uint32_t n) {
    uint32_t head = r / n * n, i = r - head, half = n / 2;
    return head + (i < half ? 2 * i : 2 * (i - half) + 1);
}

const void *tensor_row(const struct tensor *t, uint32_t row, void *scratch) {
    if (!t->data) {
        random_row(t->key, t->scale, row, scratch, t->cols);
        return scratch;
    }
    size_t elem = (size_t)dtype_info(t->dtype)->block_bytes;
    if (t->permute_heads && t->rows == 1) { /* a bias: its elements are the rows */
        for (uint32_t i = 0; i < t->cols; i++)
            memcpy((uint8_t *)scratch + i * elem, t->data + interleaved(i, t->cols / t->permute_heads) * elem, elem);
        return scratch;
    }
    if (t->permute_heads)
        row = interleaved(row, t->rows / t->permute_heads);
    const uint8_t *p = t->data + (size_t)row * t->row_bytes;
    /* Files may place a tensor at any byte; whoever reads the row may load whole elements. */
    size_t align = t->dtype == DT_F32 ? 4 : 2;
    return (uintptr_t)p % align == 0 ? p : memcpy(scratch, p, t->row_bytes);
}

void tensor_will_need(const struct tensor *t, uint32_t lo, uint32_t hi) {
    if (!t->data || lo >= hi)
        return;
    if (t->permute_heads && t->rows > 1) { /* the rows of a head are mixed */
        uint32_t n = t->rows / t->permute_heads;
        lo = lo / n * n;
        hi = (hi + n - 1) / n * n;
    }
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)(t->data + (size_t)lo * t->row_bytes), to = from + (size_t)(hi - lo) * t->row_bytes;
    from = from / page * page;
    madvise((void *)from, to - from, MADV_WILLNEED); /* only a hint */
}

void tensor_done(const struct tensor *t) {
    if (!t->data)
        return;
    /* Whole pages only: the others hold bytes of the neighbours. The pages are clean and stay in the page cache, so
     * a later read costs a minor fault and nothing else. */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)t->data + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)t->data + (size_t)t->rows * t->row_bytes) / page * page;
    if (from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
}
