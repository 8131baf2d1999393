/* What a process that holds layers [lo, hi) reads of a model's files: nothing of the embedding, of other layers or of
 * the head, even where all of it lies in the same file. */
#include "core/base/file.h"
#include "core/model/names.h"
#include "net/fingerprint.h"
#include "test/unit/layer_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FAMILIES "test/models/families/"

/* One safetensors file, shards, GGUF; tied and untied heads. tiny is the largest: its tensors span many pages. */
static const char *const models[] = {"test/models/tiny",      FAMILIES "llama2",     FAMILIES "llama32",
                                     FAMILIES "qwen2-swa",    FAMILIES "gguf-k",     FAMILIES "gguf-llama",
                                     FAMILIES "gguf-llama32", FAMILIES "gguf-qwen2", FAMILIES "gguf-qwen3"};
enum { N_MODELS = sizeof models / sizeof *models, ROWS = 12 };

static const char *const ends[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};

typedef void (*tensor_fn)(void *ctx, const char *name, const struct tensor *t);

/* Calls fn for every tensor of w; what the layers [lo, hi) need comes with middle, the rest without. */
static int each_tensor(struct weights *w, int lo, int hi, tensor_fn middle, tensor_fn other, void *ctx) {
    const struct model_config *c = weights_config(w);
    char name[NAMES_MAX];
    int n = 0;
    for (int l = 0; l <= c->n_layers; l++)
        for (int i = 0;; i++) {
            struct tensor_info info;
            struct tensor t;
            struct err e = {0};
            if (l == c->n_layers ? i == 3 : !names_of_layer(c, l, i, name))
                break;
            if (l == c->n_layers)
                snprintf(name, sizeof name, "%s", ends[i]);
            tensor_fn fn = l >= lo && l < hi ? middle : other;
            if (!names_find(c, name, &info) || !fn)
                continue;
            cr_assert_eq(weights_get(w, name, info.rows, info.cols, &t, &e), 0, "%s", e.msg);
            fn(ctx, name, &t);
            n++;
        }
    return n;
}

static float *middle_of(struct weights *w, int lo, int hi, float *x) {
    const struct layer_run r = {.kv_type = DT_F16, .lo = lo, .hi = hi, .n_rows = ROWS};
    layer_noise(x, (size_t)ROWS * (size_t)weights_config(w)->hidden, 3);
    return layer_run(w, &r, x);
}

/* Bytes of a run of layers, to compare. */
static size_t run_bytes(struct weights *w, int lo, int hi) {
    return (size_t)(hi - lo + 1) * ROWS * (size_t)weights_config(w)->hidden * sizeof(float);
}

/* ---- pages that must not be touched ---- */

struct fence {
    size_t pages;
};

/* Whole pages inside the tensor; those at its ends hold bytes of its neighbours. A read of them ends the process. */
static void forbid(void *ctx, const char *name, const struct tensor *t) {
    struct fence *f = ctx;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)t->data + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)t->data + (size_t)t->rows * t->row_bytes) / page * page;
    if (from >= to)
        return;
    cr_assert_eq(mprotect((void *)from, to - from, PROT_NONE), 0, "%s", name);
    f->pages += (to - from) / page;
}

Test(part, no_page_of_the_rest_is_read) {
    for (int m = 0; m < N_MODELS; m++) {
        struct weights *plain = layer_open(models[m]), *fenced = layer_open(models[m]);
        const int n = weights_config(plain)->n_layers, lo = 1, hi = n - 1;
        float *x = malloc(run_bytes(plain, lo, lo));
        struct fence f = {0};
        struct err e = {0};
        struct wire_hello a, b;
        cr_assert_gt(each_tensor(fenced, lo, hi, NULL, forbid, &f), 10, "%s", models[m]);
        cr_assert_gt(f.pages, 3, "%s: %zu pages are fenced off", models[m], f.pages);
        float *want = middle_of(plain, lo, hi, x), *got = middle_of(fenced, lo, hi, x);
        cr_assert(memcmp(want, got, run_bytes(plain, lo, hi)) == 0, "%s", models[m]);
        cr_assert_eq(fingerprint_hello(plain, lo, hi, &a, &e), 0, "%s", e.msg);
        cr_assert_eq(fingerprint_hello(fenced, lo, hi, &b, &e), 0, "%s", e.msg);
        cr_assert(memcmp(a.weights, b.weights, sizeof a.weights) == 0);
        free(want);
        free(got);
        free(x);
        weights_close(fenced);
        weights_close(plain);
    }
}

/* The fence is one: whoever loads one layer more runs into it. */
Test(part, the_fence_holds, .signal = SIGSEGV) {
    struct weights *w = layer_open("test/models/tiny");
    struct fence f = {0};
    signal(SIGSEGV, SIG_DFL); /* AddressSanitizer has a handler of its own */
    each_tensor(w, 1, 3, NULL, forbid, &f);
    float *x = malloc(run_bytes(w, 0, 0));
    free(middle_of(w, 1, 4, x));
}

/* ---- bytes that must not matter ---- */

