/* Tensors by name out of every kind of model: right values, bounds, laziness, and clear refusals. */
#include "core/base/file.h"
#include "core/model/gguf.h"
#include "core/model/names.h"
#include "core/model/safetensors.h"
#include "core/model/weights.h"
#include "loading.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAMILIES "test/models/families/"

static struct weights *opened(const char *path) {
    struct weights *w;
    struct err e = {0};
    cr_assert_eq(weights_open(&w, path, &e), 0, "%s", e.msg);
    cr_assert_str_eq(weights_path(w), path);
    return w;
}

static void not_opened(const char *path, enum err_kind kind, const char *one, const char *two) {
    struct weights *w;
    struct err e = {0};
    cr_assert_eq(weights_open(&w, path, &e), -1, "%s", path);
    cr_assert_null(w);
    expect_err(&e, kind, one, two, NULL);
}

/* ---- values ---- */

/* Every tensor of a GGUF file equals, bit for bit, what the gguf package dequantises and puts into HF's order. */
Test(weights, gguf_equals_the_packages_dequantisation) {
    struct safetensors *s;
    struct err e = {0};
    size_t n;
    char *file = load_file(GOLDEN "quantised.safetensors", &n);
    cr_assert_eq(st_parse(&s, (uint8_t *)file, n, "f", &e), 0, "%s", e.msg);
    struct weights *w = opened(GOLDEN "quantised.gguf");
    cr_assert_not_null(weights_gguf(w));
    cr_assert_eq(st_n(s), 15);
    for (size_t i = 0; i < st_n(s); i++) {
        const struct st_tensor *x = st_at(s, i);
        uint32_t rows = x->n_dims == 2 ? (uint32_t)x->dims[0] : 1, cols = (uint32_t)x->dims[x->n_dims - 1];
        struct tensor t;
        cr_assert_eq(weights_get(w, x->name, rows, cols, &t, &e), 0, "%s", e.msg);
        cr_assert(weights_has(w, x->name));
        uint8_t *scratch = malloc(t.row_bytes);
        float *v = malloc(cols * sizeof *v);
        for (uint32_t r = 0; r < rows; r++) {
            dtype_decode(t.dtype, tensor_row(&t, r, scratch), cols, v);
            cr_assert_arr_eq((uint8_t *)v, (uint8_t *)file + x->begin + (size_t)r * cols * 4, (size_t)cols * 4,
                             "%s row %u", x->name, r);
        }
        free(scratch);
        free(v);
    }
    cr_assert_not(weights_has(w, "model.layers.1.input_layernorm.weight"));
    cr_assert_not(weights_has(w, "model.layers.0.self_attn.o_proj.bias"));
    weights_close(w);
    st_free(s);
    free(file);
}

static const char *const layer_names[] = {
    "input_layernorm.weight",  "self_attn.q_proj.weight",
    "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.o_proj.weight", "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",   "self_attn.v_proj.bias",
    "self_attn.o_proj.bias",   "self_attn.q_norm.weight",
    "self_attn.k_norm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight",      "post_attention_layernorm.weight",
    "mlp.down_proj.weight",    "mlp.gate_proj.bias",
    "mlp.up_proj.bias",        "mlp.down_proj.bias",
};

static bool get(struct weights *w, const char *name, struct tensor *t, struct err *e) {
    struct tensor_info info;
    return names_find(weights_config(w), name, &info) && weights_get(w, name, info.rows, info.cols, t, e) == 0;
}

