#include "core/model/shards.h"

#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum {
    MAX_INDEX = 64 << 20, /* bytes of an index file */
    MAX_FILES = 1024,
    MAX_FILE_NAME = 200,
};

struct shard {
    char *path;
    struct file_map map;
    struct safetensors *st; /* NULL: not opened yet */
};

struct shards {
    struct shard *files;
    size_t n;
    bool indexed;
    struct shard_index index;
    char *index_path;
};

/* A name from the index becomes part of a path: it must stay inside the directory. */
static bool plain_file_name(const char *s, size_t n) {
    static const char suffix[] = ".safetensors";
    size_t k = sizeof suffix - 1;
    if (n <= k || n > MAX_FILE_NAME || strlen(s) != n || s[0] == '.' || strcmp(s + n - k, suffix) != 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] == '/' || s[i] == '\\' || (unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    return true;
}

static int file_number(struct shard_index *x, const char *file, size_t *number, const char *name, struct err *e) {
    /* Shards come in order: the last file seen is nearly always the one. */
    for (size_t i = x->n_files; i-- > 0;) {
        if (strcmp(x->files[i], file) == 0) {
            *number = i;
            return 0;
        }
    }
    if (x->n_files == MAX_FILES)
        return err_set(e, ERR_MODEL, "%s: names more than %d files", name, MAX_FILES);
    x->files[x->n_files] = strdup(file);
    if (!x->files[x->n_files])
        return err_set(e, ERR_MEMORY, "out of memory reading %s", name);
    *number = x->n_files++;
    return 0;
}

static int by_tensor(const void *a, const void *b) {
    const struct shard_entry *x = a, *y = b;
    return strcmp(x->tensor, y->tensor);
}

static int read_weight_map(struct shard_index *x, yyjson_val *map, const char *name, struct err *e) {
    size_t n = yyjson_obj_size(map);
    if (n == 0)
        return err_set(e, ERR_MODEL, "%s: has no weight_map", name);
    x->entries = calloc(n, sizeof *x->entries);
    x->files = calloc(MAX_FILES, sizeof *x->files);
    if (!x->entries || !x->files)
        return err_set(e, ERR_MEMORY, "out of memory reading %s", name);
    size_t i, max;
    yyjson_val *key, *v;
    yyjson_obj_foreach(map, i, max, key, v) {
        const char *tensor = yyjson_get_str(key), *file = yyjson_get_str(v);
        if (strlen(tensor) != yyjson_get_len(key) || !*tensor)
            return err_set(e, ERR_MODEL, "%s: a tensor's name is empty or holds a NUL", name);
        if (!file || !plain_file_name(file, yyjson_get_len(v)))
            return err_set(
                e, ERR_MODEL,
                "%s: the file of tensor %.80s is given as \"%.80s\"; expected the plain name of a .safetensors "
                "file in the same directory",
                name, tensor, file ? file : "(no string)");
        struct shard_entry *en = &x->entries[x->n_entries];
        if (file_number(x, file, &en->file, name, e) != 0)
            return -1;
        en->tensor = strdup(tensor);
        if (!en->tensor)
            return err_set(e, ERR_MEMORY, "out of memory reading %s", name);
        x->n_entries++;
    }
    qsort(x->entries, x->n_entries, sizeof *x->entries, by_tensor);
    for (size_t k = 1; k < x->n_entries; k++)
        if (strcmp(x->entries[k - 1].tensor, x->entries[k].tensor) == 0)
            return err_set(e, ERR_MODEL, "%s: tensor %.80s stands twice in the weight_map", name, x->entries[k].tensor);
    return 0;
}

int shard_index_parse(struct shard_index *x, const char *json, size_t n, const char *name, struct err *e) {
    *x = (struct shard_index){0};
    yyjson_read_err why = {0};
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json, n, 0, NULL, &why);
    if (!doc)
        return err_set(e, why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? ERR_MEMORY : ERR_MODEL,
                       "%s: not JSON: %s at byte %zu", name, why.msg, why.pos);
    int rc = read_weight_map(x, yyjson_obj_get(yyjson_doc_get_root(doc), "weight_map"), name, e);
    yyjson_doc_free(doc);
    if (rc != 0)
        shard_index_free(x);
    return rc;
}

void shard_index_free(struct shard_index *x) {
    for (size_t i = 0; i < x->n_entries; i++)
        free(x->entries[i].tensor);
    for (size_t i = 0; i < x->n_files; i++)
        free(x->files[i]);
    free(x->entries);
    free(x->files);
    *x = (struct shard_index){0};
}

/* Maps a file and parses its header, unless that has been done. */
static int shard_open(struct shard *f, struct err *e) {
    if (f->st)
        return 0;
    if (file_map(&f->map, f->path, e) != 0)
        return -1;
    if (st_parse(&f->st, f->map.p, f->map.n, f->path, e) != 0) {
        file_unmap(&f->map);
        return -1;
    }
    return 0;
}

/* Sets up s->files for n file names of dir; opens nothing. */
static int add_files(struct shards *s, const char *dir, char *const *names, size_t n, struct err *e) {
    s->files = calloc(n + 1, sizeof *s->files);
    if (!s->files)
        return err_set(e, ERR_MEMORY, "out of memory for the files of %s", dir);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (file_join(path, sizeof path, dir, names[i], e) != 0)
            return -1;
        s->files[i].path = strdup(path);
        if (!s->files[i].path)
            return err_set(e, ERR_MEMORY, "out of memory for the files of %s", dir);
        s->n++;
    }
    return 0;
}