/* Copies the files of a model to dir and opens the copy. */
static struct weights *copy_model(const char *model, char dir[64]) {
    static const char *const files[] = {"config.json",
                                        "model.gguf",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    scratch_make(dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[200];
        size_t n;
        snprintf(path, sizeof path, "%s/%s", model, files[i]);
        if (!file_exists(path))
            continue;
        char *p = load_file(path, &n);
        store_file(dir, files[i], p, n);
        free(p);
    }
    return layer_open(dir);
}

struct place {
    char file[300];
    off_t at;
    size_t n;
};

/* Where in which file memory lies, by the process's own map. */
static struct place place_of(const void *p, size_t n) {
    char line[500];
    struct place x = {.n = n};
    FILE *f = fopen("/proc/self/maps", "r");
    cr_assert(f != NULL);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to, off;
        char path[300] = "";
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %299[^\n]", &from, &to, &off, path) == 4 && (uintptr_t)p >= from &&
            (uintptr_t)p < to) {
            snprintf(x.file, sizeof x.file, "%s", path);
            x.at = (off_t)(off + ((uintptr_t)p - from));
        }
    }
    fclose(f);
    cr_assert(x.file[0] == '/');
    return x;
}

struct damage {
    uint64_t seed;
    size_t n_bytes;
};

static void overwrite(void *ctx, const char *name, const struct tensor *t) {
    struct damage *d = ctx;
    const struct place x = place_of(t->data, (size_t)t->rows * t->row_bytes);
    int fd = open(x.file, O_WRONLY | O_CLOEXEC);
    uint8_t *garbage = malloc(x.n);
    cr_assert(fd >= 0 && garbage, "%s", name);
    for (size_t i = 0; i < x.n; i++)
        garbage[i] = (uint8_t)noise(&d->seed);
    cr_assert_eq(pwrite(fd, garbage, x.n, x.at), (ssize_t)x.n);
    free(garbage);
    close(fd);
    d->n_bytes += x.n;
}

Test(part, garbage_elsewhere_changes_nothing) {
    for (int m = 0; m < N_MODELS; m++) {
        char dir[64];
        struct damage d = {.seed = 5};
        struct weights *plain = layer_open(models[m]), *w = copy_model(models[m], dir);
        const int n = weights_config(plain)->n_layers, lo = 1, hi = n - 1;
        float *x = malloc(run_bytes(plain, lo, lo));
        each_tensor(w, lo, hi, NULL, overwrite, &d);
        cr_assert_gt(d.n_bytes, 10000);
        weights_close(w);
        w = layer_open(dir);
        float *want = middle_of(plain, lo, hi, x), *got = middle_of(w, lo, hi, x);
        cr_assert(memcmp(want, got, run_bytes(plain, lo, hi)) == 0, "%s", models[m]);
        free(got);
        /* With a tensor of the middle it is not so. */
        struct damage more = {.seed = 6};
        struct tensor t;
        struct tensor_info info;
        struct err e = {0};
        names_find(weights_config(w), "model.layers.1.mlp.up_proj.weight", &info);
        cr_assert_eq(weights_get(w, "model.layers.1.mlp.up_proj.weight", info.rows, info.cols, &t, &e), 0, "%s", e.msg);
        overwrite(&more, t.name, &t);
        got = middle_of(w, lo, hi, x);
        cr_assert(memcmp(want, got, run_bytes(plain, lo, hi)) != 0, "%s", models[m]);
        free(want);
        free(got);
        free(x);
        weights_close(w);
        weights_close(plain);
        scratch_remove(dir);
    }
}

struct end_of {
    struct place last; /* of the middle, in the file that is looked at */
};

static void find_end(void *ctx, const char *name, const struct tensor *t) {
    struct end_of *x = ctx;
    const struct place p = place_of(t->data, (size_t)t->rows * t->row_bytes);
    (void)name;
    if (p.at + (off_t)p.n > x->last.at + (off_t)x->last.n)
        x->last = p;
}

/* A file that ends behind the last tensor of the middle, whatever should have come then. */
Test(part, a_file_cut_off_behind_the_middle) {
    int cut = 0;
    for (int m = 0; m < N_MODELS; m++) {
        char dir[64];
        struct weights *plain = layer_open(models[m]), *w = copy_model(models[m], dir);
        /* Files differ in the order of their tensors: whatever lies behind these layers goes. */
        const int n = weights_config(plain)->n_layers, lo = 0, hi = n - 1;
        struct end_of x = {0};
        if (strstr(models[m], "qwen2-swa")) { /* shards: the others go altogether */
            char path[100];
            snprintf(path, sizeof path, "%s/model-00003-of-00003.safetensors", dir);
            weights_close(w);
            cr_assert_eq(remove(path), 0);
            w = layer_open(dir);
            float *in = malloc(run_bytes(plain, 0, 0));
            float *want = middle_of(plain, 0, 1, in), *got = middle_of(w, 0, 1, in);
            cr_assert(memcmp(want, got, run_bytes(plain, 0, 1)) == 0);
            free(want);
            free(got);
            free(in);
            cut++;
        } else {
            each_tensor(w, lo, hi, find_end, NULL, &x);
            weights_close(w);
            struct file_map map;
            struct err e = {0};
            cr_assert_eq(file_map(&map, x.last.file, &e), 0, "%s", e.msg);
            const size_t size = map.n;
            file_unmap(&map);
            cr_assert_eq(truncate(x.last.file, x.last.at + (off_t)x.last.n), 0);
            cut += (size_t)x.last.at + x.last.n < size;
            w = layer_open(dir);
            float *in = malloc(run_bytes(plain, 0, 0));
            float *want = middle_of(plain, lo, hi, in), *got = middle_of(w, lo, hi, in);
            cr_assert(memcmp(want, got, run_bytes(plain, lo, hi)) == 0, "%s", models[m]);
            free(want);
            free(got);
            free(in);
        }
        weights_close(w);
        weights_close(plain);
        scratch_remove(dir);
    }
    cr_assert_gt(cut, N_MODELS / 2, "%d files had something behind the middle", cut);
}

