#include "core/model/export.h"

#include "core/base/file.h"
#include "core/model/gguf.h"
#include "core/model/names.h"
#include "core/model/safetensors.h"
#include "net/fingerprint.h"
#include "test/unit/layer_rig.h"
#include "test/unit/loading.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAMILIES "test/models/families/"

static const char *const models[] = {
    "test/models/tiny",    FAMILIES "llama-bias",  FAMILIES "llama-linear", FAMILIES "llama2",
    FAMILIES "llama31",    FAMILIES "mistral-v01", FAMILIES "qwen2-swa",    FAMILIES "qwen3",
    FAMILIES "gguf-llama", FAMILIES "gguf-nemo",   FAMILIES "gguf-llama32", FAMILIES "gguf-qwen2",
    FAMILIES "gguf-qwen3", FAMILIES "gguf-k",
};
enum { N_MODELS = sizeof models / sizeof *models, ROWS = 40 };

/* Exports layers [lo, hi) of model into a new folder dir/out. */
static void export_to(char dir[64], char out[80], const char *model, int lo, int hi) {
    struct err e = {0};
    struct stat st;
    uint64_t bytes, found = 0;
    scratch_make(dir);
    snprintf(out, 80, "%s/out", dir);
    struct weights *w = layer_open(model);
    cr_assert_eq(export_layers(w, model, lo, hi, out, NULL, NULL, &bytes, &e), 0, "%s", e.msg);
    weights_close(w);
    DIR *d = opendir(out);
    for (struct dirent *en; (en = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", out, en->d_name);
        cr_assert_eq(stat(path, &st), 0);
        found += S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    }
    closedir(d);
    cr_assert_eq(found, bytes, "%s", model);
}

static void remove_export(const char *dir, const char *out) {
    scratch_remove(out);
    scratch_remove(dir);
}

/* Do both give the same bits at every boundary of layers [lo, hi)? */
static bool same_layers(struct weights *a, struct weights *b, int lo, int hi, enum quant quant) {
    const struct layer_run r = {.quant = quant, .kv_type = DT_F16, .lo = lo, .hi = hi, .n_rows = ROWS};
    const size_t n = (size_t)ROWS * (size_t)weights_config(a)->hidden;
    float *x = malloc(n * sizeof *x);
    layer_noise(x, n, 7);
    float *ya = layer_run(a, &r, x), *yb = layer_run(b, &r, x);
    bool same = memcmp(ya, yb, (size_t)(hi - lo + 1) * n * sizeof *ya) == 0;
    free(x);
    free(ya);
    free(yb);
    return same;
}

Test(export, the_middle_is_the_model_s) {
    for (int i = 0; i < N_MODELS; i++) {
        char dir[64], out[80];
        struct err e = {0};
        struct wire_hello a, b;
        struct weights *whole = layer_open(models[i]);
        int lo = 1, hi = weights_config(whole)->n_layers - 1;
        export_to(dir, out, models[i], lo, hi);
        struct weights *middle = layer_open(out);
        cr_assert_eq(fingerprint_hello(whole, lo, hi, &a, &e), 0, "%s", e.msg);
        cr_assert_eq(fingerprint_hello(middle, lo, hi, &b, &e), 0, "%s", e.msg);
        cr_assert_arr_eq(a.config, b.config, sizeof a.config, "%s", models[i]);
        cr_assert_arr_eq(a.weights, b.weights, sizeof a.weights, "%s", models[i]);
        cr_assert(same_layers(whole, middle, lo, hi, QUANT_NONE), "%s", models[i]);
        cr_assert(same_layers(whole, middle, lo, hi, QUANT_Q4), "%s", models[i]);
        weights_close(middle);
        weights_close(whole);
        remove_export(dir, out);
    }
}

/* What is not there is named, in terms of the file that it is not in. */
Test(export, the_rest_is_not_there) {
    for (int i = 0; i < N_MODELS; i++) {
        char dir[64], out[80];
        bool gguf = strstr(models[i], "gguf") != NULL;
        struct weights *whole = layer_open(models[i]);
        int n = weights_config(whole)->n_layers, lo = 1, hi = n - 1;
        weights_close(whole);
        export_to(dir, out, models[i], lo, hi);
        struct weights *w = layer_open(out);
        struct err none = {0};
        struct backend *b;
        cr_assert_eq(backend_cpu_create(&b, 1, NULL, &none), 0);
        const struct {
            struct part part;
            const char *hf, *gguf;
        } cases[] = {{{.lo = 0, .hi = hi}, "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"},
                     {{.lo = lo, .hi = hi, .embed = true}, "model.embed_tokens.weight", "token_embd.weight"},
                     {{.lo = lo, .hi = hi, .head = true}, "weight", "token_embd.weight"},
                     {{.lo = hi, .hi = n}, "self_attn.q_proj.weight", "attn_q.weight"}};
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            struct err e = {0};
            struct stage *s;
            const struct load_opts opts = {.max_rows = 1};
            cr_assert_eq(b->ops->stage_load(b, w, &cases[k].part, &opts, &s, &e), -1);
            expect_err(&e, ERR_MODEL, "has no tensor", cases[k].hf, gguf ? cases[k].gguf : out, out, NULL);
        }
        /* Only layers, and each of them whole. */
        char name[NAMES_MAX];
        for (int l = 0; l < n; l++)
            for (int t = 0; names_of_layer(weights_config(w), l, t, name); t++)
                cr_assert_eq(weights_has(w, name), l >= lo && l < hi, "%s: %s", models[i], name);
        cr_assert(!weights_has(w, "model.norm.weight") && !weights_has(w, "lm_head.weight") &&
                  !weights_has(w, "model.embed_tokens.weight"));
        b->ops->free(b);
        weights_close(w);
        remove_export(dir, out);
    }
}