static int open_index(struct shards *s, const char *dir, const char *path, struct err *e) {
    char *json = NULL;
    size_t n = 0;
    int rc = -1;
    s->indexed = true;
    s->index_path = strdup(path);
    if (!s->index_path) {
        err_set(e, ERR_MEMORY, "out of memory for %s", path);
        goto out;
    }
    if (file_read(path, MAX_INDEX, &json, &n, e) != 0 || shard_index_parse(&s->index, json, n, path, e) != 0)
        goto out;
    rc = add_files(s, dir, s->index.files, s->index.n_files, e);
out:
    free(json);
    return rc;
}

static int by_string(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* No index: every .safetensors file of the directory, all opened now, for nothing else says what is where. */
static int open_loose(struct shards *s, const char *dir, struct err *e) {
    char *names[MAX_FILES];
    size_t n = 0;
    int rc = -1;
    DIR *d = opendir(dir);
    if (!d)
        return err_sys(e, errno, "cannot read the directory %s", dir);
    for (struct dirent *en; (en = readdir(d));) {
        if (!plain_file_name(en->d_name, strlen(en->d_name)))
            continue;
        if (n == MAX_FILES) {
            err_set(e, ERR_MODEL, "%s: more than %d .safetensors files and no index", dir, MAX_FILES);
            goto out;
        }
        names[n] = strdup(en->d_name);
        if (!names[n]) {
            err_set(e, ERR_MEMORY, "out of memory for the files of %s", dir);
            goto out;
        }
        n++;
    }
    if (n == 0) {
        err_set(e, ERR_MODEL,
                "%s: has a config.json but no weights: expected model.safetensors, model.safetensors.index.json with "
                "its files, or other .safetensors files (other formats have to be converted)",
                dir);
        goto out;
    }
    qsort(names, n, sizeof *names, by_string);
    if (add_files(s, dir, names, n, e) != 0)
        goto out;
    for (size_t i = 0; i < s->n; i++)
        if (shard_open(&s->files[i], e) != 0)
            goto out;
    rc = 0;
out:
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    closedir(d);
    return rc;
}

int shards_open(struct shards **out, const char *dir, struct err *e) {
    *out = NULL;
    char path[PATH_MAX];
    struct shards *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_MEMORY, "out of memory opening %s", dir);
    int rc = file_join(path, sizeof path, dir, "model.safetensors.index.json", e);
    if (rc == 0 && file_exists(path)) {
        rc = open_index(s, dir, path, e);
    } else if (rc == 0 && (rc = file_join(path, sizeof path, dir, "model.safetensors", e)) == 0) {
        char *one = (char *)(uintptr_t) "model.safetensors";
        if (file_exists(path))
            rc = add_files(s, dir, &one, 1, e) == 0 ? shard_open(&s->files[0], e) : -1;
        else
            rc = open_loose(s, dir, e);
    }
    if (rc != 0) {
        shards_free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void shards_free(struct shards *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        st_free(s->files[i].st);
        file_unmap(&s->files[i].map);
        free(s->files[i].path);
    }
    free(s->files);
    shard_index_free(&s->index);
    free(s->index_path);
    free(s);
}

static const struct shard_entry *index_find(const struct shard_index *x, const char *tensor) {
    struct shard_entry key = {.tensor = (char *)(uintptr_t)tensor};
    return bsearch(&key, x->entries, x->n_entries, sizeof *x->entries, by_tensor);
}

static int find_loose(struct shards *s, const char *tensor, struct shard **f, struct err *e) {
    *f = NULL;
    for (size_t i = 0; i < s->n; i++) {
        if (!st_find(s->files[i].st, tensor))
            continue;
        if (*f)
            return err_set(e, ERR_MODEL, "tensor %s is in both %.150s and %.150s; remove one of them", tensor,
                           (*f)->path, s->files[i].path);
        *f = &s->files[i];
    }
    return 0;
}

int shards_find(struct shards *s, const char *tensor, struct shard_tensor *out, struct err *e) {
    *out = (struct shard_tensor){0};
    struct shard *f = NULL;
    if (s->indexed) {
        const struct shard_entry *en = index_find(&s->index, tensor);
        if (en) {
            f = &s->files[en->file];
            if (shard_open(f, e) != 0)
                return err_wrap(e, "tensor %s", tensor);
            if (!st_find(f->st, tensor))
                return err_set(e, ERR_MODEL, "tensor %s is not in %.180s, although %.180s says so", tensor, f->path,
                               s->index_path);
        }
    } else if (find_loose(s, tensor, &f, e) != 0) {
        return -1;
    }
    if (!f)
        return 0;
    out->t = st_find(f->st, tensor);
    out->file = f->path;
    out->data = st_in_file(f->st, out->t) ? f->map.p + out->t->begin : NULL;
    out->file_size = f->map.n;
    return 1;
}

bool shards_has(const struct shards *s, const char *tensor) {
    if (s->indexed)
        return index_find(&s->index, tensor) != NULL;
    for (size_t i = 0; i < s->n; i++)
        if (st_find(s->files[i].st, tensor))
            return true;
    return false;
}

bool shards_file_there(const struct shards *s, const char *tensor) {
    const struct shard_entry *en = s->indexed ? index_find(&s->index, tensor) : NULL;
    return en ? s->files[en->file].st || file_exists(s->files[en->file].path) : shards_has(s, tensor);
}