/* All tensors that the configuration calls for are there, with the shapes that it implies. The number of them. */
static int get_all(struct weights *w) {
    const struct model_config *c = weights_config(w);
    static const char *const outside[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
    int n = 0;
    for (int l = -1; l < c->n_layers; l++) {
        for (size_t k = 0; k < (l < 0 ? 3 : sizeof layer_names / sizeof *layer_names); k++) {
            char name[96];
            struct tensor_info info;
            struct tensor t;
            struct err e = {0};
            snprintf(name, sizeof name, l < 0 ? "%s" : "model.layers.%2$d.%1$s", l < 0 ? outside[k] : layer_names[k],
                     l);
            if (!names_find(c, name, &info))
                continue;
            cr_assert(get(w, name, &t, &e), "%s", e.msg);
            cr_assert_str_eq(t.name, name);
            cr_assert_eq(t.row_bytes, dtype_row_bytes(t.dtype, t.cols));
            n++;
        }
    }
    return n;
}

Test(weights, every_family_has_what_its_config_calls_for) {
    DIR *d = opendir(FAMILIES);
    if (!d)
        cr_skip_test("test/models/families is absent");
    int models = 0, shards = 0, ggufs = 0;
    for (struct dirent *en; (en = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, FAMILIES "%s", en->d_name);
        if (en->d_name[0] == '.' || !file_is_dir(path))
            continue;
        struct weights *w = opened(path); /* of a GGUF as well: it is the only one in its folder */
        cr_assert_geq(get_all(w), 20, "%s", path);
        models++;
        ggufs += weights_gguf(w) != NULL;
        weights_close(w);
        snprintf(path, sizeof path, FAMILIES "%s/model.safetensors.index.json", en->d_name);
        shards += file_exists(path);
    }
    closedir(d);
    cr_assert(models >= 15 && ggufs >= 5 && shards >= 1, "%d models, %d GGUF, %d sharded", models, ggufs, shards);
}

/* ---- a model of our own, small enough to break ---- */

#define CONFIG                                                                                                         \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4,\"intermediate_size\":6,\"num_hidden_layers\":2,"     \
    "\"num_attention_heads\":2,\"vocab_size\":8}"
#define ENTRY(name, dtype, shape, lo, hi)                                                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #lo "," #hi "]}"
#define Q0         "model.layers.0.self_attn.q_proj.weight"
#define NORM       "model.norm.weight"
#define NORM_ENTRY ENTRY(NORM, "F32", "[4]", 0, 16)
#define Q0_ENTRY   ENTRY(Q0, "BF16", "[4,4]", 16, 48)

static void store_st(const char *dir, const char *name, const char *header, size_t n_data) {
    struct wbuf w = {0};
    st_build(&w, header, n_data);
    store_file(dir, name, w.p, w.n);
    wbuf_free(&w);
}

static void model_dir(char dir[64], const char *header, size_t n_data) {
    scratch_make(dir);
    store_text(dir, "config.json", CONFIG);
    store_st(dir, "model.safetensors", header, n_data);
}

/* weights_get must fail, with a message that names the tensor, the file and what is wrong. */
static void not_got(struct weights *w, const char *name, uint32_t rows, uint32_t cols, const char *file,
                    const char *what) {
    struct tensor t;
    struct err e = {0};
    cr_assert_eq(weights_get(w, name, rows, cols, &t, &e), -1, "%s", name);
    expect_err(&e, ERR_MODEL, name, file, what, NULL);
}

Test(weights, missing_tensor) {
    char dir[64];
    model_dir(dir, "{" NORM_ENTRY "}", 16);
    struct weights *w = opened(dir);
    not_got(w, Q0, 4, 4, dir, "has no tensor");
    cr_assert_not(weights_has(w, Q0));
    cr_assert(weights_has(w, NORM));
    char longest[300];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    struct tensor t;
    struct err e = {0};
    cr_assert_eq(weights_get(w, longest, 4, 4, &t, &e), -1);
    expect_err(&e, ERR_MODEL, "has no tensor xxx", NULL);
    weights_close(w);
    scratch_remove(dir);
}

Test(weights, wrong_shape) {
    char dir[64];
    model_dir(dir,
              "{" NORM_ENTRY "," Q0_ENTRY
              "," ENTRY("s", "F32", "[]", 48, 52) "," ENTRY("c", "F32", "[1,1,1]", 52, 56) "}",
              56);
    struct weights *w = opened(dir);
    not_got(w, Q0, 4, 8, "model.safetensors", "has the shape 4 x 4; expected 4 x 8");
    not_got(w, Q0, 8, 4, "model.safetensors", "expected 8 x 4");
    not_got(w, Q0, 1, 4, "model.safetensors", "has the shape 4 x 4; expected 4");
    not_got(w, NORM, 1, 5, "model.safetensors", "has the shape 4; expected 5");
    not_got(w, NORM, 4, 1, "model.safetensors", "has the shape 4; expected 4 x 1");
    not_got(w, "s", 1, 1, "model.safetensors", "has the shape a scalar; expected 1");
    not_got(w, "c", 1, 1, "model.safetensors", "has the shape 1 x 1 x 1; expected 1");
    weights_close(w);
    scratch_remove(dir);
}

Test(weights, unknown_dtype) {
    char dir[64];
    model_dir(dir, "{" NORM_ENTRY "," ENTRY(Q0, "F8_E4M3", "[4,4]", 16, 32) "," ENTRY("x", "INT3", "[4,4]", 32, 38) "}",
              38);
    struct weights *w = opened(dir);
    struct tensor t;
    struct err e = {0};
    cr_assert_eq(weights_get(w, NORM, 1, 4, &t, &e), 0, "the others load: %s", e.msg);
    not_got(w, Q0, 4, 4, "model.safetensors", "dtype F8_E4M3, which is not supported; supported are F32, F16, BF16");
    not_got(w, "x", 4, 4, "model.safetensors", "dtype INT3");
    weights_close(w);
    scratch_remove(dir);
}

Test(weights, unknown_type_in_gguf) {
    size_t n;
    char dir[64], path[100], *file = load_file(GOLDEN "quantised.gguf", &n);
    const char name[] = "blk.0.ffn_gate.weight";
    char *at = memmem(file, n, name, sizeof name - 1);
    at[sizeof name - 1 + 4 + 16] = 20; /* q4_0 becomes iq4_nl, of the same size */
    scratch_make(dir);
    store_file(dir, "m.gguf", file, n);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    struct weights *w = opened(path);
    struct tensor t;
    struct err e = {0};
    cr_assert_eq(weights_get(w, "model.layers.0.mlp.gate_proj.weight", 32, 256, &t, &e), -1);
    expect_err(&e, ERR_MODEL, path, name, "iq4_nl (20), which is not supported; supported are f32, f16, bf16, q8_0",
               NULL);
    e = (struct err){0};
    cr_assert_eq(weights_get(w, "model.layers.0.mlp.up_proj.weight", 32, 256, &t, &e), 0, "%s", e.msg);
    cr_assert_eq(weights_get(w, "model.layers.0.mlp.up_proj.weight", 32, 128, &t, &e), -1);
    expect_err(&e, ERR_MODEL, path, "model.layers.0.mlp.up_proj.weight", "32 x 256; expected 32 x 128", NULL);
    weights_close(w);
    scratch_remove(dir);
    free(file);
}

/* A part of a file is enough for a part of the model. */
Test(weights, tensors_that_were_cut_off) {
    char dir[64], path[100];
    model_dir(dir, "{" NORM_ENTRY "," Q0_ENTRY "}", 48);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    for (off_t cut = 0; cut <= 48; cut++) {
        cr_assert_eq(truncate(path, st.st_size - cut), 0);
        struct weights *w = opened(dir);
        struct tensor t;
        struct err e = {0};
        if (cut <= 32) {
            cr_assert_eq(weights_get(w, NORM, 1, 4, &t, &e), 0, "%s", e.msg);
            const uint8_t *row = tensor_row(&t, 0, (uint8_t[16]){0});
            for (int i = 0; i < 16; i++)
                cr_assert_eq(row[i], i);
        } else {
            not_got(w, NORM, 1, 4, "model.safetensors", "the file ends at");
        }
        if (cut == 0)
            cr_assert_eq(weights_get(w, Q0, 4, 4, &t, &e), 0, "%s", e.msg);
        else
            not_got(w, Q0, 4, 4, "model.safetensors", "truncated");
        weights_close(w);
    }
    scratch_remove(dir);
}

Test(weights, tensors_that_were_cut_off_a_gguf) {
    size_t n;
    char dir[64], path[100], *file = load_file(GOLDEN "quantised.gguf", &n);
    scratch_make(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    struct weights *whole = opened(GOLDEN "quantised.gguf");
    const uint8_t *base = (uint8_t *)file, *mapped = NULL;
    struct tensor first, t;
    struct err e = {0};
    cr_assert(get(whole, "model.embed_tokens.weight", &first, &e), "%s", e.msg); /* the first in the file */
    mapped = first.data - ((const uint8_t *)memmem(base, n, first.data, 512) - base);
    int there = 0, cut_off = 0;
    /* rope_freqs.weight is read while opening and stands near the end: nothing before it may be missing. */
    store_file(dir, "m.gguf", file, n - 33);
    struct weights *w = opened(path);
    weights_close(w);
    store_file(dir, "m.gguf", file, n - 3000);
    not_opened(path, ERR_MODEL, "m.gguf", "rope_freqs.weight lies outside the file");
    /* Without that tensor (its name changed) the rest may be cut anywhere. */
    ((char *)memmem(file, n, "rope_freqs.weight", 17))[0] = 'R';
    size_t kept = n / 3;
    store_file(dir, "m.gguf", file, kept);
    w = opened(path);
    for (size_t k = 0; k < sizeof layer_names / sizeof *layer_names; k++) {
        char name[96];
        struct tensor x;
        snprintf(name, sizeof name, "model.layers.0.%s", layer_names[k]);
        if (!weights_has(whole, name))
            continue;
        cr_assert(get(whole, name, &x, &e), "%s", e.msg);
        bool inside = (size_t)(x.data - mapped) + x.rows * x.row_bytes <= kept;
        if (inside) {
            cr_assert(get(w, name, &t, &e), "%s", e.msg);
            cr_assert_arr_eq(t.data, x.data, x.rows * x.row_bytes);
        } else {
            struct tensor_info info;
            names_find(weights_config(w), name, &info);
            struct err why = {0};
            cr_assert_eq(weights_get(w, name, info.rows, info.cols, &t, &why), -1);
            expect_err(&why, ERR_MODEL, path, info.gguf, "truncated", NULL);
        }
        there += inside;
        cut_off += !inside;
    }
    cr_assert(there > 3 && cut_off > 3, "%d there, %d cut off", there, cut_off);
    weights_close(w);
    weights_close(whole);
    scratch_remove(dir);
    free(file);
}

/* Any byte may be a tensor's first; rows come out aligned for their elements all the same. */
Test(weights, unaligned_tensors) {
    static const char *const headers[] = {"{" NORM_ENTRY "," Q0_ENTRY "}", "{" NORM_ENTRY "," Q0_ENTRY "} ",
                                          "{" NORM_ENTRY "," Q0_ENTRY "}  ", "{" NORM_ENTRY "," Q0_ENTRY "}   "};
    for (size_t i = 0; i < 4; i++) {
        char dir[64];
        uint32_t scratch[4];
        model_dir(dir, headers[i], 48);
        struct weights *w = opened(dir);
        struct tensor t;
        struct err e = {0};
        cr_assert_eq(weights_get(w, NORM, 1, 4, &t, &e), 0, "%s", e.msg);
        const uint8_t *row = tensor_row(&t, 0, scratch);
        cr_assert((uintptr_t)row % 4 == 0 && row[0] == 0 && row[15] == 15);
        cr_assert_eq(weights_get(w, Q0, 4, 4, &t, &e), 0, "%s", e.msg);
        row = tensor_row(&t, 3, scratch);
        cr_assert((uintptr_t)row % 2 == 0 && row[0] == 16 + 24 && row[7] == 47);
        weights_close(w);
        scratch_remove(dir);
    }
}

/* ---- laziness ---- */

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

/* Four gigabytes that nobody has written: what gets into memory is what was read. */
Test(weights, only_what_is_asked_for_is_read) {
    enum { LAYERS = 4, ROWS = 131072, COLS = 4096 };
    const size_t row = (size_t)COLS * 2, each = ROWS * row;
    char dir[64], path[100];
    struct wbuf h = {0}, w = {0};
    scratch_make(dir);
    store_text(dir, "config.json", CONFIG);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (int i = 0; i < LAYERS; i++)
        wbuf_fmt(&h, "%c\"l%d\":{\"dtype\":\"BF16\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}", i ? ',' : '{', i,
                 ROWS, COLS, (size_t)i * each, (size_t)(i + 1) * each);
    wbuf_str(&h, "}");
    st_build(&w, wbuf_cstr(&h), 0);
    size_t data = w.n;
    store_file(dir, "model.safetensors", w.p, w.n);
    wbuf_free(&h);
    wbuf_free(&w);
    if (truncate(path, (off_t)(data + LAYERS * each)) != 0) {
        scratch_remove(dir);
        cr_skip_test("this file system cannot hold a sparse file of 4 GB");
    }

    const size_t few = 32 << 20; /* the kernel reads around a fault, 8 MB where disks are set up so */
    struct weights *m = opened(dir);
    struct tensor t[LAYERS];
    struct err e = {0};
    for (int i = 0; i < LAYERS; i++)
        cr_assert_eq(weights_get(m, (char[]){'l', (char)('0' + i), 0}, ROWS, COLS, &t[i], &e), 0, "%s", e.msg);
    cr_assert_lt(resident(path, 0, SIZE_MAX), few, "after opening");

    size_t sum = 0;
    for (uint32_t r = 1000; r < 1100; r++)
        sum += *(const uint8_t *)tensor_row(&t[2], r, NULL);
    cr_assert_eq(sum, 0);
    size_t third = data + 2 * each;
    cr_assert_geq(resident(path, third + 1000 * row, third + 1100 * row), 100 * (row / 2),
                  "a page of each row at least");
    cr_assert_lt(resident(path, 0, SIZE_MAX), 2 * few, "after reading 100 rows: %zu", resident(path, 0, SIZE_MAX));
    cr_assert_eq(resident(path, data + few, third - few), 0, "nothing of the layers before it");
    cr_assert_eq(resident(path, data + 3 * each + few, SIZE_MAX), 0, "nor of the one behind it");

    /* Hints change nothing that can be read, and reach no further than asked. */
    tensor_will_need(&t[0], 5000, 5100);
    cr_assert_lt(resident(path, 0, SIZE_MAX), 3 * few);
    tensor_done(&t[2]);
    cr_assert_eq(*(const uint8_t *)tensor_row(&t[2], 1050, NULL), 0);
    weights_close(m);
    scratch_remove(dir);
}

Test(weights, hints_are_safe_on_every_tensor) {
    static const char *const paths[] = {GOLDEN "quantised.gguf", "random:qwen2.5-0.5b/1"};
    for (int i = 0; i < 2; i++) {
        struct weights *w = opened(paths[i]);
        for (size_t k = 0; k < sizeof layer_names / sizeof *layer_names; k++) {
            char name[96];
            struct tensor t;
            struct err e = {0};
            snprintf(name, sizeof name, "model.layers.0.%s", layer_names[k]);
            if (!weights_has(w, name))
                continue;
            cr_assert(get(w, name, &t, &e), "%s", e.msg);
            uint8_t *before = malloc(t.row_bytes), *scratch = malloc(t.row_bytes);
            memcpy(before, tensor_row(&t, t.rows - 1, scratch), t.row_bytes);
            tensor_will_need(&t, 0, 0);
            tensor_will_need(&t, t.rows - 1, t.rows);
            tensor_will_need(&t, 0, t.rows);
            tensor_done(&t);
            cr_assert_arr_eq(before, tensor_row(&t, t.rows - 1, scratch), t.row_bytes);
            free(before);
            free(scratch);
        }
        weights_close(w);
    }
}

/* ---- several files ---- */

#define INDEX(q_file) "{\"weight_map\":{\"" NORM "\":\"a.safetensors\",\"" Q0 "\":\"" q_file "\"}}"

/* A machine that computes the middle needs only the files of the middle. */
Test(weights, a_shard_is_opened_when_it_is_needed) {
    char dir[64];
    struct tensor t;
    struct err e = {0};
    scratch_make(dir);
    store_text(dir, "config.json", CONFIG);
    store_text(dir, "model.safetensors.index.json", INDEX("b.safetensors"));
    store_st(dir, "a.safetensors", "{" NORM_ENTRY "}", 16);
    struct weights *w = opened(dir);
    cr_assert(weights_has(w, NORM) && weights_has(w, Q0) && !weights_has(w, "x"));
    cr_assert_eq(weights_get(w, NORM, 1, 4, &t, &e), 0, "%s", e.msg);
    cr_assert_eq(weights_get(w, Q0, 4, 4, &t, &e), -1);
    expect_err(&e, ERR_IO, Q0, "b.safetensors", "No such file", NULL);
    not_got(w, "x", 4, 4, dir, "has no tensor");

    store_st(dir, "b.safetensors", "{" NORM_ENTRY "}", 16);
    not_got(w, Q0, 4, 4, "b.safetensors", "although");
    weights_close(w);
    w = opened(dir);
    store_text(dir, "b.safetensors", "garbage");
    not_got(w, Q0, 4, 4, "b.safetensors", "too few");
    store_st(dir, "b.safetensors", "{" Q0_ENTRY "}", 48);
    cr_assert_eq(weights_get(w, Q0, 4, 4, &t, &(struct err){0}), 0);
    weights_close(w);
    scratch_remove(dir);
}

Test(weights, an_index_that_leads_elsewhere) {
    char dir[64];
    scratch_make(dir);
    store_text(dir, "config.json", CONFIG);
    store_text(dir, "model.safetensors.index.json", INDEX("../b.safetensors"));
    not_opened(dir, ERR_MODEL, Q0, "\"../b.safetensors\"; expected the plain name");
    scratch_remove(dir);
}

Test(weights, files_without_an_index) {
    char dir[64];
    struct tensor t;
    struct err e = {0};
    scratch_make(dir);
    store_text(dir, "config.json", CONFIG);
    store_st(dir, "part-a.safetensors", "{" NORM_ENTRY "}", 16);
    store_st(dir, "part-b.safetensors", "{" Q0_ENTRY "}", 48);
    store_text(dir, "notes.txt", "no tensors");
    struct weights *w = opened(dir);
    cr_assert_eq(weights_get(w, NORM, 1, 4, &t, &e), 0, "%s", e.msg);
    cr_assert_eq(weights_get(w, Q0, 4, 4, &t, &e), 0, "%s", e.msg);
    cr_assert_not(weights_has(w, "x"));
    weights_close(w);
    store_st(dir, "part-c.safetensors", "{" Q0_ENTRY "}", 48);
    w = opened(dir);
    not_got(w, Q0, 4, 4, "part-b.safetensors", "part-c.safetensors");
    weights_close(w);
    store_text(dir, "part-d.safetensors", "garbage");
    not_opened(dir, ERR_MODEL, "part-d.safetensors", "truncated");
    scratch_remove(dir);
}

/* ---- what is no model ---- */

Test(weights, nothing_there) {
    char dir[64], path[100];
    not_opened("/nonexistent/model", ERR_IO, "no model at /nonexistent/model", "No such file");
    not_opened("", ERR_IO, "no model at ", "No such file");
    scratch_make(dir);
    not_opened(dir, ERR_MODEL, dir, "no model here: expected config.json");
    store_text(dir, "model.txt", "# hello, I am a text file and certainly no model\n");
    snprintf(path, sizeof path, "%s/model.txt", dir);
    not_opened(path, ERR_MODEL, path, "not a model; expected");
    store_text(dir, "config.json", CONFIG);
    not_opened(dir, ERR_MODEL, dir, "no weights: expected model.safetensors");
    store_text(dir, "config.json", "{\"architectures\":[\"MixtralForCausalLM\"]}");
    not_opened(dir, ERR_MODEL, dir, "MixtralForCausalLM is not supported");
    store_text(dir, "config.json", CONFIG);
    store_text(dir, "generation_config.json", "[");
    not_opened(dir, ERR_MODEL, dir, "generation_config.json: not JSON");
    scratch_remove(dir);
}

Test(weights, gguf_by_directory) {
    size_t n;
    char dir[64], path[100], *file = load_file(GOLDEN "quantised.gguf", &n);
    scratch_make(dir);
    store_file(dir, "m.gguf", file, n);
    struct weights *w = opened(dir);
    cr_assert_not_null(weights_gguf(w));
    weights_close(w);
    store_file(dir, "n.gguf", file, n);
    not_opened(dir, ERR_MODEL, dir, "2 .gguf files");
    snprintf(path, sizeof path, "%s/n.gguf", dir);
    store_text(dir, "n.gguf", "# a text file that is called .gguf\n");
    not_opened(path, ERR_MODEL, path, "not a GGUF file");
    store_text(dir, "n.gguf", "");
    not_opened(path, ERR_MODEL, path, "too few");
    store_file(dir, "model.bin", file, n); /* the content decides, too */
    snprintf(path, sizeof path, "%s/model.bin", dir);
    w = opened(path);
    weights_close(w);
    scratch_remove(dir);
    free(file);
}

Test(weights, special_files_do_not_hang) {
    char dir[64], path[100];
    scratch_make(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    not_opened(path, ERR_IO, path, "not a regular file");
    not_opened("/dev/null", ERR_IO, "/dev/null", "not a regular file");
    scratch_remove(dir);
}

Test(weights, the_shared_model) {
    struct tensor t;
    struct err e = {0};
    if (!file_is_dir("../shared/data/models/stories260K"))
        cr_skip_test("../shared/data/models/stories260K is absent");
    struct weights *w = opened("../shared/data/models/stories260K");
    cr_assert_eq(get_all(w), 2 + 5 * 9);
    cr_assert_eq(weights_get(w, "model.layers.4.self_attn.k_proj.weight", 32, 64, &t, &e), 0, "%s", e.msg);
    cr_assert_eq(t.dtype, DT_F32);
    weights_close(w);
}