/* The file has what the layers need and not one tensor or text more. */
Test(export, nothing_that_reads_text_is_in_it) {
    for (int i = 0; i < N_MODELS; i++) {
        char dir[64], out[80], path[120];
        bool is_gguf = strstr(models[i], "gguf") != NULL;
        size_t n, expected = 0;
        export_to(dir, out, models[i], 1, 2);
        snprintf(path, sizeof path, "%s/%s", out, is_gguf ? "middle.gguf" : "model.safetensors");
        uint8_t *file = (uint8_t *)load_file(path, &n);
        struct weights *whole = layer_open(models[i]), *w = layer_open(out);
        const struct model_config *c = weights_config(whole);
        char name[NAMES_MAX];
        size_t tensor_bytes = 0;
        struct err e = {0};
        for (int t = 0; names_of_layer(c, 1, t, name); t++, expected++) {
            struct tensor_info info;
            struct tensor x;
            names_find(c, name, &info);
            cr_assert_eq(weights_get(w, name, info.rows, info.cols, &x, &e), 0, "%s", e.msg);
            tensor_bytes += x.rows * x.row_bytes;
        }
        if (is_gguf) {
            const struct gguf *g = weights_gguf(w);
            expected += gguf_tensor(g, "rope_freqs.weight") != NULL;
            cr_assert_eq(gguf_n_tensors(g), expected, "%s", models[i]);
            static const char *const texts[] = {"tokenizer", "chat_template", "general.name", "token_embd",
                                                "output_norm"};
            for (int t = 0; t < 5; t++)
                cr_assert(!memmem(file, n, texts[t], strlen(texts[t])), "%s: %s", models[i], texts[t]);
        } else {
            struct safetensors *s;
            cr_assert_eq(st_parse(&s, file, n, path, &e), 0, "%s", e.msg);
            cr_assert_eq(st_n(s), expected, "%s", models[i]);
            st_free(s);
            size_t n_config, n_original;
            snprintf(path, sizeof path, "%s/config.json", out);
            char *config = load_file(path, &n_config);
            snprintf(path, sizeof path, "%s/config.json", models[i]);
            char *original = load_file(path, &n_original);
            cr_assert(n_config == n_original && memcmp(config, original, n_config) == 0);
            free(config);
            free(original);
        }
        cr_assert_lt(n - tensor_bytes, 4096, "%s: %zu bytes beside the tensors", models[i], n - tensor_bytes);
        /* No row of the embedding lies in it. */
        struct tensor embed;
        cr_assert_eq(
            weights_get(whole, "model.embed_tokens.weight", (uint32_t)c->vocab, (uint32_t)c->hidden, &embed, &e), 0,
            "%s", e.msg);
        for (uint32_t r = 0; r < embed.rows; r += 13)
            cr_assert(!memmem(file, n, embed.data + r * embed.row_bytes, embed.row_bytes), "%s: row %u", models[i], r);
        weights_close(w);
        weights_close(whole);
        free(file);
        remove_export(dir, out);
    }
}