/* ---- what gets into memory at all ---- */

/* Pages of [from, to) of a file that are in memory, in bytes. */
static size_t resident(const char *path, size_t from, size_t to) {
    struct file_map m;
    struct err e = {0};
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
    cr_assert_eq(file_map(&m, path, &e), 0, "%s", e.msg);
    to = to < m.n ? to : m.n;
    from = from / page * page;
    size_t pages = (to - from + page - 1) / page;
    unsigned char *v = malloc(pages);
    cr_assert_eq(mincore((void *)(uintptr_t)(m.p + from), to - from, v), 0);
    for (size_t i = 0; i < pages; i++)
        n += (v[i] & 1) * page;
    free(v);
    file_unmap(&m);
    return n;
}

#define WIDE_CONFIG                                                                                                    \
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":512,"                          \
    "\"intermediate_size\":512,\"num_hidden_layers\":3,\"num_attention_heads\":8,\"num_key_value_heads\":8,"           \
    "\"vocab_size\":262144,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"              \
    "\"tie_word_embeddings\":false}"

static size_t add_entry(struct wbuf *h, const char *name, size_t rows, size_t cols, size_t off) {
    const size_t n = rows * cols * 2;
    wbuf_fmt(h, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", off ? "," : "{", name);
    if (rows > 1)
        wbuf_fmt(h, "%zu,", rows);
    wbuf_fmt(h, "%zu],\"data_offsets\":[%zu,%zu]}", cols, off, off + n);
    return off + n;
}

/* Half a gigabyte of embedding and head that nobody has written, between them three layers with a hole on both sides of
 * the one in the middle: what is in memory afterwards is what was read, and what the kernel read around it. */
Test(part, the_rest_is_never_resident) {
    enum { HOLE = 64 << 20, FEW = 32 << 20 };
    char dir[64], path[100], name[NAMES_MAX];
    struct wbuf h = {0}, w = {0};
    struct model_config c;
    struct err e = {0};
    size_t off = 0, begin[4] = {0}, end[4] = {0};
    cr_assert_eq(config_from_json(&c, WIDE_CONFIG, strlen(WIDE_CONFIG), NULL, 0, "test", &e), 0, "%s", e.msg);
    scratch_make(dir);
    store_text(dir, "config.json", WIDE_CONFIG);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    off = add_entry(&h, ends[0], (size_t)c.vocab, (size_t)c.hidden, off);
    for (int l = 0; l < 3; l++) {
        snprintf(name, sizeof name, "hole.%d", l);
        off = add_entry(&h, name, 1, HOLE / 2, off);
        begin[l] = off;
        for (int i = 0; names_of_layer(&c, l, i, name); i++) {
            struct tensor_info info;
            names_find(&c, name, &info);
            off = add_entry(&h, name, info.rows, info.cols, off);
        }
        end[l] = off;
    }
    off = add_entry(&h, "hole.3", 1, HOLE / 2, off);
    off = add_entry(&h, ends[1], 1, (size_t)c.hidden, off);
    off = add_entry(&h, ends[2], (size_t)c.vocab, (size_t)c.hidden, off);
    wbuf_str(&h, "}");
    st_build(&w, wbuf_cstr(&h), 0);
    store_file(dir, "model.safetensors", w.p, w.n);
    const size_t data = w.n;
    wbuf_free(&h);
    wbuf_free(&w);
    config_free(&c);
    if (truncate(path, (off_t)(data + off)) != 0) {
        scratch_remove(dir);
        cr_skip_test("SKIP: this file system cannot hold a sparse file of %zu bytes", data + off);
    }
    struct weights *m = layer_open(dir);
    float *x = malloc(run_bytes(m, 0, 0));
    free(middle_of(m, 1, 2, x));
    free(x);
    size_t middle = resident(path, data + begin[1], data + end[1]);
    cr_assert_geq(middle, end[1] - begin[1] - 2 * 65536, "the middle was read: %zu of %zu bytes", middle,
                  end[1] - begin[1]);
    cr_assert_eq(resident(path, data + FEW, data + end[0]), 0, "nothing of the embedding and the first layer");
    cr_assert_eq(resident(path, data + begin[2], SIZE_MAX), 0, "nor of the last layer, the norm and the head");
    weights_close(m);
    scratch_remove(dir);
}
