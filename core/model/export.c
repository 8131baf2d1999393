#include "core/model/export.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/model/gguf.h"
#include "core/model/names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_CONFIG = 4 << 20, /* bytes of a config.json */
    MAX_FILES = 2,
    CHUNK = 4 << 20,   /* bytes between two calls of progress */
    ST_ALIGNMENT = 8,  /* of the data in a safetensors file */
    GG_ALIGNMENT = 32, /* of tensors in a GGUF file that does not say another */
};

/* One tensor of the export, in the order of the file. */
struct item {
    struct tensor t;
    const struct gguf_tensor *gguf; /* NULL: from safetensors */
    size_t n_bytes;
};

struct export {
    struct weights *w;
    const char *out; /* the directory */
    bool made_out;
    struct item *items;
    size_t n_items;
    int (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
    uint64_t done, total;
    /* Files that lie in out under temporary names. */
    struct {
        char temp[PATH_MAX], path[PATH_MAX];
    } files[MAX_FILES];
    int n_files, n_renamed;
};

/* ---- what goes into it ---- */

static size_t aligned(size_t n, size_t alignment) {
    return n + (alignment - n % alignment) % alignment;
}

static int add_item(struct export *x, const struct tensor *t, const struct gguf_tensor *g, size_t cap, struct err *e) {
    size_t n_bytes = g ? g->n_bytes : (size_t)t->rows * t->row_bytes;
    if (x->n_items == cap)
        return err_set(e, ERR_MODEL, "%s: more tensors than layers have", weights_path(x->w));
    x->items[x->n_items++] = (struct item){.t = *t, .gguf = g, .n_bytes = n_bytes};
    x->total += n_bytes;
    return 0;
}

/* Finds and checks every tensor before a byte is written. */
static int collect(struct export *x, int lo, int hi, struct err *e) {
    const struct model_config *c = weights_config(x->w);
    const struct gguf *g = weights_gguf(x->w);
    char name[NAMES_MAX];
    size_t cap = 1; /* rope_freqs.weight */
    for (int i = 0; names_of_layer(c, lo, i, name); i++)
        cap += (size_t)(hi - lo);
    x->items = calloc(cap, sizeof *x->items);
    if (!x->items)
        return err_set(e, ERR_MEMORY, "out of memory");

    const struct gguf_tensor *rope = g ? gguf_tensor(g, "rope_freqs.weight") : NULL;
    if (rope) { /* part of the shape, as rope_scaling is in a config.json */
        const struct tensor t = {.data = rope->data, .rows = 1, .cols = (uint32_t)rope->dims[0], .row_bytes = 0};
        if (add_item(x, &t, rope, cap, e) != 0)
            return -1;
    }
    for (int l = lo; l < hi; l++)
        for (int i = 0; names_of_layer(c, l, i, name); i++) {
            struct tensor_info info;
            struct tensor t;
            names_find(c, name, &info);
            if (weights_get(x->w, name, info.rows, info.cols, &t, e) != 0 ||
                add_item(x, &t, g ? gguf_tensor(g, info.gguf) : NULL, cap, e) != 0)
                return -1;
        }
    return 0;
}

/* Everything of a safetensors file in front of the data. */
static void st_header(const struct export *x, struct wbuf *w) {
    static const char *const types[DT_COUNT] = {[DT_F32] = "F32", [DT_F16] = "F16", [DT_BF16] = "BF16"};
    size_t off = 0;
    wbuf_u64(w, 0); /* the length, below */
    wbuf_str(w, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < x->n_items; i++) {
        const struct item *it = &x->items[i];
        wbuf_fmt(w, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", it->t.name, types[it->t.dtype]);
        if (it->t.rows > 1)
            wbuf_fmt(w, "%u,", it->t.rows);
        wbuf_fmt(w, "%u],\"data_offsets\":[%zu,%zu]}", it->t.cols, off, off + it->n_bytes);
        off += it->n_bytes;
    }
    wbuf_str(w, "}");
    while (!w->bad && w->n % ST_ALIGNMENT != 0)
        wbuf_u8(w, ' ');
    for (int i = 0; i < 8 && !w->bad; i++)
        w->p[i] = (uint8_t)((w->n - 8) >> (8 * i));
}

static void gg_str(struct wbuf *w, const char *p, size_t n) {
    wbuf_u64(w, n);
    wbuf_put(w, p, n);
}

/* A list of what may go, not of what may not: a key that nobody has thought of stays at home. */
static uint64_t gg_keys(const struct export *x, struct wbuf *w) {
    static const char *const general[] = {"general.architecture", "general.alignment", "general.file_type",
                                          "general.quantization_version"};
    static const char *const shape[] = {"embedding_length",
                                        "block_count",
                                        "feed_forward_length",
                                        "context_length",
                                        "attention.head_count",
                                        "attention.head_count_kv",
                                        "attention.key_length",
                                        "attention.value_length",
                                        "attention.layer_norm_rms_epsilon",
                                        "attention.sliding_window",
                                        "attention.sliding_window_pattern",
                                        "rope.dimension_count",
                                        "rope.freq_base",
                                        "rope.scale_linear",
                                        "rope.scaling.type",
                                        "rope.scaling.factor"};
    enum { N_GENERAL = sizeof general / sizeof *general, N_SHAPE = sizeof shape / sizeof *shape };
    const struct gguf *g = weights_gguf(x->w);
    const struct model_config *c = weights_config(x->w);
    uint64_t n = 0;
    for (size_t i = 0; i < N_GENERAL + N_SHAPE; i++) {
        char key[80];
        struct gguf_raw v;
        if (i < N_GENERAL)
            snprintf(key, sizeof key, "%s", general[i]);
        else
            snprintf(key, sizeof key, "%s.%s", c->arch, shape[i - N_GENERAL]);
        if (!gguf_raw(g, key, &v))
            continue;
        gg_str(w, key, strlen(key));
        wbuf_u32(w, v.type);
        wbuf_put(w, v.p, v.n_bytes);
        n++;
    }
    /* Elsewhere it is read off the embedding. */
    char key[80];
    snprintf(key, sizeof key, "%s.vocab_size", c->arch);
    gg_str(w, key, strlen(key));
    wbuf_u32(w, GGUF_U32);
    wbuf_u32(w, (uint32_t)c->vocab);
    return n + 1;
}

static size_t gg_alignment(const struct gguf *g) {
    uint64_t v = GG_ALIGNMENT;
    gguf_u64(g, "general.alignment", &v); /* checked when the file was parsed */
    return (size_t)v;
}

/* Everything of a GGUF file in front of the data. */
static void gg_header(const struct export *x, struct wbuf *w) {
    size_t alignment = gg_alignment(weights_gguf(x->w)), off = 0;
    wbuf_str(w, "GGUF");
    wbuf_u32(w, 3);
    wbuf_u64(w, x->n_items);
    size_t at = w->n;
    wbuf_u64(w, 0); /* the number of keys, below */
    uint64_t n = gg_keys(x, w);
    for (int i = 0; i < 8 && !w->bad; i++)
        w->p[at + (size_t)i] = (uint8_t)(n >> (8 * i));
    for (size_t i = 0; i < x->n_items; i++) {
        const struct gguf_tensor *t = x->items[i].gguf;
        gg_str(w, t->name.p, t->name.n);
        wbuf_u32(w, (uint32_t)t->n_dims);
        for (int d = 0; d < t->n_dims; d++)
            wbuf_u64(w, t->dims[d]);
        wbuf_u32(w, t->ggml_type);
        wbuf_u64(w, off);
        off += aligned(x->items[i].n_bytes, alignment);
    }
    while (!w->bad && w->n % alignment != 0)
        wbuf_u8(w, 0);
}

/* ---- writing ---- */

static int cannot_write(const struct export *x, const char *path, struct err *e) {
    int errnum = errno;
    if (errnum == ENOSPC || errnum == EDQUOT)
        return err_sys(e, errnum, "cannot write %s: the export needs %.1f MB", path, (double)x->total / 1e6);
    return err_sys(e, errnum, "cannot write %s", path);
}

static int write_all(const struct export *x, int fd, const void *p, size_t n, const char *path, struct err *e) {
    for (size_t at = 0; at < n;) {
        ssize_t k = write(fd, (const uint8_t *)p + at, n - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return cannot_write(x, path, e);
        at += (size_t)k;
    }
    return 0;
}

static int write_items(struct export *x, int fd, size_t alignment, const char *path, struct err *e) {
    static const uint8_t zeros[4096];
    for (size_t i = 0; i < x->n_items; i++) {
        const struct item *it = &x->items[i];
        for (size_t at = 0; at < it->n_bytes;) {
            size_t n = it->n_bytes - at < CHUNK ? it->n_bytes - at : CHUNK;
            if (write_all(x, fd, it->t.data + at, n, path, e) != 0)
                return -1;
            at += n;
            x->done += n;
            if (x->progress && x->progress(x->ctx, x->done, x->total) != 0)
                return err_set(e, ERR_IO, "the export was stopped");
        }
        tensor_done(&it->t);
        for (size_t pad = aligned(it->n_bytes, alignment) - it->n_bytes; pad > 0;) {
            size_t n = pad < sizeof zeros ? pad : sizeof zeros;
            if (write_all(x, fd, zeros, n, path, e) != 0)
                return -1;
            pad -= n;
        }
    }
    return 0;
}

/* Writes out/name, still under another name: head, then with items the tensors. */
static int write_file(struct export *x, const char *name, const void *head, size_t n_head, bool items, size_t alignment,
                      uint64_t *bytes, struct err *e) {
    char temp_name[64];
    int k = x->n_files;
    snprintf(temp_name, sizeof temp_name, "%s.partial", name);
    if (file_join(x->files[k].temp, PATH_MAX, x->out, temp_name, e) != 0 ||
        file_join(x->files[k].path, PATH_MAX, x->out, name, e) != 0)
        return -1;
    const char *path = x->files[k].temp;
    int rc = -1, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return cannot_write(x, path, e);
    x->n_files++;
    /* A disk without room says so now and not after an hour; file systems that cannot promise room may go on. */
    size_t size = n_head + (items ? (size_t)x->total : 0);
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size) != 0 && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EINTR) {
        cannot_write(x, path, e);
        goto out;
    }
    if (write_all(x, fd, head, n_head, path, e) != 0 || (items && write_items(x, fd, alignment, path, e) != 0))
        goto out;
    off_t end = lseek(fd, 0, SEEK_CUR);
    if (end < 0 || fsync(fd) != 0) {
        cannot_write(x, path, e);
        goto out;
    }
    *bytes += (uint64_t)end;
    rc = 0;
out:
    if (close(fd) != 0 && rc == 0)
        rc = cannot_write(x, path, e);
    return rc;
}

static int write_hf(struct export *x, const char *model, uint64_t *bytes, struct err *e) {
    char path[PATH_MAX], *config = NULL;
    size_t n = 0;
    int rc = -1;
    struct wbuf head = {0};
    st_header(x, &head);
    if (head.bad) {
        err_set(e, ERR_MEMORY, "out of memory for the header of the export");
        goto out;
    }
    /* config.json last: without it a directory is no model. */
    if (file_join(path, sizeof path, model, "config.json", e) == 0 &&
        file_read(path, MAX_CONFIG, &config, &n, e) == 0 &&
        write_file(x, "model.safetensors", head.p, head.n, true, 1, bytes, e) == 0)
        rc = write_file(x, "config.json", config, n, false, 1, bytes, e);
out:
    free(config);
    wbuf_free(&head);
    return rc;
}

static int write_gguf(struct export *x, uint64_t *bytes, struct err *e) {
    struct wbuf head = {0};
    int rc = -1;
    gg_header(x, &head);
    if (head.bad)
        err_set(e, ERR_MEMORY, "out of memory for the header of the export");
    else
        rc = write_file(x, "middle.gguf", head.p, head.n, true, gg_alignment(weights_gguf(x->w)), bytes, e);
    wbuf_free(&head);
    return rc;
}

/* ---- the directory ---- */

static int sync_dir(const char *path, struct err *e) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "cannot open %s", path);
    /* Some file systems have no such thing for directories and say EINVAL. */
    int rc = fsync(fd) == 0 || errno == EINVAL ? 0 : err_sys(e, errno, "cannot write %s", path);
    close(fd);
    return rc;
}