/* An export of an export, of all layers, of one; to a folder that exists and is empty. */
Test(export, again_and_in_part) {
    static const char *const from[] = {FAMILIES "qwen2-swa", FAMILIES "gguf-llama32"};
    for (int i = 0; i < 2; i++) {
        char dir[64], out[80], second[90];
        struct err e = {0};
        uint64_t bytes;
        struct weights *whole = layer_open(from[i]);
        int n = weights_config(whole)->n_layers;
        export_to(dir, out, from[i], 0, n);
        struct weights *all = layer_open(out);
        cr_assert(same_layers(whole, all, 0, n, QUANT_NONE));
        snprintf(second, sizeof second, "%s/second", dir);
        cr_assert_eq(mkdir(second, 0700), 0);
        cr_assert_eq(export_layers(all, out, 1, 2, second, NULL, NULL, &bytes, &e), 0, "%s", e.msg);
        struct weights *one = layer_open(second);
        cr_assert(same_layers(whole, one, 1, 2, QUANT_NONE));
        weights_close(one);
        weights_close(all);
        weights_close(whole);
        scratch_remove(second);
        remove_export(dir, out);
    }
}

/* ---- refusals and failures ---- */

static int entries(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    cr_assert(d != NULL);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

Test(export, refusals) {
    char dir[64], out[80];
    struct err e = {0};
    uint64_t bytes = 1;
    scratch_make(dir);
    snprintf(out, sizeof out, "%s/out", dir);
    const struct {
        const char *model;
        int lo, hi;
        enum err_kind kind;
        const char *text;
    } cases[] = {{"random:qwen2.5-0.5b/3", 1, 2, ERR_USAGE, "random:qwen2.5-0.5b/3"},
                 {FAMILIES "qwen3", 2, 2, ERR_USAGE, "2 to 2"},
                 {FAMILIES "qwen3", 1, 4, ERR_USAGE, "1 to 4"},
                 {FAMILIES "qwen3", -1, 2, ERR_USAGE, "-1 to 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err why = {0};
        struct weights *w = layer_open(cases[i].model);
        cr_assert_eq(export_layers(w, cases[i].model, cases[i].lo, cases[i].hi, out, NULL, NULL, &bytes, &why), -1);
        expect_err(&why, cases[i].kind, cases[i].text, NULL);
        cr_assert(bytes == 0 && entries(dir) == 0);
        weights_close(w);
    }
    /* What is there stays as it is. */
    struct weights *w = layer_open(FAMILIES "qwen3");
    store_text(dir, "config.json", "mine");
    cr_assert_eq(export_layers(w, FAMILIES "qwen3", 1, 2, dir, NULL, NULL, &bytes, &e), -1);
    expect_err(&e, ERR_USAGE, dir, "config.json", "not empty", NULL);
    cr_assert_eq(entries(dir), 1);
    char file[100];
    snprintf(file, sizeof file, "%s/config.json", dir);
    e = (struct err){0};
    cr_assert_eq(export_layers(w, FAMILIES "qwen3", 1, 2, file, NULL, NULL, &bytes, &e), -1);
    expect_err(&e, ERR_IO, file, NULL);
    snprintf(file, sizeof file, "%s/no/out", dir);
    e = (struct err){0};
    cr_assert_eq(export_layers(w, FAMILIES "qwen3", 1, 2, file, NULL, NULL, &bytes, &e), -1);
    expect_err(&e, ERR_IO, file, NULL);
    weights_close(w);
    scratch_remove(dir);
}

struct watch {
    int calls, stop_at;
    uint64_t last, total;
};

static int watch_progress(void *ctx, uint64_t done, uint64_t total) {
    struct watch *x = ctx;
    cr_assert(done > x->last && done <= total && (x->total == 0 || x->total == total));
    x->last = done;
    x->total = total;
    return ++x->calls == x->stop_at;
}

Test(export, progress_and_stop) {
    static const char *const from[] = {FAMILIES "llama2", FAMILIES "gguf-k"};
    for (int i = 0; i < 2; i++) {
        char dir[64], out[80];
        struct err e = {0};
        uint64_t bytes;
        scratch_make(dir);
        snprintf(out, sizeof out, "%s/out", dir);
        struct weights *w = layer_open(from[i]);
        struct watch x = {.stop_at = 3};
        cr_assert_eq(export_layers(w, from[i], 0, 2, out, watch_progress, &x, &bytes, &e), -1);
        expect_err(&e, ERR_IO, "stopped", NULL);
        cr_assert(x.calls == 3 && entries(dir) == 0, "nothing is left behind");
        x = (struct watch){0};
        e = (struct err){0};
        cr_assert_eq(export_layers(w, from[i], 0, 2, out, watch_progress, &x, &bytes, &e), 0, "%s", e.msg);
        cr_assert(x.calls > 3 && x.last == x.total && bytes > x.total);
        weights_close(w);
        remove_export(dir, out);
    }
}

/* A limit on file sizes, reached at different places: in the header, in a tensor, in the second file. */
Test(export, writing_fails) {
    static const char *const from[] = {FAMILIES "llama2", FAMILIES "gguf-llama"};
    static const rlim_t limits[] = {1, 100, 1500, 9000};
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < 8; i++) {
        char dir[64], out[80];
        struct err e = {0};
        uint64_t bytes;
        struct rlimit old, now;
        scratch_make(dir);
        snprintf(out, sizeof out, "%s/out", dir);
        struct weights *w = layer_open(from[i % 2]);
        getrlimit(RLIMIT_FSIZE, &old);
        now = (struct rlimit){.rlim_cur = limits[i / 2], .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_FSIZE, &now);
        int rc = export_layers(w, from[i % 2], 1, 2, out, NULL, NULL, &bytes, &e);
        setrlimit(RLIMIT_FSIZE, &old);
        cr_assert_eq(rc, -1);
        expect_err(&e, ERR_IO, "cannot write", out, "too large", NULL);
        cr_assert(bytes == 0 && entries(dir) == 0, "nothing is left behind");
        weights_close(w);
        scratch_remove(dir);
    }
}

/* A disk that is full: a file system of its own, where that is permitted. */
Test(export, disk_full) {
    char dir[64], out[80];
    struct err e = {0};
    uint64_t bytes;
    scratch_make(dir);
    snprintf(out, sizeof out, "%s/out", dir);
    if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("tmpfs", dir, "tmpfs", 0, "size=64k") != 0) {
        rmdir(dir);
        cr_skip_test("SKIP: no mounting of a small file system here");
    }
    static const char *const from[] = {FAMILIES "llama2", FAMILIES "gguf-llama32"};
    for (int i = 0; i < 2; i++) {
        struct weights *w = layer_open(from[i]);
        e = (struct err){0};
        cr_assert_eq(export_layers(w, from[i], 0, 3, out, NULL, NULL, &bytes, &e), -1);
        expect_err(&e, ERR_IO, "cannot write", out, "MB", "No space left", NULL);
        cr_assert(entries(dir) == 0, "nothing is left behind");
        weights_close(w);
    }
    umount(dir);
    rmdir(dir);
}

/* Biases are told from whichever layer is there. */
Test(export, biases_of_a_later_layer) {
    struct wbuf w = {0};
    struct err e = {0};
    struct gguf *g;
    struct model_config c;
    gg_start(&w, 3, 3, 8);
    gg_key_str(&w, "general.architecture", "llama");
    gg_key_u32(&w, "llama.embedding_length", 32);
    gg_key_u32(&w, "llama.block_count", 4);
    gg_key_u32(&w, "llama.feed_forward_length", 32);
    gg_key_u32(&w, "llama.context_length", 64);
    gg_key_u32(&w, "llama.attention.head_count", 2);
    gg_key_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gg_key_u32(&w, "llama.vocab_size", 100);
    gg_tensor(&w, "blk.2.attn_q.bias", 1, (const uint64_t[]){32}, 0, 0);
    gg_tensor(&w, "blk.3.attn_output.bias", 1, (const uint64_t[]){32}, 0, 128);
    gg_tensor(&w, "blk.2.ffn_gate.bias", 1, (const uint64_t[]){32}, 0, 256);
    gg_pad(&w, 32);
    cr_assert_eq(gguf_parse(&g, w.p, w.n, "test", &e), 0, "%s", e.msg);
    cr_assert_eq(config_from_gguf(&c, g, &e), 0, "%s", e.msg);
    cr_assert(c.qkv_bias && c.o_bias && c.mlp_bias && c.vocab == 100);
    config_free(&c);
    gguf_free(g);
    wbuf_free(&w);
}