static int open_out(struct export *x, struct err *e) {
    if (mkdir(x->out, 0755) == 0) {
        x->made_out = true;
        return 0;
    }
    if (errno != EEXIST)
        return err_sys(e, errno, "cannot make the directory %s", x->out);
    DIR *d = opendir(x->out);
    if (!d)
        return err_sys(e, errno, "cannot export to %s", x->out);
    int rc = 0;
    for (struct dirent *en; rc == 0 && (en = readdir(d));)
        if (strcmp(en->d_name, ".") != 0 && strcmp(en->d_name, "..") != 0)
            rc = err_set(e, ERR_USAGE,
                         "%s is not empty (it holds %.100s), and an export overwrites nothing; give a new directory",
                         x->out, en->d_name);
    closedir(d);
    return rc;
}

static int finish(struct export *x, struct err *e) {
    for (; x->n_renamed < x->n_files; x->n_renamed++)
        if (rename(x->files[x->n_renamed].temp, x->files[x->n_renamed].path) != 0)
            return err_sys(e, errno, "cannot rename %s", x->files[x->n_renamed].temp);
    return sync_dir(x->out, e);
}

static void discard(const struct export *x) {
    for (int i = 0; i < x->n_files; i++)
        unlink(i < x->n_renamed ? x->files[i].path : x->files[i].temp);
    if (x->made_out)
        rmdir(x->out);
}

int export_layers(struct weights *w, const char *model, int lo, int hi, const char *out,
                  int (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx, uint64_t *bytes,
                  struct err *e) {
    *bytes = 0;
    const struct model_config *c = weights_config(w);
    if (strncmp(weights_path(w), "random:", 7) == 0)
        return err_set(e, ERR_USAGE, "%s needs no export: every machine makes the same weights from its name",
                       weights_path(w));
    if (lo < 0 || lo >= hi || hi > c->n_layers)
        return err_set(e, ERR_USAGE, "no layers %d to %d to export in a model of %d", lo, hi, c->n_layers);
    struct export *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(e, ERR_MEMORY, "out of memory");
    *x = (struct export){.w = w, .out = out, .progress = progress, .ctx = ctx};

    uint64_t written = 0;
    int rc = -1;
    if (collect(x, lo, hi, e) == 0 && open_out(x, e) == 0) {
        rc = weights_gguf(w) ? write_gguf(x, &written, e) : write_hf(x, model, &written, e);
        rc = rc == 0 ? finish(x, e) : rc;
        if (rc != 0)
            discard(x);
    }
    if (rc == 0)
        *bytes = written;
    free(x->items);
    free(x);
    return rc;
}
